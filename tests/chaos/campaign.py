"""Processes of both hosts under load while servers are killed, frozen, cut off, failed over and restarted; every answer
is kept, and promises are counted. See README.md.

    ./run chaos [--seconds 45] [--seed N] [--only sentinel,control,redis,sqlite] [--save bench/results/chaos.md]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faults.sentinels import SentinelGroup
from faults.servers import RedisServer

HERE = Path(__file__).resolve().parent
PYTHON_WORKERS = NODE_WORKERS = 4
CODES, OLD, COUNTS, PEOPLE = 150, 80, 10, 4  # of each batch


class Gone(Exception):
    """The worker was killed."""


class Worker:
    def __init__(self, host: str, url: str) -> None:
        self.host, self.url = host, url
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = [sys.executable, HERE / "worker.py"] if self.host == "python" else ["node", HERE / "worker.cjs"]
        self.process = await asyncio.create_subprocess_exec(
            *map(str, program), self.url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24
        )

    async def tell(self, what: str, **order: Any) -> dict[str, Any]:
        process = self.process
        assert process
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps({"do": what, **order}).encode() + b"\n")
            await process.stdin.drain()
            line = await asyncio.wait_for(process.stdout.readline(), 180)
        except ConnectionError:
            line = b""
        if not line:
            raise Gone
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def kill(self) -> None:
        if self.process and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)  # Process.kill() may reap it behind asyncio's back
            await self.process.wait()

    async def stop(self) -> None:
        if self.process and self.process.returncode is None:
            assert self.process.stdin
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), 30)
            except TimeoutError:
                await self.kill()


@dataclass
class Tally:
    """What was seen."""

    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Campaign:
    def __init__(self, url: str, seed: int, nemesis: Callable[[Campaign], Awaitable[None]]) -> None:
        self.workers = [Worker("python", url) for _ in range(PYTHON_WORKERS)] + [
            Worker("node", url) for _ in range(NODE_WORKERS)
        ]
        self.random = random.Random(seed)
        self.nemesis = nemesis
        self.tally = Tally()
        self.spent: list[str] = []
        self.numbers: set[int] = set()
        self.dead: list[str] = []

    async def everybody(self, what: str, each: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        """What those who live have answered; one that was killed has answered nothing, and another takes its place."""

        async def one(index: int) -> dict[str, Any]:
            try:
                return await self.workers[index].tell(what, **each(index))
            except Gone:
                self.tally.counts["workers killed"] += 1
                await self.workers[index].kill()
                await self.workers[index].start()
                return {"gone": True}

        answers = await asyncio.gather(*(one(index) for index in range(len(self.workers))))
        for answer in answers:
            self.tally.counts["calls asked again"] += answer.get("retries", 0)
            self.tally.wrong += answer.get("wrong", [])
        return answers

    def sample(self, things: list[str], count: int) -> list[str]:
        """Mostly of late: that is what a failover undoes."""
        late = things[-5 * count :]
        early = things[: -5 * count]
        chosen = self.random.sample(late, min(count - count // 4, len(late)))
        return chosen + self.random.sample(early, min(count // 4, len(early)))

    async def batch(self, number: int) -> None:
        counts = self.tally.counts
        codes = [f"{number}-{index}" for index in range(CODES)]
        parts = [codes[index :: len(self.workers)] for index in range(len(self.workers))]
        issued = await self.everybody("issue", lambda index: {"codes": parts[index]})
        kept = {code for answer in issued for code in answer.get("set", [])}

        old = self.sample(self.spent, OLD)
        popped = await self.everybody("pop", lambda _: {"codes": codes + old})
        unsure = any("gone" in answer for answer in popped)
        winners: defaultdict[str, int] = defaultdict(int)
        unknown: set[str] = set()
        for answer in popped:
            unknown.update(answer.get("unknown", []))
            for code in answer.get("won", []):
                winners[code] += 1
        counts["pops"] += (CODES + len(old)) * len(self.workers)
        counts["codes with two winners"] += sum(winners[code] > 1 for code in codes)
        counts["codes that came back"] += sum(winners[code] > 0 for code in old)
        counts["codes lost"] += sum(winners[code] == 0 and code not in unknown and not unsure for code in kept)
        self.spent += [code for code in codes if winners[code]]

        told = await self.everybody("incr", lambda _: {"key": "counter", "times": COUNTS})
        numbers = [one for answer in told for one in answer.get("numbers", [])]
        counts["increments"] += len(numbers)
        counts["numbers given twice"] += len(numbers) - len(set(numbers) - self.numbers)
        self.numbers.update(numbers)

        people = [f"person-{number}-{index}" for index in range(PEOPLE)]
        signed = await self.everybody("sign_up", lambda _: {"people": people})
        for person in people:
            ids = {answer["ids"][person] for answer in signed if "ids" in answer} - {"unknown", "there"}
            counts["people with two accounts"] += len(ids) > 1
        counts["sign-ups"] += PEOPLE * len(self.workers)

        tokens = {index: [f"token-{number}-{index}-{one}" for one in range(2)] for index in range(len(self.workers))}
        ended = await self.everybody(
            "log_out", lambda index: {"user": f"user-{number}-{index}", "tokens": tokens[index]}
        )
        for index, answer in enumerate(ended):
            if answer.get("revoked"):
                self.dead += tokens[index]
                counts["log-outs"] += 1
        sample = self.sample(self.dead, OLD)
        for answer in await self.everybody("alive", lambda _: {"tokens": sample}):
            counts["sessions alive after log-out"] += len(answer.get("alive", []))
        counts["batches"] += 1

    async def run(self, seconds: float) -> Tally:
        await asyncio.gather(*(worker.start() for worker in self.workers))
        over = asyncio.Event()
        faults = asyncio.create_task(self.trouble(over))
        end = time.monotonic() + seconds
        try:
            number = 0
            while time.monotonic() < end:
                await self.batch(number)
                number += 1
        finally:
            over.set()
            await faults  # what it has begun it mends
            await asyncio.gather(*(worker.stop() for worker in self.workers))
        return self.tally

    async def trouble(self, over: asyncio.Event) -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self.random.uniform(0.2, 1.0))
            if not over.is_set():
                await self.nemesis(self)


# ------------------------------------------------------------------------------------------------------------- nemeses


async def off(call: Callable[..., Any], *arguments: Any) -> Any:
    """A step that blocks, on a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)


def kill_primary(group: SentinelGroup, first_cut_off: bool, linger: float) -> None:
    cut = group.cut_off() if first_cut_off else []
    time.sleep(linger)
    group.kill_primary()
    group.let_follow(cut)
    group.revive()


def freeze(server: RedisServer, seconds: float) -> None:
    server.pause()
    time.sleep(seconds)
    server.resume()


def sentinel_nemesis(group: SentinelGroup, kinds: list[str]) -> Callable[[Campaign], Awaitable[None]]:
    async def strike(campaign: Campaign) -> None:
        kind = campaign.random.choice(kinds)
        linger = campaign.random.uniform(0.1, 0.8)
        campaign.tally.faults[kind] += 1
        if kind == "primary killed":
            await off(kill_primary, group, False, 0.0)
        elif kind == "replicas cut off, then primary killed":
            await off(kill_primary, group, True, linger)
        elif kind == "replicas cut off for a while":
            cut = await off(group.cut_off)
            await asyncio.sleep(linger)
            await off(group.let_follow, cut)
        elif kind == "primary frozen":
            await off(freeze, group.primary(), 4 * linger)
            await off(group.wait_until_whole)
        elif kind == "failover by hand":
            await off(group.fail_over)
            await off(group.wait_until_whole)
        elif kind == "a Sentinel killed":
            watcher = campaign.random.choice(group.sentinels)
            await off(watcher.kill)
            await asyncio.sleep(linger)
            await off(group.revive)
        else:
            await off(
                lambda: (
                    group.primary().cli("SCRIPT", "FLUSH"),
                    group.primary().cli("CLIENT", "KILL", "TYPE", "normal"),
                )
            )

    return strike


def redis_nemesis(server: RedisServer) -> Callable[[Campaign], Awaitable[None]]:
    async def strike(campaign: Campaign) -> None:
        kind = campaign.random.choice(["killed and restarted", "frozen", "connections and scripts gone"])
        campaign.tally.faults[kind] += 1
        if kind == "frozen":
            await off(freeze, server, campaign.random.uniform(0.1, 4.0))
        elif kind == "killed and restarted":
            await off(lambda: server.restart(kill=True))
        else:
            await off(lambda: (server.cli("SCRIPT", "FLUSH"), server.cli("CLIENT", "KILL", "TYPE", "normal")))

    return strike


async def kill_a_worker(campaign: Campaign) -> None:
    campaign.tally.faults["a process killed"] += 1
    await campaign.random.choice(campaign.workers).kill()


# ------------------------------------------------------------------------------------------------------------ campaigns

PROMISES = [
    "codes with two winners",
    "codes that came back",
    "codes lost",
    "numbers given twice",
    "people with two accounts",
    "sessions alive after log-out",
]


@dataclass
class Setting:
    name: str
    about: str
    excused: tuple[str, ...] = ()  # what this setting does not promise
    shows: tuple[str, ...] = ()  # a control: at least one of these must be seen


SETTINGS = {
    "sentinel": Setting(
        "Redis, Sentinel, durable=2",
        "a primary, two replicas, three Sentinels (down-after 0.5 s)",
        # A plain set waits for no replica.
        excused=("codes lost",),
    ),
    "control": Setting(
        "the same without durable (control)",
        "the replicas are cut off before the primary is killed: what Redis promises by itself",
        excused=tuple(PROMISES),
        shows=("codes with two winners", "codes that came back", "numbers given twice", "sessions alive after log-out"),
    ),
    "redis": Setting("Redis, one server", "appendonly, appendfsync always"),
    "sqlite": Setting("SQLite", "one file"),
}


async def campaign_of(which: str, seed: int, seconds: float, folder: Path) -> Tally:
    if which in ("sentinel", "control"):
        kinds = ["replicas cut off, then primary killed"]
        if which == "sentinel":
            kinds += [
                "primary killed",
                "primary frozen",
                "failover by hand",
                "a Sentinel killed",
                "replicas cut off for a while",
                "connections and scripts gone",
            ]
        with SentinelGroup(down_after_ms=500, password="campaign", folder=folder) as group:
            url = group.url(durable="2" if which == "sentinel" else "0")
            return await Campaign(url, seed, sentinel_nemesis(group, kinds)).run(seconds)
    if which == "redis":
        with RedisServer(persistence="aof-always", folder=folder) as server:
            return await Campaign(server.url(), seed, redis_nemesis(server)).run(seconds)
    return await Campaign(f"sqlite:{folder}/chaos.db", seed, kill_a_worker).run(seconds)


def verdict(setting: Setting, tally: Tally) -> list[str]:
    """What is wrong with it."""
    broken = [
        f"{name}: {tally.counts[name]}" for name in PROMISES if tally.counts[name] and name not in setting.excused
    ]
    broken += [f"an error that no fault explains: {text}" for text in tally.wrong[:5]]
    if setting.shows and not any(tally.counts[name] for name in setting.shows):
        broken.append("the control has shown nothing: the campaign proves nothing")
    if (died := tally.counts["workers killed"] - tally.faults["a process killed"]) > 0:
        broken.append(f"workers that died by themselves: {died}")
    if not tally.counts["batches"] or not tally.faults:
        broken.append("nothing has happened")
    return broken


def table(results: dict[str, Tally]) -> str:
    rows = ["batches", "pops", "increments", "sign-ups", "log-outs", "calls asked again", "workers killed", *PROMISES]
    lines = ["| | " + " | ".join(SETTINGS[which].name for which in results) + " |", "| --- |" + " --- |" * len(results)]
    lines.append("| faults | " + " | ".join(f"{sum(tally.faults.values())}" for tally in results.values()) + " |")
    for row in rows:
        cells = [
            f"{tally.counts[row]:,}" + ("¹" if row in SETTINGS[which].excused and tally.counts[row] else "")
            for which, tally in results.items()
        ]
        if row in PROMISES or any(cell != "0" for cell in cells):
            lines.append(f"| {'**' + row + '**' if row in PROMISES else row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PAGE = """# Faults

`./run chaos --seconds {seconds:g} --seed {seed}`, {day}, {cores} cores, Python {python}. {processes} processes, half
of them Python and half Node, do the same things at the same time. Every answer is kept, and whoever got none asks
again: by its receipt, or because it was not applied, or may be repeated. Bold is what must be 0.

{settings}

{table}

¹ Not promised there: a plain `set` waits for no replica, and without `durable` a failover to a replica that was cut off
undoes what it has not heard of. The control must show that, or the campaign proves nothing.
"""


def told(faults: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(faults.items()))


def page(seconds: float, seed: int, results: dict[str, Tally], shown: str) -> str:
    lines = []
    for which, tally in results.items():
        setting = SETTINGS[which]
        lines.append(f"- **{setting.name}**: {setting.about}. Faults: {told(tally.faults)}.")
    return PAGE.format(
        seconds=seconds,
        seed=seed,
        day=f"{datetime.now(UTC):%Y-%m-%d}",
        cores=os.cpu_count(),
        python=platform.python_version(),
        processes=PYTHON_WORKERS + NODE_WORKERS,
        settings="\n".join(lines),
        table=shown,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./run chaos", description="A campaign of faults; prints what was promised and what was seen."
    )
    parser.add_argument("--seconds", type=float, default=45, help="for each setting (45)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="of the faults and samples")
    parser.add_argument("--only", default=",".join(SETTINGS), help=f"some of {','.join(SETTINGS)}")
    parser.add_argument("--save", type=Path, help="writes the table there, too")
    given = parser.parse_args()
    chosen = given.only.split(",")
    if unknown := set(chosen) - set(SETTINGS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(
        f"seed {given.seed}, {given.seconds:g} s each, {PYTHON_WORKERS} processes of Python and {NODE_WORKERS} of Node",
        flush=True,
    )
    results: dict[str, Tally] = {}
    failed = 0
    for which in chosen:
        folder = Path(tempfile.mkdtemp(prefix="cf-chaos-"))
        try:
            results[which] = asyncio.run(campaign_of(which, given.seed, given.seconds, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        broken = verdict(SETTINGS[which], results[which])
        failed += bool(broken)
        print(f"{'FAIL' if broken else 'ok'} {SETTINGS[which].name}: {told(results[which].faults)}", flush=True)
        for line in broken:
            print(f"    {line}", flush=True)
    shown = table(results)
    print(f"\n{shown}\n")
    if given.save:
        given.save.write_text(page(given.seconds, given.seed, results, shown))
    return 1 if failed else 0


sys.exit(main())
