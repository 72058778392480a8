"""Batches of work that all processes do at once, and what must never come of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from chaos.crew import Crew

CODES, OLD, COUNTS, LOCKS, SWAPS, PEOPLE, ONCE = 150, 80, 10, 20, 3, 4, 20  # of each batch
ONLY_CODES = 400  # where a batch is nothing but pops
YOUNG = 200.0  # seconds: a third of what a lock lives, since clocks are stepped

# What is counted, and must be 0.
PROMISES = [
    "codes with two winners",
    "codes that came back",
    "codes lost",
    "locks held by two",
    "acknowledged sets that went",
    "values with two successors",
    "numbers given twice",
    "people with two accounts",
    "people made twice",
    "people who changed or went",
    "sessions alive after log-out",
    "errors that were not true",
    "calls that outlived their deadline",
]

Fault = Callable[[random.Random, Crew], None]  # it blocks, on a thread of its own


class Lately:
    """Names of what ends by itself, as long as it certainly has not."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def add(self, names: Iterable[str], instant: float) -> None:
        self.since.update(dict.fromkeys(names, instant))

    def names(self) -> list[str]:
        oldest = time.monotonic() - YOUNG
        self.since = {name: instant for name, instant in self.since.items() if instant > oldest}
        return list(self.since)


class Campaign:
    def __init__(self, crew: Crew, seed: int, faults: dict[str, Fault], plain_sets_are_kept: bool) -> None:
        self.crew, self.tally, self.faults = crew, crew.tally, faults
        self.random, self.fate = random.Random(f"{seed} samples"), random.Random(f"{seed} faults")
        self.plain_sets_are_kept = plain_sets_are_kept
        self.spent: list[str] = []
        self.held, self.kept = Lately(), Lately()
        self.numbers: set[int] = set()
        self.values: set[str] = set()  # that have a successor
        self.ids: dict[str, str] = {}
        self.dead: list[str] = []

    def sample(self, things: list[str], count: int) -> list[str]:
        """Mostly of late: that is what a failover undoes."""
        late, early = things[-5 * count :], things[: -5 * count]
        chosen = self.random.sample(late, min(count - count // 4, len(late)))
        return chosen + self.random.sample(early, min(count // 4, len(early)))

    async def pops(self, number: int, how_many: int) -> None:
        """Everybody pops the same codes, each in an order of his own, and some that are long spent."""
        counts, crew = self.tally.counts, self.crew
        codes = [f"code-{number}-{index}" for index in range(how_many)]
        parts = [codes[index :: len(crew)] for index in range(len(crew))]
        # Every other one waits for replicas where there are any: only that is promised to be there after a failover.
        waits = {code: index // len(crew) % 2 == 0 for index, code in enumerate(codes)}
        issued = await crew.everybody(
            "issue", lambda index: {"codes": parts[index], "ways": [waits[code] for code in parts[index]]}
        )
        kept = {code for answer in issued for code in answer.get("set", []) if waits[code] or self.plain_sets_are_kept}

        old = self.sample(self.spent, OLD)
        asked = [self.random.sample(codes + old, len(codes) + len(old)) for _ in range(len(crew))]
        popped = await crew.everybody("pop", lambda index: {"codes": asked[index]})
        gone = any("gone" in answer for answer in popped)
        winners = Counter(code for answer in popped for code in answer.get("won", []))
        unknown = Counter(code for answer in popped for code in answer.get("unknown", []))
        counts["contested pops"] += len(asked[0]) * len(crew)
        counts["pops never answered"] += unknown.total()
        counts["codes won by one"] += sum(winners[code] == 1 for code in codes)
        counts["codes that nobody won (unacknowledged, undone plain set, or unanswered pop)"] += sum(
            winners[code] == 0 for code in codes
        )
        counts["codes with two winners"] += sum(winners[code] > 1 for code in codes)
        counts["codes that came back"] += sum(winners[code] > 0 for code in old)
        counts["codes lost"] += sum(winners[code] == 0 and not unknown[code] and not gone for code in kept)
        self.spent += [code for code in codes if winners[code]]

    async def locks(self, number: int) -> None:
        names = [f"lock-{number}-{index}" for index in range(LOCKS)]
        start = time.monotonic()
        old = self.sample(self.held.names(), LOCKS)
        taken = await self.crew.everybody("lock", lambda index: {"names": names + old, "me": str(index)})
        holders = Counter(name for answer in taken for name in answer.get("held", []))
        self.tally.counts["locks"] += len(names) * len(self.crew)
        self.tally.counts["locks held by two"] += sum(holders[name] > 1 for name in names)
        self.tally.counts["locks held by two"] += sum(holders[name] > 0 for name in old)
        self.held.add((name for name in names if holders[name]), start)

    async def swaps(self, number: int) -> None:
        # The first value; and the next one, where a failover has undone it (a control: it would have nothing to show).
        began = await self.crew.everybody("lock", lambda index: {"names": ["swapped"], "me": f"{number}-start-{index}"})
        self.tally.counts["locks held by two"] += number > 0 and any(answer.get("held") for answer in began)
        told = await self.crew.everybody(
            "swap", lambda index: {"key": "swapped", "me": f"{number}-{index}", "times": SWAPS}
        )
        for was in [one for answer in told for one in answer.get("swaps", [])]:
            self.tally.counts["values replaced"] += 1
            self.tally.counts["values with two successors"] += was in self.values
            self.values.add(was)

    async def counters(self) -> None:
        told = await self.crew.everybody("incr", lambda _: {"key": "counter", "times": COUNTS})
        numbers = [one for answer in told for one in answer.get("numbers", [])]
        self.tally.counts["increments"] += len(numbers)
        self.tally.counts["numbers given twice"] += len(numbers) - len(set(numbers) - self.numbers)
        self.numbers.update(numbers)

    async def people(self, number: int) -> None:
        counts = self.tally.counts
        people = [f"person-{number}-{index}" for index in range(PEOPLE)]
        rivals = [f"person-{number}-rival-{index}" for index in range(PEOPLE // 2)]
        signed = await self.crew.everybody(
            "sign_up", lambda index: {"people": people, "rivals": rivals, "me": str(index)}
        )
        for person in people + rivals:
            told = [answer["told"][person] for answer in signed if "told" in answer]
            ids = {one for one, _ in told} - {"unknown", "there"}
            counts["people with two accounts"] += len(ids) > 1
            counts["people made twice"] += sum(created for _, created in told) > 1
            if person in people and len(ids) == 1:
                self.ids[person] = ids.pop()
        counts["sign-ups"] += (len(people) + len(rivals)) * len(self.crew)
        sample = self.sample(list(self.ids), PEOPLE * 4)
        for answer in await self.crew.everybody("who", lambda _: {"people": sample}):
            for person, found in answer.get("ids", {}).items():
                counts["people who changed or went"] += found not in ("unknown", self.ids[person])

    async def sessions(self, number: int) -> None:
        tokens = {index: [f"token-{number}-{index}-{one}" for one in range(2)] for index in range(len(self.crew))}
        ended = await self.crew.everybody(
            "log_out", lambda index: {"user": f"user-{number}-{index}", "tokens": tokens[index]}
        )
        for index, answer in enumerate(ended):
            if answer.get("revoked"):
                self.dead += tokens[index]
                self.tally.counts["log-outs"] += 1
        sample = self.sample(self.dead, OLD)
        for answer in await self.crew.everybody("alive", lambda _: {"tokens": sample}):
            self.tally.counts["sessions alive after log-out"] += len(answer.get("alive", []))

    async def outcomes(self, number: int) -> None:
        """What was acknowledged is there; what an error calls not applied is not."""
        names = {index: [f"once-{number}-{index}-{one}" for one in range(ONCE)] for index in range(len(self.crew))}
        start = time.monotonic()
        told = await self.crew.everybody("once_each", lambda index: {"names": names[index]})
        said = {name: how for answer in told for name, how in answer.get("said", {}).items()}
        for how in said.values():
            self.tally.counts[f"sets that said {how}"] += 1
        old = self.sample(self.kept.names(), OLD)
        every = list(said) + old
        # Others look than those who have set them.
        seen = await self.crew.everybody("look", lambda index: {"names": every[index :: len(self.crew)]})
        there = {name for answer in seen for name in answer.get("there", [])}
        absent = {name for answer in seen for name in answer.get("absent", [])}
        for name, how in said.items():
            lie = (how == "kept" and name in absent) or (how == "not_applied" and name in there) or how == "refused"
            self.tally.counts["errors that were not true"] += lie
        self.tally.counts["acknowledged sets that went"] += len(absent.intersection(old))
        self.kept.add((name for name, how in said.items() if how == "kept"), start)

    async def batch(self, number: int) -> None:
        await self.pops(number, CODES)
        await self.counters()
        await self.locks(number)
        await self.swaps(number)
        await self.people(number)
        await self.sessions(number)
        await self.outcomes(number)
        self.tally.counts["batches"] += 1

    async def run(self, seconds: float, pops: int = 0) -> None:
        """For so long; or only pops, until there were so many."""
        await self.crew.start()
        over = asyncio.Event()
        trouble = asyncio.create_task(self.trouble(over))
        start = time.monotonic()
        number = 0
        try:
            while self.tally.counts["contested pops"] < pops if pops else time.monotonic() < start + seconds:
                if trouble.done():
                    break
                if pops:
                    await self.pops(number, ONLY_CODES)
                    self.tally.counts["batches"] += 1
                else:
                    await self.batch(number)
                number += 1
        finally:
            over.set()
            try:
                await trouble  # what it has begun it mends
            finally:
                self.tally.counts["seconds"] = round(time.monotonic() - start)
                await self.crew.stop()

    async def trouble(self, over: asyncio.Event) -> None:
        """Each kind of fault has its turn, in another order each time, so that also a short campaign has them all."""
        turns: list[str] = []
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self.fate.uniform(0.2, 1.0))
            if not over.is_set():
                turns = turns or self.fate.sample(list(self.faults), len(self.faults))
                kind = turns.pop()
                self.tally.faults[kind] += 1
                await off(self.faults[kind], self.fate, self.crew)


async def off(call: Callable[..., Any], *arguments: Any) -> Any:
    """A step that blocks, on a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)
