"""The express bench: web applications with sessions, asked by autocannon. Called by bench/run.

    bench.py BUILD [--quick] [--rounds N] [--seconds S] [--only WORD] [--party PATTERN] [--match PATTERN]
             [--held N]

With --quick or a filter nothing is written to bench/results.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import Figures, OtherWork, Party, Process, Report, Table, is_partial, one_round, options_of, said_by, tell
from driver import versions as versions_of
from kept import KEYS
from servers import redis_server
from targets import NOBODY, Target, both

HERE = Path(__file__).resolve().parent
OPS = "read", "write"
DEPTHS = 1, 16, 128
HELD = 1_000_000
SECONDS = 0.6  # for each figure
LONGER = 5  # times: with many sessions held, so that garbage collections fall into it
READY = 1.0  # seconds of each operation before the first figure: until what is called often has been compiled


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Where processes that are started meanwhile are to run."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def divided() -> tuple[set[int], set[int]]:
    """One core for the application, the others for what asks it and the server. With one there is nothing to divide."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


class Load(Process):
    def run(self, port: int, path: str, connections: int, seconds: float, sessions: int) -> Figures:
        assert self.process.stdin
        words = {"port": port, "path": path, "connections": connections, "seconds": seconds, "sessions": sessions}
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        figures: Figures = json.loads(self.said())
        return figures


class App(Process):
    """One application; `load` asks it."""

    def __init__(self, words: list[str], load: Load, sessions: int, times: float, ready: float) -> None:
        super().__init__(words)
        self.tell("port")
        self.port = int(self.said())
        self.load, self.sessions, self.times = load, sessions, times
        for op in OPS:
            load.run(self.port, f"/{op}", 16, ready, sessions)

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def measure(self, op: str, depth: int, seconds: float) -> Figures | None:
        seconds *= self.times
        self.load.run(self.port, f"/{op}", depth, seconds / 2, self.sessions)  # warm-up
        self.tell("start")
        figures = self.load.run(self.port, f"/{op}", depth, seconds, self.sessions)
        self.tell("stop")
        used: Figures = json.loads(self.said())
        count = figures.pop("count")
        figures["cpu"] = used["cpu"] / count
        if self.times > 1:
            figures["longest"] = used["longest"]
        return figures


@dataclass(frozen=True)
class Where:
    build: str
    redis: str
    load: Load
    held: int
    cores: set[int]
    ready: float


def tables_of(where: Where) -> list[Table]:
    def node(url: str, sessions: int = KEYS, times: float = 1) -> Callable[[str], Party]:
        words = ["node", "--expose-gc", "--max-old-space-size=4096", str(HERE / "app.cjs")]
        words += [where.build, url, str(sessions)]

        def start(party: str) -> Party:
            with on(where.cores):
                return App([*words, party], where.load, sessions, times, where.ready)

        return start

    def python(party: str) -> Party:
        words = [sys.executable, str(HERE / "app.py"), where.redis, str(KEYS), party]
        with on(where.cores):
            return App(words, where.load, KEYS, 1, where.ready)

    def table(name: str, title: str, start: Any, parties: dict[str, str], words: str, depths: tuple[int, ...]) -> Table:
        return Table(name, title, start, parties, words, depths, "connections", OPS)

    memory = {
        "counterfoil": "counterfoil, memory",
        "MemoryStore": "MemoryStore",
        "memorystore": "memorystore",
        "none": "*no sessions*",
    }
    return [
        table("memory", "Express: memory", node("memory:"), memory, "Sessions in the application's process.", DEPTHS),
        table(
            "redis",
            "Express: Redis",
            node(where.redis),
            {
                "counterfoil": "counterfoil, Redis",
                "connect-redis": "connect-redis on node-redis",
                "MemoryStore": "*MemoryStore*",
                "none": "*no sessions*",
            },
            "Sessions in Redis; MemoryStore is what no Redis at all would be.",
            DEPTHS,
        ),
        table(
            "held",
            f"Express: memory, {where.held:,} sessions held",
            node("memory:", where.held, LONGER),
            memory,
            f"As above, with so many sessions, {LONGER} times as long. Last: the longest delay of the event loop.",
            (16,),
        ),
        table(
            "fastapi",
            "FastAPI: Redis",
            python,
            {
                "counterfoil": "counterfoil's SecondaryStorage",
                "cross-auth": "Cross Auth's RedisStorage",
                "counterfoil-aio": "counterfoil.aio's SecondaryStorage",
                "counterfoil-express": "counterfoil.express",
            },
            "The first two block: their routes run on FastAPI's threads. The others are awaited. counterfoil.express "
            "does more: it checks the cookie's signature, and touches or saves a session as Express does.",
            DEPTHS,
        ),
    ]


TARGETS = [
    *(one for depth in (16, 128) for one in both("redis", "read write", depth, "connect-redis", 1.3)),
    *(one for depth in (16, 128) for one in both("redis", "read write", depth, "MemoryStore", 0.9)),
    *(one for depth in DEPTHS for one in both("memory", "read write", depth, "MemoryStore", 1)),
    *(Target("held", op, 16, NOBODY, "longest", 10_000) for op in OPS),
    *both("held", "read write", 16, "MemoryStore", 1),
    *both("fastapi", "read write", 16, "cross-auth", 1, 1),
]

HOW = """\
Requests per second · CPU of the application per request · latency p50 / p99. All are medians; rounds: {rounds}. In a
round every party is a process of its own, asked for a while before its first figure, and the parties take turns at
every operation and number of connections.
Each figure is taken over at least {seconds} s after a warm-up of half of that. autocannon asks over connections that
are kept alive, each for its own part of the sessions. The application runs on one core, garbage collector included;
autocannon and Redis run on the others. {keys:,} sessions of 500 bytes of JSON, with a cookie of a day.

All applications are the same but for the store: express-session with `resave: false` and `saveUninitialized: false`,
one JSON response. Every request reads its session: `read` leaves it as it is, so it is touched at the end of the
response, `write` changes it, so it is saved. *No sessions* is the same application without express-session and without
any store: what Express itself takes, of requests and of stalls, on this machine.
"""


def argue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--held", type=int, help=f"sessions held where many are ({HELD:,})")


def main() -> None:
    options = options_of("express", ("memory", "redis", "held", "fastapi"), argue, SECONDS)
    ready = 0.1 if options.quick else READY
    held = options.held or (5 * KEYS if options.quick else HELD)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would be left behind
    others = OtherWork()
    cores, rest = divided()
    with on(rest), redis_server() as (port, _):
        load = Load(["node", str(HERE / "load.cjs"), options.build])
        try:
            tables = tables_of(Where(options.build, f"redis://127.0.0.1:{port}", load, held, cores, ready))
            for turn in range(options.rounds):
                one_round(tables, turn, options)
        finally:
            load.end()
    cores_busy = others.cores()
    tell("")
    server_version = said_by("redis-server", "--version").split(" v=")[-1].split()[0]
    parts = versions_of("express", options.build, {"redis-server": server_version})
    placed = "the application on one core, the rest on the others"
    report = Report("express", "Web applications", HOW, tables, TARGETS, parts, placed)
    report.give(options, cores_busy, write=not is_partial(options) and not options.held)


if __name__ == "__main__":
    main()
