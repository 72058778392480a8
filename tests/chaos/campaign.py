"""Processes of both hosts under load while servers are killed, frozen, cut off, failed over and restarted; every answer
is kept, and promises are counted. See README.md.

    ./run chaos [--seconds 30] [--seed N] [--only sentinel,control,...] [--pops N] [--failovers N] [--save PATH]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults.build import built
from faults.clusters import ClusterGroup
from faults.sentinels import SentinelGroup
from faults.servers import RedisServer

from chaos import failovers, nemeses
from chaos.crew import NODE_WORKERS, PYTHON_WORKERS, Crew, Tally
from chaos.nemeses import KILLED_AHEAD, ONE_KILLED_AHEAD, WITH_CALLERS, ClockedCluster, ClockedGroup, only, with_clocks
from chaos.network import Disk, SiteCluster, Sited, SiteGroup, enter
from chaos.promises import PROMISES, Campaign, Fault
from chaos.results import save, words


@dataclass
class Scene:
    """Where it happens."""

    url: str
    faults: dict[str, Fault]
    environment: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)  # what starts half of the callers where they are


Make = Callable[[Path], AbstractContextManager[Scene]]


@dataclass
class Setting:
    name: str
    about: str
    make: Make
    control: bool = False  # promises nothing, but must show what the others are spared
    plain_sets_are_kept: bool = True
    namespaces: bool = False  # cannot be without them
    no_errors: bool = False  # nothing there excuses any


def group(
    kind: Callable[..., Any], faults: Callable[[Any], dict[str, Fault]], durable: str | None, **options: Any
) -> Make:
    """A Sentinel group or a cluster."""

    @contextmanager
    def scene(folder: Path) -> Iterator[Scene]:
        with kind(password="campaign", folder=folder, **options) as made:
            elsewhere = made.more_callers.inside if isinstance(made, Sited) else []
            asked = {} if durable is None else {"durable": durable}
            yield Scene(made.url(**asked), faults(made), elsewhere=elsewhere)

    return scene


def watched(kind: Callable[..., Any], faults: Callable[[Any], dict[str, Fault]], durable: str) -> Make:
    return group(kind, faults, durable, down_after_ms=500)


@contextmanager
def redis(folder: Path) -> Iterator[Scene]:
    clocks = nemeses.Clocks(folder / "clock")
    with RedisServer(persistence="aof-always", folder=folder, clock=folder / "clock") as server:
        yield Scene(server.url(), nemeses.redis_faults(server, clocks))


@contextmanager
def redis_disk(folder: Path) -> Iterator[Scene]:
    disk = Disk(folder / "disk")
    try:
        with RedisServer(persistence="aof-always", folder=folder, config={"dir": str(disk.folder)}) as server:
            yield Scene(server.url(), nemeses.redis_disk_faults(server, disk))
    finally:
        disk.close()


@contextmanager
def sqlite(folder: Path) -> Iterator[Scene]:
    clocks = nemeses.Clocks(folder / "clock")
    staged = {"LD_PRELOAD": str(built("clock")), "COUNTERFOIL_CLOCK_FILE": str(folder / "clock")}
    yield Scene(f"sqlite:{folder}/chaos.db", nemeses.sqlite_faults(clocks), staged)


@contextmanager
def sqlite_disk(folder: Path) -> Iterator[Scene]:
    disk = Disk(folder / "disk")
    try:
        yield Scene(f"sqlite:{disk.folder}/chaos.db", nemeses.sqlite_disk_faults(disk))
    finally:
        disk.close()


GROUP = "a primary, two replicas, three Sentinels (down-after 0.5 s)"
CLUSTER = "three primaries and a replica of each (node timeout 0.8 s)"
SETTINGS = {
    "sentinel": Setting(
        "Sentinel, durable=2",
        f"Redis: {GROUP}",
        watched(ClockedGroup, with_clocks(nemeses.sentinel_faults), "2"),
        plain_sets_are_kept=False,
    ),
    "control": Setting(
        "control: Sentinel, durable=0",
        "the same, and the replicas are cut off before the primary is killed",
        watched(SentinelGroup, only(KILLED_AHEAD, nemeses.sentinel_faults), "0"),
        control=True,
    ),
    "partition": Setting(
        "partitions, durable=2",
        "the same three on three machines (network namespaces), the callers on two more",
        watched(SiteGroup, nemeses.partition_faults, "2"),
        plain_sets_are_kept=False,
        namespaces=True,
    ),
    "split": Setting(
        "control: partitions, durable=0",
        "the primary is cut off from replicas and Sentinels, not from the callers",
        watched(SiteGroup, only(WITH_CALLERS, nemeses.partition_faults), "0"),
        control=True,
        namespaces=True,
    ),
    "cluster": Setting(
        "Cluster, durable=1",
        f"Redis: {CLUSTER}",
        group(ClockedCluster, with_clocks(nemeses.cluster_faults), "1"),
        plain_sets_are_kept=False,
    ),
    "cluster-control": Setting(
        "control: Cluster, durable=0",
        "the same, and a replica is cut off before its primary is killed",
        group(ClusterGroup, only(ONE_KILLED_AHEAD, nemeses.cluster_faults), "0"),
        control=True,
    ),
    "cluster-partition": Setting(
        "Cluster, partitions, durable=1",
        "the same six on six machines (network namespaces), the callers on two more",
        group(SiteCluster, nemeses.partition_faults, "1"),
        plain_sets_are_kept=False,
        namespaces=True,
    ),
    "cluster-split": Setting(
        "control: Cluster, partitions, durable=0",
        "a primary is cut off from all other servers, not from the callers",
        group(SiteCluster, only(WITH_CALLERS, nemeses.partition_faults), "0"),
        control=True,
        namespaces=True,
    ),
    "moving": Setting(
        "slots that move",
        "the same cluster, nothing else happens to it",
        # Nothing that is only slow, as a machine under load may be, changes its primaries.
        group(ClusterGroup, nemeses.moving_faults, None, node_timeout_ms=10_000),
        no_errors=True,
    ),
    "redis": Setting("one Redis", "appendonly, appendfsync always", redis),
    "redis-disk": Setting("one Redis, disk full", "the same, on a disk of its own", redis_disk, namespaces=True),
    "sqlite": Setting("SQLite", "one file, eight processes", sqlite),
    "sqlite-disk": Setting("SQLite, disk full", "the same, on a disk of its own", sqlite_disk, namespaces=True),
}

# What a control must show, at least one of them.
SHOWN = ["codes with two winners", "codes that came back", "locks held by two", "numbers given twice"]
SHOWN += ["sessions alive after log-out"]
KEPT_BY_ALL = ["calls that outlived their deadline"]  # a control, too


async def campaign_of(setting: Setting, tally: Tally, seed: int, seconds: float, pops: int, folder: Path) -> None:
    with setting.make(folder) as scene:
        crew = Crew(scene.url, tally, environment=scene.environment, elsewhere=scene.elsewhere)
        await Campaign(crew, seed, scene.faults, setting.plain_sets_are_kept).run(seconds, pops)


def verdict(setting: Setting, tally: Tally, pops: int) -> list[str]:
    """What is wrong with it."""
    promised = KEPT_BY_ALL if setting.control else PROMISES
    broken = [f"{name}: {tally.counts[name]}" for name in promised if tally.counts[name]]
    broken += [f"late: {text}" for text in tally.late[:8]]
    if setting.no_errors and tally.errors:
        broken.append(f"errors: {told(tally.errors)}")
    broken += [f"an error that no fault explains: {text}" for text in tally.wrong[:5]]
    if setting.control and not any(tally.counts[name] for name in SHOWN):
        broken.append("the control has shown nothing: the campaign proves nothing")
    if (died := tally.counts["workers killed"] - tally.counts["workers we killed"]) > 0:
        broken.append(f"workers that died by themselves: {died}")
    if not tally.counts["batches"] or not tally.faults or tally.counts["contested pops"] < pops:
        broken.append("not enough has happened")
    return broken


NOBODY = "codes that nobody won (unacknowledged, undone plain set, or unanswered pop)"
WORK = [
    "seconds",
    "batches",
    "contested pops",
    "codes won by one",
    NOBODY,
    "pops never answered",
    "increments",
    "locks",
]
WORK += ["values replaced", "sign-ups", "log-outs", "sets that said kept", "sets that said not_applied"]
WORK += ["sets that said unknown", "sets that said applied", "calls", "calls asked again", "workers killed"]


def table(results: dict[str, Tally], promises: list[str]) -> str:
    """A row for each figure, a column for each setting."""
    lines = ["| | " + " | ".join(SETTINGS[which].name for which in results) + " |", "| --- |" + " --- |" * len(results)]
    lines.append("| faults | " + " | ".join(f"{tally.faults.total()}" for tally in results.values()) + " |")
    for row in [*WORK, *promises]:
        cells = [
            f"{tally.counts[row]:,}"
            + ("¹" if SETTINGS[which].control and row in PROMISES and tally.counts[row] else "")
            for which, tally in results.items()
        ]
        if row in promises or any(cell != "0" for cell in cells):
            lines.append(f"| {'**' + row + '**' if row in PROMISES else row} | " + " | ".join(cells) + " |")
    held_back = (
        f"{sum(n for what, n in tally.errors.items() if what.endswith(' applied')):,}" for tally in results.values()
    )
    lines.append("| answers held back: the replicas had not heard | " + " | ".join(held_back) + " |")
    late = (f"{max(tally.latest, 0):.2f} s" for tally in results.values())
    lines.append("| the latest call, after its deadline of 3 s | " + " | ".join(late) + " |")
    stood_still = (f"{tally.stood_still:.2f} s" for tally in results.values())
    return "\n".join([*lines, "| the machine stood still for at most | " + " | ".join(stood_still) + " |"])


def told(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def section(setting: Setting, tally: Tally) -> str:
    errors = told(tally.errors) or "none"
    return f"- **{setting.name}**: {setting.about}. Faults: {told(tally.faults)}. Errors of single calls: {errors}."


PAGE = """`./run chaos {words}`, {day}, {cores} cores, Python {python}. {processes} processes,
half of them Python and half Node, do the same things at the same time. Every answer is kept, and whoever got none asks
again: by its receipt, or because it was not applied, or may be repeated. Bold is what must be 0.

{table}

{note}{settings}
"""
NOTE = """¹ Not promised there: with `durable=0` a failover undoes what the replica has not heard of that it promotes.
The control must show it, or the campaign proves nothing.

"""


def page(seed: int, promises: list[str], results: dict[str, Tally]) -> str:
    return PAGE.format(
        words=words(seed),
        day=f"{datetime.now(UTC):%Y-%m-%d}",
        cores=os.cpu_count(),
        python=platform.python_version(),
        processes=PYTHON_WORKERS + NODE_WORKERS,
        settings="\n".join(section(SETTINGS[which], tally) for which, tally in results.items()),
        note=NOTE if any(SETTINGS[which].control for which in results) else "",
        table=table(results, promises),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./run chaos", description="A campaign of faults; prints what was promised and what was seen."
    )
    parser.add_argument("--seconds", type=float, default=30, help="for each setting (30)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="of the faults and samples")
    parser.add_argument("--only", default="", help=f"some of {','.join(SETTINGS)}")
    parser.add_argument("--pops", type=int, default=0, metavar="N", help="so many contested pops and nothing else")
    parser.add_argument(
        "--failovers", type=int, default=0, metavar="N", help="so many, and how long calls took after them"
    )
    parser.add_argument(
        "--save", type=Path, help="puts the table into this file, in the place of the last one of its kind"
    )
    given = parser.parse_args()
    able = ["sentinel", "cluster"] if given.failovers else list(SETTINGS)
    chosen = given.only.split(",") if given.only else able
    if unknown := set(chosen) - set(able):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    why = enter("chaos.campaign")
    if why and (needed := [which for which in chosen if SETTINGS[which].namespaces]):
        parser.error(f"no namespaces here ({why}); leave out {','.join(needed)}: --only")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is removed
    print(f"seed {given.seed}, {PYTHON_WORKERS} processes of Python and {NODE_WORKERS} of Node", flush=True)
    if given.failovers:
        return failovers.main(given.failovers, given.seed, chosen, given.save)
    results: dict[str, Tally] = {}
    failed = 0
    for which in chosen:
        folder = Path(tempfile.mkdtemp(prefix="cf-chaos-"))
        tally = results[which] = Tally()
        ended = []
        try:
            asyncio.run(campaign_of(SETTINGS[which], tally, given.seed, given.seconds, given.pops, folder))
        except Exception as error:  # the others have their turn, and the table its figures
            traceback.print_exc()
            ended = [f"it was broken off: {type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        broken = ended + verdict(SETTINGS[which], tally, given.pops)
        failed += bool(broken)
        print(f"{'FAIL' if broken else 'ok'} {SETTINGS[which].name}: {told(results[which].faults)}", flush=True)
        for line in broken:
            print(f"    {line}", flush=True)
        for kind, count in sorted(results[which].errors.items()):
            print(f"    {count} {kind}: {results[which].texts.get(kind, '')}", flush=True)
    promises = [name for name in PROMISES if "codes" in name or "deadline" in name] if given.pops else PROMISES
    print(f"\n{table(results, promises)}\n")
    if given.save:
        title = "Contested pops" if given.pops else SETTINGS[chosen[0]].name if len(chosen) == 1 else "All promises"
        save(given.save, title, page(given.seed, promises, results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
