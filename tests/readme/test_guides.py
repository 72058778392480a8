"""Follows every guide in docs/guides as it is written, see guide.py, against a Redis server of its own."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import HANG_SECONDS, ROOT, InstalledLibrary, blocks, broken_links, free_port
from guide import Guide, listens, matches
from stand_ins import AROUND, nothing

GUIDES = ROOT / "docs/guides"
PAGES = sorted(GUIDES.glob("*.md"))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--dir", str(folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    until = time.monotonic() + HANG_SECONDS
    while not listens(port):
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < until
        time.sleep(0.02)
    yield port
    server.terminate()
    server.wait()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_guide(page: Path, redis: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    subprocess.run(["redis-cli", "-p", str(redis), "flushall"], check=True, capture_output=True)
    environment = {}
    if any(block.language == "c" for block in blocks(page)):
        library: InstalledLibrary = request.getfixturevalue("installed")
        environment = library.environment
    with AROUND.get(page.name, nothing)(tmp_path) as around:
        guide = Guide(page, tmp_path, redis, {**environment, **around})
        try:
            guide.follow()
        finally:
            guide.close()


@pytest.mark.parametrize("page", [GUIDES.parent / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    assert broken_links(page) == []


def test_every_guide_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(guides/([\w-]+\.md)\)", (GUIDES.parent / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in PAGES}


# -------------------------------------------------------------------------- a guide that is wrong is seen to be wrong


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```console\n$ echo one\ntwo\n```\n", "echo one"),
        ("```console\n$ echo one\n```\n", "echo one"),
        ("```console\n$ false\n```\n", "status 1"),
        ("```python\nprint(1)  # 2\n```\n", "it prints"),
        ("```python\nprint(1)\n```\n", "without saying what"),
        ("```python\nx = 1\n```\n", "nothing that could be checked"),
        ("```python\nimport pytest\nprint(1)  # 1\n```\n", "not installed"),
        ("```js\nrequire('express'); console.log(1) // 1\n```\n", "Cannot find module"),
        ("```js\n// app.cjs\nlet x\n```\n", "nothing uses"),
        ("```\nplain\n```\n", "no test runs"),
        ("~~~js\nx\n~~~\n", "does not read"),
        ("```python\n# a.py\nx = 1\n```\n```diff\n--- a.py\n-x = 2\n+x = 3\n```\n", "not to be found"),
        ("```console\n$ npm install left-pad-of-nobody\n```\n", "not among the packages"),
        ("```console\n$ node -e 1 &\n```\n", "node -e 1"),
    ],
)
def test_a_wrong_guide_fails(page: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        follow(tmp_path)


def follow(folder: Path) -> None:
    guide = None
    try:
        guide = Guide(folder / "page.md", folder, 1, {})
        guide.follow()
    finally:
        if guide:
            guide.close()


def test_a_right_guide_passes(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        """
```python
# a.py
print("one")
```
```console
$ python a.py
o...
$ X=1; cat <<'END'
> two
> END
two
$ echo $X
1
```
```diff
--- a.py
-print("one")
+print("two")
```
```console
$ python a.py
two
$ python -m http.server -d . 3000 &
$ curl -s localhost:3000/a.py | tail -n 1
print("two")
$ kill $!
```
"""
    )
    follow(tmp_path)


def test_matches() -> None:
    assert matches("a ... c", "a b c \n\n")
    assert not matches("a ... c", "a b\nc")
    assert not matches("a", "ab")


def test_every_error_has_its_advice() -> None:
    header = (ROOT / "core/include/counterfoil.h").read_text(encoding="utf-8")
    codes = set(re.findall(r"CF_E\w+ += -\d+,? +/\* ([A-Z_]+) ", header)) - {"HOST"}  # the host's own exception instead
    advice = (GUIDES / "operating.md").read_text(encoding="utf-8").partition("## Errors")[2].partition("\n## ")[0]
    assert codes | {"ENDED"} == {
        code for row in re.findall(r"^\| (`.*?) \|", advice, re.M) for code in re.findall(r"\w+", row)
    }


def test_the_tools_are_there() -> None:
    for tool in ("curl", "redis-server", "redis-cli", "node", "cc"):
        assert shutil.which(tool), tool
