"""What the check of a rule works with: the thing, calls of it, many calls at once, and time that passes."""

import asyncio
import inspect
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

from ..errors import NotSupportedError

__all__ = ["Ask", "Got", "Hung", "Loop", "NotApplicable", "Settings", "TooSlow", "Trial", "Unexpected"]

_numbers = itertools.count(1)


class Verdict(BaseException):
    """What ends a check. No Exception: what a check takes for the thing's own answer must not be one of these."""


class Unexpected(Verdict):
    """A rule is broken; the text says what was seen."""


class NotApplicable(Verdict):
    """This rule is not for this thing; the text says why."""


class TooSlow(Verdict):
    """The machine was: a short life was over before anybody could look. The check is repeated with a longer one."""


class Hung(Verdict):
    """No answer within the patience."""


@dataclass(frozen=True)
class Settings:
    """How a thing is checked: see `counterfoil.testing.check`."""

    make: Callable[[], Any]
    cleanup: Callable[[Any], Any] | None = None
    advance: Callable[[Any, float], Any] | None = None
    broken: Callable[[Any], AbstractContextManager[Any]] | None = None
    make_other: Callable[[], Any] | None = None
    short: float | None = None
    tick: float = 0.001
    contenders: int = 8
    rounds: int = 20
    patience: float = 20.0
    seed: int = 0
    shared: bool = False
    """Whether `make` gives one and the same object, which must not be closed in between."""


@dataclass(frozen=True)
class Ask:
    """One call of a race."""

    method: str
    args: tuple[Any, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    of: Any = None
    """Whose method, if not the thing's."""


@dataclass(frozen=True)
class Got:
    """The answer to an Ask."""

    value: Any = None
    error: BaseException | None = None


class Loop:
    """An event loop on a thread of its own, for what must be awaited."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cfkit-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], patience: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(patience)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise Hung from None

    def close(self) -> None:
        async def rest() -> None:
            tasks = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)

        try:
            self.run(rest(), 2)
        except (Exception, Hung):
            pass  # what does not end when it is cancelled was reported where it hung
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)
        if not self._thread.is_alive():
            self._loop.close()


_ASKED = ("get", "set", "delete", "pop", "create", "find_user_by_email")


def is_async(thing: object) -> bool:
    """Whether any of its methods is a coroutine function."""
    kind = type(thing)
    static = (inspect.getattr_static(kind, name, None) for name in dir(kind) if not name.startswith("_"))
    asked = (getattr(thing, name, None) for name in _ASKED)  # of what stands in for something else
    return any(map(inspect.iscoroutinefunction, (*static, *asked)))


def _meddle(dice: random.Random) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that lets other threads go on between two lines, here and there: so what is done in two steps is
    met by others in between. Often at first, then more seldom, and not for ever: what is long must not take long."""
    chance, lines = 0.4, 5000

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal chance, lines
        lines -= 1
        if dice.random() < chance:
            chance = max(chance * 0.93, 0.01)
            time.sleep(0.000001)
        return trace if lines > 0 else None

    return trace


def _is_ours(thing: object) -> bool:
    """Whether it is an interface of this library, of which more is asked than a framework does."""
    import counterfoil

    ours: tuple[type, ...] = (counterfoil.AccountsStorage, counterfoil.SessionStorage, counterfoil.SecondaryStorage)
    if "counterfoil.aio" in sys.modules:
        from .. import aio

        ours += (aio.AccountsStorage, aio.SessionStorage, aio.SecondaryStorage)
    return isinstance(thing, ours)


class Soon:
    """A short life: its length, and the end of it."""

    def __init__(self, trial: "Trial") -> None:
        self._trial = trial
        self._began = time.monotonic()
        self.ttl: float = trial.short
        self.long: float = trial.long

    def early(self) -> None:
        """What has been seen until now was seen before the life was over; else the check begins anew."""
        if self._trial.settings.advance is None and time.monotonic() - self._began >= self.ttl:
            raise TooSlow

    def half(self) -> None:
        """Half of it passes."""
        self._trial.pass_time(self.ttl / 2)

    def over(self) -> None:
        """All of it has passed, for whatever began until now."""
        tick = self._trial.settings.tick
        self._trial.pass_time(self.ttl + (2 * tick if self._trial.settings.advance else max(tick, 0.005)))


class Trial:
    """One thing under one rule."""

    def __init__(
        self, kind: str, settings: Settings, loop: Callable[[], Loop], short: float, until: float, known: dict[str, Any]
    ) -> None:
        self.kind = kind
        self.known = known  # what was found under other rules
        self.settings = settings
        self.dice = random.Random(settings.seed)
        self._loop = loop
        self._until = until
        self._mine: list[Any] = []
        self.thing = self._make(settings.make)
        self.is_async = is_async(self.thing)
        self.is_ours = _is_ours(self.thing)
        self.short = short if kind == "secondary" else float(short)  # a backend's ttl is a float, Cross Auth's an int
        self.long = self.short * 500

    # ---- the thing

    def _make(self, make: Callable[[], Any]) -> Any:
        made = self.awaited(make())
        if not any(made is each for each in self._mine):
            self._mine.append(made)
        return made

    def twin(self) -> Any:
        """Another one, made in the same way; None where only one can be made."""
        return None if self.settings.shared else self._make(self.settings.make)

    def other(self) -> Any:
        """The same kind of thing for somebody else."""
        if self.settings.make_other is None:
            raise NotApplicable("no make_other was given, which makes the storage of another user")
        return self._make(self.settings.make_other)

    def close(self) -> None:
        """Cleans up after the rule; what goes wrong here is not what was asked."""
        for made in self._mine:
            try:
                if self.settings.cleanup is not None:
                    self.awaited(self.settings.cleanup(made))
                elif not self.settings.shared and callable(getattr(made, "close", None)):
                    self.ask(Ask("close", of=made))
            except (Exception, Hung):
                pass

    def closes(self) -> None:
        """Closes the thing, as a rule's own matter."""
        self._mine = [each for each in self._mine if each is not self.thing]
        self.call("close")

    def has(self, method: str) -> bool:
        return callable(getattr(self.thing, method, None))

    def needs(self, *methods: str) -> None:
        missing = [name for name in methods if not self.has(name)]
        if missing:
            raise NotApplicable(f"it has no method {missing[0]}, which may be left out")

    # ---- calls

    @property
    def patience(self) -> float:
        return max(self._until - time.monotonic(), 0.01)

    def awaited(self, given: Any) -> Any:
        """What comes of it, if it is to be awaited."""
        if not inspect.isawaitable(given):
            return given

        async def wait() -> Any:
            return await given

        return self._loop().run(wait(), self.patience)

    def call(self, method: str, *args: Any, **more: Any) -> Any:
        return self.ask(Ask(method, args, more))

    def ask(self, ask: Ask) -> Any:
        target = getattr(self.thing if ask.of is None else ask.of, ask.method)

        async def call() -> Any:
            given = target(*ask.args, **ask.more)
            return await given if inspect.isawaitable(given) else given

        try:
            if self.is_async:
                return self._loop().run(call(), self.patience)
            return self.awaited(target(*ask.args, **ask.more))
        except TypeError as error:
            self._takes(target, ask, error)
            raise

    def _takes(self, target: Any, ask: Ask, error: TypeError) -> None:
        """Unexpected, where the error is that the method does not take what it was given."""
        try:
            signature = inspect.signature(target)
        except (TypeError, ValueError):
            return
        try:
            signature.bind(*ask.args, **ask.more)
        except TypeError as misfit:  # its text holds names only
            count = len(ask.args)
            given = [f"{count} argument{'s' * (count != 1)}"] if count or not ask.more else []
            said = " and ".join([*given, ", ".join(f"{name}=" for name in ask.more)] if ask.more else given)
            raise Unexpected(f"its {ask.method} cannot be called with {said}: {misfit}") from error

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop().run(work, self.patience)

    def key(self, label: str = "key") -> str:
        """A name that nobody else uses."""
        return f"cfkit-{self.dice.getrandbits(32):08x}{time.time_ns() & 0xFFFFFFFF:08x}-{next(_numbers)}-{label}"

    # ---- verdicts

    def expect(self, holds: object, seen: str) -> None:
        if not holds:
            raise Unexpected(seen)

    def fail(self, seen: str) -> NoReturn:
        raise Unexpected(seen)

    def refused(self, kinds: type[BaseException] | tuple[type[BaseException], ...], ask: Ask, seen: str) -> Any:
        """The exception with which it was refused; `seen` says what was asked, should it not be."""
        try:
            given = self.ask(ask)
        except kinds as error:
            return error
        self.fail(f"{seen} gave {'None' if given is None else type(given).__name__} instead of an exception")

    def answers(self, got: Sequence[Got], what: str) -> list[Any]:
        """The answers of a race in which nobody may fail."""
        errors = [each.error for each in got if each.error is not None]
        for error in errors:
            if isinstance(error, NotSupportedError):
                raise error
        if errors:
            from .report import raised

            raise Unexpected(f"of {len(got)} {what} at once {len(errors)} raised {raised(errors[0])}") from errors[0]
        return [each.value for each in got]

    # ---- time

    def soon(self) -> Soon:
        return Soon(self)

    def pass_time(self, seconds: float) -> None:
        if self.settings.advance is None:
            time.sleep(seconds)
            return
        self.awaited(self.settings.advance(self.thing, seconds))

    # ---- many at once

    def rounds(self) -> Iterator[int]:
        """Tries of a race: so many, or fewer where each takes long."""
        until = time.monotonic() + min(1.5, self.patience / 3)
        for number in range(self.settings.rounds):
            yield number
            if number >= 4 and time.monotonic() > until:
                return

    def race(self, asks: Sequence[Ask]) -> list[Got]:
        """All at once; the answers in the order of the asks."""
        order = list(range(len(asks)))
        self.dice.shuffle(order)
        got: list[Got] = [Got()] * len(asks)
        if self.is_async:
            self.run(self._race_tasks(asks, order, got))
        else:
            self._race_threads(asks, order, got)
        for ask, each in zip(asks, got, strict=True):
            if isinstance(each.error, TypeError):
                self._takes(getattr(self.thing if ask.of is None else ask.of, ask.method), ask, each.error)
        return got

    async def _race_tasks(self, asks: Sequence[Ask], order: list[int], got: list[Got]) -> None:
        start = asyncio.Event()
        delays = [self.dice.randrange(3) for _ in asks]

        async def one(number: int) -> None:
            ask = asks[number]
            await start.wait()
            for _ in range(delays[number]):
                await asyncio.sleep(0)
            try:
                given = getattr(self.thing if ask.of is None else ask.of, ask.method)(*ask.args, **ask.more)
                got[number] = Got(await given if inspect.isawaitable(given) else given)
            except Exception as error:
                got[number] = Got(error=error)

        tasks = [asyncio.ensure_future(one(number)) for number in order]
        await asyncio.sleep(0)
        start.set()
        await asyncio.gather(*tasks)

    def _race_threads(self, asks: Sequence[Ask], order: list[int], got: list[Got]) -> None:
        barrier = threading.Barrier(len(asks))
        seeds = [self.dice.getrandbits(32) for _ in asks]

        def one(number: int) -> None:
            ask = asks[number]
            target = getattr(self.thing if ask.of is None else ask.of, ask.method)
            meddle = _meddle(random.Random(seeds[number])) if sys.gettrace() is None else None
            try:
                barrier.wait(self.patience)
                if meddle is not None:  # a debugger's or a coverage's tracer stays
                    sys.settrace(meddle)
                try:
                    value = target(*ask.args, **ask.more)
                finally:
                    if meddle is not None:
                        sys.settrace(None)
                got[number] = Got(self.awaited(value))
            except BaseException as error:
                got[number] = Got(error=error)

        threads = [threading.Thread(target=one, args=(number,), daemon=True, name="cfkit") for number in order]
        with _switching():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(self.patience)
        if any(thread.is_alive() for thread in threads):
            raise Hung


@contextmanager
def _switching() -> Iterator[None]:
    """Threads take turns more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.00005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
