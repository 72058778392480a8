"""`ExpressSessions` and `AsyncExpressSessions`: one set of rules, those of node/adapters/express-session.cjs.

The rules are written once, as coroutines. Over a blocking store nothing in them ever waits (`Plain`), so `_done` runs
them to their end at once.
"""

import math
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar, cast

from .. import _native
from ..at_rest import Keys
from ..errors import ChangedError, ClosedError, Error, InvalidError, InvalidTypeError, NotSupportedError
from ..interfaces.records import check_count
from ..interfaces.sessions import AsyncSessionStorage, SessionStorage
from ..store import Store
from . import life
from . import session as stored
from .cookies import Cookie, CookieOptions, Signer, check_name, find, serialize
from .life import Life
from .session import ExpressSession
from .users import Login, User, Users, UserSession

if TYPE_CHECKING:
    from ..aio import AsyncStore

__all__ = ["AsyncExpressSessions", "EndedError", "ExpressSessions"]

Answer = TypeVar("Answer")
# One word each, because at run time that is the union that checkers see.
SaveEnded = Literal["ignore"] | Literal["error"] | Literal["create"]
SaveChanged = Literal["overwrite"] | Literal["error"]
WhenFull = Literal["oldest_out"] | Literal["refuse"]

_DAY = 86400.0
_LONGEST = 3650 * _DAY  # the core's limit for a ttl; a cookie may claim to live longer


class EndedError(Error):
    """The session has ended since it was loaded: nothing was saved."""

    code = "ENDED"


class _Kept(Protocol):
    """What the rules need of an AsyncStore."""

    def get(self, key: str) -> Coroutine[Any, Any, str | None]: ...
    def set(
        self,
        key: str,
        value: str,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_equal: str | None = None,
    ) -> Coroutine[Any, Any, bool]: ...
    def delete(self, key: str) -> Coroutine[Any, Any, bool]: ...
    def touch(self, key: str, ttl: float) -> Coroutine[Any, Any, bool]: ...


class _Plain:
    """What blocks, in the shape of what is awaited: the answer is there when it is asked for."""

    def __init__(self, blocking: object) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._blocking, name)

        async def call(*args: Any, **options: Any) -> Any:
            return method(*args, **options)

        return call


def _done(work: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        work.send(None)
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer
    raise AssertionError("a blocking store has waited")


async def _both(first: Coroutine[Any, Any, Answer], second: Awaitable[Any]) -> tuple[Answer, Any]:
    """Two answers; asked for in one tick where `first` is an operation of an AsyncStore, which has begun."""
    try:
        other = await second
    except BaseException:
        first.close()
        raise
    return await first, other


def _seconds(value: object, name: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"{name} must be seconds, not {type(value).__name__}")
    if not 0 < value < math.inf:
        raise InvalidError(f"{name} must be a number of seconds above 0")


def _one_of(value: object, name: str, words: tuple[str, ...]) -> None:
    if value is not None and (not isinstance(value, str) or value not in words):
        raise InvalidError(f"{name} must be {' or '.join(map(repr, words))}")


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def _session_id(value: object, name: str) -> str | None:
    if isinstance(value, ExpressSession):
        return value.id
    if value is None or (isinstance(value, str) and value):
        return value
    raise InvalidTypeError(f"{name} must be a session or its id")


class _Sessions:
    """The rules. What blocks and what is awaited have the same arguments."""

    _store: _Kept
    _users: Users | None = None

    def __init__(
        self,
        store_or_url: object,
        *,
        secret: str | bytes | Iterable[str | bytes],
        name: str = "connect.sid",
        prefix: str = "sess:",
        cookie: CookieOptions | None = None,
        ttl: float | Callable[[ExpressSession], float] | None = None,
        absolute_timeout: float | None = None,
        touch_after: float | None = None,
        disable_ttl: bool = False,
        disable_touch: bool = False,
        save_ended: SaveEnded | None = None,
        save_changed: SaveChanged | None = None,
        user_of: Callable[[ExpressSession], User | None] | None = None,
        max_sessions_per_user: int | None = None,
        when_full: WhenFull | None = None,
        timeout: float | None = None,
        stage: _native.Stage | None = None,
        keys: Keys | None = None,
        seal_values: bool = False,
        hash_keys: bool = False,
        plain_until: datetime | None = None,
    ) -> None:
        """What differs between the processes that share the sessions differs in what they do: give Python the options
        that the Express application has. Names are those of `CounterfoilStore`, in Python's form, and of
        express-session.

        store_or_url: an open store, which stays yours; or what `open` takes, which is opened here and closed by `close`
            (an AsyncExpressSessions opens it when it is first used, in that event loop).
        secret: the secret of express-session, or several: the first one signs, all are believed.
        name: of the cookie.
        prefix: put before every session id.
        cookie: attributes of the cookies of new sessions, as express-session's `cookie`; max_age is in seconds.
        ttl: seconds that a session lives whose cookie says nothing (a day), or a function of the session, which then
            decides alone: not above 0 ends it.
        absolute_timeout: seconds that a session lives at most, however often it is used. None: no such limit. As
            CounterfoilStore's absoluteTimeout; give both the same.
        touch_after: seconds for which touches are left out after the expiry was set, at most half the idle time.
        disable_ttl: sessions live until they are destroyed, or until absolute_timeout.
        disable_touch: `touch` does nothing: a session lives from its last change, not from its last use.
        save_ended: what becomes of the save of a session that has ended since it was loaded: somebody has logged out,
            say. "ignore", the default: nothing is stored, and `save` gives False. "error": nothing is stored, and it is
            EndedError. "create": it is stored as if it were new, and so brought back.
        save_changed: what becomes of the save of a session that another request has saved since it was loaded.
            "overwrite", the default: the last one wins. "error": ChangedError, nothing was stored; load it again. Not
            with seal_values (NotSupportedError).
        user_of: whose a session is: str, int or None for nobody. Must say the same as the `userOf` of every process
            that shares the sessions: with it sessions can be listed and ended (`sessions_of`, `end_all_of`, `end`).
            For Passport: `lambda session: session.get("passport", {}).get("user")`.
        max_sessions_per_user, when_full: 1 to 10000, 100 by default; one more drops the oldest ("oldest_out"), or is
            LimitError ("refuse").
        timeout, stage, keys, seal_values, hash_keys, plain_until: for `open`, not together with an open store.

        InvalidError, or InvalidTypeError, for what cannot be meant, before anything is opened. A serializer of one's
        own is not for Python: what is stored must be JSON.
        """
        self._signer = Signer(secret)
        self._name = check_name(name)
        if not isinstance(prefix, str):
            raise InvalidTypeError(f"prefix must be str, not {type(prefix).__name__}")
        if re.search("[\0\r\n\ud800-\udfff]", prefix) or len(prefix.encode()) > 256:
            raise InvalidError("prefix must have at most 256 bytes, without NUL, line breaks and lone surrogates")
        self._prefix = prefix
        if cookie is not None and not isinstance(cookie, Mapping):
            raise InvalidTypeError(f"cookie must be a dict of attributes, not {type(cookie).__name__}")
        self._cookie = dict(cookie or {})
        Cookie.of(self._cookie)
        _seconds(absolute_timeout, "absolute_timeout")
        _seconds(touch_after, "touch_after")
        self._ttl: float | Callable[[ExpressSession], float] = _DAY
        if ttl is not None:
            if callable(ttl):
                self._ttl = ttl
            else:
                _seconds(ttl, "ttl")
                self._ttl = ttl
                if absolute_timeout is not None and ttl > absolute_timeout:
                    raise InvalidError("ttl must not be longer than absolute_timeout")
        for most, what in ((ttl, "ttl"), (absolute_timeout, "absolute_timeout")):
            if touch_after is not None and isinstance(most, int | float) and touch_after >= most:
                raise InvalidError(f"touch_after must be shorter than {what}")
        self._disable_ttl = _flag(disable_ttl, "disable_ttl")
        self._disable_touch = _flag(disable_touch, "disable_touch")
        if touch_after is not None and (disable_ttl or disable_touch):
            raise InvalidError("touch_after says nothing where disable_ttl or disable_touch is set")
        self._absolute = None if absolute_timeout is None else math.ceil(absolute_timeout * 1000)
        self._touch_after = None if touch_after is None else touch_after * 1000
        self._notes = self._absolute is not None or self._touch_after is not None
        self._cannot_note = False  # by a touch: the backend does not compare, or the values are sealed
        _one_of(save_ended, "save_ended", ("ignore", "error", "create"))
        _one_of(save_changed, "save_changed", ("overwrite", "error"))
        self._save_ended = save_ended
        self._compares = save_changed == "error"
        # What has ended cannot be told from what is new: so it is meant, or the backend has no conditions.
        self._may_upsert = save_ended == "create" and not self._compares
        _one_of(when_full, "when_full", ("oldest_out", "refuse"))
        if max_sessions_per_user is not None:
            check_count(max_sessions_per_user, "max_sessions_per_user")
        if user_of is not None and not callable(user_of):
            raise InvalidTypeError("user_of must be a function of the session")
        if user_of is None and (max_sessions_per_user is not None or when_full is not None):
            raise InvalidError("max_sessions_per_user and when_full say nothing without user_of")
        self._user_of = user_of
        self._caps: dict[str, Any] = {
            "max_sessions": 100 if max_sessions_per_user is None else max_sessions_per_user,
            "when_full": when_full or "oldest_out",
        }
        given: dict[str, Any] = {
            "timeout": timeout, "stage": stage, "keys": keys, "seal_values": seal_values or None,
            "hash_keys": hash_keys or None, "plain_until": plain_until,
        }  # fmt: skip
        self._given = {option: value for option, value in given.items() if value is not None}
        if isinstance(store_or_url, _native.Store | _native.AsyncStore) and self._given:
            raise InvalidError(
                "timeout, stage, keys, seal_values, hash_keys and plain_until belong to the store that is given"
            )
        self._open(store_or_url)

    def _open(self, store_or_url: object) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<counterfoil.express.{type(self).__name__}: {self._name}>"

    def _attach(self, store: object, records: object) -> None:
        self._store = cast(_Kept, store)
        if self._user_of is not None:
            self._users = Users(cast(AsyncSessionStorage, records), self._prefix, self._user_of)

    # ---------------------------------------------------------------------------------------------------- the cookie

    def sign(self, session_id: str) -> str:
        """The value of the cookie for a session id, not yet URL-encoded: `s:`, the id, a dot, the signature."""
        return self._signer.sign(session_id)

    def unsign(self, value: str) -> str | None:
        """The session id in a value of `sign`; None: it is not signed by any of the secrets."""
        if not isinstance(value, str):
            raise InvalidTypeError(f"value must be str, not {type(value).__name__}")
        return self._signer.unsign(value)

    def set_cookie(self, session: ExpressSession) -> str:
        """The value of the header Set-Cookie, as Express would send it:

            response.headers.append("set-cookie", sessions.set_cookie(session))

        Express sends it for a new session, and where the cookie expires with each request that changed something. A
        cookie that is `secure` goes only over https.
        """
        cookie = _made(session).cookie
        return serialize(self._name, self.sign(session.id), cookie.attributes(cookie.expires))

    def clear_cookie(self) -> str:
        """The value of a header Set-Cookie that makes a browser forget the cookie of this name, with the path and
        domain of the option `cookie`."""
        past = Cookie.of(self._cookie).attributes(datetime(1970, 1, 1, tzinfo=UTC))
        return serialize(self._name, "", past)

    # ------------------------------------------------------------------------------------------------------ load, save

    def _key(self, session_id: str) -> str:
        return self._prefix + session_id

    async def _load(self, cookies: Mapping[str, str] | str | None) -> ExpressSession | None:
        value = find(cookies, self._name)
        session_id = None if value is None else self._signer.unsign(value)
        if session_id is None:
            return None
        key = self._key(session_id)
        reading = self._store.get(key)
        if self._users is None:
            text, record = await reading, None
        else:
            text, record = await _both(reading, self._users.find(session_id))
        if text is None:
            return None
        found = self._session_of(session_id, text)
        if found is None or self._users is None:
            return found

        async def gone() -> None:
            try:
                await self._store.delete(key)
            except Exception:
                pass  # it has ended, whether this succeeds or not

        return found if await self._users.counts(found, record, gone) else None

    def _session_of(self, session_id: str, text: str) -> ExpressSession | None:
        found = stored.loaded(session_id, text)
        if self._notes:
            at = life.now()
            found._life = life.life_in(found._note, at, text)
            # The store has ended it, unless a program that knows no such limit has touched or saved it, or the limit
            # was a longer one.
            if self._absolute is not None and not found._life.left(self._absolute, at) > 0:
                return None
        if self._compares:
            found._text = text
        if not self._disable_touch:
            found.cookie.revive()
        return found

    def _new(self, data: Mapping[str, Any] | None) -> ExpressSession:
        copy = stored.checked({} if data is None else data)
        return ExpressSession(secrets.token_urlsafe(24), Cookie.of(self._cookie), copy)

    async def _create(self, data: Mapping[str, Any] | None, login: Login | None) -> ExpressSession:
        made = self._new(data)
        await self._begun(made, login)
        return made

    async def _begun(self, made: ExpressSession, login: Login | None) -> None:
        if not await self._save(made, login):
            raise EndedError("all sessions of this user were ended since the login began, or a session that is to live "
                             "for no time: nothing was saved")  # fmt: skip

    async def _regenerate(
        self, old: ExpressSession, data: Mapping[str, Any] | None, login: Login | None
    ) -> ExpressSession:
        _made(old)
        new = self._new(data)
        try:
            await self._destroy(old)
        finally:
            old._become(new)  # also after an error: the request must not go on with the old id
        await self._begun(old, login)
        return old

    async def _save(self, given: ExpressSession, login: Login | None) -> bool:
        _made(given)
        if login is not None and not isinstance(login, Login):
            raise InvalidTypeError(f"login must be what begin_login gave, not {type(login).__name__}")
        if login is not None and self._users is None:
            raise InvalidError("login says nothing without user_of")
        given.cookie.begin_anew()
        user = None if self._users is None else self._users.user_in(given)
        at = life.now()
        idle = self._idle(given)
        known = self._life_of(given, at) if self._notes else None
        ttl = self._left(idle, known, at)
        if not ttl > 0:
            await self._end(given.id, given)
            if idle > 0 and self._save_ended == "error":
                raise _ended()  # the whole life is over, as it may be while a request runs
            return False
        note = None if known is None else known.note(ttl, at)
        text = stored.dump(given, note)
        if self._users is not None and not await self._users.admit(given, user, ttl, login, self._says_user(given)):
            if self._save_ended == "error":
                raise _ended()
            return False
        done = await self._stored(given, text, None if ttl == math.inf else ttl)
        if done and known is not None and note is not None:
            known.take(note, text)
        return done

    def _says_user(self, given: ExpressSession) -> Callable[[], Awaitable[bool | None]]:
        async def says_user() -> bool | None:
            text = await self._store.get(self._key(given.id))
            if text is None or self._users is None:
                return None
            return self._users.user_in(stored.loaded(given.id, text)) is not None

        return says_user

    async def _stored(self, given: ExpressSession, text: str, ttl: float | None) -> bool:
        key = self._key(given.id)
        if not given._known or self._may_upsert:
            await self._store.set(key, text, ttl=ttl)
        else:
            read = given._text
            try:
                if read is None:
                    done = await self._store.set(key, text, ttl=ttl, if_present=True)
                else:
                    done = await self._store.set(key, text, ttl=ttl, if_equal=read)
                    if not done and self._notes:
                        done = await self._stored_over_touch(key, text, ttl, read)
            except NotSupportedError:
                if self._save_ended is not None or self._compares:
                    raise
                self._may_upsert = True
                done = await self._store.set(key, text, ttl=ttl)
            if not done and not await self._missed(given, text, ttl):
                return False
        given._known = True
        if self._compares:
            given._text = text
        return True

    async def _stored_over_touch(self, key: str, text: str, ttl: float | None, read: str) -> bool:
        """A touch that was noted has changed the text, and nothing of the session: no reason to refuse a save."""
        before = stored.without_note(read)
        for _ in range(3):
            there = await self._store.get(key)
            if there is None or stored.without_note(there) != before:
                return False
            if await self._store.set(key, text, ttl=ttl, if_equal=there):
                return True
        return False

    async def _missed(self, given: ExpressSession, text: str, ttl: float | None) -> bool:
        """What a save answers that did not find the session, or not as it was."""
        if self._compares:
            key = self._key(given.id)
            create = self._save_ended == "create"
            if await self._store.get(key) is not None or (
                create and not await self._store.set(key, text, ttl=ttl, if_absent=True)
            ):
                raise ChangedError("the session was saved by another request since it was loaded: nothing was saved")
            if create:
                return True  # and now it is there
        if self._users is not None:
            await self._users.end(given.id, given)  # it must not be listed any longer
        if self._save_ended == "error":
            raise _ended()
        return False

    # ----------------------------------------------------------------------------------------------- touch and destroy

    async def _touch(self, given: ExpressSession) -> bool:
        _made(given).cookie.begin_anew()
        if self._disable_touch or (self._disable_ttl and not self._notes):
            return True
        record = None if self._users is None else (await self._users.owner_of(given.id, given)).record
        if self._notes:
            return await self._touch_in_time(given, record)
        ttl = self._idle(given)
        if ttl > 0:
            return await self._touch_both(given.id, record, min(ttl, _LONGEST))
        await self._end(given.id, given)
        return False

    async def _touch_both(self, session_id: str, record: str | None, ttl: float) -> bool:
        there, alive = await self._with_record(self._store.touch(self._key(session_id), ttl), record, ttl)
        if not there and record is not None and self._users is not None:
            await self._users.revoke(record)  # it has expired, or was evicted
        return there and alive

    async def _with_record(
        self, writing: Coroutine[Any, Any, bool], record: str | None, ttl: float
    ) -> tuple[bool, bool]:
        """A new expiry of a session on its way, and the record's beside it: whether either was there."""
        if record is None or self._users is None:
            return await writing, True
        return await _both(writing, self._users.refresh(record, ttl))

    async def _touch_in_time(self, given: ExpressSession, record: str | None) -> bool:
        """A touch within the whole life, and only where one is due."""
        key = self._key(given.id)
        own = given._life if given._life is not None and given._life.text is not None else await self._life_now(key)
        if own is None:
            return False
        done = await self._touch_over(own, given, record, again=False)
        if done is not None:
            return done
        # Another request has saved or touched it since. That has set the expiry, but this request may have taken its
        # time afterwards.
        there = await self._life_now(key)
        if there is not None:
            return await self._touch_over(there, given, record, again=True) is not False
        if record is not None and self._users is not None:
            await self._users.revoke(record)
        return False

    async def _touch_over(self, known: Life, given: ExpressSession, record: str | None, *, again: bool) -> bool | None:
        """Whether it is there. None: the text is no longer the one of that life, and nothing was done."""
        at = life.now()
        idle = math.inf if self._disable_ttl else self._idle(given)
        ttl = self._left(idle, known, at)
        if not ttl > 0:
            await self._end(given.id, given)
            return False
        note = known.note(ttl, at)
        gained = math.nan if known.expires is None else note["expires"] - known.expires
        if known.noted:
            if gained == 0:
                return True
            # A nearer expiry is meant so. But it is no reason to undo what another request has set.
            if again if gained < 0 else max(gained, at - known.set) < self._pause(idle):
                return True
        # Without touch_after only what brings the expiry nearer is noted: or the next request would take it for where
        # the note has it.
        if self._cannot_note or (self._touch_after is None and gained >= 0):
            return await self._touch_both(given.id, record, ttl)
        assert known.text is not None
        text = stored.with_note(known.text, note)
        try:
            writing = self._store.set(self._key(given.id), text, ttl=ttl, if_equal=known.text)
            there, alive = await self._with_record(writing, record, ttl)
        except NotSupportedError:
            self._cannot_note = True
            return await self._touch_both(given.id, record, ttl)
        if not there:
            return None
        known.take(note, text)
        return alive

    def _pause(self, idle: float) -> float:
        """Milliseconds for which touches may be left out. At most half the idle time: or whoever comes often, but not
        often enough, would lose the session."""
        return 0 if self._touch_after is None else min(self._touch_after, idle * 500)

    async def _life_now(self, key: str) -> Life | None:
        """The life of what is stored now."""
        text = await self._store.get(key)
        return None if text is None else life.life_in(stored.parse(text).get(life.FIELD), life.now(), text)

    async def _destroy(self, given: ExpressSession | str) -> None:
        session_id = _session_id(given, "session")
        if session_id is None:
            raise InvalidTypeError("destroy takes a session or its id")
        await self._end(session_id, None)

    async def _end(self, session_id: str, given: ExpressSession | None) -> None:
        """Either alone ends it; a failure of one is no reason to leave the other undone."""
        try:
            await self._store.delete(self._key(session_id))
        finally:
            if self._users is not None:
                await self._users.end(session_id, given)

    # ------------------------------------------------------------------------------------------------------- its life

    def _life_of(self, given: ExpressSession, at: int) -> Life:
        if given._life is None:
            given._life = Life(at, at)
        return given._life

    def _left(self, idle: float, known: Life | None, at: int) -> float:
        """Seconds that a session has left which may be idle for so many; not above 0: it has ended. math.inf: as long
        as nobody ends it."""
        if not idle > 0:
            return idle
        most = math.inf if self._disable_ttl else min(idle, _LONGEST)
        if self._absolute is None or known is None:
            return most
        return min(most, _LONGEST, known.left(self._absolute, at) / 1000)

    def _idle(self, given: ExpressSession) -> float:
        """Seconds that the session may be idle; not above 0: it has ended."""
        if callable(self._ttl):
            ttl = self._ttl(given)
            if isinstance(ttl, bool) or not isinstance(ttl, int | float) or math.isnan(ttl):
                raise InvalidError("the ttl function must give a number of seconds")
            return ttl
        left = given.cookie.max_age
        return self._ttl if left is None else left

    def _of_users(self, method: str) -> Users:
        if self._users is None:
            raise InvalidError(f"{method} needs the option user_of")
        return self._users


def _made(given: object) -> ExpressSession:
    if not isinstance(given, ExpressSession):
        raise InvalidTypeError(f"session must be what load or create gave, not {type(given).__name__}")
    return given


def _ended() -> EndedError:
    return EndedError("the session has ended since it was loaded: nothing was saved")


class ExpressSessions(_Sessions):
    """The sessions of an Express application, over a blocking store. All threads may share it; a session belongs to one
    request.

        sessions = ExpressSessions("redis://cache", secret=os.environ["SESSION_SECRET"])
        session = sessions.load(request.cookies)

    Express's middleware saves a session at the end of a request that has changed it, and touches it at the end of any
    other: that is what `save` and `touch` are for. Errors of the store are those of `counterfoil.Store`; a stored
    session that is no JSON object is CorruptError.
    """

    def _open(self, store_or_url: object) -> None:
        if isinstance(store_or_url, _native.AsyncStore):
            raise InvalidTypeError("ExpressSessions takes a Store or a URL: AsyncExpressSessions takes an AsyncStore")
        self._own: Store | None = None
        if isinstance(store_or_url, Store):
            store = store_or_url
        else:
            store = self._own = Store(store_or_url, **self._given)
        records = None if self._user_of is None else SessionStorage(store, **self._caps)
        self._attach(_Plain(store), _Plain(records))

    def load(self, cookies: Mapping[str, str] | str | None) -> ExpressSession | None:
        """The session that a request's cookies name; None: there is no such cookie, it is not signed by one of the
        secrets, or there is no such session (any more).

        cookies: `request.cookies`, or the text of the header Cookie, or None where there is none.
        """
        return _done(self._load(cookies))

    def create(self, data: Mapping[str, Any] | None = None, *, login: Login | None = None) -> ExpressSession:
        """Makes a session with a new id, and stores it. It needs `set_cookie`.

        login: what `begin_login` gave. Where all sessions of the user were ended since, it is EndedError.
        """
        return _done(self._create(data, login))

    def save(self, session: ExpressSession, *, login: Login | None = None) -> bool:
        """Stores what the session holds, and counts its life anew from now. False: it has ended since it was loaded
        (`save_ended`), or its cookie has expired; nothing was stored.

        InvalidError where it holds what JSON and JavaScript cannot say, and where its user would change: `regenerate`
        it.
        """
        return _done(self._save(session, login))

    def touch(self, session: ExpressSession) -> bool:
        """Counts the life of the session anew from now, and stores nothing of its data. False: it has ended. Where
        touch_after leaves a touch out, nobody has looked."""
        return _done(self._touch(session))

    def destroy(self, session: ExpressSession | str) -> None:
        """Ends a session, or that with this id; one that is not there is fine. It needs `clear_cookie`."""
        _done(self._destroy(session))

    def regenerate(
        self, session: ExpressSession, data: Mapping[str, Any] | None = None, *, login: Login | None = None
    ) -> ExpressSession:
        """Ends the session and begins another in the same object, with a new id and this data: what a login should do.
        It is stored, as by `create`, and needs `set_cookie`. Gives the session.

            sessions.regenerate(session, {**session, "user": user.id})
        """
        return _done(self._regenerate(session, data, login))

    def sessions_of(self, user: User, *, current: ExpressSession | str | None = None) -> list[UserSession]:
        """The sessions of a user that are alive, the last used first. `current`: the session of the request that asks,
        or its id. This and what follows needs `user_of`."""
        return _done(self._of_users("sessions_of").sessions_of(user, _session_id(current, "current")))

    def end_all_of(self, user: User, *, except_id: ExpressSession | str | None = None) -> int:
        """Ends all sessions of a user, but perhaps one, in one step; how many, expired ones that nobody had ended among
        them. When it has answered, no process loads such a session any more, and no slower request that saves or
        touches one brings it back. A login that is under way meanwhile: `begin_login`."""
        return _done(self._of_users("end_all_of").end_all_of(user, _session_id(except_id, "except_id")))

    def end(self, handle: str, *, user: User | None = None) -> bool:
        """Ends one session of a list; whether it was alive. Where the handle comes from a request, say whose it must
        be: `user`."""
        return _done(self._of_users("end").end_one(handle, user))

    def begin_login(self, user: User) -> Login:
        """Call it before the password is looked at, and give what it gives to `create`, `regenerate` or `save`. If all
        sessions of the user are ended between the two, the login was by what no longer holds, and the session has
        ended."""
        return _done(self._of_users("begin_login").begin_login(user))

    def close(self) -> None:
        """Closes the store, if this object opened it."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncExpressSessions(_Sessions):
    """As `ExpressSessions`, awaited, over an AsyncStore (asyncio, uvloop, trio). It belongs to the event loop of its
    store; a URL is opened in the event loop that uses it first, so that it may be made where a module is loaded."""

    def _open(self, store_or_url: object) -> None:
        from ..aio import AsyncStore

        if isinstance(store_or_url, _native.Store):
            raise InvalidTypeError("AsyncExpressSessions takes an AsyncStore or a URL: ExpressSessions takes a Store")
        self._own: AsyncStore | None = None
        self._target: object = None  # what is to be opened
        self._closed = False
        if isinstance(store_or_url, AsyncStore):
            self._attach(store_or_url, self._records(store_or_url))
        elif store_or_url is None:
            raise InvalidTypeError("a backend must be a URL or an object with the methods of a backend")
        else:
            self._target = store_or_url

    def _records(self, store: "AsyncStore") -> AsyncSessionStorage | None:
        return None if self._user_of is None else AsyncSessionStorage(store, **self._caps)

    def _ready(self) -> Self:
        if self._target is not None:
            from ..aio import AsyncStore

            if self._closed:
                raise ClosedError("these sessions were closed")
            self._own = AsyncStore(self._target, **self._given)
            self._target = None
            self._attach(self._own, self._records(self._own))
        return self

    async def load(self, cookies: Mapping[str, str] | str | None) -> ExpressSession | None:
        """As `ExpressSessions.load`, and so are the others."""
        return await self._ready()._load(cookies)

    async def create(self, data: Mapping[str, Any] | None = None, *, login: Login | None = None) -> ExpressSession:
        return await self._ready()._create(data, login)

    async def save(self, session: ExpressSession, *, login: Login | None = None) -> bool:
        return await self._ready()._save(session, login)

    async def touch(self, session: ExpressSession) -> bool:
        return await self._ready()._touch(session)

    async def destroy(self, session: ExpressSession | str) -> None:
        await self._ready()._destroy(session)

    async def regenerate(
        self, session: ExpressSession, data: Mapping[str, Any] | None = None, *, login: Login | None = None
    ) -> ExpressSession:
        return await self._ready()._regenerate(session, data, login)

    async def sessions_of(self, user: User, *, current: ExpressSession | str | None = None) -> list[UserSession]:
        return await self._ready()._of_users("sessions_of").sessions_of(user, _session_id(current, "current"))

    async def end_all_of(self, user: User, *, except_id: ExpressSession | str | None = None) -> int:
        return await self._ready()._of_users("end_all_of").end_all_of(user, _session_id(except_id, "except_id"))

    async def end(self, handle: str, *, user: User | None = None) -> bool:
        return await self._ready()._of_users("end").end_one(handle, user)

    async def begin_login(self, user: User) -> Login:
        return await self._ready()._of_users("begin_login").begin_login(user)

    async def close(self) -> None:
        """Closes the store, if this object opened it; what is called later is ClosedError."""
        self._closed = True
        if self._own is not None:
            await self._own.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
