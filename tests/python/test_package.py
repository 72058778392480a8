"""The package as it is installed."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import counterfoil
import counterfoil._native
import pytest
from support import ROOT, run_python


def test_one_version() -> None:
    version = (ROOT / "VERSION").read_text().strip()
    assert counterfoil.__version__ == counterfoil._native.version() == version
    assert importlib.metadata.version("counterfoil") == version


# What is there for users.
PUBLIC = [
    "counterfoil",
    "counterfoil.aio",
    "counterfoil.errors",
    "counterfoil.express",
    "counterfoil.testing",
    "counterfoil.adapters.cross_auth",
    "counterfoil.adapters.miro",
]


def test_all_names() -> None:
    for module in PUBLIC:
        loaded = __import__(module, fromlist=["*"])
        for name in loaded.__all__:
            assert hasattr(loaded, name), f"{module}.{name}"


def test_importing_is_light() -> None:
    """The package alone loads no event loop, no framework."""
    done = run_python("""
        import sys, counterfoil
        print(sorted({"asyncio", "trio", "cross_auth", "fastapi", "json.tool"} & set(sys.modules)))
    """)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_the_module_keeps_to_the_limited_api() -> None:
    native = counterfoil._native.__file__
    assert native is not None
    assert native.endswith("_native.abi3.so")
    symbols = subprocess.run(["nm", "-D", native], capture_output=True, text=True, check=True).stdout
    exported = re.findall(r" [TDBR] (\S+)", symbols)
    assert [name for name in exported if not name.startswith(("_init", "_fini", "__"))] == ["PyInit__native"]
    assert not re.findall(r" U (_Py(?!_NoneStruct|_TrueStruct|_FalseStruct|_Dealloc|\w+_SizeT)\w+)", symbols), (
        "private functions of Python"
    )
    assert not re.findall(r" U \w*(?:SSL_|EVP_|OPENSSL_|CRYPTO_|redis)\w+", symbols), "a library is not in it"


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, check=False, env=SHELL)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


# Of a shell: where the package is under a sanitizer is nothing that users know.
SHELL = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_PRELOAD")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_a_wheel(wheel: Path) -> None:
    """One for Python 3.11 and newer, with everything in it."""
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"counterfoil-{counterfoil.__version__}-cp311-abi3-{platform}.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        f"counterfoil/{path.relative_to(ROOT / 'python' / 'counterfoil')}"
        for path in (ROOT / "python" / "counterfoil").rglob("*.py")
    } <= names
    assert {"counterfoil/_native.abi3.so", "counterfoil/_native.pyi", "counterfoil/py.typed"} <= names
    assert "counterfoil_pytest.py" in names, "what the entry point of pytest names"
    done = run_python(
        "import counterfoil; print(counterfoil.__file__)", env={"PYTHONPATH": str(wheel), "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode != 0 or str(wheel) in done.stdout  # a native module is not imported from a zip


def test_a_project_with_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Where only the wheel is installed, a program that uses every module is right for mypy --strict, and runs."""
    program = ROOT / "tests" / "frameworks" / "python" / "consumer.py"
    words = program.read_text()
    for module in PUBLIC:
        parent, _, name = module.rpartition(".")
        assert re.search(rf"^(import {module}|from {module} import|from {parent} import {name})\b", words, re.M), module
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-index", "--no-deps", wheel)
    shutil.copy(program, tmp_path / "program.py")  # away from the checkout, whose sources would be found first
    cache = ROOT / "build" / "frameworks" / "mypy-cache"
    options = ["--strict", "--config-file=", "--python-executable", python, "--cache-dir", cache]
    run(sys.executable, "-m", "mypy", *options, tmp_path / "program.py")
    assert run(python, tmp_path / "program.py") == f"{counterfoil.__version__}\n"
    found = run(python, "-c", "import counterfoil; print(counterfoil.__file__)")
    assert found.startswith(str(tmp_path)), found


def test_the_example() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "python_backend.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("/account\nNone\n", "", 0)
    source = (ROOT / "examples" / "python_backend.py").read_text()
    body = source.partition("\nclass ")[2].partition("\nif __name__")[0]
    assert len([line for line in body.splitlines() if line.strip()]) < 20
