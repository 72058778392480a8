"""SessionStorage beside the one that Cross Auth brings for SQLModel: the same random calls, the same answers."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import counterfoil
import pytest
from counterfoil.adapters.cross_auth import SessionStorage
from cross_auth._storage import session_status
from cross_auth.storage.sqlmodel import SQLModelSessionStorage
from redis_servers import own_prefix
from sqlalchemy.pool import StaticPool
from sqlmodel import Field, Session, SQLModel, create_engine
from support import PLACES, url_of

ORDERS = [f"{name}_{way}" for name in ("updated_at", "created_at", "expires_at") for way in ("desc", "asc")]
FIELDS = (
    "token_hash", "user_id", "created_at", "updated_at", "expires_at", "last_active_at", "revoked_at", "client_id",
    "user_agent",
)  # fmt: skip
STEPS = 400


class Row(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    token_hash: str = Field(unique=True)
    user_id: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    last_active_at: datetime | None = None
    revoked_at: datetime | None = None
    client_id: str | None = None
    client_name: str | None = None
    user_agent: str | None = None
    ip: str | None = None

    @property
    def status(self) -> Any:
        return session_status(self)


def shown(answer: Any) -> Any:
    """Without ids, which are the storage's own."""
    if answer is None or isinstance(answer, int):
        return answer
    values = (getattr(answer, name) for name in FIELDS)
    return tuple(each.astimezone(UTC) if isinstance(each, datetime) else each and str(each) for each in values)


def said(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ValueError:
        return "ValueError"


def every_page(storage: Any, user_id: object, order_by: str, **how: Any) -> Any:
    """How many pages, and their records: where two have the same instant their order is that of the ids."""
    records: list[Any] = []
    pages, cursor = 0, None
    while pages == 0 or cursor is not None:
        page = storage.list_for_user(user_id, order_by=order_by, cursor=cursor, **how)
        records.extend(page.records)
        pages, cursor = pages + 1, page.next_cursor
    instants = [getattr(record, order_by.rpartition("_")[0]).astimezone(UTC) for record in records]
    assert instants == sorted(instants, reverse=order_by.endswith("desc"))
    return pages, sorted(map(shown, records), key=str)


@pytest.mark.parametrize("place", PLACES)
def test_the_same_calls_have_the_same_answers(place: str) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    dice = random.Random(seed)
    engine = create_engine("sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool)
    SQLModel.metadata.create_all(engine)
    theirs = SQLModelSessionStorage(Row, session_factory=lambda: Session(engine))
    ids: dict[Any, Any] = {10**6: "nobody"}  # theirs: ours

    def at() -> datetime:
        some = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(microseconds=dice.randrange(12))
        zone = dice.choice([UTC, timezone(timedelta(hours=3)), None])
        return some.astimezone(zone) if zone else some.replace(tzinfo=None)

    with counterfoil.open(url_of(place), prefix=own_prefix()) as store:
        ours = SessionStorage(store, max_sessions=10_000)
        for step in range(STEPS):
            what = dice.choice(["create", "create", "create", "get", "any", "list", "list", "refresh", "revoke", "all"])
            user, one = dice.choice(["u", "v", 7]), dice.choice(list(ids))
            call: Callable[[Any, Any], Any]
            if what == "create":
                fields = {
                    "token_hash": f"t{step}", "user_id": user, "created_at": at(), "updated_at": at(),
                    "expires_at": at(), "last_active_at": dice.choice([None, at()]),
                    "client_id": dice.choice([None, "c", ""]), "user_agent": dice.choice([None, "é"]),
                }  # fmt: skip
                a, b = theirs.create(**fields), ours.create(**fields)
                ids[a.id] = b.id
                assert shown(a) == shown(b)
                continue
            now, later, last = at(), at(), dice.choice([None, at()])
            if what == "get":
                token = f"t{dice.randrange(step + 1)}"
                call = lambda storage, id: shown(storage.get(token_hash=token, now=now))  # noqa: E731, B023
            elif what == "any":
                call = lambda storage, id: shown(storage.get_any(id))  # noqa: E731
            elif what == "list":
                order, status = dice.choice(ORDERS), dice.choice([None, "active", "expired", "revoked"])
                limit = dice.choice([0, 1, 2, 5, 50])
                call = lambda storage, id: every_page(storage, user, order, now=now, status=status, limit=limit)  # noqa: E731, B023
            elif what == "refresh":
                found = ours.get_any(ids[one])
                if found is not None and found.revoked_at is not None:
                    continue  # theirs refreshes it
                call = lambda storage, id: shown(  # noqa: E731
                    storage.refresh(id, updated_at=now, expires_at=later, last_active_at=last)  # noqa: B023
                )
            elif what == "revoke":
                call = lambda storage, id: storage.revoke(id, revoked_at=now)  # noqa: E731, B023
            else:
                call = lambda storage, id: storage.revoke_all_for_user(user, revoked_at=now, except_session_id=id)  # noqa: E731, B023
            wanted, given = said(lambda: call(theirs, one)), said(lambda: call(ours, ids[one]))  # noqa: B023
            assert given == wanted, (step, what)
