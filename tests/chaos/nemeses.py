"""What happens to whom. A fault blocks, on a thread of its own, until what it has broken is whole again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from faults.clusters import SLOTS, ClusterGroup, slot_of
from faults.resp import ReplyError
from faults.sentinels import SentinelGroup, until
from faults.servers import RedisServer, write_clock

from chaos.crew import Crew
from chaos.network import CALLERS, Disk, Site, SiteGroup, ip
from chaos.promises import Fault

# Back by much, or forward by less than a receipt lives: who steps it further ends sessions and receipts, as time does.
STEPS = [-600_000, -30_000, -2_000, 1_000, 2_500]
APART = 1_500  # ms


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
        self.far = dict.fromkeys(files, 0)
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_clock(file, 0, from_now=True)

    def step(self, fate: random.Random, _: Crew) -> None:
        file = fate.choice(list(self.far))
        self.far[file] += fate.choice(STEPS)
        write_clock(file, self.far[file], from_now=True)

    def step_apart(self, fate: random.Random, _: Crew) -> None:
        """Of servers that may take each other's place: a receipt must outlive that (core/DESIGN.md)."""
        file = fate.choice(list(self.far))
        self.far[file] = fate.randint(-APART, APART)
        write_clock(file, self.far[file], from_now=True)


def sentinel_faults(group: SentinelGroup, clocks: Clocks) -> dict[str, Fault]:
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
        "replicas cut off, then primary killed": lambda fate, _: kill_primary(True, fate.uniform(0.1, 0.8)),
        "primary killed": lambda _, __: kill_primary(False, 0),
        "primary frozen": frozen,
        "failover by hand": by_hand,
        "a Sentinel killed": kill_a_sentinel,
        "replicas cut off for a while": cut_off_for_a_while,
        "connections and scripts gone": lambda _, __: vanish(group.primary()),
        "a server's clock stepped": clocks.step_apart,
    }


def control_faults(group: SentinelGroup) -> dict[str, Fault]:
    """The worst alone, so that the control shows in a short time what it has to."""
    name = "replicas cut off, then primary killed"
    return {name: sentinel_faults(group, Clocks())[name]}


def partition_faults(group: SiteGroup) -> dict[str, Fault]:
    def until_another(server: RedisServer) -> None:
        """A failover, as soon as there is one: a Sentinel that has just led one waits before the next."""
        until(lambda: group.primary() is not server and group.primary().cli("ROLE")[0] == b"master")

    def primary_alone(fate: random.Random, _: Crew) -> None:
        old = group.primary()
        site = group.site_of(old)
        site.cut_off()
        until_another(old)
        time.sleep(fate.uniform(0, 1))
        site.join()
        group.wait_until_whole()

    def primary_with_callers(fate: random.Random, _: Crew) -> None:
        """The callers reach all sites, so for a while there are two that take writes."""
        old = group.primary()
        site = group.site_of(old)
        others = [one.address for one in group.sites if one is not site]
        for address in others:
            site.cut_off_from(address)
        until_another(old)
        time.sleep(fate.uniform(0, 1))
        for address in others:
            site.join_with(address)
        group.wait_until_whole()

    def a_while(site: Site, seconds: float) -> None:
        site.cut_off()
        time.sleep(seconds)
        site.join()
        group.wait_until_whole()

    def replica_alone(fate: random.Random, _: Crew) -> None:
        replicas = [one for one in group.data if one is not group.primary()]
        a_while(group.site_of(fate.choice(replicas)), fate.uniform(0.3, 3))

    def blink(fate: random.Random, _: Crew) -> None:
        a_while(group.site_of(group.primary()), fate.uniform(0.05, 0.3))

    def callers_alone(fate: random.Random, _: Crew) -> None:
        """From the primary's site: the Sentinels see nothing wrong."""
        address = group.site_of(group.primary()).address
        ip("route", "add", "blackhole", f"{address}/32")
        time.sleep(fate.uniform(0.3, 3))
        ip("route", "delete", "blackhole", f"{address}/32")

    def answers_lost(fate: random.Random, _: Crew) -> None:
        """What the callers say arrives; what the primary's site says to them does not."""
        site = group.site_of(group.primary())
        site.cut_off_from(CALLERS)
        time.sleep(fate.uniform(0.3, 3))
        site.join_with(CALLERS)

    return {
        "primary's site cut off": primary_alone,
        "primary cut off from its replicas and Sentinels, not from callers": primary_with_callers,
        "a replica's site cut off": replica_alone,
        "primary's site cut off for less than Sentinels notice": blink,
        "callers cut off from the primary's site": callers_alone,
        "the primary's answers to callers lost": answers_lost,
    }


def split_faults(group: SiteGroup) -> dict[str, Fault]:
    name = "primary cut off from its replicas and Sentinels, not from callers"
    return {name: partition_faults(group)[name]}


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
        "a primary's replica cut off, then it is killed": cut_off_and_killed,
        "a primary killed": killed,
        "a primary frozen": frozen,
        "failover by hand": by_hand,
        "a replica cut off for a while": cut_off_for_a_while,
        "connections and scripts gone": lambda fate, _: vanish(fate.choice(cluster.primaries())),
        **moving_faults(cluster),
    }


def cluster_control_faults(cluster: ClusterGroup) -> dict[str, Fault]:
    name = "a primary's replica cut off, then it is killed"
    return {name: cluster_faults(cluster)[name]}


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
