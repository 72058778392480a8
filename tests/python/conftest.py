"""With COUNTERFOIL_NATIVE (the path of a native module in a build tree, see bindings/python/CMakeLists.txt) the whole
run, with its subprocesses, uses the package around that module: so the sanitizer's build is tested."""

import gc
import os
import sys
from pathlib import Path

import pytest

native = os.environ.get("COUNTERFOIL_NATIVE")
if native:
    tree = str(Path(native).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([tree, *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, tree)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the fault kit: `faults.servers`, `faults.proxy`

import counterfoil._native  # noqa: E402

if native:
    assert counterfoil._native.__file__ is not None
    assert os.path.samefile(counterfoil._native.__file__, native), (
        "this is not the package that COUNTERFOIL_NATIVE names"
    )


def pytest_report_header() -> str:
    return f"native module: {counterfoil._native.__file__}"


@pytest.fixture
def stage():
    """A stage on which everything must have been released at the end."""
    from redis_servers import ServerStage

    stage = ServerStage()
    yield stage
    if stage.blocks:
        gc.collect()
    assert stage.blocks == 0, "memory of the core was not released"
