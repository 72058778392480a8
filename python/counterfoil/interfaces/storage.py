"""Storage: one JSON state per id."""

import json
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from .. import _native
from ..errors import CorruptError, InvalidError, InvalidTypeError
from ..store import Store

if TYPE_CHECKING:
    from ..aio import AsyncStore

__all__ = ["AsyncStorage", "Storage"]


def _id_text(id: object) -> str:
    """Text is itself; 1 is the same id as "1"."""
    if isinstance(id, str):
        return id
    if isinstance(id, bool) or not isinstance(id, int):
        raise InvalidTypeError(f"an id must be str or int, not {type(id).__name__}")
    try:
        return int.__repr__(id)
    except ValueError:  # beyond what Python turns into digits, and far beyond a key
        raise InvalidError("an id is too long") from None


def _dump(state: Any) -> str | None:
    if state is None:
        return None
    problem: str
    try:
        return json.dumps(state, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except TypeError:  # its sentence may quote what it cannot say
        problem = "a state holds something that is not JSON"
    except (ValueError, RecursionError):
        problem = "a state holds a number that is not JSON, or itself"
        raise InvalidError(problem) from None
    raise InvalidTypeError(problem)


def _load(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise CorruptError("the state of this id is not JSON")


def _kept(state: Any) -> str:
    text = _dump(state)
    if text is None:
        raise InvalidError("save keeps a state; set(id, None) ends one")
    return text


class Storage:
    """One state per id, over a store: `set(id, state)`, `get(id)`, `set(id, None)`.

    A state is anything that JSON can say except null (None means absent). An id is text or an integer, and 1 and "1"
    are the same id.

    Of several who write one state `set` lets the last win, also over whoever ended it meanwhile: that is what API
    clients want, whose states come back with the next login. Where a state that has ended must stay ended, use `save`,
    and where nobody's change may be lost, `update`.
    """

    def __init__(self, store: Store) -> None:
        if not isinstance(store, Store):
            raise InvalidTypeError(f"Storage takes a Store, not {type(store).__name__}")
        self._store = store

    def get(self, id: str | int) -> Any:
        """The state of an id, or None."""
        return _load(self._store._storage_get(_id_text(id)))

    def set(self, id: str | int, state: Any) -> None:
        """Stores a state; None deletes. It lives for the store's ttl."""
        self._store._storage_set(_id_text(id), _dump(state))

    def save(self, id: str | int, state: Any) -> bool:
        """Stores a state in the place of one that is there. False: there is none any more, and none was made."""
        return self._store.set(_id_text(id), _kept(state), if_present=True)

    def update(self, id: str | int, change: Callable[[Any], Any]) -> Any:
        """Stores what `change` makes of the state, and gives it back. None: there is no state, or `change` ended it.

        Where somebody else has changed the state meanwhile, `change` is asked again, about what is there then; it may
        be called any number of times. What it raises comes back, and nothing was stored. Not for a store that seals its
        values (NotSupportedError): its backend cannot compare them.
        """
        key = _id_text(id)
        while (before := self._store._storage_get(key)) is not None:
            state = change(_load(before))
            after = _dump(state)
            if after is None:
                self._store._storage_set(key, None)
                return None
            if self._store.set(key, after, if_equal=before):
                return state
        return None


class AsyncStorage:
    """As `counterfoil.Storage`, over an AsyncStore: `counterfoil.aio.Storage`."""

    def __init__(self, store: "AsyncStore") -> None:
        if not isinstance(store, _native.AsyncStore):
            raise InvalidTypeError(f"aio.Storage takes an AsyncStore, not {type(store).__name__}")
        self._store = store

    async def get(self, id: str | int) -> Any:
        """The state of an id, or None."""
        return _load(await self._store._storage_get(_id_text(id)))

    async def set(self, id: str | int, state: Any) -> None:
        """Stores a state; None deletes. It lives for the store's ttl."""
        await self._store._storage_set(_id_text(id), _dump(state))

    async def save(self, id: str | int, state: Any) -> bool:
        """As `counterfoil.Storage.save`."""
        return await self._store.set(_id_text(id), _kept(state), if_present=True)

    async def update(self, id: str | int, change: Callable[[Any], Any | Awaitable[Any]]) -> Any:
        """As `counterfoil.Storage.update`; `change` may be a coroutine function."""
        key = _id_text(id)
        while (before := await self._store._storage_get(key)) is not None:
            state = change(_load(before))
            if isawaitable(state):
                state = await state
            after = _dump(state)
            if after is None:
                await self._store._storage_set(key, None)
                return None
            if await self._store.set(key, after, if_equal=before):
                return state
        return None
