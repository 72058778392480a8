"""The conformance kit: what is right passes it, and what is wrong in one way fails exactly that rule."""

import asyncio
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import conformance_mutants_records  # noqa: F401, it adds its own
import counterfoil
import counterfoil.aio
import counterfoil_pytest
import pytest
from conformance_mutants import (
    MUTANTS,
    STAGE,
    Bare,
    BareCoroutines,
    Coroutines,
    Full,
    Mutant,
    Secondary,
    down,
    secondary_down,
)  # fmt: skip
from conformance_stores import PAGE, StagedRedis, parties, rule_tables, staged_redis, table
from counterfoil.adapters import cross_auth
from counterfoil.adapters.miro import MiroStorage
from counterfoil.testing import KINDS, BackendContract, Report, Stage, check, rules
from support import ROOT, load_example, run_python

WRITES = "PYTHONPATH=tests python tests/python/conformance_stores.py writes the page anew"
FEW: dict[str, Any] = {"contenders": 3, "rounds": 1}  # for the rules that are not in question


def advance(thing: Any, seconds: float) -> None:
    STAGE.advance(seconds)


def passes(report: Report, *without: str) -> None:
    """Nothing failed, and what is not applicable is exactly what is expected to be."""
    assert report.ok, str(report)
    areas = {each.rule.id for each in report.not_applicable}
    assert areas == {rule.id for rule in rules(report.kind) if rule.id.startswith(without)}, str(report)


# -------------------------------------------------------------------------------------------------------------- mutants


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: f"{each.kind}-{each.fails}-{each.make.__name__}")
def test_a_mutant_fails_exactly_its_rule(mutant: Mutant) -> None:
    own = check(mutant.make, mutant.kind, advance=advance, only=[mutant.fails], **mutant.options)
    assert [each.rule.id for each in own.failed] == [mutant.fails], str(own)
    others = [rule.id for rule in rules(mutant.kind) if rule.id != mutant.fails]
    rest = check(mutant.make, mutant.kind, advance=advance, only=others, **{**FEW, **mutant.options})
    assert rest.ok, str(rest)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_has_a_mutant(kind: str) -> None:
    have = {each.fails for each in MUTANTS if each.kind == kind}
    assert {rule.id for rule in rules(kind)} == have


# -------------------------------------------------------------------------------------------------------- what is right

FAULTS, CANCEL, SINGLE = "fault.", "cancel.", "single_process."


def test_right_backends() -> None:
    passes(check(Full, advance=advance, broken=down, rounds=8), CANCEL, SINGLE)
    passes(
        check(Bare, advance=advance, broken=down, rounds=8),
        CANCEL, "binary.", "pop.", "touch.", "incr.", "set_if.", "keep_ttl.", "scan.", "close.",
    )  # fmt: skip
    passes(
        check(Coroutines, advance=advance, rounds=8),
        FAULTS, SINGLE, "touch.", "incr.", "set_if.", "scan.", "close.",
    )  # fmt: skip
    passes(
        check(BareCoroutines, advance=advance, rounds=8),
        FAULTS, "binary.", "pop.", "touch.", "incr.", "set_if.", "keep_ttl.", "scan.", "close.",
    )  # fmt: skip
    passes(check(lambda: Secondary(Full()), advance=advance, broken=secondary_down, rounds=8))


def test_the_example() -> None:
    """On the real clock: lives really pass."""
    example = load_example("python_backend")
    passes(
        check(lambda: example.TableBackend(":memory:"), short=0.05, **FEW),
        CANCEL, FAULTS, "pop.", "touch.", "incr.", "set_if.",
    )  # fmt: skip


@pytest.mark.parametrize("ours", [counterfoil, cross_auth], ids=["memory", "sqlite, for Cross Auth"])
def test_ours(ours: Any, tmp_path: Path) -> None:
    with counterfoil.open("memory:" if ours is counterfoil else f"sqlite:{tmp_path}/a.db", stage=STAGE) as store:
        few: dict[str, Any] = {"advance": advance, "rounds": 4}
        passes(check(lambda: ours.SecondaryStorage(store), **few), FAULTS)
        passes(check(lambda: ours.AccountsStorage(store), **few), FAULTS)
        passes(check(lambda: ours.SessionStorage(store), **few), FAULTS)
        passes(check(lambda: MiroStorage(store, "ann"), make_other=lambda: MiroStorage(store, "bob"), **few), FAULTS)


def test_ours_awaited() -> None:
    async def secondary() -> Any:
        return counterfoil.aio.SecondaryStorage(await counterfoil.aio.open("memory:", stage=STAGE))

    async def accounts() -> Any:
        return counterfoil.aio.AccountsStorage(await counterfoil.aio.open("memory:", stage=STAGE))

    async def sessions() -> Any:
        return counterfoil.aio.SessionStorage(await counterfoil.aio.open("memory:", stage=STAGE))

    async def close(storage: Any) -> None:
        await storage._store.close()

    for make in (secondary, accounts, sessions):
        passes(check(make, advance=advance, cleanup=close, rounds=5), FAULTS)


@pytest.fixture(scope="module")
def redis() -> Iterator[StagedRedis]:
    with staged_redis() as server:
        yield server


def test_ours_over_redis(redis: StagedRedis) -> None:
    with counterfoil.open(redis.url, prefix="kit:", timeout=0.3) as store:
        options: dict[str, Any] = {**redis.options(), "rounds": 3}
        passes(check(lambda: counterfoil.SecondaryStorage(store), **options))
        passes(check(lambda: counterfoil.AccountsStorage(store), **options))
        passes(check(lambda: counterfoil.SessionStorage(store), **options))
        passes(check(lambda: MiroStorage(store, 1), make_other=lambda: MiroStorage(store, 2), **options))


# -------------------------------------------------------------------------------------------- those of others, the page


def test_the_table_is_what_is_found() -> None:
    with ExitStack() as stack:
        found = table([party.row(party.check()) for party in parties(stack)])
    assert found in PAGE.read_text(), f"{WRITES}:\n{found}"


def test_the_page_has_all_rules() -> None:
    assert PAGE.read_text().endswith(rule_tables()), WRITES


def test_the_page_runs(tmp_path: Path) -> None:
    blocks = [block.partition("```")[0] for block in PAGE.read_text().split("```python\n")[1:]]
    first, staged, second = blocks
    done = run_python(first + "print(report)\n" + staged, timeout=120)
    assert done.stdout.startswith("['pop.one_winner']\n"), done.stdout + done.stderr
    assert done.stdout.endswith("\nTrue\n"), done.stdout + done.stderr
    (tmp_path / "mystore.py").write_text(first.partition("\nreport =")[0].replace("DictBackend", "MyBackend"))
    (tmp_path / "test_mine.py").write_text(second)
    some = "pop_one_winner or delete_says_whether or scan_stable"
    ran = run_pytest(tmp_path, "-v", "-k", some, "--counterfoil-backend=mystore:MyBackend")
    assert ran.returncode == 1
    assert "2 failed, 2 passed, 2 skipped" in ran.stdout, ran.stdout
    assert f"collected {2 * len(rules('backend'))} items" in ran.stdout, "those of the option are counted"
    assert "expected: Of any number of pops of one key at once exactly one gets the value" in ran.stdout
    assert "it has no method scan, which may be left out" in ran.stdout
    assert "mystore:MyBackend[pop.one_winner]" in ran.stdout, "the rule without a class"
    assert "trial.py" not in ran.stdout, "a failure is a sentence, not a traceback through the kit"


# --------------------------------------------------------------------------------------------------------------- pytest


def run_pytest(folder: Path, *words: str, site: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """site: where the metadata is of what is installed; without it no plugin is loaded but ours."""
    path = [str(Path(counterfoil.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = dict(os.environ)
    if site is None:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        words = ("-p", "counterfoil_pytest", *words)
    else:
        path.insert(0, str(site))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(folder), *words],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**environment, "PYTHONPATH": os.pathsep.join(path)},
    )  # fmt: skip


def test_pytest_loads_nothing_unless_it_is_used(tmp_path: Path) -> None:
    """With the entry point that setup.py declares. And the fixture, and that a report does not quote exceptions."""
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent("""
        import sys

        class Mine:
            def get(self, key):
                raise OSError("postgres://user:secret of a test@db")
            def set(self, key, value, ttl): pass
            def delete(self, key): pass

        def test_what_is_loaded(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("counterfoil")
            assert not [name for name in sys.modules if name.split(".")[0] == "counterfoil"]

        def test_it(counterfoil_check):
            counterfoil_check(Mine, only=["get.miss"])
        """)
    )
    site = tmp_path / "site"
    site.mkdir()
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(site)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    ran = run_pytest(tmp_path, site=site)
    assert "1 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "it raised OSError (raised in test_mine.py, line 6)" in ran.stdout
    assert "secret" not in ran.stdout


def test_what_an_option_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cf_broken.py").write_text("import os\nURL = os.environ['COUNTERFOIL_NOT_SET']\n")
    (tmp_path / "cf_misspelt.py").write_text("class Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert counterfoil_pytest._found("backend", "conformance_mutants:Full") is Full
    for name, sentence in (
        ("conformance_mutants:Yours", "has no attribute 'Yours'"),
        ("yours:Mine", "No module named 'yours'"),
        ("mine", "--counterfoil-backend is module:factory, as in mymodule:MyBackend"),
        ("cf_broken:Mine", r"its import raised KeyError: 'COUNTERFOIL_NOT_SET' \(raised in cf_broken\.py, line 2\)"),
        ("cf_misspelt:Mine", r"its import raised SyntaxError: .*\(cf_misspelt\.py, line 1\)"),
    ):
        with pytest.raises(pytest.UsageError, match=sentence):
            counterfoil_pytest._found("backend", name)


class Mine(BackendContract):
    rounds = 1
    short = 10

    def make(self) -> Any:
        return Full()

    def advance(self, thing: Any, seconds: float) -> None:
        STAGE.advance(seconds)

    @contextmanager
    def broken(self, thing: Any) -> Iterator[None]:
        with down(thing):
            yield


def test_a_contract_has_a_test_for_each_rule() -> None:
    for rule in rules("backend"):
        name = f"test_{rule.id.replace('.', '_')}"
        assert getattr(Mine, name).__doc__ == rule.sentence
        try:
            getattr(Mine(), name)()
        except pytest.skip.Exception as reason:
            assert rule.id.startswith((CANCEL, SINGLE)), str(reason)
    with pytest.raises(pytest.fail.Exception, match=r"get\.miss: failed\n  expected: .*\n  seen: it raised Not"):
        BackendContract().test_get_miss()  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------------- check


def test_a_report_says_everything() -> None:
    report = check(Full, only=["get.miss", "fault.rejects"])
    assert len(report) == 2
    assert [(each.rule.id, each.outcome) for each in report] == [
        ("get.miss", "passed"), ("fault.rejects", "not applicable"),
    ]  # fmt: skip
    assert report.ok
    assert str(report) == (
        "Full, checked as backend: 1 passed, 0 failed, 1 not applicable\n"
        "fault.rejects: not applicable, no `broken` was given, within which what is behind it cannot be reached"
    )
    for kind in KINDS:
        for rule in rules(kind):
            assert rule.source, rule.id
            assert rule.sentence.endswith("."), rule.id
            assert rule.why.endswith("."), rule.id


def test_a_method_that_does_not_take_what_it_is_given_is_said() -> None:
    class NoTtl(Full):
        def set(self, key: str, value: str) -> None:  # type: ignore[override]
            raise AssertionError("it cannot be called")

    seen = {each.rule.id: each.seen for each in check(NoTtl, kind="backend", **FEW)}
    said = "its set cannot be called with 3 arguments: too many positional arguments"
    assert seen["get.what_was_set"] == seen["keys.independent"] == seen["fault.rejects"] == said

    class Table(Full):
        def delete(self, *, key: str) -> bool:  # type: ignore[override]
            raise AssertionError("it cannot be called")

        def touch(self, key: str, ttl: float | None) -> bool:
            raise TypeError("its own")

    seen = {each.rule.id: each.seen for each in check(Table, only=["delete.removes", "touch.moves_expiry"])}
    assert seen["delete.removes"] == "its delete cannot be called with 1 argument: too many positional arguments"
    assert seen["touch.moves_expiry"].startswith("it raised TypeError (raised in test_conformance.py")

    class Hooks:
        def create_user(self, *, user_info: object, email: str) -> None:
            raise AssertionError("it cannot be called")

        def find_user_by_email(self, email_key: str) -> None:
            return None

    (result,) = check(Hooks, kind="accounts", only=["user.round_trip"])
    said = r"its create_user cannot be called with .*email=, .*: got an unexpected keyword argument .*"
    assert re.fullmatch(said, result.seen)


def test_what_was_asked_is_said_where_it_matters() -> None:
    class Lower(Full):
        def get(self, key: str) -> Any:
            return super().get(key.lower())

        def set(self, key: str, value: Any, ttl: Any) -> None:
            super().set(key.lower(), value, ttl if ttl is None else int(ttl))

    seen = {each.rule.id: each.seen for each in check(Lower, only=["keys.distinct", "ttl.exact"], short=0.25)}
    assert seen["keys.distinct"] == (
        "of 17 keys that differ in their ends alone these gave another's value or none: 'a'"
    )
    assert seen["ttl.exact"] == "with a ttl of 0.25 seconds get gave None when half of it had passed"


def test_one_object_for_all_rules_stays_open() -> None:
    class Closing(Full):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    thing = Closing()
    report = check(thing, advance=advance, broken=down, **FEW)
    passes(report, CANCEL, SINGLE, "close.")
    assert thing.closed == 0


def test_what_is_made_is_closed() -> None:
    made: list[Any] = []
    cleaned: list[Any] = []

    class Closing(Full):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    def make() -> Any:
        made.append(Closing())
        return made[-1]

    assert check(make, "backend", advance=advance, **FEW).ok
    assert {each.closed for each in made} == {1}
    assert check(make, "backend", advance=advance, cleanup=cleaned.append, only=["get.miss"]).ok
    assert cleaned == made[-1:]


def test_what_hangs_fails_and_the_rest_is_not_waited_for() -> None:
    leave = threading.Event()

    class Hangs(Full):
        def get(self, key: str) -> Any:
            leave.wait(60)

    class HangsAwaited(Coroutines):
        async def get(self, key: str) -> Any:
            await asyncio.sleep(60)

    began = time.monotonic()
    for kind in (Hangs, HangsAwaited):
        report = check(kind, patience=0.1, only=["get.miss", "set.replaces", "values.empty", "text.round_trip"])
        seen = [each.seen for each in report.failed]
        assert seen[0] == "no answer within 0.1 seconds", str(report)
        assert seen[3] == "it was not asked: 3 rules in a row had no answer", str(report)
    leave.set()
    assert time.monotonic() - began < 50


def test_what_hangs_in_an_outage_fails() -> None:
    """To raise is right, to say nothing is not."""

    class HangsWhenDown(Coroutines):
        async def get(self, key: str) -> Any:
            if self.inner.down:
                await asyncio.sleep(60)
            return await super().get(key)

    @contextmanager
    def inner_down(thing: Any) -> Iterator[None]:
        with down(thing.inner):
            yield

    report = check(HangsWhenDown, broken=inner_down, patience=0.3, only=["fault.rejects"])
    assert [each.seen for each in report.failed] == ["no answer within 0.3 seconds"], str(report)
    report = check(Coroutines, broken=inner_down, only=["fault.rejects", "fault.recovers"])
    assert len(report.passed) == 2, str(report)


def test_a_slow_machine_is_no_failure() -> None:
    """A life that is over before anybody could look is tried anew, and longer."""

    class Slow(Full):
        looks = 0

        def end(self, ttl: Any) -> int | None:
            return None if ttl is None else round((time.monotonic() + ttl) * 1000)

        def live(self, key: str) -> bool:
            there = self.data.get(key)
            return there is not None and (there[1] is None or time.monotonic() * 1000 < there[1])

        def set(self, key: str, value: Any, ttl: Any) -> None:
            super().set(key, value, ttl)
            time.sleep(0.03)

    report = check(Slow, only=["ttl.exact"], short=0.02)
    assert report.ok, str(report)
    assert report.passed, str(report)


def test_what_belongs_to_one_thread_stays_on_it() -> None:
    class OwnThread(Full):
        def __init__(self) -> None:
            super().__init__()
            self.owner = threading.get_ident()

        def get(self, key: str) -> Any:
            assert threading.get_ident() == self.owner, "another thread"
            return super().get(key)

    alone = check(OwnThread, advance=advance, only=["get.miss", "ttl.exact", "pop.takes"])
    assert alone.ok, str(alone)
    many = check(OwnThread, advance=advance, only=["set.whole"])
    assert "AssertionError (raised in test_conformance.py" in many.failed[0].seen


def test_bad_arguments() -> None:
    with pytest.raises(counterfoil.InvalidTypeError, match="object has the methods of nothing that the kit knows"):
        check(object())
    with pytest.raises(counterfoil.InvalidTypeError, match="int has the methods"):
        check(lambda: 1)
    with pytest.raises(counterfoil.InvalidError, match="a kind is one of backend, secondary"):
        check(Full, "storage")
    with pytest.raises(counterfoil.InvalidError, match=r"there is no rule get\.hit for this kind; rules\('backend'\)"):
        check(Full, only=["get.hit"])
    with pytest.raises(counterfoil.InvalidTypeError, match="rounds must be a number, not str"):
        check(Full, rounds="many")  # type: ignore[arg-type]
    with pytest.raises(counterfoil.InvalidError, match="contenders must be a number from 2"):
        check(Full, contenders=1)


def test_what_make_skips_is_skipped() -> None:
    class Away(BackendContract):
        def make(self) -> Any:
            pytest.skip("there is no server")

    with pytest.raises(pytest.skip.Exception, match="there is no server"):
        Away().test_get_miss()  # type: ignore[attr-defined]


def test_kinds_are_told_apart() -> None:
    with counterfoil.open("memory:") as store:
        for thing, kind in (
            (Full(), "backend"), (Bare, "backend"), (counterfoil.SecondaryStorage(store), "secondary"),
            (counterfoil.AccountsStorage(store), "accounts"), (counterfoil.SessionStorage(store), "sessions"),
            (MiroStorage(store, "ann"), "miro"),
        ):  # fmt: skip
            assert check(thing, only=[]).kind == kind


def test_the_stage_is_where_it_was() -> None:
    stage = Stage()
    with counterfoil.open("memory:", stage=stage) as store:
        store.set("a", "1", ttl=1)
        stage.advance(1)
        assert store.get("a") is None


def test_one_object_made_again_is_one() -> None:
    one = Bare()
    report = check(lambda: one, advance=advance, only=["single_process.alone", "keys.independent"])
    assert len(report.passed) == 2, str(report)


def test_methods_that_stand_in_for_others() -> None:
    """A wrapper whose class has no methods of its own is awaited all the same, and its calls cancelled."""

    class Wrapper:
        binary = True

        def __init__(self) -> None:
            self.inner = Coroutines()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    report = check(Wrapper, "backend", only=["set.replaces", "pop.one_winner", "cancel.leaves_it_usable"])
    assert len(report.passed) == 3, str(report)


def test_some_methods_awaited_and_some_not() -> None:
    class Mixed(Full):
        async def get(self, key: str) -> Any:
            await asyncio.sleep(0)
            return super().get(key)

        def pop(self, key: str) -> Any:
            with self.lock:
                value = Full.get(self, key)
                self.data.pop(key, None)
                return value

    passes(check(Mixed, advance=advance, broken=down, rounds=3), SINGLE)


FILE = re.compile(r"(?:cross_auth|miro_api|core)/[\w./]+\.(?:py|md|h)")


def test_the_sources_are_there() -> None:
    """Files of others in the version that is named, with the names and sentences that are quoted; ours too."""
    looked = 0
    for kind in KINDS:
        for rule in rules(kind):
            for name, package in (("Cross Auth", "cross-auth"), ("miro_api", "miro_api")):
                for said in re.findall(rf"{name} (\d+\.\d+\.\d+)", rule.source):
                    assert said == importlib.metadata.version(package), rule
            for path, said in re.findall(rf"({FILE.pattern})([^;]*)", rule.source):
                if path.startswith("core/"):
                    text = (ROOT / path).read_text()
                else:
                    folder, _, rest = path.partition("/")
                    found = importlib.util.find_spec(folder)
                    assert found is not None
                    assert found.origin is not None
                    text = (Path(found.origin).parent / rest).read_text()
                text = " ".join(text.split())
                for word in [*re.findall(r'"([^"]+)"', said), *re.findall(r"[,.] ?([A-Z]\w+|[a-z]+_\w+)", said)]:
                    assert word in text, (rule.id, path, word)
                    looked += 1
            for name in re.findall(r"(?<![\w/])counterfoil\.[\w.]+\w", rule.source):
                if name.endswith(".h"):
                    continue
                module, _, attribute = name.rpartition(".")
                assert hasattr(pkgutil.resolve_name(module), attribute), (rule.id, name)
                looked += 1
    assert looked > 50
