"""Sessions of Express in Python, with real Express applications (express-session over our store and over connect-redis,
Passport) on the other side of the same store."""

import asyncio
import base64
import hmac
import json
import math
import os
import re
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random, randrange
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote

import counterfoil.express
import httpx
import pytest
from counterfoil.express import AsyncExpressSessions, Cookie, EndedError, ExpressSession, ExpressSessions, life
from counterfoil.express.cookies import find
from counterfoil.testing import Stage
from express_node import Browser, Node, served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_servers import own_prefix
from support import MODES, PLACES, SHARED, Clocked, Mode, finish, url_of

NESTED = {"a": [1, 2.5, None, True, {"é": "ü\u2028 😀"}], "": '\x00\n"\\\x7f', "10": 1, "2": 2}


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


@pytest.fixture(params=[*SHARED, "connect-redis"])
def place(request: pytest.FixtureRequest, node: Node) -> Iterator[Place]:
    theirs = request.param == "connect-redis"
    url = url_of("redis" if theirs else request.param)
    found = Place(node, "connect-redis" if theirs else "counterfoil", url, f"{own_prefix()}sess:")
    yield found
    for one in reversed(found.open):
        one.close()


ours = pytest.mark.parametrize("place", SHARED, indirect=True)


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
    """Saves that are under way on one side while the other side ends the session never bring it back."""
    app, sessions = place.app(), place.sessions()
    met = 0
    with ThreadPoolExecutor(1) as pool, Browser(app) as browser:
        for number in range(150):
            session = sessions.create({"user": number})
            browser.take(sessions.set_cookie(session))
            cookies = dict(browser.cookies)
            if number % 2:
                late = sessions.load(cookies)
                assert late is not None
                ending = pool.submit(browser.do, "/logout")
                while not ending.done():
                    late["n"] = sessions.save(late)
                ending.result()
                assert not sessions.save(late)
            else:
                saving = pool.submit(browser.do, "/often", times=30)
                time.sleep(number % 10 / 1000)
                sessions.destroy(session)
                was_saving = not saving.done()
                met += saving.result(30)["had"] and was_saving
            assert sessions.load(cookies) is None, f"round {number}"
            assert place.raw(session.id) is None, f"round {number}"
    assert met > 5


@ours
def test_users_across_languages(place: Place) -> None:
    app = place.app(options={"userOf": "user", "maxSessionsPerUser": 3})
    sessions = place.sessions(user_of=lambda session: session.get("user"), max_sessions_per_user=3)
    phone, laptop = Browser(app), Browser(app)
    place.open += [phone, laptop]
    phone.do("/user", user=7)
    made = sessions.create({"user": "7"})
    laptop.take(sessions.set_cookie(made))
    mine = sessions.load(phone.cookies)
    assert mine is not None
    assert mine["user"] == 7
    assert [one.current for one in sessions.sessions_of(7, current=mine)] == [False, True]
    theirs = laptop.do("/mine")
    assert [one["current"] for one in theirs] == [True, False]
    assert [one["handle"] for one in theirs] == [one.handle for one in sessions.sessions_of("7")]
    assert [one["created"] for one in theirs] == [iso(one.created) for one in sessions.sessions_of("7")]
    # One of the list.
    assert not sessions.end(theirs[0]["handle"], user=8)
    assert sessions.end(theirs[0]["handle"], user=7)
    assert not sessions.end(theirs[0]["handle"])
    assert not sessions.end("nothing")
    assert "user" not in laptop.do("/me")
    assert sessions.load(laptop.cookies) is None
    assert not sessions.save(made)
    # Another application on the same store has other users.
    beside = place.sessions(prefix=own_prefix(), user_of=lambda session: session.get("user"))
    assert beside.sessions_of(7) == []
    assert beside.end_all_of(7) == 0
    assert not beside.end(sessions.sessions_of(7)[0].handle)
    assert len(sessions.sessions_of(7)) == 1
    # All, from either side.
    for everywhere in (lambda: sessions.end_all_of(7), lambda: phone.do("/everywhere")):
        phone.do("/user", user=7)
        late = sessions.create({"user": 7})
        before = sessions.begin_login(7)
        assert everywhere() == 2
        assert sessions.load(phone.cookies) is None
        assert "user" not in phone.do("/me")
        assert not sessions.save(late)
        assert sessions.sessions_of(7) == []
        # A login that was under way; and one that begins now.
        with pytest.raises(EndedError):
            sessions.create({"user": 7}, login=before)
        again = sessions.create({"user": 7}, login=sessions.begin_login(7))
        assert sessions.end_all_of(7, except_id=again) == 0
        assert len(sessions.sessions_of(7)) == 1
        sessions.destroy(again)
        assert sessions.sessions_of(7) == []
    # The cap, the other's user, and nobody.
    for _ in range(4):
        sessions.create({"user": 9})
    assert len(sessions.sessions_of(9)) == 3
    other = sessions.create({"user": 1})
    other["user"] = 2
    with pytest.raises(counterfoil.InvalidError, match="regenerate"):
        sessions.save(other)
    sessions.regenerate(other, {"user": 2})
    del other["user"]
    assert sessions.save(other)
    assert sessions.sessions_of(2) == []
    other["user"] = 2
    with pytest.raises(counterfoil.InvalidError, match="logged out"):
        sessions.save(other)
    with pytest.raises(counterfoil.InvalidError, match="another user"):
        sessions.create({"user": 1}, login=sessions.begin_login(2))


def test_sessions_from_before_they_were_sealed(tmp_path: Path) -> None:
    url, keys = f"sqlite:{tmp_path}/plain.db", {1: bytes(32)}
    with ExpressSessions(url, secret="s") as sessions:
        cookies = {"connect.sid": sessions.sign(sessions.create({"user": "ada"}).id)}
    with (
        ExpressSessions(url, secret="s", keys=keys, seal_values=True) as sessions,
        pytest.raises(counterfoil.CorruptError, match="plain_until"),
    ):
        sessions.load(cookies)
    soon = datetime.now(UTC) + timedelta(days=1)
    with ExpressSessions(url, secret="s", keys=keys, seal_values=True, plain_until=soon) as sessions:
        session = sessions.load(cookies)
        assert session is not None
        assert session["user"] == "ada"


@ours
def test_sealed_and_hashed(place: Place) -> None:
    key = bytes(range(32))
    options = {"sealValues": True, "hashKeys": True, "keys": [[5, key.hex()]]}
    browser = place.browser(options=options, cookie={"maxAge": 600_000})
    sessions = place.sessions(seal_values=True, hash_keys=True, keys={5: key}, absolute_timeout=1000, touch_after=10)
    browser.do("/login", username="ada", password="right")
    session = sessions.load(browser.cookies)
    assert session == {"passport": {"user": "ada"}}
    assert session is not None
    session["n"] = 1
    assert sessions.touch(session)
    assert sessions.save(session)
    assert browser.do("/me")["n"] == 1
    assert place.raw(session.id) is None, "under the id itself"
    browser.take(sessions.set_cookie(sessions.create({"from": "python"})))
    assert browser.do("/me")["from"] == "python"


@ours
def test_what_another_request_has_saved_is_not_overwritten(place: Place) -> None:
    browser = place.browser(options={"saveChanged": "error", "touchAfter": 1}, cookie={"maxAge": 600_000})
    sessions = place.sessions(save_changed="error", touch_after=1)
    assert browser.do("/set", n=1) == {"error": None}
    first, second = sessions.load(browser.cookies), sessions.load(browser.cookies)
    assert first is not None
    assert second is not None
    browser.do("/me")  # a touch is no change
    first["n"] = 2
    assert sessions.save(first)
    assert sessions.save(first)
    second["n"] = 3
    with pytest.raises(counterfoil.ChangedError) as caught:
        sessions.save(second)
    assert (caught.value.code, caught.value.outcome) == ("CHANGED", "not_applied")
    assert browser.do("/set", m=1) == {"error": None}
    with pytest.raises(counterfoil.ChangedError):
        sessions.save(first)
    assert browser.do("/me")["n"] == 2


def test_the_text_is_what_express_would_write(place: Place) -> None:
    cookie = {"maxAge": 600_000, "sameSite": "lax", "path": "/a", "domain": "example.org", "secure": False}
    mine = {"max_age": 600, "same_site": "lax", "path": "/a", "domain": "example.org", "secure": False}
    data = {"text": 'é\u2028\ud800\x00\x7f"', "number": -1.5, "list": [1, None, {}]}
    for theirs, ours_ in ((cookie, mine), ({}, {})):
        at = place.app(cookie={**theirs, "path": "/"})
        with httpx.Client(base_url=at) as client:
            answer = client.post("/set", content=json.dumps(data), headers={"content-type": "application/json"})
        session_id = place.sessions().unsign(unquote(answer.headers["set-cookie"].split(";")[0].partition("=")[2]))
        assert session_id is not None
        made = place.sessions(cookie={**ours_, "path": "/"}).create(data)
        times = '"expires":"[^"]*"'
        texts = [re.sub(times, "", place.raw(one) or "") for one in (session_id, made.id)]
        assert texts[0] == texts[1]
        assert re.findall(times, place.raw(made.id) or "") != [] if theirs else True
        sent = place.sessions(cookie={**ours_, "path": "/"}).set_cookie(made)
        headers = [re.sub("=[^;]*", "", one, count=1) for one in (answer.headers["set-cookie"], sent)]
        headers = [re.sub("Expires=[^;]*", "Expires", one) for one in headers]
        assert headers[0] == headers[1]


def test_what_express_does_not_name_survives(place: Place) -> None:
    browser, sessions = place.browser(), place.sessions()
    session = sessions.create({"n": 1})
    stored = json.loads(place.raw(session.id) or "")
    stored["cookie"] |= {"mark": {"of": "another program"}, "originalMaxAge": 5000}
    stored["big"] = 12345678901234567000
    place.put(session.id, json.dumps(stored) + " ")
    found = sessions.load({"connect.sid": quote(sessions.sign(session.id))})
    assert found is not None
    assert found["big"] == float(12345678901234567000), "as JavaScript rounds it"
    found["n"] = 2
    assert sessions.save(found)
    again = json.loads(place.raw(session.id) or "")
    assert (again["cookie"]["mark"], again["n"], again["big"]) == ({"of": "another program"}, 2, found["big"])
    browser.take(sessions.set_cookie(found))
    assert browser.do("/me")["n"] == 2


@pytest.mark.parametrize("text", ["{", "NaN", '{"a":Infinity}', "[]", "5", "null", '"text"', "[" * 100_000])
def test_what_is_no_session_is_corrupt_on_both_sides(place: Place, text: str) -> None:
    browser, sessions = place.browser(), place.sessions()
    place.put("id", text)
    browser.take(f"connect.sid={quote(sessions.sign('id'))}")
    with pytest.raises(counterfoil.CorruptError) as caught:
        sessions.load(browser.cookies)
    assert caught.value.__context__ is None, "which might quote it"
    assert text[:6] not in str(caught.value)
    if place.kind == "counterfoil":
        answer = browser.get("/me")
        assert (answer.status_code, answer.json()) == (500, {"error": "CORRUPT"})
    sessions.destroy("id")
    assert sessions.load(browser.cookies) is None


def test_secrets_are_rotated(place: Place) -> None:
    old, new = place.browser(secret="old"), place.browser(secret=["new", "old"])
    rotated, older = place.sessions(secret=["new", "old"]), place.sessions(secret="old")
    stranger = place.sessions(secret=["neither", b"nor"])
    old.do("/login", username="ada", password="right")
    session = rotated.load(old.cookies)
    assert session is not None
    assert older.load(old.cookies) == session
    assert stranger.load(old.cookies) is None
    new.take(rotated.set_cookie(session))
    assert new.do("/me")["passport"] == {"user": "ada"}
    assert older.load(new.cookies) is None, "it is signed by the first"
    assert "passport" not in place.browser(secret="old").do("/me")
    for one in (rotated, older):
        assert "old" not in repr(one)
        assert "old" not in repr(vars(one)["_signer"])


# ------------------------------------------------------------------------------------------------------------- cookies

ids = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
secrets = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
latin = st.text(st.characters(max_codepoint=255), max_size=12)
checked = settings(
    max_examples=20, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@st.composite
def headers(draw: st.DrawFn, secret: list[str]) -> str:
    """Cookies as a browser sends them, and as somebody might who tries."""
    signer = ExpressSessions("memory:", secret=draw(st.sampled_from([*secret, "another"])))
    pairs = []
    for _ in range(draw(st.integers(1, 3))):
        value = signer.sign(draw(st.one_of(ids, st.sampled_from(["a%zz", "100%"]))))
        spoilt = [value[2:], value[:-1], value + "=", value.replace(".", ""), "s:", "s:.", ""]
        value = draw(st.sampled_from([value, value, value, *spoilt]))
        forms = [quote(value, safe=""), quote(value), value, f'"{quote(value)}"', value + "%", "%c3%28"]
        forms.append(quote(value).replace("%25", "%"))
        value = draw(st.sampled_from([quote(value), *forms]))
        value = value.encode("latin-1", "replace").decode("latin-1")
        name = draw(st.sampled_from(["connect.sid", " connect.sid\t", "other", "connect", "", "__proto__"]))
        pairs.append(draw(st.sampled_from([f"{name}={value}", f"{name}= {value} ", value, name, draw(latin)])))
    return draw(st.sampled_from([";", "; ", ";;"])).join(pairs)


@checked
@given(data=st.data(), secret=st.lists(secrets, min_size=1, max_size=3))
def test_cookies_are_read_as_express_reads_them(node: Node, data: st.DataObject, secret: list[str]) -> None:
    sessions = ExpressSessions("memory:", secret=secret)
    sent = data.draw(st.lists(headers(secret), min_size=10, max_size=20))
    mine = [value and sessions.unsign(value) for value in (find(header, "connect.sid") for header in sent)]
    assert [one or None for one in mine] == node.ask("asked", headers=sent, secret=secret, name="connect.sid")


def test_odd_cookies_are_read_as_express_reads_them(node: Node) -> None:
    sessions = ExpressSessions("memory:", secret="s")
    signed, percent = quote(sessions.sign("it's")), quote(sessions.sign("100%zz"))
    values = [signed, percent, percent.replace("%25", "%"), sessions.sign("100%zz"), signed + "%", signed + "%ff"]
    headers = [f"connect.sid={value}" for value in [*values, f'"{signed}"', f"x; connect.sid={signed}"]]
    headers.append(f"connect.sid; connect.sid={signed}")
    mine = [sessions.unsign(find(header, "connect.sid") or "") for header in headers]
    assert mine == node.ask("asked", headers=headers, secret="s", name="connect.sid")
    assert {"it's", "100%zz", None} == set(mine)
    cookie = sessions.set_cookie(ExpressSession("it's", Cookie({}), {}))
    assert [cookie] == node.ask("sent", cookies=[{"id": "it's"}], secret="s", name="connect.sid")


def test_the_empty_id_is_nobodys(node: Node) -> None:
    signature = base64.b64encode(hmac.digest(b"s", b"", "sha256")).decode().rstrip("=")
    assert ExpressSessions("memory:", secret="s").unsign(f"s:.{signature}") is None
    assert not node.ask("asked", headers=[f"connect.sid=s:.{signature}"], secret="s", name="connect.sid")[0]


instants = st.integers(0, 253402300799999)
cookies = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from(["/", "/a b", "", "/;", "/é"]),
        "domain": st.sampled_from([".example.org", "a-.org", "é.org", "localhost", "\u212a.org", "a" * 64]),
        "httpOnly": st.booleans(),
        "secure": st.booleans(),
        "partitioned": st.booleans(),
        "sameSite": st.sampled_from(["lax", "strict", "none", "Lax", "", True, False, "other"]),
        "priority": st.sampled_from(["low", "medium", "high", "HIGH", "", "other"]),
        "expires": instants,
    },
)


@checked
@given(made=st.lists(st.tuples(ids, cookies), min_size=10, max_size=20), secret=secrets)
def test_cookies_are_written_as_express_writes_them(node: Node, made: list[Any], secret: str) -> None:
    sessions = ExpressSessions("memory:", secret=secret)
    mine: list[str | None] = []
    for session_id, fields in made:
        cookie = Cookie({**fields, "expires": iso(at(fields["expires"])) if "expires" in fields else None})
        try:
            mine.append(sessions.set_cookie(ExpressSession(session_id, cookie, {})))
        except counterfoil.CorruptError:
            mine.append(None)
    theirs = [{"id": session_id, **fields} for session_id, fields in made]
    assert mine == node.ask("sent", cookies=theirs, secret=secret, name="connect.sid")
    for (session_id, _), value in zip(made, mine, strict=True):
        assert value is None or sessions.unsign(find(value, "connect.sid") or "") == session_id


def at(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def test_the_cookie_is_cleared_as_express_clears_it(place: Place) -> None:
    for theirs, mine in (
        ({}, {}),
        ({"httpOnly": True, "path": "/a", "domain": "example.org", "sameSite": "lax", "secure": True},
         {"path": "/a", "domain": "example.org", "same_site": "lax", "secure": True, "max_age": 60}),
    ):  # fmt: skip
        answer = place.browser().post("/forget", json={"httpOnly": True, **theirs})
        assert answer.headers["set-cookie"] == place.sessions(cookie=mine).clear_cookie()


def test_a_cookie() -> None:
    session = ExpressSessions("memory:", secret="s", cookie={"max_age": 60}).create()
    cookie = session.cookie
    assert cookie.original_max_age == 60
    assert cookie.max_age is not None
    assert 50 < cookie.max_age <= 60
    cookie.expires = datetime.now(UTC) + timedelta(hours=2)
    assert cookie.original_max_age is not None
    assert 7100 < cookie.original_max_age <= 7200
    cookie.max_age = 0.5
    assert cookie.original_max_age == 0.5
    cookie.expires = None
    assert (cookie.max_age, cookie.expires, cookie.original_max_age) == (None, None, None)
    cookie.same_site, cookie.priority, cookie.domain = "none", "high", "example.org"
    assert (cookie.same_site, cookie.priority, cookie.domain) == ("none", "high", "example.org")
    cookie.same_site = cookie.priority = cookie.domain = None
    cookie.http_only, cookie.secure, cookie.partitioned, cookie.path = False, True, True, "/x"
    assert cookie.fields() == {
        "originalMaxAge": None, "partitioned": True, "expires": None, "secure": True, "httpOnly": False, "path": "/x"
    }  # fmt: skip
    for name, value, error in (
        ("max_age", "60", TypeError), ("max_age", True, TypeError), ("max_age", math.nan, ValueError),
        ("max_age", 1e15, ValueError), ("expires", 5, TypeError), ("expires", datetime(2030, 1, 1), ValueError),
        ("path", "/;", ValueError), ("path", None, TypeError), ("domain", "a b", ValueError), ("domain", 5, TypeError),
        ("secure", "auto", TypeError), ("http_only", 1, TypeError), ("partitioned", None, TypeError),
        ("same_site", "auto", ValueError), ("same_site", True, ValueError), ("priority", "urgent", ValueError),
    ):  # fmt: skip
        before = cookie.fields()
        with pytest.raises(error) as caught:
            setattr(cookie, name, value)
        assert isinstance(caught.value, counterfoil.InvalidError)
        assert cookie.fields() == before


@pytest.mark.parametrize(
    ("stored", "expires"),
    [
        ("2030-01-01T00:00:00.000Z", datetime(2030, 1, 1, tzinfo=UTC)),
        ("2030-01-01T02:00:00+02:00", datetime(2030, 1, 1, tzinfo=UTC)),
        ("2030-01-01T00:00:00", datetime(2030, 1, 1).astimezone()),
        ("2030-01-01", datetime(2030, 1, 1, tzinfo=UTC)),
        (1893456000000, datetime(2030, 1, 1, tzinfo=UTC)),
        ("+275760-09-13T00:00:00.000Z", datetime.max.replace(microsecond=999000, tzinfo=UTC)),
        ("soon", None), (False, None), (None, None), ([], None), (True, None), (math.nan, None),
    ],
)  # fmt: skip
def test_a_stored_expiry(stored: Any, expires: datetime | None) -> None:
    assert Cookie({"expires": stored}).expires == expires


# ------------------------------------------------------------------------------------------------------------ bad input


class Odd(dict[str, Any]):
    pass


def itself() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


@pytest.mark.parametrize(
    "value",
    [
        datetime(2030, 1, 1), b"bytes", {1}, object(), math.nan, math.inf, -math.inf, 2**53, -(2**53), 1j,
        {1: 2}, {None: 1}, {"__proto__": {"a": 1}}, [{"a": [datetime.max]}], itself(), Path("/"), Odd,
    ],
    ids=repr,
)  # fmt: skip
def test_what_cannot_be_stored(value: Any) -> None:
    sessions = ExpressSessions("memory:", secret="s")
    session = sessions.create({"kept": 1})
    cookies = {"connect.sid": sessions.sign(session.id)}
    session["kept"] = 2
    session["value"] = value
    for call in (
        lambda: sessions.save(session),
        lambda: sessions.create({"value": value}),
        lambda: sessions.regenerate(session, {"value": value}),
    ):
        with pytest.raises(counterfoil.InvalidError, match="the session holds") as caught:
            call()
        assert caught.value.__context__ is None
    assert sessions.load(cookies) == {"kept": 1}


def test_too_deep() -> None:
    sessions = ExpressSessions("memory:", secret="s")
    for depth in (300, 100_000):
        deep: Any = {}
        for _ in range(depth):
            deep = [deep]
        if depth < 1000:
            assert sessions.load({"connect.sid": sessions.sign(sessions.create({"deep": deep}).id)}) is not None
        else:
            with pytest.raises(counterfoil.InvalidError, match="too many things"):
                sessions.create({"deep": deep})


def test_what_can_be_stored() -> None:
    sessions = ExpressSessions("memory:", secret="s")
    data = {"a": 2**53 - 1, "b": -(2**53) + 1, "c": (1, [2.0]), "d": Odd(e=None), "\ud800": "\ud83d\ude00", "": True}
    session = sessions.create(data)
    assert sessions.load({"connect.sid": sessions.sign(session.id)}) == {**data, "c": [1, [2.0]], "\ud800": "😀"}


@pytest.mark.parametrize(
    "key", ["cookie", "id", "req", "save", "touch", "__proto__", "constructor", "toString", "__counterfoil", 1, None]
)
def test_keys_that_express_would_not_show(key: Any) -> None:
    sessions = ExpressSessions("memory:", secret="s")
    session = sessions.create()
    for call in (lambda: session.update({key: 1}), lambda: sessions.create({key: 1})):
        with pytest.raises(counterfoil.InvalidError):
            call()
    assert dict(session) == {}
    assert key not in session


def test_a_session_is_a_mapping() -> None:
    session = ExpressSessions("memory:", secret="s").create({"a": 1})
    session.update({"b": 2})
    assert session.setdefault("c", []) is session["c"]
    assert (list(session), len(session), session.get("d")) == (["a", "b", "c"], 3, None)
    assert session.pop("a") == 1
    assert "a" not in session
    with pytest.raises(KeyError):
        session["a"]
    with pytest.raises(AttributeError):
        session.id = "x"  # type: ignore[misc]
    assert session.id not in repr(session)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"secret": ""}, ValueError, "empty"),
        ({"secret": []}, ValueError, "at least one"),
        ({"secret": ["a", ""]}, ValueError, "empty"),
        ({"secret": "CANARY-\ud800"}, ValueError, "surrogates"),
        ({"secret": None}, TypeError, "secret"),
        ({"secret": ["a", 5]}, TypeError, "secret"),
        ({"secret": {"a": 1}}, TypeError, "not dict"),
        ({"secret": {"a", "b"}}, TypeError, "not set"),
        ({"name": "a b"}, ValueError, "name"),
        ({"name": 5}, TypeError, "name"),
        ({"prefix": "a\n"}, ValueError, "prefix"),
        ({"prefix": "é" * 129}, ValueError, "prefix"),
        ({"prefix": "\ud800"}, ValueError, "prefix"),
        ({"prefix": None}, TypeError, "prefix"),
        ({"cookie": {"maxAge": 5}}, ValueError, "max_age in seconds"),
        ({"cookie": {"secure": "auto"}}, TypeError, "True or False"),
        ({"cookie": "x"}, TypeError, "cookie"),
        ({"ttl": 0}, ValueError, "above 0"),
        ({"ttl": True}, TypeError, "seconds"),
        ({"ttl": "5"}, TypeError, "seconds"),
        ({"absolute_timeout": math.inf}, ValueError, "above 0"),
        ({"touch_after": math.nan}, ValueError, "above 0"),
        ({"touch_after": -1}, ValueError, "above 0"),
        ({"ttl": 100, "absolute_timeout": 50}, ValueError, "longer"),
        ({"touch_after": 5, "absolute_timeout": 5}, ValueError, "shorter"),
        ({"touch_after": 5, "ttl": 5}, ValueError, "shorter"),
        ({"touch_after": 5, "disable_touch": True}, ValueError, "nothing"),
        ({"touch_after": 5, "disable_ttl": True}, ValueError, "nothing"),
        ({"disable_ttl": 1}, TypeError, "True or False"),
        ({"disable_touch": None}, TypeError, "True or False"),
        ({"save_ended": "no"}, ValueError, "'ignore'"),
        ({"save_changed": "merge"}, ValueError, "'overwrite'"),
        ({"user_of": "user"}, TypeError, "function"),
        ({"max_sessions_per_user": 5}, ValueError, "without user_of"),
        ({"user_of": len, "max_sessions_per_user": 0}, ValueError, "10000"),
        ({"user_of": len, "when_full": "x"}, ValueError, "'oldest_out'"),
        ({"serializer": json}, TypeError, "serializer"),
        ({"hash_keys": 1}, TypeError, "hash_keys"),
        ({"timeout": -1}, ValueError, "timeout"),
    ],
)
@pytest.mark.parametrize("kind", [ExpressSessions, AsyncExpressSessions])
def test_options_that_cannot_be_meant(kind: Any, options: dict[str, Any], error: Any, says: str) -> None:
    if kind is AsyncExpressSessions and {"hash_keys", "timeout"} & set(options):
        return  # open says so, when it is first used
    with pytest.raises(error, match=says) as caught:
        kind("memory:", **{"secret": "CANARY-secret", **options})
    assert "CANARY" not in str(caught.value)


def test_closed_before_it_was_opened() -> None:
    async def story() -> None:
        async with AsyncExpressSessions("memory:", secret="s") as sessions:
            pass
        with pytest.raises(counterfoil.ClosedError):
            await sessions.create()

    asyncio.run(story())


def test_the_store_that_is_given() -> None:
    with counterfoil.open("memory:") as store:
        with pytest.raises(counterfoil.InvalidError, match="belong to the store"):
            ExpressSessions(store, secret="s", timeout=1)
        with pytest.raises(TypeError, match="AsyncStore"):
            AsyncExpressSessions(store, secret="s")
        with ExpressSessions(store, secret="s") as sessions:
            session = sessions.create({"a": 1})
        assert store.get("sess:" + session.id) is not None, "it stays open"
        for wrong in (None, {"a": 1}, "id"):
            with pytest.raises(TypeError):
                sessions.save(wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                sessions.touch(wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                sessions.set_cookie(wrong)  # type: ignore[arg-type]
        for cookies in (5, b"connect.sid=x", ["connect.sid"], {"connect.sid": 5}):
            with pytest.raises(TypeError):
                sessions.load(cookies)  # type: ignore[arg-type]
        for no_id in (None, 5, ""):
            with pytest.raises(TypeError):
                sessions.destroy(no_id)  # type: ignore[arg-type]
            with pytest.raises((TypeError, ValueError)):
                sessions.sign(no_id)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            sessions.unsign(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            sessions.create([("a", 1)])  # type: ignore[arg-type]
        for call in (
            lambda: sessions.sessions_of(1), lambda: sessions.end_all_of(1), lambda: sessions.end("x"),
            lambda: sessions.begin_login(1),
        ):  # fmt: skip
            with pytest.raises(counterfoil.InvalidError, match="user_of"):
                call()
        users = ExpressSessions(store, secret="s", user_of=lambda session: session.get("user"))
        for user in ("", 2**53, 1.5, True, None, b"u"):
            with pytest.raises(counterfoil.InvalidError, match="user"):
                users.sessions_of(user)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="begin_login"):
            users.create({"user": 1}, login=5)  # type: ignore[arg-type]
        with pytest.raises(counterfoil.InvalidError, match="user_of"):
            sessions.create({}, login=users.begin_login(1))
    with ExpressSessions("memory:", secret="s") as own:
        own.create()
    with pytest.raises(counterfoil.ClosedError):
        own.create()


def test_backends_without_conditions() -> None:
    """They cannot say what has ended: sessions are saved as with "create", unless somebody insists."""
    backend = Clocked()
    with ExpressSessions(backend, secret="s") as sessions:
        session = sessions.create({"n": 1})
        sessions.destroy(session)
        assert sessions.save(session)
    with ExpressSessions(backend, secret="s", save_ended="ignore") as strict:
        loaded = strict.load({"connect.sid": strict.sign(session.id)})
        assert loaded is not None
        with pytest.raises(counterfoil.NotSupportedError):
            strict.save(loaded)
        with pytest.raises(counterfoil.NotSupportedError):
            strict.touch(loaded)


def test_a_user_who_leaves_too_late() -> None:
    """All sessions were ended while a request was under way that logs its user out: what else it says is lost."""
    sessions = ExpressSessions("memory:", secret="s", user_of=lambda session: session.get("user"))
    session = sessions.create({"user": 7})
    cookies = {"connect.sid": sessions.sign(session.id)}
    sessions.end_all_of(7)
    del session["user"]
    session["other"] = 1
    assert not sessions.save(session)
    assert sessions.load(cookies) is None


def test_a_record_that_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without user_of has given the session a longer life, of which its record knows nothing."""
    stage = Stage()
    monkeypatch.setattr(life, "now", stage.wall_ms)
    with counterfoil.open("memory:", stage=stage) as store:
        sessions = ExpressSessions(store, secret="s", cookie={"max_age": 60}, user_of=lambda one: one.get("user"))
        session = sessions.create({"user": 7})
        cookies = {"connect.sid": sessions.sign(session.id)}
        session.cookie.max_age = 600
        assert ExpressSessions(store, secret="s").touch(session)
        stage.advance(110)
        assert sessions.load(cookies) is not None
        stage.advance(20)
        assert sessions.load(cookies) is None
        assert store.get("sess:" + session.id) is not None, "another machine's clock may say otherwise"


def test_the_whole_life_ends_also_where_another_program_prolongs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    monkeypatch.setattr(life, "now", stage.wall_ms)
    with counterfoil.open("memory:", stage=stage) as store:
        limited = ExpressSessions(store, secret="s", cookie={"max_age": 60}, absolute_timeout=100, save_ended="error")
        session = limited.create({"n": 1})
        cookies = {"connect.sid": limited.sign(session.id)}
        for _ in range(2):
            stage.advance(45)
            found = ExpressSessions(store, secret="s").load(cookies)
            assert found is not None
            assert ExpressSessions(store, secret="s").save(found)
        late = limited.load(cookies)
        assert late is not None
        stage.advance(10)
        assert limited.load(cookies) is None
        assert store.get("sess:" + session.id) is not None
        with pytest.raises(EndedError):
            limited.save(late)
        assert store.get("sess:" + session.id) is None


def test_touches_that_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    monkeypatch.setattr(life, "now", stage.wall_ms)
    with counterfoil.open("memory:", stage=stage) as store:
        sessions = ExpressSessions(store, secret="s", cookie={"max_age": 60}, absolute_timeout=200, touch_after=10)
        session = sessions.create({"n": 1})
        begun = stage.wall_ms()

        def touched(after: float) -> float:
            """Seconds after the beginning at which the session then ends."""
            stage.advance(after - (stage.wall_ms() - begun) / 1000)
            found = sessions.load({"connect.sid": sessions.sign(session.id)})
            assert found is not None
            assert sessions.touch(found)
            end: int = json.loads(store.get("sess:" + session.id) or "")["__counterfoil"]["expires"]
            return (end - begun) / 1000

        assert [touched(at) for at in (9.999, 10, 45, 90, 135)] == [60, 70, 105, 150, 195]
        assert [touched(at) for at in (140, 147, 199.9)] == [195, 200, 200], "it gains little, but enough has passed"
        session = sessions.create({"n": 1})
        begun = stage.wall_ms()
        session.cookie.max_age = 12
        assert sessions.save(session)
        assert [touched(at) for at in (5, 6.001)] == [12, 18.001], "half of a short life"


def test_a_ttl_function() -> None:
    stage = Stage()
    lives = {"short": 5.0, "none": 0.0, "wrong": "5", "nan": math.nan}
    sessions = ExpressSessions("memory:", secret="s", stage=stage, ttl=lambda session: lives[session["life"]])  # type: ignore[arg-type,return-value]
    session = sessions.create({"life": "short"})
    cookies = {"connect.sid": sessions.sign(session.id)}
    stage.advance(4.999)
    assert sessions.touch(session)
    stage.advance(4.999)
    assert sessions.load(cookies) is not None
    for wrong in ("wrong", "nan"):
        session["life"] = wrong
        with pytest.raises(counterfoil.InvalidError, match="ttl function"):
            sessions.save(session)
    session["life"] = "none"
    assert not sessions.touch(session)
    assert sessions.load(cookies) is None
    with pytest.raises(EndedError):
        sessions.create({"life": "none"})


# -------------------------------------------------------------------------------------------------------------- awaited


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode.checkpoint is None], ids=lambda mode: mode.name)
@pytest.mark.parametrize("where", [*PLACES, "sqlite::memory:"])
def test_blocking_and_awaited(mode: Mode, where: str) -> None:
    kind: Any = ExpressSessions if mode.blocking else AsyncExpressSessions
    sessions = kind(
        url_of(where) if where in PLACES else where, secret="s", prefix=own_prefix(), absolute_timeout=1000,
        user_of=lambda session: session.get("user"), touch_after=5,
    )  # fmt: skip

    async def story() -> None:
        session = await finish(sessions.create({"user": 7}, login=await finish(sessions.begin_login(7))))
        cookies = {"connect.sid": sessions.sign(session.id)}
        loaded = await finish(sessions.load(cookies))
        loaded["n"] = 1
        assert await finish(sessions.save(loaded))
        assert await finish(sessions.touch(loaded))
        assert await finish(sessions.load(cookies)) == {"user": 7, "n": 1}
        other = await finish(sessions.create({"user": 7}))
        assert len(await finish(sessions.sessions_of(7, current=other))) == 2
        assert await finish(sessions.end_all_of(7, except_id=loaded)) == 1
        assert not await finish(sessions.save(other))
        assert await finish(sessions.regenerate(loaded, {"user": 7})) is loaded
        assert await finish(sessions.load(cookies)) is None
        listed = await finish(sessions.sessions_of(7))
        assert await finish(sessions.end(listed[0].handle, user=7))
        await finish(sessions.destroy(loaded))
        assert await finish(sessions.load(sessions.set_cookie(loaded))) is None
        await finish(sessions.close())
        await finish(sessions.close())
        with pytest.raises(counterfoil.ClosedError):
            await finish(sessions.load(cookies))

    mode.run(story())


@ours
def test_fastapi(place: Place) -> None:
    """Uvicorn and Express on two ports of one host: a browser sends both the same cookie."""
    from fastapi import Depends, FastAPI, HTTPException, Request, Response

    sessions = AsyncExpressSessions(place.url, secret="new", prefix=place.prefix)

    async def session_of(request: Request) -> ExpressSession:
        session = await sessions.load(request.cookies)
        if session is None:
            raise HTTPException(401)
        await sessions.touch(session)
        return session

    needed = Depends(session_of)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await sessions.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/who")
    async def who(session: ExpressSession = needed) -> Any:
        return dict(session)

    @app.post("/cart/{item}")
    async def cart(item: str, session: ExpressSession = needed) -> Any:
        session.setdefault("cart", []).append(item)
        return await sessions.save(session)

    @app.post("/begin")
    async def begin(response: Response) -> None:
        session = await sessions.create({"passport": {"user": "bob"}})
        response.headers.append("set-cookie", sessions.set_cookie(session))

    @app.post("/end")
    async def end(response: Response, session: ExpressSession = needed) -> None:
        await sessions.destroy(session)
        response.headers.append("set-cookie", sessions.clear_cookie())

    with served(app) as there, httpx.Client(timeout=30) as browser:
        express = place.app()

        def post(url: str, **data: str) -> Any:
            return browser.post(url, json=data).raise_for_status().json()

        assert browser.get(f"{there}/who").status_code == 401
        post(f"{express}/login", username="ada", password="right")
        assert browser.get(f"{there}/who").json() == {"passport": {"user": "ada"}}
        assert [post(f"{there}/cart/{item}") for item in ("a", "b")] == [True, True]
        assert browser.get(f"{express}/me").json()["cart"] == ["a", "b"]
        post(f"{there}/end")
        assert not list(browser.cookies)
        assert "passport" not in browser.get(f"{express}/me").json()
        post(f"{there}/begin")
        assert browser.get(f"{express}/me").json()["passport"] == {"user": "bob"}
        post(f"{express}/logout")
        assert browser.get(f"{there}/who").status_code == 401


def test_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the module's docstring, over memory."""
    from fastapi import Response

    monkeypatch.setenv("SESSION_SECRET", "s")
    blocks = re.findall(r"(?:\n    .*|\n(?=\n +))+", counterfoil.express.__doc__ or "")
    example, begin = (textwrap.dedent(block).replace("redis://cache", "memory:example") for block in blocks)
    names: dict[str, Any] = {"__name__": "example"}
    exec(example, names)
    answer = Response()
    exec(begin, names | {"user": SimpleNamespace(id=7), "response": answer})
    cookie = answer.headers["set-cookie"].partition(";")[0]

    async def story() -> None:
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as browser:
            assert (await browser.get("/cart")).status_code == 401
            browser.headers["cookie"] = cookie
            assert (await browser.get("/cart")).json() == []
            assert (await browser.post("/cart/tea")).status_code == 200
            assert (await browser.get("/cart")).json() == ["tea"]

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------------ beside Node's

KEYS = [[1, "07" * 32]]
LIVES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ttl": {"ttl": 50},
    "both": {"absoluteTimeout": 200, "touchAfter": 10},
    "absolute": {"absoluteTimeout": 200},
    "touch_after": {"touchAfter": 10},
    "disable_touch": {"disableTouch": True, "absoluteTimeout": 200},
    "disable_ttl": {"disableTTL": True, "absoluteTimeout": 200},
    "forever": {"disableTTL": True},
    "error": {"saveEnded": "error", "absoluteTimeout": 200},
    "create": {"saveEnded": "create"},
    "changed": {"saveChanged": "error"},
    "changed, noted": {"saveChanged": "error", "touchAfter": 10, "saveEnded": "error"},
    "changed, created": {"saveChanged": "error", "saveEnded": "create"},
    "users": {"userOf": "user"},
    "users, noted": {"userOf": "user", "absoluteTimeout": 200, "touchAfter": 10, "maxSessionsPerUser": 2},
    "users, refused": {"userOf": "user", "maxSessionsPerUser": 2, "whenFull": "refuse", "saveEnded": "error"},
    "sealed": {"keys": KEYS, "absoluteTimeout": 200, "touchAfter": 10},
}


def steps_of(random: Random, users: bool) -> list[list[Any]]:
    """What some requests may do, two at a time, with few sessions, so that they meet."""
    ids, steps = [], []
    for number in range(40):
        slot, known = random.choice("ab"), random.choice(ids) if ids else None
        user = {"user": random.choice([1, 2])} if users and random.random() < 0.7 else {}
        choices: list[tuple[int, list[Any]]] = [
            (2 if len(ids) < 5 else 0, ["create", slot, f"id-{number}", {"n": number, **user}]),
            (8 if known else 0, ["load", slot, known]),
            (4, ["set", slot, "n", number]),
            (2 if user else 0, ["set", slot, "user", user.get("user")]),
            (1 if users else 0, ["remove", slot, "user"]),
            (2, ["maxAge", slot, random.choice([None, 0, 5_000, 60_000, 100_000])]),
            (5, ["save", slot]),
            (5, ["touch", slot]),
            (1, ["destroy", slot]),
            (4, ["advance", random.choice([1, 999, 5_000, 20_000, 70_000])]),
            (0 if users else 1, ["setBack", random.choice([1_000, 90_000])]),
            (2 if user else 0, ["sessionsOf", user.get("user"), known]),
            (1 if user else 0, ["endAllOf", user.get("user"), random.choice([None, known])]),
            (1 if known else 0, ["put", known, random.choice(FOREIGN)]),
        ]
        step = random.choices([step for _, step in choices], [weight for weight, _ in choices])[0]
        if step[0] == "create":
            ids.append(step[2])
        steps += [step, ["advance", 1]]
    return steps


FOREIGN = [
    '{"cookie":{}}',
    '{"n":1}',
    '{"cookie":{"originalMaxAge":60000,"expires":"2020-01-01T00:00:00.000Z","path":"/x"},"n":1}',
    '{"cookie":{"originalMaxAge":null,"expires":false},"__counterfoil":{"created":1,"set":0,"expires":5}}',
    '{"cookie":{"expires":"2999-01-01T00:00:00.000Z"},"n":{"a":1.5e300}}',
    '{"cookie":null,"save":1,"__proto__":{"a":1}}',
    "[]",
    "5",
    "{",
    "NaN",
]


def snake(name: str) -> str:
    return re.sub("(?<=[a-z])[A-Z]", lambda found: "_" + found[0].lower(), name).replace("TTL", "ttl").lower()


class Twin:
    """The same steps in Python."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
        self.stage = Stage()
        self.behind = 0
        self.next_id = ""
        monkeypatch.setattr(life, "now", lambda: self.stage.wall_ms() - self.behind)
        monkeypatch.setattr("counterfoil.express.sessions.secrets.token_urlsafe", lambda count: self.next_id)
        mine = {snake(name): value for name, value in options.items()}
        sealed: dict[str, Any] = {}
        if keys := mine.pop("keys", None):
            sealed = {"seal_values": True, "keys": {number: bytes.fromhex(key) for number, key in keys}}
        if field_name := mine.pop("user_of", None):
            mine["user_of"] = lambda session: session.get(field_name)
        if "when_full" in mine:
            mine["when_full"] = "refuse"
        self.store = counterfoil.open("memory:", stage=self.stage, **sealed)
        self.sessions = ExpressSessions(self.store, secret="x", cookie={"max_age": 60}, **mine)
        self.slots: dict[str, Any] = {}
        self.ids: list[str] = []

    def __call__(self, name: str, *args: Any) -> Any:
        if name in ("set", "remove", "maxAge", "save", "touch", "destroy") and self.slots.get(args[0]) is None:
            return None
        try:
            return getattr(self, name)(*args)
        except counterfoil.Error as error:
            if error.code == "CHANGED":
                del self.slots[args[0]]  # it must be loaded again
            return {"error": error.code}

    def create(self, slot: str, session_id: str, data: Any) -> None:
        self.next_id = session_id
        self.ids.append(session_id)
        self.slots[slot] = made = self.sessions._new(data)
        self.sessions.save(made)

    def load(self, slot: str, session_id: str) -> Any:
        self.slots[slot] = found = self.sessions.load({"connect.sid": self.sessions.sign(session_id)})
        return None if found is None else {"cookie": found.cookie.fields(), **found}

    def set(self, slot: str, key: str, value: Any) -> None:
        self.slots[slot][key] = value

    def remove(self, slot: str, key: str) -> None:
        self.slots[slot].pop(key, None)

    def maxAge(self, slot: str, milliseconds: float | None) -> None:
        self.slots[slot].cookie.max_age = None if milliseconds is None else milliseconds / 1000

    def save(self, slot: str) -> None:
        self.sessions.save(self.slots[slot])

    def touch(self, slot: str) -> None:
        self.sessions.touch(self.slots[slot])

    def destroy(self, slot: str) -> None:
        self.sessions.destroy(self.slots[slot])

    def advance(self, milliseconds: int) -> None:
        self.stage.advance(milliseconds / 1000)

    def setBack(self, milliseconds: int) -> None:
        self.behind += milliseconds

    def put(self, session_id: str, text: str) -> bool:
        return self.store.set("sess:" + session_id, text, ttl=600)

    def sessionsOf(self, user: int, session_id: str | None) -> list[dict[str, Any]]:
        return [
            {"created": iso(one.created), "lastSeen": iso(one.last_seen), "expires": iso(one.expires),
             "current": one.current}
            for one in self.sessions.sessions_of(user, current=session_id)
        ]  # fmt: skip

    def endAllOf(self, user: int, session_id: str | None) -> int:
        return self.sessions.end_all_of(user, except_id=session_id)


def read(text: str | None) -> Any:
    """Keys may stand in another order."""
    try:
        return text if text is None else json.loads(text)
    except ValueError:
        return text


def iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("name", LIVES)
def test_random_requests_do_what_they_do_in_node(node: Node, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = int(os.environ.get("COUNTERFOIL_SEED", "0")) or randrange(1, 2**32)
    print(f"COUNTERFOIL_SEED={seed}")
    random, options = Random(seed), LIVES[name]
    for _ in range(20):
        steps = steps_of(random, "userOf" in options)
        twin = Twin(monkeypatch, options)
        start = twin.stage.wall_ms()
        theirs = node.ask("twin", steps=steps, start=start, options=options, cookie={"maxAge": 60_000})
        done: list[Any] = []
        for step, (answer, texts) in zip(steps, theirs, strict=True):
            done.append((step, answer, texts))
            assert (twin(*step), step) == (answer, step), "\n".join(map(str, done))
            mine = {session_id: read(twin.store.get("sess:" + session_id)) for session_id in twin.ids}
            assert mine == {session_id: read(texts[session_id]) for session_id in twin.ids}, "\n".join(map(str, done))
        twin.store.close()
