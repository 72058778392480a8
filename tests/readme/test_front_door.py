"""The front door itself: what it understands, and that a suite which crashed or ran nothing cannot count as passed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CMOCKA = """[==========] keys: Running 3 test(s).
[ RUN      ] test_get
[       OK ] test_get
[==========] keys: 3 test(s) run.
[  PASSED  ] 1 test(s).
[  SKIPPED ] keys: 1 test(s), listed below:
[  SKIPPED ] test_set
[  FAILED  ] keys: 1 test(s), listed below:
[  FAILED  ] test_pop
"""


def counted(kind: str, record: str | None, directory: Path) -> str:
    file = directory / "record"
    if record is not None:
        file.write_text(record)
    command = [sys.executable, str(ROOT / "tests/count.py"), kind, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def ctest(*cases: tuple[str, str]) -> str:
    inside = "".join(
        f'<testcase name="x" status="{status}"><system-out>{said}</system-out></testcase>' for status, said in cases
    )
    return f'<testsuite tests="{len(cases)}">{inside}</testsuite>'


@pytest.mark.parametrize(
    ("kind", "record", "expected"),
    [
        ("ctest", ctest(("fail", CMOCKA)), "1 1 1"),
        ("ctest", ctest(("fail", CMOCKA.replace("1 test(s), listed", "2 test(s), listed"))), "1 2 2"),
        ("ctest", ctest(("run", "[  PASSED  ] 12 test(s)."), ("run", "no CMocka here")), "13 0 0"),
        ("ctest", ctest(("fail", "[ RUN      ] test_get\nSegmentation fault")), "0 1 0"),
        ("ctest", ctest(("fail", "[  PASSED  ] 12 test(s).\nleak at exit")), "12 1 0"),
        ("ctest", ctest(("notrun", "")), "0 0 1"),
        ("ctest", ctest(("run", CMOCKA))[:-20], "0 0 0"),
        ("pytest", '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>', "3 3 3"),
        ("tap", "TAP version 13\n# tests 7\n# pass 3\n# fail 1\n# cancelled 1\n# skipped 1\n# todo 1\n", "3 2 2"),
        ("tap", "TAP version 13\nok 1 - something\n", "0 0 0"),
        ("tap", None, "0 0 0"),
    ],
)
def test_counts(kind: str, record: str | None, expected: str, tmp_path: Path) -> None:
    assert counted(kind, record, tmp_path) == expected


def shell(line: str) -> str:
    """Runs a line with the functions of ./run at hand: everything above its last part, which reads the arguments."""
    functions = (ROOT / "run").read_text().partition("\ncommand=${1:-help}\n")[0]
    script = functions.replace('$(dirname -- "$0")', str(ROOT)) + "\n" + line
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    ("suite", "verdict"),
    [
        ("count C 0 5 0 0", "5 passed, 0 failed"),
        ("count C 0 5 0 2", "5 passed, 0 failed, 2 skipped"),
        ("count C 1 5 2 0", "5 passed, 2 failed"),
        ("count C 139 5 0 0", "5 passed, 1 failed"),  # crashed
        ("count C 0 0 0 0", "0 passed, 1 failed"),  # ran nothing
        ("count C 0 0 0 7", "0 passed, 1 failed, 7 skipped"),
        ("count C 0 3 0 0; count Python 2 0 0 0; count Node 0 4 1 0", "7 passed, 2 failed"),
    ],
)
def test_verdict(suite: str, verdict: str) -> None:
    assert shell(f"{suite}; total").splitlines()[-1] == verdict


def test_a_run_that_ends_early_has_failed() -> None:
    said = shell("promise_verdict; count C 0 5 0 0; false; count Node 0 5 0 0; total")
    assert said.splitlines()[-1] == "5 passed, 1 failed"


def test_follow_keeps_the_status_of_the_command(tmp_path: Path) -> None:
    said = shell(f"follow {tmp_path}/log sh -c 'echo seen; exit 7'; echo status $status")
    assert said.splitlines() == ["seen", "status 7"]
    assert (tmp_path / "log").read_text() == "seen\n"


@pytest.mark.parametrize(
    "said", ["{}-value", "my secret-{}", "\xff\0\nran {}-token\n", "redis://:hunter" + "2@host", ""]
)
@pytest.mark.parametrize("status", [0, 1])
def test_a_secret_in_what_a_suite_has_said_is_a_failure(said: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(said.format("CANARY"), encoding="latin-1")
    (tmp_path / "other").write_text("a canary, and no more\n")
    call = f"count C 0 5 0 0; status={status}; spotless C {tmp_path}/other {tmp_path}/log; total"
    found = bool(said) and status == 0
    assert shell(call).splitlines()[-1] == f"5 passed, {int(found)} failed"


def test_usage(tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "run", "help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "./run COMMAND" in done.stdout
    done = subprocess.run([ROOT / "run", "nonsense"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nonsense" in done.stderr
    assert done.stdout == ""
