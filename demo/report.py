"""Observations, one a line."""

import secrets

HANG_SECONDS = 60  # only so that a check never hangs
PASSWORD = "the analytical engine"


class Report:
    def __init__(self) -> None:
        self.passed = self.failed = 0
        self.store = ""

    def saw(self, what: str, good: bool, detail: object) -> None:
        if good:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok  ' if good else 'FAIL'}  {self.store}: {what} ({detail})", flush=True)


def somebody(name: str) -> str:
    """An e-mail that is new, also in a store that was there before."""
    return f"{name}.{secrets.token_hex(4)}@example.org"
