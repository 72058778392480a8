"""SessionStorage, beside what the cases tell."""

import asyncio
import hashlib
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil import SessionStorage
from counterfoil.testing import Stage
from redis_servers import own_prefix
from test_accounts import opened, over_all, target

HOUR = timedelta(hours=1)


@pytest.fixture
def sessions(stage: Stage) -> Iterator[SessionStorage]:
    with counterfoil.open("memory:", stage=stage) as store:
        yield SessionStorage(store)


def make(sessions: Any, token: str, user_id: Any = "ann", **more: Any) -> Any:
    now = datetime.now(UTC)
    fields = {"created_at": now, "updated_at": now, "expires_at": now + HOUR, **more}
    return sessions.create(token_hash=hashlib.sha256(token.encode()).hexdigest(), user_id=user_id, **fields)


def test_a_record(sessions: SessionStorage) -> None:
    at = datetime(2026, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)
    made = sessions.create(
        token_hash="canary", user_id=5, created_at=at, updated_at=at.replace(tzinfo=None), expires_at=at + HOUR,
        client_id="web", client_name="Ann's phone", user_agent="Mozilla", ip="::1", last_active_at=at,
    )  # fmt: skip
    assert (made.user_id, made.token_hash, made.epoch, made.revoked_at) == ("5", "canary", 0, None)
    assert (made.created_at, made.updated_at, made.expires_at, made.last_active_at) == (at, at, at + HOUR, at)
    assert (made.client_id, made.client_name, made.user_agent, made.ip) == ("web", "Ann's phone", "Mozilla", "::1")
    assert made.expires_at.tzinfo is UTC
    assert "canary" not in repr(made)
    assert not hasattr(made, "__dict__")
    with pytest.raises(AttributeError):
        made.id = "x"  # type: ignore[misc]
    assert sessions.get_any(made.id) == made == sessions.get(token_hash="canary", now=at)
    assert sessions.get(token_hash="canary", now=at.replace(tzinfo=None) + HOUR) == made
    assert sessions.get(token_hash="canary", now=at + HOUR + timedelta(microseconds=1)) is None
    with pytest.raises(counterfoil.ExistsError) as caught:
        sessions.create(token_hash="canary", user_id="bob", created_at=at, updated_at=at, expires_at=at)
    assert caught.value.existing == made
    assert "canary" not in str(caught.value)


def test_status_is_by_the_clock(sessions: SessionStorage) -> None:
    now = datetime.now(UTC)
    active, expired, both = make(sessions, "1"), make(sessions, "2", expires_at=now - HOUR), make(sessions, "3")
    sessions.revoke(both.id, revoked_at=now)
    found = [sessions.get_any(each.id) for each in (active, expired, both)]
    assert [each.status for each in found if each] == ["active", "expired", "revoked"]
    assert both.status == "active", "as it was read"


def test_lists(sessions: SessionStorage) -> None:
    now = datetime.now(UTC)
    made = [make(sessions, str(number), updated_at=now + timedelta(microseconds=number % 3)) for number in range(10)]
    for order in ("updated_at_desc", "updated_at_asc", "created_at_desc", "expires_at_asc"):
        seen: list[str] = []
        cursor: str | None = None
        for _ in range(5):
            page = sessions.list_for_user("ann", now=now, order_by=order, limit=3, cursor=cursor)  # type: ignore[arg-type]
            seen += [each.id for each in page.records]
            cursor = page.next_cursor
            if cursor is None:
                break
            assert len(cursor) <= 512
            for other in ("updated_at_desc", "updated_at_asc", "created_at_asc"):
                if other != order:
                    with pytest.raises(counterfoil.InvalidCursorError):
                        sessions.list_for_user("ann", now=now, order_by=other, cursor=cursor)  # type: ignore[arg-type]
        assert cursor is None
        assert sorted(seen) == sorted(each.id for each in made)
    by_time = sorted(made, key=lambda each: (each.updated_at, each.id), reverse=True)
    assert [each.id for each in sessions.list_for_user("ann", now=now).records] == [each.id for each in by_time]
    assert sessions.list_for_user("nobody", now=now).records == []
    assert sessions.list_for_user("ann", now=now, limit=10).next_cursor is None
    for cursor in ("", "x", "0.1.x", "\ud800", "0." + "9" * 500, "0.1." + "g" * 32, "-1"):
        with pytest.raises(counterfoil.InvalidCursorError) as caught:
            sessions.list_for_user("ann", now=now, cursor=cursor)
        assert isinstance(caught.value, ValueError)
        assert caught.value.code == "CURSOR"


def test_wrong_arguments(sessions: SessionStorage) -> None:
    now = datetime.now(UTC)
    one = make(sessions, "1")
    wrong: list[dict[str, Any]] = [
        {"limit": 0}, {"limit": -1}, {"limit": True}, {"limit": 1.5}, {"limit": 10_001}, {"order_by": "id"},
        {"order_by": None}, {"order_by": []}, {"status": "gone"}, {"status": []}, {"cursor": 5}, {"now": None},
        {"now": 5},
    ]  # fmt: skip
    for each in wrong:
        with pytest.raises(ValueError):  # noqa: PT011  # of ours, all of them
            sessions.list_for_user("ann", **{"now": now, **each})
    for user in (None, True, b"x", object(), "\ud800"):
        for call in (
            lambda user=user: sessions.list_for_user(user, now=now),
            lambda user=user: sessions.revoke_all_for_user(user, revoked_at=now),
            lambda user=user: sessions.epoch(user),
            lambda user=user: make(sessions, "2", user),
        ):
            with pytest.raises(counterfoil.InvalidError):
                call()
    for nobody in (None, 5, uuid.UUID(int=5), "x", "", b"x", True, object(), "\ud800", one.id.upper() + "x", 10**5000):
        assert sessions.get_any(nobody) is None
        assert sessions.refresh(nobody, updated_at=now, expires_at=now) is None
        assert sessions.revoke(nobody, revoked_at=now) is None
        assert sessions.revoke_all_for_user("bob", revoked_at=now, except_session_id=nobody) == 0
    assert sessions.get(token_hash="\ud800", now=now) is None
    for instant in (None, 5, "now", now.date()):
        with pytest.raises(counterfoil.InvalidError):
            sessions.refresh(one.id, updated_at=instant, expires_at=now)  # type: ignore[arg-type]
        with pytest.raises(counterfoil.InvalidError):
            sessions.revoke(one.id, revoked_at=instant)  # type: ignore[arg-type]
        with pytest.raises(counterfoil.InvalidError):
            sessions.get(token_hash=one.token_hash, now=instant)  # type: ignore[arg-type]
    for epoch in (-1, True, "0", 2**53, 1.0):
        with pytest.raises(counterfoil.InvalidError):
            make(sessions, "2", epoch=epoch)
    assert sessions.get_any(one.id) == one
    assert [each.id for each in sessions.list_for_user("ann", now=now).records] == [one.id]


def test_options() -> None:
    with counterfoil.open("memory:") as store:
        for options in (
            {"max_sessions": 0}, {"max_sessions": 10_001}, {"max_sessions": True}, {"when_full": "drop"},
            {"when_full": None}, {"retention": 0}, {"retention": -1}, {"retention": True}, {"retention": 1e12},
        ):  # fmt: skip
            with pytest.raises(counterfoil.InvalidError):
                SessionStorage(store, **options)  # type: ignore[arg-type]
        small = SessionStorage(store, max_sessions=1, when_full="refuse")
        make(small, "1")
        with pytest.raises(counterfoil.LimitError):
            make(small, "2")
        two = make(SessionStorage(store, max_sessions=1), "2")
        assert [each.id for each in small.list_for_user("ann", now=datetime.now(UTC)).records] == [two.id]


@over_all
def test_revoking_while_others_sign_in_and_refresh(kind: str, tmp_path: Path) -> None:
    """Nothing that was under way when all sessions were revoked is active after it."""
    with opened(kind, tmp_path) as store:
        sessions = SessionStorage(store)
        ids = [make(sessions, f"old {number}").id for number in range(20)]
        revoked = threading.Event()
        after: list[str] = []
        changed: list[bool] = []

        def sign_in(worker: int) -> None:
            for number in range(20):
                late = revoked.is_set()
                epoch = sessions.epoch("ann")
                try:
                    made = make(sessions, f"{worker} {number}", epoch=epoch)
                except counterfoil.ChangedError as error:
                    assert (error.code, error.outcome) == ("CHANGED", "not_applied")
                    changed.append(True)
                else:
                    if late:
                        after.append(made.id)
                        assert made.epoch == epoch == 1

        def refresh() -> None:
            for each in ids:
                now = datetime.now(UTC)
                sessions.refresh(each, updated_at=now, expires_at=now + HOUR)

        threads = [threading.Thread(target=sign_in, args=(worker,)) for worker in range(3)]
        threads.append(threading.Thread(target=refresh))
        for thread in threads:
            thread.start()
        count = sessions.revoke_all_for_user("ann", revoked_at=datetime.now(UTC))
        revoked.set()
        for thread in threads:
            thread.join(60)
        assert count >= 20
        assert sessions.epoch("ann") == 1
        page = sessions.list_for_user("ann", now=datetime.now(UTC), status="active", limit=100)
        assert all(each.epoch == 1 for each in page.records)
        assert {each.id for each in page.records} >= set(after)
        assert not {each.id for each in page.records} & set(ids)


@over_all
def test_asyncio(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open(target(kind, tmp_path), prefix=own_prefix()) as store:
            sessions = counterfoil.aio.SessionStorage(store, max_sessions=5)
            made = await asyncio.gather(*(make(sessions, str(number)) for number in range(5)))
            now = datetime.now(UTC)
            first = made[0]
            assert await sessions.get(token_hash=first.token_hash, now=now) == first
            assert await sessions.get_any(first.id) == first
            assert await sessions.get_any(None) is None
            page = await sessions.list_for_user("ann", now=now, limit=2)
            assert len(page.records) == 2
            rest = await sessions.list_for_user("ann", now=now, cursor=page.next_cursor)
            assert {each.id for each in (*page.records, *rest.records)} == {each.id for each in made}
            with pytest.raises(counterfoil.InvalidCursorError):
                await sessions.list_for_user("ann", now=now, cursor="x")
            with pytest.raises(counterfoil.ExistsError) as taken:
                await make(sessions, "0")
            assert taken.value.existing == first
            newer = await sessions.refresh(first.id, updated_at=now, expires_at=now + 2 * HOUR)
            assert newer is not None
            assert (newer.expires_at, newer.last_active_at) == (now + 2 * HOUR, None)
            await sessions.revoke(first.id, revoked_at=now)
            await sessions.revoke(first.id, revoked_at=now + HOUR)
            gone = await sessions.get_any(first.id)
            assert gone is not None
            assert gone.revoked_at == now
            assert await sessions.refresh(first.id, updated_at=now, expires_at=now + HOUR) is None
            epoch = await sessions.epoch("ann")
            assert await sessions.revoke_all_for_user("ann", revoked_at=now, except_session_id=made[1].id) == 3
            with pytest.raises(counterfoil.ChangedError):
                await make(sessions, "new", epoch=epoch)
            assert (await make(sessions, "new", epoch=epoch + 1)).epoch == epoch + 1

    asyncio.run(main())


def test_they_go_with_their_user() -> None:
    with counterfoil.open("memory:") as store:
        accounts, sessions = counterfoil.AccountsStorage(store), SessionStorage(store)
        ann = accounts.create_user(user_info={})
        one = make(sessions, "1", ann.id)
        epoch = sessions.epoch(ann.id)
        assert accounts.delete_user(ann.id) is True
        assert sessions.get_any(one.id) is None
        with pytest.raises(counterfoil.ChangedError):
            make(sessions, "2", ann.id, epoch=epoch)


def test_what_a_key_operation_sees() -> None:
    with counterfoil.open("memory:") as store:
        sessions = SessionStorage(store)
        one = make(sessions, "1")
        assert list(store.scan()) == []
        assert store.count() == 0
        store.clear(force=True)
        assert sessions.get_any(one.id) == one


def test_the_first_instant_that_there_is_can_be_asked_about() -> None:
    """It is not taken for "now"."""
    with counterfoil.open("memory:") as store:
        sessions = SessionStorage(store)
        start = datetime(1970, 1, 1, tzinfo=UTC)
        made = sessions.create(
            token_hash="h", user_id="u", created_at=start, updated_at=start, expires_at=start + timedelta(days=1)
        )
        assert sessions.get(token_hash="h", now=start) == made
        assert sessions.list_for_user("u", now=start, status="active").records == [made]
        assert sessions.list_for_user("u", now=start, status="expired").records == []


def test_what_is_missing_is_named(sessions: SessionStorage) -> None:
    at: Any = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(counterfoil.InvalidError, match=r"^updated_at of a session is missing$"):
        sessions.create(token_hash="h", user_id="u", created_at=at, updated_at=None, expires_at=at)  # type: ignore[arg-type]
    with pytest.raises(counterfoil.InvalidError, match=r"^revoked_at of a session is missing$"):
        sessions.revoke("0" * 32, revoked_at=None)  # type: ignore[arg-type]
