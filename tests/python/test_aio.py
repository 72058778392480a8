"""The async store: awaiting, cancelling, closing, in asyncio, uvloop, trio and anyio."""

import asyncio
import gc
import inspect
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import counterfoil
import counterfoil.aio
import pytest
import trio
from counterfoil.testing import Stage
from support import Bare, BareKeeping, Clocked, Full, run_python, run_trio, run_uvloop, with_coroutines

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


def run_anyio_on_trio(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        return await coroutine

    return anyio.run(main, backend="trio")


RUNNERS: dict[str, Runner] = {"asyncio": asyncio.run, "uvloop": run_uvloop, "trio": run_trio}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> Runner:
    return RUNNERS[request.param]


async def tick() -> None:
    """One turn of whichever event loop this is."""
    await anyio.lowlevel.checkpoint()


async def ticks(count: int = 5) -> None:
    for _ in range(count):
        await tick()


def later(kind: type[Clocked], stage: Stage | None = None) -> Clocked:
    return with_coroutines(kind, tick)(stage)


class Held(Full):
    """Its get waits for `release`."""

    def __init__(self, stage: Stage | None = None) -> None:
        super().__init__(stage)
        self.release = anyio.Event()
        self.inside = 0
        self.ended: list[str] = []

    async def get(self, key: str) -> Any:
        self.inside += 1
        try:
            await self.release.wait()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        return super().get(key)


# ------------------------------------------------------------------------------------------------------------- basics


def test_a_done_operation_makes_no_trip_through_the_loop(runner: Runner) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as store, await counterfoil.aio.open(Full()) as own:
            for each in (store, own):
                op = each.set("a", "1")
                assert op.done()
                with pytest.raises(StopIteration) as caught:
                    op.send(None)
                assert caught.value.value is True
                assert each.get("a").done()

    runner(main())


def test_a_pending_operation(runner: Runner) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open(later(Full)) as store:
            op = store.set("a", "1")
            assert not op.done()
            assert repr(op) == "<counterfoil operation 'set': pending>"
            assert await op is True
            assert op.done()
            assert repr(op) == "<counterfoil operation 'set': done>"
            assert await op is True  # as often as it is asked
            assert await store.get("a") == "1"

    runner(main())


def test_it_is_a_coroutine_to_its_users() -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as memory, await counterfoil.aio.open(later(Full)) as own:
            for store in (memory, own):
                op = store.set("k", "0")
                assert inspect.isawaitable(op)
                assert asyncio.iscoroutine(op)
                assert await op
                assert await asyncio.create_task(store.set("a", "1")) is True
                assert await asyncio.gather(store.get("a"), store.get("b"), store.incr("n")) == ["1", None, 1]
                assert await asyncio.wait_for(store.get("a"), 60) == "1"
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(store.incr("n")) for _ in range(5)]
                assert sorted(task.result() for task in tasks) == [2, 3, 4, 5, 6]
                assert await asyncio.shield(store.get("a")) == "1"
                async with asyncio.timeout(60):
                    assert await store.get("a") == "1"
                failed = await asyncio.gather(store.get(""), store.get("a"), return_exceptions=True)
                assert isinstance(failed[0], counterfoil.InvalidError)
                assert failed[1] == "1"

    asyncio.run(main(), debug=True)
    run_uvloop(main())


@pytest.mark.parametrize("run", [run_trio, run_anyio_on_trio, asyncio.run])
def test_it_can_be_given_to_a_nursery(run: Runner) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as memory, await counterfoil.aio.open(later(Full)) as own:
            for store in (memory, own):
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(store.incr, "n")
                assert await store.get("n") == "5"
                if run is not asyncio.run:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(store.set, "a", "1")
                    assert await store.get("a") == "1"

    run(main())


def test_an_operation_begins_when_its_method_is_called(runner: Runner) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as store:
            first = store.set("a", "1")
            second = store.get("a")
            third = store.set("a", "2")
            assert [await third, await second, await first] == [True, "1", True]

    runner(main())


def test_many_in_flight(runner: Runner) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open(later(BareKeeping)) as store:
            ops = [store.incr(f"n{number % 7}") for number in range(700)]
            assert store.stats()["pending"] == 700
            for op in ops:
                await op
            assert [await store.get(f"n{number}") for number in range(7)] == ["100"] * 7
            assert store.stats()["pending"] == 0

    runner(main())


def test_scan_and_count_of_many_pages(runner: Runner) -> None:
    async def main() -> None:
        for target in ("memory:", Full(), later(Full)):
            async with await counterfoil.aio.open(target) as store:
                for number in range(350):
                    await store.set(f"k{number:03}", "v")
                assert sorted([key async for key in store.scan("k")]) == [f"k{number:03}" for number in range(350)]
                assert await store.count("k1") == 100
                assert await store.clear("k1") == 100
                assert await store.count() == 250
                assert await store.get_many(["k000", "k100"]) == {"k000": "v", "k100": None}

    runner(main())


def test_awaited_twice_at_once() -> None:
    async def main() -> None:
        backend = Held()
        async with await counterfoil.aio.open(backend) as store:
            op = store.get("a")

            async def wait() -> Any:
                return await op

            first = asyncio.create_task(wait())
            await ticks()
            with pytest.raises(RuntimeError, match="awaited already"):
                await op
            backend.release.set()
            assert await first is None

    asyncio.run(main())


# -------------------------------------------------------------------------------------------------------- cancellation


def test_cancelling_a_task_cancels_its_operation() -> None:
    async def main() -> None:
        backend = Held()
        async with await counterfoil.aio.open(backend) as store:
            task = asyncio.create_task(store.get("a"))
            await ticks()
            assert backend.inside == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ticks()
            assert backend.ended == ["CancelledError"]
            assert store.stats()["pending"] == 0
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.get("a"), 0.01)
            assert store.stats()["pending"] == 0
            backend.release.set()
            assert await store.get("a") is None

    asyncio.run(main())
    run_uvloop(main())


@pytest.mark.parametrize("run", [run_trio, run_anyio_on_trio, asyncio.run])
def test_cancelling_a_scope_cancels_the_operation(run: Runner) -> None:
    async def main() -> None:
        backend = Held()
        async with await counterfoil.aio.open(backend) as store:
            with anyio.move_on_after(0.01) as scope:
                await store.get("a")
            assert scope.cancelled_caught
            await ticks()
            assert len(backend.ended) == 1
            assert store.stats()["pending"] == 0
            backend.release.set()
            assert await store.get("a") is None

    run(main())


def test_cancel(runner: Runner) -> None:
    async def main() -> None:
        backend = Held()
        async with await counterfoil.aio.open(backend) as store:
            op = store.get("a")
            assert op.cancel() is True
            assert op.cancel() is False
            with pytest.raises(counterfoil.CanceledError) as caught:
                await op
            assert caught.value.outcome == "not_applied"
            assert store.get("b").cancel() is True

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the second one is dropped with its error
        runner(main())


def test_dropping_a_pending_operation_cancels_it(runner: Runner) -> None:
    async def main() -> None:
        backend = Held()
        async with await counterfoil.aio.open(backend) as store:
            op = store.get("a")
            await ticks()
            with pytest.warns(RuntimeWarning, match="'get' is cancelled: it was pending and was never awaited"):
                del op
                gc.collect()
            await ticks()
            assert store.stats()["pending"] == 0
            assert len(backend.ended) == 1

    runner(main())


def test_close_and_throw_of_an_operation() -> None:
    async def main() -> None:
        backend = Held()
        async with await counterfoil.aio.open(backend) as store:
            op = store.get("a")
            op.close()
            op.close()
            with pytest.raises(RuntimeError, match="closed"):
                await op
            op = store.get("a")
            with pytest.raises(LookupError, match="thrown"):
                op.throw(LookupError("thrown"))
            op = store.get("a")
            with pytest.raises(LookupError):
                op.throw(LookupError)
            with pytest.raises(TypeError):
                store.set("a", "1").throw(5)
            op = store.get("a")
            future = op.send(None)
            with pytest.raises(LookupError, match="into the wait"):
                op.throw(LookupError("into the wait"))
            assert future is not None
            assert store.stats()["pending"] == 0

    asyncio.run(main())


def test_a_failed_operation_that_nobody_awaits_is_heard_of() -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as store:
            with pytest.warns(RuntimeWarning, match="was never awaited"):
                store.get("")
                gc.collect()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                store.get("fine")
                gc.collect()

    asyncio.run(main())


# -------------------------------------------------------------------------------------------------------------- life


def test_a_method_that_closes_its_store_and_returns_an_awaitable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operation ends with the store, and nothing watches the descriptor that is gone: it may be anybody's now."""

    class Closing(Full):
        def get(self, key: str) -> Any:
            with pytest.raises(StopIteration):
                store.close().send(None)
            return asyncio.sleep(0)

    store: counterfoil.aio.AsyncStore

    async def main() -> None:
        nonlocal store
        loop = asyncio.get_running_loop()
        watched: set[Any] = set()
        add, remove = loop.add_reader, loop.remove_reader

        def add_reader(fd: Any, *more: Any) -> None:
            watched.add(fd)
            add(fd, *more)

        def remove_reader(fd: Any) -> bool:
            watched.discard(fd)
            return remove(fd)

        monkeypatch.setattr(loop, "add_reader", add_reader)
        monkeypatch.setattr(loop, "remove_reader", remove_reader)
        store = await counterfoil.aio.open(Closing())
        op = store.get("a")
        assert watched == set()
        with pytest.raises(counterfoil.ClosedError):
            await op
        store = await counterfoil.aio.open(later(Full))
        op = store.get("a")
        assert len(watched) == 1, "this is how a pending one is seen"
        assert await op is None
        await store.close()
        assert watched == set()

    asyncio.run(main())


def test_close_with_pending_operations(runner: Runner) -> None:
    async def main() -> None:
        backend = Held()
        store = await counterfoil.aio.open(backend)
        heard: list[str] = []
        store.on("close", lambda: heard.append("close"))
        ops = [store.get("a"), store.get("b")]
        results: list[BaseException] = []

        async def wait(op: Any) -> None:
            try:
                await op
            except counterfoil.ClosedError as error:
                results.append(error)

        async with anyio.create_task_group() as group:
            for op in ops:
                group.start_soon(wait, op)
            await ticks()
            await store.close()
        assert [error.outcome for error in results] == ["not_applied"] * 2  # type: ignore[attr-defined]
        assert backend.closed == 1
        assert heard == ["close"]
        assert len(backend.ended) == 2
        await store.close()
        assert backend.closed == 1
        for call in (store.get, store.count, store.delete):
            with pytest.raises(counterfoil.ClosedError):
                await call("a")
        with pytest.raises(counterfoil.ClosedError):
            store.stats()
        with pytest.raises(counterfoil.ClosedError):
            await anext(store.scan())

    runner(main())


def test_nothing_is_left_behind(runner: Runner) -> None:
    def descriptors() -> set[str]:
        return set(os.listdir("/proc/self/fd"))

    before = descriptors()

    async def main() -> None:
        inside = descriptors()
        stage = Stage()
        for _ in range(3):
            async with await counterfoil.aio.open(later(BareKeeping), stage=stage) as store:
                await store.incr("n")
                await store.pop("n")
            assert stage.blocks == 0
        await ticks()
        assert descriptors() == inside

    runner(main())
    gc.collect()
    assert descriptors() == before


def test_a_dropped_store_is_collected(runner: Runner) -> None:
    async def main() -> None:
        for target in ("memory:", later(Full)):
            stage = Stage()
            store = await counterfoil.aio.open(target, stage=stage)
            await store.set("a", "1")
            await store.count()
            gone = weakref.ref(store)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the coroutine close of the second is dropped with it
                del store, target
                await ticks()
                gc.collect()
            assert gone() is None
            assert stage.blocks == 0
        async with await counterfoil.aio.open(later(Full)) as store:  # the descriptor's number may be used again
            assert await store.set("a", "1")
            assert await store.get("a") == "1"

    runner(main())


def test_repr() -> None:
    async def main() -> None:
        store = await counterfoil.aio.open("memory:secret", prefix="secret")
        assert repr(store) == "<counterfoil.aio.AsyncStore: memory>"
        await store.close()
        assert repr(store) == "<counterfoil.aio.AsyncStore: memory, closed>"

    asyncio.run(main())


def test_it_is_opened_in_an_event_loop() -> None:
    opening = counterfoil.aio.open("memory:")
    with pytest.raises(RuntimeError, match="no running event loop"):
        opening.send(None)


# ------------------------------------------------------------------------------------------------ other event loops


def test_a_foreign_event_loop() -> None:
    async def make() -> tuple[Any, Any, Any]:
        memory = await counterfoil.aio.open("memory:")
        backend = Full()
        coroutines = with_coroutines(Bare, tick)()
        return memory, await counterfoil.aio.open(backend), await counterfoil.aio.open(coroutines)

    async def use(memory: Any, plain: Any, coroutines: Any) -> None:
        assert await memory.set("a", "1")  # nothing waits
        assert await plain.set("a", "1")
        with pytest.raises(counterfoil.InvalidError, match="belongs to the event loop that it was opened in") as caught:
            await coroutines.get("a")
        assert caught.value.code == "INVALID"
        with pytest.raises(counterfoil.InvalidError, match="belongs to the event loop"):
            await coroutines.pop("a")
        assert coroutines.stats()["pending"] == 0

    first = asyncio.new_event_loop()
    stores = first.run_until_complete(make())
    asyncio.run(use(*stores))
    trio.run(use, *stores)
    for store in stores:
        first.run_until_complete(store.close())
    first.close()


def test_another_thread_meanwhile() -> None:
    """Another thread gets in between calls, or a clear error: never a crash."""
    seen: list[Any] = []

    class Mine(Full):
        store: Any = None

        def get(self, key: str) -> Any:
            if key == "outer":

                def elsewhere() -> None:
                    op = self.store.get("inner")
                    try:
                        op.send(None)
                    except (StopIteration, counterfoil.InvalidError) as end:
                        seen.append(end)

                thread = threading.Thread(target=elsewhere)
                thread.start()
                thread.join(60)
            return key

    async def main() -> None:
        backend = Mine()
        async with await counterfoil.aio.open(backend) as store:
            backend.store = store
            assert await store.get("outer") == "outer"
        assert isinstance(seen[0], counterfoil.InvalidError)
        assert "another thread" in str(seen[0])

    asyncio.run(main())


def test_two_stores_over_one_backend_share_its_key_locks() -> None:
    async def main() -> None:
        backend = with_coroutines(BareKeeping, tick)()
        async with await counterfoil.aio.open(backend) as one, await counterfoil.aio.open(backend) as two:
            await asyncio.gather(*[store.incr("n") for store in (one, two) * 50])
            assert await one.get("n") == "100"
            for number in range(50):
                await one.set(f"k{number}", "v")
            popped = await asyncio.gather(
                *[store.pop(f"k{number}") for number in range(50) for store in (one, two, one)]
            )
            assert popped.count("v") == 50

    asyncio.run(main())
    run_trio(main_of_trio())


async def main_of_trio() -> None:
    backend = with_coroutines(BareKeeping, trio.lowlevel.checkpoint)()
    async with await counterfoil.aio.open(backend) as one, await counterfoil.aio.open(backend) as two:
        async with trio.open_nursery() as nursery:
            for store in (one, two) * 50:
                nursery.start_soon(store.incr, "n")
        assert await one.get("n") == "100"


def test_event_loops_in_two_threads_share_key_locks() -> None:
    backend = with_coroutines(BareKeeping, lambda: asyncio.sleep(0))()
    raised: list[BaseException] = []

    def work() -> None:
        async def main() -> None:
            async with await counterfoil.aio.open(backend, timeout=60) as store:
                await asyncio.gather(*[store.incr("n") for _ in range(200)])

        try:
            asyncio.run(main())
        except BaseException as error:
            raised.append(error)

    keep = with_coroutines  # keeps the backend's close for the last
    assert keep is not None
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not raised, raised[0]
    assert backend.data["n"][0] == b"600"


# ------------------------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize("seed", range(3))
def test_random_cancellations(seed: int, runner: Runner) -> None:
    """Tasks that are cancelled at random moments leave nothing pending, no key locked, and no counter wrong."""
    import random

    random_ = random.Random(seed)
    print(f"seed {seed}")

    async def main() -> None:
        stage = Stage()
        backend = with_coroutines(BareKeeping, tick)(stage)
        async with await counterfoil.aio.open(backend, stage=stage) as store:
            certain = 0
            possible = 0

            async def one() -> None:
                nonlocal certain, possible
                with anyio.CancelScope() as scope:
                    scopes.append(scope)
                    possible += 1
                    await store.incr("n")
                    certain += 1

            for _ in range(30):
                scopes: list[anyio.CancelScope] = []
                async with anyio.create_task_group() as group:
                    for _ in range(random_.randrange(1, 8)):
                        group.start_soon(one)
                    await ticks(random_.randrange(0, 12))
                    for scope in scopes:
                        if random_.random() < 0.5:
                            scope.cancel()
            assert store.stats()["pending"] == 0
            assert certain <= int(await store.get("n") or 0) <= possible
            assert await store.set("n", "0", if_present=True)
        await ticks()
        assert stage.blocks == 0

    runner(main())


def test_a_store_per_request() -> None:
    """Descriptors are given back to the event loop before their numbers are used again."""

    async def main() -> None:
        for _ in range(200):
            async with await counterfoil.aio.open(later(Full)) as store:
                await store.set("a", "1")
                assert await store.get("a") == "1"

    for run in RUNNERS.values():
        run(main())


def test_trio_need_not_be_there() -> None:
    done = run_python("""
        import sys
        sys.modules["trio"] = sys.modules["uvloop"] = sys.modules["anyio"] = sys.modules["sniffio"] = None
        import asyncio, counterfoil.aio
        async def main():
            async with await counterfoil.aio.open("memory:") as store:
                await store.set("a", "1")
                print(await store.get("a"))
        asyncio.run(main())
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
