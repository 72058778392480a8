"""Real redis-servers on loopback, each with its own folder, its own port and an end: they die with who started them.

    servers.py start --dir DIR [--watch PID]   the standard set; writes DIR/servers.env and DIR/servers.json
    servers.py stop --dir DIR
    servers.py run --dir DIR -- COMMAND...     start, the command with the variables set, stop
    servers.py serve                           one server, driven by lines of JSON (see README.md)

From Python: `with RedisServer(persistence="aof-always") as server: ...`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import secrets
import select
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.build import built, clean_environment
from faults.certificates import Certificates
from faults.resp import Connection, ReplyError

PERSISTENCE = {
    "none": {"save": "", "appendonly": "no"},
    "snapshots": {"save": "3600 1 300 100 60 10000", "appendonly": "no"},  # what Redis ships with
    "aof-everysec": {"save": "", "appendonly": "yes", "appendfsync": "everysec"},
    "aof-always": {"save": "", "appendonly": "yes", "appendfsync": "always"},
}

# What the library needs and no more. PING and INFO are its greeting, SCAN its clear and count, WAIT is `durable`.
LEAST_RIGHTS = (
    "-@all +get +set +del +exists +getdel +incrby +pexpire +pttl +scan +eval +evalsha "
    "+ping +select +auth +client|setname +info +wait ~* "
    "+hset +hget +hmget +hgetall +hdel +zadd +zrem +zrange +zcard +incr +persist +pexpireat"
)
CLUSTER_RIGHTS = "+cluster|slots +asking"
AWKWARD_PASSWORD = "p@ss:w/o?r#d%41"

# ------------------------------------------------------------------------------------------------------------- children

_work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] | None = None
_work_pid = 0
_work_lock = threading.Lock()


def spawn(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a program that the kernel kills when this process ends, however it ends. The kernel means the thread that
    has forked, not the process, so one thread that never ends does all of it; setpriv tells the kernel about it."""
    global _work, _work_pid
    with _work_lock:
        if _work is None or _work_pid != os.getpid():
            _work, _work_pid = queue.SimpleQueue(), os.getpid()
            threading.Thread(target=_spawner, args=(_work,), name="faults-spawner", daemon=True).start()
        answer: Future[subprocess.Popen[bytes]] = Future()
        words = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "env": clean_environment()} | options
        _work.put((lambda: subprocess.Popen(words, **given), answer))
    return answer.result()


def _spawner(work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]) -> None:
    while True:
        start, answer = work.get()
        try:
            answer.set_result(start())
        except BaseException as error:
            answer.set_exception(error)


def free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def write_clock(path: str | Path, ms: int, from_now: bool = False) -> None:
    """Moves a staged clock: a new file, renamed over the old one (clock.c). `from_now`: so far from the real one, going
    on."""
    draft = Path(f"{path}.new")
    draft.write_text(f"{ms:+d}\n" if from_now else f"{ms}\n")
    draft.replace(path)


# --------------------------------------------------------------------------------------------------------------- server


class RedisServer:
    """One redis-server. Nothing runs before start(); stop() leaves nothing behind, kill() leaves the data.

    persistence   "none", "snapshots", "aof-everysec", "aof-always"
    unixsocket    True or a path: also listens there
    tls           True: only TLS, with a good certificate; "mutual": asks for a client's certificate too
    password      of the default user
    acl           {"user": (password, "rules in Redis' words")}; the default user is then off
    maxmemory     bytes or "10mb"; the policy is noeviction unless `config` says otherwise
    config        further directives
    port          a fixed one; by default a free one, which restart() keeps
    clock         True or a path: the wall clock stands still at what this file says (advance(), write_clock())
    certificates  Certificates to share between servers
    folder        where its data, log and sockets are; by default a temporary one, removed by stop()
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        persistence: str = "none",
        unixsocket: bool | str = False,
        tls: bool | str = False,
        password: str | None = None,
        acl: Mapping[str, tuple[str, str]] | None = None,
        maxmemory: int | str | None = None,
        config: Mapping[str, str | int] | None = None,
        port: int | None = None,
        clock: bool | str | Path = False,
        certificates: Certificates | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if persistence not in PERSISTENCE:
            raise ValueError(f"persistence is one of {', '.join(PERSISTENCE)}")
        self.persistence = persistence
        self.password = password
        self.acl = dict(acl or {})
        self.maxmemory = maxmemory
        self.config = dict(config or {})
        self.fixed_port = port
        self.port = port or 0
        self.tls = tls
        self.process: subprocess.Popen[bytes] | None = None
        self._admin: Connection | None = None
        self._admin_password = secrets.token_hex(16)
        self._temporary = folder is None
        self.dir = Path(folder).resolve() if folder else Path(tempfile.mkdtemp(prefix="cf-"))
        self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket: str | None = None
        if unixsocket:
            self.socket = str(self.dir / "redis.sock") if unixsocket is True else str(unixsocket)
            if len(self.socket.encode()) > 107:
                raise ValueError("the path of a unix socket has at most 107 bytes: give a shorter folder")
        self.certificates = certificates
        if tls and certificates is None:
            self.certificates = Certificates(self.dir / "tls")
        self.clock_file: Path | None = None
        if clock:
            self.clock_file = self.dir / "clock" if clock is True else Path(clock).resolve()

    # ---- life

    def start(self) -> RedisServer:
        for attempt in range(5):
            if not self.fixed_port and not self.port:
                self.port = free_port()
            self._launch()
            try:
                return self.wait_ready()
            except RuntimeError:
                self.kill()
                # Somebody was quicker to take the port. One that must stay the same is worth waiting for.
                if attempt == 4 or b"Address already in use" not in self._log_end():
                    raise
                if self.fixed_port:
                    time.sleep(0.1)
                else:
                    self.port = 0
        raise AssertionError

    def _launch(self) -> None:
        assert self.process is None, "it runs already"
        (self.dir / "redis.conf").write_text(self._directives())
        environment = clean_environment()
        if self.clock_file:
            if not self.clock_file.exists():
                write_clock(self.clock_file, time.time_ns() // 1_000_000)
            environment |= {"LD_PRELOAD": str(built("clock")), "COUNTERFOIL_CLOCK_FILE": str(self.clock_file)}
        with (self.dir / "redis.log").open("ab") as log:
            log.write(b"---- start\n")
            self.process = spawn(self._command(), stdout=log, stderr=log, cwd=self.dir, env=environment)

    def _command(self) -> list[str | Path]:
        return ["redis-server", self.dir / "redis.conf"]

    def _directives(self) -> str:
        lines: dict[str, str | int] = {
            "bind": "127.0.0.1 -::1",
            "port": 0 if self.tls else self.port,
            "dir": str(self.dir),
            "daemonize": "no",
            "databases": 16,
            "maxmemory-policy": "noeviction",
            **PERSISTENCE[self.persistence],
        }
        if self.clock_file:  # that thread sleeps by the time of day, and behind the real one it would not sleep at all
            lines["jemalloc-bg-thread"] = "no"
        if self.socket:
            lines |= {"unixsocket": self.socket, "unixsocketperm": "700"}
        if self.tls:
            assert self.certificates
            lines |= {
                "tls-port": self.port,
                "tls-cert-file": str(self.certificates.server.chain),
                "tls-key-file": str(self.certificates.server.key),
                "tls-ca-cert-file": str(self.certificates.ca),
                "tls-auth-clients": "yes" if self.tls == "mutual" else "no",
            }
        if self.password is not None:
            lines["requirepass"] = self.password
        if self.maxmemory is not None:
            lines["maxmemory"] = self.maxmemory
        lines |= self.config
        text = [" ".join([name, *map(quoted, _words(name, value))]) for name, value in lines.items()]
        if self.acl:
            text.append("user default off")
            text.append(f"user kit on >{self._admin_password} ~* &* +@all")
            text += [f"user {user} on {quoted('>' + word)} {rules}" for user, (word, rules) in self.acl.items()]
        return "\n".join(text) + "\n"

    def wait_ready(self, timeout: float = 30) -> RedisServer:
        """Returns when it answers PING, which it does not while it is loading its data."""
        deadline = time.monotonic() + timeout
        while True:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"redis-server has ended: {self._log_end().decode(errors='replace')}")
            try:
                if self.cli("PING") == "PONG":
                    return self
            except (OSError, ReplyError) as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"redis-server is not ready: {error}") from None
            time.sleep(0.005)

    def stop(self) -> None:
        """Ends it in the orderly way, and removes its temporary folder."""
        self._end(signal.SIGTERM)
        if self._temporary:
            shutil.rmtree(self.dir, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL; what was not yet on disk is lost."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        self._forget_admin()
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
            if how != signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def restart(self, kill: bool = False) -> RedisServer:
        """On the same port, with the data that its persistence has kept."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        fixed, self.fixed_port = self.fixed_port, self.port
        try:
            return self.start()
        finally:
            self.fixed_port = fixed

    def pause(self) -> None:
        """SIGSTOP: the kernel goes on to accept connections and bytes, nobody answers."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- to look at it

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def rss(self) -> int:
        """Its resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """The processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def url(
        self, db: int = 0, *, user: str | None = None, unix: bool = False, host: str | None = None, **options: str
    ) -> str:
        """The store's URL; `user` is one of `acl`. TLS files are named in it when the server has TLS."""
        login = ""
        if user is not None:
            login = f"{quote(user, safe='')}:{quote(self.acl[user][0], safe='')}@"
        elif self.password is not None:
            login = f":{quote(self.password, safe='')}@"
        if self.tls:
            assert self.certificates
            options = {"tls_ca": str(self.certificates.ca)} | options
            if self.tls == "mutual":
                client = self.certificates.client
                options = {"tls_cert": str(client.cert), "tls_key": str(client.key)} | options
        if unix:
            assert self.socket
            assert not login
            address = f"redis+unix://{quote(self.socket)}"
            options = ({"db": str(db)} if db else {}) | options
        else:
            host = host or ("localhost" if self.tls else "127.0.0.1")
            address = f"{'rediss' if self.tls else 'redis'}://{login}{host}:{self.port}/{db}"
        asked = "&".join(f"{name}={quote(value)}" for name, value in options.items())
        return f"{address}?{asked}" if asked else address

    def connect(self, timeout: float = 10) -> Connection:
        """A connection of the kit's own, that may do everything."""
        context = None
        if self.tls:
            assert self.certificates
            context = ssl.create_default_context(cafile=str(self.certificates.ca))
            context.load_cert_chain(self.certificates.client.cert, self.certificates.client.key)
        made = Connection(("127.0.0.1", self.port), context, timeout=timeout)
        if self.acl:
            made.call("AUTH", "kit", self._admin_password)
        elif self.password is not None:
            made.call("AUTH", self.password)
        return made

    def cli(self, *words: bytes | str | int | float) -> Any:
        """One command as an administrator, whatever the server asks of others. Errors are ReplyError."""
        if self._admin is not None:
            # A server that has become a replica, or a primary, has closed its connections.
            with contextlib.suppress(ConnectionError):
                return self._call(*words)
        if self._admin is None:
            self._admin = self.connect()
        return self._call(*words)

    def _call(self, *words: bytes | str | int | float) -> Any:
        assert self._admin
        try:
            return self._admin.call(*words)
        except OSError:
            self._forget_admin()
            raise

    def _forget_admin(self) -> None:
        if self._admin:
            self._admin.close()
            self._admin = None

    def now_ms(self) -> int:
        """The staged clock."""
        assert self.clock_file
        return int(self.clock_file.read_text())

    def advance(self, ms: int) -> None:
        """Moves the staged clock."""
        assert self.clock_file
        write_clock(self.clock_file, self.now_ms() + ms)

    def _log_end(self) -> bytes:
        log = self.dir / "redis.log"
        return log.read_bytes().rpartition(b"---- start\n")[2][-2000:] if log.exists() else b""


# --------------------------------------------------------------------------------------------------------------- groups


class Group:
    """Servers that belong together, in a folder of their own: they start and end as one."""

    def __init__(self, folder: str | Path | None, prefix: str) -> None:
        self._temporary = folder is None
        self.dir = Path(folder).resolve() if folder else Path(tempfile.mkdtemp(prefix=prefix))

    def begin(self) -> None:
        """All that wait_until_whole() then waits for."""
        raise NotImplementedError

    def wait_until_whole(self, timeout: float = 60) -> None:
        raise NotImplementedError

    def members(self) -> Sequence[RedisServer]:
        """Who runs, in the order in which they are stopped."""
        raise NotImplementedError

    def _server(self, number: int, **options: Any) -> RedisServer:
        """One of those that have the data. Where they have clocks of their own, or are not all on one machine, theirs
        are others (tests/chaos)."""
        return RedisServer(**options)

    def start(self) -> Self:
        try:
            self.begin()
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        for one in self.members():
            one.stop()
        if self._temporary:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _words(name: str, value: str | int) -> list[str]:
    """Directives that take several words; everything else is one, however it looks."""
    several = (
        "bind",
        "save",
        "client-output-buffer-limit",
        "rename-command",
        "loadmodule",
        "replicaof",
        "oom-score-adj-values",
    )
    return str(value).split() or [""] if name in several else [str(value)]


def quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --------------------------------------------------------------------------------------------------------- standard set


class StandardSet:
    """The servers that ordinary tests run against, as environment variables: see README.md."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.servers: dict[str, RedisServer] = {}
        self.groups: list[Group] = []
        self.variables: dict[str, str] = {}

    def __enter__(self) -> StandardSet:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificates = Certificates(self.folder / "tls")
        acl = {"least-rights": (AWKWARD_PASSWORD, LEAST_RIGHTS)}
        (user,) = acl
        clock = self.folder / "clock.ms"
        write_clock(clock, 0, from_now=True)  # for what takes its time to begin
        # The socket is in the folder itself: its path must be short.
        make: dict[str, dict[str, Any]] = {
            "plain": {"unixsocket": str(self.folder / "redis.sock")},
            "tls": {"tls": True, "certificates": certificates},
            "acl": {"acl": acl},
            "tls_acl": {"tls": "mutual", "acl": acl, "certificates": certificates},
            "clock": {"clock": clock},
        }
        for name, options in make.items():
            self.servers[name] = RedisServer(folder=self.folder / name, **options)
            self.servers[name].start()
        from faults.clusters import ClusterGroup
        from faults.sentinels import SentinelGroup
        from faults.staged import PATIENT_MS, StagedCluster, StagedSentinels

        rights = {user: (AWKWARD_PASSWORD, f"{LEAST_RIGHTS} {CLUSTER_RIGHTS}")}
        words: dict[str, Any] = {"password": AWKWARD_PASSWORD, "sentinel_password": "watchers"}
        # The primaries of a cluster wait so long before they begin; then nothing that is only slow, as the machine may
        # be, changes them.
        cluster = ClusterGroup(folder=self.folder / "cluster", acl=rights, node_timeout_ms=2000)
        staged_cluster = StagedCluster(clock, folder=self.folder / "staged_cluster", acl=rights, node_timeout_ms=2000)
        group = SentinelGroup(folder=self.folder / "group", **words)
        staged_group = StagedSentinels(clock, folder=self.folder / "staged_group", **words)
        self.groups = [cluster, staged_cluster, group, staged_group]
        for one in self.groups:
            one.begin()
        for one in self.groups:
            one.wait_until_whole()
        for clustered, patience_ms in ((cluster, 60_000), (staged_cluster, PATIENT_MS)):
            for node in clustered.nodes:
                node.cli("CONFIG", "SET", "cluster-node-timeout", patience_ms)
        write_clock(clock, time.time_ns() // 1_000_000)
        servers = self.servers
        self.variables = {
            "CF_TEST_REDIS": servers["plain"].url(),
            "CF_TEST_REDIS_UNIX": servers["plain"].url(unix=True),
            "CF_TEST_REDIS_TLS": servers["tls"].url(),
            "CF_TEST_REDIS_ACL": servers["acl"].url(3, user=user),
            "CF_TEST_REDIS_TLS_ACL": servers["tls_acl"].url(3, user=user),
            "CF_TEST_REDIS_SENTINEL": group.url(5),
            "CF_TEST_REDIS_CLUSTER": cluster.url(user=user),
            "CF_TEST_REDIS_CLOCK": servers["clock"].url(),
            "CF_TEST_REDIS_SENTINEL_CLOCK": staged_group.url(5),
            "CF_TEST_REDIS_CLUSTER_CLOCK": staged_cluster.url(user=user),
            "CF_TEST_REDIS_CLOCK_FILE": str(servers["clock"].clock_file),
        }
        pids = {name: server.pid for name, server in servers.items()}
        for one in self.groups:
            pids |= {f"{one.dir.name}/{server.dir.name}": server.pid for server in one.members()}
        known = {"environment": self.variables, "pids": pids, "keeper": os.getpid()}
        _publish(self.folder / "servers.json", json.dumps(known))
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.variables.items()]
        _publish(self.folder / "servers.env", "".join(lines))

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()
        for group in self.groups:
            group.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _publish(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def keep(folder: Path, watch: int) -> None:
    """The keeper of `start`: the servers are its children and die with it. It ends on SIGTERM, or when the watched
    process ends."""
    wake, waker = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(waker, b"."))
    watched = [os.pidfd_open(watch)] if watch else []
    with StandardSet(folder):
        print("ready", flush=True)
        os.close(1)  # who started us reads until here
        select.select([wake, *watched], [], [])
    (folder / "servers.json").unlink(missing_ok=True)
    (folder / "servers.env").unlink(missing_ok=True)


def start(folder: Path, watch: int) -> int:
    stop(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "keep", "--dir", str(folder), "--watch", str(watch)]
    with (folder / "keeper.log").open("wb") as log:
        # A session of its own: a Ctrl-C that is meant for the tests must not end the servers before them.
        keeper = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=clean_environment(),
        )
    assert keeper.stdout
    if keeper.stdout.read() == b"ready\n":
        return 0
    sys.stderr.write((folder / "keeper.log").read_text())
    return 1


def stop(folder: Path) -> None:
    try:
        pid = json.loads((folder / "servers.json").read_text())["keeper"]
        # A number may have been given to another process since.
        if b"servers.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        keeper = os.pidfd_open(pid)
        signal.pidfd_send_signal(keeper, signal.SIGTERM)
        if not select.select([keeper], [], [], 30)[0]:
            signal.pidfd_send_signal(keeper, signal.SIGKILL)
    except (OSError, ValueError):
        return


# -------------------------------------------------------------------------------------------------------- lines of JSON


def serve() -> None:
    """One server for programs in other languages: a line of JSON in, a line out. It ends with its input."""
    server: RedisServer | None = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            do, arguments = request.pop("do"), request.pop("arguments", [])
            if do == "new":
                if server:
                    server.stop()
                acl = {user: tuple(pair) for user, pair in request.pop("acl", {}).items()}
                server = RedisServer(acl=acl, **request)
                answer: Any = None
            else:
                assert server, "first: new"
                assert not do.startswith("_")
                answer = getattr(server, do)
                if callable(answer):
                    answer = answer(*arguments, **request)
            if isinstance(answer, RedisServer):
                answer = None
            state = {
                "port": server.port,
                "socket": server.socket,
                "dir": str(server.dir),
                "clockFile": server.clock_file and str(server.clock_file),
                "pid": server.process.pid if server.process else None,
            }
            print(json.dumps({"ok": answer, **state}, default=_text), flush=True)
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
    if server:
        server.stop()


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["start", "stop", "run", "keep", "serve"])
    parser.add_argument("--dir", type=Path, help="where data, logs, sockets and servers.env are")
    parser.add_argument("--watch", type=int, default=0, metavar="PID", help="stop when this process ends")
    words = sys.argv[1:]
    words, command = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    given = parser.parse_args(words)
    if given.do == "serve":
        serve()
        return 0
    if given.dir is None:
        parser.error("--dir is needed")
    folder: Path = given.dir.resolve()
    if given.do == "start":
        return start(folder, given.watch)
    if given.do == "stop":
        stop(folder)
    elif given.do == "keep":
        keep(folder, given.watch)
    else:
        with contextlib.suppress(KeyboardInterrupt), StandardSet(folder) as standard:
            return subprocess.run(command, env=os.environ | standard.variables).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
