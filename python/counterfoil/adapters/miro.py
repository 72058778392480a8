"""The storage of Miro's API client (https://pypi.org/project/miro_api/), and one refresh of a token that many callers
find expired.

    from counterfoil.adapters.miro import MiroStorage, single_flight

    store = counterfoil.open("redis://cache")
    miro = single_flight(Miro(storage=MiroStorage(store, user_id)))  # one for each user
    miro.api.get_boards()

Without `single_flight` the client does as ever: three calls that find a token expired refresh it three times.

The data is that of the Node package `counterfoil/miro`: both may work on one store, and refresh once together. miro_api
need not be installed to import this.
"""

import copy
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib import import_module
from typing import Any, Protocol, TypeVar

from ..errors import (
    BusyError,
    CorruptError,
    DeadlineError,
    InvalidError,
    InvalidTypeError,
    NotSupportedError,
    UnavailableError,
)
from ..interfaces.storage import _id_text
from ..store import Store

__all__ = ["Lease", "MiroStorage", "State", "single_flight"]

# The keys beside a state: behind its key, so that they are the same however a key is made of a store's prefix, ours and
# the id. No id ends so.
_LEASE, _FENCE, _SAVED = ":counterfoil-lease", ":counterfoil-fence", ":counterfoil-saved"
_FREE = (
    "free"  # what a lease is that was given back: only what is exactly the holder's is replaced, and nothing deletes so
)
_SOON = 0.001
_COUNTER = 3650 * 86400
_SAVES = 4  # tries, where the store cannot be reached: what was refreshed is lost if it is not saved
_SKEW = 120  # seconds that the client takes off the life of a token

Result = TypeVar("Result")


@dataclass
class State:
    """As `miro_api.storage.State`, in the place of which it comes where miro_api is not installed."""

    access_token: str
    refresh_token: str | None
    token_expires_at: datetime | None


class StateLike(Protocol):
    """What is taken as a state."""

    @property
    def access_token(self) -> str: ...
    @property
    def refresh_token(self) -> str | None: ...
    @property
    def token_expires_at(self) -> datetime | None: ...


_client: list[Any] = []


def _client_storage() -> Any:
    """The module miro_api.storage, or None. It is looked for once, when it is first needed."""
    if not _client:
        try:
            _client.append(import_module("miro_api.storage"))
        except ImportError:
            _client.append(None)
    return _client[0]


def _dump(state: object, more: dict[str, Any]) -> str:
    """JSON, in the fields of the Node client. `more`: what a state of that has beside ours (Miro's user id)."""
    try:
        token, refresh, expires = state.access_token, state.refresh_token, state.token_expires_at  # type: ignore[attr-defined]
    except AttributeError:
        raise InvalidTypeError("a state must have access_token, refresh_token and token_expires_at") from None
    if not isinstance(token, str) or not isinstance(refresh, str | None):
        raise InvalidTypeError("the tokens of a state must be str, the refresh token may be None")
    if not isinstance(expires, datetime | None):
        raise InvalidTypeError("token_expires_at must be a datetime or None")
    fields = {**more, "accessToken": token, "refreshToken": refresh, "tokenExpiresAt": None}
    if expires is not None:
        try:  # a naive one is local: so it is meant and compared by the client
            fields["tokenExpiresAt"] = expires.astimezone(UTC).isoformat().replace("+00:00", "Z")
        except (OverflowError, ValueError, OSError):
            raise InvalidError("token_expires_at is out of range") from None
    return json.dumps({name: value for name, value in fields.items() if value is not None}, separators=(",", ":"))


@dataclass
class _Found:
    """A stored state: its text, all of its fields, and what the client knows of them."""

    text: str
    fields: dict[str, Any]
    state: Any

    @property
    def more(self) -> dict[str, Any]:
        return {name: value for name, value in self.fields.items() if name not in _OURS}


_OURS = ("accessToken", "refreshToken", "tokenExpiresAt")


def _load(text: str) -> _Found:
    fields: Any = None
    try:
        fields = json.loads(text)
        token, refresh, until = (fields.get(name) for name in _OURS)
        expires = None
        if until is not None:
            # Naive and local: the client compares it with such a one, and cannot with another.
            expires = datetime.fromisoformat(until).astimezone().replace(tzinfo=None)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
        token = refresh = fields = None  # raised below: its sentence may quote what is stored
    if fields is None or not isinstance(token, str | None) or not isinstance(refresh, str | None):
        raise CorruptError("what is stored is no state of Miro")
    module = _client_storage()
    return _Found(text, fields, (module.State if module else State)(token or "", refresh, expires))


def _is_fresh(state: StateLike) -> bool:
    """The client's own rule: only what has an end can be refreshed."""
    return not (state.refresh_token and state.token_expires_at and state.token_expires_at < datetime.now())


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Lease:
    """What `MiroStorage.with_lock` gives to the function that holds the lease.

    fence: greater than that of every lease of this user before, in any process: for what you change elsewhere under
        this lease and want to fence.
    state: when the lease began.
    save: stores a state over the one that `state` was (or over that of the save before). False: another is there, or it
        has ended, and nothing was stored: this holder was too late, or somebody has logged in or revoked meanwhile.
    """

    fence: int
    state: Any
    save: Callable[[StateLike], bool]


class _Held:
    def __init__(self, key: str, value: str, fence: int) -> None:
        self.key, self.value, self.fence = key, value, fence


class MiroStorage:
    """The state of one user, over a store: `get()`, `set(state)`, `set(None)`. It is miro_api's Storage.

    store: stays yours. Leave out its ttl: a refresh token outlives its access token.
    user_id: whose state this is, text or an integer; 1 and "1" are one.
    prefix: put before the user id; in Node it is the same. What a refresh needs stands beside the state, under the same
        key with ":counterfoil-lease", "-fence" (which stays) and "-saved" behind it; no id may end so.
    lease: seconds after which a lease is another's, if its holder has not given it back: it died, or was too slow.
        Longer than a refresh takes. Who has lost it can go on, but what it saves is refused once another state is
        there.
    grace: seconds for which what a refresh has saved is the successor for everybody who comes with the old token, also
        where it is not fresh by a clock that is wrong, or was so short-lived that it never was. 0: only is_fresh
        counts.
    wait: seconds that a caller waits for another's refresh; then it is DeadlineError. Longer than `lease`, or nobody is
        there to take over.

    It may be shared by all threads, and there may be any number of them for one user. A `set` that fails raises: of the
    client, too, after a refresh or a login.
    """

    def __init__(
        self,
        store: Store,
        user_id: str | int,
        *,
        prefix: str = "miro:",
        lease: float = 15,
        grace: float = 20,
        wait: float = 30,
    ) -> None:
        if not isinstance(store, Store):
            raise InvalidTypeError(f"MiroStorage takes a Store, not {type(store).__name__}")
        if not isinstance(prefix, str):
            raise InvalidTypeError(f"prefix must be str, not {type(prefix).__name__}")
        for name, value, least in (("lease", lease, 0.1), ("grace", grace, 0), ("wait", wait, 0)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidTypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
            if not least <= value <= 3600:
                raise InvalidError(f"{name} must be a number of seconds from {least} to 3600")
        self._store = store
        self._key = prefix + _id_text(user_id)
        if self._key.endswith((_LEASE, _FENCE, _SAVED)):
            raise InvalidError("the user id must not end as the keys beside a state do")
        self._lease, self._grace, self._wait = lease, grace, wait
        if module := _client_storage():
            module.Storage.register(MiroStorage)

    def get(self) -> Any:
        """The state, a `miro_api.storage.State`, or None. Its token_expires_at is naive and local, as the client wants
        it."""
        found = self._read()
        return None if found is None else found.state

    def set(self, state: StateLike | None) -> None:
        """Stores a state; None deletes. The last one wins. A token_expires_at without a zone is local."""
        self._store._storage_set(self._key, None if state is None else _dump(state, {}))

    def _read(self) -> _Found | None:
        text = self._store.get(self._key)
        return None if text is None else _load(text)

    # ------------------------------------------------------------------------------------------------------ the lease

    def _take(self) -> _Held | None:
        """The lease, or None: somebody has it."""
        key, mine = self._key + _LEASE, str(uuid.uuid4())
        if not (
            self._store.set(key, mine, if_absent=True, ttl=self._lease)
            or self._store.set(key, mine, if_equal=_FREE, ttl=self._lease)
        ):
            return None
        try:
            fence = self._store.incr(self._key + _FENCE, ttl=_COUNTER)
        except NotSupportedError:
            self._store.delete(key)  # nobody can hold one here: whoever comes next is to see the reason, not wait
            raise
        # The number counts only if the lease was still ours when it was drawn: so a later lease has a greater one.
        value = f"{fence} {mine}"
        if not self._store.set(key, value, if_equal=mine, ttl=self._lease):
            return None
        return _Held(key, value, fence)

    @contextmanager
    def _held(self, settled: Callable[[], bool]) -> Iterator[_Held | None]:
        """Waits for the lease and holds it; None: while it was waited for, `settled` came true."""
        held = self._take()
        until = time.monotonic() + self._wait
        pause = 0.02
        while held is None:
            left = until - time.monotonic()
            if left <= 0:
                raise DeadlineError("another caller held the lease for longer than wait")
            time.sleep(min(pause * random.uniform(0.5, 1), left))
            pause = min(pause * 1.5, 0.25)
            if settled():
                break
            if self._store.get(self._key + _LEASE) in (None, _FREE):  # a look is cheaper than a write that fails
                held = self._take()
        try:
            yield held
        finally:
            if held is not None:
                try:  # only if it is still ours
                    self._store.set(held.key, _FREE, if_equal=held.value, ttl=_SOON)
                except Exception:
                    pass  # its ttl sees to it

    def _save(self, before: str | None, after: str) -> bool:
        """Saves over exactly the text that was read: whoever comes too late finds another there, and nothing is stored.
        What was saved is remembered for the grace period. The answer may be lost: then the same is tried once more, and
        our own text in its place is a success too."""
        receipt = None
        for tries in range(1, _SAVES + 1):
            try:
                if before is None:
                    saved = self._store.set(self._key, after, if_absent=True, receipt=receipt)
                else:
                    saved = self._store.set(self._key, after, if_equal=before, receipt=receipt)
                saved = saved or (tries > 1 and self._store.get(self._key) == after)
                break
            except (DeadlineError, UnavailableError, BusyError) as error:
                if tries == _SAVES:
                    raise
                receipt = error.receipt
            time.sleep(0.05 * 2**tries)
        if saved and self._grace > 0:
            try:
                self._store.set(self._key + _SAVED, _hash(after), ttl=max(self._grace, _SOON))
            except (DeadlineError, UnavailableError, BusyError):
                pass  # only the grace is missing
        return saved

    def _is_successor(self, found: _Found) -> bool:
        """Whether a refresh saved this within the grace period: then it is the successor, whatever a clock says of
        it."""
        return self._grace > 0 and self._store.get(self._key + _SAVED) == _hash(found.text)

    def with_lock(self, work: Callable[[Lease], Result]) -> Result:
        """Runs a function while this caller alone has the lease of the user, and gives what it gives. It waits for
        `wait` seconds, then it is DeadlineError. Do not nest: the inner one would wait for the outer."""
        if not callable(work):
            raise InvalidTypeError("with_lock takes a function")
        with self._held(lambda: False) as held:
            assert held is not None
            found = self._read()
            before = None if found is None else found.text
            more = {} if found is None else found.more

            def save(state: StateLike) -> bool:
                nonlocal before
                after = _dump(state, more)
                if not self._save(before, after):
                    return False
                before = after
                return True

            return work(Lease(held.fence, None if found is None else found.state, save))

    # ---------------------------------------------------------------------------------------------------- the refresh

    def refresh_once(
        self, refresh: Callable[[Any], StateLike], *, is_fresh: Callable[[Any], bool] | None = None
    ) -> Any:
        """Gives a fresh state. Where it is not fresh, one caller among all threads and processes on this store runs
        `refresh(state)` and saves what that gives; the others wait and get the successor. None: there is no state, or
        it was ended meanwhile.

        is_fresh: by default as the client judges: it has no refresh token or no end, or that is not over. After the API
            has refused a token (401): `lambda state: state.access_token != refused`.

        What `refresh` raises is raised, and nothing is stored; the next caller may try. But where another's successor
        is there by then, that is given. The successor is stored over exactly the state that was refreshed: where
        another is there by then (a login, a later holder of the lease), that one stays and is given. A holder that dies
        loses the lease after `lease` seconds, by the store's clock; no machine's clock is compared with another's.
        `refresh` has no deadline of ours: give its request one, below `lease`. Where the store cannot be reached, the
        save is tried for a moment; then it raises, and the new tokens are lost. Not for a store that seals its values
        (NotSupportedError): they cannot be compared.
        """
        if not callable(refresh):
            raise InvalidTypeError("refresh_once takes a function that makes a state of a state")
        if is_fresh is not None and not callable(is_fresh):
            raise InvalidTypeError("is_fresh must be a function")
        judge = is_fresh or _is_fresh
        found: _Found | None = None

        def settled() -> bool:
            nonlocal found
            found = self._read()
            return found is None or bool(judge(found.state)) or self._is_successor(found)

        if not settled():
            with self._held(settled) as held:
                if held is not None and not settled():
                    found = self._refreshed(found, refresh)
        return None if found is None else found.state

    def _refreshed(self, found: Any, refresh: Callable[[Any], StateLike]) -> _Found | None:
        try:
            after = _dump(refresh(copy.copy(found.state)), found.more)
        except Exception:
            # Perhaps because the lease was over, and another has used the refresh token up and saved what it got.
            try:
                now = self._read()
            except Exception:
                now = found
            if now is not None and now.text == found.text:
                raise
            return now
        return _load(after) if self._save(found.text, after) else self._read()  # what is there is newer


class _Noted:
    """The api_client of a client, which notes for how long the token is good that its answer brings."""

    def __init__(self, api_client: Any) -> None:
        self._api_client = api_client
        self.life: float | None = None

    def call_api(self, *args: Any, **options: Any) -> Any:
        response = self._api_client.call_api(*args, **options)
        try:
            life = json.loads(response.read())["expires_in"]
        except (ValueError, TypeError, KeyError):
            return response
        if isinstance(life, int | float) and not isinstance(life, bool) and life > 0:
            self.life = life
        return response

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api_client, name)


class _Kept:
    """A storage that keeps what the client sets."""

    state: Any = None

    def get(self) -> Any:
        return self.state

    def set(self, state: Any) -> None:
        self.state = state


def single_flight(miro: Any) -> Any:
    """Makes this client, a `miro_api.Miro`, refresh by `refresh_once` of its storage, a MiroStorage, and gives it back.

    Its method `_get_token` is replaced, by which it refreshes and exchanges codes; nothing else of it is changed, and
    no code that uses it. Where the client does not note when a token ends (2.2.4 never does, so that it would never
    refresh), this does. Twice is once.
    """
    storage = getattr(miro, "_storage", None)
    if not isinstance(storage, MiroStorage):
        raise InvalidTypeError("single_flight takes a client of miro_api whose storage is a MiroStorage")
    if not callable(getattr(type(miro), "_get_token", None)) or not hasattr(miro, "_api_client"):
        raise InvalidTypeError("single_flight does not know this version of miro_api: use refresh_once")
    if "_get_token" in vars(miro):
        return miro

    def ask(**grant: str) -> Any:
        """What the client's own method would store, made by it on a stand-in."""
        stand_in = copy.copy(miro)
        del stand_in._get_token
        stand_in._storage, stand_in._api_client = kept, noted = _Kept(), _Noted(miro._api_client)
        stand_in._get_token(**grant)
        state = kept.state
        if state is not None and state.token_expires_at is None and noted.life is not None:
            state.token_expires_at = datetime.now() + timedelta(seconds=noted.life - _SKEW)
        return state

    def get_token(code: str = "", refresh_token: str = "") -> Any:
        if code or not refresh_token:
            state = ask(code=code)
            storage.set(state)
            return state.access_token
        state = storage.refresh_once(lambda old: ask(refresh_token=old.refresh_token))
        return miro.access_token if state is None else state.access_token  # revoked meanwhile: the client says so

    miro._get_token = get_token
    return miro
