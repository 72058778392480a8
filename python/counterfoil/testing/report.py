"""What a check has found."""

import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .rules import Rule

__all__ = ["Outcome", "Report", "Result"]

Outcome = Literal["passed", "failed", "not applicable"]
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@dataclass(frozen=True)
class Result:
    """What became of one rule.

    seen: what was seen instead, or why the rule is not applicable; empty where it passed. It quotes nothing that the
        kit has not written itself, and of an exception its type and place only.
    error: the exception that the thing raised, if that is what was seen.
    """

    rule: Rule
    outcome: Outcome
    seen: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        rule = self.rule
        if self.outcome == "passed":
            return f"{rule.id}: passed"
        if self.outcome == "not applicable":
            return f"{rule.id}: not applicable, {self.seen}"
        return (
            f"{rule.id}: failed\n  expected: {rule.sentence}\n  seen: {self.seen}\n  why it matters: {rule.why}\n"
            f"  the rule is from: {rule.source}"
        )


@dataclass(frozen=True)
class Report:
    """What `check` has found: a result for every rule of the kind, none left out.

    name, kind: of what was checked.
    seed: give it to `check` for the same order of calls.
    """

    name: str
    kind: str
    results: tuple[Result, ...]
    seed: int

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def passed(self) -> tuple[Result, ...]:
        return tuple(each for each in self.results if each.outcome == "passed")

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(each for each in self.results if each.outcome == "failed")

    @property
    def not_applicable(self) -> tuple[Result, ...]:
        return tuple(each for each in self.results if each.outcome == "not applicable")

    @property
    def ok(self) -> bool:
        """Whether no rule failed."""
        return not self.failed

    def __str__(self) -> str:
        head = (
            f"{self.name}, checked as {self.kind}: {len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.not_applicable)} not applicable"
        )
        end = [f"(seed={self.seed})"] if self.failed else []
        return "\n".join([head, *(str(each) for each in (*self.failed, *self.not_applicable)), *end])

    def raise_if_failed(self) -> None:
        """AssertionError with this report, where a rule failed."""
        if not self.ok:
            raise AssertionError(str(self))


def raised(error: BaseException) -> str:
    """An exception without its text, which may hold a password or somebody's key: its type, and where it is from."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not os.path.abspath(frame.filename).startswith(_OURS):
            place = f" (raised in {os.path.basename(frame.filename)}, line {frame.lineno})"
    return f"{type(error).__name__}{place}"
