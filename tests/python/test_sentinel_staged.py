"""redis+sentinel: over Sentinels that say what a test wants, each for itself: who knows of a failover is heard, however
many others are behind, and nobody who is behind leads back. Real ones: test_sentinel.py."""

import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import counterfoil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.servers import RedisServer


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Watcher(socketserver.ThreadingTCPServer):
    """Says where the primary is to whoever asks, as often as they ask."""

    daemon_threads = True

    def __init__(self, names: RedisServer) -> None:
        super().__init__(("127.0.0.1", 0), Watcher.Talk)
        self.names = names
        self.asked = self.met = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def verify_request(self, *_: object) -> bool:
        self.met += 1
        return True

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            server = self.server
            assert isinstance(server, Watcher)
            while self.request.recv(4096) and not server.gone:
                server.asked += 1
                port = str(server.names.port).encode()
                self.request.sendall(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port))

    gone = False  # from now on it closes its connections and says nothing


@dataclass
class Scene:
    """The primary, two others, and who watches them."""

    old: RedisServer
    new: RedisServer
    third: RedisServer
    watchers: list[Watcher]
    store: counterfoil.Store
    pool: ThreadPoolExecutor

    def get(self) -> "Future[str | None]":
        return self.pool.submit(self.store.get, "where")

    def all_asked(self, times: int = 2) -> None:
        """Everybody has been, again: so often, and more."""
        before = [one.asked for one in self.watchers]
        until(lambda: all(one.asked >= then + times for one, then in zip(self.watchers, before, strict=True)))

    def frozen_on_the_way(self) -> "Future[str | None]":
        """A call while the old one is frozen, and so is the new one, to which the second watcher has sent the link."""
        self.old.pause()
        self.new.pause()
        call = self.get()
        self.all_asked()
        self.watchers[1].names = self.new
        self.all_asked()
        return call


@pytest.fixture(scope="module")
def servers() -> Iterator[list[RedisServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(RedisServer()) for _ in range(3)]


@contextmanager
def staged(servers: list[RedisServer], count: int = 3, more: str = "", used: bool = True) -> Iterator[Scene]:
    """All are primaries. Patience is far longer than a test: nothing ends by itself. `used`: it has a connection."""
    with ExitStack() as stack:
        for server, name in zip(servers, ("old", "new", "third"), strict=True):
            server.cli("SET", "where", name)
            stack.callback(server.resume)
        watchers = [stack.enter_context(Watcher(servers[0])) for _ in range(count)]
        pool = stack.enter_context(ThreadPoolExecutor())
        hosts = ",".join([f"127.0.0.1:{one.port}" for one in watchers] + ([more] if more else []))
        url = f"redis+sentinel://{hosts}/mymaster?silence=600&connect_timeout=600"
        store = stack.enter_context(counterfoil.open(url, timeout=30))
        if used:
            assert store.get("where") == "old"
        for server in servers:
            stack.callback(server.resume)  # before the store, and who waits for it, are waited for
        yield Scene(*servers, watchers, store, pool)


def connections(server: RedisServer) -> int:
    """That were ever made to it before. This one is behind them all."""
    with closing(server.connect()) as own:
        line = next(one for one in own.call("INFO", "stats").split() if one.startswith(b"total_connections_received:"))
    return int(line.split(b":")[1])


@pytest.mark.parametrize("count", [2, 3, 16])
@pytest.mark.parametrize("which", [0, -1])
def test_one_who_knows_is_enough(servers: list[RedisServer], count: int, which: int) -> None:
    with staged(servers, count) as scene:
        scene.old.pause()
        call = scene.get()
        scene.all_asked()
        scene.watchers[which].names = scene.new
        assert call.result(timeout=10) == "new"  # the others say "old" for ever


def test_nor_do_those_who_are_gone_frozen_or_not_to_be_found_hold_it_up(servers: list[RedisServer]) -> None:
    with socket.socket() as frozen, ExitStack() as stack:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen()
        gone = f"127.0.0.1:{frozen.getsockname()[1]},127.0.0.1:1,nowhere.invalid:1"
        scene = stack.enter_context(staged(servers, more=gone))
        scene.old.pause()
        call = scene.get()
        scene.all_asked()
        scene.watchers[2].names = scene.new
        assert call.result(timeout=10) == "new"


def test_a_killed_primary_too() -> None:
    with RedisServer() as old, RedisServer() as new, RedisServer() as third, staged([old, new, third]) as scene:
        old.kill()
        call = scene.get()
        scene.all_asked()
        scene.watchers[1].names = new
        assert call.result(timeout=10) == "new"
        old.restart()


def test_who_is_behind_leads_nobody_back(servers: list[RedisServer]) -> None:
    with staged(servers) as scene:
        before = connections(scene.old)
        scene.old.pause()
        scene.new.pause()  # so that the link is on its way there for a while
        call = scene.get()
        scene.all_asked()
        scene.watchers[1].names = scene.new
        scene.all_asked(5)
        scene.new.resume()
        assert call.result(timeout=10) == "new"
        scene.old.resume()
        assert connections(scene.old) == before + 1


def test_nor_by_what_is_the_first_word_of_his(servers: list[RedisServer]) -> None:
    with staged(servers, used=False) as scene:
        before = connections(scene.old)
        scene.old.pause()
        scene.new.pause()
        scene.watchers[1].names = scene.new
        call = scene.get()
        scene.all_asked(5)
        scene.new.resume()
        assert call.result(timeout=10) == "new"
        scene.old.resume()
        assert connections(scene.old) == before + 2


def test_a_failover_back_is_followed(servers: list[RedisServer]) -> None:
    with staged(servers) as scene:
        call = scene.frozen_on_the_way()
        assert not call.done()
        scene.watchers[1].names = scene.old
        scene.old.resume()
        assert call.result(timeout=10) == "old"


def test_and_one_to_a_third(servers: list[RedisServer]) -> None:
    with staged(servers) as scene:
        call = scene.frozen_on_the_way()
        scene.watchers[2].names = scene.third
        assert call.result(timeout=10) == "third"


def test_when_nobody_names_it_any_more_the_others_are_believed(servers: list[RedisServer]) -> None:
    with staged(servers) as scene:
        call = scene.frozen_on_the_way()
        scene.old.resume()
        scene.all_asked()
        assert not call.done()
        scene.watchers[1].gone = True
        assert call.result(timeout=10) == "old"


def test_one_who_was_always_behind_ends_no_connection_that_is_only_slow(servers: list[RedisServer]) -> None:
    with staged(servers) as scene:
        before = [connections(one) for one in (scene.new, scene.old)]
        scene.watchers[1].names = scene.new
        scene.old.pause()
        call = scene.get()
        scene.all_asked(3)
        scene.old.resume()
        assert call.result(timeout=10) == "old"
        assert [connections(one) - 1 for one in (scene.new, scene.old)] == before


def test_whom_all_name_from_the_first_is_gone_to(servers: list[RedisServer]) -> None:
    """Who was idle when it happened hears of it when all know it already; one of them is dead with its machine."""
    with staged(servers, 2, more="127.0.0.1:1") as scene:
        for one in scene.watchers:
            one.names = scene.new
        scene.old.pause()
        assert scene.get().result(timeout=10) == "new"


def test_sentinels_are_not_stormed(servers: list[RedisServer]) -> None:
    with staged(servers) as scene:
        scene.old.pause()
        call = scene.get()
        scene.all_asked(1)
        before, began = [one.asked for one in scene.watchers], time.monotonic()
        scene.all_asked(20)
        took = time.monotonic() - began
        for one, then in zip(scene.watchers, before, strict=True):
            assert one.asked - then <= took * 10 + 2
        scene.old.resume()
        assert call.result(timeout=10) == "old"


def test_in_peace_one_of_them_is_asked(servers: list[RedisServer]) -> None:
    def met() -> list[int]:
        with staged(servers) as scene:
            for one in scene.watchers:  # in front of this one are those that the store has made
                with socket.create_connection(("127.0.0.1", one.port)) as own:
                    own.sendall(b"where?")
                    assert own.recv(1)
            return [one.met - 1 for one in scene.watchers]

    # A machine that stands still for a moment asks more than one.
    until(lambda: met() == [1, 0, 0])
