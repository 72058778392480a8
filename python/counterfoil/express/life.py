"""What must be known of a session to end its whole life in time, and to touch it less often. It is kept in the stored
text, so that any number of processes, in Node and in Python, know the same: FORMAT.md, item 7."""

import time
from dataclasses import dataclass
from typing import Any, TypeGuard

FIELD = "__counterfoil"
"""Its name in the stored text. Programs that do not know it give it back with the rest of the session."""

MINUTE = 60_000
"""Clocks of several machines may differ by so many milliseconds. One that is further behind was set back."""


def now() -> int:
    """Milliseconds since 1970 by this machine's clock."""
    return time.time_ns() // 1_000_000


@dataclass
class Life:
    """Instants are in milliseconds since 1970."""

    created: int
    set: int
    """When the expiry was last set and noted."""
    expires: int | None = None
    noted: bool = False
    """So it stands in the stored text."""
    text: str | None = None
    """The text that it was read from."""

    def take(self, note: dict[str, int], text: str) -> None:
        """This is what the store has now."""
        self.set, self.expires, self.noted, self.text = note["set"], note["expires"], True, text

    def left(self, absolute: int, at: int) -> int:
        """Milliseconds until the whole life is over. A clock that is a little behind the one that wrote `set` does not
        count."""
        return self.created + absolute - max(at, self.set)

    def note(self, ttl: float, at: int) -> dict[str, int]:
        """What is to be noted when the expiry is now set to `ttl` seconds from now."""
        return {"created": self.created, "set": max(at, self.set), "expires": round(at + ttl * 1000)}


def _is_instant(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def life_in(note: object, at: int, text: str | None = None) -> Life:
    """What a stored session says of its life. Where that is nothing (another program wrote it) it counts from now."""
    found: dict[str, Any] = note if isinstance(note, dict) else {}
    created, was_set, expires = found.get("created"), found.get("set"), found.get("expires")
    if not (_is_instant(created) and _is_instant(was_set) and _is_instant(expires)) or created > was_set:
        return Life(at, at, text=text)
    if was_set - at <= MINUTE:
        return Life(created, was_set, expires, True, text)
    # The clock was set back since. The session is as old as it was then, and grows older by the new time.
    return Life(at - (was_set - created), at, text=text)
