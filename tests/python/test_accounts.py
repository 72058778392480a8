"""AccountsStorage, beside what the cases tell."""

import asyncio
import copy
import math
import pickle
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil import AccountsStorage
from counterfoil.testing import Stage
from redis_servers import own_prefix
from support import PLACES, Bare, url_of

RING = {7: bytes(range(32))}
AT = datetime(2026, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)
BACKENDS = (*PLACES, "python")


def target(kind: str, folder: Path, stage: Stage | None = None) -> Any:
    if kind == "sqlite":
        return f"sqlite:{folder}/test.db"
    return Bare(stage) if kind == "python" else url_of(kind)


@contextmanager
def opened(kind: str, folder: Path, **options: Any) -> Iterator[counterfoil.Store]:
    with counterfoil.open(target(kind, folder), prefix=own_prefix(), timeout=20, **options) as store:
        yield store


over_all = pytest.mark.parametrize("kind", BACKENDS)


@pytest.fixture
def accounts(stage: Stage) -> Iterator[AccountsStorage]:
    with counterfoil.open("memory:", stage=stage) as store:
        yield AccountsStorage(store)


def test_objects(accounts: AccountsStorage) -> None:
    ann = accounts.create_user(
        user_info={"name": "Ann"}, email="Canary@example.org", hashed_password="canary hash", extra_fields={"a": [1]}
    )
    account = accounts.create_social_account(
        user_id=ann.id, provider="github", provider_user_id="1", access_token="canary", refresh_token="canary",
        provider_email="canary@example.org", user_info={"canary": 1},
    )  # fmt: skip
    for each in (ann, account):
        assert "canary" not in repr(each).lower()
        assert not hasattr(each, "__dict__")
        with pytest.raises(AttributeError):
            each.id = "other"  # type: ignore[misc]
        with pytest.raises(AttributeError):
            each.color = "red"  # type: ignore[union-attr]
    ann.user_info["name"] = "Eve"
    ann.extra_fields["a"].append(2)
    assert (ann.user_info, ann.extra_fields) == ({"name": "Ann"}, {"a": [1]}), "copies"
    assert isinstance(ann.id, str)
    assert ann.social_accounts == [account] == accounts.list_social_accounts(user_id=ann.id)
    assert accounts.find_user_by_id(ann.id) == ann
    assert len({ann, accounts.find_user_by_id(ann.id)}) == 1
    assert ann != account
    assert pickle.loads(pickle.dumps(account)) == account
    assert ann.created_at.tzinfo is UTC
    assert ann.has_usable_password
    assert not accounts.update_user(ann.id, hashed_password=None).has_usable_password
    accounts.delete_social_account(account.id)
    assert ann.social_accounts == [], "asked for each time"


def test_the_old_form_of_cross_auth(accounts: AccountsStorage) -> None:
    ann = accounts.create_user(user_info={"email": "Ann@example.org", "email_verified": True})
    assert (ann.email, ann.email_verified) == ("Ann@example.org", False)
    assert accounts.create_user(user_info={"name": "Bob"}).email is None
    for wrong in (5, ["a@b"], {"email": 1}):
        with pytest.raises(counterfoil.InvalidTypeError):
            accounts.create_user(user_info={"email": wrong})
    account = accounts.create_social_account(
        user_id=ann.id, provider="p", provider_user_id="1", access_token=None, refresh_token=None,
        access_token_expires_at=None, refresh_token_expires_at=None, scope=None, user_info={},
    )  # fmt: skip
    assert (account.is_login_method, account.provider_email, account.provider_email_verified) == (True, None, None)
    changed = accounts.update_social_account(
        account.id, access_token="a", refresh_token=None, access_token_expires_at=AT, refresh_token_expires_at=None,
        scope="s", user_info={"a": 1},
    )  # fmt: skip
    assert (changed.access_token, changed.access_token_expires_at, changed.user_info) == ("a", AT, {"a": 1})


def test_instants(accounts: AccountsStorage) -> None:
    ann = accounts.create_user(user_info={})
    for number, (given, kept) in enumerate(
        [
            (AT, AT),
            (AT.astimezone(timezone(timedelta(hours=5, minutes=45))), AT),
            (AT.replace(tzinfo=None), AT),  # naive: UTC
            (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)),
            (datetime(2255, 1, 1, 0, 0, 0, 1), datetime(2255, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        ]
    ):
        account = accounts.create_social_account(
            user_id=ann.id, provider="p", provider_user_id=str(number), access_token_expires_at=given
        )
        assert account.access_token_expires_at == kept
        found = accounts.find_social_account_by_id(account.id)
        assert found is not None
        assert found.access_token_expires_at == kept
        assert found.access_token_expires_at.tzinfo is UTC
    for wrong in (5, "now", True, AT.date(), [AT]):
        with pytest.raises(counterfoil.InvalidTypeError, match="access_token_expires_at must be a datetime"):
            accounts.update_social_account(account.id, access_token_expires_at=wrong)  # type: ignore[arg-type]
    for out in (datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), datetime.max, datetime.min):
        with pytest.raises(counterfoil.InvalidError):
            accounts.update_social_account(account.id, access_token_expires_at=out)
    assert accounts.find_social_account_by_id(account.id) == account


def test_ids_of_other_types(accounts: AccountsStorage) -> None:
    ann = accounts.create_user(user_info={}, email="ann@example.org")
    account = accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id=1234)  # type: ignore[arg-type]
    assert account.provider_user_id == "1234"
    assert accounts.find_social_account(provider="p", provider_user_id="1234") == account
    assert accounts.find_social_account(provider="p", provider_user_id=1234) == account  # type: ignore[arg-type]
    for nobody in (1, uuid.UUID(int=1), None, True, 1.5, b"1", object(), [ann.id], "\ud800", "", 10**5000, ann):
        assert accounts.find_user_by_id(nobody) is None
        assert accounts.find_social_account_by_id(nobody) is None
        assert accounts.list_social_accounts(user_id=nobody) == []
        assert accounts.find_social_account(provider="p", provider_user_id=nobody) is None  # type: ignore[arg-type]
        assert accounts.delete_user(nobody) is False
        accounts.delete_social_account(nobody)
        with pytest.raises((counterfoil.MissingError, counterfoil.InvalidError)):
            accounts.update_user(nobody, email_verified=True)
        with pytest.raises((counterfoil.MissingError, counterfoil.InvalidError)):
            accounts.create_social_account(user_id=nobody, provider="p", provider_user_id="2")
    assert accounts.find_user_by_email("\ud800") is None
    assert accounts.find_social_account(provider="\ud800", provider_user_id="1") is None
    assert accounts.find_user_by_id(uuid.UUID(ann.id)) is None, "its text has dashes"
    assert accounts.list_social_accounts(user_id=ann.id) == [account]


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("fields", "wrong_type"),
    [
        ({"email": 5}, True),
        ({"email": b"a@b"}, True),
        ({"email": "canary\x00"}, False),
        ({"email": ""}, False),
        ({"email": " \t"}, False),
        ({"email": "canary" * 100}, False),
        ({"email": "canary\ud800"}, False),
        ({"email_verified": 1}, True),
        ({"email_verified": None}, False),
        ({"hashed_password": b"canary"}, True),
        ({"hashed_password": "canary\x00"}, False),
        ({"hashed_password": "canary" * 20_000}, False),
        ({"user_info": {"canary": math.nan}}, False),
        ({"user_info": {"canary": {1, 2}}}, True),
        ({"user_info": circle()}, False),
        ({"user_info": {"canary": "x" * 300_000}}, False),
        ({"extra_fields": {"canary": b"x"}}, True),
    ],
    ids=str,
)
def test_bad_input_changes_nothing(accounts: AccountsStorage, fields: dict[str, Any], wrong_type: bool) -> None:
    ann = accounts.create_user(user_info={}, email="ann@example.org")
    for call in (
        lambda: accounts.create_user(**{"user_info": {}, **fields}),
        lambda: accounts.update_user(ann.id, **fields),
        lambda: accounts.find_or_create_by_social_account(provider="p", provider_user_id="1", user=fields),  # type: ignore[arg-type]
    ):
        with pytest.raises(counterfoil.InvalidError) as caught:
            call()
        assert isinstance(caught.value, TypeError) == wrong_type
        assert caught.value.outcome == "not_applied"
        assert "canary" not in str(caught.value)
        assert caught.value.__context__ is None
    assert accounts.find_user_by_id(ann.id) == ann
    assert accounts.find_social_account(provider="p", provider_user_id="1") is None


def test_wrong_calls(accounts: AccountsStorage) -> None:
    for user in (5, "a", [("email", "a@b")]):
        with pytest.raises(counterfoil.InvalidTypeError, match="user must be a dict"):
            accounts.find_or_create_by_social_account(provider="p", provider_user_id="1", user=user)  # type: ignore[arg-type]
    with pytest.raises(counterfoil.InvalidError, match="a user that is made has"):
        accounts.find_or_create_by_social_account(provider="p", provider_user_id="1", user={"e-mail": "a"})  # type: ignore[typeddict-unknown-key]
    for provider in (5, None, b"p"):
        with pytest.raises(counterfoil.InvalidError):
            accounts.find_social_account(provider=provider, provider_user_id="1")  # type: ignore[arg-type]
    with pytest.raises(counterfoil.InvalidTypeError):
        accounts.find_user_by_email(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        accounts.create_user({})  # type: ignore[misc]


def test_errors_and_what_they_bring(accounts: AccountsStorage) -> None:
    ann = accounts.create_user(user_info={}, email="ann@example.org")
    bob = accounts.create_user(user_info={}, email="bob@example.org")
    one = accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id="1", access_token="canary")
    for call, existing in (
        (lambda: accounts.create_user(user_info={}, email=" ANN@example.org"), ann),
        (lambda: accounts.update_user(bob.id, email="ann@example.org"), ann),
        (lambda: accounts.create_social_account(user_id=bob.id, provider="p", provider_user_id="1"), one),
        (
            lambda: accounts.find_or_create_by_social_account(
                provider="p", provider_user_id="2", user={"email": "Bob@example.org"}
            ),
            bob,
        ),
    ):
        with pytest.raises(counterfoil.ExistsError) as caught:
            call()
        error = caught.value
        assert (error.code, error.outcome, error.existing) == ("EXISTS", "not_applied", existing)
        assert isinstance(error, ValueError)
        assert "canary" not in str(error) + repr(error)
        assert "ann" not in str(error)
    assert caught.value.existing.social_accounts == []
    with pytest.raises(counterfoil.MissingError) as missing:
        accounts.update_social_account("f" * 32, access_token="canary")
    assert isinstance(missing.value, ValueError)
    assert (missing.value.code, "canary" in str(missing.value)) == ("MISSING", False)
    with pytest.raises(counterfoil.MissingError):
        accounts.create_social_account(user_id="f" * 32, provider="p", provider_user_id="3")


@over_all
def test_tokens_are_sealed(kind: str, tmp_path: Path) -> None:
    backend: Any = target(kind, tmp_path)
    prefix = own_prefix()
    with counterfoil.open(backend, prefix=prefix, keys=RING) as store:
        accounts = AccountsStorage(store)
        user, account, _ = accounts.find_or_create_by_social_account(
            provider="p", provider_user_id="1", access_token="canary access", refresh_token="canary refresh", user={}
        )
        accounts.update_social_account(account.id, access_token="canary again")
        (found,) = accounts.list_social_accounts(user_id=user.id)
        assert (found.access_token, found.refresh_token) == ("canary again", "canary refresh")
        if kind == "sqlite":
            assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())
        if kind == "python":
            assert "canary" not in str(backend.data)
        with counterfoil.open(backend, prefix=prefix) as plain:
            with pytest.raises(counterfoil.CorruptError) as caught:
                AccountsStorage(plain).find_social_account_by_id(account.id)
            assert "canary" not in str(caught.value)
        with counterfoil.open(backend, prefix=prefix, keys={8: bytes(32), **RING}) as newer:
            assert AccountsStorage(newer).find_social_account_by_id(account.id) == found


@over_all
def test_one_of_many_threads_is_first(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as store:
        accounts = AccountsStorage(store)
        answers: list[tuple[str, str, bool]] = []
        users: list[str] = []

        def work() -> None:
            for number in range(10):
                user, account, made = accounts.find_or_create_by_social_account(
                    provider="p", provider_user_id=str(number), user={"email": f"{number}@example.org"}
                )
                assert account.user_id == user.id
                answers.append((user.id, account.id, made))
                try:
                    users.append(accounts.create_user(user_info={}, email=f"own{number}@example.org").id)
                except counterfoil.ExistsError as error:
                    assert error.existing == accounts.find_user_by_email(f"OWN{number}@example.org")

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(answers) == 60
        assert len({(user, account) for user, account, _ in answers}) == 10
        assert sum(made for *_, made in answers) == 10
        assert len(users) == 10


@over_all
def test_asyncio(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open(target(kind, tmp_path), prefix=own_prefix(), keys=RING) as store:
            accounts = counterfoil.aio.AccountsStorage(store, max_social_accounts=2)
            answers = await asyncio.gather(
                *(
                    accounts.find_or_create_by_social_account(
                        provider="p", provider_user_id="1", access_token="token", user={"email": "Ann@example.org"}
                    )
                    for _ in range(10)
                )
            )
            assert sum(made for *_, made in answers) == 1
            assert len({account.id for _, account, _ in answers}) == 1
            ann, one, _ = answers[0]
            assert ann.social_accounts == [one]
            assert (
                (await accounts.find_user_by_email("ann@EXAMPLE.org")) == ann == await accounts.find_user_by_id(ann.id)
            )
            two = await accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id="2")
            assert ann.social_accounts == [one], "as it was read"
            again = await accounts.update_user(ann.id, email_verified=True)
            assert (set(again.social_accounts), again.email_verified) == ({one, two}, True)  # of one millisecond
            with pytest.raises(counterfoil.LimitError) as full:
                await accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id="3")
            assert (full.value.code, full.value.outcome) == ("LIMIT", "not_applied")
            with pytest.raises(counterfoil.ExistsError) as taken:
                await accounts.create_user(user_info={}, email="ann@example.org")
            assert taken.value.existing == again
            assert set(taken.value.existing.social_accounts) == {one, two}
            with pytest.raises(counterfoil.ExistsError) as linked:
                await accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id="2")
            assert linked.value.existing == two
            changed = await accounts.update_social_account(one.id, access_token="newer", access_token_expires_at=AT)
            assert (changed.access_token, changed.access_token_expires_at) == ("newer", AT)
            assert await accounts.find_social_account(provider="p", provider_user_id="1") == changed
            assert await accounts.find_social_account_by_id(one.id) == changed
            assert (await accounts.create_user(user_info={})).social_accounts == []
            assert await accounts.find_user_by_id(None) is None
            with pytest.raises(counterfoil.MissingError):
                await accounts.update_social_account(None)
            await accounts.delete_social_account(two.id)
            assert await accounts.list_social_accounts(user_id=ann.id) == [changed]
            assert await accounts.delete_user(ann.id) is True
            assert await accounts.find_social_account_by_id(one.id) is None

    asyncio.run(main())


def test_the_right_kind_of_store(accounts: AccountsStorage) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as store:
            for kind in (AccountsStorage, counterfoil.SessionStorage):
                with pytest.raises(counterfoil.InvalidTypeError, match="not AsyncStore"):
                    kind(store)  # type: ignore[arg-type]
        with counterfoil.open("memory:") as plain:
            for other in (counterfoil.aio.AccountsStorage, counterfoil.aio.SessionStorage):
                with pytest.raises(counterfoil.InvalidTypeError, match="not Store"):
                    other(plain)  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_backend_that_shares_its_data_with_others_keeps_no_records() -> None:
    class Shared(Bare):
        single_process = False

    with (
        counterfoil.open(Shared()) as store,
        pytest.raises(counterfoil.NotSupportedError, match="single_process"),
    ):
        AccountsStorage(store).create_user(user_info={})


def test_the_address_of_a_user_that_is_made_with_an_account_is_the_one_that_was_said() -> None:
    """What the provider says in user_info need not be true."""
    with counterfoil.open("memory:") as store:
        accounts = AccountsStorage(store)
        said: list[counterfoil.NewUser] = [{}, {"email": None}]
        for number, user in enumerate(said):
            user["user_info"] = {"email": "somebody@example.org"}
            made, _, created = accounts.find_or_create_by_social_account(
                provider="p", provider_user_id=str(number), user=user
            )
            assert (created, made.email) == (True, None)
        assert accounts.find_user_by_email("somebody@example.org") is None


def test_json_with_half_a_character_comes_back_as_it_was_given() -> None:
    """json.loads makes such text of a name that a provider has cut."""
    with counterfoil.open("memory:") as store:
        accounts = AccountsStorage(store)
        for info in ({"name": "Ad\ud83d"}, {"\ude00": ["ü", "\udfff"]}):
            user = accounts.create_user(user_info=info)
            assert user.user_info == info
            assert accounts.update_user(user.id, extra_fields=user.user_info).extra_fields == info


def test_a_copy_of_a_user_is_that_user() -> None:
    with counterfoil.open("memory:") as store:
        accounts = AccountsStorage(store)
        user, account, _ = accounts.find_or_create_by_social_account(provider="p", provider_user_id="1")
        for copied in (copy.copy(user), copy.deepcopy(user), copy.deepcopy({"user": user})["user"]):
            assert (copied, copied.social_accounts) == (user, [account])
