"""One primary, its replicas, and the Sentinels that watch them: real processes, on loopback, each with its own port.

with SentinelGroup(down_after_ms=500) as group:
    counterfoil.open(group.url())
    group.fail_over()           # by the Sentinels' own command: the old primary stays up
    group.primary().kill()      # and by accident
    group.wait_for_primary(other_than=port)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from faults.certificates import Certificates
from faults.resp import ReplyError
from faults.servers import Group, RedisServer, quoted

NAME = "mymaster"


class Sentinel(RedisServer):
    """A redis-server in Sentinel mode. It writes its own settings, so a restart keeps what it has learnt."""

    def __init__(self, primary_port: int, quorum: int, down_after_ms: int, **options: Any) -> None:
        super().__init__(**options)
        self.monitors = (primary_port, quorum, down_after_ms)

    def _command(self) -> list[str | Path]:
        return ["redis-server", self.dir / "redis.conf", "--sentinel"]

    def _directives(self) -> str:
        if self.fixed_port:  # restarted: otherwise what is in the folder is not ours
            return (self.dir / "redis.conf").read_text()
        port, quorum, down_after_ms = self.monitors
        lines = [
            *self._listens(),
            f"dir {self.dir}",
            "daemonize no",
            f"sentinel monitor {NAME} {self.primary_host} {port} {quorum}",
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}",
            f"sentinel failover-timeout {NAME} {max(2000, 4 * down_after_ms)}",
            f"sentinel parallel-syncs {NAME} 2",
        ]
        if self.password is not None:
            lines.append(f"requirepass {quoted(self.password)}")
            lines.append(f"sentinel sentinel-pass {quoted(self.password)}")
        return "\n".join([*lines, *self.more]) + "\n"

    def _listens(self) -> list[str]:
        if not self.tls:
            return ["bind 127.0.0.1 -::1", f"port {self.port}"]
        assert self.certificates
        server = self.certificates.server
        return [
            "bind 127.0.0.1 -::1",
            "port 0",
            f"tls-port {self.port}",
            f"tls-cert-file {server.chain}",
            f"tls-key-file {server.key}",
            f"tls-ca-cert-file {self.certificates.ca}",
            "tls-auth-clients no",
            "tls-replication yes",
        ]

    more: tuple[str, ...] = ()
    primary_host = "127.0.0.1"


def until(what: Callable[[], Any], timeout: float = 60) -> Any:
    """What this says, as soon as it is true."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError, ReplyError):
            if found := what():
                return found
        if time.monotonic() > deadline:
            raise TimeoutError("the group did not come to an agreement in time")
        time.sleep(0.02)


class SentinelGroup(Group):
    """`password` is that of the servers, `sentinel_password` that of the Sentinels. `data[0]` is the first primary.
    `tls`: all of them speak nothing else."""

    def __init__(
        self,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        down_after_ms: int = 1000,
        password: str | None = None,
        sentinel_password: str | None = None,
        tls: bool = False,
        config: dict[str, str | int] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(folder, "cf-sentinels-")
        self.password, self.sentinel_password = password, sentinel_password
        self.counts = (replicas, sentinels, down_after_ms)
        self.certificates = Certificates(self.dir / "tls") if tls else None
        self.config: dict[str, str | int] = {
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
            **(config or {}),
        }
        if tls:
            self.config["tls-replication"] = "yes"
        self.data: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []

    def members(self) -> list[RedisServer]:
        return [*self.sentinels, *self.data]

    def begin(self) -> None:
        replicas, sentinels, down_after_ms = self.counts
        login: dict[str, str | int] = {"masterauth": self.password} if self.password else {}
        for number in range(1 + replicas):
            first: dict[str, str | int] = (
                {"replicaof": f"{self.data[0].host} {self.data[0].port}"} if number else {}
            )
            made = self._server(
                number,
                folder=self.dir / f"data{number}",
                password=self.password,
                config=self.config | login | first,
                tls=bool(self.certificates),
                certificates=self.certificates,
            )
            self.data.append(made)
            made.start()
        for number in range(sentinels):
            watcher = self._sentinel(
                number,
                self.data[0].port,
                sentinels // 2 + 1,
                down_after_ms,
                folder=self.dir / f"sentinel{number}",
                tls=bool(self.certificates),
                certificates=self.certificates,
                password=self.sentinel_password,
            )
            if self.password:
                watcher.more = (f"sentinel auth-pass {NAME} {quoted(self.password)}",)
            self.sentinels.append(watcher)
            watcher.start()
            # They greet each other every two seconds and look at the servers every ten: too long for tests.
            watcher.cli("SENTINEL", "DEBUG", "publish-period", 200, "info-period", 500)

    def _sentinel(self, number: int, *monitors: int, **options: Any) -> Sentinel:
        return Sentinel(*monitors, **options)

    def wait_until_whole(self, timeout: float = 60) -> None:
        """Until every Sentinel that runs knows all the others, and every server is online and agreed upon."""
        live = [one for one in self.data if one.process]
        watchers = [one for one in self.sentinels if one.process]

        def whole() -> bool:
            for watcher in watchers:
                known = self._known(watcher)
                if (
                    int(known["num-slaves"]) < len(self.data) - 1
                    or int(known["num-other-sentinels"]) < len(self.sentinels) - 1
                ):
                    return False
                if known["flags"] != "master" or int(known["port"]) != self.primary().port:
                    return False
            roles = [one.cli("ROLE") for one in live]
            return [role[0] for role in roles].count(b"master") == 1 and all(
                len(role[2]) >= len(live) - 1 if role[0] == b"master" else role[3] == b"connected" for role in roles
            )

        until(whole, timeout)

    @staticmethod
    def _known(watcher: Sentinel) -> dict[str, str]:
        flat = [word.decode() for word in watcher.cli("SENTINEL", "MASTER", NAME)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def named(self) -> int:
        """The port of the primary that the first Sentinel alive names."""
        watcher = next(one for one in self.sentinels if one.process)
        return int(watcher.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def primary(self) -> RedisServer:
        port = self.named()
        return next(one for one in self.data if one.port == port)

    def wait_for_primary(self, other_than: int, timeout: float = 60) -> RedisServer:
        """The one that has been promoted: it says so itself."""

        def promoted() -> RedisServer | None:
            found = self.primary()
            return found if found.port != other_than and found.cli("ROLE")[0] == b"master" else None

        found = until(promoted, timeout)
        assert isinstance(found, RedisServer)
        return found

    def fail_over(self) -> RedisServer:
        """Asks for it; the old primary becomes a replica. Returns the new one."""
        before = self.named()
        watcher = next(one for one in self.sentinels if one.process)
        for _ in range(10):  # a step that takes too long makes them give up, and nobody tries again by himself
            until(lambda: watcher.cli("SENTINEL", "FAILOVER", NAME) == "OK")
            with contextlib.suppress(TimeoutError):
                return self.wait_for_primary(before, timeout=10)
        raise TimeoutError("there was no failover")

    def cut_off(self) -> list[RedisServer]:
        """The replicas, which cannot follow until let_follow: what the primary does from now on dies with it."""
        primary = self.primary()
        replicas = [one for one in self.data if one is not primary and one.process]
        for replica in replicas:
            replica.cli("CONFIG", "SET", "masterauth", "another")
        primary.cli("CLIENT", "KILL", "TYPE", "replica")
        return replicas

    def let_follow(self, replicas: list[RedisServer]) -> None:
        assert self.password
        for replica in replicas:  # one that was promoted has just closed its connections
            until(partial(replica.cli, "CONFIG", "SET", "masterauth", self.password))

    def kill_primary(self) -> None:
        """Returns when there is another one."""
        old = self.primary()
        old.kill()
        self.wait_for_primary(other_than=old.port)

    def revive(self) -> None:
        """Everybody is up again, and agreed: the data servers as replicas of whom the Sentinels name."""
        for watcher in self.sentinels:
            if watcher.process is None:
                watcher.restart()
        for server in self.data:
            if server.process is None:
                primary = self.primary()
                server.config["replicaof"] = f"{primary.host} {primary.port}"
                server.restart()
        self.wait_until_whole()

    def url(self, db: int = 0, **options: str) -> str:
        hosts = ",".join(f"{one.host}:{one.port}" for one in self.sentinels)
        if self.certificates:
            options = {"tls_ca": str(self.certificates.ca)} | options
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        if self.sentinel_password:
            options = {"sentinel_password": self.sentinel_password} | options
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        return f"{'rediss' if self.certificates else 'redis'}+sentinel://{login}{hosts}/{NAME}/{db}" + (
            f"?{asked}" if asked else ""
        )
