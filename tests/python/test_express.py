"""Sessions of Express in Python, with real Express applications (express-session over our store and over connect-redis,
Passport) on the other side of the same store."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from random import Random, randrange
from typing import Any

import counterfoil
import pytest
from counterfoil.express import EndedError, ExpressSessions, life
from counterfoil.testing import Stage
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
