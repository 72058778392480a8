"""A program of somebody who has installed the wheel, and nothing else: it uses every module that is there for users. It
is checked by mypy --strict, and run."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import assert_type

import counterfoil
import counterfoil.aio
from counterfoil import errors
from counterfoil.adapters import cross_auth
from counterfoil.adapters.miro import MiroStorage, State
from counterfoil.express import AsyncExpressSessions, ExpressSession, ExpressSessions
from counterfoil.testing import BackendContract, Report, Stage, check


class Mine(counterfoil.Backend):
    single_process = True

    def __init__(self) -> None:
        self.data: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        return self.data.get(key)

    def set(self, key: str, value: str, ttl: float | None) -> None:
        self.data[key] = value

    def delete(self, key: str) -> bool:
        return self.data.pop(key, None) is not None


class TestMine(BackendContract):
    def make(self) -> Mine:
        return Mine()


def stores() -> None:
    stage = Stage()
    with counterfoil.open("memory:", prefix="app:", ttl=60, stage=stage, keys={1: bytes(32)}) as store:
        assert store.set("a", "b")
        assert_type(store.pop("a"), str | None)
        counterfoil.Storage(store).set(7, {"any": ["thing"]})
        codes = cross_auth.SecondaryStorage(store)
        codes.set("code", "x", ttl=30)
        stage.advance(30)
        assert codes.pop("code") is None
        accounts, sessions = cross_auth.AccountsStorage(store), cross_auth.SessionStorage(store)
        ann = accounts.create_user(user_info={}, email="ann@example.org")
        assert_type(ann, counterfoil.User)
        at = datetime.now(UTC)
        end = at + timedelta(days=1)
        login = sessions.create(token_hash="h", user_id=ann.id, created_at=at, updated_at=at, expires_at=end)
        assert login.user_id == ann.id
        miro = MiroStorage(store, 7)
        miro.set(State("access", "refresh", None))
        assert miro.get().access_token == "access"
        try:
            store.set("", "b")
        except errors.InvalidError as error:
            assert_type(error.code, str)
    with counterfoil.open(Mine()) as over_mine:
        assert over_mine.set("a", "b")


def express() -> None:
    with ExpressSessions("memory:", secret="a secret of Express") as sessions:
        made = sessions.create({"user": 7})
        assert_type(made, ExpressSession)
        cookie = sessions.set_cookie(made).split(";")[0].partition("=")
        found = sessions.load({cookie[0]: cookie[2]})
        assert found is not None
        assert found["user"] == 7


async def awaited() -> None:
    async with await counterfoil.aio.open("memory:") as store:
        assert_type(await store.incr("n"), int)
        sessions = AsyncExpressSessions(store, secret="a secret of Express")
        assert_type(await sessions.create({"user": 7}), ExpressSession)


def kit() -> Report:
    return check(Mine, kind="backend")


if __name__ == "__main__":
    stores()
    express()
    asyncio.run(awaited())
    print(counterfoil.__version__)
