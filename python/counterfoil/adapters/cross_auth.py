"""SecondaryStorage for Cross Auth (https://pypi.org/project/cross-auth/), releases 0.2 to 0.22.

    from counterfoil.adapters.cross_auth import SecondaryStorage

    storage = SecondaryStorage.from_url("memory:auth")
    auth = CrossAuth(storage=storage, accounts_storage=..., providers=[...], trusted_origins=[...])
    ...
    storage.close()  # at shutdown

Releases 0.6 to 0.15 keep their sessions here too and name no ttl for them: give one that suits a session, as in
`SecondaryStorage.from_url("memory:auth", ttl=30 * 86400)`; the default would sign everybody out after ten minutes.

It may be shared by all threads. Cross Auth itself need not be installed to import this.
"""

from types import TracebackType
from typing import Self

import counterfoil
from counterfoil.at_rest import Keys
from counterfoil.store import Option

__all__ = ["SecondaryStorage"]


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
