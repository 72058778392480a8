"""The accounts bench: find_or_create_by_social_account. Called by bench/run.

    bench.py BUILD [--quick] [--rounds N] [--seconds S] [--only WORD] [--party PATTERN] [--match PATTERN]

With --quick or a filter nothing is written to bench/results.
"""

import argparse
import itertools
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from driver import OtherWork, Party, Process, Report, Table, is_partial, one_round, options_of, said_by, tell, versions
from targets import both

HERE = Path(__file__).resolve().parent
OPS = "get", "set"
NAMES = {
    "counterfoil": "counterfoil",
    "sqlmodel": "Cross Auth's SQLModel adapter",
    "sqlite3": "*sqlite3, written by hand*",
}


def tables_of(folder: str) -> list[Table]:
    numbers = itertools.count()

    def python(manner: str) -> Callable[[str], Party]:
        return lambda party: Process(
            [sys.executable, str(HERE / "party.py"), f"{folder}/{next(numbers)}.db", manner, party]
        )

    return [
        Table(
            "blocking",
            "Python: blocking",
            python("blocking"),
            NAMES,
            "The latencies are those of one of the threads. By hand: one transaction, a connection per thread, rows "
            "instead of objects.",
            (1, 8),
            "threads",
            OPS,
        ),
        Table(
            "asyncio",
            "Python: asyncio",
            python("asyncio"),
            {name: NAMES[name] for name in ("counterfoil", "sqlmodel")},
            "The adapter blocks, so it runs on 40 threads, as in FastAPI.",
            (1, 256),
            ops=OPS,
        ),
    ]


TARGETS = [
    *both("blocking", "get set", 1, "sqlmodel", 5),
    *both("blocking", "get set", 8, "sqlmodel", 5),
    *both("asyncio", "get set", 256, "sqlmodel", 5),
]

HOW = """\
A login by a social account, on SQLite: `get` of somebody who is known, `set` of somebody who is new (a user and an
account are made). Operations per second · CPU per operation · latency p50 / p99. All are medians; rounds: {rounds}. In
a round every party is a process of its own with a database file of its own, and the parties take turns at every
operation and depth. Each figure is taken over at least {seconds} s after a warm-up of half of that. {keys:,} users are
there at the beginning.

Everybody: WAL, synchronous=FULL, unique indexes on the e-mail and on provider and user id. Ours finds or creates in one
step; the adapter is used as Cross Auth does it: it looks, then makes a user, then an account, each by itself.
"""


def argue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", help="where the files are made; beside the build")


def main() -> None:
    options = options_of("accounts", ("blocking", "asyncio"), argue)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the files would be left behind
    others = OtherWork()
    with tempfile.TemporaryDirectory(dir=options.folder or options.build) as folder:
        tables = tables_of(folder)
        for turn in range(options.rounds):
            one_round(tables, turn, options)
            for used in Path(folder).iterdir():
                used.unlink()
    cores = others.cores()
    tell("")
    sqlites = {
        "SQLite (ours)": said_by("pkg-config", "--modversion", "sqlite3"),
        "SQLite (sqlite3)": sqlite3.sqlite_version,
    }
    parts = versions("accounts", options.build, sqlites)
    report = Report("accounts", "Accounts", HOW, tables, TARGETS, parts, "nothing pinned")
    report.give(options, cores, write=not is_partial(options))


if __name__ == "__main__":
    main()
