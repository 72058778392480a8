"""The redis bench: runs every party in a process of its own, in turns, and writes what it saw. Called by bench/run.

    bench.py BUILD [--quick] [--rounds N] [--seconds S] [--only WORD] [--party PATTERN] [--match PATTERN]
             [--pin]

With --quick, --pin or a filter nothing is written to bench/results.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driver import (
    Figures,
    OtherWork,
    Party,
    Process,
    Report,
    Table,
    is_partial,
    one_round,
    options_of,
    said_by,
    tell,
    versions,
)
from kept import KEYS, key_of, text_of
from servers import redis_server
from targets import BEST, both

HERE = Path(__file__).resolve().parent
DEPTHS = 1, 16, 256


@dataclass(frozen=True)
class Where:
    build: str
    port: int


class Limit:
    """The bare C loop."""

    def __init__(self, where: Where, manner: str) -> None:
        self.where, self.manner = where, manner

    def measure(self, op: str, depth: int, seconds: float) -> Figures | None:
        if self.manner == "spin" and depth != 1:
            return None
        limit = f"{self.where.build}/limit"
        words = limit, str(self.where.port), op, str(depth), str(seconds), self.manner
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        figures: Figures = json.loads(done.stdout)
        return figures

    def end(self) -> None:
        pass


class RedisBenchmark:
    """It takes a number of operations, not a time, so a short run first says how many fit."""

    def __init__(self, where: Where) -> None:
        self.where = where

    def measure(self, op: str, depth: int, seconds: float) -> Figures | None:
        if op == "mix":
            return None
        first = self.run(op, depth, 50 * depth + 2000)
        again = self.run(op, depth, int(first["ops"] * seconds / 2) // depth * depth + depth)
        return self.run(op, depth, int(again["ops"] * seconds) // depth * depth + depth)

    def run(self, op: str, depth: int, count: int) -> Figures:
        key = "lims:" + key_of(0)[5:-12] + "__rand_int__"
        act = ["GET", key] if op == "get" else ["SET", key, text_of(0)]
        words = ["redis-benchmark", "-p", str(self.where.port), "-c", "1", "-P", str(depth), "-r", str(KEYS), "-n"]
        process = subprocess.Popen([*words, str(count), "--csv", *act], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"bench: redis-benchmark ended with status {process.returncode}")
        # The command, then operations per second and, in milliseconds: average, lowest, p50, p95, p99, highest.
        ops, _, _, p50, _, p99, _ = (float(word.strip('"')) for word in said.splitlines()[-1].split('","')[-7:])
        cpu = (used.ru_utime + used.ru_stime) * 1e6 / count
        return {"ops": ops, "cpu": cpu, "p50": p50 * 1000, "p99": p99 * 1000}

    def end(self) -> None:
        pass


def node(kind: str) -> Callable[[Where, str], Party]:
    script = str(HERE / "party.cjs")
    return lambda where, party: Process(["node", script, str(where.port), where.build, kind, party])


def python(manner: str) -> Callable[[Where, str], Party]:
    script = str(HERE / "party.py")
    return lambda where, party: Process([sys.executable, script, str(where.port), manner, party])


LIMITS: dict[str, Callable[[Where], Party]] = {
    "redis-benchmark": RedisBenchmark,
    "c-loop": lambda where: Limit(where, "sleep"),
    "c-loop-spin": lambda where: Limit(where, "spin"),
}
TITLES = {
    "redis-benchmark": "*redis-benchmark, 1 connection*",
    "c-loop": "*bare C loop*",
    "c-loop-spin": "*bare C loop that spins*",
}


AWAITED = {
    "counterfoil": "counterfoil.aio",
    "redis-py": "redis.asyncio with hiredis",
    "valkey-glide": "valkey-glide",
    "coredis": "coredis",
}


def tables_of(where: Where) -> list[Table]:
    def table(
        name: str,
        title: str,
        rivals: Callable[[Where, str], Party],
        parties: dict[str, str],
        limits: tuple[str, ...],
        words: str,
        depths: tuple[int, ...] = DEPTHS,
        unit: str = "in flight",
    ) -> Table:
        def start(party: str) -> Party:
            return LIMITS[party](where) if party in LIMITS else rivals(where, party)

        return Table(name, title, start, parties | {limit: TITLES[limit] for limit in limits}, words, depths, unit)

    return [
        table(
            "node raw",
            "Node: text",
            node("raw"),
            {
                "counterfoil": "counterfoil",
                "node-redis": "node-redis",
                "ioredis": "ioredis",
                "ioredis-auto": "ioredis, autopipelining",
                "valkey-glide": "valkey-glide",
            },
            ("redis-benchmark", "c-loop"),
            "Strings of 500 bytes, no JSON, no ttl; one connection each.",
        ),
        table(
            "node session",
            "Node: session objects",
            node("session"),
            {
                "counterfoil": "counterfoil, express-session adapter",
                "connect-redis": "connect-redis on node-redis",
                "ioredis": "ioredis and JSON",
                "ioredis-auto": "ioredis, autopipelining, and JSON",
                "valkey-glide": "valkey-glide and JSON",
            },
            (),
            "500 bytes of JSON each with a ttl, through express-session's callback API, JSON inside. "
            "*And JSON* is what connect-redis does, over another client.",
        ),
        table(
            "python blocking",
            "Python: blocking",
            python("blocking"),
            {
                "counterfoil": "counterfoil",
                "redis-py": "redis-py with hiredis",
                "valkey-glide": "valkey-glide-sync",
            },
            ("c-loop-spin",),
            "Strings of 500 bytes, no ttl. One store or client, shared by the threads. Latencies are one thread's.",
            (1, 8),
            "threads",
        ),
        table(
            "python asyncio",
            "Python: asyncio",
            python("asyncio"),
            AWAITED,
            ("redis-benchmark", "c-loop"),
            "Strings of 500 bytes, no ttl. One store or client, shared by the tasks, with the pool it has by default.",
        ),
        table("python uvloop", "Python: uvloop", python("uvloop"), AWAITED, (), "As above, on the other event loop."),
    ]


TARGETS = [
    *both("node raw", "get", 256, BEST, 8, 1 / 8),
    *both("node raw", "set", 256, BEST, 4.5),
    *both("node session", "get", 256, BEST, 2.7),
    *both("node session", "get", 256, "connect-redis", 4.5),
    *both("node raw", "get set", 16, BEST, 1.35),
    *both("node raw", "get set", 16, "node-redis", 2.7),
    *both("node session", "get", 16, BEST, 1.35),
    *both("node raw", "get set", 1, BEST, 1),
    *both("node raw", "get set", 1, "node-redis", None, 0.65),
    *both("node session", "get", 1, BEST, 1),
    *both("python blocking", "get set", 1, "redis-py", 2.4, 1),
    *both("python blocking", "get set", 8, "redis-py", 3.8, 1 / 4),
    *both("python asyncio", "get set", 256, "redis-py", 20, 1 / 15),
    *both("python uvloop", "get set", 256, "redis-py", 20, 1 / 15),
    *both("node raw", "get set", 256, "redis-benchmark", 0.9),
    *both("python asyncio", "get set", 256, "redis-benchmark", 0.9),
]


@contextmanager
def server(pin: bool) -> Iterator[int]:
    """`pin`: it gets one core, everything else another."""
    with redis_server() as (port, process):
        if pin:
            for who, core in zip((process, os.getpid()), sorted(os.sched_getaffinity(0)), strict=False):
                os.sched_setaffinity(who, {core})
        yield port


def fill(port: int) -> None:
    """Every party finds the same sessions, whoever was here before. The limits have keys of their own."""
    import redis

    client = redis.Redis(host="127.0.0.1", port=port)
    pipeline = client.pipeline(transaction=False)
    for i in range(KEYS):
        pipeline.set(key_of(i), text_of(i))
        pipeline.set("lims:" + key_of(i)[5:], text_of(i))
    pipeline.execute()
    client.close()


HOW = """\
Operations per second · CPU per operation · latency p50 / p99. All are medians; rounds: {rounds}. In a round every party
is a process of its own, and the parties take turns at every operation and depth. Each figure is taken over at least
{seconds} s after a warm-up of half of that, against one redis-server on loopback without persistence. {keys:,} keys of
37 bytes in one mixed order. *In flight* N is N loops (tasks) that do one operation, await it, then do the next; with
threads, each does one after the other. 80/20 is four gets and one set.

CPU is that of the whole client process, all of its threads. Latencies are those that one of the loops sees. In italics:
what the machine can do. redis-benchmark keeps one connection with a pipeline of that depth, and waits for all of it;
the bare C loop sends as many commands as it has just received replies, and only counts them.
"""


def argue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pin", action="store_true", help="the server on one core, the clients on another")


def main() -> None:
    options = options_of("redis", ("node", "python", "raw", "session", "blocking", "asyncio", "uvloop"), argue)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would be left behind
    others = OtherWork()
    with server(options.pin) as port:
        tables = tables_of(Where(options.build, port))
        for turn in range(options.rounds):
            one_round(tables, turn, options, lambda: fill(port))
    cores = others.cores()
    tell("")
    server_version = said_by("redis-server", "--version").split(" v=")[-1].split()[0]
    parts = versions("redis", options.build, {"redis-server": server_version})
    placed = "server and client pinned" if options.pin else "nothing pinned"
    report = Report("redis", "Redis", HOW, tables, TARGETS, parts, placed)
    report.give(options, cores, write=not is_partial(options) and not options.pin)


if __name__ == "__main__":
    main()
