"""The example of Miro's Python client, an application of Flask, with our storage in the place of its session: over
HTTP, by a browser. What the client sends to api.miro.com a server on this machine answers."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlparse
from uuid import uuid4

import counterfoil
import httpx
import pytest
from counterfoil.adapters.miro import MiroStorage, single_flight
from flask import Flask, request, session
from miro_api import Miro
from miro_api.api_client import ApiClient
from redis_servers import own_prefix
from support import PLACES, url_of
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        pass


@contextmanager
def serving(app: Callable[..., Any]) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Endpoint:
    """Exchanges codes and refresh tokens, each once, and lists the boards of whoever has a token of its."""

    def __init__(self) -> None:
        self.spent: set[str] = set()
        self.refreshes = 0

    @Request.application
    def __call__(self, request: Request) -> Response:
        def reply(status: int, body: Any) -> Response:
            return Response(json.dumps(body), status, mimetype="application/json")

        if request.path == "/v1/oauth/token":
            proof = request.args.get("code") or request.args.get("refresh_token") or ""
            if not proof or proof in self.spent:
                return reply(400, {"type": "error"})
            self.spent.add(proof)
            self.refreshes += "refresh_token" in request.args
            # 120 seconds are no life: the client takes two minutes off.
            life = 120 if proof.startswith("brief") else 3600
            return reply(200, {"access_token": f"access-{proof}", "refresh_token": f"next-{proof}", "expires_in": life,
                               "user_id": "u", "scope": "boards:read", "token_type": "bearer"})  # fmt: skip
        if request.headers.get("Authorization", "").removeprefix("Bearer access-") not in self.spent:
            return reply(401, {"type": "error"})
        boards = [{"id": "b1", "name": "Roadmap", "type": "board", "description": ""}]
        return reply(200, {"data": boards, "total": 1, "size": 1, "offset": 0, "limit": 50, "type": "list"})


def application(store: counterfoil.Store, wrap: Callable[[Any], Any]) -> Flask:
    app = Flask(__name__)
    app.secret_key = "very_random_secret"

    @app.route("/")
    def home() -> str:
        user = session.setdefault("user_id", str(uuid4()))
        miro = wrap(Miro("id", "secret", "http://127.0.0.1/", storage=MiroStorage(store, user)))
        if not miro.is_authorized:
            if not (code := request.args.get("code", "")):
                return f"<a href='{miro.auth_url}'>Login to Miro</a>"
            miro.exchange_code_for_access_token(code)
        return "boards: " + ", ".join(board.name for board in miro.api.get_all_boards())

    return app


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wrap", [lambda miro: miro, single_flight], ids=["as published", "single_flight"])
def test_the_example(place: str, wrap: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, call_api = Endpoint(), ApiClient.call_api
    with (
        counterfoil.open(url_of(place), prefix=own_prefix()) as store,
        serving(endpoint) as miro,
        serving(application(store, wrap)) as origin,
        httpx.Client(base_url=origin, timeout=30, verify=False) as ann,
        httpx.Client(base_url=origin, timeout=30, verify=False) as bob,
    ):

        def here(self: Any, method: str, url: str, *args: Any, **more: Any) -> Any:
            return call_api(self, method, url.replace("https://api.miro.com", miro), *args, **more)

        monkeypatch.setattr(ApiClient, "call_api", here)
        for browser, code in ((ann, "code-ann"), (bob, "brief-bob")):
            page = browser.get("/").text
            assert page.startswith("<a href='https://miro.com/oauth/authorize?"), page
            assert parse_qs(urlparse(page.split("'")[1]).query)["client_id"] == ["id"]
            assert browser.get("/", params={"code": code}).text == "boards: Roadmap"
        assert (ann.get("/").text, bob.get("/").text) == ("boards: Roadmap", "boards: Roadmap")
        assert store.count("miro:") >= 2, "each has a state of his own"
        # By itself the client never notes when a token ends, and so never refreshes.
        assert endpoint.refreshes == (1 if wrap is single_flight else 0)
