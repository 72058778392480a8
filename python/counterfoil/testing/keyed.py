"""The rules of what keeps values under keys: backends (`counterfoil.Backend`) and Cross Auth's SecondaryStorage."""

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import counterfoil

from ..backend import describe
from .rules import rule
from .trial import Ask, NotApplicable, Trial, Unexpected

BACKEND = "counterfoil.Backend, its docstring"
TABLE = 'core/DESIGN.md, "A backend written in a host language"'
FORMAT = "core/FORMAT.md"
HEADER = "core/include/counterfoil.h, the table of operations"
ATOMIC = 'core/include/counterfoil/backend.h, "ATOMIC OR NOT AT ALL"'
CROSS = "Cross Auth 0.22.2, cross_auth/_storage.py, SecondaryStorage"
CROSS_REDIS = "Cross Auth 0.22.2, cross_auth/storage/redis.py, RedisStorage.set"

CODE_TWICE = "A one-time code or an OAuth state could be used more than once."
LOGGED_IN = "What was logged out, or used up, would be back."


# ------------------------------------------------------------------------------------------------------------- values


def value(t: Trial, text: str = "one") -> Any:
    """A value as this thing takes it."""
    return text.encode() if getattr(t.thing, "binary", False) is True else text


def put(t: Trial, key: str, text: str = "one", ttl: Any = None) -> None:
    t.ask(setting(t, key, text, ttl))


def setting(t: Trial, key: str, text: str = "one", ttl: Any = None) -> Ask:
    if is_secondary(t):
        if ttl is not None and not takes_ttl(t.thing):
            raise NotApplicable("its set takes no ttl, as it was before Cross Auth 0.8")
        return Ask("set", (key, text), {} if ttl is None else {"ttl": ttl})
    return Ask("set", (key, value(t, text), ttl))


def takes_ttl(thing: Any) -> bool:
    try:
        parameters = inspect.signature(thing.set).parameters
    except (TypeError, ValueError):
        return True
    return "ttl" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def is_secondary(t: Trial) -> bool:
    return t.kind == "secondary"


def bytes_of(given: Any) -> Any:
    """Values may be given back as text or as bytes."""
    if isinstance(given, str):
        return given.encode("utf-8", "surrogatepass")
    return bytes(given) if isinstance(given, bytearray | memoryview) else given


def is_value(given: Any, text: str = "one") -> bool:
    return bool(bytes_of(given) == text.encode())


def get(t: Trial, key: str, of: Any = None) -> Any:
    return t.ask(Ask("get", (key,), of=of))


def seen(given: Any) -> str:
    """What came, without what it holds."""
    if given is None or isinstance(given, bool):
        return str(given)
    if isinstance(given, str | bytes | bytearray | memoryview):
        return f"a {type(given).__name__} of {len(given)}"
    return f"{'an' if type(given).__name__[0] in 'aeiou' else 'a'} {type(given).__name__}"


def things(t: Trial) -> list[Any]:
    """The thing, and another one that has the same data, if there is one: nothing that only one of them knows, a lock
    for example, makes two steps one."""
    if t.known.get("shares") is False:
        return [t.thing]
    twin = t.twin()
    if twin is not None:
        key = t.key("twin")
        put(t, key)
        t.known["shares"] = is_value(get(t, key, of=twin))
    else:
        t.known["shares"] = False
    return [t.thing, twin] if t.known["shares"] else [t.thing]


def many(t: Trial, places: list[Any], method: str, *args: Any) -> list[Ask]:
    """As many contenders as there are to be, all with the same call."""
    return [Ask(method, args, of=places[number % len(places)]) for number in range(t.settings.contenders)]


# ----------------------------------------------------------------------------------------------------- get, set, delete


@rule(
    "shape.methods",
    "get, set and delete are methods, and so is what there is of pop, touch, incr, set_if, scan and close; binary, "
    "keeps_ttl and single_process are True or False.",
    "counterfoil.open takes nothing else.",
    backend=BACKEND,
)
def shape(t: Trial) -> None:
    try:
        describe(t.thing, blocking=False)
    except counterfoil.InvalidTypeError as error:
        raise Unexpected(str(error)) from None


@rule(
    "get.miss",
    "get of a key under which nothing is gives None.",
    "Absent is a value: an exception would turn a wrong cookie into a server error, an empty value into a session.",
    backend=TABLE,
    secondary=CROSS + ".get -> str | None",
)
def get_miss(t: Trial) -> None:
    given = get(t, t.key())
    t.expect(given is None, f"{seen(given)}")


@rule(
    "get.what_was_set",
    "get gives what set has stored, as soon as set has returned.",
    "A login that has just been stored would be missing in the next request.",
    backend=HEADER,
    secondary=CROSS,
)
def set_then_get(t: Trial) -> None:
    key = t.key()
    put(t, key)
    given = get(t, key)
    t.expect(is_value(given), f"after set, get gave {seen(given)}")


@rule(
    "set.replaces",
    "set replaces what was under the key.",
    "An older state would come back.",
    backend=HEADER,
    secondary=CROSS,
)
def set_replaces(t: Trial) -> None:
    key = t.key()
    put(t, key, "a longer first")
    put(t, key, "two")
    given = get(t, key)
    t.expect(is_value(given, "two"), f"after a second set, get gave {seen(given)}")


@rule(
    "set.replaces_ttl",
    "set replaces the life of a value too: with the new ttl, or without an end where no ttl is given.",
    "A session that was renewed would end with its old life, or one that was shortened would live on.",
    backend=HEADER,
    secondary=CROSS + ".set; as SET of Redis has it",
)
def set_replaces_ttl(t: Trial) -> None:
    forever, longer, shorter = t.key("forever"), t.key("longer"), t.key("shorter")
    put(t, shorter, ttl=t.long)
    soon = t.soon()
    put(t, forever, ttl=soon.ttl)
    put(t, longer, ttl=soon.ttl)
    put(t, forever, "two")
    put(t, longer, "two", ttl=soon.long)
    put(t, shorter, "two", ttl=soon.ttl)
    soon.over()
    t.expect(is_value(get(t, forever), "two"), "a value set anew without a ttl went with the old one")
    t.expect(is_value(get(t, longer), "two"), "a value set anew with a longer ttl went with the old one")
    t.expect(get(t, shorter) is None, "a value set anew with a shorter ttl was still there after it")


@rule(
    "delete.removes",
    "What delete has deleted is absent, as soon as delete has returned; that nothing was there is no error.",
    "A user who has logged out would still be logged in, or get a server error when he does so twice.",
    backend=HEADER,
    secondary=CROSS,
)
def delete_removes(t: Trial) -> None:
    lives = [(None, "without a ttl"), (t.long, "with a ttl")]
    for ttl, which in lives if takes_ttl(t.thing) else lives[:1]:
        key = t.key()
        put(t, key, ttl=ttl)
        t.call("delete", key)
        t.expect(get(t, key) is None, f"a value {which} was still there")
        t.call("delete", key)


@rule(
    "delete.says_whether",
    "delete says whether there was a value: True or False; one that has expired was not there.",
    "Counts of what was removed, and code that asks who was first, would be wrong.",
    backend=TABLE,
)
def delete_says(t: Trial) -> None:
    key = t.key()
    put(t, key)
    there, missing = t.call("delete", key), t.call("delete", t.key())
    if there is None and missing is None:
        raise NotApplicable("its delete returns None, which counts as True")
    t.expect(there is True, f"delete of a value that was there gave {seen(there)}")
    t.expect(missing is False, f"delete of a key under which nothing was gave {seen(missing)}")
    soon = t.soon()
    put(t, key, ttl=soon.ttl)
    soon.over()
    given = t.call("delete", key)
    t.expect(given is False, f"delete of what has expired gave {seen(given)}")


@rule(
    "keys.distinct",
    "Keys that differ in any character are different keys: in case, in spaces, in accents, in the form of Unicode.",
    "Somebody could make a session id that leads to another's session.",
    backend=FORMAT + ", 1: byte for byte",
    secondary=CROSS + ": keys are text",
)
def keys_distinct(t: Trial) -> None:
    stem = t.key()
    ends = ("", "a", "A", "a ", " a", "é", "e\u0301", "%61", "a*", "a?", "a/b", "a\\b", "a:b", "a;", "a'", '"', "💶")
    keys = [stem + end for end in ends]
    for number, key in enumerate(keys):
        put(t, key, str(number))
    wrong = [end for number, end in enumerate(ends) if not is_value(get(t, keys[number]), str(number))]
    t.expect(
        not wrong,
        f"of {len(keys)} keys that differ in their ends alone these gave another's value or none: "
        f"{', '.join(ascii(end) for end in wrong)}",
    )


@rule(
    "keys.long",
    "A key may have 1024 bytes, every one of which counts.",
    "Long ids would be refused, or cut, so that two lead to one value.",
    backend=FORMAT + ", 1",
)
def keys_long(t: Trial) -> None:
    stem = t.key()
    stem += "x" * (1023 - len(stem))
    put(t, stem + "a", "a")
    put(t, stem + "b", "b")
    given = get(t, stem + "a")
    t.expect(is_value(given, "a"), "of two keys of 1024 bytes that differ in the last, one gave the other's value")


@rule(
    "values.empty",
    "An empty value is a value, not a miss.",
    "What was stored empty would be taken for absent.",
    backend=FORMAT + ", 2",
    secondary=CROSS + ".get: None if the key is not there",
)
def value_empty(t: Trial) -> None:
    key = t.key()
    put(t, key, "")
    given = get(t, key)
    t.expect(is_value(given, ""), f"get of an empty value gave {seen(given)}")


@rule(
    "text.round_trip",
    "Text comes back as it was: every character, line breaks and zeros included.",
    "Sessions hold JSON in any language: a changed one is corrupt, or another's name.",
    backend=FORMAT + ", 2",
    secondary=CROSS + ": str in, str out",
)
def value_text(t: Trial) -> None:
    key, text = t.key(), '{"é": "日本 💶 \\u0000 \u2028"}\r\n\t "\' \\ %s %(x)s e\u0301 '
    text += "" if is_secondary(t) else "\0"
    put(t, key, text)
    given = get(t, key)
    t.expect(is_value(given, text), f"text of {len(text)} characters came back as {seen(given)}")
    t.expect(not is_secondary(t) or isinstance(given, str), f"text came back as {seen(given)}")


@rule(
    "values.large",
    "A value may have 1,048,576 bytes.",
    "A session with much in it would be cut, or fail.",
    backend=FORMAT + ", 2",
)
def value_large(t: Trial) -> None:
    key, text = t.key(), "0123456789abcdef" * 65536
    put(t, key, text)
    given = get(t, key)
    t.expect(is_value(given, text), f"a value of 1 MiB came back as {seen(given)}")


@rule(
    "binary.round_trip",
    "Where a backend says binary, bytes come back as they were, whatever they are.",
    "Sealed values, and what is not UTF-8, would not open any more.",
    backend="counterfoil.Backend.binary",
)
def binary(t: Trial) -> None:
    if getattr(t.thing, "binary", False) is not True:
        raise NotApplicable("it does not say binary, so it gets text only")
    key, every = t.key(), bytes(range(256)) + b"\xff\xfe\0\xed\xa0\x80"
    t.call("set", key, every, None)
    given = get(t, key)
    t.expect(bytes_of(given) == every, f"{len(every)} bytes came back as {seen(given)}")


# -------------------------------------------------------------------------------------------------------------- expiry


@rule(
    "ttl.exact",
    "A value is there until its ttl has passed, and absent from then on.",
    "Sessions would end early, or codes be good for longer than they should.",
    backend=HEADER + "; to the millisecond",
    secondary=CROSS + '.set: "must be enforced when provided"',
)
def ttl_exact(t: Trial) -> None:
    key, tick = t.key(), t.settings.tick
    soon = t.soon()
    put(t, key, ttl=soon.ttl)
    if t.settings.advance is None:
        soon.half()
    else:
        t.pass_time(soon.ttl - tick)
    given = get(t, key)
    soon.early()
    passed = "half of it" if t.settings.advance is None else f"all but {tick:g} seconds of it"
    t.expect(is_value(given), f"with a ttl of {soon.ttl:g} seconds get gave {seen(given)} when {passed} had passed")
    if t.settings.advance is None:
        soon.over()
    else:
        t.pass_time(2 * tick if is_secondary(t) else tick)
    t.expect(get(t, key) is None, "it was still there when its ttl had passed")


@rule(
    "ttl.none",
    "Without a ttl a value lives until it is deleted.",
    "What was meant to stay would be gone.",
    backend=TABLE,
)
def ttl_none(t: Trial) -> None:
    key = t.key()
    put(t, key, "stays")
    life = 86400 if t.settings.advance else t.short
    t.pass_time(life)
    t.expect(is_value(get(t, key), "stays"), f"a value without a ttl was gone after {life:g} seconds")


@rule(
    "ttl.long",
    "A ttl may be ten years.",
    "A long life that overflows is a short one, or none.",
    backend='core/DESIGN.md, "What a call means"',
)
def ttl_long(t: Trial) -> None:
    key = t.key()
    put(t, key, ttl=3650 * 86400.0)
    t.expect(is_value(get(t, key)), "a value with a ttl of ten years was absent at once")


@rule(
    "ttl.zero_deletes",
    "set with a ttl of zero or less leaves nothing under the key.",
    "What has already ended would live for ever, or be a server error.",
    secondary=CROSS_REDIS + ": ttl <= 0 deletes",
)
def ttl_zero(t: Trial) -> None:
    for ttl in (0, -1):
        key = t.key()
        put(t, key)
        put(t, key, "two", ttl=ttl)
        t.expect(get(t, key) is None, f"with ttl={ttl} a value was there")


# ----------------------------------------------------------------------------------------------------------------- pop


@rule(
    "pop.takes",
    "pop gives the value and removes it; where there is none, or none any more, it gives None.",
    CODE_TWICE,
    backend=TABLE,
    secondary=CROSS + ".pop",
)
def pop_takes(t: Trial) -> None:
    t.needs("pop")
    key = t.key()
    put(t, key, ttl=t.long if takes_ttl(t.thing) else None)
    given = t.call("pop", key)
    t.expect(is_value(given), f"pop of a value gave {seen(given)}")
    t.expect(get(t, key) is None, "the value was still there after a pop")
    given = t.call("pop", t.key())
    t.expect(given is None, f"pop of a key under which nothing is gave {seen(given)}")
    if not takes_ttl(t.thing):
        return
    soon = t.soon()
    put(t, key, ttl=soon.ttl)
    soon.over()
    given = t.call("pop", key)
    t.expect(given is None, f"pop of what has expired gave {seen(given)}")


def one_winner(t: Trial, places: list[Any]) -> None:
    for number in t.rounds():
        key = t.key()
        put(t, key)
        given = t.answers(t.race(many(t, places, "pop", key)), "pops")
        won = sum(each is not None for each in given)
        which = "over two objects with the same data, " if len(places) > 1 else ""
        t.expect(won == 1, f"{which}{won} of {len(given)} pops at once got the value, in try {number + 1}")


@rule(
    "pop.one_winner",
    "Of any number of pops of one key at once exactly one gets the value, and the others get None.",
    CODE_TWICE,
    backend=ATOMIC,
    secondary=CROSS + '.pop: "Atomically get and delete a key"',
)
def pop_winner(t: Trial) -> None:
    t.needs("pop")
    one_winner(t, things(t))


# ------------------------------------------------------------------------------------------------------- many at once


@rule(
    "keys.independent",
    "Values set at once under different keys are all there afterwards.",
    "Logins at the same moment would lose each other's sessions.",
    backend=BACKEND + ": called by several threads at once",
    secondary="Cross Auth 0.15 and newer: its routes run in a pool of threads",
)
def lose_nothing(t: Trial) -> None:
    places = things(t)
    for number in t.rounds():
        keys = [t.key() for _ in range(t.settings.contenders)]
        asks = []
        for each, key in enumerate(keys):
            ask = setting(t, key, str(each))
            asks.append(Ask(ask.method, ask.args, ask.more, places[each % len(places)]))
        t.answers(t.race(asks), "sets of different keys")
        lost = sum(not is_value(get(t, key), str(each)) for each, key in enumerate(keys))
        t.expect(not lost, f"{lost} of {len(keys)} values set at once were lost, in try {number + 1}")


@rule(
    "set.whole",
    "Of values set at once under one key one is there, whole; who reads meanwhile sees one of them or the one before.",
    "A session that is half of one user's and half of another's.",
    backend=BACKEND + ": called by several threads at once",
    secondary="Cross Auth 0.15 and newer: its routes run in a pool of threads",
)
def whole_values(t: Trial) -> None:
    texts = [str(number) * 3000 for number in range(1, t.settings.contenders)]
    for number in t.rounds():
        key = t.key()
        put(t, key, "0" * 3000)
        asks = [ask for text in texts for ask in (setting(t, key, text), Ask("get", (key,)))]
        given = t.answers(t.race(asks), "sets and gets of one key")
        whole = ["0" * 3000, *texts]
        reads = [*given[1::2], get(t, key)]
        torn = sum(not any(is_value(each, text) for text in whole) for each in reads)
        t.expect(not torn, f"{torn} of {len(reads)} reads gave no value that was set, in try {number + 1}")


# -------------------------------------------------------------------------------------------------------------- faults


@rule(
    "fault.rejects",
    "While what is behind it cannot be reached, get, set and delete raise: get does not say None, nor the others that "
    "it is done.",
    "An outage would log everybody out, and a login or a logout be answered as done that never was.",
    backend="core/DESIGN.md, laws 5 and 12: absent is a value, never an exception, and every error says what happened",
    secondary=CROSS + ".get: None is for a key that is not there",
)
def fault_rejects(t: Trial) -> None:
    key = t.key()
    put(t, key)
    with broken(t):
        for ask in (Ask("get", (key,)), setting(t, key, "two"), Ask("delete", (key,))):
            try:
                given = t.ask(ask)
            except Exception:
                continue
            t.fail(f"{ask.method} gave {seen(given)} instead of an exception")


@contextmanager
def broken(t: Trial) -> Iterator[None]:
    if t.settings.broken is None:
        raise NotApplicable("no `broken` was given, within which what is behind it cannot be reached")
    with t.settings.broken(t.thing):
        yield


@rule(
    "fault.recovers",
    "When what is behind it can be reached again, so can what was stored, by the same object.",
    "Each outage would need a restart.",
    backend="core/DESIGN.md, law 5",
    secondary=CROSS,
)
def fault_recovers(t: Trial) -> None:
    key = t.key()
    put(t, key)
    with broken(t):
        try:
            get(t, key)
        except Exception:
            pass
    until = time.monotonic() + t.patience / 2
    while True:
        try:
            given = get(t, key)
            break
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    t.expect(is_value(given), f"after the fault, get gave {seen(given)}")
