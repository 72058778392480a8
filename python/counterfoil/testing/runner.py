"""Checks a thing rule by rule."""

import inspect
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from ..errors import InvalidError, InvalidTypeError, NotSupportedError
from .report import Report, Result, raised
from .rules import KINDS, Rule, checks
from .trial import Hung, Loop, NotApplicable, Settings, TooSlow, Trial, Unexpected

__all__ = ["Runner", "check", "kind_of"]

_HANGS = 3  # so many rules without an answer in a row: nobody waits for the rest
_SHAPES = {  # the methods by which a kind is told from the others
    "sessions": ("list_for_user", "revoke_all_for_user"),
    "accounts": ("find_user_by_email",),
    "backend": ("get", "set", "delete"),
    "miro": ("get", "set"),
}


def kind_of(thing: object) -> str:
    """What a thing is, by its methods. InvalidTypeError where it is none of what the kit knows."""
    for kind, methods in _SHAPES.items():
        if all(callable(getattr(thing, name, None)) for name in methods):
            return "secondary" if kind == "backend" and _needs_no_ttl(thing) and hasattr(thing, "pop") else kind
    raise InvalidTypeError(
        f"{type(thing).__name__} has the methods of nothing that the kit knows: a backend has get, set and delete; "
        "say kind= where it is something else"
    )


def _needs_no_ttl(thing: Any) -> bool:
    try:
        parameters = dict(inspect.signature(thing.set).parameters)
    except (TypeError, ValueError):
        return False
    parameters.pop("self", None)
    ttl = parameters.get("ttl")
    return len(parameters) == 2 if ttl is None else ttl.default is not ttl.empty


class Worker:
    """A thread on which rules are checked one after another, so that what belongs to one thread stays on it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Result], queue.SimpleQueue[Any]] | None]
        self._work = queue.SimpleQueue()
        threading.Thread(target=self._go, name="cfkit-worker", daemon=True).start()

    def _go(self) -> None:
        while (item := self._work.get()) is not None:
            work, answer = item
            try:
                answer.put(work())
            except BaseException as error:  # pytest.skip of a `make`, for one: it is for who asked
                answer.put(error)

    def run(self, work: Callable[[], Result], patience: float) -> Result | None:
        """None: there was no answer; the thread is lost with it."""
        answer: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        self._work.put((work, answer))
        try:
            result = answer.get(timeout=patience)
        except queue.Empty:
            return None
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        self._work.put(None)


class Runner:
    """The rules of one kind for one thing. Use it as a context manager."""

    def __init__(self, kind: str, settings: Settings) -> None:
        if kind not in KINDS:
            raise InvalidError(f"a kind is one of {', '.join(KINDS)}")
        whole = 1 if kind == "secondary" else 0.2  # Cross Auth's ttl is a whole number of seconds
        short = settings.short if settings.short is not None else 10 if settings.advance else whole
        self.kind = kind
        self.name = settings.make.__name__ if inspect.isclass(settings.make) else "nothing that could be made"
        """What the thing is called."""
        self.settings = settings
        self.rules = checks(kind)
        self._worker = Worker()
        self._loop: Loop | None = None
        self._hangs = 0
        self._short = short
        self._known: dict[str, Any] = {}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *exception: object) -> None:
        self._worker.close()
        if self._loop is not None:
            self._loop.close()

    def _get_loop(self) -> Loop:
        if self._loop is None:
            self._loop = Loop()
        return self._loop

    def run(self, id: str) -> Result:
        """The result of one rule."""
        rule, check = self.rules[id]
        if self._hangs >= _HANGS:
            return Result(rule, "failed", f"it was not asked: {_HANGS} rules in a row had no answer")
        later = min(5, 0.2 + self.settings.patience / 2)  # what waits inside says so itself
        result = self._worker.run(lambda: self._checked(rule, check), self.settings.patience + later)
        hung = result is None or result.seen.startswith("no answer")
        self._hangs = self._hangs + 1 if hung else 0
        if result is None:
            self._worker = Worker()
            return Result(rule, "failed", self._no_answer())
        return result

    def _no_answer(self) -> str:
        return f"no answer within {self.settings.patience:g} seconds"

    def _checked(self, rule: Rule, check: Callable[[Trial], None]) -> Result:
        for _ in range(4):
            until = time.monotonic() + self.settings.patience
            trial: Trial | None = None
            try:
                trial = Trial(self.kind, self.settings, self._get_loop, self._short, until, self._known)
                self.name = type(trial.thing).__name__
                check(trial)
            except TooSlow:
                self._short *= 4
                continue
            except Unexpected as seen:
                return Result(rule, "failed", str(seen), seen.__cause__)
            except NotApplicable as reason:
                return Result(rule, "not applicable", str(reason))
            except NotSupportedError as error:
                if self.kind == "backend":  # which leaves out what it cannot do
                    return Result(rule, "failed", f"it raised {raised(error)}", error)
                return Result(rule, "not applicable", "it says that it does not support this (NotSupportedError)")
            except Hung:
                return Result(rule, "failed", self._no_answer())
            except Exception as error:
                return Result(rule, "failed", f"it raised {raised(error)}", error)
            finally:
                if trial is not None:
                    trial.close()
            return Result(rule, "passed")
        return Result(rule, "not applicable", "this machine was too slow to look before the end of a short life")


def settings_of(
    thing: object,
    *,
    cleanup: Callable[[Any], Any] | None = None,
    advance: Callable[[Any, float], Any] | None = None,
    broken: Callable[[Any], AbstractContextManager[Any]] | None = None,
    make_other: Callable[[], Any] | None = None,
    short: float | None = None,
    tick: float = 0.001,
    contenders: int = 8,
    rounds: int = 20,
    patience: float = 20.0,
    seed: int | None = None,
) -> Settings:
    numbers = [("contenders", contenders, 2), ("rounds", rounds, 1), ("patience", patience, 0.1), ("tick", tick, 0)]
    if short is not None:
        numbers.append(("short", short, 0.001))
    for name, value, least in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidTypeError(f"{name} must be a number, not {type(value).__name__}")
        if not least <= value <= 3600:
            raise InvalidError(f"{name} must be a number from {least} to 3600")
    factory = inspect.isclass(thing) or inspect.isroutine(thing) or (callable(thing) and not _has_shape(thing))
    make: Callable[[], Any] = thing if factory else lambda: thing  # type: ignore[assignment]
    return Settings(
        make, cleanup, advance, broken, make_other, short, tick,
        contenders, rounds, patience, random.randrange(2**32) if seed is None else seed, not factory,
    )  # fmt: skip


def _has_shape(thing: object) -> bool:
    try:
        kind_of(thing)
    except InvalidTypeError:
        return False
    return True


def check(
    thing: object,
    kind: str | None = None,
    *,
    cleanup: Callable[[Any], Any] | None = None,
    advance: Callable[[Any, float], Any] | None = None,
    broken: Callable[[Any], AbstractContextManager[Any]] | None = None,
    make_other: Callable[[], Any] | None = None,
    short: float | None = None,
    tick: float = 0.001,
    contenders: int = 8,
    rounds: int = 20,
    patience: float = 20.0,
    seed: int | None = None,
    only: Iterable[str] | None = None,
) -> Report:
    """Checks a thing, rule by rule, and gives back what was found; it raises nothing because of a broken rule.

    thing: a class, or a function (or coroutine function) without arguments, that makes what is to be checked: a new one
        for each rule, on the thread that will use it. Or the thing itself, for all rules; then it is never closed.
        What two of a class both see is one place: races use both. Methods may be coroutine functions, which run in an
        event loop of the kit.
    kind: one of KINDS; by default what the methods say.
    cleanup(thing): after each rule; by default its `close`, where it was made by the kit.
    advance(thing, seconds): moves the clock that it goes by. Without it, time really passes: some seconds in all.
    broken(thing): a context manager within which what is behind it cannot be reached. Without it, the rules about
        faults are not applicable.
    make_other(): for Miro's Storage, makes the storage of another user at the same place.
    short: seconds that a short life lasts; 0.2, of Cross Auth's whole seconds 1, with `advance` 10.
    tick: seconds, the finest that its clock can tell.
    contenders, rounds: how many call at once, and how often that is tried. A race may be won by luck: more rounds see
        more.
    patience: seconds that a rule may take. What hangs fails.
    seed: for the order of calls in races; by default a new one each time.
    only: the ids of the rules that are wanted.

    InvalidTypeError, InvalidError: the arguments are wrong, or `thing` is nothing that the kit knows.
    """
    settings = settings_of(
        thing, cleanup=cleanup, advance=advance, broken=broken, make_other=make_other, short=short, tick=tick,
        contenders=contenders, rounds=rounds, patience=patience, seed=seed,
    )  # fmt: skip
    with Runner(kind or _kind_made(settings), settings) as runner:
        wanted = runner.rules if only is None else list(only)
        if unknown := [each for each in wanted if each not in runner.rules]:
            raise InvalidError(f"there is no rule {unknown[0]} for this kind; rules({runner.kind!r}) gives all")
        results = tuple(runner.run(each) for each in wanted)
        return Report(runner.name, runner.kind, results, settings.seed)


def _kind_made(settings: Settings) -> str:
    """The kind of what is made."""
    if inspect.isclass(settings.make):
        return kind_of(settings.make)
    if settings.shared:
        return kind_of(settings.make())
    loops: list[Loop] = []

    def loop() -> Loop:
        loops.append(Loop())
        return loops[-1]

    trial = Trial("", settings, loop, 1, time.monotonic() + settings.patience, {})
    try:
        return kind_of(trial.thing)
    finally:
        trial.close()
        for each in loops:
            each.close()
