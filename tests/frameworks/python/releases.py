"""Releases of Cross Auth beside each other, each in a folder of its own under build/, installed when it is first
needed. As a program: installs what is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# The oldest that the adapter speaks, the last that kept its sessions in SecondaryStorage, the one that the other tests
# use, and the newest. What they need is installed for the tests already (tests/python/requirements.txt), but the name
# under which the oldest needs cross-web.
RELEASES = {
    "0.2.0": ["cross-auth==0.2.0", "lia-web==0.3.1"],
    "0.15.0": ["cross-auth==0.15.0"],
    "0.22.2": ["cross-auth==0.22.2"],
    "0.23.0": ["cross-auth==0.23.0"],
}
TOO_NEW = "0.24.0"  # it asks more of an accounts storage


def folder(release: str) -> Path:
    """Where this release can be imported from."""
    place = ROOT / "build" / "frameworks" / f"cross-auth-{release}"
    if not place.exists():
        draft = place.with_name(f"{place.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run(
            [*pip, "--target", str(draft), *RELEASES.get(release, [f"cross-auth=={release}"])], check=True, timeout=300
        )
        draft.rename(place)
    return place


if __name__ == "__main__":
    for each in [*RELEASES, TOO_NEW]:
        folder(each)
