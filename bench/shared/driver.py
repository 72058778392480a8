"""What the benches of the key stores share: parties that take turns, tables of what they did, words on the machine.

Within a round the parties take turns at each operation and depth, so a slow minute of the machine falls on all of them
alike; the party that begins is another one in every round. A figure is the median of its rounds.
"""

import argparse
import datetime
import json
import os
import platform
import re
import resource
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from kept import KEYS
from targets import Target, judged

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
RESULTS = BENCH / "results"
FIGURES = {
    "ops": "operations/s",
    "cpu": "CPU",
    "delay": "event loop's delay, p99",
    "longest": "event loop's longest delay",
}

Figures = dict[str, float]  # ops: per second; cpu, p50, p99, delay, longest: microseconds


class Party(Protocol):
    def measure(self, op: str, depth: int, seconds: float) -> Figures | None: ...
    def end(self) -> None: ...


class Process:
    """A party that is told what to do, line by line."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.said("ready")

    def said(self, expected: str = "") -> str:
        assert self.process.stdout
        heard, _, _ = select.select([self.process.stdout], [], [], 120)
        if not heard:
            self.process.kill()
        line = self.process.stdout.readline().strip()
        if not line or (expected and line != expected):
            raise SystemExit(f"bench: {' '.join(self.words)} ended with status {self.process.wait()}")
        return line

    def measure(self, op: str, depth: int, seconds: float) -> Figures | None:
        assert self.process.stdin
        self.process.stdin.write(f"{op} {depth} {seconds}\n")
        self.process.stdin.flush()
        figures: Figures = json.loads(self.said())
        return figures

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Table:
    name: str  # what --match sees in front of the operation and the depth
    title: str
    start: Callable[[str], Party]
    parties: dict[str, str]  # as the driver calls it, as the reader does; ours is the first
    words: str
    depths: tuple[int, ...]
    unit: str = "in flight"
    ops: tuple[str, ...] = ("get", "set", "mix")
    # Of an op, depth and party: each round.
    seen: dict[tuple[str, int, str], list[Figures]] = field(default_factory=dict)

    def at(self, depth: int) -> str:
        return f"{depth} {self.unit.removesuffix('s') if depth == 1 else self.unit}"


def nothing(*_: object) -> None:
    pass


Argue = Callable[[argparse.ArgumentParser], None]


def options_of(bench: str, words: tuple[str, ...], argue: Argue = nothing, seconds: float = 0.5) -> argparse.Namespace:
    """`words`: those of the tables' names that --only may say. `seconds`: for each figure, where nobody says."""
    parser = argparse.ArgumentParser(prog=f"bench/run {bench}")
    parser.add_argument("build", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one round, 0.3 s for each figure; nothing is written")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="for each figure")
    parser.add_argument("--only", choices=words)
    parser.add_argument("--party", default="", metavar="PATTERN", help="only those: 'counterfoil|sqlite3'")
    parser.add_argument("--match", default="", metavar="PATTERN", help="only what has it: 'node raw get 256'")
    argue(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.3 if options.quick else seconds)
    return options


def is_partial(options: argparse.Namespace) -> bool:
    return bool(options.quick or options.only or options.party or options.match)


def rotated(names: list[str], turn: int) -> list[str]:
    first = turn % len(names)
    return names[first:] + names[:first]


Before = Callable[[], None]


def one_round(tables: list[Table], turn: int, options: argparse.Namespace, before: Before = nothing) -> None:
    """`before` is called before the parties of a table start."""
    for table in tables:
        acts = [(op, depth) for op in table.ops for depth in table.depths if wanted(table, op, depth, options)]
        names = [name for name in table.parties if re.search(options.party, name)]
        if not acts or not names:
            continue
        before()
        with ExitStack() as ends:
            parties = {}
            for name in names:
                party = table.start(name)
                ends.callback(party.end)
                parties[name] = party
            for op, depth in acts:
                for name in rotated(names, turn):
                    tell(f"round {turn + 1} of {options.rounds}: {table.name} {op} {depth}, {name}")
                    figures = parties[name].measure(op, depth, options.seconds)
                    if figures:
                        table.seen.setdefault((op, depth, name), []).append(figures)


def wanted(table: Table, op: str, depth: int, options: argparse.Namespace) -> bool:
    if options.only and options.only not in table.name.split():
        return False
    return re.search(options.match, f"{table.name} {op} {depth}") is not None


def tell(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{progress}\033[K", end="", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------------- tables


def amount(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def cell(rounds: list[Figures] | None) -> str:
    if not rounds:
        return ""
    ops, cpu, p50, p99 = (statistics.median(one[name] for one in rounds) for name in ("ops", "cpu", "p50", "p99"))
    text = f"{ops:,.0f} · {amount(cpu)} µs · {amount(p50)} / {amount(p99)} µs"
    for name in ("delay", "longest"):
        if name in rounds[0]:
            text += f" · {statistics.median(one[name] for one in rounds) / 1000:.2f} ms"
    return text


def rendered(table: Table) -> str:
    lines = [f"## {table.title}", "", table.words, ""]
    lines.append("| | " + " | ".join(map(table.at, table.depths)) + " |")
    lines.append("| --- |" + " --- |" * len(table.depths))
    for op in table.ops:
        for name, title in table.parties.items():
            cells = [cell(table.seen.get((op, depth, name))) for depth in table.depths]
            if any(cells):
                lines.append(f"| {'80/20' if op == 'mix' else op} · {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def recorded(table: Table) -> list[dict[str, Any]]:
    return [
        {"op": op, "in flight": depth, "party": name}
        | {figure: [float(f"{one[figure]:.5g}") for one in rounds] for figure in rounds[0]}
        for (op, depth, name), rounds in table.seen.items()
    ]


def judgement(verdicts: list[dict[str, Any]], all_tables: list[Table]) -> str:
    lines = ["## Targets", ""]
    lines += ["Ours divided by the other's: medians, in brackets the lowest and the highest round.", ""]
    lines += ["| | against | target | reached | |", "| --- | --- | --- | --- | --- |"]
    tables = {table.name: table for table in all_tables}
    for one in verdicts:
        table = tables[one["table"]]
        what = f"{table.title}: {one['op']}, {table.at(one['in flight'])}, {FIGURES[one['figure']]}"
        theirs = tables[one["beside"][0]] if one["beside"] else table
        against = theirs.parties.get(one["against"], "") + (" (the best)" if one["the best there"] else "")
        if one["beside"]:
            against += f", {theirs.at(one['beside'][1])}"
        sign = "≥" if one["at least"] else "≤"
        # A figure without a rival is a time.
        scale, unit = (1, "") if one["against"] else (1000, " ms")
        low, reached, high = (f"{one[which] / scale:.2f}" for which in ("lowest", "reached", "highest"))
        verdict = "PASS" if one["pass"] else "**MISS**"
        target = f"{sign} {one['target'] / scale:.3g}{unit}"
        lines.append(f"| {what} | {against} | {target} | {reached}{unit} ({low} to {high}) | {verdict} |")
    return "\n".join(lines) + "\n\n"


# -------------------------------------------------------------------------------------------------------- the machine


def said_by(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine(placed: str) -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, {placed}"


def versions(bench: str, build: str, of_servers: dict[str, str]) -> dict[str, str]:
    revision = said_by("git", "describe", "--always", "--dirty", "--exclude=*")
    ours = (ROOT / "VERSION").read_text().strip()
    parts = {"counterfoil": f"{ours} ({revision})" if revision else ours} | of_servers
    parts["node"] = said_by("node", "-p", "process.versions.node")
    packages = BENCH / bench / "package.json"
    wanted_here: dict[str, str] = json.loads(packages.read_text())["dependencies"] if packages.exists() else {}
    for name in wanted_here:
        package = Path(build) / "node_modules" / name / "package.json"
        parts[f"{name} (npm)"] = json.loads(package.read_text())["version"]
    parts["python"] = platform.python_version()
    for line in (BENCH / bench / "requirements.txt").read_text().splitlines():
        if "==" in line:
            name = line.partition("==")[0]
            parts[f"{name} (PyPI)"] = metadata.version(name)
    parts["cc"] = said_by("cc", "-dumpfullversion")
    parts["kernel"] = platform.release()
    return parts


class OtherWork:
    """What the rest of the machine did while the bench ran."""

    def __init__(self) -> None:
        self.wall, self.busy = time.monotonic(), self.machine()

    @staticmethod
    def machine() -> float:
        user, nice, system = Path("/proc/stat").read_text().split()[1:4]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")

    def cores(self) -> float:
        """How many cores were busy with it. To be asked when the parties and the server have ended."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ours = sum(one.ru_utime + one.ru_stime for one in used)
        return max(0.0, self.machine() - self.busy - ours) / (time.monotonic() - self.wall)


def trust(cores: float) -> str:
    text = f"other work kept {cores:.2f} cores busy meanwhile"
    if cores < 0.1:
        return text
    return text + ". **That disturbs: ratios are to be trusted somewhat, absolute figures not.**"


# --------------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class Report:
    bench: str  # its folder
    title: str
    how: str
    tables: list[Table]
    targets: list[Target]
    parts: dict[str, str]
    placed: str  # what more is to be said of the machine

    def give(self, options: argparse.Namespace, cores: float, write: bool) -> None:
        """Prints it all, and keeps it in bench/results."""
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        seen = {table.name: table.seen for table in self.tables}
        verdicts = [verdict for target in self.targets if (verdict := judged(target, seen))]
        text = f"# {self.title}\n\n" + self.how.format(rounds=options.rounds, seconds=options.seconds, keys=KEYS)
        text += f"\n{date} · {machine(self.placed)} · {trust(cores)}\n\n"
        text += " · ".join(f"{name} {version}" for name, version in self.parts.items()) + "\n\n"
        if verdicts:
            text += judgement(verdicts, self.tables)
        text += "\n".join(rendered(table) for table in self.tables if table.seen)
        print(text)
        if not write:
            return
        record = {
            "date": date,
            "machine": machine(self.placed),
            "cores busy with other work": round(cores, 2),
            "versions": self.parts,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "keys": KEYS,
            "units": "ops: per second; the others: microseconds; each a list with one figure of every round",
            "targets": verdicts,
            "tables": [{"table": table.name, "figures": recorded(table)} for table in self.tables],
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.bench}.md").write_text(text)
        (RESULTS / f"{self.bench}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
