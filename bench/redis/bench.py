"""The redis bench: runs every party in a process of its own, in turns, and writes what it saw. Called by bench/run.

    bench.py BUILD [--quick] [--rounds N] [--seconds S] [--only WORD] [--party PATTERN] [--match PATTERN]
             [--pin]

One round measures everything once. Within it the parties take turns at each operation and depth, so a slow minute of
the machine falls on all of them alike; the party that begins is another one in every round. A figure is the median of
its rounds. With --quick, --pin or a filter nothing is written to bench/results.
"""

import argparse
import datetime
import json
import os
import platform
import re
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from kept import KEYS, key_of, text_of
from targets import TARGETS, judged

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE.parent / "results"
OPS = "get", "set", "mix"
DEPTHS = 1, 16, 256
FIGURES = {"ops": "operations/s", "cpu": "CPU"}

Figures = dict[str, float]  # ops: per second; cpu, p50, p99: microseconds


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


Party = Limit | RedisBenchmark | Process


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


@dataclass(frozen=True)
class Table:
    name: str  # what --match sees in front of the operation and the depth
    title: str
    start: Callable[[Where, str], Party]
    parties: dict[str, str]  # as the driver calls it, as the reader does; ours is the first
    limits: tuple[str, ...]
    words: str
    depths: tuple[int, ...] = DEPTHS
    unit: str = "in flight"
    # Of an op, depth and party: each round.
    seen: dict[tuple[str, int, str], list[Figures]] = field(default_factory=dict)

    def titles(self) -> dict[str, str]:
        return self.parties | {name: TITLES[name] for name in self.limits}

    def at(self, depth: int) -> str:
        return f"{depth} {self.unit.removesuffix('s') if depth == 1 else self.unit}"


AWAITED = {
    "counterfoil": "counterfoil.aio",
    "redis-py": "redis.asyncio with hiredis",
    "valkey-glide": "valkey-glide",
    "coredis": "coredis",
}
TABLES = [
    Table(
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
    Table(
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
    Table(
        "python blocking",
        "Python: blocking",
        python("blocking"),
        {
            "counterfoil": "counterfoil",
            "redis-py": "redis-py with hiredis",
            "valkey-glide": "valkey-glide-sync",
        },
        ("c-loop-spin",),
        "Strings of 500 bytes, no ttl. One store or client, shared by the threads. Latencies are those of one thread.",
        (1, 8),
        "threads",
    ),
    Table(
        "python asyncio",
        "Python: asyncio",
        python("asyncio"),
        AWAITED,
        ("redis-benchmark", "c-loop"),
        "Strings of 500 bytes, no ttl. One store or client, shared by the tasks; its pool is what it has by default.",
    ),
    Table("python uvloop", "Python: uvloop", python("uvloop"), AWAITED, (), "As above, on the other event loop."),
]


@contextmanager
def server(pin: bool) -> Iterator[int]:
    """A Redis of our own, on loopback, that keeps nothing. `pin`: it gets one core, everything else another."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        process = subprocess.Popen([*words, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
        if pin:
            for who, core in zip((process.pid, os.getpid()), sorted(os.sched_getaffinity(0)), strict=False):
                os.sched_setaffinity(who, {core})
        try:
            for _ in range(100):
                with socket.socket() as trial:
                    if trial.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()


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


def rotated(names: list[str], turn: int) -> list[str]:
    first = turn % len(names)
    return names[first:] + names[:first]


def one_round(where: Where, turn: int, options: argparse.Namespace) -> None:
    for table in TABLES:
        acts = [(op, depth) for op in OPS for depth in table.depths if wanted(table, op, depth, options)]
        names = [name for name in table.titles() if re.search(options.party, name)]
        if not acts or not names:
            continue
        fill(where.port)
        with ExitStack() as ends:
            parties = {}
            for name in names:
                party = LIMITS[name](where) if name in LIMITS else table.start(where, name)
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


def amount(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def cell(rounds: list[Figures] | None) -> str:
    if not rounds:
        return ""
    ops, cpu, p50, p99 = (statistics.median(one[name] for one in rounds) for name in ("ops", "cpu", "p50", "p99"))
    return f"{ops:,.0f} · {amount(cpu)} µs · {amount(p50)} / {amount(p99)} µs"


def rendered(table: Table) -> str:
    lines = [f"## {table.title}", "", table.words, ""]
    lines.append("| | " + " | ".join(map(table.at, table.depths)) + " |")
    lines.append("| --- |" + " --- |" * len(table.depths))
    for op in OPS:
        for name, title in table.titles().items():
            cells = [cell(table.seen.get((op, depth, name))) for depth in table.depths]
            if any(cells):
                lines.append(f"| {'80/20' if op == 'mix' else op} · {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def said_by(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine(pin: bool) -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    placed = "server and client pinned" if pin else "nothing pinned"
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, {placed}"


def versions(build: str) -> dict[str, str]:
    revision = said_by("git", "describe", "--always", "--dirty", "--exclude=*")
    ours = (ROOT / "VERSION").read_text().strip()
    parts = {"counterfoil": f"{ours} ({revision})" if revision else ours}
    parts["redis-server"] = said_by("redis-server", "--version").split(" v=")[-1].split()[0]
    parts["node"] = said_by("node", "-p", "process.versions.node")
    wanted_here: dict[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
    for name in wanted_here:
        package = Path(build) / "node_modules" / name / "package.json"
        parts[f"{name} (npm)"] = json.loads(package.read_text())["version"]
    parts["python"] = platform.python_version()
    for line in (HERE / "requirements.txt").read_text().splitlines():
        if "==" in line:
            name = line.partition("==")[0]
            parts[f"{name} (PyPI)"] = metadata.version(name)
    parts["cc"] = said_by("cc", "-dumpfullversion")
    parts["kernel"] = platform.release()
    return parts


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


def given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run redis")
    parser.add_argument("build", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one round, 0.3 s for each figure; nothing is written")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="for each figure")
    parser.add_argument("--only", choices=["node", "python", "raw", "session", "blocking", "asyncio", "uvloop"])
    parser.add_argument("--party", default="", metavar="PATTERN", help="only those: 'counterfoil|ioredis'")
    parser.add_argument("--match", default="", metavar="PATTERN", help="only what has it: 'node raw get 256'")
    parser.add_argument("--pin", action="store_true", help="the server on one core, the clients on another")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.3 if options.quick else 0.5)
    return options


def main() -> None:
    options = given()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would be left behind
    others = OtherWork()
    with server(options.pin) as port:
        for turn in range(options.rounds):
            one_round(Where(options.build, port), turn, options)
    tell("")
    cores = others.cores()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    seen = {table.name: table.seen for table in TABLES}
    parts = versions(options.build)
    verdicts = [verdict for target in TARGETS if (verdict := judged(target, seen))]
    text = "# Redis\n\n" + HOW.format(rounds=options.rounds, seconds=options.seconds, keys=KEYS)
    text += f"\n{date} · {machine(options.pin)} · {trust(cores)}\n\n"
    text += " · ".join(f"{name} {version}" for name, version in parts.items()) + "\n\n"
    if verdicts:
        text += judgement(verdicts)
    text += "\n".join(rendered(table) for table in TABLES if table.seen)
    print(text)
    if options.quick or options.only or options.party or options.match or options.pin:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "redis.md").write_text(text)
    record = {
        "date": date,
        "machine": machine(False),
        "cores busy with other work": round(cores, 2),
        "versions": parts,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "keys": KEYS,
        "units": "ops: per second; cpu, p50, p99: microseconds; each a list with one figure of every round",
        "targets": verdicts,
        "tables": [{"table": table.name, "figures": recorded(table)} for table in TABLES],
    }
    (RESULTS / "redis.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def recorded(table: Table) -> list[dict[str, Any]]:
    return [
        {"op": op, "in flight": depth, "party": name}
        | {figure: [float(f"{one[figure]:.5g}") for one in rounds] for figure in rounds[0]}
        for (op, depth, name), rounds in table.seen.items()
    ]


def judgement(verdicts: list[dict[str, Any]]) -> str:
    lines = ["## Targets", ""]
    lines += ["Ours divided by the other's: medians, in brackets the lowest and the highest round.", ""]
    lines += ["| | against | target | reached | |", "| --- | --- | --- | --- | --- |"]
    tables = {table.name: table for table in TABLES}
    for one in verdicts:
        table = tables[one["table"]]
        what = f"{table.title}: {one['op']}, {table.at(one['in flight'])}, {FIGURES[one['figure']]}"
        against = table.titles()[one["against"]] + (" (the best)" if one["the best there"] else "")
        sign = "≥" if one["at least"] else "≤"
        reached = f"{one['reached']:.2f} ({one['lowest']:.2f} to {one['highest']:.2f})"
        verdict = "PASS" if one["pass"] else "**MISS**"
        lines.append(f"| {what} | {against} | {sign} {one['target']:.3g} | {reached} | {verdict} |")
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    main()
