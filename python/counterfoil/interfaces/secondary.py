"""SecondaryStorage: one-time codes and OAuth state."""

from typing import TYPE_CHECKING

from .. import _native
from ..errors import InvalidTypeError
from ..store import Store

if TYPE_CHECKING:
    from ..aio import AsyncStore

__all__ = ["AsyncSecondaryStorage", "SecondaryStorage"]


class SecondaryStorage:
    """Text under a key for a short time, over a store. It has the shape that Cross Auth (0.2 to 0.22) calls
    SecondaryStorage.

    ttl: seconds that a value lives when `set` does not say; ten minutes.
    """

    def __init__(self, store: Store, ttl: float = 600) -> None:
        if not isinstance(store, Store):
            raise InvalidTypeError(f"SecondaryStorage takes a Store, not {type(store).__name__}")
        self._store = store
        self._ttl_ms = _native.ttl_ms(ttl)

    def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """Stores text for ttl seconds (None: the default). Zero or less deletes."""
        self._store._secondary_set(key, value, ttl, self._ttl_ms)

    def get(self, key: str) -> str | None:
        """The text under a key, or None."""
        return self._store._secondary_get(key)

    def delete(self, key: str) -> None:
        """Deletes; a key that is not there is fine."""
        self._store._secondary_delete(key)

    def pop(self, key: str) -> str | None:
        """Gets and deletes in one step: of any number of concurrent pops exactly one gets the text."""
        return self._store._secondary_pop(key)


class AsyncSecondaryStorage:
    """As `counterfoil.SecondaryStorage`, over an AsyncStore: `counterfoil.aio.SecondaryStorage`."""

    def __init__(self, store: "AsyncStore", ttl: float = 600) -> None:
        if not isinstance(store, _native.AsyncStore):
            raise InvalidTypeError(f"aio.SecondaryStorage takes an AsyncStore, not {type(store).__name__}")
        self._store = store
        self._ttl_ms = _native.ttl_ms(ttl)

    async def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """Stores text for ttl seconds (None: the default). Zero or less deletes."""
        await self._store._secondary_set(key, value, ttl, self._ttl_ms)

    async def get(self, key: str) -> str | None:
        """The text under a key, or None."""
        return await self._store._secondary_get(key)

    async def delete(self, key: str) -> None:
        """Deletes; a key that is not there is fine."""
        await self._store._secondary_delete(key)

    async def pop(self, key: str) -> str | None:
        """Gets and deletes in one step: of any number of concurrent pops exactly one gets the text."""
        return await self._store._secondary_pop(key)
