"""The cookie of a session: its attributes as express-session keeps them, its signature as cookie-signature makes it,
and its text as the package cookie writes it."""

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal, TypedDict
from urllib.parse import quote, unquote_to_bytes

from ..errors import CorruptError, InvalidError, InvalidTypeError
from . import life

__all__ = ["Cookie", "CookieOptions", "Signer", "check_name", "find", "serialize"]

# One word each, because at run time that is the union that checkers see.
SameSite = Literal["strict"] | Literal["lax"] | Literal["none"]
Priority = Literal["low"] | Literal["medium"] | Literal["high"]
_SAME_SITES = ("strict", "lax", "none")
_PRIORITIES = ("low", "medium", "high")

_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST = 253_402_300_799_999  # the last millisecond that a datetime can say; a Date of JavaScript can say more
# As express-session writes them, one after the other; what else is there stays behind these.
_ORDER = ("originalMaxAge", "partitioned", "priority", "expires", "secure", "httpOnly", "domain", "path", "sameSite")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"[.]?{_LABEL}(?:[.]{_LABEL})*", re.IGNORECASE | re.ASCII)
_PATH = re.compile(r"[\x20-\x3a\x3d-\x7e]*")
_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


class CookieOptions(TypedDict, total=False):
    """The attributes of the cookies of new sessions. They should be those of the Express application."""

    max_age: float | None
    """Seconds; express-session's `maxAge` counts milliseconds. None, the default: until the browser is closed."""
    path: str
    """`/` unless given."""
    domain: str | None
    http_only: bool
    """True unless given."""
    secure: bool
    """Only over https. `"auto"` is refused: here nobody knows the request."""
    same_site: SameSite | None
    partitioned: bool
    priority: Priority | None


def _instant(value: object) -> float:
    """Milliseconds since 1970; nan where it is no date. Express writes ISO text; what else `new Date` takes of what is
    found in sessions: a number, and ISO text without a time zone, which is local time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return math.nan
    if re.match(r"\+\d{6}-", value):
        return _LAST  # a year beyond 9999
    try:
        found = datetime.fromisoformat(value)
        if found.utcoffset() is None:
            found = found.replace(tzinfo=UTC) if len(value) == 10 else found.astimezone()
        return (found - _1970) / _MILLISECOND
    except (ValueError, OverflowError):
        return math.nan


def _datetime(instant: float) -> datetime:
    return _1970 + timedelta(milliseconds=min(max(instant, 0), _LAST))


def _iso(instant: float) -> str:
    return _datetime(math.floor(instant)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Cookie:
    """The cookie of a session: what is set here is stored with the session and stands in `set_cookie`.

    Fields of the stored cookie that are not named here stay as they are.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        """For this package: `fields` as they are stored."""
        self._fields = {"expires": None, "path": "/", "httpOnly": True} | fields

    @classmethod
    def of(cls, options: Mapping[str, object]) -> "Cookie":
        """A new one. Checks the options."""
        cookie = cls({"originalMaxAge": None, "expires": None})
        for name, value in options.items():
            if name not in CookieOptions.__annotations__:
                known = ", ".join(CookieOptions.__annotations__)
                raise InvalidError(f"a cookie has no such option; it has {known} (max_age in seconds)")
            setattr(cookie, name, value)
        return cookie

    def __repr__(self) -> str:
        return f"<counterfoil.express.Cookie: path {self.path!r}, max_age {self.max_age}>"

    # ----------------------------------------------------------------------------------------------- how long it lives

    @property
    def original_max_age(self) -> float | None:
        """Seconds that it lives from each request on, as it was last set; None: until the browser is closed."""
        original = self._original()
        return None if original is None else original / 1000

    def _original(self) -> float | None:
        value = self._fields.get("originalMaxAge")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value

    @property
    def max_age(self) -> float | None:
        """Seconds until it expires; None: when the browser is closed. Setting it counts from now, and is what each
        `save` and `touch` begins anew."""
        instant = self._expiry()
        return None if instant is None else (instant - life.now()) / 1000

    @max_age.setter
    def max_age(self, seconds: float | None) -> None:
        if seconds is None:
            self._fields |= {"originalMaxAge": None, "expires": None}
            return
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InvalidTypeError(f"max_age must be seconds or None, not {type(seconds).__name__}")
        at = life.now()
        if not math.isfinite(seconds) or at + seconds * 1000 > _LAST:
            raise InvalidError("max_age must be seconds, to before the year 10000")
        milliseconds = round(seconds * 1000)
        self._fields |= {"originalMaxAge": milliseconds, "expires": _iso(at + milliseconds)}

    @property
    def expires(self) -> datetime | None:
        """When it expires (aware, in UTC); None: when the browser is closed. Setting it sets `max_age`."""
        instant = self._expiry()
        return None if instant is None else _datetime(instant)

    @expires.setter
    def expires(self, at: datetime | None) -> None:
        if at is None:
            self.max_age = None
            return
        if not isinstance(at, datetime):
            raise InvalidTypeError(f"expires must be a datetime or None, not {type(at).__name__}")
        if at.utcoffset() is None:
            raise InvalidError("expires must be an aware datetime, for example datetime.now(UTC) + timedelta(days=1)")
        instant = (at - _1970) // _MILLISECOND
        self._fields |= {"originalMaxAge": instant - life.now(), "expires": _iso(instant)}

    def _expiry(self) -> float | None:
        """Milliseconds since 1970. None: nothing is said, or no date."""
        stored = self._fields.get("expires")
        instant = _instant(stored) if stored else math.nan
        return instant if math.isfinite(instant) else None

    def begin_anew(self) -> None:
        """What express-session does at the end of each request."""
        original = self._original()
        if original is not None:
            self._fields["expires"] = _iso(life.now() + original)
        elif "originalMaxAge" in self._fields:
            self._fields["expires"] = None
        else:
            self._fields.pop("expires", None)  # written by another framework

    def revive(self) -> None:
        """A touch leaves the stored text as it is. So a session that is there, though its cookie says that it has ended
        or is about to, was touched since: its life is counted anew."""
        original, instant = self._original(), self._expiry()
        if original is None or original <= 0 or instant is None:
            return
        if instant - life.now() < min(original, life.MINUTE):
            self.begin_anew()

    # ------------------------------------------------------------------------------------------------------ attributes

    def _set(self, name: str, value: object) -> None:
        if value is None:
            self._fields.pop(name, None)
        else:
            self._fields[name] = value

    def _set_text(self, name: str, value: object, valid: Callable[[str], object]) -> None:
        if not isinstance(value, str):
            raise InvalidTypeError(f"{name} must be str, not {type(value).__name__}")
        if not valid(value):
            raise InvalidError(f"{name} is none that a cookie can have")
        self._fields[name] = value

    def _set_flag(self, name: str, value: object) -> None:
        if not isinstance(value, bool):
            raise InvalidTypeError(f'a flag of a cookie must be True or False ("auto" needs Express), not '
                                   f"{type(value).__name__}")  # fmt: skip
        self._fields[name] = value

    def _set_word(self, name: str, value: object, words: tuple[str, ...]) -> None:
        if value is not None and (not isinstance(value, str) or value not in words):
            raise InvalidError(f"{name} must be {', '.join(map(repr, words))} or None")
        self._set(name, value)

    @property
    def path(self) -> str:
        return str(self._fields["path"] or "")

    @path.setter
    def path(self, path: str) -> None:
        self._set_text("path", path, _PATH.fullmatch)

    @property
    def domain(self) -> str | None:
        """The host and its subdomains; None: this host alone."""
        return str(self._fields.get("domain") or "") or None

    @domain.setter
    def domain(self, domain: str | None) -> None:
        if domain is None:
            self._set("domain", None)
        else:
            self._set_text("domain", domain, _DOMAIN.fullmatch)

    @property
    def http_only(self) -> bool:
        return bool(self._fields["httpOnly"])

    @http_only.setter
    def http_only(self, flag: bool) -> None:
        self._set_flag("httpOnly", flag)

    @property
    def secure(self) -> bool:
        """Only over https. Express gives such a cookie only to requests that came so: do the same with `set_cookie`."""
        return bool(self._fields.get("secure"))

    @secure.setter
    def secure(self, flag: bool) -> None:
        self._set_flag("secure", flag)

    @property
    def partitioned(self) -> bool:
        return bool(self._fields.get("partitioned"))

    @partitioned.setter
    def partitioned(self, flag: bool) -> None:
        self._set_flag("partitioned", flag)

    @property
    def same_site(self) -> SameSite | None:
        word: SameSite | None = self._word("sameSite", _SAME_SITES)
        return word

    @same_site.setter
    def same_site(self, word: SameSite | None) -> None:
        self._set_word("sameSite", word, _SAME_SITES)

    @property
    def priority(self) -> Priority | None:
        word: Priority | None = self._word("priority", _PRIORITIES)
        return word

    @priority.setter
    def priority(self, word: Priority | None) -> None:
        self._set_word("priority", word, _PRIORITIES)

    def _word(self, name: str, words: tuple[str, ...]) -> Any:
        stored = self._fields.get(name)
        if not stored:
            return None
        if stored is True and name == "sameSite":
            return "strict"
        word = stored.lower() if isinstance(stored, str) else None
        if word not in words:
            raise CorruptError(f"the {name} of the stored cookie is none that a cookie can have")
        return word

    # ------------------------------------------------------------------------------------------------------- its forms

    def fields(self) -> dict[str, Any]:
        """As they are stored."""
        ordered = {name: self._fields[name] for name in _ORDER if name in self._fields}
        return ordered | self._fields

    def attributes(self, expires: datetime | None) -> str:
        """What stands behind the value in Set-Cookie."""
        text = ""
        for name, valid in (("Domain", _DOMAIN), ("Path", _PATH)):
            if value := self._fields.get(name.lower()):
                if not isinstance(value, str) or not valid.fullmatch(value):
                    raise CorruptError(f"the {name.lower()} of the stored cookie is none that a cookie can have")
                text += f"; {name}={value}"
        if expires is not None:
            text += f"; Expires={format_datetime(expires, usegmt=True)}"
        for name, flag in (("HttpOnly", self.http_only), ("Secure", self.secure), ("Partitioned", self.partitioned)):
            text += f"; {name}" if flag else ""
        for name, word in (("Priority", self.priority), ("SameSite", self.same_site)):
            text += f"; {name}={word.capitalize()}" if word else ""
        return text


def check_name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidTypeError(f"name must be str, not {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise InvalidError("name must be a cookie's name: letters, digits and some marks, without blanks")
    return name


def serialize(name: str, value: str, attributes: str) -> str:
    value = quote(value, safe="!~*'()")  # as encodeURIComponent
    return f"{name}={value}{attributes}"


def _decoded(value: str) -> str:
    """As decodeURIComponent, and what that refuses stays as it is."""
    if "%" not in value or _NO_ESCAPE.search(value):
        return value
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        return value


def find(cookies: Mapping[str, str] | str | None, name: str) -> str | None:
    """The value of the cookie with this name."""
    if cookies is None:
        return None
    if isinstance(cookies, Mapping):
        value = cookies.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidTypeError(f"cookies must map names to str, not to {type(value).__name__}")
        return None if value is None else _decoded(value)
    if not isinstance(cookies, str):
        raise InvalidTypeError(f"cookies must be a mapping or the header's text, not {type(cookies).__name__}")
    for pair in cookies.split(";"):
        key, equals, value = pair.partition("=")
        if equals and key.strip(" \t") == name:  # the first one counts
            value = value.strip(" \t")
            if value[:1] == '"' == value[-1:]:
                value = value[1:-1]
            return _decoded(value)
    return None


def _utf8(text: str) -> bytes:
    """Nothing where UTF-8 cannot say it."""
    try:
        return text.encode()
    except UnicodeError:
        return b""


class Signer:
    """Signs with the first secret, and believes all of them."""

    def __init__(self, secret: str | bytes | Iterable[str | bytes]) -> None:
        given = [secret] if isinstance(secret, str | bytes) else secret
        # What has no order of its own cannot say which one signs.
        if not isinstance(given, Iterable) or isinstance(given, Mapping | Set):
            raise InvalidTypeError(f"secret must be str, or a list of them, not {type(secret).__name__}")
        self._keys = [self._key(one) for one in given]
        if not self._keys:
            raise InvalidError("secret must have at least one secret: the newest first, it signs")

    @staticmethod
    def _key(secret: object) -> "hmac.HMAC":
        if not isinstance(secret, str | bytes):
            raise InvalidTypeError(f"a secret must be str or bytes, not {type(secret).__name__}")
        key = secret if isinstance(secret, bytes) else _utf8(secret)
        if not key:  # no context of ours, it would quote the secret
            raise InvalidError("a secret must not be empty, nor have lone surrogates")
        return hmac.new(key, digestmod=hashlib.sha256)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} secrets>"

    @staticmethod
    def _signature(session_id: bytes, key: "hmac.HMAC") -> bytes:
        mac = key.copy()
        mac.update(session_id)
        return base64.b64encode(mac.digest()).rstrip(b"=")

    def sign(self, session_id: str) -> str:
        if not isinstance(session_id, str):
            raise InvalidTypeError(f"a session id must be str, not {type(session_id).__name__}")
        raw = _utf8(session_id)
        if not raw:
            raise InvalidError("a session id must be text that is not empty, without lone surrogates")
        return f"s:{session_id}.{self._signature(raw, self._keys[0]).decode()}"

    def unsign(self, value: str) -> str | None:
        """The session id, or None: it is not signed, or by somebody else."""
        session_id, dot, signature = value[2:].rpartition(".")
        if not value.startswith("s:") or not dot:
            return None
        raw, given = _utf8(session_id), _utf8(signature)
        if not raw:
            return None
        # All are asked, and in full: the time tells nothing.
        matches = [hmac.compare_digest(self._signature(raw, key), given) for key in self._keys]
        return session_id if any(matches) else None
