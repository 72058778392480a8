"""Bad input: the documented error, the same code in every language, and nothing changed. (The cases have most of it;
this is what only Python can get wrong, and the sentences.)"""

import array
import asyncio
import math
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from support import Bare, Full

BAD_KEYS = [
    "",
    "a\x00b",
    "a\nb",
    "a\rb",
    "k" * 1025,
    "é" * 513,
    "\ud800",
    "a\udfffb",
    None,
    5,
    5.0,
    b"a",
    True,
    ["a"],
    object(),
]
BAD_VALUES = [
    "x" * 1_048_577,
    b"x" * 1_048_577,
    "é" * 524_289,
    "\ud800",
    None,
    5,
    1.5,
    True,
    ["a"],
    {"a": 1},
    object(),
    memoryview(b"abcd")[::2],
]
BAD_TTLS = [0, -1, -0.0001, math.nan, math.inf, -math.inf, 1e300, 315_360_000.001, 10**400, -(10**400), True, False,
"5", b"5", [5],
            Decimal(5), Fraction(5), timedelta(seconds=5), object()]  # fmt: skip
BAD_NUMBERS = [2**53, -(2**53), 2**64, 10**400, 1.5, "1", True, None, Decimal(1), object()]


def is_type(value: Any, *good: type) -> bool:
    return isinstance(value, good) and not isinstance(value, bool)


class Watched(Full):
    """Says whether it was touched at all."""

    touched = 0

    def __getattribute__(self, name: str) -> Any:
        if name in ("get", "set", "delete", "pop", "touch", "incr", "scan", "set_if"):
            type(self).touched += 1
        return super().__getattribute__(name)


@pytest.fixture(params=["memory", "backend"])
def store(request: pytest.FixtureRequest):
    target = "memory:" if request.param == "memory" else Watched()
    with counterfoil.open(target) as store:
        store.set("kept", "1")
        before = store.stats()
        Watched.touched = 0
        yield store
        assert Watched.touched == 0, "bad input reached the backend"
        after = store.stats()
        for figure in ("entries", "bytes"):
            assert after.get(figure) == before.get(figure)
        assert store.get("kept") == "1"


def refused(call: Any, wrong_type: bool) -> counterfoil.Error:
    with pytest.raises(counterfoil.InvalidError) as caught:
        call()
    error = caught.value
    assert (error.code, error.outcome) == ("INVALID", "not_applied")
    assert isinstance(error, TypeError) == wrong_type, repr(error)
    assert error.__context__ is None
    return error


def show(value: object) -> str:
    return f"{type(value).__name__}-{str(value)[:12]!a}"


@pytest.mark.parametrize("key", BAD_KEYS, ids=show)
def test_keys(store: counterfoil.Store, key: Any) -> None:
    wrong_type = not isinstance(key, str)
    for call in (
        lambda: store.get(key),
        lambda: store.get_bytes(key),
        lambda: store.set(key, "v"),
        lambda: store.delete(key),
        lambda: store.pop(key),
        lambda: store.pop_bytes(key),
        lambda: store.touch(key, 5),
        lambda: store.incr(key),
        lambda: store.get_many([key]),
    ):
        refused(call, wrong_type)
    if key != "":
        for call in (lambda: store.scan(key), lambda: store.count(key), lambda: store.clear(key, force=True)):
            refused(call, wrong_type)


@pytest.mark.parametrize("value", BAD_VALUES, ids=show)
def test_values(store: counterfoil.Store, value: Any) -> None:
    wrong_type = not is_type(value, str, bytes)
    refused(lambda: store.set("k", value), wrong_type)
    refused(lambda: store.set("k", value, if_absent=True, ttl=5), wrong_type)
    if value is not None:
        refused(lambda: store.set("kept", "v", if_equal=value), wrong_type)


def test_values_of_many_bytes_in_few_items(store: counterfoil.Store) -> None:
    refused(lambda: store.set("k", array.array("d", [0.0] * 131_073)), False)


@pytest.mark.parametrize("ttl", BAD_TTLS, ids=show)
def test_ttls(store: counterfoil.Store, ttl: Any) -> None:
    wrong_type = not is_type(ttl, int, float)
    refused(lambda: store.set("k", "v", ttl=ttl), wrong_type)
    refused(lambda: store.set("kept", "v", ttl=ttl), wrong_type)
    refused(lambda: store.touch("kept", ttl), wrong_type)
    refused(lambda: store.incr("n", ttl=ttl), wrong_type)
    refused(lambda: counterfoil.open("memory:", ttl=ttl), wrong_type)
    refused(lambda: counterfoil.SecondaryStorage(store, ttl=ttl), wrong_type)
    if not (is_type(ttl, int, float) and ttl <= 3_000):  # 0.001 of a number is a timeout, and ttls may be longer
        refused(lambda: counterfoil.open("memory:", timeout=ttl), wrong_type)
    if not (is_type(ttl, int, float) and ttl <= 0):
        refused(lambda: counterfoil.SecondaryStorage(store).set("k", "v", ttl), wrong_type)


def test_touch_needs_a_ttl(store: counterfoil.Store) -> None:
    refused(lambda: store.touch("kept", None), True)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", BAD_NUMBERS, ids=show)
def test_numbers(store: counterfoil.Store, by: Any) -> None:
    refused(lambda: store.incr("n", by), not is_type(by, int))


@pytest.mark.parametrize(
    "moment", [5, 5.0, "2030-01-01", datetime(2030, 1, 1), datetime(2030, 1, 1).date(), True], ids=show
)
def test_instants(store: counterfoil.Store, moment: Any) -> None:
    refused(lambda: store.set("k", "v", expires_at=moment), not isinstance(moment, datetime))


@pytest.mark.parametrize("flag", ["if_absent", "if_present", "keep_ttl"])
@pytest.mark.parametrize("value", [None, 0, 1, "yes", []])
def test_flags(store: counterfoil.Store, flag: str, value: Any) -> None:
    refused(lambda: store.set("k", "v", **{flag: value}), True)
    refused(lambda: store.clear("k", value), True)


def test_options_that_exclude_each_other(store: counterfoil.Store) -> None:
    later = datetime.now().astimezone() + timedelta(seconds=60)
    refused(lambda: store.set("kept", "v", if_absent=True, if_present=True), False)
    refused(lambda: store.set("kept", "v", if_present=True, if_equal="1"), False)
    refused(lambda: store.set("kept", "v", ttl=5, keep_ttl=True), False)
    refused(lambda: store.set("kept", "v", ttl=5, expires_at=later), False)


@pytest.mark.parametrize("keys", ["text", b"bytes", 5, None])
def test_get_many_wants_an_iterable_of_keys(store: counterfoil.Store, keys: Any) -> None:
    refused(lambda: store.get_many(keys), True)


@pytest.mark.parametrize("prefix", [None, 5, b"p", "a\n", "a\x00", "x" * 257, "\ud800"], ids=show)
def test_prefixes_of_a_store(prefix: Any) -> None:
    refused(lambda: counterfoil.open("memory:", prefix=prefix), not isinstance(prefix, str))


BAD_URLS = [
    "", "memory", "nope:", "redis://localhost/x", "redis:", "memory:?nope=1", "memory:?max_entries=1&max_entries=2",
    "memory:?max_entries=0", "memory:?max_entries=x", "memory:%", "memory:\x00", "memory:\ud800", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS, ids=show)
def test_urls(url: str) -> None:
    refused(lambda: counterfoil.open(url), False)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 86_401, None, "5", True])
def test_timeouts(timeout: Any) -> None:
    refused(lambda: counterfoil.open("memory:", timeout=timeout), not is_type(timeout, int, float))


@pytest.mark.parametrize("stage", [5, "stage", object()])
def test_stages(stage: Any) -> None:
    refused(lambda: counterfoil.open("memory:", stage=stage), True)


def test_clear_of_everything(store: counterfoil.Store) -> None:
    refused(lambda: store.clear(), False)
    refused(lambda: store.clear(""), False)


def test_the_async_store_says_the_same_where_it_is_awaited() -> None:
    async def main() -> None:
        async with await counterfoil.aio.open("memory:") as store, await counterfoil.aio.open(Bare()) as own:
            for each in (store, own):
                for begin, wrong_type in (
                    (lambda each=each: each.get(""), False),
                    (lambda each=each: each.get(5), True),
                    (lambda each=each: each.set("k", object()), True),
                    (lambda each=each: each.set("k", "v", ttl=-1), False),
                    (lambda each=each: each.touch("k", True), True),
                ):
                    op = begin()  # not here
                    with pytest.raises(counterfoil.InvalidError) as caught:
                        await op
                    assert isinstance(caught.value, TypeError) == wrong_type
                with pytest.raises(TypeError):
                    each.get()
                with pytest.raises(counterfoil.InvalidError):
                    async for _ in each.scan("\n"):
                        pass
                for keys in ("text", ["a", ""]):
                    with pytest.raises(counterfoil.InvalidError):
                        await each.get_many(keys)

    asyncio.run(main())


def test_no_error_repeats_what_it_was_given() -> None:
    secret = "hunter2"
    with counterfoil.open("memory:") as store, counterfoil.open(Full()) as own:
        for each in (store, own):
            each.set("k", secret)
            for call in (
                lambda each=each: each.get(f"{secret}\n"),
                lambda each=each: each.get(f"{secret}\ud800"),
                lambda each=each: each.set("k", f"{secret}\ud800"),
                lambda each=each: each.set(f"{secret}\x00", secret * 200_000),
                lambda each=each: each.set("k", [secret]),
                lambda each=each: each.set("k", "v", ttl=secret),
                lambda each=each: each.incr("k"),
                lambda each=each: counterfoil.Storage(each).set("k", {"a": {secret}}),
                lambda each=each: counterfoil.Storage(each).get("k"),
            ):
                with pytest.raises(counterfoil.Error) as caught:
                    call()
                error: BaseException | None = caught.value
                while error is not None:
                    assert secret not in repr(error)
                    error = error.__cause__ or error.__context__
