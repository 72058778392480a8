"""The processes that do the work: worker.py and worker.cjs, each told what to do by lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON_WORKERS = NODE_WORKERS = 4
LATE = 2.0  # seconds: later than its deadline is what this machine's load does not explain


@dataclass
class Tally:
    """What was seen."""

    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)  # of each kind of error the last one's
    wrong: list[str] = field(default_factory=list)
    latest: float = 0.0  # seconds behind its deadline
    late: list[str] = field(default_factory=list)  # what there is to know about calls that were later than they may be
    stood_still: float = 0.0  # seconds in which the campaign itself did not get on: the machine's, and nobody's promise


class Gone(Exception):
    """The worker was killed."""


class Worker:
    def __init__(
        self, host: str, url: str, options: dict[str, Any], environment: dict[str, str], inside: Sequence[str]
    ) -> None:
        self.host, self.url, self.options, self.environment, self.inside = host, url, options, environment, inside
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = [sys.executable, HERE / "worker.py"] if self.host == "python" else ["node", HERE / "worker.cjs"]
        self.process = await asyncio.create_subprocess_exec(
            *self.inside,
            *map(str, program),
            self.url,
            json.dumps(self.options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,
            env=os.environ | self.environment,
        )

    async def tell(self, what: str, **order: Any) -> dict[str, Any]:
        process = self.process
        assert process
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps({"do": what, **order}).encode() + b"\n")
            await process.stdin.drain()
            line = await asyncio.wait_for(process.stdout.readline(), 300)
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


class Crew:
    """Half of them Python, of which one over the blocking store; half of them Node. Half of each are started by
    `elsewhere`."""

    def __init__(
        self,
        url: str,
        tally: Tally,
        timeout: float = 3,
        environment: dict[str, str] | None = None,
        elsewhere: Sequence[str] = (),
    ) -> None:
        hosts = ["python"] * PYTHON_WORKERS + ["node"] * NODE_WORKERS
        self.tally = tally
        self.members = [
            Worker(
                host,
                url,
                {"timeout": timeout, "threads": number == 0},
                environment or {},
                elsewhere if number % 2 else (),
            )
            for number, host in enumerate(hosts)
        ]

    def __len__(self) -> int:
        return len(self.members)

    async def start(self) -> None:
        self.watch = asyncio.create_task(self.watched())
        await asyncio.gather(*(worker.start() for worker in self.members))

    async def stop(self) -> None:
        self.watch.cancel()
        await asyncio.gather(*(worker.stop() for worker in self.members))

    async def watched(self) -> None:
        """How long the machine stands still: then a deadline cannot be kept by anybody."""
        while True:
            start = time.monotonic()
            await asyncio.sleep(0.05)
            self.tally.stood_still = max(self.tally.stood_still, time.monotonic() - start - 0.05)

    async def everybody(self, what: str, each: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        """What those who live have answered; one that was killed has answered nothing, and another takes its place."""

        async def one(index: int) -> dict[str, Any]:
            try:
                return await self.members[index].tell(what, **each(index))
            except Gone:
                self.tally.counts["workers killed"] += 1
                await self.members[index].kill()
                await self.members[index].start()
                return {"gone": True}

        answers = await asyncio.gather(*(one(index) for index in range(len(self.members))))
        for answer in answers:
            self.tally.counts["calls"] += answer.get("calls", 0)
            self.tally.counts["calls asked again"] += answer.get("retries", 0)
            late = answer.get("late", 0.0)
            self.tally.latest = max(self.tally.latest, late)
            if late > LATE + self.tally.stood_still:
                self.tally.counts["calls that outlived their deadline"] += 1
                still, cpu = answer["stood_still"]
                self.tally.late.append(
                    f"{late:.1f} s, {answer['latest']}; its process stood still {still:.1f} s, worked {cpu:.1f} s of it"
                )
            self.tally.wrong += answer.get("wrong", [])
            self.tally.errors.update(answer.get("errors", {}))
            self.tally.texts.update(answer.get("texts", {}))
        return answers
