"""Express on this machine: express_app.cjs, run by Node, and asked by tests in Python; and applications of Python."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

_UNWANTED = ("LD_PRELOAD", "COUNTERFOIL_NATIVE", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS")  # of this process


class Node:
    """One Node process, with any number of applications."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("express_app.cjs")
        environment = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            ["node", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            cwd=program.parents[2],
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(30) == 0
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def ask(self, do: str, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps({"do": do, **question}) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    def app(self, url: str, *, kind: str = "counterfoil", options: dict[str, Any] | None = None, **session: Any) -> str:
        """Where a new application is. `options`: of the store; `session`: of express-session."""
        port = self.ask("serve", kind=kind, url=url, options=options or {}, session={"secret": "new", **session})
        return f"http://127.0.0.1:{port}"


class Browser(httpx.Client):
    """A client with cookies. `cookies` are as FastAPI has them in `request.cookies`: not URL-decoded."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url=base_url, timeout=30)

    def do(self, path: str, **data: Any) -> Any:
        if path in ("/me", "/id", "/mine"):
            answer = self.get(path)
        else:  # not as httpx writes JSON: half a character is an escape
            answer = self.post(path, content=json.dumps(data), headers={"content-type": "application/json"})
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()

    def take(self, set_cookie: str) -> None:
        """A header Set-Cookie, from whichever application."""
        name, _, value = set_cookie.partition(";")[0].partition("=")
        self.cookies.clear()
        self.cookies.set(name, value, domain="127.0.0.1", path="/")


@contextmanager
def served(app: Any) -> Iterator[str]:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
