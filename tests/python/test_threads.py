"""Threads: one store, many threads."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import counterfoil
import pytest
from support import BareKeeping, Full

HANG = 120


def together(count: int, work: Callable[[int], None]) -> None:
    """Runs work(0) ... work(count - 1) in as many threads; what one of them raises arrives here."""
    start = threading.Barrier(count)
    raised: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait(HANG)
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive(), "a thread hangs"
    if raised:
        raise raised[0]


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads take turns as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("shared", [True, False])
def test_contested_pops_have_one_winner(shared: bool) -> None:
    """8 threads pop each of 125,000 keys: 1,000,000 pops, 125,000 winners."""
    keys = [f"{number:x}" for number in range(125_000)]
    main = counterfoil.open("memory:pops")
    for key in keys:
        main.set(key, key)
    won: list[list[str]] = [[] for _ in range(8)]

    def work(number: int) -> None:
        store = counterfoil.open("memory:pops") if not shared else main
        mine = won[number].append
        for key in keys:
            value = store.pop(key)
            if value is not None:
                assert value == key
                mine(key)
        if not shared:
            store.close()

    together(8, work)
    winners = [key for mine in won for key in mine]
    assert len(winners) == len(keys)
    assert sorted(winners) == sorted(keys)
    assert main.count() == 0
    main.close()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("target", ["memory:", BareKeeping, Full])
def test_counters_and_conditions(target: Any) -> None:
    locked = target is not Full
    rounds = 2000 if target == "memory:" else 100
    backend = target if isinstance(target, str) else target()
    if not locked:  # every method of Full is one step only under a lock of its own
        lock = threading.Lock()
        plain = backend.incr

        def incr(*args: Any) -> Any:
            with lock:
                return plain(*args)

        backend.incr = incr
    with counterfoil.open(backend) as store:
        created: list[int] = []

        def work(number: int) -> None:
            for index in range(rounds):
                store.incr("counter")
                if locked and store.set(f"once:{index}", str(number), if_absent=True):
                    created.append(index)

        together(8, work)
        assert store.get("counter") == str(8 * rounds)
        if locked:
            assert sorted(created) == list(range(rounds))


def test_calls_of_a_backend_run_side_by_side() -> None:
    meet = threading.Barrier(6)

    class Meeting(Full):
        def get(self, key: str) -> Any:
            meet.wait(HANG)  # only passes when six calls are inside
            return key

    with counterfoil.open(Meeting()) as store:
        together(6, lambda number: assert_equal(store.get(f"k{number}"), f"k{number}"))


def assert_equal(one: object, other: object) -> None:
    assert one == other


def test_close_waits_for_the_calls_of_other_threads() -> None:
    inside, leave = threading.Event(), threading.Event()
    results: list[Any] = []

    class Slow(Full):
        def get(self, key: str) -> Any:
            inside.set()
            leave.wait(HANG)
            return "answer"

    backend = Slow()
    store = counterfoil.open(backend, timeout=HANG)
    caller = threading.Thread(target=lambda: results.append(store.get("k")))
    caller.start()
    inside.wait(HANG)
    closer = threading.Thread(target=store.close)
    closer.start()
    while not store.closed:
        time.sleep(0.001)
    with pytest.raises(counterfoil.ClosedError):
        store.get("new")
    assert backend.closed == 0
    assert closer.is_alive()
    leave.set()
    closer.join(HANG)
    caller.join(HANG)
    assert results == ["answer"]
    assert backend.closed == 1


def test_close_does_not_wait_longer_than_the_timeout() -> None:
    inside, leave = threading.Event(), threading.Event()

    class Slow(Full):
        def get(self, key: str) -> Any:
            inside.set()
            leave.wait(HANG)
            return "late"

    backend = Slow()
    store = counterfoil.open(backend, timeout=0.05)
    caller = threading.Thread(target=store.get, args=("k",))
    caller.start()
    inside.wait(HANG)
    store.close()
    assert caller.is_alive()
    assert backend.closed == 0
    leave.set()
    caller.join(HANG)
    assert backend.closed == 1  # when its last call has ended


def test_what_close_throws_after_the_wait_for_it_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, leave = threading.Event(), threading.Event()
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))

    class Slow(Full):
        def get(self, key: str) -> Any:
            inside.set()
            leave.wait(HANG)

        def close(self) -> None:
            raise LookupError("close")

    store = counterfoil.open(Slow(), timeout=0.05)
    caller = threading.Thread(target=store.get, args=("a",))
    caller.start()
    inside.wait(HANG)
    store.close()
    assert seen == []
    leave.set()
    caller.join(HANG)
    assert [type(error) for error in seen] == [LookupError]


def test_what_close_throws_arrives_at_the_thread_that_closes() -> None:
    inside, leave = threading.Event(), threading.Event()

    class Slow(Full):
        def get(self, key: str) -> Any:
            inside.set()
            leave.wait(HANG)
            return "answer"

        def close(self) -> None:
            raise LookupError("close")

    store = counterfoil.open(Slow(), timeout=HANG)
    results: list[Any] = []
    caller = threading.Thread(target=lambda: results.append(store.get("k")))
    caller.start()
    inside.wait(HANG)
    threading.Timer(0.05, leave.set).start()
    with pytest.raises(LookupError):
        store.close()
    caller.join(HANG)
    assert results == ["answer"]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("target", ["memory:", Full])
def test_close_among_calls(target: Any) -> None:
    """Stores are closed while eight threads use them: every call gives its answer or ClosedError."""
    for _ in range(20):
        store = counterfoil.open(target if isinstance(target, str) else target())

        def work(number: int, store: counterfoil.Store = store) -> None:
            try:
                for index in range(1000):
                    if number == 0 and index == 20:
                        store.close()
                    store.set(f"{number}:{index}", "v")
                    assert store.pop(f"{number}:{index}") == "v"
            except counterfoil.ClosedError:
                pass

        together(4, work)
        assert store.closed


@pytest.mark.usefixtures("eager")
def test_stores_opened_and_closed_by_many_threads() -> None:
    backend = BareKeeping()

    def work(number: int) -> None:
        for index in range(60):
            with counterfoil.open("memory:many") as store, counterfoil.open(backend) as own:
                store.incr("memory")
                own.incr("own")
                store.set(f"{number}", str(index))

    with counterfoil.open("memory:many") as store, counterfoil.open(backend) as own:
        together(8, work)
        assert store.get("memory") == own.get("own") == "480"
