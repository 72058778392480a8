"""Compiles the kit's two C files at their first use: the tests must work in a fresh clone, where nothing was built.

python tests/faults/build.py proxy     prints the path of the program
python tests/faults/build.py clock     prints the path of the library
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = {"proxy": [], "clock": ["-shared", "-fPIC"]}
WARNINGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]


def clean_environment(**more: str) -> dict[str, str]:
    """What is started here is not what is tested: a sanitizer that is preloaded into the tests must stay out of it."""
    unwanted = ("LD_PRELOAD", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
    return {name: value for name, value in os.environ.items() if name not in unwanted} | more


def _folder() -> Path:
    wanted = HERE.parents[1] / "build" / "faults"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError:
        wanted = Path(tempfile.gettempdir()) / f"counterfoil-faults-{os.getuid()}"
        wanted.mkdir(mode=0o700, exist_ok=True)
    return wanted


def built(name: str) -> Path:
    """The path of what tests/faults/NAME.c becomes, named by a checksum: never an old one, never one half written."""
    source = HERE / f"{name}.c"
    command = [os.environ.get("CC", "cc"), *WARNINGS, *FLAGS[name]]
    checksum = hashlib.sha256(source.read_bytes() + " ".join(command).encode()).hexdigest()[:16]
    target = _folder() / f"{name}-{checksum}{'.so' if '-shared' in command else ''}"
    if not target.exists():
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        subprocess.run([*command, "-o", str(draft), str(source)], check=True, env=clean_environment())
        draft.replace(target)
    return target


if __name__ == "__main__":
    print(built(sys.argv[1]))
