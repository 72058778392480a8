"""What strangers try, and many at once, over HTTP."""

import base64
import hashlib
import html
import re
import secrets
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from report import HANG_SECONDS, PASSWORD, Report, somebody

if TYPE_CHECKING:
    from demo import Demo

CROWD = 20


def client(like: httpx.Client | None = None) -> httpx.Client:
    """A client, perhaps with the cookies of another. Nothing here is TLS, for which httpx would read certificates."""
    return httpx.Client(timeout=HANG_SECONDS, verify=False, cookies=like.cookies if like else None)


class Visitor:
    """A browser's cookies; a redirect is followed only when it is told to."""

    def __init__(self, demo: "Demo", app: str) -> None:
        self.app, self.url, self.provider = app, demo.urls[app], demo.urls["provider"]
        self.begin = "/login/boxoffice" if app == "express" else "/auth/boxoffice/login"
        self.client = client()

    def get(self, path: str = "/") -> httpx.Response:
        return self.client.get(path if path.startswith("http") else self.url + path)

    def post(self, path: str, **form: str) -> httpx.Response:
        return self.client.post(self.url + path, data=form, headers={"Origin": self.url})

    def who(self) -> str | None:
        return shown(self.get(), "who")

    def user(self) -> str | None:
        return shown(self.get(), "user")

    def come_back(self, email: str, name: str = "Grace Hopper", answer: str = "yes") -> str:
        """Begins a login and goes to the provider; gives the callback, which is not followed."""
        page = self.get(self.get(self.begin).headers["location"])
        hidden = {
            key: html.unescape(value)
            for key, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
        }
        form = {**hidden, "name": name, "email": email, "answer": answer}
        return str(self.client.post(f"{self.provider}/authorize", data=form).headers["location"])

    def log_in(self, email: str, name: str = "Grace Hopper") -> httpx.Response:
        return self.get(self.come_back(email, name))


def shown(answer: httpx.Response, element: str) -> str | None:
    found = re.search(rf'id="{element}"[^>]*>([^<]*)<', answer.text)
    return html.unescape(found[1]) if found else None


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def all_at_once(calls: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    barrier = Barrier(len(calls))

    def one(call: Callable[[], httpx.Response]) -> httpx.Response:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def logged_in(answer: httpx.Response, app: str) -> bool:
    return answer.headers.get("location") == "/" and any(
        line.startswith(f"demo_{app}=") for line in answer.headers.get_list("set-cookie")
    )


class Strangers:
    def __init__(self, demo: "Demo", report: Report) -> None:
        self.demo = demo
        self.report = report

    def try_all(self) -> None:
        self.passwords()
        self.taken = somebody("owner")
        self.visitor("express").post("/signup", name="Owner", email=self.taken, password=PASSWORD)
        for app in ("express", "fastapi"):
            self.callbacks(app)
        self.codes()
        self.first_logins()

    def visitor(self, app: str) -> Visitor:
        return Visitor(self.demo, app)

    def saw(self, what: str, good: bool, detail: object) -> None:
        self.report.saw(what, good, detail)

    def passwords(self) -> None:
        email, name = somebody("eve"), "<script>alert(1)</script>"
        user = self.visitor("express")
        user.post("/signup", name=name, email=email, password=PASSWORD)
        page = user.get()
        self.saw("Express: a name is shown as text", shown(page, "who") == name and name not in page.text, "escaped")
        again = self.visitor("express").post("/signup", name="Mallory", email=f" {email.upper()}", password=PASSWORD)
        self.saw("Express: an e-mail signs up once", again.status_code == 409, again.status_code)
        for app in ("express", "fastapi"):
            stranger = self.visitor(app)
            tried = [
                stranger.post("/login", email=email, password="a wrong one").status_code,
                stranger.post("/login", email=somebody("nobody"), password=PASSWORD).status_code,
            ]
            self.saw(f"{app}: a wrong password and an unknown e-mail are refused", tried == [401, 401], tried)
            forged = user.client.post(
                f"{self.demo.urls[app]}/logout/everywhere", headers={"Origin": "http://example.org"}
            )
            other = self.demo.urls["fastapi" if app == "express" else "express"]
            across = user.client.post(f"{self.demo.urls[app]}/logout/everywhere", headers={"Origin": other})
            refused = [forged.status_code, across.status_code] == [403, 403] and user.who() == name
            self.saw(f"{app}: a form of another origin is refused", refused, forged.status_code)
        before = dict(user.client.cookies)
        user.post("/login", email=email, password=PASSWORD)
        stale = self.visitor("express")
        stale.client.cookies.update(before)
        changed = dict(user.client.cookies) != before and stale.who() is None
        self.saw("Express: a login has a new session id, and the old one is dead", changed, "log in")
        answers = []
        for value in ("x" * 2000, "s%3A" + "y" * 2000, "j:1"):
            for app in ("express", "fastapi"):
                stranger = self.visitor(app)
                stranger.client.cookies.update({"demo_fastapi": value, "demo_express": value})
                answers.append(stranger.get().status_code)
        self.saw("cookies that are none of ours are nobody's", answers == [200] * 6, answers)

    def callbacks(self, app: str) -> None:
        email = somebody("grace")
        visitor = self.visitor(app)
        back = visitor.come_back(email)
        first = visitor.get(back)
        again = visitor.get(back)
        self.saw(
            f"{app}: a callback logs in",
            logged_in(first, app) and visitor.who() == "Grace Hopper",
            "hello, Grace Hopper",
        )
        self.saw(f"{app}: the same callback again does not", not logged_in(again, app), again.status_code)

        victim = self.visitor(app)
        planted = victim.get(self.visitor(app).come_back(email))
        refused = planted.status_code == 400 and victim.who() is None
        self.saw(f"{app}: somebody else's callback link is refused", refused, planted.status_code)
        visitor = self.visitor(app)
        code = query(visitor.come_back(email))["code"]
        visitor.client.cookies.set("demo_state", "forged", path="/auth")
        path = urlsplit(back).path
        forged = visitor.get(f"{path}?{urlencode({'code': code, 'state': 'forged'})}")
        self.saw(
            f"{app}: a forged state is refused",
            not logged_in(forged, app) and visitor.who() is None,
            forged.status_code,
        )
        visitor = self.visitor(app)
        denied = visitor.get(visitor.come_back(email, answer="no"))
        self.saw(f"{app}: who says no at the provider is not logged in", denied.status_code == 400, denied.status_code)

        visitor = self.visitor(app)
        back = visitor.come_back(email)
        answers = all_at_once([lambda: client(visitor.client).get(back)] * CROWD)
        winners = sum(logged_in(answer, app) for answer in answers)
        broken = sum(answer.status_code >= 500 for answer in answers)
        self.saw(
            f"{app}: of {CROWD} callbacks at once one logs in", (winners, broken) == (1, 0), f"{winners} logged in"
        )

        thief = self.visitor(app)
        answer = thief.log_in(self.taken)
        refused = answer.status_code in (400, 409) and thief.who() is None
        self.saw(f"{app}: an e-mail alone links nobody's account", refused, answer.status_code)

    def codes(self) -> None:
        """The provider's codes, by requests of an application's own."""
        provider, back = self.demo.urls["provider"], f"{self.demo.urls['express']}/login/boxoffice/callback"
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {"client_id": "express", "redirect_uri": back, "state": "s", "code_challenge": challenge}
        person = {"name": "Grace Hopper", "email": somebody("grace"), "answer": "yes"}

        def redeem(**changed: str) -> Callable[[], httpx.Response]:
            code = query(client().post(f"{provider}/authorize", data={**asked, **person}).headers["location"])["code"]
            secret = self.demo.environment["DEMO_CLIENT_SECRET"]
            form = {"client_id": "express", "client_secret": secret, "redirect_uri": back, "code_verifier": verifier}
            return lambda: client().post(f"{provider}/token", data={**form, "code": code, **changed})

        answers = all_at_once([redeem()] * CROWD)
        winners = sum(answer.status_code == 200 for answer in answers)
        refused = sum(answer.status_code == 400 for answer in answers)
        once = (winners, refused) == (1, CROWD - 1)
        self.saw(f"provider: of {CROWD} that redeem one code at once one gets a token", once, f"{refused} refused")
        statuses = [
            redeem(code_verifier="x" * 43)().status_code,
            redeem(client_id="fastapi")().status_code,
            redeem(redirect_uri=f"{back}/")().status_code,
            redeem(client_secret="guessed")().status_code,
            client().post(f"{provider}/authorize", data={**asked, **person, "redirect_uri": f"{back}/"}).status_code,
        ]
        self.saw("provider: a code is for who has asked for it", statuses == [400, 400, 400, 401, 400], statuses)

    def first_logins(self) -> None:
        email = somebody("new")
        visitors = [self.visitor("express" if n % 2 else "fastapi") for n in range(10)]
        backs = [visitor.come_back(email) for visitor in visitors]
        all_at_once([partial(visitor.get, back) for visitor, back in zip(visitors, backs, strict=True)])
        users = Counter(filter(None, (visitor.user() for visitor in visitors)))
        self.saw(
            "10 first logins of one person at once, at both: one user", len(users) == 1, f"{users.total()} logged in"
        )
