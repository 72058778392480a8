"""Machines of their own on one machine: network namespaces that are joined by a bridge, and disks that can be full.

The campaign itself runs in namespaces too (enter): its network is the callers' site, and what it mounts nobody else
sees. Nothing is left behind: a namespace lives as long as a process that is in it, and those die with the campaign.
Root is not needed where the kernel lets everybody have namespaces of users."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.clusters import ClusterGroup, Node
from faults.resp import Connection
from faults.sentinels import NAME, Sentinel, SentinelGroup, until
from faults.servers import Group, RedisServer, spawn

BRIDGE = "hub"
NETWORK = "10.77.0"
CALLERS, MORE_CALLERS = 100, 101
INSIDE = "CF_CHAOS_INSIDE"


def enter(module: str) -> str:
    """Starts this program anew inside. Where that cannot be: why."""
    if os.environ.get(INSIDE):
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("address", "add", f"{HERE.address}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        return ""
    words = ["unshare", *(() if os.getuid() == 0 else ("--user", "--map-root-user")), "--mount", "--net"]
    try:
        subprocess.run([*words, "ip", "link", "set", "lo", "up"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", "") or error).strip()
    os.execvpe(words[0], [*words, sys.executable, "-m", module, *sys.argv[1:]], os.environ | {INSIDE: "yes"})


def ip(*words: str, inside: Sequence[str] = ()) -> None:
    subprocess.run([*inside, "ip", *words], check=True)


class Place:
    """A machine with one address. `inside`: what starts a program there."""

    def __init__(self, number: int, inside: Sequence[str] = ()) -> None:
        self.address, self.inside = f"{NETWORK}.{number}", list(inside)

    def cut_off_from(self, other: Place) -> None:
        """What is sent there is lost. What comes from there arrives, but nobody there is told that it has."""
        ip("route", "add", "blackhole", f"{other.address}/32", inside=self.inside)

    def join_with(self, other: Place) -> None:
        ip("route", "delete", "blackhole", f"{other.address}/32", inside=self.inside)


HERE = Place(CALLERS)


class Site(Place):
    """One that is made, and can be cut off from everybody."""

    def __init__(self, number: int) -> None:
        self.link = f"site{number}"
        self.holder = spawn(["unshare", "--net", "sleep", "infinity"])
        ours, theirs = Path("/proc/self/ns/net").readlink(), Path(f"/proc/{self.holder.pid}/ns/net")
        while theirs.readlink() == ours:
            time.sleep(0.002)
        super().__init__(number, ["nsenter", f"--net={theirs}", "--"])
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", str(self.holder.pid))
        ip("link", "set", self.link, "master", BRIDGE, "up")
        ip("link", "set", "lo", "up", inside=self.inside)
        ip("address", "add", f"{self.address}/24", "dev", "eth0", inside=self.inside)
        ip("link", "set", "eth0", "up", inside=self.inside)

    def cut_off(self) -> None:
        """What is sent there is lost, and nobody is told."""
        ip("link", "set", self.link, "down")

    def join(self) -> None:
        ip("link", "set", self.link, "up")

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


class _Elsewhere(RedisServer):
    """Its administrator comes by its socket, however it is cut off."""

    site: Site

    def _command(self) -> list[str | Path]:
        return [*self.site.inside, *super()._command()]

    def connect(self, timeout: float = 10) -> Connection:
        made = Connection(str(self.dir / "admin"), timeout=timeout)
        if self.password is not None:
            made.call("AUTH", self.password)
        return made


class SiteServer(_Elsewhere):
    def __init__(self, site: Site, config: dict[str, str | int], **options: Any) -> None:
        listens = {"bind": f"{site.address} 127.0.0.1", "protected-mode": "no", "unixsocket": "admin"}
        super().__init__(config=config | listens, **options)
        self.site, self.host = site, site.address


class SiteNode(SiteServer, Node):
    pass


class SiteSentinel(_Elsewhere, Sentinel):
    def __init__(self, site: Site, primary: RedisServer, *monitors: int, **options: Any) -> None:
        super().__init__(*monitors, **options)
        self.site, self.host, self.primary_host = site, site.address, primary.host

    def _listens(self) -> list[str]:
        socket = self.dir / "admin"
        return [f"bind {self.site.address} 127.0.0.1", f"port {self.port}", "protected-mode no", f"unixsocket {socket}"]


class Sited(Group):
    """Each of its data servers is on a site of its own. The callers are elsewhere: half of them here, half of them on a
    site, so that not all see the same."""

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**options)
        self.sites = [Site(number + 1) for number in range(count)]
        self.more_callers = Site(MORE_CALLERS)
        self.callers: list[Place] = [HERE, self.more_callers]

    def a_primary(self, fate: random.Random) -> RedisServer:
        raise NotImplementedError

    def a_replica(self, fate: random.Random) -> RedisServer:
        raise NotImplementedError

    def until_another(self, old: RedisServer) -> None:
        """Is a primary in place of this one, which is cut off from the others."""
        raise NotImplementedError

    def site_of(self, server: RedisServer) -> Site:
        return next(site for site in self.sites if site.address == server.host)

    def sites_but(self, *these: Site) -> list[Site]:
        return [site for site in self.sites if site not in these]

    def stop(self) -> None:
        super().stop()
        for site in [*self.sites, self.more_callers]:
            site.close()


class SiteGroup(Sited, SentinelGroup):
    """Three sites with a server and a Sentinel each."""

    def __init__(self, **options: Any) -> None:
        super().__init__(3, **options)

    def _server(self, number: int, **options: Any) -> RedisServer:
        return SiteServer(self.sites[number], **options)

    def _sentinel(self, number: int, *monitors: int, **options: Any) -> Sentinel:
        return SiteSentinel(self.sites[number], self.data[0], *monitors, **options)

    def named(self) -> int:
        """By most of them: one that is cut off does not know better."""
        live = [one for one in self.sentinels if one.process]
        ports = Counter(int(one.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1]) for one in live)
        return ports.most_common(1)[0][0]

    def a_primary(self, fate: random.Random) -> RedisServer:
        return self.primary()

    def a_replica(self, fate: random.Random) -> RedisServer:
        primary = self.primary()
        return fate.choice([one for one in self.data if one is not primary])

    def until_another(self, old: RedisServer) -> None:
        """A Sentinel that has just led a failover waits before the next."""
        until(lambda: self.primary() is not old and self.primary().cli("ROLE")[0] == b"master")


class SiteCluster(Sited, ClusterGroup):
    """Six sites with a server each."""

    def __init__(self, **options: Any) -> None:
        super().__init__(6, **options)

    def _server(self, number: int, **options: Any) -> Node:
        return SiteNode(self.sites[number], **options)

    def a_primary(self, fate: random.Random) -> Node:
        return fate.choice(self.primaries())

    def a_replica(self, fate: random.Random) -> Node:
        return fate.choice(self.replicas())

    def until_another(self, old: RedisServer) -> None:
        assert isinstance(old, Node)
        self.wait_for_successor(old, self.slots_of(old)[0], self.replicas(old))


class Disk:
    """A small disk, mounted where only the campaign and its processes see it."""

    def __init__(self, folder: Path, megabytes: int = 256) -> None:
        self.folder, self.ballast = folder, folder / "ballast"
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "none", str(folder)], check=True)

    def fill(self, leave: int = 0) -> None:
        """Until so many bytes are left."""
        with self.ballast.open("wb") as out:
            while True:
                room = os.statvfs(self.folder)
                free = room.f_bavail * room.f_frsize - leave
                if free < room.f_frsize:
                    return
                try:
                    os.posix_fallocate(out.fileno(), os.fstat(out.fileno()).st_size, min(free, 2**24))
                except OSError:
                    return  # somebody else was quicker

    def clear(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
