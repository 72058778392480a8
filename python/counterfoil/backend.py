"""Backends of your own."""

import inspect
import os
from typing import ClassVar, Final

from .errors import InvalidTypeError

__all__ = ["Backend", "Keep"]


class Keep:
    """The ttl that a backend with `keeps_ttl` gets when the expiry of the value that is replaced is to stay: see
    `Backend.KEEP`."""

    __slots__ = ("otherwise",)

    otherwise: float | None
    """The ttl in seconds for the case that there is no value to replace; None: until deleted."""

    def __init__(self, otherwise: float | None = None) -> None:
        self.otherwise = otherwise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keep) or NotImplemented

    def __hash__(self) -> int:
        return hash(Keep)

    def __repr__(self) -> str:
        return "Backend.KEEP"


class Backend:
    """What keeps the bytes, written by you. Three methods are enough:

        class MyBackend(counterfoil.Backend):
            def get(self, key): ...              # the value, or None
            def set(self, key, value, ttl): ...  # ttl: seconds, or None: until deleted
            def delete(self, key): ...           # whether it was there; returning None counts as True

        store = counterfoil.open(MyBackend())

    Subclassing is for this documentation and for KEEP: any object with the methods will do. Under `counterfoil.aio`
    each method may be a coroutine function; under the blocking `counterfoil.open` that is a TypeError.

    These methods are optional. Each must do its work in one step that no other user of the same data can divide; leave
    out what cannot. Without one the operation is NotSupportedError, unless `single_process` allows to derive it.

        def pop(self, key): ...                 # the value or None; deleted
        def touch(self, key, ttl): ...          # sets the remaining life; whether it was there
        def incr(self, key, by, ttl): ...       # the new number; ttl only for a new one
        def set_if(self, key, value, ttl, condition, expected): ...
                                                # condition: "absent", "present", or "equal" (to expected); whether it
                                                # was stored
        def scan(self, prefix, cursor, limit): ...
                                                # (keys, next cursor): cursor is None at first, and None in the answer
                                                # at the end; str, int or bytes between. A list of keys alone: that was
                                                # all
        def close(self): ...                    # once, when the last store over this object closes

    Values come as str, and a value that is not UTF-8 is refused; with `binary` they come as bytes. Either may be
    returned. What a method raises reaches the caller as it is. A result of a wrong type is CorruptError. A method is
    called by any thread that uses the store, by several at once; it may use the store itself (to a depth of 16) and may
    close it, which takes effect when it returns.
    """

    KEEP: Final = Keep()
    """The ttl that says: keep the expiry of the value that is replaced. `if ttl == Backend.KEEP` (equal, not identical:
    when the store has a ttl of its own, `ttl.otherwise` is the one for a value that replaces nothing)."""

    binary: ClassVar[bool] = False
    """Values come as bytes."""

    keeps_ttl: ClassVar[bool] = False
    """`set` understands the ttl KEEP."""

    single_process: ClassVar[bool] = False
    """No other process uses the same data: what is missing of pop, touch, incr and the conditions of set is derived
    from get, set and delete, under a lock for each key. (incr only with `keeps_ttl`: a counter keeps its expiry.)"""


_REQUIRED = ("get", "set", "delete")
_OPTIONAL = {"pop": 1, "touch": 2, "incr": 4, "scan": 8, "set_if": 16, "close": 32}
_TRAITS = {"binary": 64, "keeps_ttl": 128, "single_process": 256}


def describe(backend: object, *, blocking: bool) -> int:
    """What a backend can, as the native module wants to hear it; InvalidTypeError when it cannot be one."""
    if inspect.isclass(backend):
        raise InvalidTypeError(f"open takes a URL or a backend object: {backend.__name__} is a class, call it")
    kind = type(backend).__name__
    if isinstance(backend, bytes | bytearray | os.PathLike):
        raise InvalidTypeError(f"open takes a URL or a backend object: a URL is str, not {kind}")
    flags = 0
    for name in (*_REQUIRED, *_OPTIONAL):
        method = getattr(backend, name, None)
        if method is None:
            if name in _REQUIRED:
                raise InvalidTypeError(f"open takes a URL or a backend object: {kind} has no method {name!r}")
            continue
        if not callable(method):
            raise InvalidTypeError(f"{kind}.{name} must be a method, not {type(method).__name__}")
        if blocking and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)):
            raise InvalidTypeError(
                f"{kind}.{name} is a coroutine function: open this backend with counterfoil.aio.open, "
                "or write plain methods for the blocking store"
            )
        flags |= _OPTIONAL.get(name, 0)
    for name, flag in _TRAITS.items():
        value = getattr(backend, name, False)
        if not isinstance(value, bool):
            raise InvalidTypeError(f"{kind}.{name} must be bool, not {type(value).__name__}")
        flags |= flag if value else 0
    return flags
