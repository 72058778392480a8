"""What the tests of README.md and of the guides share: the blocks of a page, and what an example promises to print."""

import os
import random
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HANG_SECONDS = 120  # only so that nothing hangs; no example takes long


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    code: str
    line: int  # of the page, where its code starts
    heading: str

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}, {self.language} ({self.heading})"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page. A fence of another kind, which would be passed over, is an error."""
    text = page.read_text(encoding="utf-8")
    found = []
    heading = ""
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened, lines = (line[3:].strip(), number + 1), []
            else:
                found.append(Block(page.name, opened[0], "\n".join(lines) + "\n", opened[1], heading))
                opened = None
        elif opened is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert opened is None, f"{page.name} ends inside a block"
    fences = len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
    assert fences == 2 * len(found), f"{page.name}: a fence that this test does not read: ~~~, or an indented one"
    return found


PRINTS = re.compile(r"(?:print|console\.log|printf)\(.*\).*?(?:#|//) (?P<says>.*)$")


def prints(code: str) -> bool:
    return re.search(r"\bprint\(|console\.log\(|\bprintf\(", code) is not None


def promised(block: Block) -> list[str]:
    """The lines that an example says it prints: one comment behind every statement that prints."""
    lines = []
    for line in block.code.splitlines():
        if prints(line):
            match = PRINTS.search(line)
            assert match, f"{block}: an example prints without saying what: {line.strip()}"
            lines.append(match["says"])
    assert lines, f"{block}: it shows nothing that could be checked"
    return lines


def outcome(command: list[str | Path], cwd: Path, **environment: str) -> list[str]:
    """The lines that a command prints. It must succeed, and say nothing on its standard error."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def free_port() -> int:
    """Below those that outgoing connections get: or one of them may have it before it is listened on."""
    while True:
        port = random.randrange(20000, 32000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            continue


@dataclass(frozen=True)
class InstalledLibrary:
    """The C library as README.md installs it."""

    prefix: Path

    @property
    def environment(self) -> dict[str, str]:
        package = next(self.prefix.rglob("counterfoil.pc")).parent
        library = next(self.prefix.rglob("libcounterfoil.so")).parent
        return {"PKG_CONFIG_PATH": str(package), "LD_LIBRARY_PATH": str(library)}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere: no such file, or no such heading in it."""
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists():
            broken.append(link)
        elif anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}:
                broken.append(link)
    return broken
