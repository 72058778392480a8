"""What the Redis backend is to reach: ratios to the others in the same run."""

import statistics
from dataclasses import dataclass
from typing import Any

OURS = "counterfoil"
LIMITS = "redis-benchmark", "c-loop", "c-loop-spin"
BEST = ""  # the rival with the most operations per second there

Seen = dict[str, dict[tuple[str, int, str], list[dict[str, float]]]]


@dataclass(frozen=True)
class Target:
    table: str
    op: str
    depth: int
    rival: str
    figure: str  # ops: at least so much; cpu: at most
    ratio: float


def both(table: str, ops: str, depth: int, rival: str, speed: float | None, cpu: float | None = None) -> list[Target]:
    targets = []
    for op in ops.split():
        if speed is not None:
            targets.append(Target(table, op, depth, rival, "ops", speed))
        if cpu is not None:
            targets.append(Target(table, op, depth, rival, "cpu", cpu))
    return targets


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


def median(rounds: list[dict[str, float]], figure: str) -> float:
    return statistics.median(one[figure] for one in rounds)


def judged(target: Target, seen: Seen) -> dict[str, Any] | None:
    """None where we or the other did not run."""
    parties = {
        name: rounds
        for (op, depth, name), rounds in seen[target.table].items()
        if (op, depth) == (target.op, target.depth)
    }
    ours = parties.get(OURS)
    rivals = [name for name in parties if name != OURS and name not in LIMITS]
    rival = target.rival or max(rivals, key=lambda name: median(parties[name], "ops"), default="")
    theirs = parties.get(rival)
    if not ours or not theirs:
        return None
    reached = median(ours, target.figure) / median(theirs, target.figure)
    ratios = [mine[target.figure] / other[target.figure] for mine, other in zip(ours, theirs, strict=True)]
    more = target.figure == "ops"
    return {
        "table": target.table,
        "op": target.op,
        "in flight": target.depth,
        "figure": target.figure,
        "against": rival,
        "the best there": not target.rival,
        "at least": more,
        "target": target.ratio,
        "reached": round(reached, 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "pass": reached >= target.ratio if more else reached <= target.ratio,
    }
