"""Sealed values and hashed keys (core/FORMAT.md 14 and 15): their options, and that nothing beneath sees plain text."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import traceback
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil.testing import Stage
from faults.proxy import Proxy
from redis_servers import own_prefix, redis_variable
from support import Kept, Player, Scanned, load_cases, run_blocking

ROOT = Path(__file__).resolve().parents[2]
RING = {7: bytes(range(32))}
GOLDEN = "4366010100000007000102030405060708090a0b0c0d0e0f1011121314151617e2bd293ab2f62c90785f1253638be47987"
NUMBERS = itertools.count()


@pytest.fixture
def url() -> str:
    return f"memory:at-rest-{next(NUMBERS)}"


def test_values_are_envelopes_where_they_lie(url: str) -> None:
    with counterfoil.open(url, prefix="p:", keys=RING, seal_values=True) as store, counterfoil.open(url) as raw:
        store.set("k", "the secret")
        lies = raw.get_bytes("p:k")
        assert lies is not None
        assert len(lies) == len("the secret") + 48
        assert lies[:8].hex() == "4366010100000007"
        assert b"secret" not in lies
        assert store.get("k") == "the secret"
        raw.set("p:other", lies)
        with pytest.raises(counterfoil.CorruptError):
            store.get("other")
        raw.set("p:plain", "x" * 100)
        with pytest.raises(counterfoil.CorruptError) as caught:
            store.pop("plain")
        assert caught.value.outcome == "applied"
        assert store.pop_bytes("k") == b"the secret"


def test_who_has_forgotten_the_keys_is_told(url: str) -> None:
    with counterfoil.open(url, keys=RING, seal_values=True) as store, counterfoil.open(url) as plain:
        store.set("k", "v")
        with pytest.raises(counterfoil.CorruptError, match=r"is sealed, and .* without seal_values and keys") as caught:
            plain.get("k")
        assert caught.value.outcome == "not_applied"
        with pytest.raises(counterfoil.CorruptError, match="taken but is sealed") as caught:
            plain.pop("k")
        assert caught.value.outcome == "applied"


def test_an_envelope_that_another_implementation_made_opens(url: str) -> None:
    with counterfoil.open(url, prefix="p:", keys=RING, seal_values=True) as store, counterfoil.open(url) as raw:
        raw.set("p:k", bytes.fromhex(GOLDEN))
        assert store.get("k") == "v"
    assert GOLDEN in (ROOT / "core/FORMAT.md").read_text(encoding="utf-8")


def test_a_key_is_changed_by_putting_a_new_one_in_front(url: str) -> None:
    one, two = b"1" * 32, b"2" * 32
    with (
        counterfoil.open(url, keys={1: one}, seal_values=True) as old,
        counterfoil.open(url, keys=[(2, two), (1, bytearray(one))], seal_values=True) as now,
        counterfoil.open(url, keys=((2, memoryview(two)),), seal_values=True) as later,
    ):
        old.set("k", "v")
        assert now.get("k") == "v"
        with pytest.raises(counterfoil.CorruptError):
            later.get("k")
        now.set("k", "w")
        assert later.get("k") == "w"
        with pytest.raises(counterfoil.CorruptError):
            old.get("k")


def test_keys_are_kept_as_hashes(url: str) -> None:
    with counterfoil.open(url, prefix="p:", hash_keys=True) as store, counterfoil.open(url) as raw:
        store.set("k", "v", ttl=60)
        assert raw.get("p:gecWsmcUr004JfJlVBqEc6bOoYxowX6lxIzDcel3hzU") == "v"
        assert store.count() == 1
        for refused in (lambda: store.count("k"), lambda: store.clear("k"), lambda: list(store.scan())):
            with pytest.raises(counterfoil.NotSupportedError):
                refused()
        assert store.touch("k", 10)
        assert store.clear() == 1


def test_every_loop_of_a_pool_and_every_awaited_call_has_the_ring(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'sealed.db'}"
    with counterfoil.open(url, keys=RING, seal_values=True, hash_keys=True) as store:

        def write(number: int) -> None:
            for i in range(20):
                store.set(f"key-{number}-{i}", f"canary {number} {i}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def read() -> list[str | None]:
            async with await counterfoil.aio.open(url, keys=RING, seal_values=True, hash_keys=True) as awaited:
                return list(await asyncio.gather(*(awaited.get(f"key-{number}-7") for number in range(8))))

        assert asyncio.run(read()) == [f"canary {number} 7" for number in range(8)]
    for file in tmp_path.iterdir():
        assert b"canary" not in file.read_bytes()
        assert b"key-" not in file.read_bytes()


def test_a_backend_of_python_gets_envelopes_and_hashes() -> None:
    backend = Kept()
    with counterfoil.open(backend, keys=RING, seal_values=True, hash_keys=True) as store:
        for longest in ("x" * 2**20, bytes(2**20), "", b""):
            store.set("longest", longest)
            assert store.pop_bytes("longest") == (longest.encode() if isinstance(longest, str) else longest)
        store.set("sid", "payload")
        assert store.set("sid", "changed", if_equal="payload")
        assert store.incr("n", 2) == 2
        assert store.incr("n", 2) == 4
        for key, value in backend.data.items():
            assert re.fullmatch(r"[\w-]{43}", key)
            assert value.startswith(b"Cf\x01")
            assert b"changed" not in value
        assert store.pop("sid") == "changed"


def test_a_backend_that_keeps_text_says_what_it_needs() -> None:
    class Texts(counterfoil.Backend):
        def get(self, key: str) -> str | None:
            return None

        def set(self, key: str, value: str, ttl: object) -> None:
            pytest.fail("it was given what is no text")

        def delete(self, key: str) -> bool:
            return False

    with counterfoil.open(Texts(), keys=RING, seal_values=True) as store:
        secret = "-".join(["the", "secret"])
        with pytest.raises(counterfoil.InvalidError, match="binary = True") as caught:
            store.set("k", secret)
        assert caught.value.outcome == "not_applied"
        assert secret not in repr(caught.value) + "".join(traceback.format_exception(caught.value))


def test_a_value_that_is_too_long_from_a_backend_is_refused_sealed_or_not() -> None:
    class Long(counterfoil.Backend):
        binary = True

        def get(self, key: str) -> bytes:
            return b"x" * int(key)

        def set(self, key: str, value: bytes, ttl: object) -> None:
            pass

        def delete(self, key: str) -> bool:
            return False

    with counterfoil.open(Long()) as store:
        assert store.get(str(2**20)) is not None
        with pytest.raises(counterfoil.CorruptError, match="longer than 1 MiB"):
            store.get(str(2**20 + 1))
    with counterfoil.open(Long(), keys=RING, seal_values=True) as store:
        with pytest.raises(counterfoil.CorruptError, match="not sealed"):
            store.get(str(2**20 + 48))
        with pytest.raises(counterfoil.CorruptError, match="longer than 1 MiB"):
            store.get(str(2**20 + 49))


REST: dict[str, Any] = {"keys": RING, "seal_values": True, "hash_keys": True}


def test_on_redis_a_lost_answer_is_asked_for_again_with_the_same_envelope() -> None:
    server, prefix = redis_variable(""), own_prefix()
    place = server.removeprefix("redis://").rstrip("/").split("/")[0].split("@")[-1]
    with (
        Proxy(place) as proxy,
        counterfoil.open(f"redis://127.0.0.1:{proxy.port}", prefix=prefix, **REST) as store,
        counterfoil.open(server, prefix=prefix) as raw,
    ):
        assert store.get("k") is None  # it is connected
        for number in range(5):
            proxy.lose()
            assert store.set(f"k{number}", "v", if_absent=True), "its own answer, not that somebody else was first"
            assert not store.set(f"k{number}", "w", if_absent=True)
            proxy.lose()
            assert store.pop(f"k{number}") == "v"
            assert store.pop(f"k{number}") is None
        longest = "x" * 2**20
        store.set("longest", longest)
        assert store.get("longest") == longest
        assert store.count() == 1
        assert all(re.fullmatch(r"[\w-]{43}", key) for key in raw.scan())
        assert store.clear() == 1


def test_on_redis_receipts_of_sealed_values() -> None:
    server = redis_variable("")
    place = server.removeprefix("redis://").rstrip("/").split("/")[0].split("@")[-1]
    with Proxy(place) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        with counterfoil.open(url, prefix=own_prefix(), timeout=1, **REST) as store:

            def lost(call: Any) -> str:
                proxy.lose()
                proxy("refuse on")
                with pytest.raises(counterfoil.Error) as caught:
                    call()
                proxy("refuse off")
                assert caught.value.outcome == "unknown"
                assert caught.value.receipt is not None
                return caught.value.receipt

            store.set("k", "the value")
            receipt = lost(lambda: store.pop("k"))
            assert store.pop("k", receipt=receipt) == "the value"
            assert store.pop("k", receipt=receipt) == "the value"
            assert store.pop("k") is None
            receipt = lost(lambda: store.set("once", "v", if_absent=True))
            with pytest.raises(counterfoil.InvalidError):
                store.set("once", "v", if_absent=True, receipt=receipt)
            assert store.get("once") == "v"


@pytest.mark.parametrize("where", ["memory", "sqlite", "redis", "backend"])
def test_every_interface_is_sealed(where: str, url: str, tmp_path: Path) -> None:
    kept = Kept()
    target: Any = {"memory": url, "sqlite": f"sqlite:{tmp_path / 'all.db'}", "backend": kept}.get(where)
    target = target or redis_variable("")
    prefix = own_prefix()

    def lie() -> dict[str, bytes]:
        if where == "backend":
            return kept.data
        with counterfoil.open(target, prefix=prefix) as raw:
            return {key: raw.get_bytes(key) or b"" for key in raw.scan()}

    with counterfoil.open(target, prefix=prefix, **REST) as store:
        storage = counterfoil.Storage(store)
        secondary = counterfoil.SecondaryStorage(store)
        storage.set("id canary", {"a": "canary", "é": [1, None]})
        secondary.set("code canary", "canary", 60)
        store.set("k canary", b"canary \xff")
        values = lie()
        assert len(values) == 3
        for key, value in values.items():
            assert "canary" not in key
            assert value.startswith(b"Cf\x01\x01\0\0\0\x07")
            assert b"canary" not in value
        assert storage.get("id canary") == {"a": "canary", "é": [1, None]}
        assert secondary.get("code canary") == "canary"
        assert store.get_bytes("k canary") == b"canary \xff"
        assert store.pop_bytes("k canary") == b"canary \xff"
        assert secondary.pop("code canary") == "canary"
        storage.set("id canary", None)
        assert lie() == {}
        assert "canary" not in repr(store)


def test_what_a_backend_would_have_to_understand_is_refused() -> None:
    with counterfoil.open("memory:", keys=RING, seal_values=True) as store:
        with pytest.raises(counterfoil.NotSupportedError):
            store.incr("n")
        with pytest.raises(counterfoil.NotSupportedError):
            store.set("n", "a", if_equal="b")


SHOWN = b"a key that must never be shown!!"


@pytest.mark.parametrize(
    "options",
    [
        {"seal_values": True},
        {"keys": {}, "seal_values": True},
        {"keys": {}},
        {"keys": []},
        {"keys": "text", "seal_values": True},
        {"keys": 3, "seal_values": True},
        {"keys": [SHOWN], "seal_values": True},
        {"keys": {1: SHOWN[1:]}, "seal_values": True},
        {"keys": {1: SHOWN.decode()}, "seal_values": True},
        {"keys": {0: SHOWN}, "seal_values": True},
        {"keys": {2**32: SHOWN}, "seal_values": True},
        {"keys": {"1": SHOWN}, "seal_values": True},
        {"keys": {True: SHOWN}, "seal_values": True},
        {"keys": [(1, SHOWN), (1, SHOWN)], "seal_values": True},
        {"keys": [(1, SHOWN, 2)], "seal_values": True},
        {"keys": {number: SHOWN for number in range(1, 66)}, "seal_values": True},
        {"seal_values": 1},
        {"hash_keys": "yes"},
        {"keys": RING, "seal_values": None},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused_and_no_key_is_shown(options: dict[str, Any]) -> None:
    for opening in (lambda: counterfoil.open("memory:", **options), lambda: asyncio.run(_opened(options))):
        with pytest.raises(counterfoil.InvalidError) as caught:
            opening()
        assert "never be shown" not in repr(caught.value) + str(caught.value)


def test_a_ring_that_is_none_leaves_no_database_behind(tmp_path: Path) -> None:
    for ring in ([(1, SHOWN), (1, SHOWN)], {number: SHOWN for number in range(1, 66)}):
        with pytest.raises(counterfoil.InvalidError):
            counterfoil.open(f"sqlite:{tmp_path / 'none.db'}", keys=ring, seal_values=True)
    assert list(tmp_path.iterdir()) == []


async def _opened(options: dict[str, Any]) -> None:
    await counterfoil.aio.open("memory:", **options)


@pytest.mark.parametrize("url", ["memory:", "sqlite::memory:"])
def test_every_story_of_accounts_is_the_same_with_sealed_tokens(url: str, stage: Stage) -> None:
    stories = [case for case in load_cases() if case["file"] == "accounts"]
    assert len(stories) > 30
    for case in stories:
        options = case.get("open", {})
        with counterfoil.open(url, prefix=options.get("prefix", ""), stage=stage, keys=RING) as store:
            player = Player(store, stage, options)
            for step in case["steps"]:
                run_blocking(player.step(step))


OLD, NEW = {1: b"1" * 32}, {2: b"2" * 32}


@pytest.mark.parametrize("where", ["memory", "sqlite", "redis", "backend"])
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
def test_a_sweep_seals_anew_page_by_page(where: str, blocking: bool, url: str, tmp_path: Path) -> None:
    target: Any = {"memory": url, "sqlite": f"sqlite:{tmp_path / 'swept.db'}", "backend": Timed()}.get(where)
    target = target or redis_variable("")
    prefix, ring = own_prefix(), [*NEW.items(), *OLD.items()]

    async def awaited(part: str) -> list[counterfoil.Resealed]:
        async with await counterfoil.aio.open(target, prefix=prefix, keys=ring, seal_values=True) as store:
            return [progress async for progress in store.reseal(part)]

    def sweep(part: str = "") -> list[counterfoil.Resealed]:
        if not blocking:
            return asyncio.run(awaited(part))
        with counterfoil.open(target, prefix=prefix, keys=ring, seal_values=True) as store:
            return list(store.reseal(part))

    with (
        counterfoil.open(target, prefix=prefix, keys=OLD, seal_values=True) as old,
        counterfoil.open(target, prefix=prefix, keys=NEW, seal_values=True) as new,
        counterfoil.open(target, prefix=prefix) as raw,
    ):
        for number in range(250):
            old.set(f"old {number}", f"value {number}", ttl=100 if number % 2 else None)
        new.set("new", "value")
        raw.set("plain", b"never sealed")
        envelope = raw.get_bytes("new")
        begun = list(sweep("old 1"))
        assert begun[-1] == (111, 0), "1, 10 to 19, 100 to 199"
        told = sweep()
        assert len(told) > 1
        assert told == sorted(told), "what is told are sums"
        assert told[-1] == counterfoil.Resealed(sealed=139, unreadable=1)
        assert {new.get(f"old {number}") for number in range(250)} == {f"value {number}" for number in range(250)}
        assert raw.get_bytes("new") == envelope
        assert raw.get_bytes("plain") == b"never sealed"
        again = sweep()
        assert (again[-1].sealed, again[-1].unreadable) == (0, 1)
        if where != "backend":
            raw.clear(force=True)


class Timed(Scanned):
    def __init__(self) -> None:
        super().__init__()
        self.ttls: dict[str, object] = {}

    def set(self, key: str, value: bytes, ttl: object) -> None:
        super().set(key, value, ttl)
        if ttl != self.KEEP:
            self.ttls[key] = ttl


def test_a_sweep_keeps_the_expiry(url: str, stage: Stage) -> None:
    backend = Timed()
    with (
        counterfoil.open(url, keys=OLD, seal_values=True, hash_keys=True, stage=stage) as old,
        counterfoil.open(url, keys=NEW | OLD, seal_values=True, hash_keys=True, stage=stage) as now,
        counterfoil.open(backend, keys=OLD, seal_values=True) as kept,
        counterfoil.open(backend, keys=NEW | OLD, seal_values=True) as swept,
    ):
        old.set("short", "v", ttl=10)
        old.set("long", "v")
        assert list(now.reseal())[-1] == (2, 0)
        stage.advance(10)
        assert (now.get("short"), now.get("long")) == (None, "v")
        kept.set("short", "v", ttl=10)
        assert list(swept.reseal()) == [(1, 0)]
        assert backend.ttls == {"short": 10}


def test_a_sweep_that_cannot_be() -> None:
    with counterfoil.open("memory:") as store, pytest.raises(counterfoil.InvalidError):
        list(store.reseal())
    with counterfoil.open("memory:", keys=RING, seal_values=True, hash_keys=True) as store:
        with pytest.raises(counterfoil.NotSupportedError):
            list(store.reseal("part"))
        with pytest.raises(counterfoil.InvalidTypeError):
            list(store.reseal(3))  # type: ignore[arg-type]
    with counterfoil.open(Kept(), keys=RING, seal_values=True) as store, pytest.raises(counterfoil.NotSupportedError):
        list(store.reseal())  # it has no scan

    class Torn(Timed):
        def scan(self, prefix: str, cursor: int | None, limit: int) -> tuple[list[str], int | None]:
            if cursor:
                raise OSError("the second page")
            return super().scan(prefix, cursor, 1)

    torn = Torn()
    with counterfoil.open(torn, keys=OLD, seal_values=True) as old:
        old.set("a", "v")
        old.set("b", "v")
    with counterfoil.open(torn, keys=NEW | OLD, seal_values=True) as store:
        sweep = store.reseal()
        assert next(sweep) == (1, 0)
        with pytest.raises(OSError, match="the second page"):
            next(sweep)
