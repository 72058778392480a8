"""What a backend is to reach: ratios to the others in the same run."""

import statistics
from dataclasses import dataclass
from typing import Any

OURS = "counterfoil"
LIMITS = "redis-benchmark", "c-loop", "c-loop-spin"
BEST = ""  # the rival with the most operations per second there
NOBODY = "-"  # the figure itself is judged, in microseconds

Seen = dict[str, dict[tuple[str, int, str], list[dict[str, float]]]]


@dataclass(frozen=True)
class Target:
    table: str
    op: str
    depth: int
    rival: str  # several, with a bar between them: the best of those
    figure: str  # ops: at least so much; the others: at most
    ratio: float
    beside: tuple[str, int] | None = None  # the table and the depth of the rival, where they are not ours


def both(table: str, ops: str, depth: int, rival: str, speed: float | None, cpu: float | None = None) -> list[Target]:
    targets = []
    for op in ops.split():
        if speed is not None:
            targets.append(Target(table, op, depth, rival, "ops", speed))
        if cpu is not None:
            targets.append(Target(table, op, depth, rival, "cpu", cpu))
    return targets


def median(rounds: list[dict[str, float]], figure: str) -> float:
    return statistics.median(one[figure] for one in rounds)


def judged(target: Target, seen: Seen) -> dict[str, Any] | None:
    """None where we or the other did not run."""
    where = target.beside or (target.table, target.depth)
    ours = seen[target.table].get((target.op, target.depth, OURS))
    parties = {
        name: rounds for (op, depth, name), rounds in seen[where[0]].items() if (op, depth) == (target.op, where[1])
    }
    named = target.rival.split("|") if target.rival else parties
    rivals = [name for name in parties if name in named and name != OURS and name not in LIMITS]
    rival = max(rivals, key=lambda name: median(parties[name], "ops"), default="")
    if not ours or (not rival and target.rival != NOBODY):
        return None
    figures = [one[target.figure] for one in ours]
    theirs = [one[target.figure] for one in parties[rival]] if rival else [1.0] * len(figures)
    reached = statistics.median(figures) / statistics.median(theirs)
    ratios = [mine / other for mine, other in zip(figures, theirs, strict=True)]
    more = target.figure == "ops"
    return {
        "table": target.table,
        "op": target.op,
        "in flight": target.depth,
        "figure": target.figure,
        "against": rival,
        "beside": target.beside,
        "the best there": not target.rival or "|" in target.rival,
        "at least": more,
        "target": target.ratio,
        "reached": round(reached, 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "pass": reached >= target.ratio if more else reached <= target.ratio,
    }
