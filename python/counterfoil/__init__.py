"""Counterfoil keeps the server's half of every session id, one-time code and token: text or bytes under a key, for a
time, with operations that have exactly one winner.

    import counterfoil

    with counterfoil.open("memory:", prefix="code:", ttl=300) as codes:
        codes.set("ada", "483912")
        codes.pop("ada")  # '483912'
        codes.pop("ada")  # None

`counterfoil.aio` is the same for asyncio, uvloop and trio; `counterfoil.testing` has a clock that tests can move;
`counterfoil.adapters` has one module per framework.
"""

from ._native import version as _version
from .backend import Backend
from .errors import (
    AuthError,
    BusyError,
    CanceledError,
    ChangedError,
    ClosedError,
    CorruptError,
    DeadlineError,
    Error,
    ExistsError,
    ForkedError,
    InvalidCursorError,
    InvalidError,
    InvalidTypeError,
    LimitError,
    MissingError,
    NoMemoryError,
    NotSupportedError,
    UnavailableError,
)
from .interfaces.accounts import AccountsStorage, NewUser, SocialAccount, User
from .interfaces.secondary import SecondaryStorage
from .interfaces.sessions import Session, SessionList, SessionStorage
from .interfaces.storage import Storage
from .store import Resealed, Stats, Store, open

__all__ = [
    "AccountsStorage",
    "AuthError",
    "Backend",
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
    "NewUser",
    "NoMemoryError",
    "NotSupportedError",
    "Resealed",
    "SecondaryStorage",
    "Session",
    "SessionList",
    "SessionStorage",
    "SocialAccount",
    "Stats",
    "Storage",
    "Store",
    "UnavailableError",
    "User",
    "__version__",
    "open",
]

__version__: str = _version()
