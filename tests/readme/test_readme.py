"""Runs every example of README.md as it is written: no block can be left out without this file saying why.

An example that prints says in a comment what it prints; the comment is checked. A server is started and asked.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
from documents import HANG_SECONDS, ROOT, Block, InstalledLibrary, blocks, broken_links, free_port, outcome, promised

README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = blocks(ROOT / "README.md")


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def kind(block: Block) -> str:
    """What proves this block: see the test of that name."""
    if block.language == "sh":
        return "commands"
    if block.language == "c":
        return "c"
    if block.language == "python":
        return "fastapi" if "FastAPI(" in block.code else "python"
    if block.language == "js":
        return "express" if "express()" in block.code else "js"
    return "unknown"


def each(name: str) -> pytest.MarkDecorator:
    chosen = [block for block in BLOCKS if kind(block) == name]
    # An empty list would be a test that is silently never run.
    assert chosen, f"README.md has no block that {name!r} proves: remove its test"
    return pytest.mark.parametrize("block", chosen, ids=str)


def test_no_block_is_left_out() -> None:
    left_out = [str(block) for block in BLOCKS if kind(block) == "unknown"]
    assert not left_out


@each("python")
def test_python(block: Block, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(block.code)
    assert outcome([sys.executable, "main.py"], tmp_path) == promised(block)


def javascript(block: Block, directory: Path) -> Path:
    """The block as a file of a project that has installed the packages which it names."""
    modules = directory / "node_modules"
    modules.mkdir()
    for module in (ROOT / "node_modules").iterdir():
        (modules / module.name).symlink_to(module)
    (modules / "counterfoil").symlink_to(ROOT)
    file = directory / ("main.mjs" if re.search(r"^import ", block.code, re.MULTILINE) else "main.cjs")
    file.write_text(block.code)
    return file


@each("js")
def test_js(block: Block, tmp_path: Path) -> None:
    assert outcome(["node", javascript(block, tmp_path)], tmp_path) == promised(block)


@each("c")
def test_c(block: Block, installed: InstalledLibrary, tmp_path: Path) -> None:
    command = re.search(r"`(cc main\.c .*?)`", README)
    assert command, "the README does not say how to compile the example"
    (tmp_path / "main.c").write_text(block.code)
    strict = "-std=c11 -Wall -Wextra -Werror -pedantic"
    environment = installed.environment
    outcome(["sh", "-c", command[1].replace("cc ", f"cc {strict} ", 1)], tmp_path, **environment)
    assert outcome([tmp_path / "a.out"], tmp_path, **environment) == promised(block)


# ------------------------------------------------------------------------------------------------------------- servers


@contextmanager
def serving(command: list[str | Path], cwd: Path, port: int, **environment: str) -> Iterator[str]:
    log = cwd / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + HANG_SECONDS
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def ask(url: str, method: str = "GET", cookie: str | None = None) -> tuple[int, str, str | None]:
    """Status, body and the cookie to send next."""
    request = urllib.request.Request(url, method=method, headers={"Cookie": cookie} if cookie else {})
    # Without the proxies that the environment may name: this is our own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=HANG_SECONDS) as response:
            given = response.headers.get("Set-Cookie")
            return response.status, response.read().decode(), given.split(";")[0] if given else cookie
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), cookie


@each("express")
def test_express(block: Block, tmp_path: Path) -> None:
    file = javascript(block, tmp_path)
    port = free_port()
    with serving(["node", file], tmp_path, port, PORT=str(port), SESSION_SECRET="s") as url:
        _, first, cookie = ask(url + "/")
        assert cookie
        assert cookie.startswith("connect.sid=")
        assert (first, ask(url + "/", cookie=cookie)[1]) == ("visit 1", "visit 2")
        assert ask(url + "/")[1] == "visit 1"


@each("fastapi")
def test_fastapi(block: Block, tmp_path: Path) -> None:
    command = re.search(r"`uvicorn (main:app)`", README)
    assert command, "the README does not say how to run the example"
    (tmp_path / "main.py").write_text(block.code)
    port = free_port()
    with serving([sys.executable, "-m", "uvicorn", command[1], "--port", str(port)], tmp_path, port) as url:
        status, body, _ = ask(url + "/invite?email=ada@example.org", "POST")
        assert status == 200
        accept = url + "/accept?code=" + urllib.parse.quote(json.loads(body)["code"])
        assert json.loads(ask(accept, "POST")[1]) == {"welcome": "ada@example.org"}
        assert ask(accept, "POST")[0] == 400


def test_cross_auth() -> None:
    """The call that the README names, with the arguments that it names."""
    import counterfoil

    fastapi = pytest.importorskip("cross_auth.fastapi", reason="the package cross-auth is not installed here")
    call = re.search(r"`CrossAuth\((.*?)\)`\.", README, re.DOTALL)
    assert call
    names = re.findall(r"(\w+)=", call[1])
    from counterfoil.adapters import cross_auth as ours

    with counterfoil.open("memory:") as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # releases after 0.22 do without trusted_origins
        given = {
            "storage": ours.SecondaryStorage(store),
            "accounts_storage": ours.AccountsStorage(store),
            "session_storage": ours.SessionStorage(store),
            "providers": [],
            "trusted_origins": [],
        }
        assert set(names) == set(given)
        fastapi.CrossAuth(**given)


# ------------------------------------------------------------------------------------------------------------ commands


def front_door_has(name: str) -> None:
    done = subprocess.run([ROOT / "run", "help"], capture_output=True, text=True, check=True)
    assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)


def python_package() -> None:
    assert metadata.metadata("counterfoil")["Name"] == "counterfoil"
    assert (ROOT / "setup.py").exists()
    assert "build-system" in tomllib.loads((ROOT / "pyproject.toml").read_text())


def node_package() -> None:
    package = json.loads((ROOT / "package.json").read_text())
    assert package["name"] == "counterfoil"
    assert "build" in package["scripts"]
    assert not {"install", "preinstall", "postinstall"} & set(package["scripts"]), "installing must run no script"


# Commands that are not run from here: why, and a check that they are no wrong commands all the same.
NOT_RUN: dict[str, tuple[str, Callable[[], None]]] = {
    "./run demo": ("it keeps running; ./run test runs its --check", lambda: front_door_has("demo")),
    "./run test": ("it is what runs this test", lambda: front_door_has("test")),
    "pip install counterfoil": ("from the registry, where it is not published yet", python_package),
    "npm install counterfoil": ("from the registry, where it is not published yet", node_package),
    "pip install ../counterfoil": ("./run has installed this folder with pip before this test", python_package),
    "npm --prefix ../counterfoil install && npm --prefix ../counterfoil run build && npm install ../counterfoil": (
        "./run has done the first two before this test; the examples above run in a project that has the third's link",
        node_package,
    ),
}


@each("commands")
def test_commands(block: Block) -> None:
    for command in block.code.splitlines():
        assert command in NOT_RUN, f"README.md, {block}: a command that this test does not know: {command}"
        assert shlex.split(command)
        NOT_RUN[command][1]()


def test_every_exception_is_used() -> None:
    shown = {command for block in of("sh") for command in block.code.splitlines()}
    assert set(NOT_RUN) == shown


# ----------------------------------------------------------------------------------------------------------- the prose


def test_links_lead_somewhere() -> None:
    assert broken_links(ROOT / "README.md") == []


def test_errors_table_is_complete_and_true() -> None:
    import counterfoil

    design = (ROOT / "core/DESIGN.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| ([^|]+) \| ([^|]*)\|$", design, re.MULTILINE)
    header = (ROOT / "core/include/counterfoil.h").read_text(encoding="utf-8")
    codes = set(re.findall(r"CF_E\w+ += -\d+,? +/\* ([A-Z_]+) ", header))
    assert "HOST" in codes
    assert {code for code, _, _ in rows} == codes - {"HOST"}  # the host's own exception is thrown instead
    for _, classes, also in rows:
        for name in re.findall(r"\w+", classes):
            assert issubclass(getattr(counterfoil, name), counterfoil.Error)
        for name in re.findall(r"\w+", also):
            builtin = getattr(__import__("builtins"), name)
            assert any(issubclass(getattr(counterfoil, one), builtin) for one in re.findall(r"\w+", classes))


def test_length() -> None:
    assert len(README.splitlines()) < 250
