"""What happens to whom. A fault blocks, on a thread of its own, until what it has broken is whole again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.clusters import SLOTS, ClusterGroup, slot_of
from faults.resp import ReplyError
from faults.sentinels import SentinelGroup, until
from faults.servers import Group, RedisServer, write_clock

from chaos.crew import Crew
from chaos.network import Disk, Place, Site, SiteCluster, Sited
from chaos.promises import Fault

# Back by much, or forward by less than a receipt lives: who steps it further ends sessions and receipts, as time does.
STEPS = [-600_000, -30_000, -2_000, 1_000, 2_500]
APART = 1_500  # ms
KILLED_AHEAD = "replicas cut off, then primary killed"
ONE_KILLED_AHEAD = "a primary's replica cut off, then it is killed"


def freeze(server: RedisServer, seconds: float) -> None:
    server.pause()
    time.sleep(seconds)
    server.resume()


def vanish(server: RedisServer) -> None:
    server.cli("SCRIPT", "FLUSH")
    server.cli("CLIENT", "KILL", "TYPE", "normal")


class Clocks:
    """Wall clocks of servers or of processes, each at its own distance from the real one."""

    def __init__(self, *files: Path) -> None:
        self.far: dict[Path, int] = {}
        for file in files:
            self.add(file)

    def add(self, file: Path) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_clock(file, 0, from_now=True)
        self.far[file] = 0
        return file

    def step(self, fate: random.Random, _: Crew) -> None:
        file = fate.choice(list(self.far))
        self.far[file] += fate.choice(STEPS)
        write_clock(file, self.far[file], from_now=True)

    def step_apart(self, fate: random.Random, _: Crew) -> None:
        """Of servers that may take each other's place: a receipt must outlive that (core/DESIGN.md)."""
        file = fate.choice(list(self.far))
        self.far[file] = fate.randint(-APART, APART)
        write_clock(file, self.far[file], from_now=True)


class Clocked(Group):
    """Each of its data servers has a clock of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.clocks = Clocks()

    def _server(self, number: int, **options: Any) -> Any:
        return super()._server(number, clock=self.clocks.add(self.dir / f"clock{number}"), **options)


class ClockedGroup(Clocked, SentinelGroup):
    pass


class ClockedCluster(Clocked, ClusterGroup):
    pass


def with_clocks(faults: Callable[[Any], dict[str, Fault]]) -> Callable[[Any], dict[str, Fault]]:
    return lambda group: faults(group) | {"a server's clock stepped": group.clocks.step_apart}


def only(name: str, faults: Callable[[Any], dict[str, Fault]]) -> Callable[[Any], dict[str, Fault]]:
    """The worst alone, so that a control shows in a short time what it has to."""
    return lambda group: {name: faults(group)[name]}


def sentinel_faults(group: SentinelGroup) -> dict[str, Fault]:
    def kill_primary(first_cut_off: bool, linger: float) -> None:
        cut = group.cut_off() if first_cut_off else []
        time.sleep(linger)
        group.kill_primary()
        group.let_follow(cut)
        group.revive()

    def cut_off_for_a_while(fate: random.Random, _: Crew) -> None:
        cut = group.cut_off()
        time.sleep(fate.uniform(0.1, 0.8))
        group.let_follow(cut)

    def frozen(fate: random.Random, _: Crew) -> None:
        freeze(group.primary(), fate.uniform(0.4, 3.2))
        group.wait_until_whole()

    def by_hand(_: random.Random, __: Crew) -> None:
        group.fail_over()
        group.wait_until_whole()

    def kill_a_sentinel(fate: random.Random, _: Crew) -> None:
        fate.choice(group.sentinels).kill()
        time.sleep(fate.uniform(0.1, 0.8))
        group.revive()

    return {
        KILLED_AHEAD: lambda fate, _: kill_primary(True, fate.uniform(0.1, 0.8)),
        "primary killed": lambda _, __: kill_primary(False, 0),
        "primary frozen": frozen,
        "failover by hand": by_hand,
        "a Sentinel killed": kill_a_sentinel,
        "replicas cut off for a while": cut_off_for_a_while,
        "connections and scripts gone": lambda _, __: vanish(group.primary()),
    }


WITH_CALLERS = "a primary cut off from all servers, not from callers"


def partition_faults(group: Sited) -> dict[str, Fault]:
    def a_while(seconds: float, *sites: Site) -> None:
        for site in sites:
            site.cut_off()
        time.sleep(seconds)
        for site in sites:
            site.join()
        group.wait_until_whole()

    def primary_alone(fate: random.Random, _: Crew) -> None:
        old = group.a_primary(fate)
        site = group.site_of(old)
        site.cut_off()
        group.until_another(old)
        time.sleep(fate.uniform(0, 1))
        site.join()
        group.wait_until_whole()

    def apart(fate: random.Random, old: RedisServer, cuts: list[tuple[Place, Place]]) -> None:
        """Who is named first does not reach who is named second, until another is primary, and for a while then."""
        for one, other in cuts:
            one.cut_off_from(other)
        group.until_another(old)
        time.sleep(fate.uniform(0, 1))
        for one, other in cuts:
            one.join_with(other)
        group.wait_until_whole()

    def primary_with_callers(fate: random.Random, _: Crew) -> None:
        """The callers reach all sites, so for a while there are two that take writes."""
        old = group.a_primary(fate)
        site = group.site_of(old)
        apart(fate, old, [(site, other) for other in group.sites_but(site)])

    def primary_with_some_callers(fate: random.Random, _: Crew) -> None:
        """Half of the callers have nobody but the old primary, the others have all but it."""
        old = group.a_primary(fate)
        site = group.site_of(old)
        here, there = fate.sample(group.callers, 2)
        cuts: list[tuple[Place, Place]] = [(one, other) for one in (site, here) for other in group.sites_but(site)]
        apart(fate, old, [*cuts, (site, there)])

    def replica_alone(fate: random.Random, _: Crew) -> None:
        a_while(fate.uniform(0.3, 3), group.site_of(group.a_replica(fate)))

    def blink(fate: random.Random, _: Crew) -> None:
        a_while(fate.uniform(0.05, 0.3), group.site_of(group.a_primary(fate)))

    def unheard(fate: random.Random, cuts: list[tuple[Place, Place]]) -> None:
        for one, other in cuts:
            one.cut_off_from(other)
        time.sleep(fate.uniform(0.3, 3))
        for one, other in cuts:
            one.join_with(other)

    def some(fate: random.Random) -> list[Place]:
        return fate.sample(group.callers, fate.randint(1, 2))

    def callers_alone(fate: random.Random, _: Crew) -> None:
        """From a primary's site: the servers see nothing wrong."""
        site = group.site_of(group.a_primary(fate))
        unheard(fate, [(callers, site) for callers in some(fate)])

    def answers_lost(fate: random.Random, _: Crew) -> None:
        """What the callers say arrives; what the primary's site says to them does not."""
        site = group.site_of(group.a_primary(fate))
        unheard(fate, [(site, callers) for callers in some(fate)])

    def most_alone(fate: random.Random, _: Crew) -> None:
        """Nobody can be elected without them."""
        assert isinstance(group, SiteCluster)
        a_while(fate.uniform(0.3, 3), *(group.site_of(one) for one in fate.sample(group.primaries(), 2)))

    faults: dict[str, Fault] = {
        "a primary's site cut off": primary_alone,
        WITH_CALLERS: primary_with_callers,
        "a primary and half of the callers cut off from the others": primary_with_some_callers,
        "a replica's site cut off": replica_alone,
        "a primary's site cut off for less than the others notice": blink,
        "callers cut off from a primary's site": callers_alone,
        "a primary's answers to callers lost": answers_lost,
    }
    return faults | ({"two primaries' sites cut off": most_alone} if isinstance(group, SiteCluster) else {})


HOT = ["counter", "swapped"]  # keys that everybody uses: their slots move, too


def moving_faults(cluster: ClusterGroup) -> dict[str, Fault]:
    def slots_move(fate: random.Random, _: Crew) -> None:
        """A few slots go to another primary, one after the other; each is half here and half there for a while."""
        to = fate.choice(cluster.primaries())
        slots = [fate.randrange(SLOTS) for _ in range(fate.randrange(40))]
        slots += [slot_of(f"chaos:{fate.choice(HOT)}")]
        for slot in slots:
            old = cluster.owner(slot)
            if old is to:
                continue
            cluster.begin_move(slot, to)
            keys = old.cli("CLUSTER", "GETKEYSINSLOT", slot, 1000)
            if keys:
                cluster.move_keys(slot, to, fate.sample(keys, (len(keys) + 1) // 2))
            time.sleep(fate.uniform(0, 0.02))
            cluster.move_keys(slot, to)
            time.sleep(fate.uniform(0, 0.02))
            cluster.finish_move(slot, to)

    return {"slots moved": slots_move}


def cluster_faults(cluster: ClusterGroup) -> dict[str, Fault]:
    def revived() -> bool:
        cluster.revive()
        return True

    def revive() -> None:
        """Who takes slots in hand while primaries change may be refused: then again."""
        until(revived, timeout=120)

    def killed(fate: random.Random, _: Crew) -> None:
        cluster.kill_primary(fate.choice(cluster.primaries()))
        revive()

    def cut_off_and_killed(fate: random.Random, _: Crew) -> None:
        primary = fate.choice(cluster.primaries())
        cut = cluster.cut_off(primary)
        time.sleep(fate.uniform(0.1, 0.8))
        cluster.kill_primary(primary)
        cluster.let_follow(cut)
        revive()

    def cut_off_for_a_while(fate: random.Random, _: Crew) -> None:
        cut = cluster.cut_off(fate.choice(cluster.primaries()))
        time.sleep(fate.uniform(0.1, 0.8))
        cluster.let_follow(cut)

    def frozen(fate: random.Random, _: Crew) -> None:
        node = fate.choice(cluster.primaries())
        freeze(node, fate.uniform(0.4, 3.2))
        cluster.wait_until_whole()

    def by_hand(fate: random.Random, _: Crew) -> None:
        cluster.fail_over(fate.choice(cluster.primaries()))
        cluster.wait_until_whole()

    return {
        ONE_KILLED_AHEAD: cut_off_and_killed,
        "a primary killed": killed,
        "a primary frozen": frozen,
        "failover by hand": by_hand,
        "a replica cut off for a while": cut_off_for_a_while,
        "connections and scripts gone": lambda fate, _: vanish(fate.choice(cluster.primaries())),
        **moving_faults(cluster),
    }


def redis_faults(server: RedisServer, clocks: Clocks) -> dict[str, Fault]:
    def killed(_: random.Random, __: Crew) -> None:
        server.restart(kill=True)

    return {
        "killed and restarted": killed,
        "frozen": lambda fate, _: freeze(server, fate.uniform(0.1, 4)),
        "connections and scripts gone": lambda _, __: vanish(server),
        "its clock stepped": clocks.step,
    }


def kill_a_worker(fate: random.Random, crew: Crew) -> None:
    worker = fate.choice(crew.members)
    if worker.process and worker.process.returncode is None:
        try:
            os.kill(worker.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        crew.tally.counts["workers we killed"] += 1


def sqlite_faults(clocks: Clocks) -> dict[str, Fault]:
    return {"a process killed": kill_a_worker, "the clock stepped": clocks.step}


def full(disk: Disk, mend: Callable[[], None]) -> Fault:
    def fault(fate: random.Random, _: Crew) -> None:
        disk.fill(leave=fate.choice([0, 4096, 65536, 300_000]))
        # What others let go of is taken, too.
        end = time.monotonic() + fate.uniform(0.2, 2)
        while time.monotonic() < end:
            time.sleep(0.05)
        disk.clear()
        mend()

    return fault


def redis_disk_faults(server: RedisServer, disk: Disk) -> dict[str, Fault]:
    def mend() -> None:
        """With appendfsync always it ends rather than acknowledge what it cannot keep; somebody starts it again."""
        time.sleep(0.1)
        try:
            server.cli("PING")
        except (OSError, ReplyError):
            server.restart(kill=True)

    def killed(_: random.Random, __: Crew) -> None:
        server.restart(kill=True)

    return {"disk full": full(disk, mend), "killed and restarted": killed}


def sqlite_disk_faults(disk: Disk) -> dict[str, Fault]:
    return {"disk full": full(disk, lambda: None), "a process killed": kill_a_worker}
