"""The errors. Every one has `code`, the same word in every language, and `outcome`: whether the store was changed.

    code           class              is also a
    INVALID        InvalidError       ValueError
                   InvalidTypeError   TypeError
    NO_MEMORY      NoMemoryError      MemoryError
    TIMEOUT        DeadlineError      TimeoutError
    UNAVAILABLE    UnavailableError   ConnectionError
    BUSY           BusyError
    NOT_SUPPORTED  NotSupportedError
    CORRUPT        CorruptError
    CLOSED         ClosedError
    FORKED         ForkedError
    EXISTS         ExistsError        ValueError
    AUTH           AuthError          PermissionError
    CANCELED       CanceledError
    CHANGED        ChangedError
    LIMIT          LimitError
    MISSING        MissingError       ValueError
    CURSOR         InvalidCursorError ValueError

Their sentences contain no key, no value and no password.
"""

from typing import Any, ClassVar, Literal

__all__ = [
    "AuthError",
    "BusyError",
    "CanceledError",
    "ChangedError",
    "ClosedError",
    "CorruptError",
    "DeadlineError",
    "Error",
    "ExistsError",
    "ForkedError",
    "InvalidCursorError",
    "InvalidError",
    "InvalidTypeError",
    "LimitError",
    "MissingError",
    "NoMemoryError",
    "NotSupportedError",
    "UnavailableError",
]


class Error(Exception):
    """Anything that this library raises. What a backend of your own raises reaches you as it is, not as one of
    these."""

    code: ClassVar[str] = "ERROR"
    outcome: Literal["applied", "not_applied", "unknown"] = "not_applied"
    """Whether the store was changed: "applied", "not_applied" (repeating is safe) or "unknown" (read before repeating a
    write)."""
    receipt: str | None = None
    """Of a pop, an incr, an if_absent or an if_equal whose answer was lost, or that is not durable yet, over a backend
    that keeps receipts (Redis): the same call with `receipt=error.receipt` gives the answer of that call if it took
    effect, and otherwise acts now. It works for twice the store's timeout. Whoever has it can get the value: keep it
    out of logs."""

    def __init__(
        self, message: str = "", *, outcome: Literal["applied", "not_applied", "unknown"] = "not_applied"
    ) -> None:
        super().__init__(message)
        self.outcome = outcome


class InvalidError(Error, ValueError):
    """An argument was refused, before anything was done."""

    code = "INVALID"


class InvalidTypeError(InvalidError, TypeError):
    """An argument has a wrong type."""


class NoMemoryError(Error, MemoryError):
    """An allocation failed; nothing was changed."""

    code = "NO_MEMORY"


class DeadlineError(Error, TimeoutError):
    """The operation's deadline passed: the `timeout` that the store was opened with."""

    code = "TIMEOUT"


class UnavailableError(Error, ConnectionError):
    """The backend cannot be reached now; try later."""

    code = "UNAVAILABLE"


class BusyError(Error):
    """A local limit is reached; try later."""

    code = "BUSY"


class NotSupportedError(Error):
    """This backend has no such operation."""

    code = "NOT_SUPPORTED"


class CorruptError(Error):
    """What the backend holds or answered cannot be right."""

    code = "CORRUPT"


class ClosedError(Error):
    """The store was closed."""

    code = "CLOSED"


class ForkedError(Error):
    """The operation was begun before a fork(), and this is the child."""

    code = "FORKED"


class ExistsError(Error, ValueError):
    """There is one with this unique field already."""

    code = "EXISTS"
    existing: Any
    """The `User`, `SocialAccount` or `Session` that is there; None where that is not known."""
    _record: "tuple[str, dict[str, Any]] | None" = None  # of the native module, until an interface has made that of it

    def __init__(
        self,
        message: str = "",
        *,
        outcome: Literal["applied", "not_applied", "unknown"] = "not_applied",
        existing: Any = None,
    ) -> None:
        super().__init__(message, outcome=outcome)
        self.existing = existing

    def __reduce__(self) -> tuple[Any, ...]:
        """Task queues write down the errors of their tasks: without the tokens of the record that is there."""
        rest = {name: value for name, value in vars(self).items() if name != "_record"}
        return type(self), self.args, rest | {"existing": None}


class AuthError(Error, PermissionError):
    """The backend refused our credentials or rights."""

    code = "AUTH"


class CanceledError(Error):
    """The operation was cancelled."""

    code = "CANCELED"


class ChangedError(Error):
    """What this was to build upon has changed meanwhile: all sessions of the user were revoked since the epoch was
    read."""

    code = "CHANGED"


class LimitError(Error):
    """There are as many records of this user as are allowed."""

    code = "LIMIT"


class MissingError(Error, ValueError):
    """The record that this needs is not there."""

    code = "MISSING"


class InvalidCursorError(Error, ValueError):
    """The cursor of a list is none that this list gave, or one in another order."""

    code = "CURSOR"


_CLASSES: dict[str, type[Error]] = {
    each.code: each
    for each in (
        InvalidError,
        NoMemoryError,
        DeadlineError,
        UnavailableError,
        BusyError,
        NotSupportedError,
        CorruptError,
        ClosedError,
        ForkedError,
        ExistsError,
        AuthError,
        CanceledError,
        ChangedError,
        LimitError,
        MissingError,
        InvalidCursorError,
    )
}


def make(
    code: str,
    outcome: Literal["applied", "not_applied", "unknown"],
    message: str,
    wrong_type: bool = False,
    receipt: str | None = None,
) -> Error:
    """The exception for a status of the core. For the native module."""
    error = (InvalidTypeError if wrong_type else _CLASSES.get(code, Error))(message, outcome=outcome)
    if receipt is not None:
        error.receipt = receipt
    return error
