"""What pytest loads of Counterfoil: options that check a thing of yours without a class, and a fixture.

    pytest --counterfoil-backend mymodule:MyBackend
    def test_mine(counterfoil_check): counterfoil_check(MyBackend)

It stands beside the package, so that pytest loads no more than this where nothing is asked of it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from counterfoil.testing import Report
    from counterfoil.testing.runner import Runner

KINDS = {
    "backend": "a backend",
    "secondary": "a SecondaryStorage of Cross Auth",
    "accounts": "an AccountsStorage of Cross Auth, or counterfoil.AccountsStorage over hooks of yours",
    "sessions": "a SessionStorage of Cross Auth",
    "miro": "a Storage of Miro's client",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("counterfoil", "conformance kit of Counterfoil")
    for kind, what in KINDS.items():
        group.addoption(
            f"--counterfoil-{kind}", action="append", default=[], metavar="MODULE:FACTORY",
            help=f"check what this class or function makes as {what}; one test for each rule",
        )  # fmt: skip


@pytest.fixture
def counterfoil_check() -> Callable[..., Report]:
    """`counterfoil.testing.check`, but that the test fails with the report where a rule does."""
    from counterfoil.testing import check

    def checked(*args: Any, **options: Any) -> Report:
        __tracebackhide__ = True
        report = check(*args, **options)
        if not report.ok:
            pytest.fail(str(report), pytrace=False)
        return report

    return checked


class RuleItem(pytest.Item):
    """One rule of one thing."""

    def __init__(self, *, runner: Runner, id: str, where: str, **more: Any) -> None:
        super().__init__(**more)
        self._runner, self._rule, self._where = runner, id, where
        self.extra_keyword_matches.add(id.replace(".", "_"))  # as the test of a contract class is called

    def runtest(self) -> None:
        result = self._runner.run(self._rule)
        if result.outcome == "not applicable":
            pytest.skip(result.seen)
        if result.outcome == "failed":
            pytest.fail(f"{result}\n  (seed={self._runner.settings.seed})", pytrace=False)

    def reportinfo(self) -> tuple[str, int | None, str]:
        return self._where, None, self.name


@pytest.hookimpl(tryfirst=True)  # before -k and the like choose among them
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    for kind in KINDS:
        for where in config.getoption(f"--counterfoil-{kind}"):
            made = list(_items(session, config, kind, where))
            for item in made:
                config.hook.pytest_itemcollected(item=item)
            # So they are counted among what was collected.
            config.hook.pytest_collectreport(report=pytest.CollectReport(where, "passed", None, list(made)))
            items.extend(made)


def _items(session: pytest.Session, config: pytest.Config, kind: str, where: str) -> Iterator[RuleItem]:
    from counterfoil.testing.runner import Runner, settings_of

    runner = Runner(kind, settings_of(_found(kind, where)))
    config.add_cleanup(lambda: runner.__exit__())
    for id in runner.rules:
        yield RuleItem.from_parent(
            session, name=f"{where}[{id}]", nodeid=f"{where}::{id}", runner=runner, id=id, where=where
        )


def _found(kind: str, where: str) -> Any:
    name, colon, path = where.partition(":")
    if not (name and colon and path):
        raise pytest.UsageError(f"--counterfoil-{kind} is module:factory, as in mymodule:MyBackend, not {where!r}")
    sys.path.insert(0, "")  # as `python -m pytest` has it: the folder in which pytest was started
    try:
        found = importlib.import_module(name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"--counterfoil-{kind} {where}: {error}") from error
    except Exception as error:  # of the module: nothing that is broken in pytest or here
        lines = [each for each in traceback.extract_tb(error.__traceback__) if each.name == "<module>"]
        there = f" (raised in {os.path.basename(lines[-1].filename)}, line {lines[-1].lineno})" if lines else ""
        said = f"{type(error).__name__}: {error}{there}"
        raise pytest.UsageError(f"--counterfoil-{kind} {where}: its import raised {said}") from error
    finally:
        sys.path.remove("")
    return found
