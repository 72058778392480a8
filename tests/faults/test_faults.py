"""Every lever of the kit does what README.md says: a fault that does not happen makes the tests that use it
worthless."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from faults.proxy import Proxy, ProxyError
from faults.resp import Connection, ReplyError, command
from faults.sentinels import until
from faults.servers import RedisServer, StandardSet, write_clock
from faults.tls_peers import BAD, GOOD, Peers

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(unixsocket=True) as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    server.cli("FLUSHALL")
    with Proxy(server) as running:
        yield running


def dial(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(proxy.address, 10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def read_all(client: socket.socket) -> tuple[bytes, str]:
    """All that comes, and how it ends: fin, rst, or open when nothing more comes for a while."""
    got = b""
    while True:
        if not select.select([client], [], [], 0.05)[0]:
            return got, "open"
        try:
            more = client.recv(65536)
        except ConnectionResetError:
            return got, "rst"
        if not more:
            return got, "fin"
        got += more


def exchange(proxy: Proxy, sent: bytes, expected: int) -> tuple[bytes, str]:
    """One connection, one request; reads until the end, or until so many bytes and then a moment longer."""
    try:
        client = dial(proxy)
    except ConnectionResetError:
        return b"", "rst"
    with client:
        try:
            client.sendall(sent)
        except (ConnectionResetError, BrokenPipeError):
            return b"", "rst"
        got = b""
        try:
            while len(got) < expected:
                more = client.recv(65536)
                if not more:
                    return got, "fin"
                got += more
        except ConnectionResetError:
            return got, "rst"
        if len(got) == expected:
            more_got, end = read_all(client)
            return got + more_got, end
        return got, "open"


def settled(proxy: Proxy, server: RedisServer, key: str, expected: bytes | None) -> bool:
    """The server reads to the end of what it was sent, in its own time."""
    proxy.wait("draining", "=", 0)
    return bool(server.cli("GET", key) == expected)


# ---------------------------------------------------------------------------------------------------------------- proxy


def test_passes_everything_unchanged(server: RedisServer, proxy: Proxy) -> None:
    client = Connection(proxy.address)
    big = os.urandom(3_000_000)
    assert client.call("SET", "big", big) == "OK"
    assert client.call("GET", "big") == big
    client.close()
    proxy.wait("open", "=", 0)
    stats = proxy.stats()
    assert stats["request"] == len(command("SET", "big", big) + command("GET", "big"))
    assert stats["reply"] == len(b"+OK\r\n") + len(b"$3000000\r\n") + len(big) + 2
    assert (stats["accepted"], stats["cut"], stats["fired"]) == (1, 0, 0)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cuts_the_reply_after_exactly_n_bytes(server: RedisServer, proxy: Proxy, how: str) -> None:
    server.cli("SET", "code", "4711")
    whole = b"$4\r\n4711\r\n"
    for n in range(len(whole) + 1):
        proxy(f"next cut reply {n} {how}")
        assert exchange(proxy, command("GET", "code"), len(whole)) == (whole[:n], how)
    assert exchange(proxy, command("GET", "code"), len(whole)) == (whole, "open")
    assert proxy.stats()["cut"] == len(whole) + 1


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cuts_the_request_after_exactly_n_bytes(server: RedisServer, proxy: Proxy, how: str) -> None:
    sent = command("INCR", "n")
    for n in range(len(sent) + 1):
        proxy(f"next cut request {n} {how}")
        got, end = exchange(proxy, sent, 100)
        assert got == b""
        # With bytes that the proxy had not read the kernel makes a reset of any end.
        assert end == how or (how == "fin" and end == "rst")
        executed = n == len(sent)
        assert settled(proxy, server, "n", b"1" if executed else None), n


def test_a_stall_holds_and_resumes_byte_exact(server: RedisServer, proxy: Proxy) -> None:
    server.cli("SET", "code", "4711")
    whole = b"$4\r\n4711\r\n"
    for n in (0, 1, 5, len(whole) - 1):
        proxy(f"next cut reply {n} stall")
        with dial(proxy) as client:
            client.sendall(command("GET", "code"))
            proxy.wait("cut", ">=", 1)
            assert read_all(client) == (whole[:n], "open")
            assert proxy("resume") == "1"
            assert read_all(client) == (whole[n:], "open")
        proxy("reset")


def test_a_blackhole_swallows(server: RedisServer, proxy: Proxy) -> None:
    proxy("next cut request 5 blackhole")
    with dial(proxy) as client:
        client.sendall(command("SET", "a", "1") * 1000)
        assert read_all(client) == (b"", "open")
    proxy.wait("open", "=", 0)
    assert server.cli("GET", "a") is None


def test_arms_an_established_connection_from_now(server: RedisServer, proxy: Proxy) -> None:
    client = Connection(proxy.address)
    for n in range(5):
        assert client.call("PING") == "PONG"
        if n == 3:
            assert proxy("now cut reply 3 fin") == "1"
            client.socket.sendall(command("PING"))
            assert read_all(client.socket) == (b"+PO", "fin")
            break
    client.close()


def test_a_lost_reply_is_executed_and_never_delivered(server: RedisServer, proxy: Proxy) -> None:
    for n in range(50):
        server.cli("SET", "code", n)
        client = Connection(proxy.address)
        assert client.call("PING") == "PONG"
        proxy.lose()
        client.socket.sendall(command("GETDEL", "code"))
        assert read_all(client.socket) == (b"", "fin")
        assert server.cli("GET", "code") is None
        client.close()


def test_loses_replies_by_chance_and_the_same_ones_again(server: RedisServer, proxy: Proxy) -> None:
    histories = []
    for _ in range(2):
        proxy("lose-replies 0.3 1 42")
        history = []
        for _ in range(40):
            client = Connection(proxy.address)
            assert client.call("PING") == "PONG"  # the greeting is spared
            replies = 0
            try:
                while replies < 20:
                    client.call("PING")
                    replies += 1
            except ConnectionError:
                pass
            history.append(replies)
            client.close()
        histories.append(history)
    assert histories[0] == histories[1]
    assert 40 < sum(histories[0]) < 200  # about 7 in 3 for each
    proxy("pass")
    client = Connection(proxy.address)
    assert [client.call("PING") for _ in range(50)] == ["PONG"] * 50
    client.close()


def test_counts_messages(server: RedisServer, proxy: Proxy) -> None:
    proxy("next cut reply #2+3 rst")
    with dial(proxy) as client:
        client.sendall(command("SET", "a", "1") + command("GET", "a") + command("PING") + command("PING"))
        assert read_all(client) == (b"+OK\r\n$1\r\n1\r\n+PO", "rst")
    proxy("next cut request #1+4 fin")
    with dial(proxy) as client:
        client.sendall(command("SET", "b", "1") + command("DEL", "b"))
        read_all(client)
    assert settled(proxy, server, "b", b"1")


def test_counts_over_all_connections(server: RedisServer, proxy: Proxy) -> None:
    proxy("total cut reply 16 fin")
    ends = []
    for _ in range(4):
        ends.append(exchange(proxy, command("PING"), 7))
    assert ends == [(b"+PONG\r\n", "open"), (b"+PONG\r\n", "open"), (b"+P", "fin"), (b"+PONG\r\n", "open")]
    proxy("total lose #1")
    assert [exchange(proxy, command("PING"), 7)[1] for _ in range(3)] == ["open", "fin", "open"]


def test_inserts_replaces_and_drops(server: RedisServer, proxy: Proxy) -> None:
    client = Connection(proxy.address)
    assert client.call("PING") == "PONG"
    proxy.insert("reply", 0, b"+OK\r\n")
    assert client.reply() == "OK"  # nobody asked
    proxy("now answer #1 -LOADING Redis is loading the dataset in memory\\r\\n")
    assert client.call("PING") == "PONG"
    with pytest.raises(ReplyError, match=r"^LOADING Redis is loading"):
        client.call("SET", "a", "1")
    assert client.call("GET", "a") == b"1"  # the server did execute it
    proxy("now replace reply 1 4 BANG")
    assert client.call("PING") == "BANG"
    proxy("now answer #0 ; insert reply #2 :7\\r\\n")
    client.socket.sendall(command("PING") + command("GET", "a") + command("ECHO", "x"))
    assert [client.reply(), client.reply(), client.reply()] == [b"1", 7, b"x"]
    proxy("now replace request #0 all " + "*1\\r\\n$4\\r\\nPING\\r\\n")
    assert client.call("FLUSHALL") == "PONG"
    assert server.cli("EXISTS", "a") == 1
    client.close()


def test_answers_every_reply_until_told_to_pass(proxy: Proxy) -> None:
    proxy("every answer #* -READONLY no\\r\\n")
    client = Connection(proxy.address)
    for _ in range(5):
        with pytest.raises(ReplyError, match="READONLY"):
            client.call("PING")
    proxy("pass")
    assert client.call("PING") == "PONG"
    client.close()


def test_floods(proxy: Proxy) -> None:
    proxy("next flood reply 0 5000000 *1\\r\\n ; cut reply 0 fin")
    with dial(proxy) as client:
        client.sendall(command("PING"))
        got = 0
        while more := client.recv(1 << 20):
            got += len(more)
    assert got == 20_000_000


def test_slices(proxy: Proxy) -> None:
    proxy("slice reply 1 2")
    with dial(proxy) as client:
        client.sendall(command("PING"))
        pieces: list[bytes] = []
        while sum(len(piece) for piece in pieces) < 7:
            pieces.append(client.recv(100))
    assert b"".join(pieces) == b"+PONG\r\n"
    assert len(pieces) >= 4
    proxy("slice reply 3")
    client2 = Connection(proxy.address)
    assert [client2.call("ECHO", "x" * n) for n in range(50)] == [b"x" * n for n in range(50)]
    client2.close()


def test_slices_go_on_when_something_else_wakes_the_proxy(proxy: Proxy) -> None:
    proxy("slice reply 10 20")
    client = Connection(proxy.address)
    client.socket.settimeout(5)
    for _ in range(10):
        client.socket.sendall(command("ECHO", "x" * 50))
        for _ in range(5):
            time.sleep(0.003)
            proxy("stats")
        assert client.reply() == b"x" * 50
    client.close()


def test_delays_with_jitter_keep_the_order(proxy: Proxy) -> None:
    client = Connection(proxy.address)
    assert client.call("PING") == "PONG"
    proxy("delay reply 60")
    begun = time.monotonic()
    assert client.call("PING") == "PONG"
    assert time.monotonic() - begun >= 0.059
    proxy("delay reply 0 20 7")
    for n in range(30):
        client.socket.sendall(command("ECHO", n))
        time.sleep(0.001)
    assert [client.reply() for _ in range(30)] == [str(n).encode() for n in range(30)]
    client.close()


def test_scopes(proxy: Proxy) -> None:
    proxy("next 2 cut reply 1 fin")
    proxy("next cut reply 2 fin")
    got = [exchange(proxy, command("PING"), 7)[0] for _ in range(4)]
    assert got == [b"+", b"+", b"+P", b"+PONG\r\n"]
    proxy("every cut reply 3 rst")
    assert [exchange(proxy, command("PING"), 7) for _ in range(3)] == [(b"+PO", "rst")] * 3
    proxy("pass")
    one, two = Connection(proxy.address), Connection(proxy.address)
    assert [one.call("PING"), two.call("PING")] == ["PONG", "PONG"]
    assert proxy(f"conn {proxy.stats()['accepted']} cut reply 0 fin") == "1"
    assert one.call("PING") == "PONG"
    with pytest.raises(ConnectionError):
        two.call("PING")
    one.close()
    two.close()


def test_refuses_and_points_elsewhere(server: RedisServer, proxy: Proxy) -> None:
    proxy("refuse on")
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    proxy("refuse off")
    assert exchange(proxy, command("PING"), 7)[0] == b"+PONG\r\n"
    proxy(f"to unix:{server.socket}")
    assert exchange(proxy, command("PING"), 7)[0] == b"+PONG\r\n"
    proxy("to unix:/nowhere")
    assert exchange(proxy, command("PING"), 7)[1] in ("fin", "rst")
    assert proxy.stats()["failed"] == 1


def test_says_when_it_does_not_understand(proxy: Proxy) -> None:
    for line in (
        *("cut", "next", "next cut", "next cut reply", "next cut reply x fin", "next cut reply 1 gone"),
        *("next cut reply 1 fin 3", "next insert reply 0 \\q", "next 0 lose", "conn lose", "next answer 0 x"),
        *("delay up 3", "slice reply", "wait nothing = 1 1", "refuse maybe", "next lose ; nonsense"),
    ):
        with pytest.raises(ProxyError, match="error"):
            proxy(line)
    with pytest.raises(ProxyError, match="late 0"):
        proxy("wait accepted >= 1 1")
    assert proxy.stats()["accepted"] == 0


def test_many_faults_a_second(server: RedisServer, proxy: Proxy) -> None:
    """A hundred thousand lost replies must fit into a test of minutes."""
    begun = time.monotonic()
    rounds = 1000
    for _ in range(rounds):
        client = Connection(proxy.address)
        proxy("now lose")
        with pytest.raises(ConnectionError):
            client.call("INCR", "n")
        client.close()
    print(f"{rounds / (time.monotonic() - begun):.0f} lost replies a second")
    assert int(server.cli("GET", "n")) == rounds
    assert time.monotonic() - begun < 30


# -------------------------------------------------------------------------------------------------------------- servers


@pytest.mark.parametrize("persistence", ["none", "snapshots", "aof-everysec", "aof-always"])
def test_what_a_restart_and_a_kill_keep(persistence: str) -> None:
    with RedisServer(persistence=persistence) as running:
        port = running.port
        running.cli("SET", "a", "1")
        running.restart()
        assert running.port == port
        assert running.cli("GET", "a") == (None if persistence == "none" else b"1")
        running.cli("SET", "b", "1")
        running.restart(kill=True)
        assert running.port == port
        if persistence != "aof-everysec":  # there it depends on the second
            assert running.cli("GET", "b") == (b"1" if persistence == "aof-always" else None)


def test_pause_and_resume(server: RedisServer) -> None:
    client = server.connect(timeout=0.2)
    server.pause()
    try:
        with pytest.raises(TimeoutError):
            client.call("PING")
    finally:
        server.resume()
    client.close()
    assert server.cli("PING") == "PONG"
    assert server.rss > 1_000_000


def test_a_full_server_refuses_writes() -> None:
    with RedisServer(maxmemory=1) as running, pytest.raises(ReplyError, match=r"^OOM"):
        running.cli("SET", "a", "1")


def test_the_staged_clock_moves_by_the_millisecond() -> None:
    with RedisServer(clock=True) as running:
        cli = running.cli
        seconds, micros = cli("TIME")
        assert int(seconds) * 1000 + int(micros) // 1000 == running.now_ms()
        cli("SET", "k", "v", "PX", 1000)
        running.advance(999)
        assert (cli("GET", "k"), cli("PTTL", "k")) == (b"v", 1)
        # Redis holds a key through the millisecond of its expiry: absent is what is later than that, not what is equal.
        running.advance(1)
        assert (cli("GET", "k"), cli("PTTL", "k")) == (b"v", 0)
        running.advance(1)
        assert cli("GET", "k") is None
        for n in range(100):
            cli("SET", f"k{n}", "v", "PX", 50)
        running.advance(51)
        assert cli("SCAN", 0, "COUNT", 1000) == [b"0", []]
        # Nothing else moves: not even while time passes, and it idles.
        cli("SET", "k", "v", "PX", 5)
        used = running.cpu_seconds
        time.sleep(0.3)
        assert cli("PTTL", "k") == 5
        assert running.cpu_seconds - used < 0.1
        write_clock(running.clock_file or "", running.now_ms() - 3_600_000)
        assert cli("PTTL", "k") == 3_600_005


def test_a_clock_that_goes_on_so_far_from_the_real_one() -> None:
    def distance() -> float:
        seconds, micros = running.cli("TIME")
        return int(seconds) + int(micros) / 1e6 - time.time()

    with RedisServer(clock=True) as running:
        assert running.clock_file
        for ms in (-3_600_000, 600_000, 0):
            write_clock(running.clock_file, ms, from_now=True)
            first = running.cli("TIME")
            assert abs(distance() - ms / 1000) < 30
            until(lambda first=first: running.cli("TIME") > first)  # type: ignore[misc]


def test_the_standard_set() -> None:
    folder = Path(tempfile.mkdtemp(prefix="cf-"))  # pytest's own are too long for a unix socket
    shows = "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('CF_TEST')}))"
    script = [sys.executable, str(HERE / "servers.py"), "run", "--dir", str(folder), "--", sys.executable, "-c", shows]
    names = json.loads(subprocess.run(script, check=True, capture_output=True, text=True).stdout)
    with StandardSet(folder) as standard:
        assert standard.variables.keys() == names.keys()
        least = standard.servers["acl"]
        client = Connection(("127.0.0.1", least.port))
        with pytest.raises(ReplyError, match=r"^NOAUTH"):
            client.call("GET", "a")
        url = urlsplit(standard.variables["CF_TEST_REDIS_ACL"])
        assert client.call("AUTH", url.username or "", unquote(url.password or "")) == "OK"
        assert client.call("SELECT", url.path[1:]) == "OK"
        assert client.call("SET", "a", "1", "PX", 100000, "NX") == "OK"
        assert client.call("EVAL", "return redis.call('get', KEYS[1])", 1, "a") == b"1"
        assert client.call("CLIENT", "SETNAME", "test") == "OK"
        assert b"rdb" in client.call("INFO", "persistence")
        for refused in (
            "CONFIG GET save",
            "SCRIPT FLUSH",
            "KEYS *",
            "FLUSHALL",
            "FLUSHDB",
            "CLIENT LIST",
        ):
            with pytest.raises(ReplyError, match=r"^NOPERM"):
                client.call(*refused.split())
        client.close()
        for name in ("tls", "tls_acl"):
            assert standard.servers[name].cli("PING") == "PONG"
        unix = Connection(urlsplit(standard.variables["CF_TEST_REDIS_UNIX"]).path)
        assert unix.call("PING") == "PONG"
        unix.close()
    shutil.rmtree(folder)


def test_servers_die_with_who_started_them() -> None:
    """However it ends: killed, with a server started in a thread that has ended before."""
    script = f"""
import sys, threading, time
sys.path.insert(0, {str(HERE.parent)!r})
from faults.servers import RedisServer
from faults.proxy import Proxy
server = RedisServer()
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
proxy = Proxy(server)
print(server.pid, proxy.process.pid, server.dir, flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    *pids, folder = owner.stdout.readline().split()
    children = [os.pidfd_open(int(pid)) for pid in pids]
    time.sleep(0.05)
    assert select.select(children, [], [], 0)[0] == []
    owner.kill()
    owner.wait()
    owner.stdout.close()
    for child in children:
        assert select.select([child], [], [], 10)[0] == [child]
        os.close(child)
    shutil.rmtree(folder)


def test_the_keeper_ends_with_the_process_that_it_watches() -> None:
    folder = Path(tempfile.mkdtemp(prefix="cf-"))
    watched = subprocess.Popen(["sleep", "60"])
    servers = [sys.executable, str(HERE / "servers.py")]
    subprocess.run([*servers, "start", "--dir", str(folder), "--watch", str(watched.pid)], check=True)
    known = json.loads((folder / "servers.json").read_text())
    children = [os.pidfd_open(pid) for pid in known["pids"].values()]
    watched.kill()
    watched.wait()
    for child in children:
        assert select.select([child], [], [], 10)[0] == [child]
        os.close(child)
    subprocess.run([*servers, "stop", "--dir", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------------ TLS peers


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with Peers() as made:
        yield made


def careful(peers: Peers) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=peers.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context


def careless() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    return context


def speak(host: str, port: int, context: ssl.SSLContext, timeout: float) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=host) as client,
    ):
        client.settimeout(timeout)
        client.sendall(command("AUTH", "secret"))
        return client.recv(100)


def test_there_are_enough_bad_peers() -> None:
    assert sum(factory.ends != "lost" for factory in BAD.values()) >= 50


@pytest.mark.parametrize("name", BAD)
def test_a_careful_client_refuses(peers: Peers, name: str) -> None:
    factory = BAD[name]
    with peers.start(name) as peer:
        if factory.ends == "lost":
            with contextlib.suppress(OSError):
                assert speak(peer.host, peer.port, careful(peers), 5) == b""
            return
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the sentence is looked at below
            speak(peer.host, peer.port, careful(peers), 0.2 if factory.ends == "deadline" else 5)
        assert isinstance(caught.value, TimeoutError) == (factory.ends == "deadline")
        assert any(word in str(caught.value).lower().replace("_", " ") for word in factory.because)
        assert peer.seen() == b""
        assert peer.accepted == 1


@pytest.mark.parametrize("name", [name for name, factory in BAD.items() if factory.certificate])
def test_a_careless_client_does_not(peers: Peers, name: str) -> None:
    """The control: nothing but the certificate or version was wrong, and what a client says would have been seen."""
    with peers.start(name) as peer:
        assert speak(peer.host, peer.port, careless(), 5) == b"+OK\r\n"
        assert peer.seen() == command("AUTH", "secret")


def test_the_good_are_accepted(peers: Peers) -> None:
    with RedisServer(tls=True, certificates=peers.certificates) as running:
        for host in GOOD:
            assert speak(host.strip("[]"), running.port, careful(peers), 5).startswith(b"-ERR AUTH")


# ------------------------------------------------------------------------------------------------------ other languages


def test_from_node() -> None:
    subprocess.run(["node", "--test", str(HERE / "faults.test.cjs")], check=True, capture_output=True, timeout=60)
