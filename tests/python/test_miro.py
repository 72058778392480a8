"""The adapter for Miro under Miro's own client, whose token endpoint is on this machine; several processes on one
store; a holder that is killed, and one that is late."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import counterfoil
import pytest
from counterfoil.adapters.miro import Lease, MiroStorage, State, single_flight
from miro_endpoint import client, endpoint
from redis_servers import own_prefix
from support import PLACES, SHARED, Bare, Full, run_python, url_of

PAST = datetime(2020, 1, 1)
FUTURE = datetime(2999, 7, 1, 12, 30, 15, 123456)
EXPIRED = State("access-0", "refresh-0", PAST)
FRESH = State("a", "r", FUTURE)


@dataclass
class Place:
    url: str
    prefix: str
    store: counterfoil.Store
    other: counterfoil.Store


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A store, and another on the same data, as another process would have it."""
    prefix, url = own_prefix(), url_of(request.param)
    with counterfoil.open(url, prefix=prefix) as store, counterfoil.open(url, prefix=prefix) as other:
        yield Place(url, prefix, store, other)


shared = pytest.mark.parametrize("place", SHARED, indirect=True)


def same(state: Any, other: State) -> None:
    from miro_api.storage import State as Theirs

    assert type(state) is Theirs
    assert vars(state) == vars(other)


def test_states_come_back(place: Place) -> None:
    from miro_api.storage import Storage

    storage, other = MiroStorage(place.store, 1), MiroStorage(place.other, "1")
    assert isinstance(storage, Storage)
    assert storage.get() is None
    for state in (FRESH, State("a", None, None), State("a", "", datetime(2026, 10, 25, 2, 30, fold=1))):
        storage.set(state)
        same(other.get(), state)
    storage.set(State("a", None, datetime(2999, 1, 1, tzinfo=UTC)))
    assert other.get().token_expires_at == datetime(2999, 1, 1, tzinfo=UTC).astimezone().replace(tzinfo=None)
    storage.set(State("a", None, None))
    assert place.store.get("miro:1") == '{"accessToken":"a"}', "Node's client knows no null"
    storage.set(None)
    assert other.get() is None
    for wrong in ("text", "5", "[]", '{"accessToken":5}', '{"tokenExpiresAt":5}', '{"tokenExpiresAt":"soon"}'):
        place.store.set("miro:1", wrong)
        with pytest.raises(counterfoil.CorruptError) as caught:
            storage.get()
        assert "soon" not in str(caught.value)
        assert caught.value.__context__ is None, "which might quote it"


def test_what_node_has_written(place: Place) -> None:
    text = '{"userId":"m","accessToken":"a","refreshToken":"r","tokenExpiresAt":"2020-01-01T00:00:00.000Z"}'
    place.store.set("miro:7", text)
    storage = MiroStorage(place.store, 7)
    then = datetime(2020, 1, 1, tzinfo=UTC).astimezone().replace(tzinfo=None)
    same(storage.get(), State("a", "r", then))
    storage.refresh_once(lambda old: State("b", "s", datetime(2999, 1, 1, tzinfo=UTC)))
    assert json.loads(place.store.get("miro:7") or "") == {
        "userId": "m", "accessToken": "b", "refreshToken": "s", "tokenExpiresAt": "2999-01-01T00:00:00Z"
    }  # fmt: skip
    # What stands beside it has the same names there.
    assert place.store.get("miro:7:counterfoil-fence") == "1"
    assert len(place.store.get("miro:7:counterfoil-saved") or "") == 64
    assert (storage.with_lock(lambda lease: place.store.get("miro:7:counterfoil-lease")) or "").startswith("2 ")


def test_the_client(place: Place) -> None:
    storage = MiroStorage(place.store, 7)
    with endpoint() as (origin, seen):
        miro = single_flight(client(storage, origin))
        assert single_flight(miro) is miro
        assert not miro.is_authorized
        assert miro.exchange_code_for_access_token("http://localhost/?code=abc") == "access-1"
        assert miro.is_authorized
        state = storage.get()
        assert (state.access_token, state.refresh_token) == ("access-1", "refresh-1")
        # miro_api 2.2.4 forgets it.
        assert abs(state.token_expires_at - datetime.now() - timedelta(seconds=3480)) < timedelta(minutes=1)
        state.token_expires_at = PAST
        storage.set(state)
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda _: miro.access_token, range(3))) == ["access-2"] * 3
        assert (seen.refreshes, seen.exchanges, seen.refused) == (1, 1, 0)
        storage.set(State("access-2", "used", PAST))
        with pytest.raises(KeyError):  # so the client says that it was refused
            miro.access_token  # noqa: B018
        same(storage.get(), State("access-2", "used", PAST))
        storage.set(None)
        with pytest.raises(Exception, match="No access token stored"):
            miro.access_token  # noqa: B018


def test_too_late(place: Place) -> None:
    slow, quick = (MiroStorage(store, 7, lease=0.15) for store in (place.store, place.other))
    slow.set(EXPIRED)
    begun, release = threading.Event(), threading.Event()

    def refresh(old: Any) -> State:
        begun.set()
        assert release.wait(10)
        return State("late", "r", FUTURE)

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow.refresh_once, refresh)
        assert begun.wait(10)
        same(quick.refresh_once(lambda old: FRESH), FRESH)  # once the lease is over
        release.set()
        same(late.result(), FRESH)
    same(quick.get(), FRESH)

    # The same by hand; and the numbers grow.
    def after(lease: Lease) -> int:
        assert lease.save(State("b", None, None))
        assert lease.save(State("c", None, None))
        return lease.fence

    def before(lease: Lease) -> tuple[int, int]:
        same(lease.state, FRESH)
        later = quick.with_lock(after)
        assert not lease.save(State("late", None, None))
        return lease.fence, later

    first, second = slow.with_lock(before)
    assert first < second
    assert slow.get().access_token == "c"


def test_failed_revoked_and_logged_in_meanwhile(place: Place) -> None:
    storage, other = MiroStorage(place.store, 7), MiroStorage(place.other, 7)
    wrong = OSError("refused")

    def but_first(state: State | None, then: State | OSError) -> Any:
        def refresh(old: Any) -> State:
            storage.set(state)
            if isinstance(then, OSError):
                raise then
            return then

        return refresh

    assert storage.refresh_once(lambda old: pytest.fail("there is nothing to refresh")) is None
    storage.set(EXPIRED)
    with pytest.raises(OSError, match="refused") as caught:
        storage.refresh_once(but_first(EXPIRED, wrong))
    assert caught.value is wrong
    # The lease was given back at once.
    assert other.refresh_once(but_first(None, FRESH)) is None
    assert storage.get() is None, "what was revoked stays so"
    login = State("login", "r", FUTURE)
    storage.set(EXPIRED)
    same(other.refresh_once(but_first(login, FRESH)), login)
    storage.set(EXPIRED)
    same(other.refresh_once(but_first(login, wrong)), login)
    with pytest.raises(counterfoil.InvalidTypeError):
        other.refresh_once(lambda old: None, is_fresh=lambda state: False)  # type: ignore[arg-type, return-value]


def test_grace(place: Place) -> None:
    storage, other = MiroStorage(place.store, 7), MiroStorage(place.other, 7)
    asked = 0

    def refresh(old: Any) -> State:  # so short a life that it is over already
        nonlocal asked
        asked += 1
        return State(f"a{asked}", "r", PAST)

    storage.set(EXPIRED)
    assert storage.refresh_once(refresh).access_token == "a1"
    assert other.refresh_once(refresh).access_token == "a1"
    assert other.refresh_once(refresh, is_fresh=lambda state: False).access_token == "a1"
    storage.set(EXPIRED)  # another state is no successor
    assert other.refresh_once(refresh).access_token == "a2"
    short = MiroStorage(place.store, 8, grace=0.05)
    short.set(EXPIRED)
    assert short.refresh_once(refresh).access_token == "a3"
    time.sleep(0.1)
    assert short.refresh_once(refresh).access_token == "a4"
    assert MiroStorage(place.other, 7, grace=0).refresh_once(refresh).access_token == "a5"


def processes(place: Place, origin: str, number: int, calls: int, lease: float) -> subprocess.Popen[str]:
    """So many processes, each ready to make so many calls at once: when their input ends."""
    how = {"url": place.url, "prefix": place.prefix, "origin": origin, "number": number, "calls": calls, "lease": lease}
    command = [sys.executable, str(Path(__file__).with_name("miro_endpoint.py")), json.dumps(how)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    for _ in range(number):
        assert started.stdout.readline() == "ready\n"
    return started


@shared
def test_one_refresh(place: Place) -> None:
    storage = MiroStorage(place.store, 7)
    storage.set(EXPIRED)
    with endpoint(life=60 if place.url.startswith("sqlite") else 3600) as (origin, seen):
        lines = processes(place, origin, number=4, calls=25, lease=15).communicate()[0].splitlines()
        answers = [token for line in lines for token in json.loads(line)]
    assert answers == ["access-1"] * 100
    assert (seen.refreshes, seen.refused) == (1, 0)
    assert storage.get().refresh_token == "refresh-1"


@shared
def test_a_holder_is_killed(place: Place) -> None:
    storage = MiroStorage(place.store, 7, lease=1)
    storage.set(EXPIRED)
    hangs = threading.Event()

    def hang(count: int) -> bool:
        if count == 1:
            hangs.set()
        return count == 1

    with endpoint(hang=hang) as (origin, seen), ThreadPoolExecutor(3) as pool:
        child = processes(place, origin, number=1, calls=3, lease=1.5)
        assert child.stdin is not None
        child.stdin.close()
        assert hangs.wait(10)
        miro = single_flight(client(storage, origin))
        waiting = [pool.submit(lambda: miro.access_token) for _ in range(3)]
        time.sleep(0.1)
        assert seen.refreshes == 1, "while it lives it is waited for"
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert child.stdout is not None
        child.stdout.close()
        assert [future.result() for future in waiting] == ["access-1"] * 3
        assert (seen.refreshes, seen.refused) == (2, 0)


def test_who_waits_for_too_long() -> None:
    with counterfoil.open("memory:") as store:
        storage, other = MiroStorage(store, 7), MiroStorage(store, "7", wait=0.1)
        storage.set(EXPIRED)

        def held(lease: Lease) -> None:
            with pytest.raises(counterfoil.DeadlineError):
                other.with_lock(lambda lease: pytest.fail("it is held"))
            with pytest.raises(counterfoil.DeadlineError):
                other.refresh_once(lambda old: pytest.fail("it is held"))

        storage.with_lock(held)
        assert other.with_lock(lambda lease: "ours") == "ours"


def test_the_answer_to_the_save_is_lost() -> None:
    class Lossy(Full):
        failures = 0

        def set_if(self, key: str, *rest: Any) -> Any:
            stored = super().set_if(key, *rest)
            if key == "miro:7" and self.failures > 0:
                self.failures -= 1
                raise counterfoil.DeadlineError("lost")
            return stored

    backend = Lossy()
    with counterfoil.open(backend) as store:
        storage = MiroStorage(store, 7)
        storage.set(EXPIRED)
        backend.failures = 1
        same(storage.refresh_once(lambda old: FRESH), FRESH)
        backend.failures = 1
        assert storage.with_lock(lambda lease: lease.save(State("b", None, None))), "it is there"
        storage.set(EXPIRED)
        backend.failures = 100
        with pytest.raises(counterfoil.DeadlineError, match="lost"):
            storage.refresh_once(lambda old: State("x", "r", FUTURE))


def test_where_values_are_sealed() -> None:
    with counterfoil.open("memory:", seal_values=True, hash_keys=True, keys={1: bytes(32)}) as store:
        storage = MiroStorage(store, 7)
        storage.set(EXPIRED)
        same(storage.get(), EXPIRED)
        for _ in range(2):  # at once, also the second time
            with pytest.raises(counterfoil.NotSupportedError):
                storage.refresh_once(lambda old: FRESH)


def test_without_counters() -> None:
    with counterfoil.open(Bare()) as store:
        storage = MiroStorage(store, 7)
        storage.set(EXPIRED)
        same(storage.get(), EXPIRED)
        for _ in range(2):  # at once, also the second time
            with pytest.raises(counterfoil.NotSupportedError):
                storage.refresh_once(lambda old: FRESH)


def test_without_the_client() -> None:
    run_python("""
        import sys
        sys.modules["miro_api"] = None
        import counterfoil
        from counterfoil.adapters.miro import MiroStorage, State
        storage = MiroStorage(counterfoil.open("memory:"), 7)
        storage.set(State("a", None, None))
        assert type(storage.get()) is State
    """)


def test_a_failed_set_raises() -> None:
    class Broken(Full):
        def set(self, key: str, value: Any, ttl: Any) -> Any:
            raise OSError("the disk is full")

    with counterfoil.open(Broken()) as store, endpoint() as (origin, _):
        for miro in (client(MiroStorage(store, 7), origin), single_flight(client(MiroStorage(store, 7), origin))):
            with pytest.raises(OSError, match="full"):
                miro.exchange_code_for_access_token("abc")


def test_options_and_arguments() -> None:
    from miro_api.storage import InMemoryStorage

    bad_type, bad = counterfoil.InvalidTypeError, counterfoil.InvalidError
    with counterfoil.open("memory:") as store:
        make: Any = MiroStorage
        for wrong in (dict(prefix=5), dict(lease="5"), dict(grace=None), dict(wait=True)):
            with pytest.raises(bad_type):
                make(store, 7, **wrong)
        for wrong in (dict(lease=0), dict(grace=-1), dict(grace=float("inf")), dict(wait=float("nan"))):
            with pytest.raises(bad):
                make(store, 7, **wrong)
        for user_id in (None, 1.5, True, b"7"):
            with pytest.raises(bad_type):
                make(store, user_id)
        with pytest.raises(bad):
            make(store, "7:counterfoil-lease")
        with pytest.raises(bad_type):
            make("memory:", 7)
        storage = make(store, 7)
        for state in ("text", State(5, None, None), State("a", 5, None), State("a", None, "soon")):  # type: ignore[arg-type]
            with pytest.raises(bad_type):
                storage.set(state)
        with pytest.raises(bad):
            storage.set(State("a", None, datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))))
        for call in (lambda: storage.with_lock(5), lambda: storage.refresh_once(5)):
            with pytest.raises(bad_type):
                call()
        with pytest.raises(bad_type):
            storage.refresh_once(lambda old: FRESH, is_fresh=5)
        for miro in (None, storage, SimpleNamespace(_storage=storage), client(InMemoryStorage(), "")):
            with pytest.raises(bad_type):
                single_flight(miro)
        assert storage.get() is None
