"""The sqlite bench: runs every party in a process of its own, in turns, and writes what it saw. Called by bench/run.

    bench.py BUILD [--quick] [--rounds N] [--seconds S] [--only WORD] [--party PATTERN] [--match PATTERN]

With --quick or a filter nothing is written to bench/results.
"""

import argparse
import itertools
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from driver import OtherWork, Party, Process, Report, Table, is_partial, one_round, options_of, said_by, tell, versions
from targets import NOBODY, Target, both

HERE = Path(__file__).resolve().parent
OPS = "get", "set"
DEPTHS = 1, 256


def tables_of(build: str, folder: str) -> list[Table]:
    numbers = itertools.count()

    def path() -> str:
        """A file that is not there yet, for one party in one round."""
        return f"{folder}/{next(numbers)}.db"

    def node(kind: str) -> Callable[[str], Party]:
        return lambda party: Process(["node", str(HERE / "party.cjs"), path(), build, kind, party])

    def python(manner: str) -> Callable[[str], Party]:
        return lambda party: Process([sys.executable, str(HERE / "party.py"), path(), manner, party])

    return [
        Table(
            "python blocking",
            "Python: blocking",
            python("blocking"),
            {
                "counterfoil": "counterfoil",
                "sqlite3": "sqlite3, a connection per thread",
                "sqlite3-shared": "sqlite3, one connection and a lock",
                "apsw": "apsw, a connection per thread",
                "counterfoil-alone": "*counterfoil, single_process=on*",
            },
            "The latencies are those of one of the threads.",
            (1, 8),
            "threads",
            OPS,
        ),
        Table(
            "python asyncio",
            "Python: asyncio",
            python("asyncio"),
            {"counterfoil": "counterfoil.aio", "aiosqlite": "aiosqlite"},
            "One store or connection, shared by the tasks.",
            DEPTHS,
            ops=OPS,
        ),
        Table(
            "node raw",
            "Node: text",
            node("raw"),
            {
                "counterfoil": "counterfoil",
                "better-sqlite3": "better-sqlite3",
                "nothing": "*a Map: the loops themselves*",
            },
            "Strings. After each operation a loop waits for the next turn of the event loop, as a request does that "
            "came by it. Last: the event loop's delay, 99th percentile: what a timer of 1 ms takes longer "
            "(`monitorEventLoopDelay`).",
            DEPTHS,
            ops=OPS,
        ),
        Table(
            "node session",
            "Node: session objects",
            node("session"),
            {
                "counterfoil": "counterfoil, express-session adapter",
                "better-sqlite3-session-store": "better-sqlite3-session-store",
            },
            "Through express-session's callback API, JSON inside; otherwise as above.",
            DEPTHS,
            ops=OPS,
        ),
        Table(
            "c",
            "C",
            lambda party: Process([f"{build}/party", path()]),
            {"counterfoil": "counterfoil, a bare loop"},
            "What is left when there is no host language: 1 is a caller who waits, 256 an event loop.",
            DEPTHS,
            ops=OPS,
        ),
    ]


THREADS = "python blocking", 8
PYTHON = "sqlite3|sqlite3-shared"
TARGETS = [
    *both("python blocking", "set", 8, "sqlite3", 5),
    *both("python blocking", "set", 8, PYTHON, 2.5),
    Target("python asyncio", "set", 256, "sqlite3", "ops", 5, THREADS),
    Target("python asyncio", "set", 256, PYTHON, "ops", 2.5, THREADS),
    *both("python asyncio", "set", 256, "aiosqlite", 15),
    *both("node raw", "set", 256, "better-sqlite3", 3),
    Target("node raw", "set", 256, NOBODY, "delay", 1000),
    *both("python blocking", "get", 1, PYTHON, 1.3),
    *both("python blocking", "get", 8, PYTHON, 2),
]

HOW = """\
Operations per second · CPU per operation · latency p50 / p99. All are medians; rounds: {rounds}. In a round every party
is a process of its own with a database file of its own, all on one disk, and the parties take turns at every operation
and depth. Each figure is taken over at least {seconds} s after a warm-up of half of that. {keys:,} keys of 37 bytes in
one mixed order, values of 500 bytes, each with an expiry that reads compare with the clock. *In flight* N is N loops
(tasks) that do one operation, await it, then do the next; with threads, each does one after the other.

Everybody: WAL, synchronous=FULL, rows of key, expiry and value, statements prepared once (where the party lets us), a
busy timeout of a minute. A set is durable when it has returned. The others commit each set; counterfoil commits
together what comes at the same time. Before anything is measured all rows were written four times, so that nobody's WAL
grows any more, as in a server that has run for some seconds. CPU is that of the whole process, all of its threads.
"""


def sync_time(folder: str) -> float:
    """Microseconds for what every commit waits for."""
    times = []
    with open(f"{folder}/probe", "wb", buffering=0) as probe:
        for _ in range(50):
            probe.write(b"x" * 4096)
            start = time.perf_counter()
            os.fdatasync(probe.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def sqlites(build: str) -> dict[str, str]:
    import apsw

    script = "console.log(new (require(process.argv[1]))(':memory:').prepare('select sqlite_version()').pluck().get())"
    return {
        "SQLite (ours)": said_by("pkg-config", "--modversion", "sqlite3"),
        "SQLite (sqlite3)": sqlite3.sqlite_version,
        "SQLite (apsw)": apsw.sqlite_lib_version(),
        "SQLite (better-sqlite3)": said_by("node", "-e", script, f"{build}/node_modules/better-sqlite3"),
    }


def argue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", help="where the files are made; beside the build")


def main() -> None:
    options = options_of("sqlite", ("node", "python", "raw", "session", "blocking", "asyncio", "c"), argue)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the files would be left behind
    others = OtherWork()
    syncs = []
    # Beside the build: a folder for temporary files may be in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=options.folder or options.build) as folder:
        tables = tables_of(options.build, folder)
        for turn in range(options.rounds):
            syncs.append(sync_time(folder))
            one_round(tables, turn, options)
            for used in Path(folder).iterdir():
                used.unlink()
    cores = others.cores()
    tell("")
    placed = f"nothing pinned, a sync of 4 KiB takes {statistics.median(syncs):.0f} µs"
    parts = versions("sqlite", options.build, sqlites(options.build))
    report = Report("sqlite", "SQLite", HOW, tables, TARGETS, parts, placed)
    report.give(options, cores, write=not is_partial(options))


if __name__ == "__main__":
    main()
