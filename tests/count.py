"""Says what a suite's own record holds, as "PASSED FAILED SKIPPED", for ./run: count.py ctest|pytest|tap FILE.

No record, or one that was not written to its end, is "0 0 0": ./run counts that as a failure.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree


def ctest(text: str) -> tuple[int, int, int]:
    """A CMocka program is one test for ctest; its own tests are what is counted."""
    passed = failed = skipped = 0
    for case in ElementTree.fromstring(text).iter("testcase"):
        said = case.findtext("system-out") or ""
        status = case.get("status")
        good, bad, passed_over = (
            sum(map(int, re.findall(rf"\[\s*{word}\s*\] (?:.*: )?(\d+) test\(s\)", said)))
            for word in ("PASSED", "FAILED", "SKIPPED")
        )
        if good + bad + passed_over == 0:
            good, passed_over = int(status == "run"), int(status in ("notrun", "disabled"))
        if status == "fail" and bad == 0:
            bad = 1
        passed, failed, skipped = passed + good, failed + bad, skipped + passed_over
    return passed, failed, skipped


def pytest(text: str) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    for suite in ElementTree.fromstring(text).iter("testsuite"):
        names = ("tests", "failures", "errors", "skipped")
        tests, failures, errors, omitted = (int(suite.get(name, 0)) for name in names)
        # A test that fails in its body and again in its teardown is one test with two entries.
        passed += max(0, tests - failures - errors - omitted)
        failed += failures + errors
        skipped += omitted
    return passed, failed, skipped


def tap(text: str) -> tuple[int, int, int]:
    total = {name: int(number) for name, number in re.findall(r"^# (\w+) (\d+)$", text, re.MULTILINE)}
    failed = total.get("fail", 0) + total.get("cancelled", 0)
    return total.get("pass", 0), failed, total.get("skipped", 0) + total.get("todo", 0)


def main() -> None:
    kind, path = sys.argv[1:]
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            counted = {"ctest": ctest, "pytest": pytest, "tap": tap}[kind](file.read())
    except (OSError, ElementTree.ParseError):
        counted = (0, 0, 0)
    print(*counted)


if __name__ == "__main__":
    main()
