"""Stores that are right, and stores that are wrong in one way each: what the conformance kit must find, and nothing
else. A mutant is a function without arguments that makes one; the stage is the clock of all."""

import asyncio
import contextlib
import fnmatch
import itertools
import math
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import counterfoil
from counterfoil import Backend
from counterfoil.testing import Stage

STAGE = Stage()


@dataclass(frozen=True)
class Mutant:
    kind: str
    fails: str  # the one rule
    make: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)


MUTANTS: list[Mutant] = []


def mutant(kind: str, fails: str, **options: Any) -> Callable[[Any], Any]:
    def note(make: Any) -> Any:
        MUTANTS.append(Mutant(kind, fails, make, options))
        return make

    return note


# ------------------------------------------------------------------------------------------------------------- backends


def now() -> int:
    return STAGE.wall_ms()


class Bare(Backend):
    """Three methods, which is enough for one process."""

    single_process = True

    def __init__(self) -> None:
        self.data: dict[str, tuple[Any, int | None]] = {}
        self.lock = threading.RLock()
        self.down = False

    def end(self, ttl: Any) -> int | None:
        return None if ttl is None else now() + round(ttl * 1000)

    def live(self, key: str) -> bool:
        there = self.data.get(key)
        return there is not None and (there[1] is None or now() < there[1])

    def reach(self) -> None:
        if self.down:
            raise ConnectionError("nothing is there")

    def get(self, key: str) -> Any:
        with self.lock:
            self.reach()
            return self.data[key][0] if self.live(key) else None

    def set(self, key: str, value: Any, ttl: Any) -> None:
        with self.lock:
            self.reach()
            self.data[key] = (value, self.end(ttl))

    def delete(self, key: str) -> Any:
        with self.lock:
            self.reach()
            there = self.live(key)
            self.data.pop(key, None)
            return there


class Full(Bare):
    """Every method."""

    binary = keeps_ttl = True
    single_process = False

    def set(self, key: str, value: Any, ttl: Any) -> None:
        with self.lock:
            self.reach()
            if ttl == Backend.KEEP:
                self.data[key] = (value, self.data[key][1] if self.live(key) else self.end(ttl.otherwise))
            else:
                self.data[key] = (value, self.end(ttl))

    def pop(self, key: str) -> Any:
        with self.lock:
            value = self.get(key)
            self.data.pop(key, None)
            return value

    def touch(self, key: str, ttl: float) -> Any:
        with self.lock:
            if not self.live(key):
                return False
            self.data[key] = (self.data[key][0], self.end(ttl))
            return True

    def incr(self, key: str, by: int, ttl: Any) -> Any:
        with self.lock:
            value, end = self.data[key] if self.live(key) else (b"0", self.end(ttl))
            number = int(value) + by
            self.data[key] = (str(number).encode(), end)
            return number

    def set_if(self, key: str, value: Any, ttl: Any, condition: str, expected: Any) -> Any:
        with self.lock:
            there = self.live(key)
            equal = there and self.data[key][0] == expected
            holds = {"absent": not there, "present": there, "equal": equal}[condition]
            if holds:
                self.set(key, value, ttl)
            return holds

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in list(self.data) if key.startswith(prefix) and self.live(key))

    def scan(self, prefix: str, cursor: Any, limit: int) -> Any:
        keys = [key for key in self.keys(prefix) if cursor is None or key > cursor]
        return keys[:limit], keys[limit - 1] if len(keys) > limit else None

    def close(self) -> None:
        pass


class Coroutines(Backend):
    """The same, awaited."""

    binary = keeps_ttl = True

    def __init__(self) -> None:
        self.inner = Full()
        self.lock = asyncio.Lock()

    async def get(self, key: str) -> Any:
        async with self.lock:
            await asyncio.sleep(0)
            return self.inner.get(key)

    async def set(self, key: str, value: Any, ttl: Any) -> None:
        async with self.lock:
            await asyncio.sleep(0)
            self.inner.set(key, value, ttl)

    async def delete(self, key: str) -> Any:
        async with self.lock:
            return self.inner.delete(key)

    async def pop(self, key: str) -> Any:
        async with self.lock:
            value = self.inner.get(key)
            await asyncio.sleep(0)
            self.inner.delete(key)
            return value


class BareCoroutines(Backend):
    """Three of them, which is enough for one process."""

    single_process = True

    def __init__(self) -> None:
        self.inner = Bare()

    async def get(self, key: str) -> Any:
        await asyncio.sleep(0)
        return self.inner.get(key)

    async def set(self, key: str, value: Any, ttl: Any) -> None:
        await asyncio.sleep(0)
        self.inner.set(key, value, ttl)

    async def delete(self, key: str) -> Any:
        await asyncio.sleep(0)
        return self.inner.delete(key)


@contextlib.contextmanager
def down(backend: Any) -> Iterator[None]:
    backend.down = True
    try:
        yield
    finally:
        backend.down = False


broken = {"broken": down}


@mutant("backend", "shape.methods")
class SaysYes(Full):
    keeps_ttl = "yes"  # type: ignore[assignment]

    def set(self, key: str, value: Any, ttl: Any) -> None:
        with self.lock:
            self.data[key] = (value, self.end(ttl))


@mutant("backend", "get.miss")
class EmptyWhileItHasNothing(Full):
    ever = False

    def get(self, key: str) -> Any:
        return super().get(key) if self.ever else b""

    def end(self, ttl: Any) -> int | None:
        self.ever = True
        return super().end(ttl)


@mutant("backend", "get.what_was_set")
class WritesBehind(Full):
    """What has just been set is there from the second look on."""

    fresh = ""

    def set(self, key: str, value: Any, ttl: Any) -> None:
        self.fresh = key if value == b"one" and ttl is None and not self.data else ""
        super().set(key, value, ttl)

    def get(self, key: str) -> Any:
        late, self.fresh = key == self.fresh, ""
        return None if late else super().get(key)


@mutant("backend", "set.replaces")
class KeepsTheLonger(Full):
    def set(self, key: str, value: Any, ttl: Any) -> None:
        if ttl is None and len(self.data.get(key, (b"",))[0]) > 10 > len(value):
            return
        super().set(key, value, ttl)


@mutant("backend", "set.replaces_ttl")
class KeepsTheEnd(Full):
    """UPDATE SET expiry = COALESCE(?, expiry)"""

    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(key, value, Backend.KEEP if ttl is None and self.live(key) else ttl)


@mutant("backend", "set.whole")
class InHalves(Full):
    def set(self, key: str, value: Any, ttl: Any) -> None:
        if len(value) == 3000:
            super().set(key, value[:1500] + self.data.get(key, (value,))[0][1500:], ttl)
            time.sleep(0.0001)
        super().set(key, value, ttl)


@mutant("backend", "keys.distinct")
class Composed(Full):
    def get(self, key: str) -> Any:
        return super().get(unicodedata.normalize("NFC", key))

    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(unicodedata.normalize("NFC", key), value, ttl)


@mutant("backend", "keys.long")
class Varchar(Full):
    def get(self, key: str) -> Any:
        return super().get(key[:1000])

    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(key[:1000], value, ttl)


@mutant("backend", "keys.independent")
class OneFile(Full):
    """Reads all, writes all."""

    def set(self, key: str, value: Any, ttl: Any) -> None:
        if ttl == Backend.KEEP:
            return super().set(key, value, ttl)
        everything = dict(self.data)
        time.sleep(0.00001)
        everything[key] = (value, self.end(ttl))
        with self.lock:
            self.data = everything
        return None


@mutant("backend", "values.empty")
class FalseIsAbsent(Full):
    def get(self, key: str) -> Any:
        return super().get(key) or None


@mutant("backend", "values.large")
class Blob(Full):
    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(key, value[:65535], ttl)


@mutant("backend", "text.round_trip")
class LineBreaks(Full):
    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(key, value.replace(b"\r\n", b"\n"), ttl)


@mutant("backend", "binary.round_trip")
class TextColumn(Full):
    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(key, value.decode("utf-8", "replace").encode(), ttl)


@mutant("backend", "ttl.exact")
class OneTickLate(Full):
    def live(self, key: str) -> bool:
        there = self.data.get(key)
        return there is not None and (there[1] is None or now() <= there[1])


@mutant("backend", "ttl.exact")
class EndsEarly(Full):
    def end(self, ttl: Any) -> int | None:
        return None if ttl is None else now() + math.floor(ttl * 999)


@mutant("backend", "ttl.none")
class TenMinutes(Full):
    def end(self, ttl: Any) -> int | None:
        return super().end(600 if ttl is None else ttl)


@mutant("backend", "ttl.long")
class ThirtyTwoBits(Full):
    def end(self, ttl: Any) -> int | None:
        return super().end(ttl if ttl is None or ttl * 1000 < 2**31 else -1)


@mutant("backend", "delete.removes")
class KeepsWhatEnds(Full):
    """DELETE ... WHERE expiry IS NULL: what was stored with an end stays."""

    def __init__(self) -> None:
        super().__init__()
        self.ending: set[str] = set()

    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(key, value, ttl)
        if ttl is not None:
            self.ending.add(key)

    def delete(self, key: str) -> Any:
        return self.live(key) if key in self.ending else super().delete(key)


@mutant("backend", "delete.says_whether")
class CountsTheExpired(Full):
    """The example of many a README."""

    def delete(self, key: str) -> Any:
        with self.lock:
            return self.data.pop(key, None) is not None


@mutant("backend", "pop.takes")
class PopsWhatStays(Full):
    def pop(self, key: str) -> Any:
        with self.lock:
            value = self.get(key)
            if self.data.get(key, (b"", None))[1] is None:
                self.data.pop(key, None)
            return value


@mutant("backend", "pop.one_winner")
class GetThenDelete(Full):
    def pop(self, key: str) -> Any:
        value = self.get(key)
        if value is not None:
            self.delete(key)
        return value


_SHARED: dict[str, Any] = {}


@mutant("backend", "pop.one_winner")
class LockOfTheObject(Full):
    """Its lock is the object's, and its data is not."""

    def __init__(self) -> None:
        super().__init__()
        self.data = _SHARED
        self.right = _RIGHT

    def pop(self, key: str) -> Any:
        with self.lock:
            value = Full.get(self, key)
            time.sleep(0.0001)
            self.data.pop(key, None)
            return value

    def touch(self, key: str, ttl: float) -> Any:
        with self.right:
            return super().touch(key, ttl)

    def incr(self, key: str, by: int, ttl: Any) -> Any:
        with self.right:
            return super().incr(key, by, ttl)

    def set_if(self, key: str, value: Any, ttl: Any, condition: str, expected: Any) -> Any:
        with self.right:
            return super().set_if(key, value, ttl, condition, expected)

    def set(self, key: str, value: Any, ttl: Any) -> None:
        with self.right:
            super().set(key, value, ttl)

    def delete(self, key: str) -> Any:
        with self.right:
            return super().delete(key)


_RIGHT = threading.RLock()


@mutant("backend", "pop.one_winner")
class AwaitsBetween(Coroutines):
    async def pop(self, key: str) -> Any:
        value = await self.get(key)
        if value is not None:
            await self.delete(key)
        return value


@mutant("backend", "touch.moves_expiry")
class NeverShorter(Full):
    def touch(self, key: str, ttl: float) -> Any:
        with self.lock:
            if self.live(key) and (self.data[key][1] or 0) > now() + ttl * 1000:
                return True
            return super().touch(key, ttl)


@mutant("backend", "touch.says_whether")
class AlwaysTouched(Full):
    def touch(self, key: str, ttl: float) -> Any:
        super().touch(key, ttl)
        return True


@mutant("backend", "touch.no_resurrection")
class TouchBringsBack(Full):
    def touch(self, key: str, ttl: float) -> Any:
        value = self.get(key)
        if value is None:
            return False
        with self.lock:
            if not super().touch(key, ttl):
                self.set(key, value, ttl)
        return True


@mutant("backend", "touch.loses_no_update")
class TouchWritesBack(Full):
    def touch(self, key: str, ttl: float) -> Any:
        value = self.get(key)
        with self.lock:
            return super().touch(key, ttl) and (super().set(key, value, ttl) or True)


@mutant("backend", "incr.counts")
class NotBelowZero(Full):
    def incr(self, key: str, by: int, ttl: Any) -> Any:
        return max(0, super().incr(key, by, ttl))


@mutant("backend", "incr.loses_none")
class GetThenSet(Full):
    def incr(self, key: str, by: int, ttl: Any) -> Any:
        number = int(self.get(key) or 0) + by
        super().set(key, str(number).encode(), Backend.KEEP if self.live(key) else ttl)
        return number


@mutant("backend", "incr.keeps_ttl")
class CountsOn(Full):
    def incr(self, key: str, by: int, ttl: Any) -> Any:
        with self.lock:
            number = super().incr(key, by, ttl)
            if ttl is not None:
                self.touch(key, ttl)
            return number


@mutant("backend", "incr.refuses_text")
class TextIsZero(Full):
    def incr(self, key: str, by: int, ttl: Any) -> Any:
        with self.lock:
            if not (self.get(key) or b"0").lstrip(b"-").isdigit():
                self.data.pop(key)
            return super().incr(key, by, ttl)


class Conditional(Full):
    """Where one condition is not under the lock, or wrong."""

    condition = ""

    def holds(self, key: str, expected: Any) -> bool:
        raise NotImplementedError

    def set_if(self, key: str, value: Any, ttl: Any, condition: str, expected: Any) -> Any:
        if condition != self.condition:
            return super().set_if(key, value, ttl, condition, expected)
        holds = self.holds(key, expected)
        if holds:
            self.set(key, value, ttl)
        return holds


@mutant("backend", "set_if.absent")
class ExpiredIsThere(Conditional):
    condition = "absent"

    def set_if(self, *args: Any) -> Any:
        with self.lock:
            return super().set_if(*args)

    def holds(self, key: str, expected: Any) -> bool:
        return key not in self.data


@mutant("backend", "set_if.present")
class ExpiredIsPresent(Conditional):
    condition = "present"

    def set_if(self, *args: Any) -> Any:
        with self.lock:
            return super().set_if(*args)

    def holds(self, key: str, expected: Any) -> bool:
        return key in self.data


@mutant("backend", "set_if.equal")
class FirstLetter(Conditional):
    condition = "equal"

    def set_if(self, *args: Any) -> Any:
        with self.lock:
            return super().set_if(*args)

    def holds(self, key: str, expected: Any) -> bool:
        return self.live(key) and self.data[key][0][:1] == expected[:1]


@mutant("backend", "set_if.ttl")
class NoEnd(Full):
    def set_if(self, key: str, value: Any, ttl: Any, condition: str, expected: Any) -> Any:
        return super().set_if(key, value, None, condition, expected)


@mutant("backend", "set_if.one_winner")
class LooksForNothing(Conditional):
    condition = "absent"

    def holds(self, key: str, expected: Any) -> bool:
        return self.get(key) is None


@mutant("backend", "set_if.equal_one_winner")
class LooksForEqual(Conditional):
    condition = "equal"

    def holds(self, key: str, expected: Any) -> bool:
        return bool(self.get(key) == expected)


@mutant("backend", "set_if.no_resurrection")
class LooksForSome(Conditional):
    condition = "present"

    def holds(self, key: str, expected: Any) -> bool:
        return self.get(key) is not None


@mutant("backend", "keep_ttl.keeps")
class KeepIsForEver(Full):
    def set(self, key: str, value: Any, ttl: Any) -> None:
        super().set(key, value, None if ttl == Backend.KEEP and self.live(key) else ttl)


@mutant("backend", "scan.finds_all")
class ThreePages(Full):
    pages = 0

    def scan(self, prefix: str, cursor: Any, limit: int) -> Any:
        self.pages = 1 if cursor is None else self.pages + 1
        keys, after = super().scan(prefix, cursor, limit)
        return keys, None if self.pages == 3 else after


@mutant("backend", "scan.literal_prefix")
class Globs(Full):
    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.data if fnmatch.fnmatchcase(key, prefix + "*") and self.live(key))


@mutant("backend", "scan.no_expired")
class ScansTheExpired(Full):
    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.data if key.startswith(prefix))


@mutant("backend", "scan.stable")
class Offset(Full):
    def scan(self, prefix: str, cursor: Any, limit: int) -> Any:
        keys, at = self.keys(prefix), cursor or 0
        return keys[at : at + limit], at + limit if at + limit < len(keys) else None


@mutant("backend", "cancel.leaves_it_usable", patience=0.4)
class KeepsTheLock(Coroutines):
    async def get(self, key: str) -> Any:
        await self.lock.acquire()
        await asyncio.sleep(0)
        self.lock.release()
        return self.inner.get(key)


@mutant("backend", "cancel.leaves_it_usable")
class MixesUp(Coroutines):
    """Answers come in the order of the questions, and who is cancelled leaves his behind."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = []

    async def get(self, key: str) -> Any:
        self.answers.append(self.inner.get(key))
        await asyncio.sleep(0)
        return self.answers.pop(0)


@mutant("backend", "store.opens")
class EverySecondByte(Full):
    """A value that is not contiguous, which no store takes."""

    def get(self, key: str) -> Any:
        value = super().get(key)
        return None if value is None else memoryview(bytes(byte for byte in value for _ in range(2)))[::2]

    def pop(self, key: str) -> Any:
        with self.lock:
            value = Full.get(self, key)
            self.data.pop(key, None)
            return value

    def incr(self, key: str, by: int, ttl: Any) -> Any:
        return super().incr(key, by, ttl)


@mutant("backend", "single_process.one_winner")
class LateReads(Bare):
    """What one thread has deleted another still sees for a moment: a cache for each."""

    def __init__(self) -> None:
        super().__init__()
        self.mine = threading.local()
        self.owner = threading.get_ident()
        self.ghosts: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        value = super().get(key)
        if value is None and threading.get_ident() != self.owner:
            return self.ghosts.get(key)
        return value

    def delete(self, key: str) -> Any:
        self.ghosts[key] = super().get(key)
        return super().delete(key)


@mutant("backend", "single_process.alone")
class TwoOfThem(Bare):
    def __init__(self) -> None:
        super().__init__()
        self.data, self.lock = _SHARED, _RIGHT


@mutant("backend", "fault.rejects", **broken)
class MissInAnOutage(Full):
    def get(self, key: str) -> Any:
        try:
            return super().get(key)
        except ConnectionError:
            return None


@mutant("backend", "fault.recovers", patience=0.4, **broken)
class StaysDown(Full):
    dead = False

    def reach(self) -> None:
        self.dead = self.dead or self.down
        if self.dead:
            raise ConnectionError("nothing is there")


@mutant("backend", "close.quiet")
class ClosesLoudly(Full):
    def close(self) -> None:
        raise OSError("it was closed")


# ---------------------------------------------------------------------------------------------------- SecondaryStorage


class Secondary:
    """In the shape of Cross Auth's, over a backend."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def get(self, key: str) -> str | None:
        value = self.backend.get(key)
        return value.decode() if isinstance(value, bytes) else value

    def set(self, key: str, value: str, ttl: int | None = None) -> None:
        if ttl is not None and ttl <= 0:
            self.backend.delete(key)
        else:
            self.backend.set(key, value.encode(), ttl)

    def delete(self, key: str) -> None:
        self.backend.delete(key)

    def pop(self, key: str) -> str | None:
        value = self.backend.pop(key)
        return value.decode() if isinstance(value, bytes) else value


@contextlib.contextmanager
def secondary_down(storage: Any) -> Iterator[None]:
    with down(storage.backend):
        yield


def over(backend: Any) -> Callable[[], Secondary]:
    return lambda: Secondary(backend())


for each in (
    EmptyWhileItHasNothing, WritesBehind, KeepsTheLonger, KeepsTheEnd, InHalves, Composed, OneFile, FalseIsAbsent,
    LineBreaks, KeepsWhatEnds, PopsWhatStays, GetThenDelete, LockOfTheObject,
):  # fmt: skip
    rule = next(one.fails for one in MUTANTS if one.make is each)
    MUTANTS.append(Mutant("secondary", rule, over(each)))
MUTANTS.append(Mutant("secondary", "fault.rejects", over(MissInAnOutage), {"broken": secondary_down}))
MUTANTS.append(Mutant("secondary", "fault.recovers", over(StaysDown), {"broken": secondary_down, "patience": 0.4}))


@mutant("secondary", "ttl.exact")
class TwoTicksLate(Secondary):
    def __init__(self) -> None:
        super().__init__(Full())

    def set(self, key: str, value: str, ttl: int | None = None) -> None:
        super().set(key, value, None if ttl is None else ttl + (0.002 if ttl > 0 else 0))  # type: ignore[arg-type]

    def pop(self, key: str) -> str | None:
        return None if (self.backend.data.get(key, (0, None))[1] or 10**18) <= now() + 2 else super().pop(key)


@mutant("secondary", "ttl.zero_deletes")
class ZeroIsForEver(Secondary):
    def __init__(self) -> None:
        super().__init__(Full())

    def set(self, key: str, value: str, ttl: int | None = None) -> None:
        super().set(key, value, None if ttl == 0 else ttl)


# ------------------------------------------------------------------------------------------------------------ accounts


def store() -> counterfoil.Store:
    return counterfoil.open("memory:", stage=STAGE)


class Accounts(counterfoil.AccountsStorage):
    """Ours, to be made wrong."""

    def __init__(self) -> None:
        super().__init__(store())
        self.makers: dict[str, int] = {}

    def made(self, name: str, made: Any) -> Any:
        self.makers[name] = threading.get_ident()
        return made

    def by_another(self, name: str) -> bool:
        """Whether another thread has made what is called so."""
        return self.makers.get(name) != threading.get_ident()


@mutant("accounts", "shape.methods")
class NeverUnlinks(Accounts):
    delete_social_account = None  # type: ignore[assignment]


@mutant("accounts", "user.round_trip")
class Unverified(Accounts):
    def create_user(self, **more: Any) -> Any:
        return super().create_user(**{**more, "email_verified": False})


@mutant("accounts", "user.miss")
class CastsIds(Accounts):
    def find_user_by_id(self, id: Any) -> Any:
        if len(id) not in (26, 32, 36):
            raise ValueError("no such id")
        return super().find_user_by_id(id)


@mutant("accounts", "user.email_unique")
class SignsUpAgain(Accounts):
    """Who comes again is given the user who is there."""

    def create_user(self, **more: Any) -> Any:
        try:
            return self.made(more["email"], super().create_user(**more))
        except counterfoil.ExistsError as error:
            if self.by_another(more["email"]):
                raise
            return error.existing


@mutant("accounts", "user.email_one_winner")
class SignsUpAtOnce(Accounts):
    def create_user(self, **more: Any) -> Any:
        try:
            return self.made(more["email"], super().create_user(**more))
        except counterfoil.ExistsError as error:
            if not self.by_another(more["email"]):
                raise
            return error.existing


@mutant("accounts", "user.email_normalised")
class AsWritten(Accounts):
    def find_user_by_email(self, email: str) -> Any:
        found = super().find_user_by_email(email)
        return found if found is not None and found.email == email else None


@mutant("accounts", "user.nothing_said")
class NoneIsAnAddress(Accounts):
    def create_user(self, **more: Any) -> Any:
        return super().create_user(**{**more, "email": more["email"] or "none@example.org"})


@mutant("accounts", "user.update")
class WritesAll(Accounts):
    def update_user(self, user_id: Any, **more: Any) -> Any:
        return super().update_user(user_id, **{"email": None, **more})


@mutant("accounts", "user.delete")
class SaysNothing(Accounts):
    def delete_user(self, user_id: Any) -> Any:
        super().delete_user(user_id)


@mutant("accounts", "account.round_trip")
class NoScope(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        return super().create_social_account(**{**more, "scope": None})


@mutant("accounts", "account.miss")
class CastsAccountIds(Accounts):
    def find_social_account_by_id(self, social_account_id: Any) -> Any:
        if len(social_account_id) not in (26, 32, 36):
            raise ValueError("no such id")
        return super().find_social_account_by_id(social_account_id)


@mutant("accounts", "account.tokens")
class ShortTokens(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        return super().create_social_account(**{**more, "access_token": (more["access_token"] or "")[:4096] or None})


@mutant("accounts", "account.exact_names")
class Trims(Accounts):
    def find_social_account(self, *, provider: str, provider_user_id: str) -> Any:
        return super().find_social_account(provider=provider, provider_user_id=provider_user_id.rstrip())


class Boxed:
    """An account with an id of its user that is equal to no user's id."""

    def __init__(self, account: Any) -> None:
        self.account = account
        self.user_id = (account.user_id,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.account, name)


@mutant("accounts", "account.user_id_is_the_users")
class OtherType(Accounts):
    def find_social_account(self, **names: Any) -> Any:
        found = super().find_social_account(**names)
        return None if found is None else Boxed(found)

    def create_social_account(self, **more: Any) -> Any:
        return Boxed(super().create_social_account(**more))

    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        return Boxed(super().update_social_account(social_account_id, **more))


@mutant("accounts", "account.unique")
class LinksAgain(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        try:
            return self.made(more["provider_user_id"], super().create_social_account(**more))
        except counterfoil.ExistsError as error:
            if self.by_another(more["provider_user_id"]):
                raise
            return error.existing


@mutant("accounts", "account.one_winner")
class LinksAtOnce(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        try:
            return self.made(more["provider_user_id"], super().create_social_account(**more))
        except counterfoil.ExistsError as error:
            if not self.by_another(more["provider_user_id"]):
                raise
            return error.existing


@mutant("accounts", "account.needs_user")
class LinksNobody(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        try:
            return super().create_social_account(**more)
        except counterfoil.MissingError:
            return SimpleNamespace(**more, id="1")


@mutant("accounts", "account.list")
class FirstTwo(Accounts):
    def list_social_accounts(self, *, user_id: Any) -> Any:
        return super().list_social_accounts(user_id=user_id)[:2]


@mutant("accounts", "account.update")
class NoneIsKept(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        said = {name: value for name, value in more.items() if value is not None}
        return super().update_social_account(social_account_id, **said)


@mutant("accounts", "account.update_missing")
class UpdatesNone(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        try:
            return super().update_social_account(social_account_id, **more)
        except counterfoil.MissingError:
            return None


@mutant("accounts", "account.loses_no_update")
class WritesWhatItRead(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        found = self.find_social_account_by_id(social_account_id)
        names = ("access_token", "refresh_token", "scope")
        read = {name: getattr(found, name) for name in names} if found else {}
        time.sleep(0.0001)
        return super().update_social_account(social_account_id, **{**read, **more})


@mutant("accounts", "account.delete")
class UnlinksOnce(Accounts):
    def delete_social_account(self, social_account_id: Any) -> None:
        if self.find_social_account_by_id(social_account_id) is None:
            raise KeyError("there is none")
        super().delete_social_account(social_account_id)


@mutant("accounts", "account.no_resurrection")
class UpdateBringsBack(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        found = self.find_social_account_by_id(social_account_id)
        time.sleep(0.0001)
        try:
            return super().update_social_account(social_account_id, **more)
        except counterfoil.MissingError:
            if found is None:
                raise
            named = {"provider": found.provider, "provider_user_id": found.provider_user_id}
            return super().create_social_account(user_id=found.user_id, **named, **more)


@mutant("accounts", "login.one_winner")
class AllAreNew(Accounts):
    def find_or_create_by_social_account(self, **more: Any) -> Any:
        user, account, created = super().find_or_create_by_social_account(**more)
        if created:
            self.made(more["provider_user_id"], user)
        return user, account, created or self.by_another(more["provider_user_id"])


@mutant("accounts", "login.nothing_half")
class HalfALogin(Accounts):
    def find_or_create_by_social_account(self, *, user: Any = None, **more: Any) -> Any:
        try:
            return super().find_or_create_by_social_account(user=user, **more)
        except counterfoil.ExistsError:
            super().find_or_create_by_social_account(user={"email": None}, **more)
            raise


@contextlib.contextmanager
def accounts_down(storage: Any) -> Iterator[None]:
    storage.find_user_by_email = lambda email: None
    yield


MUTANTS.append(Mutant("accounts", "fault.rejects", Accounts, {"broken": accounts_down}))


# ------------------------------------------------------------------------------------------------------------ sessions


class Sessions(counterfoil.SessionStorage):
    """Ours, to be made wrong."""

    def __init__(self) -> None:
        super().__init__(store())


@mutant("sessions", "shape.methods")
class NeverEverywhere(Sessions):
    revoke_all_for_user = None  # type: ignore[assignment]


@mutant("sessions", "session.round_trip")
class NoAddress(Sessions):
    def create(self, **more: Any) -> Any:
        return super().create(**{**more, "ip": None})


@mutant("sessions", "session.miss")
class CastsSessionIds(Sessions):
    def get_any(self, session_id: Any) -> Any:
        if len(session_id) not in (26, 32, 36):
            raise ValueError("no such id")
        return super().get_any(session_id)


@mutant("sessions", "session.token_unique")
class SameAgain(Sessions):
    def create(self, **more: Any) -> Any:
        try:
            return super().create(**more)
        except counterfoil.ExistsError as error:
            return error.existing


TICK = timedelta(microseconds=1)


@mutant("sessions", "session.exact_end")
class OverAtTheEnd(Sessions):
    def get(self, *, token_hash: str, now: Any) -> Any:
        return super().get(token_hash=token_hash, now=now + TICK)


@mutant("sessions", "session.any_status")
class HidesTheExpired(Sessions):
    def get_any(self, session_id: Any) -> Any:
        found = super().get_any(session_id)
        return None if found is not None and found.status == "expired" else found


@mutant("sessions", "refresh.moves")
class AlwaysActive(Sessions):
    def refresh(self, session_id: Any, *, updated_at: Any, expires_at: Any, last_active_at: Any = None) -> Any:
        last = last_active_at or updated_at
        return super().refresh(session_id, updated_at=updated_at, expires_at=expires_at, last_active_at=last)


@mutant("sessions", "refresh.missing")
class RefreshesNone(Sessions):
    def refresh(self, session_id: Any, **more: Any) -> Any:
        found = super().refresh(session_id, **more)
        return SimpleNamespace() if found is None and self.get_any(session_id) is None else found


@mutant("sessions", "revoke.ends")
class RevokesOnce(Sessions):
    def revoke(self, session_id: Any, *, revoked_at: Any) -> None:
        if self.get_any(session_id) is None:
            raise KeyError("there is none")
        super().revoke(session_id, revoked_at=revoked_at)


@mutant("sessions", "revoke.refused_refresh")
class RefreshesTheRevoked(Sessions):
    def refresh(self, session_id: Any, **more: Any) -> Any:
        return super().refresh(session_id, **more) or self.get_any(session_id)


class Zombies(Sessions):
    """Who refreshes writes back what he has read, revoked_at too: seen by `get` here."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: dict[str, Any] = {}
        self.alone: set[Any] = set()
        self.undead: set[Any] = set()

    def create(self, **more: Any) -> Any:
        made = super().create(**more)
        self.ids[more["token_hash"]] = made.id
        return made

    def refresh(self, session_id: Any, **more: Any) -> Any:
        found = self.get_any(session_id)
        time.sleep(0.0001)
        given = super().refresh(session_id, **more)
        if given is None and found is not None and found.revoked_at is None:
            self.undead.add(session_id)
        return given

    def revoke(self, session_id: Any, *, revoked_at: Any) -> None:
        self.alone.add(session_id)
        super().revoke(session_id, revoked_at=revoked_at)

    def one_by_one(self) -> bool:
        raise NotImplementedError

    def get(self, *, token_hash: str, now: Any) -> Any:
        id = self.ids.get(token_hash)
        if id in self.undead and (id in self.alone) == self.one_by_one():
            return self.get_any(id)
        return super().get(token_hash=token_hash, now=now)


@mutant("sessions", "revoke.no_resurrection")
class RevokedComesBack(Zombies):
    def one_by_one(self) -> bool:
        return True


@mutant("sessions", "revoke_all.no_resurrection")
class SomeComeBack(Zombies):
    def one_by_one(self) -> bool:
        return False


@mutant("sessions", "revoke_all.counts")
class CountsTheActive(Sessions):
    def revoke_all_for_user(self, user_id: Any, *, revoked_at: Any, except_session_id: Any = None) -> int:
        active = self.list_for_user(user_id, now=revoked_at.astimezone(UTC), status="active").records
        super().revoke_all_for_user(user_id, revoked_at=revoked_at, except_session_id=except_session_id)
        return len([each for each in active if each.id != except_session_id])


@mutant("sessions", "list.pages")
class LosesOne(Sessions):
    def list_for_user(self, user_id: Any, *, limit: int = 50, **more: Any) -> Any:
        page = super().list_for_user(user_id, limit=limit, **more)
        return page if limit != 2 else SimpleNamespace(records=page.records[:1], next_cursor=page.next_cursor)


@mutant("sessions", "list.status")
class ListsOverAtTheEnd(Sessions):
    def list_for_user(self, user_id: Any, *, now: Any, **more: Any) -> Any:
        return super().list_for_user(user_id, now=now + TICK, **more)


@mutant("sessions", "list.refuses")
class AtLeastOne(Sessions):
    def list_for_user(self, user_id: Any, *, limit: int = 50, **more: Any) -> Any:
        return super().list_for_user(user_id, limit=max(limit, 1), **more)


@contextlib.contextmanager
def sessions_down(storage: Any) -> Iterator[None]:
    storage.get = lambda **names: None
    yield


MUTANTS.append(Mutant("sessions", "fault.rejects", Sessions, {"broken": sessions_down}))


# ---------------------------------------------------------------------------------------------------------------- Miro


class Miro:
    """A storage of one user, that keeps copies."""

    def __init__(self) -> None:
        self.state: Any = None
        self.down = False

    def get(self) -> Any:
        if self.down:
            raise ConnectionError("nothing is there")
        return None if self.state is None else SimpleNamespace(**self.state)

    def set(self, state: Any) -> None:
        if self.down:
            raise ConnectionError("nothing is there")
        self.state = None if state is None else dict(vars(state))


@mutant("miro", "get.miss")
class MissRaises(Miro):
    ever = False

    def get(self) -> Any:
        if not self.ever:
            raise KeyError("there is none")
        return super().get()

    def set(self, state: Any) -> None:
        self.ever = self.ever or state is not None
        super().set(state)


@mutant("miro", "get.what_was_set")
class NoneIsText(Miro):
    def set(self, state: Any) -> None:
        super().set(state)
        if self.state is not None and self.state["token_expires_at"] is None and self.state["access_token"] != "two":
            self.state["refresh_token"] = self.state["refresh_token"] or ""

    def get(self) -> Any:
        given = super().get()
        if given is not None and given.access_token.startswith("access two"):
            given.refresh_token = given.refresh_token or None
        return given


@mutant("miro", "expiry.naive_local")
class Aware(Miro):
    def get(self) -> Any:
        given = super().get()
        if given is not None and given.token_expires_at is not None:
            given.token_expires_at = given.token_expires_at.astimezone(UTC)
        return given


@mutant("miro", "set.replaces")
class Merges(Miro):
    def set(self, state: Any) -> None:
        before = self.state or {}
        super().set(state)
        if self.state is not None and self.state["refresh_token"] is None:
            self.state["refresh_token"] = before.get("refresh_token")


@mutant("miro", "set.none_deletes")
class NeverForgets(Miro):
    def set(self, state: Any) -> None:
        if state is not None or not (self.state or {}).get("access_token", "").startswith("access one"):
            super().set(state)


_ONE = Miro()


@mutant("miro", "set.keeps_others", make_other=lambda: OneForAll())
class OneForAll(Miro):
    def get(self) -> Any:
        return _ONE.get()

    def set(self, state: Any) -> None:
        _ONE.set(state)


@mutant("miro", "set.whole")
class FieldByField(Miro):
    def set(self, state: Any) -> None:
        if state is None or self.state is None:
            super().set(state)
            return
        self.state["access_token"] = state.access_token
        time.sleep(0.0001)
        self.state = dict(vars(state))


@mutant("miro", "refresh.one")
class RefreshesEach(Miro):
    def refresh_once(self, refresh: Any) -> Any:
        state = self.get()
        if state.token_expires_at < datetime.now():
            self.set(refresh(state))
        return self.get()


@mutant("miro", "lock.one_holder")
class LocksNobody(Miro):
    fences = itertools.count()

    def with_lock(self, work: Any) -> Any:
        return work(SimpleNamespace(fence=next(self.fences)))


@mutant("miro", "fault.rejects", **broken)
class AsksAgain(Miro):
    def get(self) -> Any:
        return None if self.down else super().get()
