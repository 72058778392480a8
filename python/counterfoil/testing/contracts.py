"""Base classes for pytest: one test for each rule."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from .rules import checks
from .runner import Runner, settings_of
from .trial import Settings

__all__ = ["AccountsContract", "BackendContract", "Contract", "MiroContract", "SecondaryContract", "SessionsContract"]


class Contract:
    """What the base classes share. Give yours a name that begins with "Test", and `make`:

        class TestMine(counterfoil.testing.BackendContract):
            def make(self):
                return MyBackend()

    It has a test for each rule, named as the rule is: `pytest -k pop_one_winner`. A rule that is not applicable is a
    skipped test that says why. `check` says what else the names below mean. Methods may be left out, but `make`.
    """

    kind: ClassVar[str]

    short: float | None = None
    """Seconds that a short life lasts."""
    tick: float = 0.001
    """Seconds, the finest that its clock can tell."""
    contenders: int = 8
    """How many call at once."""
    rounds: int = 20
    """How often that is tried."""
    patience: float = 20.0
    """Seconds that a rule may take."""
    seed: int | None = None
    """For the order of calls in races; by default a new one each time."""

    def make(self) -> Any:
        """Makes what is to be checked; may be a coroutine function. It is called for each rule, and once more where two
        of a kind are to race. Where it gives one and the same object again, give it a `cleanup` that leaves that
        open."""
        raise NotImplementedError("a contract needs the method make(self), which gives what is to be checked")

    cleanup: Callable[[Any], Any] | None = None
    """`def cleanup(self, thing)`: after each rule. By default its `close`, if it has one."""

    advance: Callable[[Any, float], Any] | None = None
    """`def advance(self, thing, seconds)`: moves the clock that it goes by. Without it, time really passes."""

    broken: Callable[[Any], AbstractContextManager[Any]] | None = None
    """`def broken(self, thing)`: a context manager within which what is behind it cannot be reached."""

    make_other: Callable[[], Any] | None = None
    """`def make_other(self)`: for Miro's Storage, the storage of another user."""

    def _settings(self) -> Settings:
        return settings_of(
            self.make, cleanup=self.cleanup, advance=self.advance, broken=self.broken, make_other=self.make_other,
            short=self.short, tick=self.tick, contenders=self.contenders, rounds=self.rounds, patience=self.patience,
            seed=self.seed,
        )  # fmt: skip

    def _check(self, id: str) -> None:
        import pytest

        __tracebackhide__ = True
        with Runner(self.kind, self._settings()) as runner:
            result = runner.run(id)
        if result.outcome == "not applicable":
            pytest.skip(result.seen)
        if result.outcome == "failed":
            pytest.fail(f"{result}\n  (seed = {runner.settings.seed})", pytrace=False)


def _tests(kind: str) -> Callable[[type[Contract]], type[Contract]]:
    """Gives a class a test for each rule."""

    def give(cls: type[Contract]) -> type[Contract]:
        for id, (rule, _) in checks(kind).items():
            name = f"test_{id.replace('.', '_')}"

            def test(self: Contract, id: str = id) -> None:
                __tracebackhide__ = True
                self._check(id)

            test.__name__ = name
            test.__qualname__ = f"{cls.__qualname__}.{name}"
            test.__doc__ = rule.sentence
            setattr(cls, name, test)
        cls.kind = kind
        return cls

    return give


class BackendContract(Contract):
    """A backend: see `counterfoil.Backend`."""


class SecondaryContract(Contract):
    """A SecondaryStorage of Cross Auth, or of the same shape."""


class AccountsContract(Contract):
    """An AccountsStorage of Cross Auth, or of the same shape. For hooks of yours give them as you use them:
    `counterfoil.AccountsStorage(MyTables())`; then the rules of `counterfoil.AccountsStorage` are checked too."""


class SessionsContract(Contract):
    """A SessionStorage of Cross Auth, or of the same shape."""


class MiroContract(Contract):
    """A Storage of Miro's client: `make` gives that of one user, `make_other` that of another."""


for _cls, _kind in (
    (BackendContract, "backend"), (SecondaryContract, "secondary"), (AccountsContract, "accounts"),
    (SessionsContract, "sessions"), (MiroContract, "miro"),
):  # fmt: skip
    _tests(_kind)(_cls)
