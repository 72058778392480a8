"""Backends written in Python: what they may do, and each way in which they may misbehave."""

import asyncio
import gc
import threading
import warnings
import weakref
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
import trio
from counterfoil import Backend
from counterfoil.testing import Stage
from support import Bare, BareKeeping, Clocked, Full, run_python, with_coroutines


class Plain:
    """Not even a subclass."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self.data.get(key)

    def set(self, key: str, value: Any, ttl: Any) -> Any:
        self.data[key] = value

    def delete(self, key: str) -> Any:
        return self.data.pop(key, None) is not None


# -------------------------------------------------------------------------------------------------------------- open


@pytest.mark.parametrize("missing", ["get", "set", "delete"])
def test_a_missing_method_is_named(missing: str) -> None:
    methods = {name: getattr(Plain, name) for name in ("get", "set", "delete") if name != missing}
    backend = type("Mine", (), methods)()
    with pytest.raises(counterfoil.InvalidTypeError, match=f"Mine has no method '{missing}'") as caught:
        counterfoil.open(backend)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(TypeError, match=missing):
        asyncio.run(_open_async(backend))


async def _open_async(backend: object, **options: Any) -> counterfoil.aio.AsyncStore:
    return await counterfoil.aio.open(backend, **options)


@pytest.mark.parametrize("target", [None, 5, b"memory:", Plain, {}, [], object()])
def test_what_is_no_backend(target: object) -> None:
    with pytest.raises(counterfoil.InvalidTypeError) as caught:
        counterfoil.open(target)
    assert caught.value.code == "INVALID"


def test_a_method_that_is_none_is_not_there() -> None:
    class Mine(Plain):
        pop = None

    with counterfoil.open(Mine()) as store, pytest.raises(counterfoil.NotSupportedError):
        store.pop("a")


def test_a_method_that_cannot_be_called() -> None:
    class Mine(Plain):
        pop = 5

    with pytest.raises(counterfoil.InvalidTypeError, match=r"Mine\.pop must be a method, not int"):
        counterfoil.open(Mine())


@pytest.mark.parametrize("trait", ["binary", "keeps_ttl", "single_process"])
def test_traits_are_booleans(trait: str) -> None:
    backend = type("Mine", (Plain,), {trait: 1})()
    with pytest.raises(counterfoil.InvalidTypeError, match=f"{trait} must be bool, not int"):
        counterfoil.open(backend)


def test_options_are_for_urls() -> None:
    with pytest.raises(counterfoil.InvalidError, match="URL"):
        counterfoil.open(Plain(), max_entries=5)


@pytest.mark.parametrize("name", ["get", "set", "delete", "pop", "touch", "incr", "scan", "set_if", "close"])
def test_a_coroutine_function_needs_the_async_store(name: str) -> None:
    async def method(self: object, *args: object) -> None: ...

    backend = type("Mine", (Plain,), {name: method})()
    with pytest.raises(
        TypeError, match=rf"Mine\.{name} is a coroutine function: open this backend with counterfoil\.aio\.open"
    ):
        counterfoil.open(backend)


def test_an_awaitable_under_the_blocking_store() -> None:
    class Mine(Plain):
        def get(self, key: str) -> Any:
            async def later() -> str:
                return "1"

            return later()  # not seen at open

    with counterfoil.open(Mine()) as store, warnings.catch_warnings():
        warnings.simplefilter("error")  # the coroutine is closed: no "was never awaited"
        with pytest.raises(counterfoil.InvalidTypeError, match=r"Mine\.get must be a value, not coroutine"):
            store.get("a")
        gc.collect()


def test_not_supported_without_single_process() -> None:
    with counterfoil.open(Plain()) as store:
        store.set("a", "1")
        for call in (
            lambda: store.pop("a"),
            lambda: store.touch("a", 5),
            lambda: store.incr("a"),
            lambda: list(store.scan()),
            lambda: store.count(),
            lambda: store.clear(force=True),
            lambda: store.set("a", "2", if_present=True),
            lambda: store.set("a", "2", keep_ttl=True),
        ):
            with pytest.raises(counterfoil.NotSupportedError, match=r"needs? ") as caught:
                call()
            assert (caught.value.code, caught.value.outcome) == ("NOT_SUPPORTED", "not_applied")
        for call, what in (
            (lambda: store.incr("a"), r"that method.*single_process.*keeps_ttl"),
            (lambda: store.set("a", "2", if_absent=True), r"set_if \(setIf\).*single_process"),
            (lambda: store.set("a", "2", keep_ttl=True), r"keeps_ttl, keepsTtl"),
        ):
            with pytest.raises(counterfoil.NotSupportedError, match=what):
                call()
        assert store.get("a") == "1"


# --------------------------------------------------------------------------------------------------- what methods get


class Recorder(Full):
    def __init__(self, stage: Stage | None = None) -> None:
        super().__init__(stage)
        self.calls: list[tuple[Any, ...]] = []

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name in ("get", "set", "delete", "pop", "touch", "incr", "scan", "set_if"):

            def record(*args: Any) -> Any:
                self.calls.append((name, *args))
                return method(*args)

            return record
        return method


def test_arguments(stage: Stage) -> None:
    backend = Recorder(stage)
    with counterfoil.open(backend, prefix="p:", stage=stage) as store:
        store.set("a", "é", ttl=1.0005)
        store.get("a")
        store.touch("a", 2)
        store.set("a", b"\xff", keep_ttl=True)
        store.incr("n", -3, ttl=0.25)
        store.set("b", "x", if_absent=True)
        store.set("b", "y", if_equal=b"x", ttl=5)
        list(store.scan("a"))
        store.pop_bytes("a")
        store.delete("b")
    assert backend.calls == [
        ("set", "p:a", "é".encode(), 1.001),
        ("get", "p:a"),
        ("touch", "p:a", 2.0),
        ("set", "p:a", b"\xff", Backend.KEEP),
        ("incr", "p:n", -3, 0.25),
        ("set_if", "p:b", b"x", None, "absent", None),
        ("set", "p:b", b"x", None),  # of its own
        ("set_if", "p:b", b"y", 5.0, "equal", b"x"),
        ("set", "p:b", b"y", 5.0),
        ("scan", "p:a", None, 100),
        ("pop", "p:a"),
        ("delete", "p:b"),
    ]
    assert all(type(call[-1]) is float for call in backend.calls if call[0] == "touch")


def test_keep_says_what_a_new_value_gets() -> None:
    seen: list[Any] = []

    class Mine(Plain):
        keeps_ttl = True

        def set(self, key: str, value: Any, ttl: Any) -> Any:
            seen.append(ttl)

    with counterfoil.open(Mine()) as store:
        store.set("a", "1", keep_ttl=True)
    with counterfoil.open(Mine(), ttl=2.5) as store:
        store.set("a", "1", keep_ttl=True)
    assert seen[0] is Backend.KEEP
    assert seen[1] == Backend.KEEP
    assert [keep.otherwise for keep in seen] == [None, 2.5]
    assert Backend.KEEP != 5
    assert Backend.KEEP is not None
    assert repr(seen[1]) == "Backend.KEEP"


def test_text_by_default() -> None:
    backend = Plain()
    with counterfoil.open(backend) as store:
        store.set("a", "é")
        store.set("b", bytearray(b"bytes that are text"))
        assert backend.data == {"a": "é", "b": "bytes that are text"}
        with pytest.raises(counterfoil.InvalidError, match="Plain keeps text") as caught:
            store.set("a", b"\xff")
        assert caught.value.outcome == "not_applied"
        assert store.get_bytes("a") == "é".encode()
        backend.data["c"] = b"\xff"  # either may be returned
        assert store.get_bytes("c") == b"\xff"
        with pytest.raises(counterfoil.CorruptError, match="get_bytes"):
            store.get("c")
        backend.data["d"] = memoryview(b"view")
        assert store.get("d") == "view"


def test_methods_are_looked_up_at_each_call() -> None:
    backend = Plain()
    with counterfoil.open(backend) as store:
        backend.get = lambda key: "patched"  # type: ignore[method-assign]
        assert store.get("a") == "patched"


# ------------------------------------------------------------------------------------------------------ wrong results


class Secret(str):
    """A value that must not be seen in a sentence."""


@pytest.mark.parametrize(
    ("method", "result", "sentence"),
    [
        ("get", 5, r"Mine\.get must return str, bytes or None, not int"),
        ("get", ["hunter2"], r"Mine\.get must return str, bytes or None, not list"),
        ("get", True, r"Mine\.get must return str, bytes or None, not bool"),
        ("get", "hunter2\ud800", r"Mine\.get returned text with a lone surrogate"),
        ("get", "x" * 1_048_577, r"Mine\.get returned a value longer than 1 MiB"),
        ("get", memoryview(b"hunter2!")[::2], r"Mine\.get must return str, contiguous bytes or None, not memoryview"),
        ("pop", 5.5, r"Mine\.pop must return str, bytes or None, not float"),
        ("delete", "hunter2", r"Mine\.delete must return bool or None, not str"),
        ("delete", 1, r"Mine\.delete must return bool or None, not int"),
        ("touch", None, r"Mine\.touch must return bool, not NoneType"),
        ("touch", 1, r"Mine\.touch must return bool, not int"),
        ("incr", "5", r"Mine\.incr must return int, not str"),
        ("incr", True, r"Mine\.incr must return int, not bool"),
        ("incr", 2**53, r"Mine\.incr returned a number beyond"),
        ("incr", -(10**30), r"Mine\.incr returned a number beyond"),
        ("set_if", None, r"Mine\.set_if must return bool, not NoneType"),
        ("set_if", "hunter2", r"Mine\.set_if must return bool, not str"),
        ("scan", None, r"Mine\.scan must return a list of keys, or \(keys, next cursor\), not NoneType"),
        ("scan", "hunter2", r"Mine\.scan must return a list of keys, or \(keys, next cursor\), not str"),
        ("scan", ("ab", None), r"Mine\.scan must return a list of keys, or \(keys, next cursor\), not tuple"),
        ("scan", ([], None, 3), r"Mine\.scan must return a list of keys, or \(keys, next cursor\), not tuple"),
        ("scan", [5], r"Mine\.scan must return keys that are str or bytes, not int"),
        ("scan", ([], 1.5), r"Mine\.scan must return a next cursor that is str, bytes, int or None, not float"),
        ("scan", ([], "x" * 1281), r"Mine\.scan returned a cursor that is too long"),
        ("scan", ([], "\ud800"), r"Mine\.scan returned a cursor that is too long or not valid"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("manner", ["blocking", "asyncio", "coroutine"])
def test_a_result_that_cannot_be_right(method: str, result: Any, sentence: str, manner: str) -> None:
    def plain(self: object, *args: object) -> Any:
        return result

    async def coroutine(self: object, *args: object) -> Any:
        await asyncio.sleep(0)
        return result

    backend = type("Mine", (Full,), {method: coroutine if manner == "coroutine" else plain})()
    calls = {
        "set_if": ("set", ("k", "v"), {"if_absent": True}),
        "scan": ("_page", ("", None), {}),
        "touch": ("touch", ("k", 5), {}),
    }
    name, args, options = calls.get(method, (method, ("k",), {}))
    reads = method in ("get", "scan")

    async def over_async() -> Any:
        async with await counterfoil.aio.open(backend) as store:
            return await getattr(store, name)(*args, **options)

    def over_blocking() -> Any:
        with counterfoil.open(backend) as store:
            return getattr(store, name)(*args, **options)

    with pytest.raises(counterfoil.CorruptError, match=sentence) as caught:
        asyncio.run(over_async()) if manner != "blocking" else over_blocking()
    assert caught.value.outcome == ("not_applied" if reads else "unknown")
    assert "hunter2" not in str(caught.value)


def test_set_may_return_anything() -> None:
    class Mine(Plain):
        def set(self, key: str, value: Any, ttl: Any) -> Any:
            super().set(key, value, ttl)
            return {"whatever": object()}

    with counterfoil.open(Mine()) as store:
        assert store.set("a", "1") is True


@pytest.mark.parametrize(
    "pages",
    [
        [(["a"], "é\n"), (["b"], "more"), (["c"], None)],
        [(["a"], 0), (["b"], -(2**200)), (["c"], None)],
        [(["a"], b"\x00\xff"), (["b"], b""), (["c"], None)],
        [(["a"], ""), (("b",), 7), ["c"]],
        [([b"a", "b"], 1), ["c"]],
    ],
)
def test_cursors_come_back_as_they_were(pages: list[Any]) -> None:
    seen: list[Any] = []

    class Mine(Plain):
        def scan(self, prefix: str, cursor: Any, limit: int) -> Any:
            seen.append(cursor)
            return pages[len(seen) - 1]

    with counterfoil.open(Mine()) as store:
        assert list(store.scan()) == ["a", "b", "c"]
    given = [None] + [page[1] for page in pages if isinstance(page, tuple) and page[1] is not None]
    assert seen == given
    assert [type(one) for one in seen] == [type(one) for one in given]


def test_keys_that_are_not_ours_are_passed_over() -> None:
    class Mine(Plain):
        def scan(self, prefix: str, cursor: Any, limit: int) -> Any:
            return ["p:a", "p:", "q:b", "p:new\nline", "p:\ud800", "p:" + "x" * 1025, b"p:\xff", b"p:c"]

    with counterfoil.open(Mine(), prefix="p:") as store:
        assert list(store.scan()) == ["a", "c"]


# ------------------------------------------------------------------------------------------------------- exceptions


class Mean(Full):
    """Throws what it is told, from the method it is told."""

    raising: BaseException | None = None
    where = ""

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if (
            name in ("get", "set", "delete", "pop", "touch", "incr", "scan", "set_if", "close")
            and super().__getattribute__("where") == name
        ):

            def throw(*args: object) -> Any:
                raised = self.raising
                assert raised is not None
                raise raised

            return throw
        return method


CALLS = {
    "get": lambda store: store.get("k"),
    "set": lambda store: store.set("k", "v"),
    "delete": lambda store: store.delete("k"),
    "pop": lambda store: store.pop("k"),
    "touch": lambda store: store.touch("k", 5),
    "incr": lambda store: store.incr("k"),
    "scan": lambda store: store._page("", None),
    "set_if": lambda store: store.set("k", "v", if_absent=True),
}


class Odd(BaseException):
    pass


@pytest.mark.parametrize("where", CALLS)
@pytest.mark.parametrize(
    "kind", [ValueError, KeyboardInterrupt, SystemExit, Odd, counterfoil.ClosedError, StopIteration, MemoryError]
)
def test_exceptions_arrive_as_the_same_object(where: str, kind: type[BaseException]) -> None:
    backend = Mean()
    backend.where = where
    backend.raising = kind("mine")
    with counterfoil.open(backend) as store:
        with pytest.raises(kind) as caught:
            CALLS[where](store)
        assert caught.value is backend.raising
        assert "throw" in [entry.name for entry in caught.traceback], "the traceback of the backend is there"
        backend.where = ""
        store.set("k", "1")  # the store goes on
        assert store.get("k") == "1"


@pytest.mark.parametrize("where", CALLS)
@pytest.mark.parametrize("runner", ["asyncio", "trio"])
@pytest.mark.parametrize("coroutine", [False, True])
def test_exceptions_arrive_in_an_event_loop(where: str, runner: str, coroutine: bool) -> None:
    raised = LookupError("mine")

    if coroutine:

        async def method(self: object, *args: object) -> Any:
            await (asyncio.sleep(0) if runner == "asyncio" else trio.lowlevel.checkpoint())
            raise raised

    else:

        def method(self: object, *args: object) -> Any:  # type: ignore[misc]
            raise raised

    backend = type("Mine", (Full,), {where: method})()

    async def main() -> None:
        async with await counterfoil.aio.open(backend) as store:
            with pytest.raises(LookupError) as caught:
                await CALLS[where](store)
            assert caught.value is raised

    asyncio.run(main()) if runner == "asyncio" else trio.run(main)


def test_derived_operations_pass_exceptions_on() -> None:
    class Mine(BareKeeping):
        failing = ""

        def get(self, key: str) -> Any:
            if self.failing == "get":
                raise LookupError("get")
            return super().get(key)

        def set(self, key: str, value: Any, ttl: Any) -> Any:
            if self.failing == "set":
                raise LookupError("set")
            return super().set(key, value, ttl)

        def delete(self, key: str) -> Any:
            if self.failing == "delete":
                raise LookupError("delete")
            return super().delete(key)

    backend = Mine()
    with counterfoil.open(backend) as store:
        store.set("k", "1")
        for failing, call in (
            ("get", lambda: store.pop("k")),
            ("delete", lambda: store.pop("k")),
            ("get", lambda: store.incr("k")),
            ("set", lambda: store.incr("k")),
            ("set", lambda: store.touch("k", 5)),
            ("set", lambda: store.set("k", "2", if_present=True)),
        ):
            backend.failing = failing
            with pytest.raises(LookupError, match=failing):
                call()
            backend.failing = ""
            assert store.get("k") == "1"  # and the key is not locked
            assert store.set("k", "1")


def test_nothing_of_an_exception_is_kept() -> None:
    class Loud(Exception):
        pass

    backend = Mean()
    backend.where = "get"
    backend.raising = Loud("x")
    gone = weakref.ref(backend.raising)
    with counterfoil.open(backend) as store:
        try:
            store.get("k")
        except Loud:
            pass
        backend.raising = None
        gc.collect()
        assert gone() is None


# -------------------------------------------------------------------------------------------------------------- close


def test_close_is_called_once_when_the_last_store_closes() -> None:
    backend = Full()
    first, second = counterfoil.open(backend), counterfoil.open(backend, prefix="other:")
    first.close()
    first.close()
    assert backend.closed == 0
    second.set("a", "1")
    second.close()
    assert backend.closed == 1
    with counterfoil.open(backend, prefix="other:") as third:
        assert third.get("a") == "1"
    assert backend.closed == 2


def test_close_is_called_when_opening_failed_in_the_core() -> None:
    backend = Full()
    with pytest.raises(counterfoil.InvalidError):
        counterfoil.open(backend, prefix="new\nline")
    assert backend.closed == 1


def test_close_is_not_called_for_what_never_reached_the_core() -> None:
    backend = Full()
    with pytest.raises(counterfoil.InvalidError):
        counterfoil.open(backend, ttl=-1)
    assert backend.closed == 0


def test_a_failed_open_beside_an_open_store_does_not_close() -> None:
    backend = Full()
    with counterfoil.open(backend):
        with pytest.raises(counterfoil.InvalidError):
            counterfoil.open(backend, prefix="new\nline")
        assert backend.closed == 0
    assert backend.closed == 1


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_close_throws_arrives(kind: type[BaseException]) -> None:
    backend = Mean()
    backend.where = "close"
    backend.raising = kind("close")
    store = counterfoil.open(backend)
    heard: list[str] = []
    store.on("close", lambda: heard.append("closed"))
    with pytest.raises(kind) as caught:
        store.close()
    assert caught.value is backend.raising
    assert store.closed
    assert heard == ["closed"]
    store.close()
    with pytest.raises(counterfoil.ClosedError):
        store.get("a")


@pytest.mark.parametrize("runner", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)])
@pytest.mark.parametrize("coroutine", [False, True])
def test_what_close_throws_arrives_in_an_event_loop(runner: Any, coroutine: bool) -> None:
    raised = LookupError("close")

    if coroutine:

        async def close(self: object) -> None:
            raise raised

    else:

        def close(self: object) -> None:  # type: ignore[misc]
            raise raised

    backend = type("Mine", (Full,), {"close": close})()

    async def main() -> None:
        store = await counterfoil.aio.open(backend)
        with pytest.raises(LookupError) as caught:
            await store.close()
        assert caught.value is raised
        assert store.closed
        await store.close()

    runner(main())


def test_a_coroutine_close_is_awaited_also_when_opening_failed() -> None:
    closed: list[bool] = []

    class Mine(Plain):
        async def close(self) -> None:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        with pytest.raises(counterfoil.InvalidError):
            await counterfoil.aio.open(Mine(), prefix="new\nline")
        async with await counterfoil.aio.open(Mine()):
            pass

    asyncio.run(main())
    assert closed == [True, True]


def test_a_dropped_store_closes_its_backend_with_a_warning() -> None:
    backend = Full()
    store = counterfoil.open(backend)
    with pytest.warns(ResourceWarning, match="without close"):
        del store
        gc.collect()
    assert backend.closed == 1


def test_a_backend_that_holds_its_own_store_is_collected() -> None:
    closed: list[bool] = []

    class Mine(Plain):
        store: Any = None

        def close(self) -> None:
            closed.append(True)

    backend = Mine()
    backend.store = counterfoil.open(backend)
    gone = weakref.ref(backend)
    with pytest.warns(ResourceWarning):
        del backend
        gc.collect()
    assert closed == [True]
    assert gone() is None


# -------------------------------------------------------------------------------------------------------- re-entrance


class Reentrant(Plain):
    """get("deep:N") asks its own store for N - 1."""

    store: Any = None

    def get(self, key: str) -> Any:
        if key.startswith("deep:"):
            depth = int(key[5:])
            return "bottom" if depth == 0 else self.store.get(f"deep:{depth - 1}")
        return super().get(key)


def test_a_backend_may_use_its_own_store() -> None:
    backend = Reentrant()
    with counterfoil.open(backend) as store:
        backend.store = store
        for depth in range(16):
            assert store.get(f"deep:{depth}") == "bottom", depth
        with pytest.raises(counterfoil.InvalidError, match="16 deep") as caught:
            store.get("deep:16")
        assert caught.value.code == "INVALID"
        assert store.get("deep:15") == "bottom"


def test_a_plain_backend_may_use_its_own_async_store() -> None:
    class Mine(Plain):
        store: Any = None

        def get(self, key: str) -> Any:
            if not key.startswith("deep:"):
                return super().get(key)
            depth = int(key[5:])
            if depth == 0:
                return "bottom"
            op = self.store.get(f"deep:{depth - 1}")
            assert op.done()
            try:
                op.send(None)
            except StopIteration as stop:
                return stop.value

    async def main() -> None:
        backend = Mine()
        async with await counterfoil.aio.open(backend) as store:
            backend.store = store
            for depth in range(16):
                assert await store.get(f"deep:{depth}") == "bottom"
            with pytest.raises(counterfoil.InvalidError, match="16 deep"):
                await store.get("deep:16")

    asyncio.run(main())


def test_a_coroutine_backend_may_use_its_own_store() -> None:
    class Mine(Plain):
        store: Any = None

        async def get(self, key: str) -> Any:
            depth = int(key[5:])
            return "bottom" if depth == 0 else await self.store.get(f"deep:{depth - 1}")

    async def main() -> None:
        backend = Mine()
        async with await counterfoil.aio.open(backend) as store:
            backend.store = store
            assert await store.get("deep:40") == "bottom"

    asyncio.run(main())


def test_a_backend_may_close_its_own_store() -> None:
    class Mine(Plain):
        store: Any = None
        closed = 0

        def get(self, key: str) -> Any:
            self.store.close()
            assert self.closed == 0  # when the call returns
            with pytest.raises(counterfoil.ClosedError):
                self.store.get("again")
            return "last"

        def close(self) -> None:
            self.closed += 1

    backend = Mine()
    backend.store = counterfoil.open(backend)
    assert backend.store.get("a") == "last"
    assert backend.closed == 1
    assert backend.store.closed


def test_what_close_throws_inside_a_call_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    raised = LookupError("close")

    class Mine(Plain):
        store: Any = None

        def get(self, key: str) -> Any:
            self.store.close()
            return "last"

        def close(self) -> None:
            raise raised

    import sys

    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))
    backend = Mine()
    backend.store = counterfoil.open(backend)
    assert backend.store.get("a") == "last"
    assert seen == [raised]


def test_a_plain_backend_may_close_its_async_store() -> None:
    class Mine(Full):
        store: Any = None

        def get(self, key: str) -> Any:
            try:
                self.store.close().send(None)
            except StopIteration:
                pass
            assert self.closed == 0
            return "last"

    async def main() -> None:
        backend = Mine()
        backend.store = await counterfoil.aio.open(backend)
        assert await backend.store.get("a") == "last"
        assert backend.closed == 1
        with pytest.raises(counterfoil.ClosedError):
            await backend.store.get("a")

    asyncio.run(main())


@pytest.mark.parametrize("runner", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)])
def test_a_coroutine_backend_may_close_its_store(runner: Any) -> None:
    class Mine(Full):
        store: Any = None
        after = False

        async def get(self, key: str) -> Any:
            await self.store.close()
            await (asyncio.sleep(0) if runner is asyncio.run else trio.lowlevel.checkpoint())
            self.after = True
            return "late"

    async def main() -> None:
        backend = Mine()
        backend.store = await counterfoil.aio.open(backend)
        with pytest.raises(counterfoil.ClosedError):
            await backend.store.get("a")
        for _ in range(3):
            await (asyncio.sleep(0) if runner is asyncio.run else trio.lowlevel.checkpoint())
        assert backend.closed == 1
        assert backend.after, "the call that closed was not cancelled"

    runner(main())


# ----------------------------------------------------------------------------------------------------------- deadlines


@pytest.mark.parametrize("runner", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)])
@pytest.mark.parametrize("kind", [Full, BareKeeping])
def test_a_call_that_never_settles_ends_at_the_deadline(runner: Any, kind: type[Clocked]) -> None:
    forever = asyncio.Event().wait if runner is asyncio.run else trio.sleep_forever
    cancelled: list[str] = []

    class Mine(kind):  # type: ignore[misc, valid-type]
        async def get(self, key: str) -> Any:
            try:
                await forever()
            except BaseException as error:
                cancelled.append(type(error).__name__)
                raise

        async def set(self, key: str, value: Any, ttl: Any) -> Any:
            await forever()

    async def main() -> None:
        stage = Stage()
        store = await counterfoil.aio.open(Mine(), timeout=3, stage=stage)
        get, written = store.get("a"), store.set("a", "1")
        pop = store.pop("b") if kind is BareKeeping else store.get("b")
        stage.advance(2.999)
        assert not get.done()
        stage.advance(0.001)
        with pytest.raises(counterfoil.DeadlineError) as caught:
            await get
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.code, caught.value.outcome) == ("TIMEOUT", "not_applied")
        with pytest.raises(counterfoil.DeadlineError) as caught:
            await written
        assert caught.value.outcome == "unknown"
        with pytest.raises(counterfoil.DeadlineError):
            await pop
        for _ in range(3):
            await (asyncio.sleep(0) if runner is asyncio.run else trio.lowlevel.checkpoint())
        assert len(cancelled) == 2, "the tasks of the backend were cancelled"
        assert store.stats()["timeouts"] == 3
        await store.close()
        assert stage.blocks == 0 or store is None

    runner(main())


def test_a_late_answer_reaches_nobody() -> None:
    """A backend that ignores its cancellation answers when somebody else waits for another key."""
    release: list[asyncio.Event] = []

    class Stubborn(Full):
        async def get(self, key: str) -> Any:
            event = asyncio.Event()
            release.append(event)
            while not event.is_set():
                try:
                    await event.wait()
                except asyncio.CancelledError:
                    pass
            return f"value of {key}"

    async def main() -> None:
        stage = Stage()
        async with await counterfoil.aio.open(Stubborn(), timeout=1, stage=stage) as store:
            late = store.get("late")
            await asyncio.sleep(0)
            stage.advance(1)
            with pytest.raises(counterfoil.DeadlineError):
                await late
            prompt = store.get("prompt")
            await asyncio.sleep(0)
            release[0].set()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not prompt.done()
            release[1].set()
            assert await prompt == "value of prompt"

    asyncio.run(main())


def test_a_future_may_be_returned() -> None:
    class Mine(Plain):
        def get(self, key: str) -> Any:
            future = asyncio.get_running_loop().create_future()
            future.set_result("settled")
            return future

        def delete(self, key: str) -> Any:
            class Custom:
                def __await__(self) -> Any:
                    yield from asyncio.sleep(0).__await__()
                    return False

            return Custom()

    async def main() -> None:
        async with await counterfoil.aio.open(Mine()) as store:
            assert await store.get("a") == "settled"
            assert await store.delete("a") is False

    asyncio.run(main())


def test_a_backend_task_that_somebody_cancels() -> None:
    class Mine(Plain):
        async def get(self, key: str) -> Any:
            raise asyncio.CancelledError

    async def main() -> None:
        async with await counterfoil.aio.open(Mine()) as store:
            with pytest.raises(counterfoil.CanceledError) as caught:
                await store.get("a")
            assert caught.value.code == "CANCELED"

    asyncio.run(main())


def test_context_variables_reach_the_backend() -> None:
    import contextvars

    who = contextvars.ContextVar("who", default="nobody")

    class Mine(Plain):
        async def get(self, key: str) -> Any:
            return who.get()

    async def main() -> None:
        async with await counterfoil.aio.open(Mine()) as store:
            who.set("caller")
            assert await store.get("a") == "caller"

    asyncio.run(main())
    trio.run(main)


# ---------------------------------------------------------------------------------------------- derived, from threads


def test_derived_operations_have_one_winner() -> None:
    """get and set let other threads in: only the key lock makes them one step."""
    import time

    class Slow(Bare):
        keeps_ttl = True

        def get(self, key: str) -> Any:
            value = super().get(key)
            time.sleep(0)
            return value

    backend = Slow()
    with counterfoil.open(backend) as one, counterfoil.open(backend) as other:
        won: list[str] = []

        def work(store: counterfoil.Store) -> None:
            for number in range(150):
                store.set(f"code:{number}", "x", if_absent=True)
                if store.pop(f"once:{number}") is not None:
                    won.append(f"once:{number}")
                store.incr("counter")

        for number in range(150):
            one.set(f"once:{number}", "x")
        threads = [threading.Thread(target=work, args=(store,)) for store in (one, other) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(won) == sorted(f"once:{number}" for number in range(150))
        assert one.get("counter") == str(150 * 6)


def test_a_locked_key_waits_until_the_deadline() -> None:
    """A derived pop whose get pops the same key waits for itself: the deadline ends it."""

    class Mine(Bare):
        store: Any = None
        outcome: Any = None

        def get(self, key: str) -> Any:
            if self.outcome is None:
                self.outcome = "inside"
                try:
                    self.store.pop(key)
                except counterfoil.DeadlineError as error:
                    self.outcome = error.outcome
            return super().get(key)

    backend = Mine()
    with counterfoil.open(backend, timeout=0.2) as store:
        backend.store = store
        store.set("a", "1")
        assert store.pop("a") == "1"
        assert backend.outcome == "not_applied"


def test_ctrl_c_ends_a_wait() -> None:
    done = run_python(
        """
        import _thread, sys, threading, time
        import counterfoil

        inside, leave = threading.Event(), threading.Event()

        class Mine(counterfoil.Backend):
            single_process = True
            def get(self, key):
                inside.set()
                leave.wait(50)
            def set(self, key, value, ttl): pass
            def delete(self, key): pass

        store = counterfoil.open(Mine(), timeout=60)
        holder = threading.Thread(target=store.pop, args=("a",))
        holder.start()
        inside.wait()
        timer = threading.Timer(0.2, _thread.interrupt_main)
        timer.start()
        try:
            store.pop("a")  # waits for the key
        except KeyboardInterrupt:
            print("interrupted")
        leave.set()
        holder.join()
        assert store.pop("a") is None
        store.close()
    """,
        timeout=30,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


@pytest.mark.parametrize("kind", [Full, Bare])
def test_an_async_store_over_coroutines_under_load(kind: type[Clocked]) -> None:
    backend = with_coroutines(kind, lambda: asyncio.sleep(0))()

    async def main() -> None:
        async with await counterfoil.aio.open(backend) as store:
            await asyncio.gather(*[store.set(f"k{number}", str(number)) for number in range(500)])
            popped = await asyncio.gather(*[store.pop(f"k{number % 500}") for number in range(1500)])
            assert sorted(int(one) for one in popped if one is not None) == list(range(500))

    asyncio.run(main())
