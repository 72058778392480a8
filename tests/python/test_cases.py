"""Every case of tests/cases over every backend, in every mode."""

import pytest
from counterfoil.testing import Stage
from support import BACKENDS, MODES, BackendLine, Case, Mode, fits, load_cases, needs, play

CASES = load_cases()


@pytest.mark.parametrize(
    ("case", "backend", "mode"),
    [
        pytest.param(case, backend, mode, id=f"{case['file']}: {case['name']} ({backend.name}, {mode.name})")
        for case in CASES
        for backend in BACKENDS
        for mode in MODES
        if backend.can.issuperset(needs(case)) and fits(backend, mode)
    ],
)
def test_case(case: Case, backend: BackendLine, mode: Mode, stage: Stage) -> None:
    mode.run(play(case, backend, mode, stage))


def test_names_are_unique() -> None:
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names))
