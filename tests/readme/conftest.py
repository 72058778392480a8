"""What several of the tests here need, made once."""

import re
import subprocess
from pathlib import Path

import pytest
from documents import ROOT, InstalledLibrary


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> InstalledLibrary:
    """The C library, installed with the README's command, but into a folder of the test and without sudo."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"`(cmake -S \. -B build/release && .*?)`", readme)
    assert command, "the README does not say how to install the C library"
    tree: Path = tmp_path_factory.mktemp("tree")
    prefix: Path = tmp_path_factory.mktemp("prefix")
    here = command[1].replace("sudo ", "").replace("build/release", str(tree))
    here = here.replace("cmake -S .", f"cmake -DCMAKE_INSTALL_PREFIX={prefix} -S .", 1)
    done = subprocess.run(["sh", "-c", here], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return InstalledLibrary(prefix)
