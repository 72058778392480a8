"""Starts the demo: two applications and an OAuth provider on one store. With --check, drives them: `./run demo`.

The store is an SQLite file, build/demo/demo.db, unless COUNTERFOIL_URL names another one.
"""

import argparse
import base64
import ctypes
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import quote, urlsplit

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
HOST = os.environ.get("DEMO_HOST", "127.0.0.1")
START_SECONDS = 60
STOP_SECONDS = 10
LIBC = ctypes.CDLL(None)
COMMANDS = {
    "express": ["node", str(HERE / "express" / "app.cjs")],
    "fastapi": [sys.executable, str(HERE / "fastapi" / "app.py")],
    "provider": ["node", str(HERE / "provider" / "app.cjs")],
}


class Demo:
    """The three processes, on one store."""

    def __init__(self, store: str, place: str, folder: Path, fresh: bool = False) -> None:
        self.place = place
        self.fresh = fresh  # nothing is in the store yet
        self.urls = {name: f"http://{HOST}:{free_port(name)}" for name in COMMANDS}
        self.environment = {
            **os.environ,
            **secrets_of(folder),
            **{f"DEMO_{name.upper()}_URL": url for name, url in self.urls.items()},
            "COUNTERFOIL_URL": store,
            "DEMO_PLACE": place,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name, command in COMMANDS.items():
            # A session of its own: Ctrl-C reaches only this program, which then stops the children in order.
            self._processes[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        for name in COMMANDS:
            self._wait(name)

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not listens(self.urls[name]):
            if self._processes[name].poll() is not None:
                sys.exit(f"demo: {name} ended before it was listening (its error is above)")
            if time.monotonic() > deadline:
                sys.exit(f"demo: {name} did not listen within {START_SECONDS} seconds")
            time.sleep(0.05)

    def ended(self) -> str | None:
        """The name of one that has ended by itself."""
        return next((name for name, process in self._processes.items() if process.poll() is not None), None)

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def restart(self) -> None:
        """As a machine that is started anew would do."""
        self.stop()
        self.start()


def die_with_parent() -> None:
    """Has the kernel end the child when this program is killed so hard that it cannot do it itself."""
    if sys.platform == "linux":
        LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def listens(url: str) -> bool:
    at = urlsplit(url)
    try:
        socket.create_connection((at.hostname or "", at.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def free_port(name: str) -> int:
    """The one that is wished for, or any that is free. Below those that the system gives to connections."""
    wished = os.environ.get(f"DEMO_{name.upper()}_PORT")
    if wished:
        return int(wished)
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    sys.exit("demo: no port is free; choose some by DEMO_EXPRESS_PORT, DEMO_FASTAPI_PORT and DEMO_PROVIDER_PORT")


def place_of(store: str) -> str:
    """For the pages. Never the URL: a password may be in it."""
    return "SQLite" if store.startswith("sqlite:") else "Redis"


def sqlite_in(folder: Path) -> str:
    return f"sqlite:{quote(str(folder / 'demo.db'))}"


def secrets_of(folder: Path) -> dict[str, str]:
    """Made once: sessions outlive a start only if what signs their cookies does."""
    file = folder / "secrets.json"
    if not file.exists():
        made = {
            "DEMO_SESSION_SECRET": secrets.token_urlsafe(32),
            "DEMO_STORE_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "DEMO_CLIENT_SECRET": secrets.token_urlsafe(32),
        }
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            json.dump(made, new)
    kept: dict[str, str] = json.loads(file.read_text())
    return kept


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=BUILD))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_server() -> Iterator[str]:
    """A redis-server of our own, by a unix socket."""
    with tempfile.TemporaryDirectory(prefix="cf-demo-") as folder:
        path = f"{folder}/redis.sock"
        process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            while not os.path.exists(path):
                if process.poll() is not None:
                    sys.exit("demo: redis-server ended at once")
                time.sleep(0.02)
            yield f"redis+unix://{path}"
        finally:
            process.terminate()
            process.wait()


def run_check(url: str | None, screenshot: str | None) -> int:
    """The whole story on SQLite, and then on Redis, or on the store of COUNTERFOIL_URL."""
    from check import check, quoted
    from report import Report
    from story import chromium

    report = Report()
    with chromium() as browser:
        for kind in ("SQLite", "COUNTERFOIL_URL" if url else "Redis"):
            with ExitStack() as stack:
                folder = stack.enter_context(temporary_folder())
                store = sqlite_in(folder) if kind == "SQLite" else url or stack.enter_context(redis_server())
                demo = Demo(store, place_of(store), folder, fresh=kind != "COUNTERFOIL_URL")
                stack.callback(demo.stop)
                demo.start()
                report.store = kind
                check(demo, browser, report, screenshot if kind == "SQLite" else None)
    report.store = "Documents"
    quoted(report)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


def show(url: str | None) -> int:
    folder = BUILD / "demo"
    folder.mkdir(mode=0o700, exist_ok=True)
    place = place_of(url) if url else f"SQLite, {os.path.relpath(folder / 'demo.db')}"
    demo = Demo(url or sqlite_in(folder), place, folder)
    try:
        demo.start()
        print("\n  One identity, two languages: log in at one of them, and look at the other.\n")
        print(f"    Express: Passport        {demo.urls['express']}/")
        print(f"    FastAPI: Cross Auth      {demo.urls['fastapi']}/")
        print(f"    Box Office, a provider   {demo.urls['provider']}/\n")
        print(f"  Users, sessions and codes are in {demo.place}; who is logged in still is after the next start.")
        print("  Ctrl-C stops all.\n", flush=True)
        while (name := demo.ended()) is None:
            time.sleep(0.5)
        print(f"demo: {name} ended by itself", file=sys.stderr)
        return 1
    finally:
        demo.stop()


def leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description="Starts the demo, and prints what to open.")
    parser.add_argument("--check", action="store_true", help="drive it in headless Chromium, on SQLite and on Redis")
    parser.add_argument("--screenshot", metavar="PATH", help="with --check: keep a picture of it (PNG)")
    options = parser.parse_args()
    url = os.environ.get("COUNTERFOIL_URL")
    if url is not None and url.startswith(("memory:", "sqlite::memory:")):
        parser.error("COUNTERFOIL_URL must name a store that processes share: the applications are two")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    BUILD.mkdir(exist_ok=True)
    return run_check(url, options.screenshot) if options.check else show(url)


if __name__ == "__main__":
    sys.exit(main())
