"""examples/python_accounts.py: AccountsStorage over an application's tables in a real PostgreSQL."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil.testing import check
from postgres_server import postgres, program
from support import load_example

pytestmark = pytest.mark.skipif(
    program("initdb") is None, reason="POSTGRESQL IS NOT INSTALLED: apt-get install postgresql"
)

RING = {7: bytes(range(32))}
AT = datetime(2026, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def example() -> Any:
    return load_example("python_accounts")


@pytest.fixture
def engine(url: str, example: Any) -> Iterator[Any]:
    from sqlalchemy import create_engine

    engine = create_engine(url, pool_size=10)
    example.Base.metadata.drop_all(engine)
    example.Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def rows(engine: Any) -> str:
    from sqlalchemy import text

    with engine.connect() as db:
        return str(db.execute(text("SELECT * FROM accounts")).all())


async def story(accounts: Any, read: Any) -> None:
    ann = await accounts.create_user(user_info={"name": "Ann", "deep": [1, None]}, email=" Ann@Example.org")
    assert await accounts.find_user_by_email("ANN@example.org") == ann
    assert (ann.email, ann.user_info, ann.extra_fields) == (
        " Ann@Example.org",
        {"name": "Ann", "deep": [1, None]},
        None,
    )
    with pytest.raises(counterfoil.ExistsError) as caught:
        await accounts.create_user(user_info={}, email="ann@example.org")
    assert str(caught.value.existing.id) == ann.id
    for nobody in ("0", "99", "nonsense", "9" * 400, "", 2**70, None):
        assert await accounts.find_user_by_id(nobody) is None
        assert await accounts.find_social_account_by_id(nobody) is None
    one = await accounts.create_social_account(
        user_id=ann.id, provider="github", provider_user_id="1", access_token="canary", refresh_token="canary",
        access_token_expires_at=AT, scope="user", user_info={"login": "ann"},
    )  # fmt: skip
    assert one.access_token_expires_at == AT
    assert "canary" not in await read()
    assert await accounts.find_social_account(provider="github", provider_user_id="1") == one
    with pytest.raises(counterfoil.ExistsError):
        await accounts.create_social_account(user_id=ann.id, provider="github", provider_user_id="1")
    with pytest.raises(counterfoil.MissingError):
        await accounts.create_social_account(user_id="99", provider="github", provider_user_id="2")
    changed = await accounts.update_social_account(one.id, access_token="a newer canary", scope=None)
    assert (changed.access_token, changed.refresh_token, changed.scope) == ("a newer canary", "canary", None)
    assert changed.updated_at > one.updated_at
    assert "canary" not in await read()
    with pytest.raises(counterfoil.MissingError):
        await accounts.update_social_account("99", access_token="x")
    bob = await accounts.create_user(user_info={}, email="bob@example.org")
    with pytest.raises(counterfoil.ExistsError):
        await accounts.update_user(bob.id, email="ANN@example.org")
    assert (await accounts.update_user(bob.id, email="new@example.org")).email == "new@example.org"
    assert await accounts.find_user_by_email("bob@example.org") is None
    assert (await accounts.find_user_by_id(ann.id)).social_accounts == [changed]

    made = {"provider": "github", "provider_user_id": "3", "access_token": "canary", "user": {"email": "c@example.org"}}
    carl, account, created = await accounts.find_or_create_by_social_account(**made)
    assert (carl.email, account.user_id, account.access_token, created) == ("c@example.org", carl.id, "canary", True)
    assert await accounts.find_or_create_by_social_account(**made) == (carl, account, False)
    with pytest.raises(counterfoil.ExistsError):
        await accounts.find_or_create_by_social_account(**{**made, "provider_user_id": "4"})
    assert await accounts.find_social_account(provider="github", provider_user_id="4") is None
    assert await accounts.delete_user(ann.id) is True
    assert await accounts.delete_user(ann.id) is False
    assert await accounts.find_social_account_by_id(one.id) is None, "with the user"
    await accounts.delete_social_account(account.id)
    assert await accounts.list_social_accounts(user_id=carl.id) == []


def test_blocking(engine: Any, example: Any) -> None:
    accounts = counterfoil.AccountsStorage(example.Tables(engine), keys=RING)

    class Awaited:
        def __getattr__(self, name: str) -> Any:
            async def call(*args: Any, **more: Any) -> Any:
                return getattr(accounts, name)(*args, **more)

            return call

    async def read() -> str:
        return rows(engine)

    with pytest.raises(StopIteration):
        story(Awaited(), read).send(None)


def test_asyncio(url: str, engine: Any, example: Any) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main() -> None:
        own = create_async_engine(url)

        async def read() -> str:
            return rows(engine)

        await story(counterfoil.aio.AccountsStorage(example.AsyncTables(own), keys=RING), read)
        await own.dispose()

    asyncio.run(main())


def test_threads_race_to_be_first(engine: Any, example: Any) -> None:
    accounts = counterfoil.AccountsStorage(example.Tables(engine), keys=RING)
    answers: list[tuple[str, str, bool]] = []

    def work() -> None:
        for number in range(10):
            user, account, created = accounts.find_or_create_by_social_account(
                provider="p", provider_user_id=str(number), user={"email": f"{number}@example.org"}
            )
            answers.append((user.id, account.id, created))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 60
    assert len({(user, account) for user, account, _ in answers}) == 10
    assert sum(created for _, _, created in answers) == 10


def test_the_conformance_kit(engine: Any, example: Any) -> None:
    tables = example.Tables(engine)
    report = check(lambda: counterfoil.AccountsStorage(tables, keys=RING), rounds=2, contenders=4)
    assert report.ok, str(report)
    assert [each.rule.id for each in report.not_applicable] == ["fault.rejects"], str(report)
