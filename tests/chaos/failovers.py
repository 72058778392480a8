"""So many failovers under load, and for each how long the servers took, and how long every process.

The primary is killed and frozen by turns. Every process has calls that write under way all the time, each made once,
with five seconds. A plain probe does what a client without wits would do: it asks the Sentinels for another primary,
over and over, and tries to write there; what it needs is the servers' own time. What a process needs is counted from
then until both of its calls have succeeded again. Beside that, to tell whose time it was, it is counted from when the
last of the Sentinels, or of a cluster's nodes, has heard of it; that excuses nobody."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from faults.clusters import ClusterGroup, Node, key_in, slot_of
from faults.resp import ReplyError
from faults.sentinels import SentinelGroup
from faults.servers import RedisServer

from chaos.crew import Crew, Tally
from chaos.promises import off
from chaos.results import save, words

TIMEOUT = 5.0
ALLOWED = 300.0  # ms behind the servers
LANES, PAUSE = 2, 0.01


def steady() -> int:
    """Microseconds of the clock that the workers look at, too."""
    return time.monotonic_ns() // 1000


class Servers(Protocol):
    """What fails over: the same for a group of Sentinels and for a cluster."""

    def victim(self, fate: random.Random) -> RedisServer: ...

    def lanes(self, victim: RedisServer, name: str) -> list[list[str]]:
        """Keys that the victim has, for each lane."""

    def takes_writes(self, victim: RedisServer) -> bool:
        """Whether somebody else does in its place, as a plain probe finds out."""

    def agreed(self, victim: RedisServer) -> bool:
        """Whether all who can be asked for the new one name it."""

    def mend(self) -> None: ...

    def url(self) -> str: ...


class Watched:
    """A Sentinel group."""

    def __init__(self, group: SentinelGroup) -> None:
        self.group = group

    def url(self) -> str:
        return self.group.url()

    def victim(self, fate: random.Random) -> RedisServer:
        return self.group.primary()

    def lanes(self, victim: RedisServer, name: str) -> list[list[str]]:
        return [[f"{name}-{lane}-{key}" for key in range(7)] for lane in range(LANES)]

    def takes_writes(self, victim: RedisServer) -> bool:
        for watcher in self.group.sentinels:
            port = int(watcher.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1])
            if port != victim.port:
                server = next(one for one in self.group.data if one.port == port)
                return bool(server.cli("SET", "probe", "1", "PX", 1000) == "OK")
        return False

    def agreed(self, victim: RedisServer) -> bool:
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        return all(int(watcher.cli(*words)[1]) != victim.port for watcher in self.group.sentinels)

    def mend(self) -> None:
        self.group.revive()


class Clustered:
    """One of its primaries is struck; only keys that it has are asked for."""

    def __init__(self, cluster: ClusterGroup) -> None:
        self.cluster = cluster
        self.probe = ""

    def url(self) -> str:
        return self.cluster.url()

    def victim(self, fate: random.Random) -> RedisServer:
        return fate.choice(self.cluster.primaries())

    def lanes(self, victim: RedisServer, name: str) -> list[list[str]]:
        assert isinstance(victim, Node)
        tag = key_in(self.cluster.slots_of(victim))
        self.probe = f"probe{{{tag}}}"
        return [[f"{name}-{lane}-{key}-{{{tag}}}" for key in range(7)] for lane in range(LANES)]

    def takes_writes(self, victim: RedisServer) -> bool:
        for node in self.cluster.live():
            if node is not victim:
                with suppress(ReplyError):
                    return bool(node.cli("SET", self.probe, "1", "PX", 1000) == "OK")
        return False

    def agreed(self, victim: RedisServer) -> bool:
        slot = slot_of(self.probe)
        new = self.cluster.owner(slot).id
        return all(self.cluster._owner_seen_by(node, slot) == new for node in self.cluster.live() if node is not victim)

    def mend(self) -> None:
        self.cluster.revive()


@contextmanager
def started(which: str) -> Iterator[Servers]:
    if which == "sentinel":
        with SentinelGroup(down_after_ms=500, password="campaign") as group:
            yield Watched(group)
    else:
        with ClusterGroup(password="campaign") as cluster:
            yield Clustered(cluster)


@dataclass
class Seen:
    """Of one failover, in milliseconds."""

    how: str
    servers: float
    agreed: float  # after that: until all of them say so
    behind: list[float] = field(default_factory=list)  # of each process, from when the probe could write


def first_after(ends: list[list[int]], instant: int) -> int | None:
    """When the last of the lanes had its first success. An answer that was on its way is none of the new primary's, but
    one that came before the probe's may be: those are passed over, so a process is never too quick here."""
    firsts = [next((one for one in lane if one >= instant), None) for lane in ends]
    return None if None in firsts else max(one for one in firsts if one is not None)


async def until_all(crew: Crew, instant: int) -> list[int]:
    """When each process could write again."""
    kept: list[list[list[int]]] = [[] for _ in range(len(crew))]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for index, answer in enumerate(await crew.everybody("told", lambda _: {})):
            old = kept[index] or [[] for _ in answer["ends"]]
            kept[index] = [lane + new for lane, new in zip(old, answer["ends"], strict=True)]
        found = [first_after(ends, instant) for ends in kept]
        if None not in found:
            return [one for one in found if one is not None]
        await asyncio.sleep(0.1)
    raise TimeoutError("a process has not come back")


def strike(servers: Servers, victim: RedisServer, how: str) -> tuple[int, int, int]:
    """When it was done, when somebody else takes writes, and when all who may be asked know."""
    if how == "killed":
        victim.kill()
    else:
        victim.pause()
    struck = steady()
    instants = [struck]
    for what in (servers.takes_writes, servers.agreed):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError, ReplyError):
                if what(victim):
                    break
            time.sleep(0.005)
        else:
            raise TimeoutError("there was no failover")
        instants.append(steady())
    return instants[0], instants[1], instants[2]


def working(lanes: list[list[list[str]]], index: int) -> dict[str, Any]:
    return {"lanes": lanes[index], "pause": PAUSE}


async def run(servers: Servers, count: int, seed: int, tally: Tally, say: Callable[[str], None]) -> list[Seen]:
    fate = random.Random(f"{seed} failovers")
    crew = Crew(servers.url(), tally, timeout=TIMEOUT)
    await crew.start()
    seen: list[Seen] = []
    try:
        for number in range(count):
            how = ("killed", "frozen")[number % 2]
            victim = await off(servers.victim, fate)
            lanes = [servers.lanes(victim, f"load-{index}") for index in range(len(crew))]
            await crew.everybody("work", partial(working, lanes))
            await asyncio.sleep(fate.uniform(0.3, 1.3))
            struck, back, agreed = await off(strike, servers, victim, how)
            firsts = await until_all(crew, back)
            await crew.everybody("rest", lambda _: {})
            one = Seen(how, (back - struck) / 1000, (agreed - back) / 1000, [(first - back) / 1000 for first in firsts])
            seen.append(one)
            took = f"the servers {one.servers:.0f} ms (+ {one.agreed:.0f})"
            say(f"{number + 1}: {how}, {took}, all processes + {max(one.behind):.0f} ms")
            if how == "frozen":
                await off(victim.resume)
            await off(servers.mend)
    finally:
        await crew.stop()
    return seen


def figures(values: list[float]) -> str:
    ordered = sorted(values)
    chosen = (statistics.median(ordered), ordered[len(ordered) * 99 // 100], ordered[-1])
    return " | ".join(f"{one:,.0f}" for one in chosen)


PAGE = """`./run chaos {words}`, {day}.
The primary is killed and frozen by turns. 8 processes, 4 of Python and 4 of Node, have two calls each under way that
write, with a deadline of five seconds; each is made once. A plain probe asks all who know where the primary is until it
can write there: that is the servers' own time. What the processes need is counted from then.

| milliseconds | median | 99 of 100 | most |
| --- | --- | --- | --- |
| the servers' own time | {servers} |
| behind it: all of them say so | {agreed} |
| behind it: each process ({processes:,} figures), both of its calls | {behind} |
| behind it: the last of the eight | {last} |

| | |
| --- | --- |
| calls | {calls:,} |
| **calls that were told READONLY** | {readonly} |
| **processes that needed more than {allowed:.0f} ms behind the servers' own time** | {slow} |
| of these, more than {allowed:.0f} ms also from when all of the servers said so | {behind_all} |
| **calls that outlived their deadline** | {outlived} |
| errors | {errors} |
"""


def page(seed: int, seen: list[Seen], tally: Tally) -> tuple[str, list[str]]:
    """The table, and what is wrong."""
    every = [one for failover in seen for one in failover.behind]
    slow = sum(one > ALLOWED for one in every)
    behind_all = sum(one > failover.agreed + ALLOWED for failover in seen for one in failover.behind)
    readonly = tally.errors.pop("READONLY", 0)
    errors = ", ".join(f"{what} {count:,}" for what, count in sorted(tally.errors.items())) or "none"
    outlived = tally.counts["calls that outlived their deadline"]
    text = PAGE.format(
        words=words(seed),
        day=f"{datetime.now(UTC):%Y-%m-%d}",
        servers=figures([one.servers for one in seen]),
        agreed=figures([one.agreed for one in seen]),
        processes=len(every),
        behind=figures(every),
        last=figures([max(one.behind) for one in seen]),
        calls=tally.counts["calls"],
        readonly=readonly,
        allowed=ALLOWED,
        slow=slow,
        behind_all=behind_all,
        outlived=outlived,
        errors=errors,
    )
    bad = {"READONLY": readonly, "processes that were too slow": slow, "calls that outlived their deadline": outlived}
    return text, [f"{what}: {number}" for what, number in bad.items() if number] + tally.wrong[:5]


def main(count: int, seed: int, chosen: list[str], to: Path | None) -> int:
    failed = False
    for which in chosen:
        tally = Tally()
        with started(which) as servers:
            seen = asyncio.run(run(servers, count, seed, tally, lambda line: print(line, flush=True)))
        title = f"{count} failovers of {'a Sentinel group' if which == 'sentinel' else 'a cluster'}"
        text, wrong = page(seed, seen, tally)
        print(f"\n{title}\n\n{text}")
        if to:
            save(to, title, text)
        for line in wrong:
            print(f"FAIL {line}")
        failed = failed or bool(wrong)
    return 1 if failed else 0
