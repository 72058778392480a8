"""Drives both demo applications as browsers would, over HTTP, and prints every observation."""

import html
import http.client
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from threading import Barrier
from typing import Protocol
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

CROWD = 20
HANG_SECONDS = 60  # only so that a check never hangs


class Started(Protocol):
    """An application, and where it listens now."""

    url: str


@dataclass
class Answer:
    status: int
    text: str
    location: str

    def shows(self, element: str) -> str | None:
        """The text of the element with this id."""
        found = re.search(rf'id="{element}"[^>]*>([^<]*)<', self.text)
        return html.unescape(found[1]) if found else None


@dataclass
class Browser:
    """Keeps cookies, as a browser does; follows a redirect only when it is told to."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None)

    def post(self, path: str, **form: str) -> Answer:
        return self._request("POST", path, urlencode(form))

    def follow(self, answer: Answer) -> Answer:
        return self.get(answer.location)

    def copy(self) -> "Browser":
        return Browser(self.base, dict(self.cookies))

    def _request(self, method: str, path: str, body: str | None) -> Answer:
        target = urlsplit(urljoin(self.base, path))
        assert target.hostname is not None
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=HANG_SECONDS)
        headers = {}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, f"{target.path}?{target.query}", body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.read().decode(), response.headers.get("Location", ""))
            for line in response.headers.get_all("Set-Cookie", []):
                for name, morsel in SimpleCookie(line).items():
                    if morsel["max-age"] == "0" or "1970" in morsel["expires"]:
                        self.cookies.pop(name, None)
                    else:
                        self.cookies[name] = morsel.coded_value
            return answer
        finally:
            connection.close()


class Report:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def saw(self, what: str, good: bool, detail: object) -> None:
        if good:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok  ' if good else 'FAIL'}  {what} ({detail})", flush=True)


def express(url: str, report: Report) -> None:
    browser = Browser(url)
    report.saw("Express: a stranger is asked to log in", browser.get("/").shows("username") is not None, "login form")

    answer = browser.post("/login", username="ada", password="wrong")
    refused = answer.status == 401 and answer.shows("problem") is not None
    report.saw("Express: a wrong password is refused", refused, answer.status)
    answer = browser.post("/login", username="constructor", password="engine")
    report.saw("Express: an unknown name is refused", answer.status == 401, answer.status)

    answer = browser.post("/login", username="ada", password="engine")
    report.saw("Express: the right password is accepted", answer.status == 303 and bool(browser.cookies), answer.status)

    visits = [browser.get("/").shows("visits") for _ in range(3)]
    report.saw("Express: the session counts the visits", visits == ["1", "2", "3"], ", ".join(map(str, visits)))

    note = 'tea at "five" <b>&'
    browser.post("/note", note=note)
    kept = re.search(r'id="note"[^>]*value="([^"]*)"', browser.get("/").text)
    same = kept is not None and html.unescape(kept[1]) == note
    report.saw("Express: the session keeps a note", same, "read back as written")

    other = Browser(url)
    other.post("/login", username="ada", password="engine")
    first = other.get("/").shows("visits")
    report.saw("Express: a second browser has a session of its own", first == "1", f"counter at {first}")

    before = dict(other.cookies)
    other.post("/login", username="ada", password="engine")
    stale = Browser(url, before).get("/").shows("visits")
    renewed = other.cookies != before and stale is None
    report.saw("Express: a new login has a new session id, the old one is dead", renewed, "login form")

    old = browser.copy()
    answer = browser.post("/logout")
    gone = browser.follow(answer).shows("visits")
    report.saw("Express: logging out ends the session", answer.status == 303 and gone is None, answer.status)
    alive = old.get("/").shows("visits")
    seen = "login form" if alive is None else "still a session"
    report.saw("Express: the old cookie is dead after it", alive is None, seen)
    still = other.get("/").shows("visits")
    report.saw("Express: the other browser's session lives on", still is not None, f"counter at {still}")


def start(browser: Browser, name: str = "Grace Hopper") -> Answer:
    """From /login to the redirect that leads to the callback, which is not followed."""
    page = browser.follow(browser.get("/login"))
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    return browser.post("/authorize", **{key: html.unescape(value) for key, value in hidden.items()}, name=name)


def all_at_once(calls: list[tuple[Browser, str]]) -> list[int]:
    barrier = Barrier(len(calls), timeout=HANG_SECONDS)

    def call(browser: Browser, path: str) -> int:
        barrier.wait()
        return browser.get(path).status

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, *zip(*calls, strict=True)))


def fastapi(url: str, report: Report) -> None:
    browser = Browser(url)
    answer = browser.get("/login")
    there = urlsplit(answer.location)
    sent = answer.status == 303 and there.path == "/authorize" and "state" in parse_qs(there.query)
    report.saw("FastAPI: /login sends the browser to the provider with a state", sent, answer.status)

    back = start(browser)
    report.saw("FastAPI: the provider sends it back with a code", "code=" in back.location, back.status)
    before = browser.copy()
    answer = browser.follow(back)
    who = browser.follow(answer).shows("who")
    report.saw("FastAPI: the callback signs in", answer.status == 303 and who == "Grace Hopper", f"hello, {who}")

    replayed = before.get(back.location)
    report.saw("FastAPI: the same callback a second time is refused", replayed.status == 400, replayed.status)

    browser = Browser(url)
    code = parse_qs(urlsplit(start(browser).location).query)["code"][0]
    forged = browser.get("/callback?" + urlencode({"code": code, "state": "forged"}))
    report.saw("FastAPI: a forged state is refused", forged.status == 400, forged.status)
    browser.cookies["demo_state"] = "forged"
    forged = browser.get("/callback?" + urlencode({"code": code, "state": "forged"}))
    report.saw("FastAPI: also with a forged cookie to match", forged.status == 400, forged.status)

    victim = Browser(url)
    planted = victim.get(start(Browser(url)).location)
    report.saw("FastAPI: somebody else's callback link is refused", planted.status == 400, planted.status)

    browser = Browser(url)
    state = start(browser).location
    statuses = all_at_once([(browser.copy(), state) for _ in range(CROWD)])
    report.saw(f"FastAPI: {CROWD} callbacks at once with one state", one_winner(statuses), tally(statuses))

    # Every one with a good state of its own, so that it is the code that decides.
    code = parse_qs(urlsplit(start(Browser(url)).location).query)["code"][0]
    calls = []
    for _ in range(CROWD):
        browser = Browser(url)
        state = parse_qs(urlsplit(browser.get("/login").location).query)["state"][0]
        calls.append((browser, "/callback?" + urlencode({"code": code, "state": state})))
    statuses = all_at_once(calls)
    report.saw(f"FastAPI: {CROWD} callbacks at once with one code", one_winner(statuses), tally(statuses))

    browser = Browser(url)
    browser.follow(start(browser, name="<script>alert(1)</script>"))
    who = browser.get("/").shows("who")
    report.saw("FastAPI: a name is shown as text", who == "<script>alert(1)</script>", "escaped")
    old = browser.copy()
    browser.post("/logout")
    alive = old.get("/").shows("who")
    report.saw("FastAPI: the old cookie is dead after signing out", alive is None, "not signed in")
    strange = Browser(url, {"demo_fastapi": "x" * 2000}).get("/")
    report.saw("FastAPI: a cookie that cannot be an id is refused", strange.status == 400, strange.status)


def one_winner(statuses: list[int]) -> bool:
    return statuses.count(303) == 1 and statuses.count(400) == len(statuses) - 1


def tally(statuses: list[int]) -> str:
    return f"{statuses.count(303)} signed in, {statuses.count(400)} refused"


def restarted(express: Started, fastapi: Started, restart: Callable[[], None], report: Report) -> None:
    one, two = Browser(express.url), Browser(fastapi.url)
    one.post("/login", username="ada", password="engine")
    counted = one.get("/").shows("visits")
    two.follow(start(two))
    gone = two.copy()
    gone.follow(start(gone))
    ended = gone.copy()
    gone.post("/logout")
    pending = start(Browser(fastapi.url))
    restart()
    visits = Browser(express.url, one.cookies).get("/").shows("visits")
    report.saw("Express: a session outlives the process", (counted, visits) == ("1", "2"), f"visit {visits}")
    who = Browser(fastapi.url, two.cookies).get("/").shows("who")
    report.saw("FastAPI: so does a session here", who == "Grace Hopper", f"hello, {who}")
    who = Browser(fastapi.url, ended.cookies).get("/").shows("who")
    report.saw("FastAPI: one that was ended stays dead", who is None, "not signed in")
    code = parse_qs(urlsplit(pending.location).query)["code"][0]
    browser = Browser(fastapi.url)
    state = parse_qs(urlsplit(browser.get("/login").location).query)["state"][0]
    statuses = [browser.copy().get("/callback?" + urlencode({"code": code, "state": state})).status for _ in range(2)]
    report.saw("FastAPI: a code from before is good, once", statuses == [303, 400], tally(statuses))


def check(express_app: Started, fastapi_app: Started, restart: Callable[[], None] | None) -> int:
    """`restart`, where the store outlives a process."""
    report = Report()
    parts: list[tuple[str, Callable[[], None]]] = [
        ("Express", lambda: express(express_app.url, report)),
        ("FastAPI", lambda: fastapi(fastapi_app.url, report)),
    ]
    if restart is not None:
        anew = restart
        parts.append(("Both, started anew", lambda: restarted(express_app, fastapi_app, anew, report)))
    for name, drive in parts:
        try:
            drive()
        except Exception as error:  # one application's fault must not hide what the other one does
            report.saw(f"{name}: answered every request", False, f"{type(error).__name__}: {error}")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0
