"""For your own tests: a clock that you move and failures that you choose, and a kit that tells whether a store of yours
keeps the contract.

STAGE

    stage = counterfoil.testing.Stage()
    store = counterfoil.open("memory:", ttl=60, stage=stage)
    store.set("code", "42")
    stage.advance(60)
    assert store.get("code") is None

THE KIT checks a backend of yours, or any object in the shape of Cross Auth's SecondaryStorage, AccountsStorage (hooks
for `counterfoil.AccountsStorage` too) or SessionStorage, or of Miro's Storage: what its methods answer, what happens
when many call at once, at the edges of expiry, after a cancelled call, and while what is behind it is broken. Each
failure is a sentence: what was expected, what was seen, why it matters, and where the rule is from.

    print(counterfoil.testing.check(MyBackend))

With pytest, a class, or no class at all:

    class TestMine(counterfoil.testing.BackendContract):
        def make(self):
            return MyBackend()

    pytest --counterfoil-backend mymodule:MyBackend

It writes and deletes keys, users and sessions of its own, whose names begin with "cfkit", and leaves some behind: give
it a place for tests.
"""

from .contracts import AccountsContract, BackendContract, Contract, MiroContract, SecondaryContract, SessionsContract
from .report import Outcome, Report, Result
from .rules import KINDS, Rule, rules
from .runner import check
from .stage import Stage

__all__ = [
    "KINDS",
    "AccountsContract",
    "BackendContract",
    "Contract",
    "MiroContract",
    "Outcome",
    "Report",
    "Result",
    "Rule",
    "SecondaryContract",
    "SessionsContract",
    "Stage",
    "check",
    "rules",
]
