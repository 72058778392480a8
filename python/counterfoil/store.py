"""The blocking store."""

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from . import _native
from .backend import describe
from .errors import InvalidError, InvalidTypeError

__all__ = ["Option", "Store", "open"]

Option = str | int | float | bool


def with_options(target: object, options: dict[str, Option]) -> object:
    """Appends options to a URL; a backend object takes none."""
    if not options:
        return target
    if not isinstance(target, str):
        raise InvalidError("options belong to a URL: a backend object has none")
    pairs = []
    for name, value in options.items():
        if not isinstance(value, str | int | float):
            raise InvalidTypeError(f"an option must be str, int, float or bool, not {type(value).__name__}")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        try:
            pairs.append(f"{quote(name, safe='')}={quote(text, safe='')}")
        except UnicodeError:
            raise InvalidError("an option is not valid Unicode: it has a lone surrogate") from None
    return target + ("&" if "?" in target else "?") + "&".join(pairs)


def backend_name(target: object) -> str:
    """What a repr may show of what was opened: a URL may hold a password."""
    if isinstance(target, str):
        return target.partition(":")[0] if target.isascii() and target.partition(":")[0].isidentifier() else "?"
    return type(target).__name__


def check_keys(keys: object) -> None:
    """One text is an iterable of texts too, but certainly a mistake."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidTypeError(f"keys must be an iterable of str, not {type(keys).__name__}")


class Listeners:
    """The callbacks of `on`."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []

    def add(self, event: str, callback: Any) -> None:
        if event != "close":
            raise InvalidError("there is no such event; there is: 'close'")
        if not callable(callback):
            raise InvalidTypeError(f"callback must be callable, not {type(callback).__name__}")
        self._callbacks.append(callback)

    def call(self) -> None:
        """Calls each once. All are called; then the first exception is raised."""
        callbacks, self._callbacks = self._callbacks, []
        raised: BaseException | None = None
        for callback in callbacks:
            try:
                callback()
            except BaseException as error:
                raised = raised or error
        if raised is not None:
            raise raised


class Store(_native.Store):
    """A backend behind a key prefix. `counterfoil.open` makes one.

    It may be shared by all threads. In a child of os.fork() it goes on working (a memory backend as a private copy of
    the parent's). A store is a context manager: leaving it closes it.
    """

    def __init__(
        self,
        target: object,
        *,
        prefix: str = "",
        ttl: float | None = None,
        timeout: float = 5.0,
        stage: _native.Stage | None = None,
        **options: Option,
    ) -> None:
        target = with_options(target, options)
        self._name = backend_name(target)
        self._listeners = Listeners()
        flags = 0 if isinstance(target, str) else describe(target, blocking=True)
        self._open(target, flags, prefix, ttl, timeout, stage, None)
        self._timeout = float(timeout)

    def __repr__(self) -> str:
        return f"<counterfoil.Store: {self._name}{', closed' if self.closed else ''}>"

    def scan(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with a prefix, in no order, fetched page by page.

        A key that is there from beginning to end comes exactly once; keys that come or go meanwhile may be missing.
        """
        return self._pages(prefix, *self._page(prefix, None))

    def _pages(self, prefix: str, keys: list[str], cursor: bytes | None) -> Iterator[str]:
        yield from keys
        while cursor is not None:
            keys, cursor = self._page(prefix, cursor)
            yield from keys

    def get_many(self, keys: Iterable[str]) -> dict[str, str | None]:
        """The texts under several keys: a dict from every key that was asked, in that order, to its text or None.

        Not one step: each key is read for itself.
        """
        check_keys(keys)
        return {key: self.get(key) for key in keys}

    def close(self) -> None:
        """Closes the store; again is allowed.

        Calls that other threads are making end first, for which this waits up to the store's timeout. A backend of
        yours is closed when the last store over it is; what its close raises arrives here, and the store is closed
        nevertheless.
        """
        if self.closed:
            return
        done = threading.Event()
        if not self._close(done.set):
            done.wait(self._timeout)
        try:
            self._closing()
        finally:
            self._listeners.call()

    def on(self, event: Literal["close"], callback: Callable[[], object]) -> None:
        """Calls callback() once when the store is closed by close(). "close" is the only event of this version."""
        self._listeners.add(event, callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open(
    url_or_backend: object,
    *,
    prefix: str = "",
    ttl: float | None = None,
    timeout: float = 5.0,
    stage: _native.Stage | None = None,
    **options: Option,
) -> Store:
    """Opens a store.

    url_or_backend: a URL or a backend object of yours (see `Backend`). URLs of this version:
        "memory:"      private to this store
        "memory:NAME"  shared by all stores of that name in the process
    prefix: put before every key.
    ttl: seconds that a value lives when a write does not say; None: until deleted.
    timeout: seconds that any operation may take; then it is DeadlineError.
    stage: a `counterfoil.testing.Stage`, for tests.
    options: appended to the URL. For memory: max_entries, max_bytes (beyond, the least recently used go).
    """
    return Store(url_or_backend, prefix=prefix, ttl=ttl, timeout=timeout, stage=stage, **options)
