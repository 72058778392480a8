"""Keys that are given up and stores that are given keys (core/DESIGN.md, "At rest"): sweeps through the tokens of
social accounts, and what is plain until a day that is said. The details of a sweep are tests/c/test_reseal.c's."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil import Resealed
from counterfoil.testing import Stage
from redis_servers import own_prefix, redis_variable
from support import Kept, Scanned

OLD, NEW = {1: b"1" * 32}, {2: b"2" * 32}
BOTH = [*NEW.items(), *OLD.items()]
NUMBERS = itertools.count()


class Place:
    def __init__(self, target: Any) -> None:
        self.target = target
        self.prefix = own_prefix()

    def open(self, **options: Any) -> counterfoil.Store:
        return counterfoil.open(self.target, prefix=self.prefix, **options)


@pytest.fixture(params=["memory", "sqlite", "redis", "backend"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    targets: dict[str, Callable[[], Any]] = {
        "memory": lambda: f"memory:reseal-{next(NUMBERS)}",
        "sqlite": lambda: f"sqlite:{tmp_path / 'reseal.db'}?synchronous=normal",
        "redis": lambda: redis_variable(""),
        "backend": Scanned,
    }
    place = Place(targets[request.param]())
    with place.open():  # what is only in memory stays as long as somebody has it open
        yield place


def sign_up(store: counterfoil.Store, name: str, **tokens: str) -> str:
    _, account, _ = counterfoil.AccountsStorage(store).find_or_create_by_social_account(
        provider="google", provider_user_id=name, user={"email": f"{name}@b.c"}, **tokens
    )
    return account.id


def tokens_of(store: counterfoil.Store, id: str) -> tuple[str | None, str | None]:
    account = counterfoil.AccountsStorage(store).find_social_account_by_id(id)
    assert account is not None
    return account.access_token, account.refresh_token


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
def test_a_key_can_be_given_up(place: Place, blocking: bool) -> None:
    async def awaited() -> list[Resealed]:
        async with await counterfoil.aio.open(place.target, prefix=place.prefix, keys=BOTH) as store:
            return [progress async for progress in counterfoil.aio.AccountsStorage(store).reseal()]

    def sweep() -> list[Resealed]:
        if not blocking:
            return asyncio.run(awaited())
        with place.open(keys=BOTH) as store:
            return list(counterfoil.AccountsStorage(store).reseal())

    with place.open(keys=OLD) as old, place.open(keys=NEW) as new, place.open(keys={3: b"3" * 32}) as strange:
        ids = [sign_up(old, f"{n}", access_token=f"a{n}", refresh_token=f"r{n}") for n in range(120)]
        stranger = sign_up(strange, "stranger", access_token="s")
        with pytest.raises(counterfoil.CorruptError):
            tokens_of(new, ids[0])
        told = sweep()
        assert len(told) > 1
        assert told == sorted(told), "what is told are sums"
        assert told[-1] == Resealed(sealed=240, unreadable=1)
        assert sweep()[-1] == (0, 1)
        assert [tokens_of(new, id) for id in ids] == [(f"a{n}", f"r{n}") for n in range(120)]
        assert tokens_of(strange, stranger) == ("s", None)


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
def test_a_damaged_record_ends_no_sweep(tmp_path: Path, blocking: bool) -> None:
    path = tmp_path / "damaged.db"

    async def awaited() -> list[Resealed]:
        async with await counterfoil.aio.open(f"sqlite:{path}", keys=BOTH) as store:
            return [progress async for progress in counterfoil.aio.AccountsStorage(store).reseal()]

    with counterfoil.open(f"sqlite:{path}", keys=OLD) as old:
        ids = sorted(sign_up(old, f"{n}", access_token=f"a{n}") for n in range(3))
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2], sys.argv[3:])"
    damage = "UPDATE social_account SET created_at = -1 WHERE id = ?"
    subprocess.run([sys.executable, "-c", code, str(path), damage, ids[1]], check=True)
    if blocking:
        with counterfoil.open(f"sqlite:{path}", keys=BOTH) as store:
            store.get("k")  # the next reads are made at once
            told = list(counterfoil.AccountsStorage(store).reseal())
    else:
        told = asyncio.run(awaited())
    assert told == [(2, 1)]
    with counterfoil.open(f"sqlite:{path}", keys=NEW) as new:
        assert {tokens_of(new, id)[0] for id in (ids[0], ids[2])} < {"a0", "a1", "a2"}


def test_an_update_beside_a_sweep_stays(place: Place) -> None:
    """One changes a token again and again, and finds what it left; others seal anew what they find, by turns with two
    rings, so that there is always something to do."""
    with place.open(keys=BOTH, timeout=60) as store, place.open(keys=BOTH[::-1], timeout=60) as turned:
        accounts, ids = counterfoil.AccountsStorage(store), [sign_up(store, f"{n}", access_token="0") for n in range(5)]
        left = dict.fromkeys(ids, "0")
        lost: list[str] = []
        over = threading.Event()
        sealed = [0]

        def sweep() -> None:
            for each in itertools.cycle([turned, store]):
                for progress in counterfoil.AccountsStorage(each).reseal():
                    sealed[0] += progress.sealed
                if over.is_set():
                    return

        thread = threading.Thread(target=sweep)
        thread.start()
        try:
            for number in range(20_000):
                if number >= 200 and sealed[0] > 5:  # a sweep may be slower than many updates
                    break
                id = ids[number % 5]
                if tokens_of(store, id)[0] != left[id]:
                    lost.append(left[id])
                left[id] = str(number)
                accounts.update_social_account(id, access_token=left[id])
        finally:
            over.set()
            thread.join()
        assert lost == []
        assert {id: tokens_of(store, id)[0] for id in ids} == left
        assert sealed[0] > 5


def test_an_event_loop_goes_on_beside_a_sweep() -> None:
    """Also where nothing is waited for, one page after the other."""
    url = f"memory:reseal-{next(NUMBERS)}"

    async def watched() -> tuple[int, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticker = asyncio.create_task(tick())
        async with await counterfoil.aio.open(url, keys=BOTH) as store:
            pages = [progress async for progress in counterfoil.aio.AccountsStorage(store).reseal()]
        ticker.cancel()
        return len(pages), ticks

    with counterfoil.open(url, keys=OLD) as old:
        for n in range(600):
            sign_up(old, f"{n}", access_token="a")
        pages, ticks = asyncio.run(watched())
        assert pages > 4
        assert ticks >= pages // 2


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
def test_what_is_plain_is_read_until_then_and_sealed(place: Place, blocking: bool, stage: Stage) -> None:
    until = datetime.fromtimestamp(stage.wall_ms() / 1000, UTC) + timedelta(days=30)

    async def awaited(sealed: str, plain: str) -> list[tuple[int, int]]:
        options: Any = {"prefix": place.prefix, "keys": NEW, "seal_values": True, "plain_until": until, "stage": stage}
        async with await counterfoil.aio.open(place.target, **options) as store:
            accounts = counterfoil.aio.AccountsStorage(store)
            assert await store.get("k") == "value"
            account = await accounts.find_social_account_by_id(plain)
            assert account is not None
            assert account.access_token == "a"
            values = [progress async for progress in store.reseal()]
            return [values[-1], [progress async for progress in accounts.reseal()][-1]]

    def swept(sealed: str, plain: str) -> list[tuple[int, int]]:
        if not blocking:
            return asyncio.run(awaited(sealed, plain))
        with place.open(keys=NEW, seal_values=True, plain_until=until, stage=stage) as store:
            assert store.get("k") == "value"
            assert tokens_of(store, plain) == ("a", "r")
            values = list(store.reseal())
            return [values[-1], list(counterfoil.AccountsStorage(store).reseal())[-1]]

    with place.open(stage=stage) as before, place.open(keys=NEW, seal_values=True, stage=stage) as strict:
        before.set("k", "value")
        plain, sealed = sign_up(before, "plain", access_token="a", refresh_token="r"), sign_up(before, "none")
        with pytest.raises(counterfoil.CorruptError, match="plain_until"):
            strict.get("k")
        values, tokens = swept(sealed, plain)
        assert (values[0] >= 1, values[1], tokens) == (True, 0, (2, 0))
        assert strict.get("k") == "value"
        assert tokens_of(strict, plain) == ("a", "r")
        before.set("late", "plain")
        with place.open(keys=NEW, seal_values=True, plain_until=until, stage=stage) as meanwhile:
            assert meanwhile.get("late") == "plain"
            stage.advance(30 * 86400)
            with pytest.raises(counterfoil.CorruptError):
                meanwhile.get("late")
            assert list(meanwhile.reseal())[-1] == (0, 1)
        with place.open(keys=NEW, plain_until=until, stage=stage):
            pass  # a date that has passed may stay where it is


def test_tables_of_an_application() -> None:
    rows: dict[str, dict[str, Any]] = {
        "s": {"id": "s", "user_id": "u", "provider": "google", "provider_user_id": "1", "access_token": "plain"}
    }

    class Tables:
        def find_social_account_by_id(self, social_account_id: str) -> Any:
            return SimpleNamespace(**rows[social_account_id])

        def update_social_account(self, social_account_id: str, **changes: Any) -> Any:
            rows[social_account_id].update(changes)
            return SimpleNamespace(**rows[social_account_id])

    soon = datetime.now(UTC) + timedelta(hours=1)
    strict, accounts = (
        counterfoil.AccountsStorage(Tables(), keys=NEW),
        counterfoil.AccountsStorage(Tables(), keys=NEW, plain_until=soon),
    )
    with pytest.raises(counterfoil.CorruptError):
        strict.find_social_account_by_id("s")
    account = accounts.find_social_account_by_id("s")
    assert account is not None
    assert account.access_token == "plain"
    with pytest.raises(counterfoil.NotSupportedError, match="update_social_account with its tokens"):
        list(accounts.reseal())
    accounts.update_social_account("s", access_token=account.access_token)
    assert rows["s"]["access_token"].startswith("sealed:")
    account = strict.find_social_account_by_id("s")
    assert account is not None
    assert account.access_token == "plain"


def test_what_cannot_be_swept() -> None:
    with counterfoil.open("memory:") as store, pytest.raises(counterfoil.InvalidError, match="no keys"):
        list(counterfoil.AccountsStorage(store).reseal())
    with counterfoil.open(Kept(), keys=NEW) as store, pytest.raises(counterfoil.NotSupportedError, match="scan"):
        list(counterfoil.AccountsStorage(store).reseal())


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        "2030-01-01",
        1_900_000_000,
        True,
        NOW.replace(tzinfo=None),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2019, 12, 31, tzinfo=UTC),
        NOW + timedelta(days=367),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_date_that_cannot_be_meant(wrong: Any) -> None:
    kind = counterfoil.InvalidError if isinstance(wrong, datetime) else counterfoil.InvalidTypeError
    with pytest.raises(kind, match="plain_until"):
        counterfoil.open("memory:", keys=NEW, plain_until=wrong)

    async def awaited() -> None:
        await counterfoil.aio.open("memory:", keys=NEW, plain_until=wrong)

    with pytest.raises(kind, match="plain_until"):
        asyncio.run(awaited())


def test_a_date_needs_keys_and_belongs_to_who_opens() -> None:
    soon = NOW + timedelta(days=1)
    with pytest.raises(counterfoil.InvalidError, match="plain_until"):
        counterfoil.open("memory:", plain_until=soon)
    with (
        counterfoil.open("memory:", keys=NEW, plain_until=soon.astimezone()) as store,
        pytest.raises(counterfoil.InvalidError, match="plain_until"),
    ):
        counterfoil.AccountsStorage(store, plain_until=soon)
