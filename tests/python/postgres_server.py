"""A PostgreSQL of the tests' own: Debian's, in a temporary folder, on a socket there, as a user without rights."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def program(name: str) -> Path | None:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else None


def _user() -> str:
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


@contextmanager
def postgres() -> Iterator[str]:
    """Its URL for SQLAlchemy. It dies with whoever started it."""
    import psycopg

    initdb, server = program("initdb"), program("postgres")
    assert initdb is not None
    assert server is not None
    folder = Path(tempfile.mkdtemp(prefix="cf-postgres-"))
    data = folder / "data"
    # A sanitizer's run-time library is for the interpreter only.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    as_user = ["setpriv", "--pdeathsig", "INT"]
    if os.getuid() == 0:  # which PostgreSQL refuses
        user = pwd.getpwnam(_user())
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    running: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(
            [*as_user, initdb, "--no-sync", "-A", "trust", "-U", "counterfoil", "-E", "UTF8", "-D", data],
            check=True, capture_output=True, cwd=folder, env=environment, timeout=120,
        )  # fmt: skip
        with open(folder / "log", "wb") as log:
            running = subprocess.Popen(
                [*as_user, server, "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
                stdout=log, stderr=log, cwd=folder, env=environment,
            )  # fmt: skip
        where = f"host={folder} user=counterfoil dbname=postgres"
        for _ in range(600):
            try:
                psycopg.connect(where).close()
                break
            except psycopg.OperationalError:
                assert running.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        else:
            raise TimeoutError("PostgreSQL is not ready: " + (folder / "log").read_text())
        yield f"postgresql+psycopg://counterfoil@/postgres?host={folder}"
    finally:
        if running is not None:
            os.kill(running.pid, signal.SIGINT)  # ends its connections too
            running.wait(30)
        shutil.rmtree(folder)
