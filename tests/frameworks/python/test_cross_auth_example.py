"""What a browser and a single-page application do with Cross Auth's FastAPI example (cross_auth_app.py), over HTTP, for
its releases, over each store."""

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

import httpx
import pytest
from releases import RELEASES, TOO_NEW, folder
from support import PLACES, url_of

NEWEST = list(RELEASES)[-1]
# What a place is to a store is the same for all releases: the newest is tried at all of them.
EVERYWHERE = [(each, place) for each in RELEASES for place in PLACES if each == NEWEST or "-" not in place]
DEMO = {"email": "demo@example.com", "password": "password123"}


class GitHub:
    """Says of everybody who comes that he is `email`, verified. A code and a token are good for what was said then."""

    email = DEMO["email"]

    def __init__(self) -> None:
        said: dict[str, str] = {}
        github = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def reply(self, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                url = urlparse(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path == "/login/oauth/authorize":
                    code = secrets.token_hex(8)
                    said[code] = github.email
                    self.send_response(302)
                    back = urlencode({"code": code, "state": query["state"]})
                    self.send_header("location", f"{query['redirect_uri']}?{back}")
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                email = said[self.headers["authorization"].removeprefix("Bearer ")]
                if url.path == "/api/user/emails":
                    return self.reply([{"email": email, "primary": True, "verified": True}])
                number = int(hashlib.sha256(email.encode()).hexdigest()[:8], 16)
                self.reply({"id": number, "login": email.split("@")[0], "name": None, "email": email})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                token = secrets.token_hex(8)
                said[token] = said.pop(form["code"][0])
                self.reply({"access_token": token, "token_type": "bearer", "scope": "user:email"})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def github() -> Iterator[GitHub]:
    github = GitHub()
    yield github
    github.close()


@pytest.fixture(scope="module")
def applications(github: GitHub) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One process for each release, all started at once."""
    running = {}
    try:
        for release in RELEASES:
            urls = [url_of(place) for place in PLACES]
            path = os.pathsep.join(filter(None, [str(folder(release)), os.environ.get("PYTHONPATH")]))
            program = str(Path(__file__).with_name("cross_auth_app.py"))
            running[release] = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-W", "error::RuntimeWarning", program,
                json.dumps({"urls": urls, "github": github.origin})],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
            )  # fmt: skip
        yield running
    finally:
        for process in running.values():
            process.communicate(timeout=60)
    assert [process.returncode for process in running.values()] == [0] * len(RELEASES)


ports: dict[str, list[int]] = {}


@pytest.fixture
def origin(release: str, place: str, applications: dict[str, subprocess.Popen[str]]) -> str:
    """Where the application of this release is for this place."""
    if release not in ports:
        stdout = applications[release].stdout
        assert stdout is not None
        ports[release] = json.loads(stdout.readline())
    return f"http://127.0.0.1:{ports[release][PLACES.index(place)]}"


def single_page(origin: str, client_id: str) -> dict[str, Any]:
    """A single-page application gets a token and asks who that is. Every code and every state is good for once."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    here = "http://localhost:5173/callback"
    asked = {"response_type": "code", "client_id": client_id, "redirect_uri": here, "state": "mine",
             "code_challenge": challenge, "code_challenge_method": "S256"}  # fmt: skip
    with httpx.Client(base_url=origin, timeout=30, verify=False) as client:
        answer = client.get("/auth/github/authorize", params=asked)
        while not answer.headers["location"].startswith(here):
            answer = client.get(answer.headers["location"])
            assert answer.status_code in (302, 303, 307), answer.text
        back = parse_qs(urlparse(answer.headers["location"]).query)
        assert back["state"] == ["mine"], back
        grant = {"grant_type": "authorization_code", "client_id": client_id, "redirect_uri": here,
                 "code": back["code"][0], "code_verifier": verifier}  # fmt: skip
        wrong = client.post("/auth/token", data={**grant, "code": "another"})
        assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")
        token = client.post("/auth/token", data=grant)
        assert token.status_code == 200, token.text
        again = client.post("/auth/token", data=grant)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant"), "a code is good for once"
        bearer = {"authorization": f"Bearer {token.json()['access_token']}"}
        me: dict[str, Any] = client.get("/api/me-token", headers=bearer).json()
        assert client.get("/api/me-token").status_code == 401
        return me


@pytest.mark.parametrize(("release", "place"), EVERYWHERE)
def test_a_single_page_application_gets_a_token(release: str, origin: str, github: GitHub) -> None:
    client_id = "demo-client" if release == "0.2.0" else "spa-example"
    github.email = "spa@example.com"
    first = single_page(origin, client_id)
    assert (first["email"], first["providers"]) == ("spa@example.com", ["github"])
    assert single_page(origin, client_id) == first, "the same person again"


@pytest.mark.parametrize(("release", "place"), [one for one in EVERYWHERE if one[0] != "0.2.0"])  # it has no sessions
def test_a_browser_has_a_session(origin: str, github: GitHub) -> None:
    with httpx.Client(base_url=origin, follow_redirects=True, timeout=30, verify=False) as browser:
        assert browser.get("/").json() == {}
        assert "invalid_credentials" in str(browser.post("/login", data={**DEMO, "password": "wrong"}).url)
        assert browser.get("/api/me-session").status_code == 401
        entered = browser.post("/login", data=DEMO)
        assert (entered.url.path, entered.json()["email"]) == ("/profile", DEMO["email"])
        cookies = dict(browser.cookies)
        me = browser.get("/api/me-session").json()
        assert browser.post("/logout").json() == {}
        assert browser.get("/api/me-session").status_code == 401
        assert httpx.get(f"{origin}/api/me-session", cookies=cookies).status_code == 401, "logged out stays logged out"

        github.email = DEMO["email"]
        linked = browser.get("/auth/github/login", params={"next": "/profile"})
        assert (linked.url.path, linked.status_code) == ("/profile", 200), linked.text
        assert linked.json() == {**me, "providers": ["github"]}, "the demo user, linked by his e-mail"
        used = next(one.request.url for one in linked.history if "code=" in str(one.request.url))
        browser.post("/logout")
        assert browser.get(str(used)).url.path != "/profile", "a state is good for once"
        assert browser.get("/").json() == {}

        github.email = "new@example.com"
        new = browser.get("/auth/github/login", params={"next": "/profile"}).json()
        assert (new["email"], new["providers"]) == ("new@example.com", ["github"])
        assert new["id"] != me["id"]


def test_a_release_that_asks_more_is_told_of_at_the_start() -> None:
    program = """if True:
        import cross_auth.fastapi, counterfoil, warnings
        from counterfoil.adapters.cross_auth import AccountsStorage
        class Mine(AccountsStorage):
            def has_social_account(self, *, provider, provider_user_id): ...
        with counterfoil.open("memory:") as store, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            AccountsStorage(store)
            Mine(store)
        print([(one.category.__name__, one.filename, str(one.message)) for one in seen])
    """
    path = os.pathsep.join(filter(None, [str(folder(TOO_NEW)), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[('RuntimeWarning', '<string>', \"this release of Cross Auth asks more"), done.stdout
    assert done.stdout.count("RuntimeWarning") == 1, "who has added what it asks is left alone"
    assert "cross-auth<0.24" in done.stdout
    assert "(has_social_account)" in done.stdout
