"""The store for asyncio, uvloop and trio (and so anyio).

    import counterfoil.aio

    async with await counterfoil.aio.open("memory:", prefix="code:", ttl=300) as codes:
        await codes.set("ada", "483912")

An operation begins when its method is called. One that is done at once (memory, a backend with plain methods) costs no
trip through the event loop; for one that is pending, the store's one descriptor is watched. No thread is involved, but
for SQLite: there a thread of the core waits for the disk.
"""

import asyncio
import contextvars
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, overload

from . import _native
from .at_rest import Keys, at_rest
from .backend import describe
from .errors import CanceledError, Error, InvalidError
from .interfaces.accounts import AsyncAccountsStorage as AccountsStorage
from .interfaces.secondary import AsyncSecondaryStorage as SecondaryStorage
from .interfaces.sessions import AsyncSessionStorage as SessionStorage
from .interfaces.storage import AsyncStorage as Storage
from .store import (
    Listeners,
    OfError,
    OfNothing,
    OfText,
    Option,
    Resealed,
    backend_name,
    check_keys,
    sweep_async,
    with_options,
)

if TYPE_CHECKING:
    import trio

__all__ = ["AccountsStorage", "AsyncStore", "SecondaryStorage", "SessionStorage", "Storage", "open"]

_ELSEWHERE = "an AsyncStore belongs to the event loop that it was opened in, and this is not that one"


class _Task(Protocol):
    def cancel(self) -> object: ...


class _Link(ABC):
    """How a store waits in one kind of event loop: one descriptor watched, one flush at the end of a tick.

    The native store calls the methods without an underscore. In asyncio it does the rest itself (op.c)."""

    loop: asyncio.AbstractEventLoop | None
    _store: "weakref.ref[AsyncStore]"
    _descriptor = -1

    def attach(self, store: "AsyncStore") -> None:
        self._store = weakref.ref(store)  # the event loop must not keep a store alive that everybody has dropped

    def _flush(self) -> None:
        store = self._store()
        if store is not None:
            store._flush()

    @abstractmethod
    def watch(self, descriptor: int) -> None:
        """Watches this descriptor (below 0: none) and no other."""

    @abstractmethod
    def spawn(self, awaitable: Awaitable[object], ticket: int) -> _Task:
        """Runs what a method of a backend returned, and settles the operation."""

    @abstractmethod
    def stop(self) -> None:
        """Nothing will be pending any more, and the descriptor will be closed."""


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable


class _AsyncioLink(_Link):
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def _check(self) -> None:
        """InvalidError in a foreign event loop."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if not here:
            raise InvalidError(_ELSEWHERE)

    def soon(self) -> None:
        """Flushes at the end of the tick."""
        self.loop.call_soon(self._flush)

    def watch(self, descriptor: int) -> None:
        if descriptor == self._descriptor:
            return
        self.stop()
        if descriptor >= 0:
            self.loop.add_reader(descriptor, self._run)
            self._descriptor = descriptor

    def _run(self) -> None:
        store = self._store()
        if store is not None:
            self.watch(store._run())

    def spawn(self, awaitable: Awaitable[object], ticket: int) -> _Task:
        self._check()
        task: asyncio.Future[object]
        if asyncio.isfuture(awaitable):
            task = awaitable
        elif asyncio.iscoroutine(awaitable):
            task = self.loop.create_task(awaitable)
        else:
            task = self.loop.create_task(_awaited(awaitable))

        def settle(task: "asyncio.Future[object]") -> None:
            error: BaseException | None
            if task.cancelled():
                error = CanceledError("the task of the backend was cancelled", outcome="unknown")
            else:
                error = task.exception()
            store = self._store()
            if store is not None:
                store._settle(ticket, None if error is not None else task.result(), error)

        task.add_done_callback(settle)
        return _AsyncioTask(task)

    def stop(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0 and not self.loop.is_closed():
            self.loop.remove_reader(descriptor)


class _AsyncioTask:
    def __init__(self, task: "asyncio.Future[object]") -> None:
        self._task = task

    def cancel(self) -> None:
        # A backend may close its own store from inside a call: what then ends early is the call, not the task that
        # closes.
        if self._task is not asyncio.current_task(self._task.get_loop()):
            self._task.cancel()


class _TrioLink(_Link):
    def __init__(self) -> None:
        import trio

        self.loop = None
        self._token = trio.lowlevel.current_trio_token()
        self._flushing = False

    def _check(self) -> None:
        import trio

        try:
            here = trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            here = False
        if not here:
            raise InvalidError(_ELSEWHERE)

    def pending(self, descriptor: int) -> None:
        """An operation is pending: see that the loop is run and flushed. InvalidError in a foreign event loop."""
        self._check()
        self.watch(descriptor)
        if not self._flushing:
            self._flushing = True
            self._token.run_sync_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        super()._flush()

    def watch(self, descriptor: int) -> None:
        import trio

        if descriptor == self._descriptor:
            return
        self.stop()
        if descriptor >= 0:
            self._descriptor = descriptor
            trio.lowlevel.spawn_system_task(self._run, descriptor, name="counterfoil", context=contextvars.Context())

    async def _run(self, descriptor: int) -> None:
        import trio

        while descriptor == self._descriptor:
            try:
                await trio.lowlevel.wait_readable(descriptor)
            except (trio.ClosedResourceError, OSError):
                return  # stop() was called
            if descriptor != self._descriptor:
                return
            store = self._store()
            if store is None:
                return
            self.watch(store._run())
            del store

    async def wait(self, op: _native.Op[Any]) -> None:
        """Waits until a pending operation has finished; cancelled, it cancels the operation."""
        import trio

        self._check()
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            op.notify(lambda: None)
            op.cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        op.notify(lambda: trio.lowlevel.reschedule(task))
        await trio.lowlevel.wait_task_rescheduled(abort)

    def spawn(self, awaitable: Awaitable[object], ticket: int) -> _Task:
        import trio

        self._check()
        scope = trio.CancelScope()

        async def run() -> None:
            value: object = None
            error: BaseException | None = None
            with scope:
                try:
                    value = await awaitable
                except trio.Cancelled:
                    raise
                except BaseException as raised:
                    error = raised
            if scope.cancelled_caught:
                error = CanceledError("the task of the backend was cancelled", outcome="unknown")
            store = self._store()
            if store is not None:
                store._settle(ticket, value, error)

        task = _TrioTask(scope)
        task.task = trio.lowlevel.spawn_system_task(run, name="counterfoil backend", context=contextvars.copy_context())
        return task

    def stop(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            import trio

            try:
                trio.lowlevel.notify_closing(descriptor)
            except RuntimeError:
                pass  # trio has ended, or runs in another thread


class _TrioTask:
    task: "trio.lowlevel.Task"

    def __init__(self, scope: "trio.CancelScope") -> None:
        self._scope = scope

    def cancel(self) -> None:
        from trio.lowlevel import current_task

        try:
            if current_task() is self.task:
                return  # it closes its own store
        except RuntimeError:
            pass
        self._scope.cancel()


def _link() -> _Link:
    trio: Any = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            return _TrioLink()
    return _AsyncioLink()


class AsyncStore(_native.AsyncStore):
    """As `counterfoil.Store`, with awaitable methods. `await counterfoil.aio.open(...)` makes one.

    It belongs to the event loop that it was opened in, and to its thread. What the methods return is an operation
    (`Op`) that has begun already; it can be given to create_task, gather, wait_for or a nursery like a coroutine.
    Cancelling it cancels the operation; whether a write took effect is then unknown.
    """

    def __init__(
        self,
        target: object,
        *,
        prefix: str = "",
        ttl: float | None = None,
        timeout: float = 5.0,
        stage: _native.Stage | None = None,
        keys: Keys | None = None,
        seal_values: bool = False,
        hash_keys: bool = False,
        plain_until: datetime | None = None,
        **options: Option,
    ) -> None:
        rest = at_rest(keys, seal_values, hash_keys, plain_until)
        self._begin(target, prefix, ttl, timeout, stage, rest, options)

    def _begin(
        self,
        target: object,
        prefix: str,
        ttl: float | None,
        timeout: float,
        stage: _native.Stage | None,
        rest: bytes,
        options: dict[str, Option],
        flags: int | None = None,
    ) -> None:
        if "max_connections" in options:
            raise InvalidError("max_connections is for counterfoil.open: an AsyncStore has one connection")
        target = with_options(target, options)
        self._name = backend_name(target)
        self._listeners = Listeners()
        self._link = _link()
        self._link.attach(self)
        if flags is None:
            flags = 0 if isinstance(target, str) else describe(target, blocking=False)
        self._open(target, flags, prefix, ttl, timeout, stage, self._link, 1, rest)
        if isinstance(target, str) and self._name != "memory":
            # A connection lives also while nobody awaits anything: it is made and made again, and events are told.
            self._link.watch(self._run())

    def __repr__(self) -> str:
        return f"<counterfoil.aio.AsyncStore: {self._name}{', closed' if self.closed else ''}>"

    async def scan(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that start with a prefix, in no order, fetched page by page.

        A key that is there from beginning to end comes exactly once; keys that come or go meanwhile may be missing.
        """
        keys, cursor = await self._page(prefix, None)
        for key in keys:
            yield key
        while cursor is not None:
            keys, cursor = await self._page(prefix, cursor)
            for key in keys:
                yield key

    def reseal(self, prefix: str = "") -> AsyncIterator[Resealed]:
        """As `counterfoil.Store.reseal`, with `async for`."""
        return sweep_async(partial(self._reseal, prefix))

    async def get_many(self, keys: Iterable[str]) -> dict[str, str | None]:
        """The texts under several keys: a dict from every key that was asked, in that order, to its text or None.

        Not one step: each key is read for itself, all at the same time.
        """
        check_keys(keys)
        pending = {key: self.get(key) for key in keys}
        found: dict[str, str | None] = {}
        raised: BaseException | None = None
        for key, op in pending.items():
            if raised is not None:
                op.close()
                continue
            try:
                found[key] = await op
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised
        return found

    async def close(self) -> None:
        """Closes the store; again is allowed. Pending operations end with ClosedError.

        A backend of yours is closed when the last store over it is; its close may be a coroutine function. What it
        raises arrives here, and the store is closed nevertheless.
        """
        if self.closed:
            return
        self._link.stop()
        self._close(_nothing)
        try:
            closing = self._closing()
            if closing is not None:
                await closing
        finally:
            self._listeners.closed()

    @overload
    def on(self, event: Literal["connect", "warning"], callback: OfText) -> OfText: ...
    @overload
    def on(self, event: Literal["disconnect", "error"], callback: OfError) -> OfError: ...
    @overload
    def on(self, event: Literal["close"], callback: OfNothing) -> OfNothing: ...
    def on(self, event: str, callback: Any) -> Any:
        """As `counterfoil.Store.on`; the callbacks are plain functions, called from the event loop, also while nothing
        is awaited."""
        return self._listeners.add(event, callback)

    def off(
        self, event: Literal["connect", "disconnect", "error", "warning", "close"], callback: Callable[..., object]
    ) -> None:
        """Takes one back that `on` was given; one that is not there is fine."""
        self._listeners.remove(event, callback)

    def _told(self, event: str, what: str | Error) -> None:
        """An event of a connection. For the native module."""
        self._listeners.tell(event, what)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _nothing() -> None:
    pass


async def open(
    url_or_backend: object,
    *,
    prefix: str = "",
    ttl: float | None = None,
    timeout: float = 5.0,
    stage: _native.Stage | None = None,
    keys: Keys | None = None,
    seal_values: bool = False,
    hash_keys: bool = False,
    plain_until: datetime | None = None,
    **options: Option,
) -> AsyncStore:
    """Opens a store in this event loop. The arguments are those of `counterfoil.open`, without max_connections:
    there is one connection, and what is awaited in one tick goes out together; over SQLite it shares one commit. A
    backend may have coroutine functions."""
    store = AsyncStore.__new__(AsyncStore)
    try:
        rest = at_rest(keys, seal_values, hash_keys, plain_until)
        store._begin(url_or_backend, prefix, ttl, timeout, stage, rest, options)
    except BaseException:
        # A backend that reached the core is closed also when opening failed, and its close may be a coroutine function.
        closing = store._closing()
        if closing is not None:
            await closing
        raise
    return store
