"""Miro and GitHub on this machine, for the guides. Their clients have the address in their code, so what they send
there is sent here, by a file that Node or Python loads before the program of the page."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from documents import ROOT

Around = Callable[[Path], AbstractContextManager[dict[str, str]]]
"""What surrounds a page: of its folder it makes what the page's commands find in their environment."""

MIRO = {
    "/v1/oauth/token": {"access_token": "a", "refresh_token": "r", "expires_in": 3600, "user_id": "m"},
    "/v2/boards": {
        "data": [
            {"id": "1", "name": "Retrospective", "description": "", "type": "board"},
            {"id": "2", "name": "Roadmap", "description": "", "type": "board"},
        ],
        "total": 2, "size": 2, "offset": 0, "limit": 20,
    },
}  # fmt: skip
GITHUB = {
    "/login/oauth/access_token": {"access_token": "gho_1", "token_type": "bearer", "scope": "user:email"},
    "/user": {"id": 583231, "login": "ada", "name": "Ada", "email": "Ada@example.org"},
    "/user/emails": [{"email": "Ada@example.org", "primary": True, "verified": True}],
}
NODE_FETCH = """
const fetch = require({fetch!r})
const real = fetch.default
fetch.default = (url, options) => real(String(url).replace('https://api.miro.com', {origin!r}), options)
"""
URLLIB3 = """
import urllib3
real = urllib3.PoolManager.request
def request(self, method, url, *rest, **options):
    return real(self, method, url.replace("https://api.miro.com", {origin!r}), *rest, **options)
urllib3.PoolManager.request = request
"""
HTTPX = """
import re
import httpx
real = httpx.Client.request
def request(self, method, url, *rest, **options):
    return real(self, method, re.sub("https://(api[.])?github.com", {origin!r}, str(url)), *rest, **options)
httpx.Client.request = request
"""


@contextmanager
def answering(answers: dict[str, Any]) -> Iterator[str]:
    """A server that gives each path its answer, whatever is asked; gives where it is."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            answer = answers.get(urlparse(self.path).path)
            body = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def python_loads(folder: Path, code: str) -> dict[str, str]:
    (folder / "python").mkdir()
    (folder / "python/sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder / "python")}


@contextmanager
def miro(folder: Path) -> Iterator[dict[str, str]]:
    with answering(MIRO) as origin:
        (folder / "redirect.cjs").write_text(
            NODE_FETCH.format(origin=origin, fetch=str(ROOT / "node_modules/node-fetch"))
        )
        environment = python_loads(folder, URLLIB3.format(origin=origin))
        yield {**environment, "NODE_OPTIONS": f"--require={folder}/redirect.cjs"}


@contextmanager
def github(folder: Path) -> Iterator[dict[str, str]]:
    with answering(GITHUB) as origin:
        # passlib, which Cross Auth uses, imports a module that Python is going to drop.
        yield {**python_loads(folder, HTTPX.format(origin=origin)), "PYTHONWARNINGS": "ignore::DeprecationWarning"}


@contextmanager
def nothing(folder: Path) -> Iterator[dict[str, str]]:
    yield {}


AROUND: dict[str, Around] = {"miro.md": miro, "cross-auth.md": github}
