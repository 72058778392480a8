"""A session: JSON data under text keys, an id and a cookie."""

import json
import math
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import CorruptError, InvalidError, InvalidTypeError
from .cookies import Cookie
from .life import FIELD, Life

if TYPE_CHECKING:
    from .users import Owner

__all__ = ["ExpressSession"]

_SAFE = 2**53 - 1
_TOO_DEEP = "itself, or too many things within another"
# Express passes over data with these names: they are methods and marks of its session objects.
_TAKEN = frozenset(
    {"id", "req", "cookie", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate", FIELD}
    | {"constructor", "__proto__", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString"}
    | {"toString", "valueOf", "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__"}
)


class ExpressSession(MutableMapping[str, Any]):
    """The data of `request.session`, as a mapping, with its `id` and its `cookie`. `ExpressSessions` makes them.

    Values are what JSON and JavaScript can say: no integer beyond 2**53 - 1, and no key `__proto__`, at any depth. Keys
    that Express keeps for itself (`cookie`, `id`, `save` ...) are refused; where they are stored, they are passed over,
    as by Express. Nothing is stored before `save`. Not for several threads at once.
    """

    __slots__ = ("_cookie", "_data", "_id", "_known", "_life", "_note", "_owner", "_text")

    def __init__(self, session_id: str, cookie: Cookie, data: dict[str, Any]) -> None:
        """For this package."""
        self._id = session_id
        self._cookie = cookie
        self._data = data
        self._known = False  # it was stored: from then on a save only replaces what is there
        self._text: str | None = None  # with save_changed="error": what is there, as far as this request knows
        self._note: Any = None  # what stands in the stored session of its life
        self._life: Life | None = None
        self._owner: Owner | None = None

    @property
    def id(self) -> str:
        """Logs its user in, once it is signed: a secret."""
        return self._id

    @property
    def cookie(self) -> Cookie:
        return self._cookie

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._data[_checked_key(key)] = value

    def __delitem__(self, key: str) -> None:
        del self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"<counterfoil.express.ExpressSession: {len(self)} keys>"

    def _become(self, other: "ExpressSession") -> None:
        """Another session, in this object."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))


def _checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidTypeError(f"the keys of a session must be str, not {type(key).__name__}")
    if key == "cookie":
        raise InvalidError("the cookie of a session is session.cookie, and no key")
    if key in _TAKEN:
        raise InvalidError("Express keeps this key for itself, and would not show it: use another name")
    return key


def _problem(value: object) -> str | None:
    """Why JSON, or JavaScript, cannot say this. Never the value."""
    if value is None or isinstance(value, str | bool):
        return None
    if isinstance(value, int):
        return None if -_SAFE <= value <= _SAFE else "an integer that JavaScript would round: use str"
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number that is not finite"
    if isinstance(value, list | tuple):
        return next(filter(None, map(_problem, value)), None)
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):
                return f"an object with a key of type {type(key).__name__}: keys must be str"
            if key == "__proto__":
                return "an object with the key __proto__, which is no key in JavaScript"
            if problem := _problem(one):
                return problem
        return None
    return f"{type(value).__name__}, which JSON cannot say: convert it, as by isoformat() or str()"


def checked(data: object) -> dict[str, Any]:
    """A copy of what a new session is to hold."""
    if not isinstance(data, Mapping):
        raise InvalidTypeError(f"the data of a session must be a mapping, not {type(data).__name__}")
    copy = {_checked_key(key): value for key, value in data.items()}
    _check_values(copy)
    return copy


def _check_values(data: dict[str, Any]) -> None:
    try:
        problem = next(filter(None, map(_problem, data.values())), None)
    except RecursionError:
        problem = _TOO_DEEP
    if problem is not None:
        raise InvalidError(f"the session holds {problem}")


def _escaped(match: "re.Match[str]") -> str:
    return f"\\u{ord(match[0]):04x}"


def _text(fields: dict[str, Any]) -> str:
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        text = ""
    if not text:
        raise InvalidError(f"the session holds {_TOO_DEEP}")
    return re.sub("[\ud800-\udfff]", _escaped, text)  # half a character, which is no UTF-8 but as an escape


def dump(session: ExpressSession, note: dict[str, int] | None) -> str:
    """The text as JSON.stringify would write it."""
    _check_values(session._data)
    whole = {"cookie": session._cookie.fields(), **session._data}
    if note is not None or session._note is not None:
        whole[FIELD] = session._note if note is None else note
    return _text(whole)


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None  # what JSON.stringify makes of it


def _int(digits: str) -> float | None:
    """What JavaScript makes of an integer: beyond 2**53 it is rounded, and stays the same number from then on."""
    if len(digits) > 17:
        return _float(digits)
    number = int(digits)
    return number if -_SAFE <= number <= _SAFE else float(number)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def parse(text: str) -> dict[str, Any]:
    """The stored session, with a cookie."""
    fields = None
    try:
        fields = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        pass  # its sentence shows a piece of it: no context of ours
    else:
        if not isinstance(fields, dict):
            raise CorruptError("the stored session is not an object")
        if not isinstance(fields.get("cookie"), dict):
            fields["cookie"] = {}  # written by another framework; as in Node
        return fields
    raise CorruptError("the stored session is not JSON")


def with_note(text: str, note: dict[str, int]) -> str:
    """The stored text with another note of its life, and nothing else changed."""
    return _text(parse(text) | {FIELD: note})


def without_note(text: str) -> dict[str, Any]:
    fields = parse(text)
    fields.pop(FIELD, None)
    return fields


def loaded(session_id: str, text: str) -> ExpressSession:
    """The session that is stored."""
    fields = parse(text)
    data = {key: value for key, value in fields.items() if key not in _TAKEN}
    session = ExpressSession(session_id, Cookie(fields["cookie"]), data)
    session._known = True
    session._note = fields.get(FIELD)
    return session
