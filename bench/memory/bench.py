"""The memory bench: runs every party in a process of its own, in turns, and writes what it saw. Called by bench/run.

    bench.py BUILD [--quick]

One round runs each party once, so a slow minute of the machine falls on all of them alike; the party that begins is
another one in every round. A figure is the median of its rounds.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE.parent / "results"


@dataclass(frozen=True)
class Scale:
    rounds: int
    seconds: float  # for each figure of a party, after its warm-up
    keys: int
    sessions: int  # of a fill


TIMES = "\N{MULTIPLICATION SIGN}"
PAYLOAD = 540  # bytes of a key and its value, as the drivers make them

FULL = Scale(rounds=5, seconds=0.4, keys=10_000, sessions=1_000_000)
QUICK = Scale(rounds=1, seconds=0.02, keys=1_000, sessions=20_000)


@dataclass(frozen=True)
class Column:
    figure: str
    title: str


@dataclass(frozen=True)
class Table:
    title: str
    what: str  # the driver's first argument
    host: str
    parties: dict[str, str]  # as the driver calls it, as the reader does; ours is the first
    columns: list[Column]
    words: str


def timed(*pairs: tuple[str, str]) -> list[Column]:
    """A time and the CPU that it took, for each."""
    return [c for figure, title in pairs for c in (Column(figure, title), Column(figure + "_cpu", "CPU"))]


def both(manners: dict[str, str]) -> list[Column]:
    acts = "get", "set"
    return timed(*((f"{act}_{manner}", f"{act}, {words}") for manner, words in manners.items() for act in acts))


AWAITED = both({"one": "awaited one by one", "many": "256 at a time", "plain": "no await"})
THREADED = both({"one": "1 thread", "many": "8 threads"})
TASKS = both({"one": "1 task", "many": "256 tasks"})
STRAIGHT = timed(*((act, act) for act in ("get", "set", "pop", "incr")))
FILL = [
    Column("rss", "bytes per entry"),
    Column("overhead", "of which overhead"),
    Column("own", "own count"),
    Column("insert", "time per insert"),
    Column("stall", "longest stall"),
    Column("gc", "full GC"),
]

SESSION_STORES = {
    "counterfoil-session": "counterfoil, express-session adapter",
    "MemoryStore": "express-session MemoryStore",
    "memorystore": "memorystore",
    "Map-json": "Map and JSON, no expiry",
}
TEXT_STORES = {"counterfoil": "counterfoil", "Map": "Map, no expiry"}
PYTHON_STORES = {
    "counterfoil": "counterfoil",
    "dict-ttl": "dict class with ttl and lock",
    "cachetools": "cachetools TTLCache and lock",
    "dict": "dict, no expiry",
}
AIO_STORES = {"counterfoil-aio": "counterfoil.aio", "dict-ttl-aio": "async dict class with ttl"}
C_STORES = {"memory:": "memory:", "memory:shared": "memory:NAME, shared"}

ONE_INSERT = "The longest stall is the longest single insert"

TABLES = [
    Table(
        "Node: session objects",
        "ops",
        "node",
        SESSION_STORES,
        AWAITED,
        "500 bytes of JSON each, through express-session's callback API, JSON inside. The Map is used directly.",
    ),
    Table("Node: text", "ops", "node", TEXT_STORES, AWAITED, "Strings of 500 bytes, no JSON anywhere."),
    Table(
        "Python: blocking",
        "ops",
        "python",
        PYTHON_STORES,
        THREADED,
        "Strings of 500 bytes. With 8 threads: elapsed time over the operations of all of them.",
    ),
    Table(
        "Python: asyncio",
        "ops",
        "python",
        AIO_STORES,
        TASKS,
        "The default event loop. The rival's coroutines never wait for anything.",
    ),
    Table("C", "ops", "c", C_STORES, STRAIGHT, "cf_submit and cf_op_free, one thread."),
    Table(
        "Node: {sessions} session objects",
        "fill",
        "node",
        SESSION_STORES,
        FILL,
        "100 sets, then a turn of the event loop, and so on: the longest stall is the longest time between two turns. "
        "Making the sessions is included for all alike.",
    ),
    Table("Node: {sessions} texts", "fill", "node", TEXT_STORES, FILL, "As above."),
    Table(
        "Python: {sessions} texts",
        "fill",
        "python",
        PYTHON_STORES,
        FILL,
        f"{ONE_INSERT}; making the text is included for all alike.",
    ),
    Table("C: {sessions} texts", "fill", "c", C_STORES, FILL, f"{ONE_INSERT}."),
]


def command(table: Table, party: str, build: str, scale: Scale) -> list[str]:
    driver = {
        "node": ["node", "--expose-gc", str(HERE / "party.cjs")],
        "python": [sys.executable, str(HERE / "party.py")],
        "c": [str(Path(build) / "memory_bench")],
    }[table.host]
    return [*driver, table.what, party, str(scale.keys if table.what == "ops" else scale.sessions), str(scale.seconds)]


def measure(build: str, scale: Scale) -> list[dict[str, list[dict[str, float]]]]:
    """For each table, each party: the figures of every round."""
    seen: list[dict[str, list[dict[str, float]]]] = [{party: [] for party in table.parties} for table in TABLES]
    for turn in range(scale.rounds):
        for table, into in zip(TABLES, seen, strict=True):
            parties = list(table.parties)
            first = turn % len(parties)
            for party in parties[first:] + parties[:first]:
                tell(f"round {turn + 1} of {scale.rounds}: {titled(table, scale)}, {party}")
                done = subprocess.run(command(table, party, build, scale), stdout=subprocess.PIPE, text=True, cwd=ROOT)
                if done.returncode != 0:
                    raise SystemExit(f"bench: {party} ({table.host}, {table.what}) ended with status {done.returncode}")
                figures = json.loads(done.stdout)
                if "rss" in figures:
                    figures["overhead"] = figures["rss"] - PAYLOAD
                into[party].append(figures)
    tell("")
    return seen


def tell(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{progress}\033[K", end="", file=sys.stderr, flush=True)


def titled(table: Table, scale: Scale) -> str:
    return table.title.format(sessions=f"{scale.sessions:,}")


def amount(figure: str, value: float) -> str:
    if figure in ("rss", "overhead", "own"):
        return f"{value:,.0f} B"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 100 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.0f} ns"


def summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    figures = [figure for figure, value in rounds[0].items() if isinstance(value, (int, float))]
    return {
        figure: {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
        for figure in figures
        for values in [[one[figure] for one in rounds]]
    }


def cell(column: Column, figures: dict[str, dict[str, float]], ours: dict[str, dict[str, float]], rounds: int) -> str:
    figure = figures.get(column.figure)
    if figure is None:
        return ""
    text = amount(column.figure, figure["median"])
    if column.figure == "stall" and rounds > 1:
        text += f" (best {amount('stall', figure['lowest'])})"
    reference = ours.get(column.figure)
    if figures is not ours and reference and reference["median"] > 0:
        ratio = figure["median"] / reference["median"]
        text += f" · {TIMES}{ratio:.2g}" if ratio < 10 else f" · {TIMES}{ratio:,.0f}"
    return text


def rendered(table: Table, parties: dict[str, dict[str, dict[str, float]]], scale: Scale) -> str:
    ours, *_ = parties.values()
    lines = [f"## {titled(table, scale)}", "", table.words, ""]
    lines.append("| | " + " | ".join(table.parties.values()) + " |")
    lines.append("| --- |" + " --- |" * len(table.parties))
    for column in table.columns:
        cells = [cell(column, parties[party], ours, scale.rounds) for party in table.parties]
        if any(cells):
            lines.append(f"| {column.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def said_by(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def loads(before: float, after: float) -> str:
    """The bench alone keeps little more than one core busy."""
    text = f"load average before and after: {before:.2f}, {after:.2f}"
    if max(before, after - 1) < 1:
        return text
    return text + ". **Other work was running: elapsed times and stalls are not to be trusted, CPU figures somewhat.**"


def machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def versions() -> dict[str, str]:
    packages = "express-session", "memorystore"
    script = "; ".join(f"console.log(require('{name}/package.json').version)" for name in packages)
    express_session, memorystore = said_by("node", "-e", script).split()
    ours = (ROOT / "VERSION").read_text().strip()
    revision = said_by("git", "describe", "--always", "--dirty", "--exclude=*")
    return {
        "counterfoil": f"{ours} ({revision})" if revision else ours,
        "node": said_by("node", "-p", "process.versions.node"),
        "express-session": express_session,
        "memorystore": memorystore,
        "python": platform.python_version(),
        "cachetools": metadata.version("cachetools"),
        "cc": said_by("cc", "-dumpfullversion"),
        "libc": " ".join(platform.libc_ver()),
    }


HOW = """\
Figures are medians; rounds: {rounds}. In a round every party runs once, in a process of its own, nothing pinned, the
keys in one mixed order; each time is taken over at least {seconds} s after a warm-up. {keys:,} keys of 40 bytes, values
of 500. Everything that knows a ttl has one of a day. `{times}N` is a figure divided by that of the first column: above
1, ours is faster or smaller.

CPU is that of the whole process, garbage collector included, per operation. *No await* is what a Map costs to code that
does not wait for it. Bytes per entry are what the process's resident memory has grown by after the fill and a full
garbage collection, divided by the entries; *overhead* is what is left when the 540 bytes of key and value are taken
off; *own count* is what `stats()` says. Full GC is one forced collection after the fill. The longest stall is one event
in a whole fill and so shows what else the machine did: its best round is given too.
"""


def main(build: str, *options: str) -> None:
    if unknown := set(options) - {"--quick"}:
        raise SystemExit(f"bench: unknown option {unknown.pop()}: bench/run memory [--quick]")
    scale = QUICK if options else FULL
    before = os.getloadavg()[0]
    seen = measure(build, scale)
    after = os.getloadavg()[0]
    tables = [{party: summary(rounds) for party, rounds in parties.items()} for parties in seen]
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = versions()
    text = "# Memory\n\n" + HOW.format(**vars(scale), times=TIMES)
    text += f"\n{date} · {machine()} · {loads(before, after)}\n\n"
    text += " · ".join(f"{name} {version}" for name, version in parts.items()) + "\n\n"
    text += "\n".join(rendered(table, parties, scale) for table, parties in zip(TABLES, tables, strict=True))
    print(text)
    if scale is QUICK:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "memory.md").write_text(text)
    figures = [
        {"table": titled(table, scale), "unit": "nanoseconds; rss and own: bytes per entry", "parties": parties}
        for table, parties in zip(TABLES, tables, strict=True)
    ]
    record = {
        "date": date,
        "machine": machine(),
        "load average": {"before": round(before, 2), "after": round(after, 2)},
        "versions": parts,
        "rounds": scale.rounds,
        "keys": scale.keys,
        "sessions": scale.sessions,
        "tables": figures,
    }
    (RESULTS / "memory.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
