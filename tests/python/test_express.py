"""Sessions of Express in Python, with real Express applications (express-session over our store and over connect-redis,
Passport) on the other side of the same store."""

import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import counterfoil
import pytest
from counterfoil.express import EndedError, ExpressSessions
from express_node import Browser, Node
from redis_servers import own_prefix, redis_variable
from support import Sqlite

DATABASES = Sqlite()
NESTED = {"a": [1, 2.5, None, True, {"é": "ü\u2028 😀"}], "": "\x00\n\"\\\x7f", "10": 1, "2": 2}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as running:
        yield running


@dataclass
class Place:
    """A store, as both sides see it."""

    node: Node
    kind: str
    url: str
    prefix: str
    open: list[Any] = field(default_factory=list)

    def app(self, *, options: dict[str, Any] | None = None, **session: Any) -> str:
        return self.node.app(self.url, kind=self.kind, options={"prefix": self.prefix, **(options or {})}, **session)

    def browser(self, *, options: dict[str, Any] | None = None, **session: Any) -> Browser:
        self.open.append(Browser(self.app(options=options, **session)))
        return self.open[-1]

    def sessions(self, **options: Any) -> ExpressSessions:
        self.open.append(ExpressSessions(self.url, **{"secret": "new", "prefix": self.prefix, **options}))
        return self.open[-1]

    def raw(self, session_id: str) -> str | None:
        """What is stored."""
        with counterfoil.open(self.url) as store:
            return store.get(self.prefix + session_id)

    def put(self, session_id: str, text: str) -> None:
        with counterfoil.open(self.url) as store:
            store.set(self.prefix + session_id, text, ttl=600)


@pytest.fixture(params=["sqlite", "redis", "connect-redis"])
def place(request: pytest.FixtureRequest, node: Node) -> Iterator[Place]:
    url = DATABASES.new() if request.param == "sqlite" else redis_variable("")
    kind = "connect-redis" if request.param == "connect-redis" else "counterfoil"
    found = Place(node, kind, url, f"{own_prefix()}sess:")
    yield found
    for one in reversed(found.open):
        one.close()


ours = pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)


# ------------------------------------------------------------------------------------------------------ there and back


def test_a_login_at_express_is_one_in_python(place: Place) -> None:
    browser, sessions = place.browser(cookie={"maxAge": 600_000, "sameSite": "lax"}), place.sessions()
    assert sessions.load(browser.cookies) is None
    assert browser.do("/login", username="ada", password="right") == {"id": "ada"}
    session = sessions.load(browser.cookies)
    assert session is not None
    assert session == {"passport": {"user": "ada"}}
    assert session.id == browser.do("/id")
    assert (session.cookie.original_max_age, session.cookie.same_site, session.cookie.http_only) == (600, "lax", True)
    # Python writes, and Express sees it, and the other way round, with everything that JSON can say.
    session["cart"] = NESTED
    assert sessions.save(session)
    assert {**browser.do("/me"), "cookie": None} == {"cookie": None, "passport": {"user": "ada"}, "cart": NESTED}
    browser.do("/set", more=NESTED, half="\ud800")
    header = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    again = sessions.load(f"other=1; {header}")
    assert again is not None
    assert again == {"passport": {"user": "ada"}, "cart": NESTED, "more": NESTED, "half": "\ud800"}
    del again["cart"], again["more"]
    assert sessions.save(again)
    assert sessions.touch(again)
    assert {**browser.do("/me"), "cookie": None} == {"cookie": None, "passport": {"user": "ada"}, "half": "\ud800"}
    assert browser.do("/id") == session.id, "it is the same session still"


def test_a_session_of_python_is_one_at_express(place: Place) -> None:
    browser, sessions = place.browser(), place.sessions(cookie={"max_age": 600, "domain": None, "secure": False})
    session = sessions.create({"passport": {"user": 7}, "data": NESTED})
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", session.id)
    browser.take(sessions.set_cookie(session))
    assert browser.do("/id") == session.id
    seen = browser.do("/me")
    assert (seen["passport"], seen["data"], seen["cookie"]["originalMaxAge"]) == ({"user": 7}, NESTED, 600_000)
    browser.do("/set", from_express=1)
    found = sessions.load(browser.cookies)
    assert found is not None
    assert found["from_express"] == 1
    # A new id, in the same object.
    old = session.id
    assert sessions.regenerate(found, {**found, "admin": True}) is found
    assert found.id != old
    assert "from_express" not in browser.do("/me"), "the old one has ended"
    browser.take(sessions.set_cookie(found))
    assert (browser.do("/me")["admin"], browser.do("/me")["from_express"]) == (True, 1)


def test_what_has_ended_stays_so_on_both_sides(place: Place) -> None:
    browser, sessions = place.browser(), place.sessions()
    strict = place.sessions(save_ended="error")
    for end in ("express", "python"):
        browser.do("/login", username="ada", password="right")
        cookies = dict(browser.cookies)
        late, later = sessions.load(cookies), strict.load(cookies)
        assert late is not None
        assert later is not None
        if end == "express":
            browser.do("/logout")
        else:
            sessions.destroy(late)
        for one in (late, later):
            one["n"] = 1
        assert not sessions.save(late)
        assert not sessions.touch(late)
        with pytest.raises(EndedError) as caught:
            strict.save(later)
        assert (caught.value.code, caught.value.outcome) == ("ENDED", "not_applied")
        assert sessions.load(cookies) is None
        assert place.raw(late.id) is None
        assert "passport" not in browser.do("/me")
        sessions.destroy(late)
        sessions.destroy(late.id)


def test_brought_back_only_if_wanted(place: Place) -> None:
    browser, sessions = place.browser(), place.sessions(save_ended="create")
    browser.do("/login", username="ada", password="right")
    session = sessions.load(browser.cookies)
    assert session is not None
    browser.do("/logout")
    assert sessions.save(session)
    assert browser.do("/me")["passport"] == {"user": "ada"}


@ours
def test_races_of_ending_and_saving(place: Place) -> None:
    """A save that is under way on one side while the other side ends the session never brings it back."""
    from concurrent.futures import ThreadPoolExecutor

    app, sessions = place.app(), place.sessions()
    with ThreadPoolExecutor(2) as pool, Browser(app) as browser:
        for round_ in range(200):
            session = sessions.create({"user": round_})
            browser.take(sessions.set_cookie(session))
            cookies = dict(browser.cookies)
            if round_ % 2:
                late = sessions.load(cookies)
                assert late is not None
                saving = pool.submit(sessions.save, late)
                browser.do("/logout")
            else:
                saving = pool.submit(browser.do, "/set", n=round_, turns=round_ % 5)
                sessions.destroy(session)
            saving.result(30)
            assert sessions.load(cookies) is None, f"round {round_}"

