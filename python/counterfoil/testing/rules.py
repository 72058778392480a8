"""What a rule is, and all of them: data, which the checks register as they are defined."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .trial import Trial

    Check = Callable[[Trial], None]

Checked = TypeVar("Checked", bound="Check")

__all__ = ["KINDS", "Rule", "rules"]

KINDS = ("backend", "secondary", "accounts", "sessions", "miro")
"""What the kit can check: a backend (`counterfoil.Backend`); Cross Auth's SecondaryStorage, AccountsStorage and
SessionStorage; Miro's Storage."""


@dataclass(frozen=True)
class Rule:
    """One rule of one kind of thing.

    id: area.what; the same in `counterfoil/testing` for Node, where it is the same rule.
    sentence: what is expected.
    why: what it costs a user where that is not so.
    source: where the rule is from: a file of a framework's release, an RFC, or this library's headers and docstrings.
    """

    id: str
    sentence: str
    why: str
    source: str


_RULES: dict[str, dict[str, tuple[Rule, "Check"]]] = {kind: {} for kind in KINDS}


def rule(id: str, sentence: str, why: str, **sources: str) -> Callable[[Checked], Checked]:
    """Registers a check under a rule, for each kind whose source is given."""

    def register(check: Checked) -> Checked:
        for kind, source in sources.items():
            assert id not in _RULES[kind], id
            _RULES[kind][id] = Rule(id, sentence, why, source), check
        return check

    return register


def rules(kind: str) -> tuple[Rule, ...]:
    """The rules of a kind (one of KINDS), in the order in which they are checked."""
    return tuple(rule for rule, _ in checks(kind).values())


def checks(kind: str) -> "dict[str, tuple[Rule, Check]]":
    from . import accounts, backend, keyed, miro, sessions  # noqa: F401, they register theirs

    return _RULES[kind]
