"""Miro's token endpoint on this machine, for its real client: refresh tokens are used once, and every refresh is
counted. As a program of its own: processes whose clients share a store."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse


@dataclass
class Seen:
    refreshes: int = 0
    exchanges: int = 0
    refused: int = 0


@contextmanager
def endpoint(life: int = 3600, hang: Callable[[int], bool] = lambda count: False) -> Iterator[tuple[str, Seen]]:
    """Gives where it is, and what it has seen. `hang`: whether this refresh gets no answer."""
    seen, lock, closed = Seen(), threading.Lock(), threading.Event()
    current, number = "refresh-0", 0

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def reply(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            nonlocal current, number
            query = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
            refresh = query.get("grant_type") == "refresh_token"
            with lock:
                if refresh:
                    seen.refreshes += 1
                    if query["refresh_token"] != current:
                        seen.refused += 1
                        return self.reply(400, {})
                else:
                    seen.exchanges += 1
            if refresh and hang(seen.refreshes):
                closed.wait()
                return None
            time.sleep(0.2)  # for others to come
            with lock:
                number += 1
                current = f"refresh-{number}"
                return self.reply(
                    200,
                    {"access_token": f"access-{number}", "refresh_token": current, "expires_in": life, "user_id": "m"},
                )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        closed.set()
        server.shutdown()
        thread.join()
        server.server_close()


def client(storage: Any, origin: str) -> Any:
    """A client of miro_api as it is, but that what it sends to Miro comes to us."""
    from miro_api import Miro
    from miro_api.api_client import ApiClient

    class Here(ApiClient):  # type: ignore[misc]
        def call_api(self, method: str, url: str, *args: Any, **options: Any) -> Any:
            return super().call_api(method, url.replace("https://api.miro.com", origin), *args, **options)

    miro = Miro(client_id="id", client_secret="secret", redirect_url="http://localhost/", storage=storage)
    miro._api_client = Here()
    return miro


def main() -> None:
    import counterfoil
    from counterfoil.adapters.miro import MiroStorage, single_flight

    how = json.loads(sys.argv[1])
    import miro_api  # noqa: F401  # which takes a second: before the fork

    if how["number"] > 1 and all(os.fork() for _ in range(how["number"])):
        for _ in range(how["number"]):
            assert os.wait()[1] == 0
        return
    with counterfoil.open(how["url"], prefix=how["prefix"]) as store:
        calls = range(how["calls"])
        clients = [single_flight(client(MiroStorage(store, 7, lease=how["lease"]), how["origin"])) for _ in calls]
        assert clients[0]._storage.get() is not None
        os.write(1, b"ready\n")
        assert os.read(0, 1) == b"", "what all of them wait for is the end of their input"
        with ThreadPoolExecutor(how["calls"]) as pool:
            os.write(1, json.dumps(list(pool.map(lambda miro: miro.access_token, clients))).encode() + b"\n")


if __name__ == "__main__":
    main()
