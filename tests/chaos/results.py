"""The file of results: one section for each kind of campaign, each as its last run has left it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

HEAD = """# Faults

What the campaigns of [tests/chaos](../../tests/chaos/README.md) have counted. Each section says by which command.
"""


def words(seed: int) -> str:
    """How this run can be repeated. What the seed decides it decides again; what the machine does it does not."""
    given = sys.argv[1:]
    if "--save" in given:
        at = given.index("--save")
        given = given[:at] + given[at + 2 :]
    return shlex.join(given if "--seed" in given else [*given, "--seed", str(seed)])


def save(path: Path, title: str, text: str) -> None:
    old = path.read_text() if path.exists() else HEAD
    head, *sections = re.split(r"(?m)^(?=## )", old)
    kept = {one.partition("\n")[0]: one.strip() for one in sections}
    kept[f"## {title}"] = f"## {title}\n\n{text.strip()}"
    path.write_text("\n\n".join([head.strip(), *kept.values()]) + "\n")
