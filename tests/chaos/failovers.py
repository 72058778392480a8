"""So many failovers under load, and for each how long the servers took, and how long every process.

The primary is killed and frozen by turns. Every process has calls that write under way all the time, each made once,
with five seconds. A plain probe does what a client without wits would do: it asks the Sentinels for another primary,
over and over, and tries to write there; what it needs is the servers' own time. What a process needs is counted from
then until both of its calls have succeeded again."""

from __future__ import annotations

import asyncio
import random
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from faults.resp import ReplyError
from faults.sentinels import SentinelGroup
from faults.servers import RedisServer

from chaos.crew import Crew, Tally
from chaos.promises import off

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
        """Keys that the victim has."""

    def takes_writes(self, victim: RedisServer) -> bool:
        """Whether somebody else does in its place, as a plain probe finds out."""

    def mend(self) -> None: ...

    def url(self) -> str: ...


class Watched:
    def __init__(self, group: SentinelGroup, durable: int) -> None:
        self.group, self.durable = group, durable

    def url(self) -> str:
        return self.group.url(durable=str(self.durable))

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

    def mend(self) -> None:
        self.group.revive()


@contextmanager
def sentinels(durable: int) -> Iterator[Servers]:
    folder = Path(tempfile.mkdtemp(prefix="cf-chaos-"))
    try:
        with SentinelGroup(down_after_ms=500, password="campaign", folder=folder) as group:
            yield Watched(group, durable)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Seen:
    """Of one failover, in milliseconds."""

    how: str
    servers: float
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


def strike(servers: Servers, victim: RedisServer, how: str) -> tuple[int, int]:
    """When it was done, and when somebody else takes writes."""
    if how == "killed":
        victim.kill()
    else:
        victim.pause()
    struck, end = steady(), time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError, ReplyError):
            if servers.takes_writes(victim):
                return struck, steady()
        time.sleep(0.005)
    raise TimeoutError("there was no failover")


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
            struck, back = await off(strike, servers, victim, how)
            firsts = await until_all(crew, back)
            await crew.everybody("rest", lambda _: {})
            one = Seen(how, (back - struck) / 1000, [(first - back) / 1000 for first in firsts])
            seen.append(one)
            last = max(one.behind)
            say(f"{number + 1}: {how}, the servers took {one.servers:.0f} ms, then the last process {last:.0f} ms")
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


PAGE = """## {count} failovers of {name}

`./run chaos {words}` (seed {seed}), {day}. The primary is killed and frozen by turns. 8 processes, 4 of Python and 4 of
Node, have two calls each under way that write, with a deadline of five seconds; each is made once. A plain probe asks
where the primary is until it can write there: that is the servers' own time. What the processes need is counted from
then.

| milliseconds | median | 99 of 100 | most |
| --- | --- | --- | --- |
| the servers' own time | {servers} |
| behind it: each process ({processes:,} figures), both of its calls | {behind} |
| behind it: the last of the eight | {last} |

| | |
| --- | --- |
| calls | {calls:,} |
| **calls that were told READONLY** | {readonly} |
| **processes that took more than {allowed:.0f} ms longer than the servers** | {slow} |
| **calls that outlived their deadline** | {outlived} |
| errors | {errors} |
"""


def page(name: str, seed: int, seen: list[Seen], tally: Tally) -> tuple[str, list[str]]:
    """The table, and what is wrong."""
    every = [one for failover in seen for one in failover.behind]
    slow = sum(one > ALLOWED for one in every)
    readonly = tally.errors.pop("READONLY", 0)
    errors = ", ".join(f"{what} {count:,}" for what, count in sorted(tally.errors.items())) or "none"
    outlived = tally.counts["calls that outlived their deadline"]
    text = PAGE.format(
        count=len(seen),
        name=name,
        seed=seed,
        words=shlex.join(sys.argv[1:]),
        day=f"{datetime.now(UTC):%Y-%m-%d}",
        servers=figures([one.servers for one in seen]),
        processes=len(every),
        behind=figures(every),
        last=figures([max(one.behind) for one in seen]),
        calls=tally.counts["calls"],
        readonly=readonly,
        allowed=ALLOWED,
        slow=slow,
        outlived=outlived,
        errors=errors,
    )
    bad = {"READONLY": readonly, "processes that were too slow": slow, "calls that outlived their deadline": outlived}
    return text, [f"{what}: {number}" for what, number in bad.items() if number] + tally.wrong[:5]


def main(count: int, seed: int, save: Path | None) -> int:
    tally = Tally()
    with sentinels(durable=0) as servers:
        seen = asyncio.run(run(servers, count, seed, tally, lambda line: print(line, flush=True)))
    text, wrong = page("a Sentinel group", seed, seen, tally)
    print(f"\n{text}")
    for line in wrong:
        print(f"FAIL {line}")
    if save:
        save.write_text(text)
    return 1 if wrong else 0
