"""Whose a session is. Beside the stored text of a session of a user stands a record (`SessionStorage`), and the record
decides: a text that says a user counts only while its record is active and of that user. So a user's sessions can be
listed, and ended in one step, in every process at once, in Node and in Python: FORMAT.md, item 7."""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..errors import ChangedError, ExistsError, InvalidError, InvalidTypeError
from . import life
from .session import ExpressSession

if TYPE_CHECKING:
    from ..interfaces.sessions import AsyncSessionStorage, Session

__all__ = ["Login", "Owner", "User", "UserSession", "Users"]

User = str | int
"""Text that is not empty, or an integer within 2**53; 7 and "7" are one."""

_SLACK = timedelta(minutes=1)  # a record lives longer than the text: clocks differ, and of two touches each may win one
_LONGEST = 3650 * 86400  # seconds: the core's limit for a ttl
_MOST = 10_000  # sessions of a user, and of a page of them
_EVER = datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)  # so early that nothing has expired
_CANNOT_CHANGE = "the user of a session cannot change: regenerate it"


@dataclass(frozen=True)
class UserSession:
    """A session as its user may see it in a list. Nothing in it logs anybody in. Instants are aware, in UTC."""

    handle: str
    """For `end`."""
    created: datetime
    """When the user logged in."""
    last_seen: datetime
    """When its expiry was last set, by a save or a touch."""
    expires: datetime
    current: bool
    """Whether it is the one that `current` named."""


@dataclass(frozen=True)
class Login:
    """A login that has begun: what `begin_login` gives."""

    user: str
    epoch: int


@dataclass(frozen=True)
class Owner:
    """The user and the record of a session, as far as this request knows."""

    user: str | None = None
    record: str | None = None


def _now() -> datetime:
    return datetime.fromtimestamp(life.now() / 1000, UTC)


class Users:
    def __init__(
        self, records: "AsyncSessionStorage", prefix: str, user_of: Callable[[ExpressSession], User | None]
    ) -> None:
        self._records = records
        self._prefix = prefix
        self._user_of = user_of

    def _name(self, user: object) -> str:
        """What a user is called in the records."""
        if isinstance(user, bool) or not isinstance(user, str | int):
            raise InvalidTypeError(f"a user must be str or int, not {type(user).__name__}")
        if user == "" or (isinstance(user, int) and not -(2**53) < user < 2**53):
            raise InvalidError("a user must be text that is not empty, or an integer within 2**53")
        return self._prefix + (user if isinstance(user, str) else int.__repr__(user))

    def user_in(self, session: ExpressSession) -> str | None:
        user = self._user_of(session)
        return None if user is None else self._name(user)

    def _hash(self, session_id: str) -> str:
        """Finds the record, as the id alone can: it is not in the records, and cannot be found out from them."""
        digest = hashlib.sha256(f"counterfoil session\0{self._prefix}{session_id}".encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def find(self, session_id: str, now: datetime | None = None) -> Awaitable["Session | None"]:
        return self._records.get(token_hash=self._hash(session_id), now=now or _now())

    async def counts(
        self, session: ExpressSession, record: "Session | None", gone: Callable[[], Awaitable[object]]
    ) -> bool:
        """Whether what was read of a session counts, with the record that was read beside it; if not, `gone` is called
        where it has been ended."""
        user = self.user_in(session)
        if user is None:
            session._owner = Owner()
            return True
        if record is None or record.user_id != user:
            # The two answers may be of two instants, and the login between them. Now the text is there for certain,
            # and its record was made before it.
            record = await self.find(session.id, _EVER)
            if record is None or record.user_id != user:
                await gone()
                return False
            # So says this machine's clock alone, or a program without user_of has touched the text: nothing to be
            # destroyed for.
            if record.expires_at < _now():
                return False
        session._owner = Owner(user, record.id)
        return True

    async def owner_of(self, session_id: str, session: ExpressSession | None) -> Owner:
        """The user and the record of a session as they are now."""
        if session is not None and session._owner is not None:
            return session._owner
        record = await self.find(session_id, _EVER)
        return Owner() if record is None else Owner(record.user_id, record.id)

    async def admit(
        self,
        session: ExpressSession,
        user: str | None,
        ttl: float,
        login: Login | None,
        says_user: Callable[[], Awaitable[bool | None]],
    ) -> bool:
        """Before a session is stored that lives for `ttl` seconds from now. False: it has ended. `says_user`: whether
        what is stored there now says a user."""
        is_new = not session._known and session._owner is None
        owner = Owner() if is_new else await self.owner_of(session.id, session)
        if user is None:
            if owner.record is not None and not await self._leave(owner.record):
                return False
            session._owner = Owner()
            return True
        if owner.user is not None and owner.user != user:
            raise InvalidError(_CANNOT_CHANGE)
        if owner.record is None:
            record = await self._begin(session.id, user, ttl, login, says_user)
        else:
            record = owner.record if await self.refresh(owner.record, ttl) else None
        if record is None:
            return False
        session._owner = Owner(user, record)
        return True

    async def _begin(
        self,
        session_id: str,
        user: str,
        ttl: float,
        login: Login | None,
        says_user: Callable[[], Awaitable[bool | None]],
    ) -> str | None:
        """A login. Gives the id of its record; None: it has ended."""
        if login is not None and login.user != user:
            raise InvalidError("this login was begun for another user than the one who is logged in")
        now = _now()
        epoch = None if login is None else login.epoch
        try:
            made = await self._records.create(
                token_hash=self._hash(session_id), user_id=user, created_at=now, epoch=epoch, **self._times(ttl, now)
            )
        except ChangedError:
            return None  # all were ended since the login began
        except ExistsError as error:
            if error.existing is None:
                raise
            existing: Session = error.existing
        else:
            return made.id
        if existing.user_id != user:
            raise InvalidError(_CANNOT_CHANGE)
        if existing.status != "revoked":
            return existing.id if await self.refresh(existing.id, ttl) else None
        # Ended, or left by the user, who comes back to it now. What has ended once does not begin again; but that is no
        # logout, and must be told.
        if await says_user() is False:
            raise InvalidError("a user has logged out of this session: regenerate it before the next login")
        return None

    def _times(self, ttl: float, now: datetime) -> dict[str, Any]:
        end = now + timedelta(seconds=min(ttl, _LONGEST)) + _SLACK
        return {"updated_at": now, "last_active_at": now, "expires_at": end}

    async def refresh(self, record: str, ttl: float) -> bool:
        """Moves the end of a record; whether it has not been ended."""
        return await self._records.refresh(record, **self._times(ttl, _now())) is not None

    async def revoke(self, record: str) -> None:
        await self._records.revoke(record, revoked_at=_now())

    async def _leave(self, record: str) -> bool:
        """Ends the record of a session that its user leaves. False: somebody else had done so, and what else the
        session says must not come back, either."""
        now = datetime.now(UTC)  # to the microsecond: the first instant stays, and tells who was first
        await self._records.revoke(record, revoked_at=now)
        left = await self._records.get_any(record)
        return left is not None and left.revoked_at == now

    async def end(self, session_id: str, session: ExpressSession | None) -> None:
        """Ends the record of a session, if it has one."""
        owner = await self.owner_of(session_id, session)
        if owner.record is not None:
            await self.revoke(owner.record)

    async def sessions_of(self, user: User, current: str | None) -> list[UserSession]:
        now = _now()
        page = await self._records.list_for_user(self._name(user), now=now, limit=_MOST)
        own = None if current is None else self._hash(current)
        return [
            UserSession(one.id, one.created_at, one.last_active_at or one.updated_at, one.expires_at - _SLACK,
                        one.token_hash == own)
            for one in page.records
            if one.revoked_at is None and one.expires_at - _SLACK > now
        ]  # fmt: skip

    async def end_all_of(self, user: User, except_id: str | None) -> int:
        name = self._name(user)
        stays = None if except_id is None else await self.find(except_id, _EVER)
        return await self._records.revoke_all_for_user(
            name, revoked_at=_now(), except_session_id=None if stays is None else stays.id
        )

    async def end_one(self, handle: str, user: User | None) -> bool:
        """Whether it was alive, and of that user if one is given."""
        name = None if user is None else self._name(user)
        record = await self._records.get_any(handle)
        if record is None or record.revoked_at is not None or not record.user_id.startswith(self._prefix):
            return False
        if name is not None and record.user_id != name:
            return False
        await self.revoke(record.id)
        return True

    async def begin_login(self, user: User) -> Login:
        name = self._name(user)
        return Login(name, await self._records.epoch(name))
