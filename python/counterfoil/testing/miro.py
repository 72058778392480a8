"""The rules of Miro's Storage in Python: one object for each user, `get()`, `set(state)`, `set(None)`."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .keyed import broken
from .rules import rule
from .trial import Ask, Trial

MIRO = "miro_api 2.2.4, miro_api/storage.py"
CLIENT = "miro_api 2.2.4, miro_api/miro_api_wrapper.py, Miro"


@dataclass
class State:
    """Where miro_api is not installed."""

    access_token: str
    refresh_token: str | None
    token_expires_at: datetime | None


def state(name: str, *, refresh: bool = True, expires: bool = True) -> Any:
    kind: Any = State
    try:
        from miro_api.storage import State as kind  # type: ignore[import-untyped,no-redef,unused-ignore]
    except ImportError:
        pass
    until = datetime.now().replace(microsecond=123456) + timedelta(hours=1)  # naive and local, as the client has it
    return kind(f"access {name} é💶", f"refresh {name}" if refresh else None, until if expires else None)


def tokens(given: Any) -> tuple[Any, Any]:
    return given.access_token, given.refresh_token


@rule(
    "get.miss",
    "get gives None where the user has no state, and so it does after set(None).",
    "The client asks for a login then; anything else is a server error, or another's token.",
    miro=MIRO + ", Storage.get -> Optional[State]",
)
def miss(t: Trial) -> None:
    t.call("set", None)
    t.expect(t.call("get") is None, "get gave something")


@rule(
    "get.what_was_set",
    "get gives the state that was set, as soon as set has returned: the tokens letter by letter, None as None.",
    "The next request would have no token, or an old one.",
    miro=MIRO + ", State",
)
def what_was_set(t: Trial) -> None:
    for refresh, expires in ((True, True), (True, False), (False, False)):
        t.call("set", None)
        wanted = state(t.key(), refresh=refresh, expires=expires)
        t.call("set", wanted)
        given = t.call("get")
        t.expect(given is not None, "get gave None")
        names = ("access_token", "refresh_token")
        wrong = [name for name in names if getattr(given, name, ...) != getattr(wanted, name)]
        t.expect(not wrong, f"get gave another {', '.join(wrong)}")
        t.expect((given.token_expires_at is None) is not expires, "get gave another token_expires_at")


@rule(
    "expiry.naive_local",
    "token_expires_at comes back naive and local, to the microsecond.",
    "The client compares it with datetime.now(): an aware one is a TypeError in every request, one in UTC is refreshed "
    "too late.",
    miro=CLIENT + ".access_token",
)
def naive(t: Trial) -> None:
    wanted = state(t.key())
    t.call("set", wanted)
    given = t.call("get").token_expires_at
    t.expect(isinstance(given, datetime), f"it was {type(given).__name__}")
    t.expect(given.tzinfo is None, "it was aware")
    t.expect(given == wanted.token_expires_at, "it was another instant")


@rule(
    "set.replaces",
    "set replaces the state whole.",
    "An old refresh token beside a new access token.",
    miro=MIRO + ", Storage.set",
)
def replaces(t: Trial) -> None:
    t.call("set", state("one"))
    wanted = state("two", refresh=False, expires=False)
    t.call("set", wanted)
    t.expect(t.call("get").refresh_token is None, "the refresh token of the state before was there")


@rule(
    "set.none_deletes",
    "set(None) removes the state, whether there is one or not.",
    "To revoke a token does so: it would still be used.",
    miro=CLIENT + ".revoke_token",
)
def none_deletes(t: Trial) -> None:
    t.call("set", state("one"))
    t.call("set", None)
    t.expect(t.call("get") is None, "a state was still there")
    t.call("set", None)


@rule(
    "set.keeps_others",
    "The states of two users are two.",
    "One user would act as another.",
    miro=MIRO + ": a storage has no user id, so each user has his own",
)
def keeps_others(t: Trial) -> None:
    other = t.other()
    one, two = state("one"), state("two")
    t.call("set", one)
    t.ask(Ask("set", (two,), of=other))
    t.expect(t.call("get").access_token == one.access_token, "a user got the state of another")
    t.ask(Ask("set", (None,), of=other))
    t.expect(t.call("get") is not None, "what one user has ended was another's")


@rule(
    "set.whole",
    "Of states set at once one is there, whole; who reads meanwhile sees one of them.",
    "An access token beside the refresh token of another refresh: the next refresh fails.",
    miro=MIRO + ", State; web frameworks run on many threads",
)
def whole(t: Trial) -> None:
    states = [state(str(number)) for number in range(t.settings.contenders // 2)]
    wanted = [tokens(each) for each in states]
    for number in t.rounds():
        t.call("set", states[0])
        asks = [ask for each in states for ask in (Ask("set", (each,)), Ask("get"))]
        given = t.answers(t.race(asks), "sets and gets")
        reads = [*given[1::2], t.call("get")]
        torn = sum(each is None or tokens(each) not in wanted for each in reads)
        t.expect(not torn, f"{torn} of {len(reads)} reads gave no state that was set, in try {number + 1}")


def places(t: Trial) -> list[Any]:
    """The storage, and another one of the same user at the same place."""
    if t.known.get("shares") is not False:
        twin = t.twin()
        t.call("set", state("twin"))
        t.known["shares"] = twin is not None and t.ask(Ask("get", of=twin)) is not None
        if t.known["shares"]:
            return [t.thing, twin]
    return [t.thing]


@rule(
    "refresh.one",
    "Of any number of refresh_once of a state that is over one refreshes, and all get its successor.",
    "A refresh token works once: the others would be refused, or all tokens be revoked as stolen.",
    miro="counterfoil.adapters.miro.MiroStorage; RFC 6749, section 6; RFC 9700, section 4.14",
)
def refresh_one(t: Trial) -> None:
    t.needs("refresh_once")
    where = places(t)
    for number in t.rounds():
        if number == 3:  # who waits for another's refresh does so for a while
            return
        over, next_one = state("over"), state("next")
        over.token_expires_at -= timedelta(days=1)
        t.call("set", over)
        refreshed: list[str] = []

        def refresh(old: Any, refreshed: list[str] = refreshed, next_one: Any = next_one) -> Any:
            refreshed.append(old.refresh_token)
            time.sleep(0.01)
            return next_one

        asks = [Ask("refresh_once", (refresh,), of=where[each % len(where)]) for each in range(t.settings.contenders)]
        given = t.answers(t.race(asks), "refreshes")
        t.expect(len(refreshed) == 1, f"{len(given)} callers made {len(refreshed)} refreshes, in try {number + 1}")
        right = sum(each is not None and tokens(each) == tokens(next_one) for each in given)
        t.expect(right == len(given), f"{len(given) - right} of {len(given)} callers did not get the successor")


@rule(
    "lock.one_holder",
    "with_lock lets one at a time in, whichever storage of the user it is asked of, with a fence that grows.",
    "Two holders would refresh twice, and who is late overwrite what is newer.",
    miro="counterfoil.adapters.miro.MiroStorage.with_lock",
)
def lock_one(t: Trial) -> None:
    t.needs("with_lock")
    where = places(t)
    inside: list[int] = []
    fences: list[int] = []
    crowd: list[int] = []

    def work(lease: Any) -> None:
        inside.append(1)
        crowd.append(len(inside))
        fences.append(lease.fence)
        time.sleep(0.002)
        inside.pop()

    asks = [Ask("with_lock", (work,), of=where[each % len(where)]) for each in range(min(4, t.settings.contenders))]
    t.answers(t.race(asks), "with_lock")
    t.expect(max(crowd) == 1, f"{max(crowd)} of {len(asks)} were inside at once")
    t.expect(fences == sorted(set(fences)), "the fences did not grow")


@rule(
    "fault.rejects",
    "While what is behind it cannot be reached, get and set raise.",
    "A miss asks the user to install the application again; a refresh that is not stored loses the tokens.",
    miro=MIRO + ", Storage.get: None is for no state",
)
def fault(t: Trial) -> None:
    t.call("set", state("one"))
    with broken(t):
        t.refused(Exception, Ask("get"), "get")
        t.refused(Exception, Ask("set", (state("two"),)), "set")
