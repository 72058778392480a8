"""Miro on this machine, for the guide: its token endpoint and a list of boards. The clients have Miro's address in
their code, so what they send there is sent here, by a file that Node and Python load before the program of the page."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from documents import ROOT

NODE = """
const fetch = require({fetch!r})
const real = fetch.default
fetch.default = (url, options) => real(String(url).replace('https://api.miro.com', {origin!r}), options)
"""
PYTHON = """
import urllib3
real = urllib3.PoolManager.request
def request(self, method, url, *rest, **options):
    return real(self, method, url.replace("https://api.miro.com", {origin!r}), *rest, **options)
urllib3.PoolManager.request = request
"""
ANSWERS = {
    "/v1/oauth/token": {"access_token": "a", "refresh_token": "r", "expires_in": 3600, "user_id": "m"},
    "/v2/boards": {
        "data": [
            {"id": "1", "name": "Retrospective", "description": "", "type": "board"},
            {"id": "2", "name": "Roadmap", "description": "", "type": "board"},
        ],
        "total": 2, "size": 2, "offset": 0, "limit": 20,
    },
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        answer = ANSWERS.get(urlparse(self.path).path)
        body = json.dumps(answer or {}).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


@contextmanager
def miro(folder: Path) -> Iterator[dict[str, str]]:
    """What the commands of the page need in their environment."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    origin = f"http://127.0.0.1:{server.server_address[1]}"
    (folder / "redirect.cjs").write_text(NODE.format(origin=origin, fetch=str(ROOT / "node_modules/node-fetch")))
    (folder / "python").mkdir()
    (folder / "python/sitecustomize.py").write_text(PYTHON.format(origin=origin))
    try:
        yield {"NODE_OPTIONS": f"--require={folder}/redirect.cjs", "PYTHONPATH": str(folder / "python")}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
