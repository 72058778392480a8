"""AccountsStorage over an application's own tables."""

import asyncio
import gc
import threading
import uuid
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
import trio
from counterfoil import AccountsStorage
from counterfoil.testing import Stage

RING = {7: bytes(range(32))}
AT = datetime(2026, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)


class Tables:
    """Rows in two dicts, with integers for ids, and a note of every call."""

    def __init__(self) -> None:
        self.users: dict[int, SimpleNamespace] = {}
        self.accounts: dict[int, SimpleNamespace] = {}
        self.calls: list[tuple[str, Any]] = []

    def find_user_by_email(self, email: str) -> Any:
        self.calls.append(("find_user_by_email", email))
        return next((user for user in self.users.values() if user.email_key == email), None)

    def find_user_by_id(self, id: str) -> Any:
        self.calls.append(("find_user_by_id", id))
        return self.users.get(int(id)) if id.isdigit() else None

    def create_user(self, *, email_key: str | None, **fields: Any) -> Any:
        self.calls.append(("create_user", {"email_key": email_key, **fields}))
        there = next((user for user in self.users.values() if user.email_key == email_key), None)
        if there and email_key is not None:
            raise counterfoil.ExistsError("there is a user with this address", existing=there)
        user = SimpleNamespace(id=len(self.users) + 1, email_key=email_key, created_at=AT, updated_at=AT, **fields)
        self.users[user.id] = user
        return user

    def update_user(self, id: str, **changes: Any) -> Any:
        self.calls.append(("update_user", changes))
        user = self.users.get(int(id))
        if user is not None:
            vars(user).update(changes)
        return user

    def delete_user(self, id: str) -> bool:
        return self.users.pop(int(id), None) is not None

    def find_social_account(self, *, provider: str, provider_user_id: str) -> Any:
        for account in self.accounts.values():
            if (account.provider, account.provider_user_id) == (provider, provider_user_id):
                return account
        return None

    def find_social_account_by_id(self, social_account_id: str) -> Any:
        self.calls.append(("find_social_account_by_id", social_account_id))
        return self.accounts.get(int(social_account_id)) if social_account_id.isdigit() else None

    def list_social_accounts(self, *, user_id: str) -> Any:
        return (account for account in self.accounts.values() if str(account.user_id) == user_id)

    def create_social_account(self, *, user_id: str, **fields: Any) -> Any:
        account = SimpleNamespace(id=len(self.accounts) + 1, user_id=int(user_id), **fields)
        self.accounts[account.id] = account
        return account

    def update_social_account(self, social_account_id: str, **changes: Any) -> Any:
        self.calls.append(("update_social_account", changes))
        account = self.accounts.get(int(social_account_id))
        if account is not None:
            vars(account).update(changes)
        return account

    def delete_social_account(self, social_account_id: str) -> None:
        self.accounts.pop(int(social_account_id), None)


class Later:
    """The same with coroutine functions."""

    def __init__(self, tables: Tables, checkpoint: Callable[[], Any] = lambda: asyncio.sleep(0)) -> None:
        self.tables = tables
        self.checkpoint = checkpoint

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.tables, name)

        async def later(*args: Any, **more: Any) -> Any:
            await self.checkpoint()
            return method(*args, **more)

        later.__signature__ = __import__("inspect").signature(method)  # type: ignore[attr-defined]
        return later


class Blocking:
    """One way to tell a story to both forms."""

    @staticmethod
    def run(story: Callable[..., Any], **options: Any) -> Tables:
        tables = Tables()

        class Awaited:
            def __init__(self, storage: Any) -> None:
                self.storage = storage

            def __getattr__(self, name: str) -> Any:
                async def call(*args: Any, **more: Any) -> Any:
                    return getattr(self.storage, name)(*args, **more)

                return call

        coroutine = story(Awaited(AccountsStorage(tables, **options)), tables)
        with pytest.raises(StopIteration):
            coroutine.send(None)
        return tables


class Asyncio:
    @staticmethod
    def run(story: Callable[..., Any], **options: Any) -> Tables:
        tables = Tables()

        async def main() -> None:
            await story(counterfoil.aio.AccountsStorage(Later(tables), **options), tables)

        asyncio.run(main())
        return tables


class AsyncioPlain:
    """Plain methods under asyncio."""

    @staticmethod
    def run(story: Callable[..., Any], **options: Any) -> Tables:
        tables = Tables()

        async def main() -> None:
            await story(counterfoil.aio.AccountsStorage(tables, **options), tables)

        asyncio.run(main())
        return tables


class Trio:
    @staticmethod
    def run(story: Callable[..., Any], **options: Any) -> Tables:
        tables = Tables()

        async def main() -> None:
            hooks = Later(tables, trio.lowlevel.checkpoint)
            await story(counterfoil.aio.AccountsStorage(hooks, **options), tables)

        trio.run(main)
        return tables


every_form = pytest.mark.parametrize("form", [Blocking, Asyncio, AsyncioPlain, Trio])


@every_form
def test_users(form: Any) -> None:
    async def story(accounts: Any, tables: Tables) -> None:
        ann = await accounts.create_user(
            user_info={"name": "Ann", "é": [1, None]},
            email=" Ann@Example.org",
            email_verified=True,
            extra_fields={"plan": "free"},
            hashed_password="hash",
        )
        assert (ann.id, ann.email, ann.email_verified, ann.hashed_password) == ("1", " Ann@Example.org", True, "hash")
        assert (ann.user_info, ann.extra_fields) == ({"name": "Ann", "é": [1, None]}, {"plan": "free"})
        assert (ann.created_at, ann.has_usable_password, ann.social_accounts) == (AT, True, [])
        assert tables.calls[0] == (
            "create_user",
            {
                "email": " Ann@Example.org",
                "email_key": "ann@example.org",
                "email_verified": True,
                "user_info": {"name": "Ann", "é": [1, None]},
                "extra_fields": {"plan": "free"},
                "hashed_password": "hash",
            },
        )
        assert await accounts.find_user_by_email("ANN@example.ORG ") == ann
        assert ("find_user_by_email", "ann@example.org") in tables.calls
        assert await accounts.find_user_by_id("1") == ann == await accounts.find_user_by_id(1)
        for nobody in ("2", "nonsense", "", "a\nb", "x" * 600, None, 1.5, object(), "\ud800"):
            assert await accounts.find_user_by_id(nobody) is None
        assert await accounts.find_user_by_email("not \0 one") is None
        with pytest.raises(counterfoil.ExistsError) as caught:
            await accounts.create_user(user_info={}, email="ann@EXAMPLE.org")
        assert caught.value.existing is tables.users[1], "as it was thrown"
        ann = await accounts.update_user("1", email="new@example.org", hashed_password=None)
        assert (ann.email, ann.hashed_password, ann.email_verified) == ("new@example.org", None, True)
        assert not ann.has_usable_password
        assert tables.calls[-1] == ("update_user", {"email": "new@example.org", "hashed_password": None})
        with pytest.raises(counterfoil.MissingError, match="there is no such user"):
            await accounts.update_user("9", email="x@example.org")
        assert await accounts.delete_user("1") is True
        assert await accounts.delete_user("1") is False

    form.run(story)


@every_form
@pytest.mark.parametrize("keys", [None, RING], ids=["plain", "sealed"])
def test_social_accounts(form: Any, keys: Any) -> None:
    async def story(accounts: Any, tables: Tables) -> None:
        ann = await accounts.create_user(user_info={"email": "ann@example.org"})
        made = await accounts.create_social_account(
            user_id=ann.id,
            provider="github",
            provider_user_id="1234",
            access_token="access canary",
            refresh_token="refresh canary",
            access_token_expires_at=AT,
            refresh_token_expires_at=None,
            scope="user repo",
            user_info={"login": "ann"},
            provider_email="ann@example.org",
            provider_email_verified=True,
            is_login_method=False,
        )
        assert (made.id, made.user_id, made.is_login_method) == ("1", "1", False)
        assert (made.access_token, made.refresh_token) == ("access canary", "refresh canary")
        assert made.access_token_expires_at == AT
        row = tables.accounts[1]
        assert row.access_token_expires_at == AT
        assert ("canary" in str(vars(row))) == (keys is None)
        for again in (
            await accounts.find_social_account(provider="github", provider_user_id="1234"),
            await accounts.find_social_account_by_id("1"),
            *await accounts.list_social_accounts(user_id=ann.id),
            *(await accounts.find_user_by_id(ann.id)).social_accounts,
        ):
            assert again == made
        sealed = row.refresh_token
        changed = await accounts.update_social_account(
            "1", access_token="another canary", access_token_expires_at=None, scope=None
        )
        assert (changed.access_token, changed.refresh_token, changed.scope) == (
            "another canary",
            "refresh canary",
            None,
        )
        assert row.refresh_token == sealed
        assert ("canary" in str(vars(row))) == (keys is None)
        assert set(tables.calls[-1][1]) == {"access_token", "access_token_expires_at", "scope"}
        cleared = await accounts.update_social_account("1", access_token=None, refresh_token=None)
        assert (cleared.access_token, cleared.refresh_token) == (None, None)
        for missing in ("9", "nonsense", 9, None):
            with pytest.raises(counterfoil.MissingError) as caught:
                await accounts.update_social_account(missing, access_token="x")
            assert caught.value.outcome == "not_applied"
        assert await accounts.delete_social_account("1") is None
        assert await accounts.delete_social_account("1") is None
        assert await accounts.find_social_account_by_id("1") is None

    async def careful(accounts: Any, tables: Tables) -> None:
        tables.update_social_account = careful_update(tables)  # type: ignore[method-assign]
        await story(accounts, tables)

    def careful_update(tables: Tables) -> Any:
        plain = tables.update_social_account
        return lambda id, **changes: plain(id, **changes) if id.isdigit() else None

    form.run(careful, keys=keys)


@every_form
def test_a_token_opens_in_its_own_place_only(form: Any) -> None:
    async def story(accounts: Any, tables: Tables) -> None:
        await accounts.create_user(user_info={})
        for number in ("1", "2"):
            await accounts.create_social_account(
                user_id="1", provider="p", provider_user_id=number, access_token="token " + number, refresh_token="r"
            )
        first, second = tables.accounts.values()
        first.access_token, second.access_token = second.access_token, first.access_token
        with pytest.raises(counterfoil.CorruptError):
            await accounts.find_social_account_by_id("1")
        first.access_token, second.access_token = second.access_token, first.access_token
        assert (await accounts.find_social_account_by_id("1")).access_token == "token 1"
        first.access_token = "plain"
        with pytest.raises(counterfoil.CorruptError):
            await accounts.find_social_account_by_id("1")
        first.access_token, first.refresh_token = first.refresh_token, None
        with pytest.raises(counterfoil.CorruptError):
            await accounts.find_social_account_by_id("1")

    form.run(story, keys=RING)


@every_form
def test_what_is_thrown_comes_back_as_it_is(form: Any) -> None:
    class Mine(Exception):
        pass

    thrown = Mine("mine")

    async def story(accounts: Any, tables: Tables) -> None:
        def fail(*args: Any, **more: Any) -> Any:
            raise thrown

        for name in ("find_user_by_id", "update_user", "update_social_account", "find_social_account_by_id"):
            setattr(tables, name, fail)
        for call in (
            accounts.find_user_by_id("1"),
            accounts.update_user("1", email_verified=True),
            accounts.update_social_account("1", access_token="x"),
            accounts.update_social_account("1", scope="x"),
        ):
            with pytest.raises(Mine) as caught:
                await call
            assert caught.value is thrown

    form.run(story, keys=RING)


BAD: list[tuple[str, Any, str]] = [
    ("find_user_by_id", 5, "Tables.find_user_by_id must return a user, not int"),
    ("find_user_by_id", {}, "Tables.find_user_by_id gave a user without id"),
    ("find_user_by_id", {"id": None}, "Tables.find_user_by_id gave a user without id"),
    ("find_user_by_id", {"id": "1", "email": 5}, "Tables.find_user_by_id must give email as str, not int"),
    ("find_user_by_id", {"id": "1", "email_verified": 1}, "email_verified as bool, not int"),
    ("find_user_by_id", {"id": "1", "user_info": {1, 2}}, "user_info as JSON, not set"),
    ("find_user_by_id", {"id": "1", "created_at": "now"}, "created_at as datetime, not str"),
    ("find_user_by_id", {"id": True}, "id"),
    ("create_user", None, "Tables.create_user must return a user, not NoneType"),
    ("delete_user", 1, "Tables.delete_user must return bool or None, not int"),
    ("list_social_accounts", None, "Tables.list_social_accounts must return social accounts, not NoneType"),
    ("list_social_accounts", "canary", "Tables.list_social_accounts must return social accounts, not str"),
    ("find_or_create_by_social_account", None, "must return .user, social account, whether they were made., not"),
]


@every_form
@pytest.mark.parametrize(("method", "given", "sentence"), BAD, ids=lambda each: None)
def test_a_wrong_result_is_told(form: Any, method: str, given: Any, sentence: str) -> None:
    arguments: dict[str, Any] = {
        "find_user_by_id": {"id": "1"},
        "create_user": {"user_info": {}},
        "delete_user": {"user_id": "1"},
        "list_social_accounts": {"user_id": "1"},
        "find_or_create_by_social_account": {"provider": "p", "provider_user_id": "1", "user": {}},
    }

    class Made(Tables):
        pass

    async def story(accounts: Any, tables: Tables) -> None:
        with pytest.raises(counterfoil.CorruptError, match=sentence.replace("Tables", "(Tables|Later)")) as caught:
            await getattr(accounts, method)(**arguments[method])
        assert "canary" not in str(caught.value)

    original = getattr(Tables, method, None)
    try:
        setattr(Tables, method, lambda *args, **more: given)
        form.run(story)
    finally:
        if original is None:
            delattr(Tables, method)
        else:
            setattr(Tables, method, original)


def test_the_oldest_form() -> None:
    """As Cross Auth 0.2 has it: create_user(*, user_info), and nothing of what came later."""

    class Old:
        def find_user_by_email(self, email: str) -> Any:
            return None

        def create_user(self, *, user_info: dict[str, Any]) -> Any:
            self.info = user_info
            return SimpleNamespace(id=uuid.UUID(int=1), email=user_info["email"], hashed_password=None)

        def create_social_account(
            self,
            *,
            user_id: Any,
            provider: str,
            provider_user_id: str,
            access_token: str | None,
            refresh_token: str | None,
            access_token_expires_at: datetime | None,
            refresh_token_expires_at: datetime | None,
            scope: str | None,
            user_info: dict[str, Any],
        ) -> Any:
            return {"id": 5, "user_id": user_id, "provider": provider, "provider_user_id": provider_user_id}

    old = Old()
    accounts = AccountsStorage(old)
    user = accounts.create_user(
        user_info={"name": "Ann"}, email="ann@example.org", email_verified=True, extra_fields={}
    )
    assert old.info == {"name": "Ann", "email": "ann@example.org"}
    assert (user.id, user.email_verified, user.created_at.year) == (str(uuid.UUID(int=1)), False, 1970)
    account = accounts.create_social_account(
        user_id=user.id, provider="p", provider_user_id="1", provider_email="a@b", user_info={}, extra_fields={}
    )
    assert (account.id, account.is_login_method, account.access_token) == ("5", True, None)
    with pytest.raises(counterfoil.NotSupportedError, match=r"Old\.create_user takes no hashed_password"):
        accounts.create_user(user_info={}, hashed_password="x")
    with pytest.raises(counterfoil.NotSupportedError, match=r"create_social_account takes no is_login_method"):
        accounts.create_social_account(user_id="1", provider="p", provider_user_id="1", is_login_method=False)
    with pytest.raises(counterfoil.NotSupportedError, match="Old has no method find_user_by_id"):
        accounts.find_user_by_id("1")
    with pytest.raises(counterfoil.NotSupportedError, match="Old has no method list_social_accounts"):
        user.social_accounts  # noqa: B018


def test_find_or_create_is_theirs() -> None:
    class Both:
        def find_or_create_by_social_account(self, *, user: dict[str, Any], **fields: Any) -> Any:
            self.got = (user, fields)
            account = {**fields, "id": 2, "user_id": 1}
            return {"id": 1, "email": user["email"]}, account, True

    both = Both()
    user, account, created = AccountsStorage(both, keys=RING).find_or_create_by_social_account(
        provider="p", provider_user_id="1", access_token="canary", user={"email": "A@b", "email_verified": True}
    )
    assert (user.email, account.access_token, created) == ("A@b", "canary", True)
    assert both.got[0] == {"email": "A@b", "email_key": "a@b", "email_verified": True}
    assert "canary" not in str(both.got)


def test_a_deadline_cancels_a_coroutine() -> None:
    ended: list[str] = []

    class Slow:
        async def find_user_by_id(self, id: str) -> Any:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    async def main() -> None:
        accounts = counterfoil.aio.AccountsStorage(Slow(), timeout=0.02)
        with pytest.raises(counterfoil.DeadlineError):
            await accounts.find_user_by_id("1")
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert ended == ["cancelled"]


def test_a_coroutine_function_under_the_blocking_form() -> None:
    class Coroutine:
        async def find_user_by_id(self, id: str) -> Any: ...

    with pytest.raises(counterfoil.InvalidTypeError, match=r"counterfoil\.aio\.AccountsStorage"):
        AccountsStorage(Coroutine())

    class Hidden:
        def find_user_by_id(self, id: str) -> Any:
            return Coroutine().find_user_by_id(id)

    with pytest.raises(counterfoil.InvalidTypeError, match=r"Hidden\.find_user_by_id must return a value here"):
        AccountsStorage(Hidden()).find_user_by_id("1")


def test_what_are_no_hooks() -> None:
    for wrong in (None, 5, "memory:", object(), Tables):
        with pytest.raises(counterfoil.InvalidTypeError):
            AccountsStorage(wrong)
    with counterfoil.open("memory:") as store:
        for options in ({"keys": RING}, {"timeout": 5.0}):
            with pytest.raises(counterfoil.InvalidError, match="belong to hooks"):
                AccountsStorage(store, **options)  # type: ignore[arg-type]
        for most in (0, -1, True, 1.5, 10_001):
            with pytest.raises(counterfoil.InvalidError):
                AccountsStorage(store, max_social_accounts=most)  # type: ignore[arg-type]


def test_many_threads_and_nothing_left_behind() -> None:
    stage = Stage()

    def work() -> None:
        tables = Tables()
        accounts = AccountsStorage(tables, stage=stage)
        accounts.create_user(user_info={}, email="a@b")

        def read() -> None:
            for _ in range(50):
                assert accounts.find_user_by_email("A@B").id == "1"  # type: ignore[union-attr]

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        work()
        gc.collect()
    assert stage.blocks == 0


def test_instants_are_exact_and_aware() -> None:
    class Rows:
        def find_user_by_id(self, id: str) -> Any:
            naive = datetime(2026, 1, 2, 3, 4, 5, 678901)
            return {"id": id, "created_at": naive, "updated_at": naive.replace(tzinfo=UTC) + timedelta(hours=1)}

    user = AccountsStorage(Rows()).find_user_by_id("1")
    assert user is not None
    assert user.created_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert user.updated_at.isoformat() == "2026-01-02T04:04:05.678901+00:00"


@pytest.mark.parametrize(
    "given", [{"id": 1, "email": "\ud800", "scope": "\ud800"}, {"id": 1, "email": 5, "scope": 5}, 5]
)
def test_what_is_wrong_with_an_answer_is_never_said_of_the_caller(given: Any) -> None:
    """A text that is none comes from the tables: CORRUPT. Who only asked has changed nothing; who wrote may have."""
    account = {**given, "user_id": 1, "provider": "p", "provider_user_id": "1"} if given != 5 else given
    accounts = AccountsStorage(
        SimpleNamespace(
            find_user_by_id=lambda id: given,
            find_social_account=lambda *, provider, provider_user_id: account,
            list_social_accounts=lambda *, user_id: [account],
            create_user=lambda **fields: given,
            update_user=lambda id, **changes: given,
        )
    )
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("not_applied", lambda: accounts.find_user_by_id("1")),
        ("not_applied", lambda: accounts.find_social_account(provider="p", provider_user_id="1")),
        ("not_applied", lambda: accounts.list_social_accounts(user_id="1")),
        ("unknown", lambda: accounts.create_user(user_info=None)),
        ("unknown", lambda: accounts.update_user("1", email=None)),
    ]
    for outcome, call in calls:
        with pytest.raises(counterfoil.CorruptError) as caught:
            call()
        assert caught.value.outcome == outcome
