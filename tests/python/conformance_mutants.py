"""Stores that are right, and stores that are wrong in one way each: what the conformance kit must find, and nothing
else. A mutant is a function without arguments that makes one; the stage is the clock of all."""

import asyncio
import contextlib
import fnmatch
import math
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

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
