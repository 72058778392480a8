"""redis+cluster: over three primaries and a replica of each. That all cases hold there is for test_cases.py; here slots
move, primaries change, and servers are wrong, slow or gone."""

import asyncio
import contextlib
import gc
import itertools
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from redis_servers import own_prefix
from support import FakeServer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.clusters import SLOTS, ClusterGroup, Node, key_in, slot_of
from faults.proxy import Proxy
from faults.resp import ReplyError
from faults.sentinels import until
from faults.servers import CLUSTER_RIGHTS, LEAST_RIGHTS, RedisServer

LONG = bool(os.environ.get("CF_LONG"))
WORD = "p@ss:w/o?r#d"
# Keys with whole tags, with none, and with what only looks like one.
AWKWARD = [
    "plain",
    "{tag}a",
    "a{tag}b{other}",
    "{{tag}}",
    "{}",
    "{}a",
    "a{}{b}",
    "a{b",
    "a}b",
    "}{",
    "{",
    "}",
    "é{ü}",
    "{a b}",
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterGroup]:
    with ClusterGroup(node_timeout_ms=800, password=WORD) as made:
        yield made


@pytest.fixture(scope="module")
def calm() -> Iterator[ClusterGroup]:
    """Three primaries, which stay: nobody takes their place. Where a slot is nobody's, the others go on."""
    config: dict[str, str | int] = {"cluster-require-full-coverage": "no"}
    with ClusterGroup(replicas=0, node_timeout_ms=60_000, password=WORD, config=config) as made:
        yield made


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds everybody up and agreed."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").revive()


def ports(nodes: list[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in nodes)


def other_than(cluster: ClusterGroup, node: Node) -> Node:
    return next(one for one in cluster.primaries() if one is not node)


def raw_keys(cluster: ClusterGroup) -> dict[bytes, Node]:
    """Every key that there is, and with whom."""
    return {key: node for node in cluster.primaries() for key in node.cli("KEYS", "*")}


# ------------------------------------------------------------------------------------------------------------- the load


class Load:
    """Threads that read, write, and win what only they can win, with keys of all; they note what must not be."""

    def __init__(self, store: counterfoil.Store, threads: int = 3, unknown: bool = True) -> None:
        self.store = store
        self.unknown = unknown  # a plain write whose answer was lost with its server may be that
        self.prefix = own_prefix()
        self.stop = threading.Event()
        self.errors: list[Exception] = []
        self.done = [0] * threads
        self.wrong: list[object] = []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(threads)]

    def run(self, number: int) -> None:
        turn = 0
        kept: dict[str, str] = {}
        while not self.stop.is_set():
            key = f"{self.prefix}{number}-{turn % 50}"
            value, turn = f"{turn}", turn + 1
            try:
                read = self.store.get(key)
                if key in kept and read != kept[key]:
                    self.wrong.append((key, read, kept[key]))
                kept.pop(key, None)
                self.store.set(key, value, ttl=600)
                kept[key] = value
                code = f"{key}-code"
                if not self.store.set(code, value, ttl=600, if_absent=True):
                    self.wrong.append((code, "was there"))
                if (popped := self.store.pop(code)) != value:
                    self.wrong.append((code, popped))
            except counterfoil.UnavailableError as error:
                if not self.unknown or error.outcome == "not_applied":
                    self.errors.append(error)
            except Exception as error:
                self.errors.append(error)
            else:
                self.done[number] += 1

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        self.moves()
        return self

    def moves(self, turns: int = 1) -> None:
        """Returns when every thread has got so much further."""
        before = list(self.done)
        deadline = time.monotonic() + 30
        while any(now < then + turns for now, then in zip(self.done, before, strict=True)):
            assert time.monotonic() < deadline, (self.done, before, self.errors[:3])
            time.sleep(0.005)

    def well(self) -> None:
        assert self.errors == []
        assert self.wrong == []

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


class Moves:
    """Meanwhile the slots of these keys move, one after the other, and no quicker than the servers agree about them."""

    def __init__(self, cluster: ClusterGroup, keys: Iterable[str]) -> None:
        self.cluster = cluster
        self.slots = sorted({slot_of(key) for key in keys})
        self.count = 0
        self.stop = threading.Event()
        self.pool = ThreadPoolExecutor(1)

    def run(self) -> None:
        while not self.stop.is_set():
            to = self.cluster.primaries()[self.count % 3]
            self.cluster.move_slot(self.slots[self.count * 101 % len(self.slots)], to)
            self.count += 1
            self.stop.wait(0.03)

    def rounds(self, least: int) -> Iterator[int]:
        """So many for what goes on meanwhile, and more where the moves are slow."""
        for turn in itertools.count():
            if turn >= least and self.count > 5:
                return
            assert not self.moved.done(), self.moved.exception()
            yield turn

    def __enter__(self) -> "Moves":
        self.moved = self.pool.submit(self.run)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.pool.shutdown()
        self.moved.result()


# ------------------------------------------------------------------------------------------------------------ the seeds


def test_seeds_that_are_gone_or_frozen_are_passed_over(cluster: ClusterGroup) -> None:
    frozen, good = cluster.replicas()[0], cluster.primaries()[0]
    frozen.pause()
    with counterfoil.open(cluster.url_of(ports([1, 2, frozen.port, good.port])), timeout=10) as store:
        for key in AWKWARD:
            store.set(key, "1", ttl=60)
            assert store.get(key) == "1"


def test_any_one_server_names_the_others(cluster: ClusterGroup) -> None:
    for node in cluster.nodes:
        with counterfoil.open(cluster.url(nodes=[node]), timeout=10) as store:
            for number in range(20):
                store.set(f"seed{number}", "1", ttl=60)


def test_no_seed_answers() -> None:
    with counterfoil.open("redis+cluster://127.0.0.1:1,127.0.0.1:2", timeout=0.5) as store:
        began = time.process_time()
        with pytest.raises(counterfoil.Error, match=r"Redis at 127\.0\.0\.1:[12]: Connection refused") as caught:
            store.set("a", "1")
        assert caught.value.outcome == "not_applied"
        assert time.process_time() - began < 0.25  # it has slept meanwhile


def test_without_its_seeds_what_is_known_goes_on(cluster: ClusterGroup) -> None:
    seed = cluster.replicas()[0]
    with counterfoil.open(cluster.url(nodes=[seed]), timeout=10) as store:
        store.set("kept", "1", ttl=60)
        seed.kill()
        for node in cluster.primaries():
            node.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert store.get("kept") == "1"


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (lambda url: url.replace("p%40ss", "wrong-word"), counterfoil.AuthError, "refused our user name or password"),
        (
            lambda url: url.replace(url.partition("//")[2].partition("@")[0] + "@", ""),
            counterfoil.AuthError,
            "password",
        ),
    ],
)
def test_a_mistake_in_the_url_is_said_at_once(
    cluster: ClusterGroup, change: Callable[[str], str], kind: type[counterfoil.Error], sentence: str
) -> None:
    url = change(cluster.url())
    assert url != cluster.url()
    with counterfoil.open(url, timeout=60) as store:
        for _ in range(2):
            with pytest.raises(kind, match=sentence) as caught:
                store.set("a", "1")
            assert "wrong-word" not in str(caught.value)
            assert caught.value.outcome == "not_applied"


def test_a_server_that_is_no_cluster() -> None:
    with (
        RedisServer() as server,
        counterfoil.open(f"redis+cluster://127.0.0.1:{server.port}", timeout=60) as store,
        pytest.raises(
            counterfoil.InvalidError, match="not part of a cluster: the URL then begins with redis:"
        ) as caught,
    ):
        store.set("a", "1")
    assert caught.value.outcome == "not_applied"


def test_a_cluster_that_is_taken_for_one_server(cluster: ClusterGroup) -> None:
    node = cluster.primaries()[0]
    url = cluster.url(nodes=[node]).replace("redis+cluster:", "redis:")
    elsewhere = key_in(set(range(SLOTS)) - set(cluster.slots_of(node)))
    with (
        counterfoil.open(url, timeout=10) as store,
        pytest.raises(counterfoil.InvalidError, match=r"the URL then begins with redis\+cluster:"),
    ):
        store.set(elsewhere, "1")


def test_a_prefix_whose_braces_are_empty_has_no_records_here(cluster: ClusterGroup) -> None:
    for prefix in ("{}", "a{}b:"):
        with counterfoil.open(cluster.url(), prefix=prefix, timeout=10) as store:
            store.set("key", "1", ttl=60)
            with pytest.raises(counterfoil.Error, match=r"\{\}") as caught:
                counterfoil.AccountsStorage(store).create_user(email="ada@example.org")
            assert caught.value.outcome == "not_applied"
    for prefix in ("{tag}", "a{tag}{}", "a{", "a}{"):
        with counterfoil.open(cluster.url(), prefix=prefix + own_prefix(), timeout=10) as store:
            accounts = counterfoil.AccountsStorage(store)
            user = accounts.create_user(email="ada@example.org")
            assert accounts.find_user_by_email("ada@example.org") == user


def test_the_least_rights_and_one_too_few() -> None:
    rights = f"{LEAST_RIGHTS} {CLUSTER_RIGHTS}"
    acl = {
        "least": ("one", rights),
        "blind": ("two", rights.replace("+cluster|slots", "")),
        "shy": ("three", rights.replace("+asking", "")),
    }
    with ClusterGroup(acl=acl, replicas=0) as cluster:
        with (
            counterfoil.open(cluster.url(user="blind"), timeout=60) as store,
            pytest.raises(counterfoil.AuthError, match=r"\+cluster\|slots"),
        ):
            store.get("a")
        slot = slot_of("a")
        old = cluster.begin_move(slot, other_than(cluster, cluster.owner(slot)))
        for user, kind in (("least", contextlib.nullcontext()), ("shy", pytest.raises(counterfoil.AuthError))):
            with counterfoil.open(cluster.url(user=user), timeout=5) as store, kind:
                assert store.get("a") is None
        assert cluster.owner(slot) is old


# ------------------------------------------------------------------------------------------------------------ placement


def own_keys(cluster: ClusterGroup, full: str) -> list[bytes]:
    """Its receipts; not what `durable` writes beside it for a millisecond."""
    begin = full.encode() + b"\0"
    return [key for key in raw_keys(cluster) if key.startswith(begin) and len(key) >= len(begin) + 32]


@pytest.mark.parametrize("key", AWKWARD)
@pytest.mark.parametrize("prefixed", [False, True])
def test_a_receipt_is_in_the_slot_of_its_key(cluster: ClusterGroup, key: str, prefixed: bool) -> None:
    prefix = f"placed-{own_prefix()}" if prefixed else ""
    with counterfoil.open(cluster.url(), prefix=prefix, timeout=10) as store:
        full = prefix + key
        slot = cluster.nodes[0].cli("CLUSTER", "KEYSLOT", full)
        calls: list[Callable[[], object]] = [
            lambda: store.set(key, "1", ttl=60, if_absent=True),
            lambda: store.set(key, "2", ttl=60, if_equal="1"),
            lambda: store.incr(key),
            lambda: store.pop(key),
        ]
        store.delete(key)
        for number, call in enumerate(calls, 1):
            assert call()
            receipts = own_keys(cluster, full)
            assert len(receipts) == number
            for receipt in receipts:
                assert cluster.nodes[0].cli("CLUSTER", "KEYSLOT", receipt) == slot
                rest = receipt[len(full.encode()) + 1 :]
                tagged = slot_of(full) == slot_of(full + "}x") == slot_of(full + "x")
                assert len(rest) == (32 if tagged else 35), rest
                assert all(byte in b"0123456789abcdef" for byte in rest[:32])
        for receipt in receipts:
            cluster.owner(slot).cli("DEL", receipt)


def test_receipts_of_random_keys_are_in_their_slots(cluster: ClusterGroup) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    prefix = own_prefix()
    keys = {"".join(chosen.choice("{}ab:é\x7f") for _ in range(chosen.randint(1, 12))) for _ in range(300)}

    async def main() -> None:
        async with await counterfoil.aio.open(cluster.url(), prefix=prefix, timeout=20) as store:
            assert await asyncio.gather(*(store.incr(key, ttl=60) for key in keys)) == [1] * len(keys)
            assert await asyncio.gather(*(store.pop(key) for key in keys)) == ["1"] * len(keys)

    asyncio.run(main())
    receipts = [key for key in raw_keys(cluster) if key.startswith(prefix.encode()) and b"\0" in key]
    assert len(receipts) == 2 * len(keys)
    for receipt in receipts:
        assert slot_of(receipt) == slot_of(receipt.partition(b"\0")[0])


def test_all_records_of_a_store_are_in_one_slot(cluster: ClusterGroup) -> None:
    prefix = own_prefix()
    with counterfoil.open(cluster.url(), prefix=prefix, timeout=10) as store:
        fill_records(store)
        assert store.count() == 0
    found = {key for key in raw_keys(cluster) if key.startswith(prefix.encode())}
    assert len(found) > 20
    assert {slot_of(key) for key in found} == {slot_of(f"{prefix}\n{{records}}")} == {slot_of("{records}")}


def fill_records(store: counterfoil.Store) -> None:
    """Something of every kind, and every change that there is."""
    accounts, sessions = counterfoil.AccountsStorage(store), counterfoil.SessionStorage(store)
    now = datetime.now(UTC)
    for number in range(4):
        user, account, _ = accounts.find_or_create_by_social_account(
            provider="github", provider_user_id=f"id {number}", user={"email": f"{number}@example.org"}
        )
        for one in range(3):
            sessions.create(
                token_hash=f"hash {number} {one}",
                user_id=user.id,
                created_at=now,
                updated_at=now,
                expires_at=now + timedelta(hours=1),
            )
        accounts.update_user(user.id, email_verified=True)
        assert sessions.revoke_all_for_user(user.id, revoked_at=now) == 3
        if number % 2:
            assert accounts.delete_user(user.id)
        else:
            assert accounts.find_social_account(provider="github", provider_user_id=f"id {number}") == account


# ------------------------------------------------------------------------------------------------ slots that are moving


class Half:
    """A slot of a key, half-moved, and both servers."""

    def __init__(self, cluster: ClusterGroup, key: str) -> None:
        self.cluster, self.slot = cluster, slot_of(key)
        self.old = cluster.owner(self.slot)
        self.new = other_than(cluster, self.old)

    def __enter__(self) -> "Half":
        self.cluster.begin_move(self.slot, self.new)
        return self

    def finish(self) -> None:
        self.cluster.move_keys(self.slot, self.new)
        self.cluster.finish_move(self.slot, self.new)

    def __exit__(self, *_: object) -> None:
        self.cluster.cancel_move(self.slot)


@pytest.mark.parametrize("receipts", ["on", "off"])
def test_what_is_about_one_key_goes_on_while_its_slot_is_half_moved(cluster: ClusterGroup, receipts: str) -> None:
    prefix = "{" + own_prefix() + "}"
    with counterfoil.open(cluster.url(receipts=receipts), prefix=prefix, timeout=10) as store:
        for key in ("here", "moved", "here2", "moved2", "here3", "moved3"):
            store.set(key, key, ttl=60)
        before = store.stats()["redirects"]
        with Half(cluster, prefix) as half:
            cluster.move_keys(half.slot, half.new, [prefix + "moved", prefix + "moved2", prefix + "moved3"])
            assert [store.get(key) for key in ("here", "moved", "none")] == ["here", "moved", None]
            for key in ("here", "moved", "new"):
                assert store.set(key, "changed", ttl=60)
                assert store.get(key) == "changed"
                assert store.touch(key, 100)
            assert [store.touch(key, 60) for key in ("here2", "moved2", "none")] == [True, True, False]
            assert [store.delete(key) for key in ("here2", "moved2", "none")] == [True, True, False]
            # What was made anew while the slot was half there is where the slot goes.
            there = {prefix + key for key in ("moved", "moved3", "new")}
            found = half.new.cli("CLUSTER", "GETKEYSINSLOT", half.slot, 100)
            assert {key.decode() for key in found if b"\0" not in key} == there
            if receipts == "off":
                assert [store.pop(key) for key in ("here3", "moved3", "none")] == ["here3", "moved3", None]
            assert store.stats()["redirects"] > before
            half.finish()
        assert [store.get(key) for key in ("here", "moved", "new", "here2", "moved2")] == ["changed"] * 3 + [None] * 2


def when_whole(half: Half, calls: list[Callable[[], Any]]) -> list[Any]:
    """What these give: nothing while the slot is half there, and what they should when it has moved."""
    with ThreadPoolExecutor(len(calls)) as pool:
        asked: list[Future[Any]] = [pool.submit(call) for call in calls]
        try:
            time.sleep(0.3)
            assert [one for one in asked if one.done()] == []
        finally:
            half.finish()
        return [one.result(30) for one in asked]


def test_what_has_one_winner_waits_until_the_slot_is_whole(cluster: ClusterGroup) -> None:
    prefix = "{" + own_prefix() + "}"
    with counterfoil.open(cluster.url(), prefix=prefix, timeout=20) as store:
        for key in ("popped here", "popped there", "equal here", "equal there", "absent here", "absent there"):
            store.set(key, key, ttl=60)
        for key in ("counted here", "counted there"):
            store.set(key, "41", ttl=60)
        with Half(cluster, prefix) as half:
            moved = ["popped there", "equal there", "absent there", "counted there"]
            cluster.move_keys(half.slot, half.new, [prefix + key for key in moved])
            got = when_whole(
                half,
                [
                    lambda: store.pop("popped here"),
                    lambda: store.pop("popped there"),
                    lambda: store.incr("counted here"),
                    lambda: store.incr("counted there"),
                    lambda: store.set("equal here", "new", if_equal="equal here"),
                    lambda: store.set("equal there", "new", if_equal="equal there"),
                    lambda: store.set("absent here", "new", if_absent=True),
                    lambda: store.set("absent there", "new", if_absent=True),
                ],
            )
        assert got == ["popped here", "popped there", 42, 42, True, True, False, False]
        assert [store.get("equal here"), store.get("absent here"), store.get("popped here")] == [
            "new",
            "absent here",
            None,
        ]


def test_who_cannot_wait_so_long_is_told_so_and_nothing_was_done(cluster: ClusterGroup) -> None:
    prefix = "{" + own_prefix() + "}"
    with counterfoil.open(cluster.url(), prefix=prefix, timeout=0.5) as store:
        store.set("code", "1", ttl=60)
        store.set("counter", "1", ttl=60)
        with Half(cluster, prefix) as half:
            cluster.move_keys(half.slot, half.new, [prefix + "counter"])
            for call in (lambda: store.pop("code"), lambda: store.incr("counter")):
                began = time.process_time()
                with pytest.raises(counterfoil.Error) as caught:
                    call()
                assert caught.value.outcome in ("not_applied", "unknown")  # it may just have been on its way once more
                assert caught.value.code in ("TIMEOUT", "UNAVAILABLE")
                assert time.process_time() - began < 0.25
            half.finish()
        assert (store.pop("code"), store.incr("counter")) == ("1", 2)


def test_no_account_is_made_twice_while_the_slot_of_the_records_moves(cluster: ClusterGroup) -> None:
    prefix = "{" + own_prefix() + "}"
    slot = slot_of(prefix)
    people = 12
    made: dict[int, list[str]] = {person: [] for person in range(people)}
    errors: list[Exception] = []
    stop = threading.Event()

    def sign_up(number: int) -> None:
        chosen = random.Random(number)
        with counterfoil.open(cluster.url(), prefix=prefix, timeout=20) as store:
            accounts = counterfoil.AccountsStorage(store)
            while not stop.is_set():
                person = chosen.randrange(people)
                try:
                    user, _, created = accounts.find_or_create_by_social_account(
                        provider="github", provider_user_id=f"id {person}", user={"email": f"{person}@example.org"}
                    )
                    if created:
                        made[person].append(user.id)
                    accounts.update_user(user.id, email_verified=bool(chosen.getrandbits(1)))
                except Exception as error:
                    errors.append(error)

    threads = [threading.Thread(target=sign_up, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(40 if LONG else 6):
            old = cluster.owner(slot)
            new = other_than(cluster, old)
            cluster.begin_move(slot, new)
            for key in old.cli("CLUSTER", "GETKEYSINSLOT", slot, 100):  # one by one: this is where it could go wrong
                cluster.move_keys(slot, new, [key])
                time.sleep(0.002)
            cluster.move_keys(slot, new)
            cluster.finish_move(slot, new)
            time.sleep(0.05)
            assert turn == 0 or any(made.values())
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert {person: len(ids) for person, ids in made.items() if len(ids) != 1} == {}
    raw = [key for key in raw_keys(cluster) if key.startswith(prefix.encode())]
    assert len([key for key in raw if b"\n{records}user:" in key]) == people
    assert len([key for key in raw if b"\n{records}social_account:" in key]) == people


def test_records_wait_until_their_slot_is_whole(cluster: ClusterGroup) -> None:
    prefix = "{" + own_prefix() + "}"
    now = datetime.now(UTC)
    with counterfoil.open(cluster.url(), prefix=prefix, timeout=20) as store:
        accounts, sessions = counterfoil.AccountsStorage(store), counterfoil.SessionStorage(store)
        user = accounts.create_user(email="ada@example.org")
        more: dict[str, Any] = {"created_at": now, "updated_at": now, "expires_at": now + timedelta(hours=1)}
        session = sessions.create(token_hash="h", user_id=user.id, **more)
        with Half(cluster, prefix) as half:
            some = half.old.cli("CLUSTER", "GETKEYSINSLOT", half.slot, 100)
            cluster.move_keys(half.slot, half.new, some[::2])
            got = when_whole(
                half,
                [
                    lambda: accounts.find_user_by_email("ada@example.org"),
                    lambda: accounts.create_user(email="bob@example.org").email,
                    lambda: sessions.get(token_hash="h", now=now),
                    lambda: accounts.find_user_by_id("nobody"),
                ],
            )
        assert got == [user, "bob@example.org", session, None]


def test_slots_move_under_load_and_nobody_notices(cluster: ClusterGroup) -> None:
    seconds = 600 if LONG else 3
    with counterfoil.open(cluster.url(), timeout=5) as store, Load(store, unknown=False) as load:
        slots = sorted({slot_of(f"{load.prefix}{number}-{turn}") for number in range(3) for turn in range(50)})
        began, turn, moved = time.monotonic(), 0, 0
        while time.monotonic() < began + seconds:
            primaries = cluster.primaries()
            slot = slots[turn % len(slots)]
            turn += 1
            to = primaries[turn % len(primaries)]
            if cluster.owner(slot) is not to:
                cluster.move_slot(slot, to)
                moved += 1
        load.moves()
        load.well()
        assert moved > 20
        assert store.stats()["redirects"] > 0


def test_many_at_once_while_their_slots_move(cluster: ClusterGroup) -> None:
    prefix = own_prefix()
    keys = [f"{number}" for number in range(400)]

    async def main() -> None:
        async with await counterfoil.aio.open(cluster.url(), prefix=prefix, timeout=20) as store:
            for turn in moves.rounds(10):
                await asyncio.gather(*(store.set(key, f"{key} {turn}", ttl=60) for key in keys))
                assert await asyncio.gather(*(store.get(key) for key in keys)) == [f"{key} {turn}" for key in keys]
                winners = await asyncio.gather(*(store.pop(key) for key in keys for _ in range(3)))
                assert sorted(one for one in winners if one) == sorted(f"{key} {turn}" for key in keys)
            assert store.stats()["redirects"] > 0

    with Moves(cluster, [prefix + key for key in keys]) as moves:
        asyncio.run(main())


# ---------------------------------------------------------------------------------------- nodes that come and go, pages


def test_a_node_joins_and_another_leaves(cluster: ClusterGroup) -> None:
    with counterfoil.open(cluster.url(), timeout=10) as store, Load(store, unknown=False) as load:
        new = cluster.add()
        key = key_in(range(2000), load.prefix + "joined")
        slots = {slot_of(f"{load.prefix}{number}-{turn}") for number in range(3) for turn in range(50)}
        cluster.move_slots({*list(slots)[:60], slot_of(key)}, new)
        load.moves(60)
        store.set(key, "1", ttl=60)
        assert new.cli("GET", key) == b"1"
        cluster.remove(new)
        load.moves(60)
        load.well()
        assert store.get(key) == "1"


def test_a_scan_is_over_all_primaries(cluster: ClusterGroup) -> None:
    prefix = own_prefix()
    keys = {f"k{number}" for number in range(500)} | {f"other{number}" for number in range(10)}

    async def main() -> None:
        async with await counterfoil.aio.open(cluster.url(), prefix=prefix, timeout=20) as store:
            await asyncio.gather(*(store.set(key, "1", ttl=600) for key in keys))
            found = [key async for key in store.scan()]
            assert sorted(found) == sorted(keys)
            assert sorted([key async for key in store.scan("other")]) == sorted(key for key in keys if key[0] == "o")
            assert await store.count() == len(keys)
            assert await store.count("k") == 500
            assert {len([key async for key in store.scan("none")]), await store.clear("none")} == {0}
            assert await store.clear("k") == 500
            assert await store.count() == 10
            assert await store.clear() == 10

    asyncio.run(main())
    assert len({cluster.owner(slot_of(prefix + key)) for key in keys}) == 3


def test_everybodys_keys_are_cleared_by_force_only(calm: ClusterGroup) -> None:
    with counterfoil.open(calm.url(), timeout=10) as store:
        store.clear(force=True)
        for number in range(30):
            store.set(f"{number}", "1")
        with pytest.raises(counterfoil.InvalidError):
            store.clear()
        assert store.count() == 30
        assert store.clear(force=True) == 30
        assert store.count() == 0
        assert [node.cli("KEYS", "*") for node in calm.primaries()] == [[], [], []]


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_that_moves_behind_a_scan_is_not_silently_left_out(cluster: ClusterGroup, order: int) -> None:
    prefix = own_prefix()
    with counterfoil.open(cluster.url(), prefix=prefix, timeout=10) as store:
        keys = [f"k{number}" for number in range(600)]
        for key in keys:
            store.set(key, "1", ttl=600)
        pages = store.scan()
        first = next(pages)
        seen = cluster.owner(slot_of(prefix + first))
        found = {first}
        # Until it is with another server: all that was with the first one has been given.
        for key in pages:
            found.add(key)
            if cluster.owner(slot_of(prefix + key)) is not seen:
                break
        left = [key for key in keys if key not in found]
        last = [key for key in left if cluster.owner(slot_of(prefix + key)) is not seen][::order][:5]
        for key in last:
            cluster.move_slot(slot_of(prefix + key), seen)
        try:
            found.update(pages)
        except counterfoil.UnavailableError as error:
            assert error.outcome == "not_applied"
        else:
            assert set(keys) - found == set()
        assert store.count() == 600


def test_what_clear_began_with_is_gone_while_slots_move(cluster: ClusterGroup) -> None:
    prefix = own_prefix()
    keys = [f"k{number}" for number in range(1500)]

    async def main() -> None:
        async with await counterfoil.aio.open(cluster.url(), prefix=prefix, timeout=30) as store:
            for _ in moves.rounds(20 if LONG else 2):
                await asyncio.gather(*(store.set(key, "1", ttl=600) for key in keys))
                assert await store.clear("k") == len(keys)
                assert not any(key.startswith(prefix.encode()) for key in raw_keys(cluster))

    with Moves(cluster, [prefix + key for key in keys]) as moves:
        asyncio.run(main())


# ------------------------------------------------------------------------------------------------------------ failovers


def test_planned_failovers_are_followed_and_nobody_sees_a_replica(cluster: ClusterGroup) -> None:
    with counterfoil.open(cluster.url(), timeout=5) as store, Load(store) as load:
        for turn in range(100 if LONG else 4):
            cluster.wait_until_whole()
            load.moves()
            primaries = cluster.primaries()
            cluster.fail_over(primaries[turn % len(primaries)])
            load.moves()
        load.well()


def test_a_primary_is_killed(cluster: ClusterGroup) -> None:
    with counterfoil.open(cluster.url(), timeout=20) as store, Load(store) as load:
        for _ in range(20 if LONG else 1):
            cluster.kill_primary()
            load.moves()
            assert load.errors == []
            cluster.revive()
        # What was written last may have died with it: that is not what this is about.
        load.moves()
        assert load.errors == []


def test_a_primary_freezes_and_its_connection_is_not_waited_for(cluster: ClusterGroup) -> None:
    old = cluster.primaries()[0]
    slot = cluster.slots_of(old)[0]
    # Far more than the test may take: who waits for silence, or for the end of an attempt, fails.
    with (
        counterfoil.open(cluster.url(silence="600", connect_timeout="600"), timeout=30) as store,
        Load(store) as load,
    ):
        old.pause()
        cluster.wait_for_primary(slot, other_than=old)
        load.moves(60)
        assert load.errors == []
        old.resume()
        cluster.wait_until_whole()
        load.moves(60)
        assert load.errors == []


def test_the_others_go_on_while_one_is_frozen(calm: ClusterGroup) -> None:
    frozen, other = calm.primaries()[:2]
    mine, theirs = key_in(calm.slots_of(frozen), "frozen"), key_in(calm.slots_of(other), "goes on")

    async def main() -> None:
        async with await counterfoil.aio.open(calm.url(), timeout=20) as store:
            await asyncio.gather(store.set(mine, "1", ttl=60), store.set(theirs, "1", ttl=60))
            frozen.pause()
            try:
                waits = asyncio.create_task(store.get(mine))
                for _ in range(100):
                    assert await store.get(theirs) == "1"
                assert not waits.done()
            finally:
                frozen.resume()
            assert await waits == "1"

    asyncio.run(main())


def test_who_comes_while_there_is_no_primary_waits_for_it(cluster: ClusterGroup) -> None:
    old = cluster.primaries()[0]
    slot = cluster.slots_of(old)[0]
    old.kill()

    async def main() -> list[str | None]:
        async with await counterfoil.aio.open(cluster.url(), timeout=20) as store:
            await asyncio.gather(*(store.set(f"wait{number}", str(number), ttl=60) for number in range(50)))
            return await asyncio.gather(*(store.get(f"wait{number}") for number in range(50)))

    assert asyncio.run(main()) == [str(number) for number in range(50)]
    cluster.wait_for_primary(slot, other_than=old)


def test_a_cluster_that_is_down_is_waited_for_inside_the_deadline() -> None:
    with ClusterGroup(replicas=0, node_timeout_ms=300) as cluster:
        first, _, third = cluster.primaries()
        key = key_in(cluster.slots_of(first))
        with counterfoil.open(cluster.url(), timeout=20) as store:
            store.set(key, "1")
            third.kill()
            until(lambda: first.state()["cluster_state"] == "fail")
            with pytest.raises(ReplyError, match="CLUSTERDOWN"):
                first.cli("GET", key)
            with counterfoil.open(cluster.url(), timeout=0.4) as hasty:
                began = time.process_time()
                with pytest.raises(counterfoil.Error, match=r"CLUSTERDOWN|deadline") as caught:
                    hasty.set(key, "2")
                assert caught.value.outcome == "not_applied"
                assert time.process_time() - began < 0.2
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(store.get, key)
                third.restart()
                assert asked.result(30) == "1"


def test_a_slot_that_nobody_has_is_waited_for(calm: ClusterGroup) -> None:
    key = "nobody's"
    slot = slot_of(key)
    owner = calm.owner(slot)
    try:
        for node in calm.primaries():
            node.cli("CLUSTER", "DELSLOTS", slot)
        with counterfoil.open(calm.url(), timeout=20) as store:
            with counterfoil.open(calm.url(), timeout=0.4) as hasty:
                with pytest.raises(counterfoil.Error) as caught:
                    hasty.set(key, "1")
                assert caught.value.outcome == "not_applied"
            store.set(key_in(set(range(SLOTS)) - {slot}), "others go on", ttl=60)
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(store.set, key, "1", ttl=60)
                time.sleep(0.1)
                assert not asked.done()
                owner.cli("CLUSTER", "ADDSLOTS", slot)
                assert asked.result(30) is True
    finally:
        calm.wait_until_whole()


def test_events_say_which_server_it_is(cluster: ClusterGroup) -> None:
    with counterfoil.open(cluster.url(), timeout=20) as store:
        said: list[str] = []
        store.on("connect", lambda event: said.append(str(event)))
        old = cluster.primaries()[0]
        key = key_in(cluster.slots_of(old))
        store.set(key, "1", ttl=60)
        new = cluster.kill_primary(old)
        store.get(key)
        deadline = time.monotonic() + 10
        while not any(f":{new.port}" in text for text in said):
            assert time.monotonic() < deadline, said
            store.get(key)
        assert any(f":{old.port}" in text for text in said)
        assert not any("p@ss" in text for text in said)


# ------------------------------------------------------------------------------------------------ answers that are lost


class Proxied:
    """A cluster each of whose servers is only known by a proxy in front of it."""

    def __init__(self) -> None:
        self.cluster = ClusterGroup(primaries=2, replicas=0, password=WORD)
        self.proxies: dict[int, Proxy] = {}

    def __enter__(self) -> "Proxied":
        self.cluster.start()
        try:
            for node in self.cluster.nodes:
                self.proxies[node.port] = Proxy(node)
                node.cli("CONFIG", "SET", "cluster-announce-port", self.proxies[node.port].port)
            wanted = {f"127.0.0.1:{proxy.port}" for proxy in self.proxies.values()}
            for node in self.cluster.nodes:

                def heard(node: Node = node) -> bool:
                    return wanted == {line[1].partition("@")[0] for line in node.sees().values()}

                until(heard)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies.values():
            proxy.close()
        self.cluster.stop()

    def at(self, node: Node) -> Proxy:
        return self.proxies[node.port]

    @property
    def url(self) -> str:
        return self.cluster.url_of(ports([proxy.port for proxy in self.proxies.values()]))


@pytest.fixture(scope="module")
def proxied() -> Iterator[Proxied]:
    with Proxied() as made:
        yield made


@pytest.fixture
def behind(proxied: Proxied) -> Iterator[Proxied]:
    yield proxied
    for proxy in proxied.proxies.values():
        proxy.passing()
        proxy("refuse off")
    proxied.cluster.revive()


@pytest.mark.parametrize("key", AWKWARD)
def test_a_lost_answer_is_found_by_its_receipt(behind: Proxied, key: str) -> None:
    prefix = own_prefix()
    proxy = behind.at(behind.cluster.owner(slot_of(prefix + key)))
    with counterfoil.open(behind.url, prefix=prefix, timeout=10) as store:
        store.pop(key)
        for call, expected in (
            (lambda: store.set(key, "41", ttl=60, if_absent=True), True),
            (lambda: store.incr(key), 42),
            (lambda: store.set(key, "43", if_equal="42", keep_ttl=True), True),
            (lambda: store.pop(key), "43"),
        ):
            before = proxy.stats()["fired"]
            proxy.lose()
            assert call() == expected
            assert proxy.stats()["fired"] > before
        assert store.pop(key) is None


def gone(node: Node, key: str) -> bool:
    return not node.cli("EXISTS", key)


def test_a_lost_answer_is_found_where_the_slot_has_gone_meanwhile(behind: Proxied) -> None:
    cluster = behind.cluster
    for number, key in enumerate(AWKWARD):
        prefix = own_prefix()
        slot = slot_of(prefix + key)
        old = cluster.owner(slot)
        new = other_than(cluster, old)
        proxy = behind.at(old)
        with counterfoil.open(behind.url, prefix=prefix, timeout=20) as store, ThreadPoolExecutor(1) as pool:
            store.pop(key)  # the server knows the script from now on
            store.set(key, str(number), ttl=60)
            proxy("refuse on")
            proxy.lose()
            asked = pool.submit(store.pop, key)
            until(partial(gone, old, prefix + key))
            cluster.move_slot(slot, new)
            proxy("refuse off")
            assert asked.result(30) == str(number)
            assert store.pop(key) is None


def test_a_lost_answer_while_the_slot_is_half_moved(behind: Proxied) -> None:
    cluster = behind.cluster
    prefix = "{" + own_prefix() + "}"
    with counterfoil.open(behind.url, prefix=prefix, timeout=20) as store, ThreadPoolExecutor(1) as pool:
        store.pop("code")  # the server knows the script from now on
        store.set("code", "1", ttl=60)
        with Half(cluster, prefix) as half:
            cluster.cancel_move(half.slot)
            behind.at(half.old)("refuse on")
            behind.at(half.old).lose()
            asked = pool.submit(store.pop, "code")
            until(partial(gone, half.old, prefix + "code"))
            cluster.begin_move(half.slot, half.new)
            behind.at(half.old)("refuse off")
            time.sleep(0.2)
            half.finish()
            assert asked.result(30) == "1"


def test_a_caller_with_a_receipt_asks_again_wherever_the_key_is(behind: Proxied) -> None:
    cluster = behind.cluster
    prefix = own_prefix()
    slot = slot_of(prefix + "code")
    old = cluster.owner(slot)
    with counterfoil.open(behind.url, prefix=prefix, timeout=1) as store:
        store.pop("code")
        store.set("code", "the code", ttl=60)
        behind.at(old)("refuse on")
        behind.at(old).lose()
        with pytest.raises(counterfoil.Error) as caught:
            store.pop("code")
        assert caught.value.outcome == "unknown"
        cluster.move_slot(slot, other_than(cluster, old))
        behind.at(old)("refuse off")
        with counterfoil.open(behind.url, prefix=prefix, timeout=10) as another:
            assert another.pop("code") is None
            assert another.pop("code", receipt=caught.value.receipt) == "the code"


def test_a_plain_write_whose_answer_is_lost_is_unknown(behind: Proxied) -> None:
    proxy = behind.at(behind.cluster.owner(slot_of("plain write")))
    with counterfoil.open(behind.url, timeout=10) as store:
        store.get("plain write")
        proxy.lose()
        with pytest.raises(counterfoil.UnavailableError) as caught:
            store.set("plain write", "1", ttl=60)
        assert caught.value.outcome == "unknown"
        assert store.get("plain write") == "1"


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_the_map_is_cut_at_many_bytes(behind: Proxied, how: Any) -> None:
    first, second = behind.proxies.values()
    with counterfoil.open(behind.url, timeout=10) as store:
        store.get("a")
    length = 400  # greeting and map are longer
    for place in range(0, length, 3 if LONG else 53):
        for proxy in (first, second):
            proxy.cut("reply", place, how)
        with counterfoil.open(behind.url, timeout=10) as store:
            assert store.get("nothing here") is None


# ----------------------------------------------------------------------------------------- a server that talks nonsense


class Liar(FakeServer):
    """Greets as Redis does, says `map` when it is asked for the slots, and `rest` to all else. @ is its own port."""

    def __init__(self, map: bytes, rest: bytes = b"$1\r\n1\r\n") -> None:
        self.map, self.rest = map, rest
        self.asked: list[bytes] = []
        super().__init__()

    def talk(self, connection: socket.socket) -> None:
        own = b"%d" % self.port
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as said:
            while line := said.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int(said.readline()[1:])
                    words.append(said.read(size + 2)[:-2])
                self.asked.append(words[0].upper())
                match words[0].upper():
                    case b"PING":
                        answer = b"+PONG\r\n"
                    case b"AUTH" | b"CLIENT" | b"SELECT" | b"ASKING":
                        answer = b"+OK\r\n"
                    case b"INFO":
                        answer = b"$13\r\nrole:master\r\n\r\n"
                    case b"CONFIG":
                        answer = b"*0\r\n"
                    case b"CLUSTER":
                        answer = self.map
                    case _:
                        answer = self.rest
                connection.sendall(answer.replace(b"@", own))


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text.encode()), text.encode())


def slots_map(*ranges: tuple[int, int, str, int | str]) -> bytes:
    """As CLUSTER SLOTS says it; a port that is text is an error of the test's own."""
    out = b"*%d\r\n" % len(ranges)
    for first, last, host, port in ranges:
        out += b"*3\r\n:%d\r\n:%d\r\n*3\r\n%s:%s\r\n%s" % (first, last, bulk(host), str(port).encode(), bulk("id" * 20))
    return out


ALL = slots_map((0, SLOTS - 1, "127.0.0.1", "@"))


def test_the_liar_is_believed_when_it_says_nothing_wrong() -> None:
    with Liar(ALL) as liar, counterfoil.open(f"redis+cluster://127.0.0.1:{liar.port}", timeout=10) as store:
        assert store.get("a") == "1"


@pytest.mark.parametrize(
    "map",
    [
        b"*0\r\n",
        b"+OK\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b":7\r\n",
        b"*1\r\n*0\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*0\r\n",
        b"*1\r\n*2\r\n:0\r\n:16383\r\n",
        b"*1\r\n*3\r\n$1\r\n0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:@\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n:127\r\n:@\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$-1\r\n:0\r\n",
        slots_map((0, 16384, "127.0.0.1", "@")),
        slots_map((-1, 16383, "127.0.0.1", "@")),
        slots_map((16383, 0, "127.0.0.1", "@")),
        slots_map((0, 16383, "127.0.0.1", 65536)),
        slots_map((0, 16383, "127.0.0.1", 0)),
        slots_map((0, 16383, "127.0.0.1", -1)),
        slots_map((0, 16383, "a b?c/d", "@")),
        slots_map((0, 16383, "h" * 300, "@")),
        slots_map((0, 16383, "?", "@")),
        slots_map((0, 2**62, "127.0.0.1", "@")),
        b"*1\r\n" * 40 + b":1\r\n",
        b"-ERR no idea\r\n",
        b"-CLUSTERDOWN Hash slot not served\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"\r\n",
        b"x" * 600 + b"\r\n",
    ],
)
def test_a_map_that_is_nonsense_is_passed_over(cluster: ClusterGroup, map: bytes) -> None:
    with Liar(map) as liar:
        began = time.process_time()
        with (
            counterfoil.open(f"redis+cluster://127.0.0.1:{liar.port}", timeout=0.1) as store,
            pytest.raises(counterfoil.Error) as caught,
        ):
            store.get("a")
        assert caught.value.outcome == "not_applied"
        assert time.process_time() - began < 0.15
        with counterfoil.open(cluster.url_of(ports([liar.port, cluster.primaries()[0].port])), timeout=10) as store:
            store.set("a", "right", ttl=60)
        assert cluster.owner(slot_of("a")).cli("GET", "a") == b"right"


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_server_without_a_name_is_where_it_was_asked(host: str) -> None:
    with (
        Liar(slots_map((0, SLOTS - 1, host, "@"))) as liar,
        counterfoil.open(f"redis+cluster://127.0.0.1:{liar.port}", timeout=10) as store,
    ):
        assert store.get("a") == "1"


@pytest.mark.parametrize(
    "text",
    [
        "MOVED",
        "MOVED ",
        "MOVED 1",
        "MOVED x 127.0.0.1:1",
        "MOVED -1 127.0.0.1:1",
        "MOVED 16384 127.0.0.1:1",
        "MOVED 99999999999999999999 127.0.0.1:1",
        "MOVED 1 127.0.0.1",
        "MOVED 1 127.0.0.1:",
        "MOVED 1 127.0.0.1:0",
        "MOVED 1 127.0.0.1:65536",
        "MOVED 1 127.0.0.1:12x",
        "MOVED 1 :",
        "MOVED 1 a b:1",
        "MOVED  1  127.0.0.1:1",
        "MOVED 1 " + "h" * 400 + ":1",
        "ASK",
        "ASK 1",
        "ASK x y",
        "ASK 1 127.0.0.1:99999",
        "ASKING 1 127.0.0.1:1",
    ],
)
def test_a_redirection_to_nowhere_is_no_answer(text: str) -> None:
    with Liar(ALL, b"-" + text.encode() + b"\r\n") as liar:
        began = time.process_time()
        with counterfoil.open(f"redis+cluster://127.0.0.1:{liar.port}", timeout=0.05) as store:
            for call in (
                lambda: store.get("a"),
                lambda: store.set("a", "1"),
                lambda: store.pop("a"),
                lambda: store.count(),
            ):
                with pytest.raises(counterfoil.Error) as caught:
                    call()
                assert caught.value.code in ("UNAVAILABLE", "TIMEOUT", "CORRUPT")
        assert time.process_time() - began < 1
        assert len(liar.asked) < 2000


@pytest.mark.parametrize("word", [b"MOVED", b"ASK"])
def test_servers_that_send_us_round_in_a_circle(word: bytes) -> None:
    slot = slot_of("a")
    with Liar(b"") as first, Liar(b"") as second:
        for one, other in ((first, second), (second, first)):
            one.map = slots_map((0, SLOTS - 1, "127.0.0.1", first.port))
            one.rest = b"-%s %d 127.0.0.1:%d\r\n" % (word, slot, other.port)
        began = time.process_time()
        with counterfoil.open(f"redis+cluster://127.0.0.1:{first.port}", timeout=1) as store:
            with pytest.raises(counterfoil.Error) as caught:
                store.set("a", "1")
            assert caught.value.outcome in ("not_applied", "unknown")  # just on its way to somebody
            assert time.process_time() - began < 0.6
            assert len(first.asked) + len(second.asked) < 1500
            second.rest = b"+OK\r\n"
            assert store.set("a", "1")


def test_nobody_is_stormed_who_refuses_us() -> None:
    async def main(liar: Liar) -> None:
        async with await counterfoil.aio.open(f"redis+cluster://:word@127.0.0.1:{liar.port}", timeout=5) as store:
            with pytest.raises(counterfoil.AuthError):
                await store.get("a")
            before = liar.asked.count(b"CLUSTER")
            await asyncio.sleep(1.3)
            assert liar.asked.count(b"CLUSTER") - before <= 2  # nobody has asked us meanwhile

    with Liar(b"-NOPERM this user has no permissions to run the 'cluster|slots' command\r\n") as liar:
        asyncio.run(main(liar))


# ------------------------------------------------------------------------------------------------------- its whole life


def test_a_child_after_fork_asks_anew(cluster: ClusterGroup) -> None:
    keys = [f"forked{number}" for number in range(20)]
    with counterfoil.open(cluster.url(), timeout=10) as store:
        for key in keys:
            store.set(key, "parent", ttl=60)
        pid = os.fork()
        if pid == 0:
            try:
                for key in keys:
                    assert store.get(key) == "parent"
                    store.set(key, "child", ttl=60)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert [store.get(key) for key in keys] == ["child"] * len(keys)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_closed_while_calls_are_under_way(cluster: ClusterGroup, frozen: bool) -> None:
    async def main() -> None:
        store = await counterfoil.aio.open(cluster.url(), timeout=20)
        await store.set("warm", "1", ttl=60)
        if frozen:
            for node in cluster.primaries():
                node.pause()
        calls = [asyncio.create_task(store.incr(f"closing{number}", ttl=60)) for number in range(300)]
        await asyncio.sleep(0)
        await store.close()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert {getattr(one, "code", one) for one in ended} <= {1, "CLOSED"}
        assert not frozen or {getattr(one, "code", one) for one in ended} == {"CLOSED"}
        with pytest.raises(counterfoil.ClosedError):
            await store.get("warm")

    asyncio.run(main())


def test_it_is_dropped_while_calls_are_under_way(cluster: ClusterGroup) -> None:
    async def main() -> None:
        for _ in range(20):
            store = await counterfoil.aio.open(cluster.url(), timeout=5)
            calls = [asyncio.ensure_future(store.incr(f"dropped{number}", ttl=60)) for number in range(50)]
            await asyncio.sleep(0.001)
            for call in calls[::2]:
                call.cancel()
            del store
            gc.collect()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())
    for _ in range(20):
        unclosed = counterfoil.open(cluster.url(), timeout=5)
        unclosed.set("dropped", "1", ttl=60)
        del unclosed
    gc.collect()


def test_figures(cluster: ClusterGroup) -> None:
    prefix = own_prefix()
    with counterfoil.open(cluster.url(), prefix=prefix, timeout=10) as store:
        for number in range(30):
            store.set(f"{number}", "1", ttl=60)
        before = store.stats()
        assert before["operations"] == 30
        assert before["redirects"] == 0
        assert before["connected"]
        assert "p@ss" not in repr(before)
        slot = slot_of(prefix + "0")
        cluster.move_slot(slot, other_than(cluster, cluster.owner(slot)))
        assert store.get("0") == "1"
        after = store.stats()
        assert (after["operations"], after["redirects"]) == (31, 1)
        assert after["bytes_out"] > before["bytes_out"] if "bytes_out" in before else True


def test_a_limit_is_of_each_server(cluster: ClusterGroup) -> None:
    keys = [key_in(cluster.slots_of(node), f"limit{number}") for node in cluster.primaries() for number in range(4)]

    async def main() -> None:
        async with await counterfoil.aio.open(cluster.url(max_pending="3"), timeout=20) as store:
            await store.get(keys[0])
            for node in cluster.primaries():
                node.pause()
            calls = [asyncio.create_task(store.get(key)) for key in keys]
            await asyncio.sleep(0.1)
            ended = [call.exception() for call in calls if call.done()]
            assert {getattr(one, "code", one) for one in ended} == {"BUSY"}
            assert len(ended) == 3
            for node in cluster.nodes:
                node.resume()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())


def test_all_of_it_by_tls() -> None:
    with ClusterGroup(tls=True, password=WORD) as secure:
        with counterfoil.open(secure.url(), timeout=20) as store, Load(store) as load:
            secure.fail_over()
            load.moves()
            slot = slot_of(f"{load.prefix}0-0")
            secure.move_slot(slot, other_than(secure, secure.owner(slot)))
            load.moves(60)
            load.well()
            secure.kill_primary()
            load.moves()
            assert load.errors == []
        with (
            counterfoil.open(secure.url(tls_server_name="elsewhere.example"), timeout=10) as store,
            pytest.raises(counterfoil.AuthError, match=r"elsewhere\.example"),
        ):
            store.get("a")


# -------------------------------------------------------------------------------------------------------------- durable


@contextlib.contextmanager
def cut(cluster: ClusterGroup, primary: Node) -> Iterator[None]:
    """Its replicas cannot reach the primary any more, and what it does from now on dies with it."""
    replicas = cluster.cut_off(primary)
    until(lambda: primary.cli("ROLE")[2] == [])
    try:
        yield
    finally:
        cluster.let_follow(replicas)


def winners_over_a_failover(cluster: ClusterGroup, **options: str) -> tuple[list[str | None], list[counterfoil.Error]]:
    """One code, popped before and after a failover to a replica that had not heard of the first pop."""
    won: list[str | None] = []
    refused: list[counterfoil.Error] = []
    prefix = own_prefix()
    primary = cluster.owner(slot_of(prefix + "code"))
    with counterfoil.open(cluster.url(**options), prefix=prefix, timeout=20) as store:
        store.set("code", "the code", ttl=600)
        (replica,) = cluster.replicas(primary)
        replica.cli("READONLY")
        until(lambda: replica.cli("EXISTS", prefix + "code"))
        with cut(cluster, primary):
            try:
                won.append(store.pop("code"))
            except counterfoil.Error as error:
                refused.append(error)
            cluster.kill_primary(primary)
    with counterfoil.open(cluster.url(durable="0"), prefix=prefix, timeout=20) as store:
        if refused:
            won.append(store.pop("code", receipt=refused[0].receipt))
        won.append(store.pop("code"))
    cluster.revive()
    return won, refused


@pytest.mark.parametrize("again", range(20 if LONG else 1))
def test_a_pop_that_a_failover_could_undo_is_no_win_when_durable(cluster: ClusterGroup, again: int) -> None:
    del again
    # The control: without it two callers win, which is why there is such an option.
    assert winners_over_a_failover(cluster, durable="0") == (["the code", "the code"], [])
    won, (error,) = winners_over_a_failover(cluster, durable="1")
    assert (type(error), error.outcome) == (counterfoil.UnavailableError, "applied")
    assert "not replicated" in str(error)
    assert won == ["the code", None]  # by the receipt its own caller has it from the new primary, and nobody else


def test_durable_is_of_the_primary_of_each_key(cluster: ClusterGroup) -> None:
    prefix = own_prefix()
    first, second, _ = cluster.primaries()
    mine, other = key_in(cluster.slots_of(first), prefix), key_in(cluster.slots_of(second), prefix)

    async def main() -> None:
        async with await counterfoil.aio.open(cluster.url(durable="1"), timeout=20) as store:
            assert await asyncio.gather(store.incr(mine), store.incr(other)) == [1, 1]
            with cut(cluster, first):
                ended = await asyncio.gather(store.incr(mine), store.incr(other), return_exceptions=True)
                assert isinstance(ended[0], counterfoil.UnavailableError)
                assert (ended[0].outcome, ended[1]) == ("applied", 2)
            until(lambda: len(first.cli("ROLE")[2]) == 1)
            assert await store.incr(mine) == 3
            await asyncio.gather(*(store.delete(key) for key in (mine, other)))

    asyncio.run(main())


def test_durable_while_slots_move(cluster: ClusterGroup) -> None:
    prefix = own_prefix()
    keys = [f"{number}" for number in range(30)]
    with (
        Moves(cluster, [prefix + key for key in keys]) as moves,
        counterfoil.open(cluster.url(durable="1"), prefix=prefix, timeout=10) as store,
    ):
        for turn in moves.rounds(20):
            for key in keys:
                store.set(key, str(turn), ttl=60)
                try:
                    assert store.pop(key) == str(turn)
                except counterfoil.UnavailableError as error:
                    # Its slot went before the replicas had it: it was done, and the caller asks with its receipt.
                    assert error.outcome in ("applied", "unknown")
                    assert store.pop(key, receipt=error.receipt) == str(turn)
                assert store.get(key) is None
