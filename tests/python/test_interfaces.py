"""Storage and SecondaryStorage, beside what the cases tell."""

import asyncio
import enum
import math
import threading
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil.testing import Stage
from support import Bare, with_coroutines


@pytest.fixture
def store(stage: Stage):
    with counterfoil.open("memory:", stage=stage) as store:
        yield store


@pytest.mark.parametrize(
    "state", [{}, [], "", "text", 0, -1.5, True, False, {"é": ["€", None, {"nested": [1, 2]}]}, 10**30]
)
def test_states(store: counterfoil.Store, state: Any) -> None:
    storage = counterfoil.Storage(store)
    assert storage.set("id", state) is None
    assert storage.get("id") == state
    assert type(storage.get("id")) is type(state)


def test_states_are_copies(store: counterfoil.Store) -> None:
    storage = counterfoil.Storage(store)
    state = {"count": 1}
    storage.set("id", state)
    state["count"] = 2
    read = storage.get("id")
    read["count"] = 3
    assert storage.get("id") == {"count": 1}


def test_compact_text_is_kept(store: counterfoil.Store) -> None:
    counterfoil.Storage(store).set("id", {"a": [1, "é"], "b": None})
    assert store.get("id") == '{"a":[1,"é"],"b":null}'


def test_ids(store: counterfoil.Store) -> None:
    storage = counterfoil.Storage(store)

    class Number(enum.IntEnum):
        ONE = 1

    storage.set(1, "number")
    assert storage.get("1") == "number"
    assert storage.get(Number.ONE) == "number"
    storage.set("01", "other")
    assert storage.get(1) == "number"
    storage.set(-(2**70), "big")
    assert storage.get(str(-(2**70))) == "big"
    for name in ("constructor", "__proto__", "None", "null"):
        assert storage.get(name) is None
        storage.set(name, name)
        assert storage.get(name) == name
        storage.set(name, None)
        assert storage.get(name) is None
    for bad in (True, 1.0, None, b"1", ["1"], 10**2000, 10**5000, "", "a\n"):
        for call in (
            lambda bad=bad: storage.get(bad),
            lambda bad=bad: storage.set(bad, {}),
            lambda bad=bad: storage.set(bad, None),
        ):
            with pytest.raises(counterfoil.InvalidError):
                call()


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("state", "wrong_type"),
    [
        (math.nan, False),
        ({"a": [math.inf]}, False),
        (circle(), False),
        ({1, 2}, True),
        ({"a": b"x"}, True),
        (object(), True),
        ({(1, 2): 3}, True),
        ("\ud800", False),
        ("x" * 1_048_577, False),
    ],
)
def test_what_is_not_json(store: counterfoil.Store, state: Any, wrong_type: bool) -> None:
    storage = counterfoil.Storage(store)
    storage.set("id", "before")
    with pytest.raises(counterfoil.InvalidError) as caught:
        storage.set("id", state)
    assert isinstance(caught.value, TypeError) == wrong_type
    assert caught.value.outcome == "not_applied"
    assert storage.get("id") == "before"


@pytest.mark.parametrize("text", ["", "hunter2", "{", '{"a":1}x', "[" * 100_000])
def test_a_text_that_is_not_json(store: counterfoil.Store, text: str) -> None:
    store.set("id", text)
    with pytest.raises(counterfoil.CorruptError) as caught:
        counterfoil.Storage(store).get("id")
    assert (caught.value.code, caught.value.outcome) == ("CORRUPT", "not_applied")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


def test_states_live_for_the_ttl_of_the_store(stage: Stage) -> None:
    with counterfoil.open("memory:", ttl=60, stage=stage) as store:
        storage = counterfoil.Storage(store)
        storage.set("id", 1)
        stage.advance(59.999)
        assert storage.get("id") == 1
        stage.advance(0.001)
        assert storage.get("id") is None


def test_secondary_storage(store: counterfoil.Store, stage: Stage) -> None:
    codes = counterfoil.SecondaryStorage(store)
    assert codes.set("k", "v") is None  # the older form
    stage.advance(599.999)
    assert codes.get("k") == "v"
    stage.advance(0.001)
    assert codes.get("k") is None
    assert codes.set("k", "v", 5) is None
    assert codes.set("k", "v", ttl=5) is None
    stage.advance(5)
    assert codes.pop("k") is None
    codes.set("k", "v")
    assert codes.pop("k") == "v"
    assert codes.pop("k") is None
    assert codes.delete("k") is None
    for ttl in (0, -1, -0.5, -math.inf, -(10**400)):
        codes.set("k", "v")
        codes.set("k", "w", ttl)
        assert codes.get("k") is None
    for ttl in (math.nan, math.inf, 10**400, 315_360_001, True, "5"):
        with pytest.raises(counterfoil.InvalidError):
            codes.set("k", "v", ttl)  # type: ignore[arg-type]


def test_secondary_storage_takes_text_only(store: counterfoil.Store) -> None:
    codes = counterfoil.SecondaryStorage(store)
    for value in (b"bytes", None, 5, ["v"], bytearray(b"v")):
        with pytest.raises(counterfoil.InvalidTypeError):
            codes.set("k", value)  # type: ignore[arg-type]
        with pytest.raises(counterfoil.InvalidTypeError):
            codes.set("k", value, 0)  # type: ignore[arg-type]
    assert codes.get("k") is None


def test_the_right_kind_of_store(store: counterfoil.Store) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as other:
            for kind in (counterfoil.Storage, counterfoil.SecondaryStorage):
                with pytest.raises(counterfoil.InvalidTypeError, match="takes a Store, not AsyncStore"):
                    kind(other)  # type: ignore[arg-type]

    asyncio.run(main())
    for kind in (counterfoil.aio.Storage, counterfoil.aio.SecondaryStorage):
        with pytest.raises(counterfoil.InvalidTypeError, match="takes an AsyncStore, not Store"):
            kind(store)  # type: ignore[arg-type]


def test_async_interfaces() -> None:
    async def main() -> None:
        stage = Stage()
        backend = with_coroutines(Bare, lambda: asyncio.sleep(0))(stage)
        for target in ("memory:", backend):
            async with await counterfoil.aio.open(target, stage=stage) as store:
                storage, codes = counterfoil.aio.Storage(store), counterfoil.aio.SecondaryStorage(store, ttl=5)
                assert await storage.set(1, {"a": 1}) is None
                assert await storage.get("1") == {"a": 1}
                await storage.set("1", None)
                assert await storage.get(1) is None
                with pytest.raises(counterfoil.InvalidError):
                    await storage.set("1", math.nan)
                assert await codes.set("k", "v") is None
                assert await asyncio.gather(codes.pop("k"), codes.pop("k"), codes.pop("k")) in (["v", None, None],)
                await codes.set("k", "v")
                stage.advance(5)
                assert await codes.get("k") is None
                await codes.set("k", "v")
                assert await codes.delete("k") is None
                assert await codes.get("k") is None

    asyncio.run(main())


def test_a_state_that_has_ended_stays_ended(store: counterfoil.Store) -> None:
    storage = counterfoil.Storage(store)
    storage.set("id", {"n": 1})
    assert storage.save("id", {"n": 2}) is True
    assert storage.get("id") == {"n": 2}
    storage.set("id", None)
    assert storage.save("id", {"n": 3}) is False
    assert storage.update("id", lambda state: pytest.fail("there is none")) is None
    assert storage.get("id") is None
    with pytest.raises(counterfoil.InvalidError):
        storage.save("id", None)


def test_an_update_that_ends_a_state_or_raises(store: counterfoil.Store) -> None:
    storage = counterfoil.Storage(store)
    storage.set("id", {"n": 1})
    with pytest.raises(ZeroDivisionError):
        storage.update("id", lambda state: state["n"] / 0)
    assert storage.get("id") == {"n": 1}
    assert storage.update("id", lambda state: None) is None
    assert storage.get("id") is None


def test_an_update_is_asked_again_about_what_is_there_then(store: counterfoil.Store) -> None:
    storage = counterfoil.Storage(store)
    storage.set("id", {"n": 1})
    seen = []

    def change(state: Any) -> Any:
        seen.append(state["n"])
        if len(seen) == 1:
            storage.set("id", {"n": 10})
        if len(seen) == 2:
            storage.set("id", None)  # and it does not come back
        return {"n": state["n"] + 1}

    assert storage.update("id", change) is None
    assert seen == [1, 10]
    assert storage.get("id") is None


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_no_update_is_lost(scheme: str, tmp_path: Path) -> None:
    url = "memory:" if scheme == "memory" else f"sqlite:{tmp_path / 'updates.db'}?synchronous=normal"
    with counterfoil.open(url, timeout=60) as store:
        storage = counterfoil.Storage(store)
        storage.set(1, {"n": 0})

        def count() -> None:
            for _ in range(50):
                storage.update(1, lambda state: {"n": state["n"] + 1})

        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert storage.get(1) == {"n": 400}


def test_updates_that_are_awaited() -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as store:
            storage = counterfoil.aio.Storage(store)
            assert await storage.save("id", {"n": 0}) is False
            await storage.set("id", {"n": 0})

            async def change(state: Any) -> Any:
                await asyncio.sleep(0)
                return {"n": state["n"] + 1}

            await asyncio.gather(*(storage.update("id", change) for _ in range(20)))
            assert await storage.get("id") == {"n": 20}

    asyncio.run(main())
