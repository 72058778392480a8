"""SessionStorage: the records of a user's sessions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from .. import _native
from ..errors import ExistsError, InvalidCursorError, InvalidError, InvalidTypeError
from ..store import Store
from .records import Fields, check_count, id_text, instant, moment, sayable, some_id

if TYPE_CHECKING:
    from ..aio import AsyncStore

__all__ = ["AsyncSessionStorage", "Order", "Session", "SessionList", "SessionStorage", "Status"]

# One word each, because at run time that is the union that checkers see.
Status = Literal["active"] | Literal["expired"] | Literal["revoked"]
Order = (
    Literal["updated_at_desc"] | Literal["updated_at_asc"] | Literal["created_at_desc"] | Literal["created_at_asc"]
    | Literal["expires_at_desc"] | Literal["expires_at_asc"]
)  # fmt: skip

_STATUSES: dict[object, int] = {None: 0, "active": 1, "expired": 2, "revoked": 3}
_ORDERS: dict[object, int] = {
    "updated_at_desc": 0, "updated_at_asc": 1, "created_at_desc": 2, "created_at_asc": 3, "expires_at_desc": 4,
    "expires_at_asc": 5,
}  # fmt: skip

Args = tuple[int, int, str, int, int, int, str]
Call = tuple[str, Fields, Args | None]
Answer = tuple[list[tuple[str, Fields]], bool, int, str | None]

_NOTHING: Answer = ([], False, 0, None)


class Session:
    """A session record, as it was when it was read. Instants are aware datetimes in UTC."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def __repr__(self) -> str:
        return f"<counterfoil.Session {self.id}: {self.status}>"

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, Session) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def _text(self, name: str) -> str | None:
        value: str | None = self._fields[name]
        return value

    def _moment(self, name: str) -> datetime | None:
        value: int | None = self._fields[name]
        return None if value is None else moment(value)

    @property
    def id(self) -> str:
        """Names the session to its user, for example in a list; not a secret, and nobody can sign in with it."""
        return str(self._fields["id"])

    @property
    def user_id(self) -> str:
        return str(self._fields["user_id"])

    @property
    def token_hash(self) -> str:
        return str(self._fields["token_hash"])

    @property
    def created_at(self) -> datetime:
        return moment(self._fields["created_at"])

    @property
    def updated_at(self) -> datetime:
        return moment(self._fields["updated_at"])

    @property
    def expires_at(self) -> datetime:
        return moment(self._fields["expires_at"])

    @property
    def last_active_at(self) -> datetime | None:
        return self._moment("last_active_at")

    @property
    def revoked_at(self) -> datetime | None:
        return self._moment("revoked_at")

    @property
    def client_id(self) -> str | None:
        return self._text("client_id")

    @property
    def client_name(self) -> str | None:
        return self._text("client_name")

    @property
    def user_agent(self) -> str | None:
        return self._text("user_agent")

    @property
    def ip(self) -> str | None:
        return self._text("ip")

    @property
    def epoch(self) -> int:
        """Of its user, when it was made."""
        return int(self._fields["epoch"])

    @property
    def status(self) -> Status:
        """By the clock of this machine: "revoked", else "expired" after expires_at, else "active"."""
        if self._fields["revoked_at"] is not None:
            return "revoked"
        return "expired" if datetime.now(UTC) > self.expires_at else "active"


class SessionList:
    """A page: `records`, and the `next_cursor`, None at the end."""

    __slots__ = ("_next_cursor", "_records")

    def __init__(self, records: list[Session], next_cursor: str | None) -> None:
        self._records = records
        self._next_cursor = next_cursor

    @property
    def records(self) -> Sequence[Session]:
        return self._records

    @property
    def next_cursor(self) -> str | None:
        return self._next_cursor

    def __repr__(self) -> str:
        return f"<counterfoil.SessionList of {len(self._records)}{', and more' if self._next_cursor else ''}>"


def _args(
    *, now: int = 0, epoch: int = -1, but: str = "", status: int = 0, order: int = 0, limit: int = 0, cursor: str = ""
) -> Args:
    return (now, epoch, but, status, order, limit, cursor)


class _Sessions:
    """What the two forms share: arguments and answers."""

    def __init__(self, max_sessions: int, when_full: str, retention: float) -> None:
        if when_full not in ("oldest_out", "refuse"):
            raise InvalidError('when_full must be "oldest_out" or "refuse"')
        self._options = (
            check_count(max_sessions, "max_sessions"),
            when_full == "refuse",
            _native.ttl_ms(retention),
        )

    def _create(self, user_id: Any, epoch: int | None, instants: Fields, texts: Fields) -> Call:
        if epoch is not None:
            if not isinstance(epoch, int) or isinstance(epoch, bool):
                raise InvalidTypeError(f"epoch must be int, not {type(epoch).__name__}")
            if not 0 <= epoch < 2**53:
                raise InvalidError("epoch must be what epoch() gave")
        fields = {"user_id": some_id(user_id, "user_id"), **texts}
        fields.update((name, instant(value, name)) for name, value in instants.items())
        return "create", fields, _args(epoch=-1 if epoch is None else epoch)

    def _get(self, token_hash: str, now: datetime) -> Call | None:
        at = _now(now)
        if isinstance(token_hash, str) and not sayable(token_hash):
            return None
        return "get", {"token_hash": token_hash}, _args(now=at)

    def _list(
        self, user_id: Any, now: datetime, status: str | None, order_by: str, limit: int, cursor: str | None
    ) -> Call:
        owner, at = some_id(user_id, "user_id"), _now(now)
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise InvalidTypeError(f"limit must be int, not {type(limit).__name__}")
        if limit < 1:
            raise InvalidError("limit must be 1 or more")
        if not isinstance(status, str | None) or status not in _STATUSES:
            raise InvalidError('a session has no such status; it is "active", "expired" or "revoked"')
        if not isinstance(order_by, str) or order_by not in _ORDERS:
            raise InvalidError("there is no such order")
        if cursor is None:
            cursor = ""
        elif not isinstance(cursor, str):
            raise InvalidTypeError(f"cursor must be str, not {type(cursor).__name__}")
        elif not cursor or not sayable(cursor):
            raise InvalidCursorError("the cursor is none that a list in this order gave")
        args = _args(now=at, status=_STATUSES[status], order=_ORDERS[order_by], limit=min(limit, 10_001), cursor=cursor)
        return "list", {"user_id": owner}, args

    def _refresh(
        self, session_id: Any, updated_at: datetime, expires_at: datetime, last_active_at: datetime | None
    ) -> Call | None:
        fields: Fields = {
            "updated_at": instant(updated_at, "updated_at"),
            "expires_at": instant(expires_at, "expires_at"),
        }
        if last_active_at is not None:
            fields["last_active_at"] = instant(last_active_at, "last_active_at")
        known = id_text(session_id)
        return None if known is None else ("refresh", {"id": known, **fields}, None)

    def _revoke(self, session_id: Any, revoked_at: datetime) -> Call | None:
        at, known = instant(revoked_at, "revoked_at"), id_text(session_id)
        return None if known is None else ("revoke", {"id": known, "revoked_at": at}, None)

    def _revoke_all(self, user_id: Any, revoked_at: datetime, except_session_id: Any) -> Call:
        fields = {"user_id": some_id(user_id, "user_id"), "revoked_at": instant(revoked_at, "revoked_at")}
        # An id that nothing can have excludes nothing, as in Cross Auth.
        return "revoke_all", fields, _args(but=id_text(except_session_id) or "")


def _now(now: datetime) -> int:
    at = instant(now, "now")
    if at is None:
        raise InvalidTypeError("now must be a datetime, not NoneType")
    return at or 1  # 0 is the clock's; a microsecond is nothing to a record that lived in 1970


def _explain(error: ExistsError) -> None:
    if error._record is not None:
        error.existing, error._record = Session(error._record[1]), None


def _one(answer: Answer) -> Session | None:
    return Session(answer[0][0][1]) if answer[0] else None


def _made(answer: Answer) -> Session:
    return Session(answer[0][0][1])


def _page(answer: Answer) -> SessionList:
    return SessionList([Session(fields) for _, fields in answer[0]], answer[3])


class SessionStorage(_Sessions):
    """Session records of users, found by the hash of a token, over a store. It has the shape that Cross Auth (0.16 to
    0.22) calls SessionStorage, and two things more: `epoch`, and caps. Keep the token itself out of it: give the hash.

    max_sessions: so many records of one user, 1 to 10000. One more first drops the oldest that has ended, and where
        none has: when_full "oldest_out" drops the oldest there is, "refuse" raises LimitError.
    retention: seconds that a record is kept after its expires_at, so that a user can see it; 30 days.

    A session is revoked when it has a revoked_at, else expired when now is after expires_at, else active: at that very
    instant it still is. A naive datetime is taken as UTC. Session ids are str; one that cannot be is a miss. user_id
    may be str, int or UUID, and is kept as text; the user need not be in an AccountsStorage.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_sessions: int = 100,
        when_full: Literal["oldest_out", "refuse"] = "oldest_out",
        retention: float = 30 * 86400,
    ) -> None:
        if not isinstance(store, Store):
            raise InvalidTypeError(f"SessionStorage takes a Store, not {type(store).__name__}")
        super().__init__(max_sessions, when_full, retention)
        self._store = store

    def _call(self, call: Call | None) -> Answer:
        if call is None:
            return _NOTHING
        try:
            return self._store._sessions(call[0], call[1], self._options, call[2])
        except ExistsError as error:
            _explain(error)
            raise

    def create(
        self,
        *,
        token_hash: str,
        user_id: Any,
        created_at: datetime,
        updated_at: datetime,
        expires_at: datetime,
        client_id: str | None = None,
        client_name: str | None = None,
        user_agent: str | None = None,
        ip: str | None = None,
        last_active_at: datetime | None = None,
        epoch: int | None = None,
    ) -> Session:
        """Makes a session. A token hash that is taken is ExistsError.

        epoch: what `epoch(user_id)` gave when this login began. When all sessions of the user were revoked since, it is
        ChangedError: without it, a login that is under way during a "sign out everywhere" would survive it.
        """
        return _made(
            self._call(
                self._create(
                    user_id,
                    epoch,
                    {"created_at": created_at, "updated_at": updated_at, "expires_at": expires_at,
                     "last_active_at": last_active_at},
                    {"token_hash": token_hash, "client_id": client_id, "client_name": client_name,
                     "user_agent": user_agent, "ip": ip},
                )
            )
        )  # fmt: skip

    def get(self, *, token_hash: str, now: datetime) -> Session | None:
        """The session with this token hash if it is active at `now`, or None."""
        return _one(self._call(self._get(token_hash, now)))

    def get_any(self, session_id: Any) -> Session | None:
        """The session with this id, whatever its status, or None."""
        known = id_text(session_id)
        return None if known is None else _one(self._call(("get_any", {"id": known}, None)))

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
        """A page of a user's sessions, equals by id. `cursor` is the next_cursor of the page before, good for the same
        order; any other is InvalidCursorError."""
        return _page(self._call(self._list(user_id, now, status, order_by, limit, cursor)))

    def refresh(
        self,
        session_id: Any,
        *,
        updated_at: datetime,
        expires_at: datetime,
        last_active_at: datetime | None = None,
    ) -> Session | None:
        """Rolls a session forward; without last_active_at that stays. None where it is missing or revoked: in one step,
        so a session that is being revoked is not brought back."""
        return _one(self._call(self._refresh(session_id, updated_at, expires_at, last_active_at)))

    def revoke(self, session_id: Any, *, revoked_at: datetime) -> None:
        """Revokes; the first revoked_at stays, and a session that is not there is fine."""
        self._call(self._revoke(session_id, revoked_at))

    def revoke_all_for_user(self, user_id: Any, *, revoked_at: datetime, except_session_id: Any | None = None) -> int:
        """Revokes all sessions of a user but one, in one step; how many were revoked now, also expired ones. The user's
        epoch goes up."""
        return self._call(self._revoke_all(user_id, revoked_at, except_session_id))[2]

    def epoch(self, user_id: Any) -> int:
        """How often all sessions of this user were revoked. Read it when a login begins, and give it to `create`."""
        return self._call(("epoch", {"user_id": some_id(user_id, "user_id")}, None))[2]


class AsyncSessionStorage(_Sessions):
    """As `counterfoil.SessionStorage`, over an AsyncStore: `counterfoil.aio.SessionStorage`."""

    def __init__(
        self,
        store: "AsyncStore",
        *,
        max_sessions: int = 100,
        when_full: Literal["oldest_out", "refuse"] = "oldest_out",
        retention: float = 30 * 86400,
    ) -> None:
        if not isinstance(store, _native.AsyncStore):
            raise InvalidTypeError(f"aio.SessionStorage takes an AsyncStore, not {type(store).__name__}")
        super().__init__(max_sessions, when_full, retention)
        self._store = store

    async def _call(self, call: Call | None) -> Answer:
        if call is None:
            return _NOTHING
        try:
            return await self._store._sessions(call[0], call[1], self._options, call[2])
        except ExistsError as error:
            _explain(error)
            raise

    async def create(
        self,
        *,
        token_hash: str,
        user_id: Any,
        created_at: datetime,
        updated_at: datetime,
        expires_at: datetime,
        client_id: str | None = None,
        client_name: str | None = None,
        user_agent: str | None = None,
        ip: str | None = None,
        last_active_at: datetime | None = None,
        epoch: int | None = None,
    ) -> Session:
        """As `counterfoil.SessionStorage.create`."""
        return _made(
            await self._call(
                self._create(
                    user_id,
                    epoch,
                    {"created_at": created_at, "updated_at": updated_at, "expires_at": expires_at,
                     "last_active_at": last_active_at},
                    {"token_hash": token_hash, "client_id": client_id, "client_name": client_name,
                     "user_agent": user_agent, "ip": ip},
                )
            )
        )  # fmt: skip

    async def get(self, *, token_hash: str, now: datetime) -> Session | None:
        """The session with this token hash if it is active at `now`, or None."""
        return _one(await self._call(self._get(token_hash, now)))

    async def get_any(self, session_id: Any) -> Session | None:
        """The session with this id, whatever its status, or None."""
        known = id_text(session_id)
        return None if known is None else _one(await self._call(("get_any", {"id": known}, None)))

    async def list_for_user(
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
        return _page(await self._call(self._list(user_id, now, status, order_by, limit, cursor)))

    async def refresh(
        self,
        session_id: Any,
        *,
        updated_at: datetime,
        expires_at: datetime,
        last_active_at: datetime | None = None,
    ) -> Session | None:
        """As `counterfoil.SessionStorage.refresh`."""
        return _one(await self._call(self._refresh(session_id, updated_at, expires_at, last_active_at)))

    async def revoke(self, session_id: Any, *, revoked_at: datetime) -> None:
        """Revokes; the first revoked_at stays, and a session that is not there is fine."""
        await self._call(self._revoke(session_id, revoked_at))

    async def revoke_all_for_user(
        self, user_id: Any, *, revoked_at: datetime, except_session_id: Any | None = None
    ) -> int:
        """As `counterfoil.SessionStorage.revoke_all_for_user`."""
        return (await self._call(self._revoke_all(user_id, revoked_at, except_session_id)))[2]

    async def epoch(self, user_id: Any) -> int:
        """As `counterfoil.SessionStorage.epoch`."""
        return (await self._call(("epoch", {"user_id": some_id(user_id, "user_id")}, None)))[2]
