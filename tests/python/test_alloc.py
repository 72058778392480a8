"""Allocation chaos: every case again and again, failing the core's 1st, 2nd, 3rd ... allocation, until one run passes
without a failure.

A step that fails is NoMemoryError and has changed nothing: told once more, it gives what the case expects. At the end
nothing is left."""

from itertools import count
from typing import Any

import counterfoil
import pytest
from counterfoil.testing import Stage
from support import BACKENDS, MODES, BackendLine, Case, Mode, Player, finish, load_cases, open_in, target_of

CASES = [case for case in load_cases() if "open_error" not in case]
LINES = {line.name: line for line in BACKENDS}
KINDS = {mode.name: mode for mode in MODES}
BLOCKING = KINDS["blocking"]
MAY_BE_LOST = ("clear", "pop", "secondary.pop", "accounts.", "sessions.")


class Again(Player):
    """Tells a step once more when it failed for want of memory."""

    lost = False  # a failure that had an effect: what follows in the case need not hold

    async def step(self, step: dict[str, Any]) -> None:
        try:
            await super().step(step)
        except AssertionError as error:
            # A step that expects an error got another one: the player shows it.
            if "NoMemoryError" not in str(error) or "error" not in step:
                raise
            await super().step(step)
        except counterfoil.NoMemoryError as error:
            if error.outcome != "not_applied":
                # Only what works through many keys, or a value or record that could not be given any more.
                assert step["do"].startswith(MAY_BE_LOST), f"{step}: {error.outcome}"
                self.lost = True
                return
            await super().step(step)


async def replay(case: Case, backend: BackendLine, mode: Mode, stage: Stage) -> None:
    options = case.get("open", {})
    target = target_of(backend, mode, stage, options.get("query", ""))
    try:
        store = await open_in(mode, target, stage, options)
    except counterfoil.NoMemoryError as error:
        assert error.outcome == "not_applied"
        return
    try:
        player = Again(store, stage, options)
        for step in case["steps"]:
            await player.step(step)
            if player.lost:
                break
    finally:
        await finish(store.close())


def heavy(case: Case) -> bool:
    return any(step["do"] == "fill" or "repeat" in str(step) for step in case["steps"])


@pytest.mark.parametrize(
    ("file", "backend", "mode"),
    [
        pytest.param(file, LINES[backend], KINDS[mode], id=f"{file} ({backend}, {mode})")
        for file in sorted({case["file"] for case in CASES})
        for backend, mode in (
            ("memory", "blocking"),
            ("memory", "asyncio"),
            ("full", "blocking"),
            ("bare-keeping", "blocking"),
            ("bare-keeping", "asyncio-coroutines"),
        )
    ],
)
def test_every_allocation_may_fail(file: str, backend: BackendLine, mode: Mode) -> None:
    places = count()
    for case in CASES:
        if case["file"] != file or not backend.can.issuperset(case.get("needs", [])):
            continue
        # Records have hundreds in each case, all on the same few paths: every ninth, from a place of its own.
        records = "records" in case.get("needs", [])
        nth, failures = 1 + next(places) % 9 if records else 1, 0
        while True:
            stage = Stage()
            stage.fail_allocation(nth)
            mode.run(replay(case, backend, mode, stage))
            assert stage.blocks == 0, f"{case['name']}: allocation {nth} failed, and something was not released"
            if not stage.failed:
                break
            failures += 1
            # Every one of the first 24; then, where a case has thousands, in growing steps.
            nth += 9 if records else 1 if nth < 24 else nth // 2 if heavy(case) else nth // 8
        assert failures > 0, f"{case['name']}: nothing was allocated, so nothing was tested"


@pytest.mark.parametrize("file", sorted({case["file"] for case in CASES}))
def test_memory_stays_away(file: str) -> None:
    """All allocations fail from the nth on: what does not raise is still right."""
    for case in CASES:
        if case["file"] != file or not LINES["memory"].can.issuperset(case.get("needs", [])):
            continue
        for nth in (1, 2, 3, 5, 8, 13):
            stage = Stage()
            options = case.get("open", {})
            query = options.get("query", "")
            try:
                store = BLOCKING.run(
                    open_in(BLOCKING, target_of(LINES["memory"], BLOCKING, stage, query), stage, options)
                )
            except counterfoil.NoMemoryError:
                continue
            stage.fail_allocation(nth, for_good=True)
            player = Player(store, stage, {})
            for step in case["steps"]:
                if step["do"] in ("advance", "fill"):
                    continue
                try:
                    if step["do"].startswith(("accounts.", "sessions.")):
                        BLOCKING.run(player.records.call(step))
                    else:
                        player.begin(step)
                except (counterfoil.Error, KeyError):  # a name that an earlier step was to remember
                    pass
            stage.fail_allocation(0)
            store.set("k", "v")
            assert store.get("k") == "v"
            store.close()
            assert stage.blocks == 0
