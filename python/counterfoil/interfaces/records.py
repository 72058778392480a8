"""What AccountsStorage and SessionStorage share: ids, instants and JSON, there and back."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import CorruptError, InvalidError, InvalidTypeError

__all__ = ["Fields", "check_count", "dump", "id_text", "instant", "load", "moment", "sayable", "some_id"]

Fields = dict[str, Any]
"""A record as the native module has it: instants are integers, microseconds since 1970; JSON is text."""

_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def sayable(text: str) -> bool:
    """Whether UTF-8 can say it: what it cannot say, nothing that is kept can be."""
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def id_text(value: object) -> str | None:
    """Text is itself; 1 is the same id as "1", a UUID the same as its text. None: it cannot be an id."""
    if isinstance(value, str):
        return str(value) if sayable(value) else None
    if isinstance(value, bool) or not isinstance(value, int | uuid.UUID):
        return None
    try:
        return int.__repr__(value) if isinstance(value, int) else str(value)
    except ValueError:  # beyond what Python turns into digits
        return None


def some_id(value: object, name: str) -> str:
    """The same, where there must be one."""
    text = id_text(value)
    if text is not None:
        return text
    if isinstance(value, str | int) and not isinstance(value, bool):
        raise InvalidError(f"{name} cannot be that")
    raise InvalidTypeError(f"{name} must be str, int or UUID, not {type(value).__name__}")


def instant(value: object, name: str) -> int | None:
    """Exact to the microsecond. A naive one is taken as UTC, as Cross Auth does."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidTypeError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        value = value.replace(tzinfo=UTC)
    return (value - _1970) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    return _1970 + timedelta(microseconds=microseconds)


def dump(value: Any, name: str) -> str | None:
    """JSON; None is null in the record, and not the JSON null."""
    if value is None:
        return None
    problem = f"{name} holds something that is not JSON"
    wrong_type = False
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # Half a character, which json.loads makes of a text that somebody has cut, is no UTF-8 but as an escape.
        return text if sayable(text) else json.dumps(value, separators=(",", ":"))
    except TypeError:  # its sentence may quote what it cannot say
        wrong_type = True
    except (ValueError, RecursionError):
        problem = f"{name} holds a number that is not JSON, or itself"
    raise InvalidTypeError(problem) if wrong_type else InvalidError(problem)


def load(text: str | None, name: str) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise CorruptError(f"{name} of a record is not JSON")


def check_count(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be int, not {type(value).__name__}")
    if not 1 <= value <= 10_000:
        raise InvalidError(f"{name} must be from 1 to 10000")
    return value
