"""A guide, as its reader would follow it: its files in a folder with the packages that it installs, its commands in one
shell, from its first line to its last.

What a guide may hold:

- A block whose first line is a comment with a file's name is that file. The guide must use it.
- A `js` or `python` block without one is run as it is; it says in comments what it prints (see `promised`).
- A `diff` block begins with `--- FILE` and is applied to that file. Lines of `@@` part its hunks.
- A `console` block has commands behind `$` (`>` goes on with one), and what they print. `...` stands for anything on
  that line. A command that ends in `&` is a server; the next one is typed when it listens.
- `npm install` and `pip install` are not run: they say which packages there are, and no others can be imported.
- A `text` block is only read.
- The ports 3000, 8000 and 6379 (the Redis server) are others here.
"""

import ast
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from documents import HANG_SECONDS, ROOT, Block, blocks, free_port, promised

NAMED = re.compile(r"(?://|#|/\*) (?P<name>[\w./-]+\.\w+)(?: \*/)?\n")
PORTS = ("3000", "8000")
FLUIDAUTH = '{"name": "@fluidauth/express", "exports": {".": "./index.cjs", "./base": "./base.cjs"}}'


def listens(port: int) -> bool:
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, port), timeout=1).close()
            return True
        except OSError:
            pass
    return False


def matches(expected: str, seen: str) -> bool:
    pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in seen.strip().splitlines())) is not None


class Shell:
    """One shell for all commands of a page, so that `&`, `$!` and `cd` are what they are."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.shell = subprocess.Popen(
            ["sh"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.buffer = b""

    def run(self, command: str) -> tuple[int, str]:
        """The status of a command, and what it says."""
        assert self.shell.stdin
        assert self.shell.stdout
        mark = f"--{os.urandom(8).hex()}--"
        self.shell.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n{mark}%s\\n' $?\n".encode())
        self.shell.stdin.flush()
        until = time.monotonic() + HANG_SECONDS
        while not (end := re.search(rb"\n" + mark.encode() + rb"(\d+)\n", self.buffer)):
            ready, _, _ = select.select([self.shell.stdout], [], [], max(0, until - time.monotonic()))
            assert ready, f"it does not end: {command}\n{self.buffer.decode()}"
            data = os.read(self.shell.stdout.fileno(), 65536)
            assert data, f"the shell has ended: {command}\n{self.buffer.decode()}"
            self.buffer += data
        said, self.buffer = self.buffer[: end.start()].decode(), self.buffer[end.end() :]
        return int(end[1]), said

    def close(self) -> None:
        os.killpg(self.shell.pid, signal.SIGKILL)  # the group of this shell and what it has started
        self.shell.wait()
        for pipe in (self.shell.stdin, self.shell.stdout):
            assert pipe
            pipe.close()


class Guide:
    """One page, in a folder of its own. `environment` is what its commands see beside ours; `redis` a port."""

    def __init__(self, page: Path, folder: Path, redis: int, environment: dict[str, str]) -> None:
        self.blocks = blocks(page)
        self.folder = folder / "project"
        self.modules = self.folder / "node_modules"
        self.modules.mkdir(parents=True)
        tools = folder / "bin"
        tools.mkdir()
        for tool, script in {
            "redis-cli": f'exec {shutil.which("redis-cli")} -p {redis} "$@"',
            # npm itself would be slower, and warn of settings of this machine.
            "npx": f'tool=$1; shift; exec "{self.modules}/.bin/$tool" "$@"',
        }.items():
            (tools / tool).write_text(f"#!/bin/sh\n{script}\n")
            (tools / tool).chmod(0o755)
        path = os.pathsep.join((str(tools), str(Path(sys.executable).parent), os.environ["PATH"]))
        self.environment = {**os.environ, "PATH": path, "NO_PROXY": "*", **environment}
        others: set[int] = set()
        while len(others) < len(PORTS):
            others.add(free_port())
        self.ports = dict(zip(PORTS, others, strict=True))
        self.redis = redis
        self.files: dict[str, Block] = {}
        self.used: set[str] = set()
        self.python: set[str] = set()
        self.logs: list[Path] = []
        self.shell = Shell(self.folder, self.environment)

    def close(self) -> None:
        self.shell.close()

    def here(self, text: str) -> str:
        """The text with the ports of this run."""
        text = re.sub(r"redis://localhost(?!:)\b", "redis://localhost:6379", text)
        for port, other in (*self.ports.items(), ("6379", self.redis)):
            text = re.sub(rf"\b{port}\b", str(other), text)
        return text

    # ---------------------------------------------------------------------------------------------------------- blocks

    def follow(self) -> None:
        for block in self.blocks:
            named = NAMED.match(block.code)
            if block.language == "text":
                continue
            if block.language == "console":
                self.console(block)
            elif block.language == "diff":
                self.diff(block)
            elif named and block.language in ("js", "ts", "python", "c", "json"):
                self.write(named["name"], block)
            elif block.language in ("js", "python"):
                self.snippet(block)
            else:
                raise AssertionError(f"{block}: a block that no test runs")
        unused = {str(block) for name, block in self.files.items() if name not in self.used}
        assert not unused, f"files that nothing uses: {unused}"

    def write(self, name: str, block: Block) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        code = block.code if block.language != "json" else block.code.partition("\n")[2]
        self.use(block.code.partition("\n")[2])
        file.write_text(self.here(code), encoding="utf-8")
        if block.language == "python":
            self.check_imports(block)
        self.files[name] = block
        if block.language == "json":
            self.used.add(name)

    def use(self, text: str) -> None:
        """Notes which files a text names: `node app.cjs`, `./app`, `import app`, `main:app`."""
        for name in self.files:
            stem = re.escape(Path(name).stem)
            if re.search(rf"(?<![\w.]){stem}\b", text):
                self.used.add(name)

    def snippet(self, block: Block) -> None:
        self.use(block.code)
        module = re.search(r"^import |^await |^const .* = await ", block.code, re.MULTILINE) is not None
        suffix = ".py" if block.language == "python" else ".mjs" if module else ".cjs"
        file = self.folder / f"line-{block.line}{suffix}"
        file.write_text(self.here(block.code), encoding="utf-8")
        if block.language == "python":
            self.check_imports(block)
        status, said = self.shell.run(f"{'python' if block.language == 'python' else 'node'} {file.name}")
        assert status == 0, f"{block}\n{said}"
        expected = self.here("\n".join(promised(block)))
        assert matches(expected, said), f"{block}\n--- it says\n{expected}\n--- it prints\n{said}"

    def diff(self, block: Block) -> None:
        first, _, rest = self.here(block.code).partition("\n")
        assert first.startswith("--- "), f"{block}: it does not begin with --- FILE"
        file = self.folder / first[4:]
        text = file.read_text(encoding="utf-8")
        for hunk in re.split(r"^@@.*\n", rest, flags=re.MULTILINE):
            lines = hunk.splitlines()
            assert all(line[:1] in (" ", "+", "-", "") for line in lines), f"{block}: not a diff"
            before = "".join(line[1:] + "\n" for line in lines if line[:1] != "+")
            after = "".join(line[1:] + "\n" for line in lines if line[:1] != "-")
            assert before != after, f"{block}: it changes nothing"
            assert ("\n" + text).count("\n" + before) == 1, f"{block}: not to be found, or more than once:\n{before}"
            text = ("\n" + text).replace("\n" + before, "\n" + after)[1:]
        self.use(rest)
        file.write_text(text, encoding="utf-8")

    # --------------------------------------------------------------------------------------------------------- commands

    def console(self, block: Block) -> None:
        steps: list[tuple[str, list[str]]] = []
        for line in block.code.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif line.startswith("> ") and steps and not steps[-1][1]:
                steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", [])
            else:
                assert steps, f"{block}: it does not begin with a command"
                steps[-1][1].append(line)
        assert steps, f"{block}: no command"
        for command, expected in steps:
            self.use(command)
            if command.startswith(("npm install ", "pip install ")):
                self.install(command.split()[0], shlex.split(command)[2:])
            elif command.endswith(" &"):
                self.serve(block, self.here(command))
            else:
                self.step(block, self.here(command), self.here("\n".join(expected)))

    def step(self, block: Block, command: str, expected: str) -> None:
        status, said = self.shell.run(command)
        what = f"{block}\n$ {command}\n--- it says\n{expected}\n--- it prints (status {status})\n{said}\n"
        logs = "".join(f"--- {log.name}\n{log.read_text()}" for log in self.logs)
        assert status == 0, what + logs
        assert matches(expected, said), what + logs
        if command.startswith("kill $!"):
            self.shell.run("wait $!")

    def serve(self, block: Block, command: str) -> None:
        idle = [port for port in self.ports.values() if not listens(port)]
        log = self.folder / f"server-{len(self.logs)}.log"
        self.logs.append(log)
        self.shell.run(f"{command.removesuffix(' &')} >{log.name} 2>&1 &")
        until = time.monotonic() + HANG_SECONDS
        while not any(listens(port) for port in idle):
            alive = self.shell.run("kill -0 $!")[0] == 0
            assert alive, f"{block}\n$ {command}\n{log.read_text()}"
            assert time.monotonic() < until, f"{block}: it does not listen\n$ {command}\n{log.read_text()}"
            time.sleep(0.02)

    def install(self, tool: str, packages: list[str]) -> None:
        for package in packages:
            if package.startswith("--"):
                continue
            if tool == "pip":
                name = re.split(r"[\[=<>~]", package)[0]
                metadata.version(name)  # it is there
                self.python.add(name)
                continue
            name, _, version = package[1:].partition("@") if package.startswith("@") else package.partition("@")
            self.link(("@" if package.startswith("@") else "") + name, version)

    def link(self, name: str, version: str) -> None:
        link = self.modules / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if name == "@fluidauth/express":  # not on the registry: what the tests of the adapter take in its place
            link.mkdir()
            (link / "package.json").write_text(FLUIDAUTH)
            support = ROOT / "tests/node/support/fluidauth.cjs"
            (link / "index.cjs").write_text(f"exports.Session = require({str(support)!r}).Session\n")
            (link / "base.cjs").write_text("exports.BaseSessionStore = class BaseSessionStore {}\n")
            return
        there = ROOT if name == "counterfoil" else ROOT / "node_modules" / (f"{name}-{version}" if version else name)
        if version and not there.exists():
            there = ROOT / "node_modules" / name
            found = (there / "package.json").read_text()
            assert f'"version": "{version}.' in found, f"{name}@{version} is not the one that is installed here"
        assert there.exists(), f"npm install {name}: it is not among the packages of the tests"
        link.symlink_to(there)
        if name == "typescript":
            (self.modules / ".bin").symlink_to(ROOT / "node_modules/.bin")

    def check_imports(self, block: Block) -> None:
        """What a block imports comes with Python, is a file of the guide, or is named in its `pip install`."""
        owners = metadata.packages_distributions()
        local = {Path(name).parts[0].removesuffix(".py") for name in self.files}
        for node in ast.walk(ast.parse(block.code)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in local:
                    assert self.python & set(owners.get(top, [])), f"{block}: it imports {top}, which was not installed"
