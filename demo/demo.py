"""Starts both demo applications; with --check, drives them with real requests and says what it saw: `./run demo`."""

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

HERE = Path(__file__).resolve().parent
START_SECONDS = 60
STOP_SECONDS = 10
MARK = "listening on "


class App:
    """One child process, known by the line with which it says where it listens."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.url = ""
        self._said: queue.Queue[str] = queue.Queue()
        self._announced = False
        # A session of its own: Ctrl-C reaches only this program, which then stops the children in order.
        self._process = subprocess.Popen(
            command,
            cwd=HERE.parent,
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
    shown = "the backend of COUNTERFOIL_URL" if "COUNTERFOIL_URL" in os.environ else "memory:demo"

    with ExitStack() as stack:
        apps = []
        for name, command in (
            ("express", ["node", str(HERE / "express" / "app.cjs")]),
            ("fastapi", [sys.executable, str(HERE / "fastapi" / "app.py")]),
        ):
            app = App(name, command)
            stack.callback(app.stop)
            apps.append(app)
        for app in apps:
            app.read()
        for app in apps:
            app.wait_for_url()

        if arguments:
            from check import check

            return check(apps[0].url, apps[1].url)

        print(f"\n  Both applications keep their sessions and codes in Counterfoil ({shown}).\n")
        print(f"    Express: sessions and Passport     {apps[0].url}")
        print(f"    FastAPI: an OAuth-style login      {apps[1].url}")
        print("\n  Ctrl-C stops both.\n", flush=True)
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
