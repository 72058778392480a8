"""The rules of session records: Cross Auth's SessionStorage, and `counterfoil.SessionStorage`, of which more is
asked."""

from datetime import UTC, datetime, timedelta
from typing import Any

from .keyed import broken
from .rules import rule
from .trial import Ask, NotApplicable, Trial

CROSS = "Cross Auth 0.22.2, cross_auth/_storage.py, SessionStorage"
STATUS = "Cross Auth 0.22.2, cross_auth/_storage.py, session_status"
SQLMODEL = "Cross Auth 0.22.2, cross_auth/storage/sqlmodel.py, SQLModelSessionStorage"
OURS = "counterfoil.SessionStorage, its docstring"

METHODS = ("create", "get", "get_any", "list_for_user", "refresh", "revoke", "revoke_all_for_user")
ORDERS = [f"{name}_{way}" for name in ("updated_at", "created_at", "expires_at") for way in ("desc", "asc")]
TICK = timedelta(microseconds=1)


def ours(t: Trial) -> None:
    if not t.is_ours:
        raise NotApplicable("this is a rule of counterfoil.SessionStorage, and it is another's")


def start(t: Trial) -> datetime:
    """Some instant from which the lives of a check are counted: now, since a store may drop what is long over."""
    now: datetime = t.known.setdefault("now", datetime.now(UTC).replace(microsecond=123456))
    return now


def create(t: Trial, token: str, user: str, *, life: timedelta = timedelta(hours=1), **more: Any) -> Any:
    now = start(t)
    named = {"created_at": now, "updated_at": now, "expires_at": now + life, **more}
    return t.call("create", token_hash=token, user_id=user, **named)


def get(t: Trial, token: str, after: timedelta = timedelta(0)) -> Any:
    return t.call("get", token_hash=token, now=start(t) + after)


def refreshing(t: Trial, id: Any, of: Any = None, **more: Any) -> Ask:
    later = start(t) + timedelta(minutes=5)
    return Ask("refresh", (id,), {"updated_at": later, "expires_at": later + timedelta(hours=1), **more}, of)


def revoke(t: Trial, id: Any, after: timedelta = timedelta(0)) -> None:
    t.call("revoke", id, revoked_at=start(t) + after)


def listed(t: Trial, user: str, **how: Any) -> Any:
    return t.call("list_for_user", user, now=how.pop("now", start(t)), **how)


def places(t: Trial) -> list[Any]:
    """The storage, and another one that has the same data."""
    if t.known.get("shares") is False:
        return [t.thing]
    twin = t.twin()
    if twin is not None:
        made = create(t, t.key(), t.key("user"))
        t.known["shares"] = t.ask(Ask("get_any", (made.id,), of=twin)) is not None
    else:
        t.known["shares"] = False
    return [t.thing, twin] if t.known["shares"] else [t.thing]


@rule(
    "shape.methods",
    "It has the methods of a SessionStorage.",
    "Cross Auth calls them.",
    sessions=CROSS,
)
def shape(t: Trial) -> None:
    missing = [name for name in METHODS if not t.has(name)]
    t.expect(not missing, f"it has no method {', '.join(missing)}")


@rule(
    "session.round_trip",
    "create gives the session, and get and get_any find it, with every field; instants are aware.",
    "Who has logged in would not be.",
    sessions=CROSS + ", SessionRecord",
)
def round_trip(t: Trial) -> None:
    token, user, now = t.key("hash"), t.key("user"), start(t)
    said: dict[str, Any] = {"client_id": "app", "client_name": "Áp", "user_agent": "Mozilla/5.0 (é)", "ip": "::1"}
    said["last_active_at"] = now
    made = create(t, token, user, **said)
    wanted = {**said, "created_at": now, "updated_at": now, "expires_at": now + timedelta(hours=1), "revoked_at": None}
    for name, found in (("create", made), ("get", get(t, token)), ("get_any", t.call("get_any", made.id))):
        t.expect(found is not None, f"{name} gave none")
        t.expect((found.id, str(found.user_id)) == (made.id, user), f"{name} gave another session")
        wrong = [field for field, value in wanted.items() if getattr(found, field, ...) != value]
        t.expect(not wrong, f"{name} gave another {', '.join(wrong)}")
        t.expect(found.status == "active", f"{name} gave the status {found.status}")


@rule(
    "session.miss",
    "A session that is not there is None, whatever the id looks like.",
    "Ids come out of requests: a made-up one would be a server error.",
    sessions=CROSS + ".get_any -> SessionRecord | None; " + SQLMODEL + ": ids that cannot match are None",
)
def miss(t: Trial) -> None:
    t.expect(get(t, t.key("hash")) is None, "a hash that no session has found one")
    for id in ("0", "999999999", "nonsense", "9" * 40, ""):
        t.expect(t.call("get_any", id) is None, "an id that no session has found one")


@rule(
    "session.token_unique",
    "A second session with the same token hash is refused.",
    "One cookie would be two sessions: to revoke one leaves the other.",
    sessions=OURS,
)
def token_unique(t: Trial) -> None:
    ours(t)
    token, user = t.key("hash"), t.key("user")
    create(t, token, user)
    now = start(t)
    again = {"token_hash": token, "user_id": user, "created_at": now, "updated_at": now, "expires_at": now}
    t.refused(Exception, Ask("create", (), again), "a second create with the same token hash")


@rule(
    "session.exact_end",
    "get finds a session up to and including the instant of its expires_at, and not a microsecond later.",
    "The cookie and the list of sessions would disagree with it.",
    sessions=STATUS + ': "up to and including the exact expiry instant"',
)
def exact_end(t: Trial) -> None:
    token = t.key("hash")
    create(t, token, t.key("user"))
    t.expect(get(t, token, timedelta(hours=1)) is not None, "at its expires_at it was not there")
    t.expect(get(t, token, timedelta(hours=1) + TICK) is None, "a microsecond after its expires_at it was there")


@rule(
    "session.any_status",
    "get_any gives a session whatever its status: expired and revoked ones too.",
    "A user could not see where he was logged in.",
    sessions=CROSS + ".get_any; " + SQLMODEL,
)
def any_status(t: Trial) -> None:
    user = t.key("user")
    over = create(t, t.key("hash"), user, life=-timedelta(minutes=5))
    revoked = create(t, t.key("hash"), user)
    revoke(t, revoked.id)
    found = t.call("get_any", over.id)
    t.expect(found is not None and found.status == "expired", "an expired session was not there as expired")
    found = t.call("get_any", revoked.id)
    t.expect(found is not None and found.status == "revoked", "a revoked session was not there as revoked")


@rule(
    "refresh.moves",
    "refresh moves updated_at and expires_at; last_active_at moves if it is given, and else stays.",
    "Who uses the application would be logged out.",
    sessions=CROSS + ".refresh",
)
def refresh_moves(t: Trial) -> None:
    token, now = t.key("hash"), start(t)
    made = create(t, token, t.key("user"), last_active_at=now)
    given = t.ask(refreshing(t, made.id))
    later = now + timedelta(minutes=5)
    wanted = {"updated_at": later, "expires_at": later + timedelta(hours=1), "last_active_at": now, "created_at": now}
    for name, found in (("refresh", given), ("get after it", get(t, token, timedelta(hours=1, minutes=2)))):
        t.expect(found is not None, f"{name} gave none")
        wrong = [field for field, value in wanted.items() if getattr(found, field, ...) != value]
        t.expect(not wrong, f"{name} gave another {', '.join(wrong)}")
    given = t.ask(refreshing(t, made.id, last_active_at=later))
    t.expect(given.last_active_at == later, "refresh with last_active_at gave another one")


@rule(
    "refresh.missing",
    "refresh of a session that is not there gives None, and makes none.",
    "Core takes None as no session; anything else logs a stranger in.",
    sessions=CROSS + ".refresh -> SessionRecord | None; cross_auth/_session.py",
)
def refresh_missing(t: Trial) -> None:
    for id in ("999999999", "nonsense"):
        t.expect(t.ask(refreshing(t, id)) is None, "refresh of none gave something")


@rule(
    "revoke.ends",
    "A revoked session is not found by get; the first revoked_at stays; one that is not there is fine.",
    "Who has logged out would not be, or the log of it be wrong.",
    sessions=STATUS + "; " + SQLMODEL + ".revoke",
)
def revoke_ends(t: Trial) -> None:
    token, other, user = t.key("hash"), t.key("hash"), t.key("user")
    made = create(t, token, user)
    create(t, other, user)
    revoke(t, made.id, timedelta(minutes=1))
    t.expect(get(t, token) is None, "it was still found")
    t.expect(get(t, other) is not None, "another session of the user was gone too")
    revoke(t, made.id, timedelta(minutes=2))
    found = t.call("get_any", made.id)
    t.expect(found.revoked_at == start(t) + timedelta(minutes=1), "the second revoke has changed revoked_at")
    revoke(t, "999999999")
    revoke(t, "nonsense")


@rule(
    "revoke.refused_refresh",
    "refresh of a revoked session gives None, and changes nothing.",
    "The flow would go on as if it were active.",
    sessions=OURS + ", refresh",
)
def revoke_refresh(t: Trial) -> None:
    ours(t)
    made = create(t, t.key("hash"), t.key("user"))
    revoke(t, made.id)
    t.expect(t.ask(refreshing(t, made.id)) is None, "refresh gave a session")
    t.expect(t.call("get_any", made.id).updated_at == start(t), "refresh has changed it")


@rule(
    "revoke.no_resurrection",
    "When a refresh and a revoke of one session have both ended, whichever was first, it is revoked.",
    "A request slower than the logout would log the user in again.",
    sessions=STATUS + ": revoked comes first; its routes run in a pool of threads",
)
def revoke_resurrection(t: Trial) -> None:
    where = places(t)
    for number in t.rounds():
        token = t.key("hash")
        made = create(t, token, t.key("user"))
        asks = [refreshing(t, made.id, where[each % len(where)]) for each in range(t.settings.contenders - 1)]
        got = t.race([*asks, Ask("revoke", (made.id,), {"revoked_at": start(t)})])
        t.answers(got[-1:], "revoke beside refreshes")
        t.expect(get(t, token) is None, f"a refresh beside it undid a revoke, in try {number + 1}")


@rule(
    "revoke_all.counts",
    "revoke_all_for_user revokes all sessions of the user but the one that is excepted, and says how many; those that "
    "were revoked before do not count, expired ones do.",
    '"Log out everywhere" would leave somebody in, or log another user out.',
    sessions=CROSS + ".revoke_all_for_user; " + SQLMODEL,
)
def revoke_all(t: Trial) -> None:
    t.needs("revoke_all_for_user")
    user, other = t.key("user"), t.key("user")
    tokens = [t.key("hash") for _ in range(3)]
    made = [create(t, token, user) for token in tokens]
    create(t, t.key("hash"), user, life=-timedelta(minutes=5))
    before = create(t, t.key("hash"), user)
    revoke(t, before.id)
    apart = t.key("hash")
    create(t, apart, other)
    number = t.call("revoke_all_for_user", user, revoked_at=start(t), except_session_id=made[0].id)
    t.expect(get(t, tokens[0]) is not None, "the one that is excepted was revoked")
    t.expect(get(t, tokens[1]) is None and get(t, tokens[2]) is None, "a session of the user was still there")
    t.expect(get(t, apart) is not None, "a session of another user was revoked")
    t.expect(number == 3, f"of 2 active, 1 expired and 1 revoked session it said {number}")
    number = t.call("revoke_all_for_user", user, revoked_at=start(t))
    t.expect(number == 1 and get(t, tokens[0]) is None, "without an exception one was left")


@rule(
    "revoke_all.no_resurrection",
    "When refreshes and a revoke_all_for_user have ended, whichever was first, no session of the user is active.",
    '"Log out everywhere" would leave somebody in.',
    sessions=STATUS + ": revoked comes first; its routes run in a pool of threads",
)
def revoke_all_resurrection(t: Trial) -> None:
    t.needs("revoke_all_for_user")
    where = places(t)
    for number in t.rounds():
        user, tokens = t.key("user"), [t.key("hash") for _ in range(3)]
        made = [create(t, token, user) for token in tokens]
        asks = [refreshing(t, each.id, where[at % len(where)]) for at, each in enumerate(made)]
        got = t.race([*asks, Ask("revoke_all_for_user", (user,), {"revoked_at": start(t)})])
        t.answers(got[-1:], "revoke_all_for_user beside refreshes")
        left = sum(get(t, token) is not None for token in tokens)
        t.expect(not left, f"{left} of {len(tokens)} sessions were active, in try {number + 1}")


@rule(
    "list.pages",
    "Page by page list_for_user gives every session of the user once, in its order, equals by id; next_cursor is None "
    "at the end.",
    "A session that is in no list cannot be ended.",
    sessions=CROSS + ".list_for_user, SessionListOrder; " + SQLMODEL,
)
def list_pages(t: Trial) -> None:
    user, now = t.key("user"), start(t)
    made = []
    for number in range(5):
        at = now - timedelta(minutes=number // 2)  # some at the same instant
        life = timedelta(hours=1 + number % 2)
        token = t.key("hash")
        made.append(create(t, token, user, created_at=at, updated_at=at, expires_at=at + life))
    create(t, t.key("hash"), t.key("user"))
    for order in ORDERS:
        found: list[Any] = []
        cursor = None
        for _ in range(5):
            page = listed(t, user, order_by=order, limit=2, cursor=cursor)
            found.extend(page.records)
            cursor = page.next_cursor
            if cursor is None:
                break
        t.expect(cursor is None, f"5 sessions had no end, two at a time, by {order}")
        ids = [each.id for each in found]
        right = sorted(map(str, ids)) == sorted(str(each.id) for each in made)
        t.expect(right, f"of 5 sessions {len(set(ids))} came, in {len(ids)} records, by {order}")
        instants = [getattr(each, order.rpartition("_")[0]) for each in found]
        t.expect(instants == sorted(instants, reverse=order.endswith("desc")), f"they were not in the order {order}")
    first = listed(t, user).records
    wanted = [each.updated_at for each in made]
    t.expect([each.updated_at for each in first] == wanted, "without order_by they were not in updated_at_desc")


@rule(
    "list.status",
    "list_for_user gives those with the status that is asked for: revoked, else expired after expires_at, else active.",
    "A user would be told that a session has ended that has not.",
    sessions=STATUS,
)
def list_status(t: Trial) -> None:
    user = t.key("user")
    active = create(t, t.key("hash"), user)
    over = create(t, t.key("hash"), user, life=-timedelta(minutes=5))
    revoked = [create(t, t.key("hash"), user, life=life) for life in (timedelta(hours=1), -timedelta(minutes=5))]
    for each in revoked:
        revoke(t, each.id)
    edge = create(t, t.key("hash"), user, life=timedelta(0))
    for status, wanted in (("active", [active, edge]), ("expired", [over]), ("revoked", revoked), (None, None)):
        found = {each.id for each in listed(t, user, status=status).records}
        right = len(found) == 5 if wanted is None else found == {each.id for each in wanted}
        t.expect(right, f"with status={status} it gave {len(found)} sessions, and not the right ones")


@rule(
    "list.refuses",
    "list_for_user refuses a limit below 1, an unknown order, and a cursor that is none of it, with a ValueError.",
    "Cursors come out of requests: a made-up one would be a server error, or a page of another list.",
    sessions=SQLMODEL + ".list_for_user; cross_auth/exceptions.py, InvalidCursorError",
)
def list_refuses(t: Trial) -> None:
    user, now = t.key("user"), start(t)
    for _ in range(3):
        create(t, t.key("hash"), user)

    def refused(seen: str, **how: Any) -> None:
        t.refused(ValueError, Ask("list_for_user", (user,), {"now": now, **how}), seen)

    for limit in (0, -1):
        refused(f"limit={limit}", limit=limit)
    refused("an order that there is not", order_by="token_hash_asc")
    for cursor in ("x", "bm9uc2Vuc2U=", "[" * 1500, "é"):
        refused("a cursor that is none", cursor=cursor)
    cursor = listed(t, user, limit=1, order_by="created_at_asc").next_cursor
    t.expect(cursor is not None, "one of three sessions had no next_cursor")
    refused("a cursor of another order", cursor=cursor, order_by="created_at_desc")


@rule(
    "fault.rejects",
    "While the data cannot be reached, get raises: it does not say None.",
    "An outage would log everybody out.",
    sessions=CROSS + ".get: None is for a session that is not active",
)
def fault(t: Trial) -> None:
    token = t.key("hash")
    create(t, token, t.key("user"))
    with broken(t):
        t.refused(Exception, Ask("get", (), {"token_hash": token, "now": start(t)}), "get")
