"""Starts both demo applications; with --check, drives them with real requests and says what it saw: `./run demo`.

Unless COUNTERFOIL_URL names another store it is an SQLite file, build/demo/demo.db, so that sessions outlive a start.
"""

import ctypes
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
START_SECONDS = 60
STOP_SECONDS = 10
MARK = "listening on "


class App:
    """One child process, known by the line with which it says where it listens."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.url = ""
        self._command = command
        self._environment = environment
        self.start()

    def start(self) -> None:
        self._said: queue.Queue[str] = queue.Queue()
        self._announced = False
        # A session of its own: Ctrl-C reaches only this program, which then stops the children in order.
        self._process = subprocess.Popen(
            self._command,
            cwd=HERE.parent,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def read(self) -> None:
        """Shows what it says, from a thread; called when all processes run, as threads and fork do not mix."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            if not self._announced and line.startswith(MARK):
                self._announced = True
                self._said.put(line.removeprefix(MARK).strip())
            else:
                print(f"{self.name}: {line.rstrip()}", flush=True)
        self._said.put("")

    def wait_for_url(self) -> None:
        try:
            self.url = self._said.get(timeout=START_SECONDS)
        except queue.Empty:
            sys.exit(f"demo: {self.name} did not say within {START_SECONDS} seconds where it listens")
        if not self.url:
            sys.exit(f"demo: {self.name} ended before it was listening (its error is above)")

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def end_and_start(apps: list[App]) -> None:
    """As a machine that is started anew would do; they listen elsewhere then."""
    for app in apps:
        app.stop()
    for app in apps:
        app.start()
    for app in apps:
        app.read()
    for app in apps:
        app.wait_for_url()


def own_folder(stack: ExitStack, checking: bool) -> Path:
    """Where the demo keeps its database: one that stays, or for a check one that goes with it. Nobody else may look."""
    BUILD.mkdir(exist_ok=True)
    if checking:
        folder = Path(tempfile.mkdtemp(prefix="demo-", dir=BUILD))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder
    folder = BUILD / "demo"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def secret_of(folder: Path) -> str:
    """What signs the cookies of Express. Sessions outlive a start only if it does."""
    file = folder / "session-secret"
    with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as kept:
        secret = kept.read() or secrets.token_urlsafe(32)
        kept.seek(0)
        kept.write(secret)
    return secret


def die_with_parent() -> None:
    """Has the kernel end the child when this program is killed so hard that it cannot do it itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    arguments = sys.argv[1:]
    if arguments not in ([], ["--check"]):
        print("usage: ./run demo [--check]", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    with ExitStack() as stack:
        folder = own_folder(stack, checking=bool(arguments))
        url = os.environ.get("COUNTERFOIL_URL") or f"sqlite:{quote(str(folder / 'demo.db'))}"
        shown = "the backend of COUNTERFOIL_URL" if os.environ.get("COUNTERFOIL_URL") else str(folder / "demo.db")
        environment = {"DEMO_SESSION_SECRET": secret_of(folder), **os.environ, "COUNTERFOIL_URL": url}
        apps: list[App] = []
        for name, command in (
            ("express", ["node", str(HERE / "express" / "app.cjs")]),
            ("fastapi", [sys.executable, str(HERE / "fastapi" / "app.py")]),
        ):
            app = App(name, command, environment)
            stack.callback(app.stop)
            apps.append(app)
        for app in apps:
            app.read()
        for app in apps:
            app.wait_for_url()

        if arguments:
            from check import check

            restart = None if url.startswith("memory:") else lambda: end_and_start(apps)
            return check(apps[0], apps[1], restart)

        print(f"\n  Both applications keep their sessions and codes in Counterfoil ({shown}).\n")
        print(f"    Express: sessions and Passport     {apps[0].url}")
        print(f"    FastAPI: an OAuth-style login      {apps[1].url}")
        stays = "" if url.startswith("memory:") else " Who is logged in still is after the next start."
        print(f"\n  Ctrl-C stops both.{stays}\n", flush=True)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stop.set())
        while not stop.wait(0.5):
            for app in apps:
                if not app.running():
                    print(f"demo: {app.name} ended by itself", file=sys.stderr)
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
