"""The Redis servers that tests run against: those that the environment names (CF_TEST_REDIS ..., see
tests/faults/README.md), else a set of this process's own, started when it is first asked for."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

from counterfoil.testing import Stage

TESTS = Path(__file__).resolve().parents[1]

_numbers = count()


@cache
def _environment() -> dict[str, str]:
    if "CF_TEST_REDIS" in os.environ:
        return dict(os.environ)
    folder = tempfile.mkdtemp(prefix="cf-py-")  # short: a unix socket is in it
    command = [sys.executable, str(TESTS / "faults" / "servers.py")]
    owner = os.getpid()

    def stop() -> None:
        if os.getpid() == owner:
            subprocess.run([*command, "stop", "--dir", folder], check=False)
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    subprocess.run([*command, "start", "--dir", folder, "--watch", str(owner)], check=True)
    environment: dict[str, str] = json.loads((Path(folder) / "servers.json").read_text())["environment"]
    return environment


def redis_variable(which: str) -> str:
    """redis_variable("") is CF_TEST_REDIS, redis_variable("TLS") CF_TEST_REDIS_TLS."""
    return _environment()["CF_TEST_REDIS" + (f"_{which}" if which else "")]


def own_prefix() -> str:
    """In front of keys that must meet nobody else's on a server that others use too."""
    return f"{os.getpid()}-{next(_numbers)}:"


@dataclass(frozen=True)
class Redis:
    """One of the servers: what to open."""

    which: str

    @property
    def url(self) -> str:
        return redis_variable(self.which)

    @property
    def apart(self) -> str:
        """A database for cases that are about everybody's keys."""
        url = self.url
        if url.startswith("redis+unix:"):
            return url + ("&" if "?" in url else "?") + "db=14"
        return re.sub(r"/\d+(?=\?|$)", "/14", url)


class ServerStage(Stage):
    """A stage that takes the clock of CF_TEST_REDIS_CLOCK along, once it is told to."""

    leads = False

    def lead(self) -> None:
        """From now on; and from what the server's clock says: records go at an instant and not after a time."""
        self.leads = True
        told, real = int(Path(redis_variable("CLOCK_FILE")).read_text()), time.time_ns() // 1_000_000
        # Each playing of the cases takes it on by decades: in the end there would be no instants left.
        if told > real + 50 * 365 * 86_400_000:
            told = real
            self.tell(told)
        self.step_wall((told - self.wall_ms()) / 1000)

    def tell(self, ms: int) -> None:
        file = Path(redis_variable("CLOCK_FILE"))
        draft = file.with_name(file.name + ".new")
        draft.write_text(f"{ms}\n")
        draft.replace(file)

    def advance(self, seconds: float, /) -> None:
        if self.leads:
            self.tell(int(Path(redis_variable("CLOCK_FILE")).read_text()) + round(seconds * 1000))
        super().advance(seconds)
