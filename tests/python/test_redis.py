"""What only a backend over connections has: the pool, events, receipts, options, figures, and forks."""

import asyncio
import contextvars
import gc
import http.client
import json
import logging
import math
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil import Backend
from counterfoil.testing import Stage
from faults.proxy import Proxy
from faults.servers import AWKWARD_PASSWORD, LEAST_RIGHTS, RedisServer
from redis_servers import own_prefix, redis_variable
from support import Full, run_python, run_trio, run_uvloop
from test_threads import HANG, together

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def paused(server: RedisServer) -> Iterator[RedisServer]:
    """The server, for tests that stop it: it goes on afterwards."""
    yield server
    server.resume()
    server.cli("FLUSHALL")


@pytest.fixture(params=[asyncio.run, run_uvloop, run_trio])
def runner(request: pytest.FixtureRequest) -> Runner:
    run: Runner = request.param
    return run


def until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.002)


async def ticks_until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + HANG
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    if "trio" in sys.modules:
        import trio

        try:
            trio.lowlevel.current_task()
            sleep = trio.sleep
        except RuntimeError:
            pass
    while not holds():
        assert time.monotonic() < end, what
        await sleep(0.002)


def clients(server: RedisServer, name: str) -> int:
    listed: bytes | str = server.cli("CLIENT", "LIST")
    text = listed.decode() if isinstance(listed, bytes) else listed
    return text.count(f" name={name} ")


# ---------------------------------------------------------------------------------------------------------------- pool


def test_a_connection_for_each_call_in_flight_and_no_more(server: RedisServer) -> None:
    with counterfoil.open(server.url(), max_connections=3, name="three") as store:
        most: list[int] = []

        def work(number: int) -> None:
            for index in range(200):
                key = f"{number}:{index}"
                assert store.set(key, key) is True
                assert store.pop(key) == key
                if index % 50 == 0:
                    most.append(store.stats()["connections"])

        together(8, work)
        assert max(most) <= 3
        assert clients(server, "three") == store.stats()["connections"] <= 3
        assert store.stats()["operations"] == 8 * 200 * 2
    until(lambda: clients(server, "three") == 0, "a connection stayed open")


def test_one_thread_has_one_connection(server: RedisServer) -> None:
    with counterfoil.open(server.url(), name="one") as store:
        for _ in range(100):
            store.incr("n")
        assert clients(server, "one") == store.stats()["connections"] == 1
        store.clear(force=True)


def test_a_call_that_gets_no_connection_in_time_is_busy(server: RedisServer) -> None:
    """The only connection is held by a call whose listener does not return."""
    held, leave = threading.Event(), threading.Event()

    def listener(_: str) -> None:
        held.set()
        leave.wait(HANG)

    with counterfoil.open(server.url(), max_connections=1, timeout=0.3) as store:
        store.on("connect", listener)
        holder = threading.Thread(target=lambda: store.get("a"))
        holder.start()
        assert held.wait(HANG)
        with pytest.raises(counterfoil.BusyError, match="all 1 connections of this store are in use") as caught:
            store.set("a", "1")
        assert (caught.value.code, caught.value.outcome) == ("BUSY", "not_applied")
        leave.set()
        holder.join(HANG)
        assert store.get("a") is None
        assert store.stats()["busy"] == 1


def test_a_listener_that_needs_a_second_connection(server: RedisServer) -> None:
    """It would wait for its own call: that is said at once. With one more connection it just works."""
    for connections in (1, 2):
        seen: list[Any] = []
        with counterfoil.open(server.url(), max_connections=connections, timeout=HANG) as store:

            def listener(_: str, store: counterfoil.Store = store, seen: list[Any] = seen) -> None:
                if not seen:
                    seen.append(None)
                    try:
                        seen.append(store.get("nobody"))
                    except counterfoil.BusyError as error:
                        seen.append(str(error))

            store.on("connect", listener)
            assert store.get("a") is None
        expected = "all 1 connections of this store are in use by the call that this one is made from"
        assert seen[1:] == [expected if connections == 1 else None]


def test_waiting_calls_take_turns(paused: RedisServer) -> None:
    """Eight calls over one connection: each gets it in the end, and what is left of its time."""
    with counterfoil.open(paused.url(), max_connections=1, timeout=HANG) as store:
        store.set("a", "1")
        paused.pause()
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(store.get("a"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        assert results == []
        paused.resume()
        for thread in threads:
            thread.join(HANG)
        assert results == ["1"] * 8
        assert store.stats()["connections"] == 1


def test_a_deadline_counts_from_the_call(paused: RedisServer) -> None:
    """Also where most of the time went by in the wait for a connection."""
    with counterfoil.open(paused.url(), max_connections=1, timeout=0.5) as store:
        store.get("a")
        paused.pause()
        took: list[float] = []

        def work(_: int) -> None:
            began = time.monotonic()
            with pytest.raises((counterfoil.DeadlineError, counterfoil.BusyError)):
                store.get("a")
            took.append(time.monotonic() - began)

        together(4, work)
        assert len(took) == 4
        assert max(took) < 5, "the waits added up"


def test_close_wakes_those_who_wait_for_a_connection(paused: RedisServer) -> None:
    store = counterfoil.open(paused.url(), max_connections=1, timeout=HANG)
    store.get("a")
    paused.pause()
    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append(store.get("a"))
        except counterfoil.ClosedError as error:
            ended.append(error.code)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    closer = threading.Thread(target=store.close)
    closer.start()
    until(lambda: ended.count("CLOSED") == 2, "those who wait were not told")
    paused.resume()
    for thread in [*threads, closer]:
        thread.join(HANG)
    assert sorted(map(str, ended)) == ["CLOSED", "CLOSED", "None"]


def crowd(store: counterfoil.Store, server: RedisServer, count: int) -> None:
    """Makes the store open so many connections."""
    server.pause()
    threads = [threading.Thread(target=store.get, args=("crowd",)) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: store.stats()["connections"] == count, "the connections were not opened")
    server.resume()
    for thread in threads:
        thread.join(HANG)


def test_connections_that_nobody_uses_are_closed(paused: RedisServer, stage: Stage) -> None:
    with counterfoil.open(paused.url(), name="idle", stage=stage) as store:
        crowd(store, paused, 5)
        assert clients(paused, "idle") == 5
        stage.advance(59)
        store.get("a")  # over the one that was used last
        stage.advance(1)
        before = store.stats()
        assert before["connections"] == 5
        store.get("a")
        after = store.stats()
        assert after["connections"] == 1
        assert after["operations"] == before["operations"] + 1, "figures of what was closed are kept"
        assert after["connects"] == 5
        until(lambda: clients(paused, "idle") == 1, "a connection stayed open")
        stage.advance(3600)
        store.get("a")  # the only one stays
        assert store.stats()["connects"] == 5


def test_a_connection_that_cannot_be_made_costs_no_place(paused: RedisServer) -> None:
    """Without descriptors a call fails at once and says why; afterwards there are as many connections as ever."""
    with counterfoil.open(paused.url(), timeout=HANG, max_connections=2) as store:
        store.get("a")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        paused.pause()
        first = threading.Thread(target=store.get, args=("a",))
        first.start()
        until(lambda: store.stats()["in_flight"] == 1, "the call did not begin")
        lowest = os.open(os.devnull, os.O_RDONLY)  # the next one that anybody would get; above it there may be others
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            for _ in range(3):
                with pytest.raises(counterfoil.UnavailableError, match="ulimit"):
                    store.get("a")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert store.stats()["connections"] == 1
        second = threading.Thread(target=store.get, args=("a",))
        second.start()
        until(lambda: store.stats()["connections"] == 2, "the place is lost")
        paused.resume()
        first.join(HANG)
        second.join(HANG)


@pytest.mark.parametrize("number", [0, -1, 1001, 2**70, 2.0, True, "5", None])
def test_max_connections_is_checked(number: Any) -> None:
    with pytest.raises(counterfoil.InvalidError, match="max_connections"):
        counterfoil.open("redis://localhost", max_connections=number)


class Rang(Exception):
    pass


@pytest.mark.parametrize("waits_for", ["the server", "a connection"])
def test_a_signal_is_answered_while_a_call_waits(paused: RedisServer, waits_for: str) -> None:
    def ring(*_: object) -> None:
        raise Rang

    store = counterfoil.open(paused.url(), timeout=HANG, max_connections=1)
    store.set("a", "1")
    paused.pause()
    other = threading.Thread(target=store.get, args=("a",))
    if waits_for == "a connection":
        other.start()
        time.sleep(0.05)
    before = signal.signal(signal.SIGALRM, ring)
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Rang):
            store.get("a")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 10  # of HANG
    paused.resume()
    if waits_for == "a connection":
        other.join(HANG)
    assert store.get("a") == "1"
    store.close()


# --------------------------------------------------------------------------------------------------- no crossed replies


def test_threads_get_their_own_answers() -> None:
    with counterfoil.open(redis_variable(""), prefix=own_prefix(), timeout=HANG) as store:

        def work(number: int) -> None:
            for index in range(1000):
                key = f"{(index * 7 + number * 3) % 100}"
                value = store.get(key)
                assert value is None or value.startswith(f"{key}="), "somebody else's value"
                store.set(key, f"{key}={number}.{index}")

        together(8, work)
        store.clear()


@pytest.mark.parametrize("seed", range(2))
def test_random_cancellations(runner: Runner, seed: int) -> None:
    """Values name their keys; operations are given up at random; nobody gets what was asked by another."""

    async def main() -> None:
        chance = random.Random(seed)
        async with await counterfoil.aio.open(redis_variable(""), prefix=own_prefix(), timeout=HANG) as store:
            for number in range(100):
                await store.set(str(number), f"{number}=")
            done = canceled = 0
            for _ in range(200):
                ops = [(str(key), store.get(str(key))) for key in chance.choices(range(100), k=30)]
                for _, op in chance.sample(ops, 10):
                    canceled += op.cancel()
                for key, op in ops:
                    try:
                        assert await op == f"{key}="
                        done += 1
                    except counterfoil.CanceledError:
                        pass
            assert done + canceled == 6000
            assert done >= 4000
            assert store.stats()["pending"] == 0
            await store.clear()

    runner(main())


@pytest.mark.parametrize("run", [asyncio.run, run_uvloop])
def test_tasks_that_are_cancelled(run: Runner) -> None:
    async def main() -> None:
        chance = random.Random(7)
        async with await counterfoil.aio.open(redis_variable(""), prefix=own_prefix(), timeout=HANG) as store:
            for number in range(64):
                await store.set(str(number), f"{number}=")

            async def work(number: int) -> int:
                count = 0
                while count < 100:
                    assert await store.get(str(number)) == f"{number}="
                    count += 1
                return count

            for _ in range(10):
                tasks = [asyncio.create_task(work(number)) for number in range(64)]
                for _ in range(20):
                    await asyncio.sleep(0)
                    chance.choice(tasks).cancel("enough")
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(each) for each in ended} <= {int, asyncio.CancelledError}
                assert asyncio.CancelledError in map(type, ended)
                assert 100 in ended
            assert store.stats()["pending"] == 0
            await store.clear()

    run(main())


@pytest.mark.parametrize("run", [asyncio.run, run_uvloop])
def test_what_asyncio_does_with_an_operation(run: Runner) -> None:
    """Context variables, timeouts, shields, groups, and a task that nobody holds."""
    variable = contextvars.ContextVar("variable", default=0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with await counterfoil.aio.open(redis_variable(""), prefix=own_prefix()) as store:

            async def in_context(number: int) -> None:
                variable.set(number)
                for _ in range(5):
                    await store.incr("n")
                    assert variable.get() == number
                    assert asyncio.current_task() is tasks[number]

            tasks = [loop.create_task(in_context(number)) for number in range(20)]
            await asyncio.gather(*tasks)
            assert variable.get() == 0
            assert await asyncio.wait_for(store.get("n"), 10) == "100"
            assert await asyncio.shield(store.get("n")) == "100"
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                popped = [group.create_task(store.pop("n")) for _ in range(10)]
            assert sorted(str(task.result()) for task in popped) == ["100", *["None"] * 9]

            heard = asyncio.Event()

            async def forgotten() -> None:
                await store.get("nobody")
                heard.set()

            loop.create_task(forgotten())  # noqa: RUF006
            await asyncio.sleep(0)
            gc.collect()
            await asyncio.wait_for(heard.wait(), HANG)

    run(main())


@pytest.mark.parametrize("run", [asyncio.run, run_uvloop])
def test_a_task_that_leaves_the_program(run: Runner) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open(redis_variable("")) as store:

            async def work() -> None:
                assert await store.get("nobody") is None

            async def leave() -> None:
                await store.get("nobody")
                raise SystemExit(3)

            await asyncio.gather(*[work() for _ in range(5)], leave(), *[work() for _ in range(5)])

    with pytest.raises(SystemExit) as caught:
        run(main())
    assert caught.value.code == 3


# -------------------------------------------------------------------------------------------------------------- events


def test_what_happens_to_a_connection_is_told() -> None:
    heard: list[tuple[str, Any]] = []
    with RedisServer() as server, counterfoil.open(server.url(), timeout=HANG) as store:
        for event in ("connect", "disconnect", "error"):
            store.on(event, lambda what, event=event: heard.append((event, what)))
        store.set("a", "1")
        assert [event for event, _ in heard] == ["connect"]
        assert isinstance(heard[0][1], str)
        server.kill()
        with pytest.raises(counterfoil.Error):
            counterfoil.open(server.url(), timeout=0.2).get("a")
        restart = threading.Timer(0.2, server.restart)
        restart.start()
        assert store.get("a") is None
        restart.join(HANG)
        names = [event for event, _ in heard]
        assert names[:2] == ["connect", "disconnect"]
        assert names[-1] == "connect"
        assert set(names[2:-1]) <= {"error"}
        for event, what in heard:
            assert isinstance(what, str if event == "connect" else counterfoil.Error)
        assert store.stats()["connects"] == 2


def test_an_async_store_comes_back_while_nothing_is_awaited(runner: Runner) -> None:
    async def main() -> None:
        heard: list[str] = []
        with RedisServer() as server:
            async with await counterfoil.aio.open(server.url()) as store:
                for event in ("connect", "disconnect", "error"):
                    store.on(event, lambda _, event=event: heard.append(event))
                await ticks_until(lambda: heard == ["connect"], "it did not connect by itself")
                server.restart(kill=True)
                await ticks_until(lambda: heard[-1] == "connect" and len(heard) > 2, "it did not come back by itself")
                assert heard[1] == "disconnect"
                assert await store.set("a", "1") is True

    runner(main())


def test_asyncio_ends_with_a_store_that_is_still_connected(runner: Runner) -> None:
    stores = []

    async def main() -> None:
        store = await counterfoil.aio.open(redis_variable(""))
        assert await store.get("nobody") is None
        stores.append(store)

    runner(main())
    stores.clear()
    gc.collect()


def test_a_warning_is_logged_once_or_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(persistence="aof-everysec") as server:
        for listens in (False, True):
            caplog.clear()
            heard: list[str] = []
            with (
                caplog.at_level(logging.WARNING, "counterfoil"),
                counterfoil.open(server.url(), timeout=HANG) as store,
            ):
                if listens:
                    assert store.on("warning", heard.append) == heard.append
                crowd(store, server, 3)
                until(lambda store=store: store.stats()["connected"] == 3, "not all are connected")
                for _ in range(3):
                    crowd(store, server, 3)
            logged = [record.getMessage() for record in caplog.records if record.name == "counterfoil"]
            said, silent = (heard, logged) if listens else (logged, heard)
            assert silent == []
            assert len(said) >= 1
            assert len(said) == len(set(said))


def test_listeners_that_throw_reach_no_call(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    heard: list[str] = []

    def bad(_: str) -> None:
        raise LookupError("listener")

    with counterfoil.open(server.url()) as store:
        store.on("connect", bad)
        store.on("connect", heard.append)
        removed = store.on("connect", lambda what: heard.append("removed"))
        store.off("connect", removed)
        store.off("connect", removed)
        assert store.get("nobody") is None
        assert [type(each.exc_value) for each in unraisable] == [LookupError]
        assert len(heard) == 1
        with pytest.raises(counterfoil.InvalidError):
            store.off("open", removed)  # type: ignore[arg-type]

    async def main() -> None:
        async with await counterfoil.aio.open(server.url()) as store:
            store.on("connect", bad)
            assert await store.get("nobody") is None

    asyncio.run(main())
    assert len(unraisable) == 2


def test_ctrl_c_while_a_warning_is_logged_stays_one() -> None:
    """It is no exception of a listener: it is meant for whoever waits."""

    class Interrupted(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.removeHandler(self)
            signal.raise_signal(signal.SIGINT)

    logger = logging.getLogger("counterfoil")
    handler = Interrupted()
    with RedisServer(persistence="aof-everysec") as server, counterfoil.open(server.url()) as store:

        def call_until_it_is_logged() -> None:
            while handler in logger.handlers:
                store.get("nobody")

        logger.addHandler(handler)
        with pytest.raises(KeyboardInterrupt):
            call_until_it_is_logged()


def test_a_close_that_is_interrupted_is_told(paused: RedisServer) -> None:
    def ring(*_: object) -> None:
        raise Rang

    store = counterfoil.open(paused.url(), timeout=HANG)
    heard: list[str] = []
    store.on("close", lambda: heard.append("close"))
    store.get("a")
    paused.pause()
    other = threading.Thread(target=store.get, args=("a",))
    other.start()
    until(lambda: store.stats()["in_flight"] == 1, "the call did not begin")
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Rang):
            store.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == ["close"]
    paused.resume()
    other.join(HANG)


def test_a_listener_may_close_the_store(server: RedisServer) -> None:
    store = counterfoil.open(server.url())
    store.on("connect", lambda _: store.close())
    try:
        store.get("a")
    except counterfoil.ClosedError:
        pass
    assert store.closed
    with pytest.raises(counterfoil.ClosedError):
        store.get("a")


# ------------------------------------------------------------------------------------------------------------ receipts


LOST: list[tuple[str, Callable[..., Any], Any, str | None]] = [
    ("pop", lambda store, **more: store.pop("k", **more), "5", None),
    ("pop_bytes", lambda store, **more: store.pop_bytes("k", **more), b"5", None),
    ("incr", lambda store, **more: store.incr("k", 2, **more), 7, "7"),
    ("if_equal", lambda store, **more: store.set("k", "x", if_equal="5", **more), True, "x"),
    ("if_absent", lambda store, **more: store.set("k2", "x", if_absent=True, **more), True, "5"),
]


@pytest.mark.parametrize(("name", "call", "answer", "left"), LOST)
def test_a_lost_answer_is_got_back_with_its_receipt(
    server: RedisServer, name: str, call: Callable[..., Any], answer: Any, left: str | None
) -> None:
    with Proxy(server) as proxy, counterfoil.open(f"redis://127.0.0.1:{proxy.port}", timeout=1) as store:
        server.cli("FLUSHALL")
        store.set("k", "5")
        proxy.lose()
        proxy("refuse on")
        with pytest.raises(counterfoil.Error) as caught:
            call(store)
        error = caught.value
        assert error.outcome == "unknown"
        assert error.receipt is not None
        assert error.receipt not in str(error) + repr(error) + "".join(traceback.format_exception(error))
        proxy("refuse off")
        assert call(store, receipt=error.receipt) == answer
        assert call(store, receipt=error.receipt) == answer, "again is the same"
        assert store.get("k") == left
        with pytest.raises(counterfoil.InvalidError):  # of another call
            store.incr("k2" if name == "if_absent" else "k", 9, receipt=error.receipt)


def test_a_receipt_of_an_async_store(server: RedisServer, runner: Runner) -> None:
    async def main() -> None:
        server.cli("FLUSHALL")
        with Proxy(server) as proxy:
            async with await counterfoil.aio.open(f"redis://127.0.0.1:{proxy.port}", timeout=1) as store:
                await store.set("k", "5")
                proxy.lose()
                proxy("refuse on")
                with pytest.raises(counterfoil.Error) as caught:
                    await store.pop("k")
                proxy("refuse off")
                assert await store.get("k") is None
                assert await store.pop("k", receipt=caught.value.receipt) == "5"

    runner(main())


def test_an_answer_that_is_lost_in_time_is_asked_for_again(server: RedisServer) -> None:
    with Proxy(server) as proxy, counterfoil.open(f"redis://127.0.0.1:{proxy.port}") as store:
        for number in range(20):
            store.set("k", str(number))
            proxy.lose()
            assert store.pop("k") == str(number)
        assert store.stats()["retries"] >= 20


def test_receipts_are_checked(server: RedisServer) -> None:
    receipt = "0" * 32
    with counterfoil.open(server.url()) as store:
        for bad in ("", "0", "g" * 32, "0" * 33):
            with pytest.raises(counterfoil.InvalidError, match="receipt"):
                store.pop("k", receipt=bad)
        for wrong in (b"0" * 32, 5, True):
            with pytest.raises(counterfoil.InvalidTypeError, match="receipt must be str"):
                store.incr("k", receipt=wrong)  # type: ignore[arg-type]
        with pytest.raises(counterfoil.InvalidError):
            store.set("k", "1", receipt=receipt)
        with pytest.raises(TypeError):
            store.get("k", receipt=receipt)  # type: ignore[call-arg]
        assert store.pop("k", receipt=None) is None
        assert counterfoil.Error("").receipt is None
    for target in ("memory:", Full()):
        with counterfoil.open(target) as other, pytest.raises(counterfoil.NotSupportedError, match="receipt"):
            other.pop("k", receipt=receipt)


# ------------------------------------------------------------------------------------------------------------- options


def test_options_as_keywords() -> None:
    rights = {"us.er": (AWKWARD_PASSWORD + " &é\"'", LEAST_RIGHTS)}
    with RedisServer(acl=rights) as server:
        login = {"user": "us.er", "password": rights["us.er"][0]}
        bare = f"redis://127.0.0.1:{server.port}"
        with counterfoil.open(
            bare, db=3, name="by-keyword", connect_timeout=1.5, silence=7, max_pending=50, max_pending_bytes=10**7,
            receipts=False, tls_ca=None, **login,
        ) as store:  # fmt: skip
            assert store.set("a", "1", if_absent=True) is True
            server.cli("SELECT", 3)
            assert server.cli("GET", "a") in ("1", b"1")
            assert clients(server, "by-keyword") == 1
        wrong = "hunter2"
        with counterfoil.open(bare, user="us.er", password=wrong) as store:
            with pytest.raises(counterfoil.AuthError) as caught:
                store.get("a")
            shown = "".join(traceback.format_exception(caught.value)) + repr(store)
            assert wrong not in shown
    for options in ({"password": [wrong]}, {"password": wrong, "unknown": 1}, {"password": "\ud800" + wrong}):
        with pytest.raises(counterfoil.InvalidError) as refused:
            counterfoil.open("redis://localhost", **options)  # type: ignore[arg-type]
        assert wrong not in str(refused.value)
    for bad in ({"receipts": "maybe"}, {"silence": -1}, {"db": True}, {"db": 1.5}, {"max_pending": math.nan}):
        with pytest.raises(counterfoil.InvalidError):
            counterfoil.open("redis://localhost", **bad)  # type: ignore[arg-type]


def test_a_refused_option_is_named() -> None:
    secret = "hunter2"
    for bad in (secret.encode(), [secret], "\ud800" + secret):
        with pytest.raises(counterfoil.InvalidError, match=r"^password ") as caught:
            counterfoil.open("redis://localhost", password=bad)  # type: ignore[arg-type]
        assert secret not in str(caught.value)
    for url in (b"redis://localhost", Path("redis://localhost"), bytearray(b"redis:")):
        with pytest.raises(counterfoil.InvalidTypeError, match=f"a URL is str, not {type(url).__name__}"):
            counterfoil.open(url)

    async def main() -> None:
        with pytest.raises(counterfoil.InvalidError, match=r"^max_connections .*one connection"):
            await counterfoil.aio.open("redis://localhost", max_connections=4)

    asyncio.run(main())


def test_paths_as_options(server: RedisServer) -> None:
    secure = redis_variable("TLS")
    url, _, ca = secure.partition("?tls_ca=")
    with counterfoil.open(url, tls_ca=Path(ca), prefix=own_prefix()) as store:
        assert store.get("a") is None


# ------------------------------------------------------------------------------------------------------------- figures


def test_figures(server: RedisServer) -> None:
    with counterfoil.open(server.url()) as store:
        for _ in range(50):
            store.incr("n")
        stats = store.stats()
        assert stats["operations"] == 50
        assert stats["connected"] == stats["connections"] == stats["connects"] == 1
        assert stats["in_flight"] == stats["queued"] == stats["pending"] == stats["disconnects"] == 0
        assert stats["bytes_sent"] > 50 * 20
        latency = stats["latency_us"]
        bounds = list(latency)
        assert bounds == sorted(bounds)
        assert bounds[0] == 64
        assert bounds[-1] == math.inf
        assert sum(latency.values()) >= 50
        assert not any(name.startswith("us_") for name in stats)
        json.dumps(stats)
        store.delete("n")


def test_figures_only_grow_while_threads_are_at_work(server: RedisServer) -> None:
    with counterfoil.open(server.url()) as store:
        stop = threading.Event()

        def work(number: int) -> None:
            if number == 0:
                seen = 0
                for _ in range(30):
                    now = store.stats()["operations"]
                    assert now >= seen, "figures of a connection in use are missing"
                    seen = now
                stop.set()
            while not stop.is_set():
                store.get("nobody")

        together(5, work)


# ---------------------------------------------------------------------------------------------------------------- fork


def test_forks_while_threads_are_at_work() -> None:
    """No process reads what another was answered."""
    with RedisServer() as server:
        done = run_python(
            f"""
            import os, threading, counterfoil
            store = counterfoil.open({server.url()!r}, timeout=60)
            for number in range(100):
                store.set(str(number), f"{{number}}=")
            stop, bad = False, []
            def work(first):
                number = first
                while not stop:
                    number = (number + 7) % 100
                    if store.get(str(number)) != f"{{number}}=":
                        bad.append(number)
            threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
            for thread in threads:
                thread.start()
            for attempt in range(30):
                pid = os.fork()
                if pid == 0:
                    try:
                        more = [threading.Thread(target=work, args=(first,)) for first in range(3)]
                        for thread in more:
                            thread.start()
                        for number in range(100):
                            assert store.get(str(number)) == f"{{number}}="
                        stop = True
                        for thread in more:
                            thread.join()
                        assert not bad
                        if attempt % 2:
                            store.close()
                        os._exit(0)
                    except BaseException:
                        import traceback
                        traceback.print_exc()
                        os._exit(9)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                assert code == 0, code
            stop = True
            for thread in threads:
                thread.join()
            assert not bad
            assert store.stats()["disconnects"] == 0, "a child spoke on a connection of its parent"
            store.close()
            print("done")
        """,
            timeout=HANG,
        )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_fork_in_a_listener() -> None:
    """In the child the call ends at once, and says why; the next one works."""
    with RedisServer() as server:
        done = run_python(f"""
            import os, counterfoil
            store = counterfoil.open({server.url()!r}, timeout=60)
            pids = []
            store.on("connect", lambda _: pids or pids.append(os.fork()))
            try:
                said = store.get("a")
            except counterfoil.ForkedError as error:
                said = f"{{error}}, {{error.outcome}}"
            assert store.get("a") is None
            if pids[0] == 0:
                print(said, flush=True)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
            assert said is None
            assert store.stats()["disconnects"] == 0
        """)
    said = "this call was begun before a fork, and this is the child, unknown\n"
    assert (done.stdout, done.returncode) == (said, 0), done.stderr


def test_a_child_may_use_all_connections() -> None:
    """Those that were in use by threads of the parent do not count in the child."""
    with RedisServer() as server:
        done = run_python(f"""
            import os, signal, threading, time, counterfoil
            store = counterfoil.open({server.url()!r}, timeout=60, max_connections=2)
            store.set("a", "1")
            os.kill({server.pid}, signal.SIGSTOP)
            threads = [threading.Thread(target=store.get, args=("a",)) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.2)
            pid = os.fork()
            os.kill({server.pid}, signal.SIGCONT)
            if pid == 0:
                try:
                    assert store.get("a") == "1"
                    os._exit(0)
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(9)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            for thread in threads:
                thread.join()
            print("done")
        """)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_gunicorn_that_loads_first_and_forks_then(tmp_path: Path) -> None:
    """`gunicorn --preload`: the store is opened, and used, before the workers are forked."""
    (tmp_path / "app.py").write_text(f"""
import os, threading, counterfoil
store = counterfoil.open({redis_variable("")!r}, prefix={own_prefix()!r}, ttl=60)
store.set("loaded", str(os.getpid()))
def application(environ, start_response):
    name = environ["PATH_INFO"]
    store.set(name, name + "=")
    answer = f"{{os.getpid()}} {{store.get('loaded')}} {{store.get(name)}}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [answer.encode()]
""")
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = f"{sys.executable} -m gunicorn --preload -b 127.0.0.1:0 --workers 2 --threads 4 app:application".split()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=output)
    try:
        until(lambda: b"Booting worker" in log.read_bytes() or process.poll() is not None, "gunicorn did not start")
        port = int(log.read_text().partition("Listening at: http://127.0.0.1:")[2].split()[0])
        workers: set[str] = set()
        lock = threading.Lock()

        def work(number: int) -> None:
            for index in count():
                if index >= 40 and len(workers) == 2:
                    break
                assert index < 10_000, "one worker took them all"
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
                connection.request("GET", f"/{number}.{index}")
                worker, loaded, value = connection.getresponse().read().decode().split()
                connection.close()
                assert loaded == str(process.pid)
                assert value == f"/{number}.{index}="
                with lock:
                    workers.add(worker)

        together(4, work)
        assert str(process.pid) not in workers
    finally:
        process.terminate()
        process.wait(HANG)


def test_an_object_of_yours_has_no_pool_to_bound() -> None:
    """max_connections is about URLs: calls of a backend of yours run side by side, however many."""
    meet = threading.Barrier(3)

    class Meeting(Full):
        def get(self, key: str) -> Any:
            meet.wait(HANG)
            return key

    backend: Backend = Meeting()
    with counterfoil.open(backend, max_connections=1) as store:
        together(3, lambda number: store.get(f"{number}"))
        assert "connections" not in store.stats()
