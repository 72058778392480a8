"""What the tests of the package have is here, too: their servers, and where the package is."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "python"), str(TESTS)]
