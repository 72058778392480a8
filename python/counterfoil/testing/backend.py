"""The rules of backends (`counterfoil.Backend`) beyond those that all have that keep values under keys."""

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import counterfoil

from ..backend import Backend, describe
from .keyed import (
    ATOMIC,
    BACKEND,
    CODE_TWICE,
    FORMAT,
    HEADER,
    LOGGED_IN,
    TABLE,
    get,
    is_value,
    many,
    put,
    seen,
    setting,
    things,
    value,
)
from .rules import rule
from .trial import Ask, NotApplicable, Trial

DERIVED = "core/DESIGN.md, law 6; counterfoil.Backend.single_process"
SCANNED = 'core/DESIGN.md, "What a call means": count and clear are composed of scan and delete'


# --------------------------------------------------------------------------------------------------------------- touch


@rule(
    "touch.says_whether",
    "touch says whether there was a value, True or False, and makes none where there was none or none any more.",
    LOGGED_IN,
    backend=TABLE,
)
def touch_says(t: Trial) -> None:
    t.needs("touch")
    key, missing = t.key(), t.key("missing")
    put(t, key)
    given = t.call("touch", key, t.long)
    t.expect(given is True, f"touch of a value that was there gave {seen(given)}")
    given = t.call("touch", missing, t.long)
    t.expect(given is False, f"touch of a key under which nothing was gave {seen(given)}")
    t.expect(get(t, missing) is None, "touch of a key under which nothing was made a value")
    soon = t.soon()
    put(t, key, ttl=soon.ttl)
    soon.over()
    given = t.call("touch", key, soon.long)
    t.expect(given is False, f"touch of what had expired gave {seen(given)}")
    t.expect(get(t, key) is None, "touch of what had expired brought it back")


@rule(
    "touch.moves_expiry",
    "After touch the value is as it was, and lives for the ttl that was given, be it longer or shorter than before.",
    "A session that is used would end, or one that was shortened live on.",
    backend=TABLE + ": sets the remaining life",
)
def touch_ttl(t: Trial) -> None:
    t.needs("touch")
    longer, shorter, forever = t.key("longer"), t.key("shorter"), t.key("forever")
    put(t, shorter, ttl=t.long)
    put(t, forever)
    soon = t.soon()
    put(t, longer, ttl=soon.ttl)
    t.call("touch", longer, soon.long)
    t.call("touch", shorter, soon.ttl)
    t.call("touch", forever, soon.ttl)
    soon.early()
    soon.over()
    given = get(t, longer)
    t.expect(given is not None, "a value whose life was made longer went with the old one")
    t.expect(is_value(given), f"the value itself had changed to {seen(given)}")
    t.expect(get(t, shorter) is None, "a value whose life was made shorter was still there after it")
    t.expect(get(t, forever) is None, "a value that had no end was still there after the ttl that touch gave it")


@rule(
    "touch.no_resurrection",
    "When a touch and a delete of one key have both ended, whichever was first, nothing is under the key.",
    LOGGED_IN,
    backend=ATOMIC,
)
def touch_resurrection(t: Trial) -> None:
    t.needs("touch")
    places = things(t)
    for number in t.rounds():
        key = t.key()
        put(t, key)
        touches = many(t, places, "touch", key, t.long)[:-1]
        t.answers(t.race([*touches, Ask("delete", (key,))]), "touches and a delete")
        t.expect(get(t, key) is None, f"a touch beside it undid a delete, in try {number + 1}")


@rule(
    "touch.loses_no_update",
    "When touches and a set of one key have ended, the value of the set is there.",
    "Requests that only look at a session would undo what another has changed in it.",
    backend=ATOMIC,
)
def touch_update(t: Trial) -> None:
    t.needs("touch")
    places = things(t)
    for number in t.rounds():
        key = t.key()
        put(t, key)
        touches = many(t, places, "touch", key, t.long)[:-1]
        t.answers(t.race([*touches, setting(t, key, "two")]), "touches and a set")
        t.expect(is_value(get(t, key), "two"), f"a touch beside it undid a set, in try {number + 1}")


# ---------------------------------------------------------------------------------------------------------------- incr


@rule(
    "incr.counts",
    "incr adds and gives the new number, an int; where nothing is, it begins at 0. get gives it in decimal.",
    "Limits of tries would count wrong, or other languages not read them.",
    backend=TABLE + "; " + FORMAT + ", 4",
)
def incr_counts(t: Trial) -> None:
    t.needs("incr")
    key, there = t.key(), t.key("there")
    given = [t.call("incr", key, by, None) for by in (1, 41, -50)]
    right = given == [1, 42, -8] and all(type(each) is int for each in given)
    t.expect(right, "1, then 41, then -50 were not 1, 42, -8")
    t.expect(is_value(get(t, key), "-8"), f"get of a counter gave {seen(get(t, key))} instead of its decimal text")
    put(t, there, "7")
    given = [t.call("incr", there, 1, None)]
    t.expect(given == [8], "incr of a stored 7 was not 8")


@rule(
    "incr.keeps_ttl",
    "incr gives its ttl to a new number only; one that is there keeps its end, and when that has come it begins anew.",
    "A limit of tries in ten minutes would never end for who goes on trying, or lock him out for ever.",
    backend=TABLE,
)
def incr_ttl(t: Trial) -> None:
    t.needs("incr")
    short, forever = t.key("short"), t.key("forever")
    put(t, forever, "1")
    soon = t.soon()
    t.call("incr", short, 1, soon.ttl)
    again = t.call("incr", short, 1, soon.long)
    t.call("incr", forever, 1, soon.ttl)
    soon.early()
    t.expect(again == 2, "the second incr of a number with a ttl was not 2")
    soon.over()
    t.expect(get(t, short) is None, "a later incr made the life of a number longer")
    t.expect(t.call("incr", short, 1, None) == 1, "incr of a number that had expired went on from it")
    t.expect(is_value(get(t, forever), "2"), "an incr gave an end to a number that had none")


@rule(
    "incr.refuses_text",
    "incr of what is no number raises, and leaves it.",
    "A session would be overwritten with a counter.",
    backend=FORMAT + ", 4; bad input changes nothing",
)
def incr_text(t: Trial) -> None:
    t.needs("incr")
    key = t.key()
    put(t, key, "no number")
    try:
        t.call("incr", key, 1, None)
    except Exception:
        pass
    else:
        t.fail("incr of a text gave a number")
    t.expect(is_value(get(t, key), "no number"), "incr of a text has changed it")


@rule(
    "incr.loses_none",
    "Of any number of incrs at once every one counts, and no two get the same number.",
    "Who tries passwords many at a time would have more tries than the limit.",
    backend=ATOMIC,
)
def incr_lost(t: Trial) -> None:
    t.needs("incr")
    places = things(t)
    for number in t.rounds():
        key = t.key()
        given = t.answers(t.race(many(t, places, "incr", key, 1, None)), "incrs")
        t.expect(
            sorted(given) == list(range(1, len(given) + 1)),
            f"{len(given)} incrs at once counted to {max(given)}, in try {number + 1}",
        )


# -------------------------------------------------------------------------------------------------------------- set_if


def set_if(t: Trial, key: str, text: str, condition: str, expected: str | None = None, ttl: Any = None) -> Any:
    return t.ask(setting_if(t, key, text, condition, expected, ttl))


def setting_if(
    t: Trial, key: str, text: str, condition: str, expected: str | None = None, ttl: Any = None, of: Any = None
) -> Ask:
    return Ask("set_if", (key, value(t, text), ttl, condition, None if expected is None else value(t, expected)), of=of)


def conditional(t: Trial, condition: str, expected: str | None, *, there: bool, holds: bool) -> None:
    t.needs("set_if")
    key = t.key()
    if there:
        put(t, key)
    given = set_if(t, key, "two", condition, expected)
    case = f'"{condition}"' + (f" to {'the' if expected == 'one' else 'another'} value" if expected else "")
    case += " where a value was" if there else " where nothing was"
    t.expect(given is holds, f"{case} gave {seen(given)}")
    after = get(t, key)
    wanted = "two" if holds else "one" if there else None
    right = after is None if wanted is None else is_value(after, wanted)
    t.expect(right, f"{case} left {seen(after)}, not what the condition says")


def conditional_after(t: Trial, condition: str, expected: str | None, *, holds: bool) -> None:
    """Where a value has expired."""
    key = t.key()
    soon = t.soon()
    put(t, key, ttl=soon.ttl)
    soon.over()
    given = set_if(t, key, "two", condition, expected)
    t.expect(given is holds, f'"{condition}" of what had expired gave {seen(given)}')


@rule(
    "set_if.absent",
    'set_if "absent" stores where nothing is, or nothing any more, and nowhere else, and says whether it did.',
    "It is how a lock is taken: two would hold it, or nobody could after its holder has died.",
    backend=TABLE,
)
def set_if_absent(t: Trial) -> None:
    conditional(t, "absent", None, there=False, holds=True)
    conditional(t, "absent", None, there=True, holds=False)
    conditional_after(t, "absent", None, holds=True)


@rule(
    "set_if.present",
    'set_if "present" stores where something is, and nowhere else, and says whether it did.',
    LOGGED_IN,
    backend=TABLE,
)
def set_if_present(t: Trial) -> None:
    conditional(t, "present", None, there=True, holds=True)
    conditional(t, "present", None, there=False, holds=False)
    conditional_after(t, "present", None, holds=False)


@rule(
    "set_if.equal",
    'set_if "equal" stores over exactly the value that is expected, and nowhere else, and says whether it did.',
    "A change that somebody else has made meanwhile would be overwritten.",
    backend=TABLE,
)
def set_if_equal(t: Trial) -> None:
    conditional(t, "equal", "one", there=True, holds=True)
    conditional(t, "equal", "other", there=True, holds=False)
    conditional(t, "equal", "one", there=False, holds=False)
    conditional_after(t, "equal", "one", holds=False)


@rule(
    "set_if.ttl",
    "set_if that stores gives the new ttl; one that does not leaves the old one.",
    "A lock would never end, or a refused one end another's.",
    backend=HEADER,
)
def set_if_ttl(t: Trial) -> None:
    t.needs("set_if")
    stored, fresh, refused, kept = t.key("stored"), t.key("fresh"), t.key("refused"), t.key("kept")
    put(t, stored)
    put(t, refused)
    soon = t.soon()
    put(t, kept, ttl=soon.ttl)
    set_if(t, stored, "two", "present", ttl=soon.ttl)
    set_if(t, fresh, "two", "absent", ttl=soon.ttl)
    set_if(t, refused, "two", "absent", ttl=soon.ttl)
    set_if(t, kept, "two", "absent", ttl=soon.long)
    soon.early()
    soon.over()
    t.expect(get(t, stored) is None, "a value stored by set_if was still there when its ttl had passed")
    t.expect(get(t, fresh) is None, "a new value stored by set_if was still there when its ttl had passed")
    t.expect(get(t, refused) is not None, "a set_if that stored nothing gave an end to the value that is there")
    t.expect(get(t, kept) is None, "a set_if that stored nothing made the life of the value that is there longer")


@rule(
    "set_if.one_winner",
    'Of any number of set_if "absent" of one key at once exactly one stores.',
    "Two would hold one lock, or one name be given twice.",
    backend=ATOMIC,
)
def set_if_winner(t: Trial) -> None:
    t.needs("set_if")
    places = things(t)
    for number in t.rounds():
        key = t.key()
        asks = [
            setting_if(t, key, str(each), "absent", of=places[each % len(places)])
            for each in range(t.settings.contenders)
        ]
        given = t.answers(t.race(asks), 'set_if "absent"')
        won = [each for each, stored in enumerate(given) if stored]
        t.expect(len(won) == 1, f'{len(won)} of {len(given)} set_if "absent" at once stored, in try {number + 1}')
        t.expect(is_value(get(t, key), str(won[0])), "what is there is not what the winner has stored")


@rule(
    "set_if.equal_one_winner",
    'Of any number of set_if "equal" to one value at once exactly one stores.',
    "A change that somebody else has made meanwhile would be overwritten.",
    backend=ATOMIC,
)
def set_if_lost(t: Trial) -> None:
    t.needs("set_if")
    places = things(t)
    for number in t.rounds():
        key = t.key()
        put(t, key, "before")
        asks = [
            setting_if(t, key, str(each), "equal", "before", of=places[each % len(places)])
            for each in range(t.settings.contenders)
        ]
        given = t.answers(t.race(asks), 'set_if "equal"')
        won = sum(bool(stored) for stored in given)
        t.expect(won == 1, f'{won} of {len(given)} set_if "equal" to one value stored, in try {number + 1}')


@rule(
    "set_if.no_resurrection",
    'When a set_if "present" and a delete of one key have both ended, whichever was first, nothing is under the key.',
    LOGGED_IN,
    backend=ATOMIC,
)
def set_if_resurrection(t: Trial) -> None:
    t.needs("set_if")
    places = things(t)
    for number in t.rounds():
        key = t.key()
        put(t, key)
        saves = [
            setting_if(t, key, "saved", "present", of=places[each % len(places)])
            for each in range(t.settings.contenders - 1)
        ]
        t.answers(t.race([*saves, Ask("delete", (key,))]), 'set_if "present" and a delete')
        t.expect(get(t, key) is None, f'a set_if "present" beside it undid a delete, in try {number + 1}')


# --------------------------------------------------------------------------------------------------------------- KEEP


@rule(
    "keep_ttl.keeps",
    "set with Backend.KEEP replaces the value and leaves its end; where nothing is, its `otherwise` is the ttl.",
    "A save would make a session longer, or immortal.",
    backend="counterfoil.Backend.KEEP",
)
def keep_keeps(t: Trial) -> None:
    if getattr(t.thing, "keeps_ttl", False) is not True:
        raise NotApplicable("it does not say keeps_ttl, so it never gets Backend.KEEP")
    short, forever, fresh, endless = t.key("short"), t.key("forever"), t.key("fresh"), t.key("endless")
    put(t, forever)
    soon = t.soon()
    put(t, short, ttl=soon.ttl)
    put(t, short, "two", ttl=type(Backend.KEEP)(soon.long))
    put(t, fresh, ttl=type(Backend.KEEP)(soon.ttl))
    put(t, endless, ttl=Backend.KEEP)
    put(t, forever, "two", ttl=type(Backend.KEEP)(soon.ttl))
    given = get(t, short)
    soon.early()
    t.expect(is_value(given, "two"), f"after set with KEEP, get gave {seen(given)}")
    soon.over()
    t.expect(get(t, short) is None, "the value outlived the end that it was to keep")
    t.expect(is_value(get(t, forever), "two"), "a value without an end has got one")
    t.expect(get(t, fresh) is None, "a new value outlived the ttl that KEEP had for it")
    t.expect(get(t, endless) is not None, "a new value went, although KEEP had no ttl for it")


# ---------------------------------------------------------------------------------------------------------------- scan


def pages(t: Trial, prefix: str, limit: int) -> Iterator[list[str]]:
    cursor: Any = None
    for _ in range(200):
        given = t.call("scan", prefix, cursor, limit)
        keys, cursor = given if isinstance(given, tuple) else (given, None)
        yield [each.decode() if isinstance(each, bytes) else each for each in keys]
        if cursor is None:
            return
    t.fail("200 pages of a few keys had no end: a cursor of None ends a scan")


def scanned(t: Trial, prefix: str, limit: int = 3) -> list[str]:
    return [key for page in pages(t, prefix, limit) for key in page if key.startswith(prefix)]


@rule(
    "scan.finds_all",
    "scan gives every key that begins with the prefix, over any number of pages, and ends with a cursor of None.",
    "What is to be listed, counted or cleared would be left out.",
    backend=TABLE,
)
def scan_complete(t: Trial) -> None:
    t.needs("scan")
    prefix = t.key("")
    keys = {f"{prefix}{number}" for number in range(10)}
    for key in keys:
        put(t, key)
    put(t, t.key("other"))
    found = scanned(t, prefix)
    t.expect(set(found) == keys, f"of 10 keys it gave {len(set(found) & keys)}, and {len(set(found) - keys)} others")
    t.expect(scanned(t, t.key("none")) == [], "where no key has the prefix it gave some")


@rule(
    "scan.literal_prefix",
    "The prefix of scan is text: *, ?, [, %, _ and \\ are characters like others.",
    "A store with such a prefix would not find its own keys.",
    backend=TABLE + "; a prefix is text, FORMAT.md 1",
)
def scan_prefix(t: Trial) -> None:
    t.needs("scan")
    for odd in ("*", "a?", "[a]", "50%", "a_", "back\\slash", "^$.", "'"):
        prefix = t.key(odd)
        put(t, prefix + "x")
        found = scanned(t, prefix)
        t.expect(found == [prefix + "x"], f"of one key behind a prefix with {odd} it gave {len(found)}")


@rule(
    "scan.no_expired",
    "scan gives no key whose value has expired.",
    "Counts and lists of sessions would have those that have ended.",
    backend=HEADER,
)
def scan_expired(t: Trial) -> None:
    t.needs("scan")
    prefix = t.key("")
    put(t, prefix + "stays")
    soon = t.soon()
    put(t, prefix + "goes", ttl=soon.ttl)
    soon.over()
    found = scanned(t, prefix)
    t.expect(prefix + "goes" not in found, "a key whose value had expired was in it")


@rule(
    "scan.stable",
    "Keys that stay are found although others are deleted between two pages.",
    "clear deletes each page as it comes: a cursor that counts would leave keys behind.",
    backend=SCANNED,
)
def scan_deletes(t: Trial) -> None:
    t.needs("scan")
    prefix = t.key("")
    keys = {f"{prefix}{number}" for number in range(9)}
    for key in keys:
        put(t, key)
    found: set[str] = set()
    for page in pages(t, prefix, 3):
        for key in page:
            if key in keys:
                found.add(key)
                t.call("delete", key)
    never = len(keys - found)
    t.expect(not never, f"when each page was deleted as it came, {never} of {len(keys)} keys were never given")


@rule(
    "cancel.leaves_it_usable",
    "After a call was cancelled the others get their own answers, and new calls go on.",
    "One client that hangs up would give its answer to another, or block everybody.",
    backend='core/DESIGN.md, "What a call means"; what asyncio.Task.cancel means for a coroutine',
)
def cancelled(t: Trial) -> None:
    if not t.is_async:
        raise NotApplicable("its methods block, and cannot be cancelled")

    async def ask(method: str, *args: Any) -> Any:
        given = getattr(t.thing, method)(*args)
        return await given if inspect.isawaitable(given) else given

    async def some() -> None:
        keys = [t.key() for _ in range(t.settings.contenders)]
        for number, key in enumerate(keys):
            await ask("set", key, value(t, str(number)), None)
        tasks = [asyncio.ensure_future(ask("get", key)) for key in keys]
        writes = [asyncio.ensure_future(ask("set", key, value(t, "new"), None)) for key in keys[::2]]
        for _ in range(t.dice.randrange(4)):
            await asyncio.sleep(0)
        for task in (*tasks[::2], *writes[::2]):
            task.cancel()
        given = await asyncio.gather(*tasks, *writes, return_exceptions=True)
        for number, each in enumerate(given[: len(keys)]):
            if isinstance(each, asyncio.CancelledError):
                continue
            if isinstance(each, BaseException):
                raise each
            right = is_value(each, str(number)) or is_value(each, "new")
            t.expect(right, "beside calls that were cancelled, a get had another's answer")
        for number, key in enumerate(keys):
            each = await ask("get", key)
            right = is_value(each, str(number)) or is_value(each, "new")
            t.expect(right, "after calls that were cancelled, a get had another's answer")

    for _ in t.rounds():
        t.run(some())


# ---------------------------------------------------------------------------------------------------- through a store


class _Lent:
    """The backend without its close: the kit closes what it has made itself."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        if name == "close":
            raise AttributeError(name)
        return getattr(self._thing, name)


@contextmanager
def stores(t: Trial, *lent: Any) -> Iterator[list[Any]]:
    """A store over each of these backends."""
    opened: list[Any] = []
    try:
        for each in lent:
            if t.is_async:
                from counterfoil import aio

                opened.append(t.run(aio.open(each)))
            else:
                opened.append(counterfoil.open(each))
        yield opened
    finally:
        for store in opened:
            t.ask(Ask("close", of=store))


@rule(
    "store.opens",
    "counterfoil.open takes it, and values go through the store and back.",
    "It could not be used.",
    backend=BACKEND,
)
def store_opens(t: Trial) -> None:
    try:
        describe(t.thing, blocking=False)
    except counterfoil.InvalidTypeError:
        raise NotApplicable("it is no backend: see shape.methods") from None
    with stores(t, _Lent(t.thing)) as (store,):
        key, text = t.key(), "through a store"
        t.ask(Ask("set", (key, text), of=store))
        given = t.ask(Ask("get", (key,), of=store))
        t.expect(given == text, f"get of the store gave {seen(given)}")
        t.ask(Ask("delete", (key,), of=store))
        given = t.ask(Ask("get", (key,), of=store))
        t.expect(given is None, f"get of the store gave {seen(given)} after delete")


def single(t: Trial) -> None:
    if getattr(t.thing, "single_process", False) is not True:
        raise NotApplicable("it does not say single_process, so nothing is derived")
    if t.has("pop"):
        raise NotApplicable("it has a pop of its own, so none is derived")


@rule(
    "single_process.one_winner",
    "Under single_process, what is derived of get, set and delete has one winner: they do what they say at once, also "
    "beside others.",
    CODE_TWICE,
    backend=DERIVED,
)
def single_winner(t: Trial) -> None:
    single(t)
    with stores(t, _Lent(t.thing)) as (store,):
        for number in t.rounds():
            keys = [t.key() for _ in range(2)]
            for key in keys:
                put(t, key)
            asks = [Ask("pop", (keys[each % 2],), of=store) for each in range(t.settings.contenders)]
            given = t.answers(t.race(asks), "pops through a store")
            for each, key in enumerate(keys):
                won = sum(one is not None for one in given[each::2])
                gone = get(t, key) is None
                t.expect(won == 1 and gone, f"{won} pops at once got one value, in try {number + 1}")


@rule(
    "single_process.alone",
    "A backend that says single_process is one object for its data.",
    "The locks of what is derived belong to the object: beside a second one on the same data, in this process or in "
    "another, one code is used twice. Share one object, or leave out single_process.",
    backend=DERIVED,
)
def single_object(t: Trial) -> None:
    single(t)
    places = things(t)
    if len(places) == 1 or places[0] is places[1]:
        return
    t.fail("two objects that were made in the same way have the same data")


@rule(
    "close.quiet",
    "close ends it, and raises nothing.",
    "A shutdown would fail, and what comes after it not be done.",
    backend=TABLE,
)
def close_quiet(t: Trial) -> None:
    t.needs("close")
    if t.settings.shared:
        raise NotApplicable("it was given itself, not a function that makes it: it stays open")
    t.closes()
