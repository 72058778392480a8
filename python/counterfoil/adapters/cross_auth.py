"""The storages of Cross Auth (https://pypi.org/project/cross-auth/), releases 0.2 to 0.23.

    from counterfoil.adapters.cross_auth import AccountsStorage, SecondaryStorage, SessionStorage

    store = counterfoil.open("sqlite:auth.db", keys={1: key})
    auth = CrossAuth(
        storage=SecondaryStorage(store),
        accounts_storage=AccountsStorage(store),
        session_storage=SessionStorage(store),  # since 0.16
        providers=[...], trusted_origins=[...],
    )
    ...
    store.close()  # at shutdown

AccountsStorage and SessionStorage are those of `counterfoil`, but for their errors, which Cross Auth and its users know
too: a cursor that is none is also its InvalidCursorError; a duplicate that Cross Auth has run into (two logins of one
person at once) is also its CrossAuthException, so that the flow ends with an error and not with a 500.

Releases 0.6 to 0.15 keep their sessions here too and name no ttl for them: give one that suits a session, as in
`SecondaryStorage.from_url("memory:auth", ttl=30 * 86400)`; the default would sign everybody out after ten minutes.

Releases from 0.24 on ask more of an accounts storage (a user and his first social account in one transaction, for one):
their logins by a provider fail. A RuntimeWarning says so where an AccountsStorage is made.

They may be shared by all threads. Cross Auth itself need not be installed to import this.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import counterfoil
from counterfoil.at_rest import Keys
from counterfoil.interfaces.sessions import Order, SessionList, Status
from counterfoil.store import Option

__all__ = ["AccountsStorage", "SecondaryStorage", "SessionStorage"]


class SecondaryStorage(counterfoil.SecondaryStorage):
    """Keeps Cross Auth's states, codes and cached keys in a store: `set(key, value, ttl=None)`, `get`, `delete`, `pop`.

    SecondaryStorage(store) uses a store that stays yours: `close()` leaves it open. `from_url` opens one and closes it.
    ttl: seconds that a value lives when Cross Auth does not say.
    """

    def __init__(self, store: counterfoil.Store, ttl: float = 600) -> None:
        super().__init__(store, ttl)
        self._owned: counterfoil.Store | None = None

    @classmethod
    def from_url(
        cls,
        url_or_backend: object,
        *,
        prefix: str = "",
        ttl: float = 600,
        timeout: float = 5.0,
        max_connections: int = 64,
        keys: Keys | None = None,
        seal_values: bool = False,
        hash_keys: bool = False,
        plain_until: datetime | None = None,
        **options: Option,
    ) -> Self:
        """Opens a store of its own. The arguments are those of `counterfoil.open`, except that ttl is that of this
        storage."""
        store = counterfoil.open(
            url_or_backend,
            prefix=prefix,
            ttl=None,
            timeout=timeout,
            stage=None,
            max_connections=max_connections,
            keys=keys,
            seal_values=seal_values,
            hash_keys=hash_keys,
            plain_until=plain_until,
            **options,
        )
        try:
            self = cls(store, ttl)
        except BaseException:
            store.close()
            raise
        self._owned = store
        return self

    def close(self) -> None:
        """Closes the store that `from_url` opened; again is allowed."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _flow_error(exists: bool) -> type[Any] | None:
    """An error of ours that is also Cross Auth's; None where it is not installed."""
    try:
        from cross_auth.exceptions import CrossAuthException
    except ImportError:
        return None
    kind = counterfoil.ExistsError if exists else counterfoil.LimitError
    return type(kind.__name__, (kind, CrossAuthException), {"__module__": __name__})


@contextmanager
def _flow(word: str, description: str) -> Iterator[None]:
    try:
        yield
    except (counterfoil.ExistsError, counterfoil.LimitError) as error:
        kind = _flow_error(isinstance(error, counterfoil.ExistsError))
        if kind is None:
            raise
        also = kind(str(error), outcome=error.outcome)
        also.existing = getattr(error, "existing", None)
        also.error, also.error_description, also.status_code = word, description, 400
        raise also from None


def _warn_of_newer(storage: object) -> None:
    """Better at the start of an application than as a 500 at somebody's first login. Where Cross Auth is not loaded
    yet, nobody is told: it is not loaded for that."""
    wanted = getattr(sys.modules.get("cross_auth._storage"), "AccountsStorage", object)
    missing = [name for name in vars(wanted) if not name.startswith("_") and not hasattr(storage, name)]
    if missing:
        warnings.warn(
            f"this release of Cross Auth asks more of an accounts storage ({', '.join(missing)}), and logins by a "
            "provider will fail: install 'cross-auth<0.24'",
            RuntimeWarning,
            stacklevel=3,
        )


class AccountsStorage(counterfoil.AccountsStorage):
    """`counterfoil.AccountsStorage`, with errors that Cross Auth knows. A RuntimeWarning says that Cross Auth is newer
    than what is known here."""

    if not TYPE_CHECKING:  # its arguments are those of the base

        @wraps(counterfoil.AccountsStorage.__init__)
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            _warn_of_newer(self)

    def create_user(self, **fields: Any) -> counterfoil.User:
        """As `counterfoil.AccountsStorage.create_user`."""
        with _flow("account_not_linked", "An account with this email exists but could not be linked automatically."):
            return super().create_user(**fields)

    def create_social_account(self, **fields: Any) -> counterfoil.SocialAccount:
        """As `counterfoil.AccountsStorage.create_social_account`."""
        with _flow("account_already_linked", "This provider account is linked already, or the user has too many."):
            return super().create_social_account(**fields)


def _cursor_error() -> type[counterfoil.InvalidCursorError]:
    try:
        from cross_auth.exceptions import InvalidCursorError
    except ImportError:
        return counterfoil.InvalidCursorError
    return type("InvalidCursorError", (counterfoil.InvalidCursorError, InvalidCursorError), {"__module__": __name__})


class SessionStorage(counterfoil.SessionStorage):
    """`counterfoil.SessionStorage`, with errors that Cross Auth knows."""

    def list_for_user(
        self,
        user_id: Any,
        *,
        now: datetime,
        status: Status | None = None,
        order_by: Order = "updated_at_desc",
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionList:
        """As `counterfoil.SessionStorage.list_for_user`."""
        try:
            return super().list_for_user(user_id, now=now, status=status, order_by=order_by, limit=limit, cursor=cursor)
        except counterfoil.InvalidCursorError as error:
            raise _cursor_error()(str(error)) from None
