"""The blocking store."""

import math
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypedDict, TypeVar, overload
from urllib.parse import quote

from . import _native
from .at_rest import Keys, at_rest
from .backend import describe
from .errors import Error, InvalidError, InvalidTypeError

__all__ = ["Option", "Resealed", "Stats", "Store", "open"]

Option = str | int | float | bool | os.PathLike[str] | None
"""The value of an option of a URL. True and False are "on" and "off"; None is not given."""

OfText = TypeVar("OfText", bound=Callable[[str], object])
OfError = TypeVar("OfError", bound=Callable[[Error], object])
OfNothing = TypeVar("OfNothing", bound=Callable[[], object])


class Stats(TypedDict, total=False):
    """The figures of `stats()`. Which of them are there depends on the backend."""

    operations: int
    errors: int
    timeouts: int
    pending: int
    # memory
    entries: int
    bytes: int
    evicted: int
    expired: int
    # SQLite: in the file, counted once among all stores of this process that have it open
    commits: int
    reads: int
    """Transactions without a write; a blocking store's reads, which run at once, are not among them."""
    grouped: int
    """Operations that ran in both; grouped / commits is how many share one sync of the disk."""
    waits: int
    """How often another process had the lock."""
    swept: int
    """Expired values that were removed."""
    # over connections
    connections: int
    """Connections of this store, also those that are idle or being made."""
    connected: int
    """So many of them can be used now."""
    connects: int
    disconnects: int
    queued: int
    """Commands that have not left yet."""
    in_flight: int
    """Commands that were sent and not answered yet."""
    round_trips: int
    """Reads that brought answers; commands / round_trips is how well they travel together."""
    bytes_sent: int
    bytes_received: int
    commands: int
    retries: int
    late: int
    """Answers that nobody waited for any more."""
    busy: int
    """Calls that were refused because a queue was full or every connection in use."""
    latency_us: dict[float, int]
    """How many commands were answered within so many microseconds, but not within half as many; math.inf: the rest."""


class Resealed(NamedTuple):
    """How far `reseal` has come, all pages so far together."""

    sealed: int
    """Values, or tokens, that were sealed anew."""
    unreadable: int
    """Those that no key of the ring opens, or that were never sealed. They stay as they are."""


Page = tuple[int, int, bytes | None]
"""Of a sweep: how many were sealed anew, how many do not open, and the cursor of the next page."""


def sweep(page: Callable[[bytes | None], Page]) -> Iterator[Resealed]:
    """All pages of a sweep, one for each step."""
    sealed = unreadable = 0
    cursor = None
    while True:
        anew, broken, cursor = page(cursor)
        sealed, unreadable = sealed + anew, unreadable + broken
        yield Resealed(sealed, unreadable)
        if cursor is None:
            return


async def sweep_async(page: Callable[[bytes | None], Awaitable[Page]]) -> AsyncIterator[Resealed]:
    sealed = unreadable = 0
    cursor = None
    while True:
        anew, broken, cursor = await page(cursor)
        sealed, unreadable = sealed + anew, unreadable + broken
        yield Resealed(sealed, unreadable)
        if cursor is None:
            return


def _option_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, int | float | str):
        return str(value)
    if isinstance(value, os.PathLike) and isinstance(path := os.fspath(value), str):
        return path
    raise InvalidTypeError(f"{name} must be str, int, float, bool or a path, not {type(value).__name__}")


def with_options(target: object, options: dict[str, Option]) -> object:
    """Appends options to a URL; a backend object takes none."""
    options = {name: value for name, value in options.items() if value is not None}
    if not options:
        return target
    if not isinstance(target, str):
        raise InvalidError("options belong to a URL: a backend object has none")
    pairs = []
    for name, value in options.items():
        text = _option_text(name, value)
        try:
            pairs.append(f"{quote(name, safe='')}={quote(text, safe='')}")
            continue
        except UnicodeError:
            pass  # it quotes the value, which may be a password: no context of ours
        raise InvalidError(f"{name} is not valid Unicode: it has a lone surrogate")
    return target + ("&" if "?" in target else "?") + "&".join(pairs)


def from_here(target: object) -> object:
    """A database file that is named from the current folder, by its whole path: connections that are opened later must
    find the same file, wherever the process is by then."""
    if not isinstance(target, str) or not target.startswith("sqlite:"):
        return target
    path = target[7:].partition("?")[0]
    if path[:1] in ("", "/", ":") or path[:3].lower() in ("%2f", "%3a"):
        return target
    try:
        return f"sqlite:{quote(os.getcwdb())}/{target[7:]}"
    except OSError:
        return target  # there is no current folder: the core will say so


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
    """The callbacks of `on`. Threads may use it at once: every change is one step under the GIL."""

    def __init__(self) -> None:
        self._of: dict[str, list[Callable[..., object]]] = {
            "connect": [], "disconnect": [], "error": [], "warning": [], "close": []
        }  # fmt: skip
        self._warned: dict[str, object] = {}

    def _list(self, event: object) -> list[Callable[..., object]]:
        found = self._of.get(event) if isinstance(event, str) else None
        if found is None:
            raise InvalidError(f"there is no such event; there are: {', '.join(map(repr, self._of))}")
        return found

    def add(self, event: str, callback: Any) -> Any:
        callbacks = self._list(event)
        if not callable(callback):
            raise InvalidTypeError(f"callback must be callable, not {type(callback).__name__}")
        callbacks.append(callback)
        return callback

    def remove(self, event: str, callback: Any) -> None:
        try:
            self._list(event).remove(callback)
        except ValueError:
            if not isinstance(event, str) or event not in self._of:
                raise

    def tell(self, event: str, what: str | Error) -> None:
        """Calls those of an event; never raises what they raise."""
        mine = object()
        if event == "warning" and self._warned.setdefault(str(what), mine) is not mine:
            return  # another connection has said it
        callbacks = tuple(self._of[event])
        for callback in callbacks:
            _native.tell(callback, what)
        if event == "warning" and not callbacks:
            import logging

            logging.getLogger("counterfoil").warning("%s", what)

    def closed(self) -> None:
        """Calls those of "close", once. All are called; then the first exception is raised."""
        callbacks, self._of["close"] = self._of["close"], []
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
        max_connections: int = 64,
        keys: Keys | None = None,
        seal_values: bool = False,
        hash_keys: bool = False,
        plain_until: datetime | None = None,
        **options: Option,
    ) -> None:
        target = from_here(with_options(target, options))
        self._name = backend_name(target)
        self._listeners = Listeners()
        flags = 0 if isinstance(target, str) else describe(target, blocking=True)
        rest = at_rest(keys, seal_values, hash_keys, plain_until)
        self._open(target, flags, prefix, ttl, timeout, stage, None, max_connections, rest)
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

    def reseal(self, prefix: str = "") -> Iterator[Resealed]:
        """Seals with the first key of the ring what an older one has sealed, so that the old one can be given up. It
        works while it is iterated, page by page, and says after each how far it has come:

            for progress in store.reseal():
                print(progress.sealed, progress.unreadable)

        Values keep their expiry; what somebody changes meanwhile stays as they left it. Once it has come to its end,
        and every program seals with the new key, no value under this prefix needs the old one any more. Stopped, or
        ended by an error, it can begin again. For a store with `seal_values`. The tokens of social accounts have a
        sweep of their own: `AccountsStorage.reseal`. Until `plain_until` both also seal what is plain.
        """
        return sweep(partial(self._reseal, prefix))

    def get_many(self, keys: Iterable[str]) -> dict[str, str | None]:
        """The texts under several keys: a dict from every key that was asked, in that order, to its text or None.

        Not one step: each key is read for itself.
        """
        check_keys(keys)
        return {key: self.get(key) for key in keys}

    def close(self) -> None:
        """Closes the store; again is allowed.

        Calls that other threads are making end first, for which this waits up to the store's timeout. A backend of
        yours is closed when the last store over it is; what its close raises arrives here (or, where this has waited
        in vain, at sys.unraisablehook), and the store is closed nevertheless.
        """
        if self.closed:
            return
        done = threading.Event()
        try:
            if not self._close(done.set):
                try:
                    done.wait(self._timeout)
                finally:
                    self._close(done.set)
            self._closing()
        finally:
            self._listeners.closed()

    @overload
    def on(self, event: Literal["connect", "warning"], callback: OfText) -> OfText: ...
    @overload
    def on(self, event: Literal["disconnect", "error"], callback: OfError) -> OfError: ...
    @overload
    def on(self, event: Literal["close"], callback: OfNothing) -> OfNothing: ...
    def on(self, event: str, callback: Any) -> Any:
        """Calls callback when something happens to a connection of this store, and returns it.

        "connect": with a sentence; a connection can be used (again).
        "disconnect": with the error; it was lost or given up, and a new one is tried for by itself.
        "error": with the error; an attempt to connect failed.
        "warning": with a sentence, once for each; the server is set up so that a promise of this library does not hold
            there. When nobody listens, it is logged as a warning of the logger "counterfoil".
        "close": with nothing, once, when the store was closed by close().

        The callbacks are called by the thread whose call was using the connection, while it waits; an idle connection
        tells when it is used next. What they raise goes to sys.unraisablehook, never into a call; but what those of
        "close" raise arrives at close().
        """
        return self._listeners.add(event, callback)

    def off(
        self, event: Literal["connect", "disconnect", "error", "warning", "close"], callback: Callable[..., object]
    ) -> None:
        """Takes one back that `on` was given; one that is not there is fine."""
        self._listeners.remove(event, callback)

    def _told(self, event: str, what: str | Error) -> None:
        """An event of a connection. For the native module."""
        self._listeners.tell(event, what)

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
    max_connections: int = 64,
    keys: Keys | None = None,
    seal_values: bool = False,
    hash_keys: bool = False,
    plain_until: datetime | None = None,
    **options: Option,
) -> Store:
    """Opens a store. It does not wait for a server: the first call does, within its timeout, and what is wrong with the
    server or the password is that call's error. A database file is opened here, and what is wrong with it raised.

    url_or_backend: a URL or a backend object of yours (see `Backend`). URLs of this version:
        "memory:"      private to this store
        "memory:NAME"  shared by all stores of that name in the process
        "sqlite:PATH"  a database file of its own, durable without a server, for any number of threads and processes of
            this machine: "sqlite:app.db" from the current folder, "sqlite:/var/lib/app.db" from the root; %, ? and # in
            a path are written %25, %3F and %23 (urllib.parse.quote). It is made with mode 0600 where there is none. Do
            not open it with another SQLite in the same process, Python's sqlite3 among them: that would drop its locks.
            Other processes may read it in any way
        "sqlite::memory:"  the same, private to this store, and gone with it
        "redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]"   Redis or Valkey by TCP; port 6379, database 0
        "rediss://..."                                 the same by TLS; chain and name are always verified
        "redis+unix://[USER[:PASSWORD]@]/PATH"         by a unix socket
        "redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT].../NAME[/DB]"  the primary that these Sentinels
            (port 26379) call NAME, wherever it is after a failover; by TLS "rediss+sentinel://..."
        "redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT]..."  a cluster that these servers (port 6379) are of;
            slots that move and failovers are followed. Calls under way at once on one key may change places while its
            slot moves, and a scan or count is UnavailableError: begin it again. By TLS "rediss+cluster://..."
    prefix: put before every key.
    ttl: seconds that a value lives when a write does not say; None: until deleted.
    timeout: seconds that any operation may take; then it is DeadlineError.
    stage: a `counterfoil.testing.Stage`, for tests.
    max_connections: so many calls may be in flight at once over a URL that needs connections, each with one of its own;
        beyond that they wait for one within their timeout, and then it is BusyError. One that nobody has used for a
        minute is closed when another call ends. Over a database file it bounds the calls of threads in the same way (a
        connection is some descriptors and some memory), but for reads there is one more, which no write can take.
    seal_values: values are encrypted (XAES-256-GCM) with the first of `keys` and bound to their key; the others open
        what was sealed before, so a key is changed by putting a new one in front. What does not open is CorruptError,
        plain values too: use a new prefix to begin, or `plain_until`. incr and if_equal are NotSupportedError, unless
        they are derived. A backend of yours needs `binary = True`.
    keys: the ring: {id: 32 random bytes}, or pairs, the first one first; ids from 1 to 2**32 - 1. The tokens of social
        accounts (AccountsStorage) are sealed wherever there is one, values with seal_values. Make a key once, with
        `openssl rand -base64 32`, and keep it with your other secrets: {1: base64.b64decode(os.environ["STORE_KEY"])}.
        Who loses it loses what was sealed.
    hash_keys: keys are kept as their SHA-256, so that a copy of the data holds no session id that works. scan, and
        count and clear with a prefix, are NotSupportedError. What can be guessed (an e-mail, six digits) can be guessed
        from its hash. Every program that uses the data must open it with the same of these three.
    plain_until: for a store that was used without `keys`, or without `seal_values`, before: an aware datetime, at most
        a year (366 days) ahead, until which values and tokens that do not begin as sealed ones do ("sealed:"; the bytes
        43 66 01) are read as they are. `reseal` of the store and of AccountsStorage seals them. From then on they are
        CorruptError again, and a date that has passed may stay where it is. Until then, whoever can write to the
        backend can put plain text of their own there, and it is believed: make it short, and sweep at once.
    options: appended to the URL. None is as if it were not given, True and False are "on" and "off".
        For memory: max_entries, max_bytes (beyond, the least recently used go).
        For SQLite:
        synchronous       "normal": the last commits may be lost in a power failure, never in a crash of the process.
                          "full": nothing that was acknowledged is lost
        single_process    True: no other process can open the file meanwhile; reads are quicker
        remote            True: open it although it is on a network file system, whose locks often do not work
        max_pending, max_pending_bytes   as for Redis
        For Redis:
        db                the database, where the URL does not say it
        user, password    instead of those in the URL; any characters
        sentinel_user, sentinel_password   (redis+sentinel, rediss+sentinel) for the Sentinels themselves
        name              of the connection, for CLIENT LIST; "counterfoil"
        connect_timeout   seconds for one attempt to connect; 2
        silence           seconds without any answer, while one is owed, after which a connection is given up; 10
        max_pending       operations that may wait for an answer at once on one connection, of a cluster for each of its
                          servers; then it is BusyError; 10000
        max_pending_bytes the same for the bytes of their commands; 32 MiB
        durable           so many replicas must have it before pop, incr, delete, conditional sets and changes of
                          accounts and sessions succeed; otherwise UnavailableError with the outcome "applied", since a
                          failover could undo it (or "not_applied": somebody else's, that this call has found). 0: none.
                          By default, behind Sentinels and on a cluster, pop and what ends something wait for one
                          replica while there is any
        receipts          False: pop, incr, if_absent and if_equal leave no receipt on the server. Quicker, but the
                          outcome stays unknown when an answer is lost
        tls_ca            (rediss) a file of certificates (PEM) to trust instead of the system's
        tls_cert, tls_key (rediss) files with our own certificate chain and its key (PEM)
        tls_server_name   (rediss) the name that the server's certificate must have, where it is not HOST
    """
    return Store(
        url_or_backend,
        prefix=prefix,
        ttl=ttl,
        timeout=timeout,
        stage=stage,
        max_connections=max_connections,
        keys=keys,
        seal_values=seal_values,
        hash_keys=hash_keys,
        plain_until=plain_until,
        **options,
    )
