"""For tests of your own expiry and error paths: a clock that you move, and failures that you choose.

stage = counterfoil.testing.Stage()
store = counterfoil.open("memory:", ttl=60, stage=stage)
store.set("code", "42")
stage.advance(60)
assert store.get("code") is None
"""

from datetime import UTC, datetime, timedelta

from .. import _native

__all__ = ["Stage"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stage(_native.Stage):
    """A platform for stores, whose clocks start at the real time and stand still until they are moved.

    Give it to `open(stage=...)`; any number of stores and threads may share one. A "memory:NAME" is shared among the
    stores of one stage only. Everything but time and failures is real.
    """

    def now(self) -> datetime:
        """The stage's wall clock."""
        return _EPOCH + timedelta(milliseconds=self.wall_ms())
