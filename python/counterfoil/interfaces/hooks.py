"""The methods of an AccountsStorage, done by an application on tables of its own: what stands between them and the
native module. `AccountsStorage` says what a method gets and gives."""

import inspect
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .. import _native
from ..errors import CorruptError, InvalidTypeError, NotSupportedError
from ..store import Listeners, Store
from .records import Fields, dump, id_text, instant, load, moment, sayable

if TYPE_CHECKING:
    from ..aio import AsyncStore

__all__ = ["HookedStore", "hooked_async_store"]

_IS_HOOKS = 512
_METHODS = (
    "find_user_by_email", "find_user_by_id", "create_user", "update_user", "delete_user", "find_social_account",
    "find_social_account_by_id", "list_social_accounts", "create_social_account", "update_social_account",
    "delete_social_account", "find_or_create_by_social_account",
)  # fmt: skip

_ABSENT = object()

# What came with a later release, and what it was before there was such an argument.
_LATER: dict[str, tuple[Any, ...]] = {
    "email": (_ABSENT,), "email_verified": (_ABSENT,), "provider_email": (_ABSENT,),
    "provider_email_verified": (_ABSENT,), "email_key": (_ABSENT,), "hashed_password": (None,),
    "extra_fields": (None, {}), "is_login_method": (True,),
}  # fmt: skip
_MAY_GO = ("email", "email_verified", "provider_email", "provider_email_verified", "email_key")

# name: (types, what a record without it has); no default: it must be there. Ids and instants go their own ways.
_TEXT, _FLAG, _JSON, _INSTANT, _ID = "str", "bool", "JSON", "datetime", "an id"
_FIELDS: dict[str, dict[str, tuple[str, Any]]] = {
    "user": {
        "id": (_ID, _ABSENT), "email": (_TEXT, None), "email_verified": (_FLAG, False),
        "hashed_password": (_TEXT, None), "user_info": (_JSON, None), "extra_fields": (_JSON, None),
        "created_at": (_INSTANT, 0), "updated_at": (_INSTANT, 0),
    },
    "social_account": {
        "id": (_ID, _ABSENT), "user_id": (_ID, _ABSENT), "provider": (_TEXT, _ABSENT),
        "provider_user_id": (_ID, _ABSENT), "provider_email": (_TEXT, None), "provider_email_verified": (_FLAG, None),
        "is_login_method": (_FLAG, True), "access_token": (_TEXT, None), "refresh_token": (_TEXT, None),
        "access_token_expires_at": (_INSTANT, None), "refresh_token_expires_at": (_INSTANT, None),
        "scope": (_TEXT, None), "user_info": (_JSON, None), "extra_fields": (_JSON, None),
        "created_at": (_INSTANT, 0), "updated_at": (_INSTANT, 0),
    },
}  # fmt: skip

Answer = tuple[bool, int, list[tuple[str, Fields]]]


class Hooks:
    """The object that the native module calls: `hook(method, record, user)` gives (hit, number, records), or an
    awaitable of that."""

    def __init__(self, target: object, *, blocking: bool) -> None:
        self._target = target
        self._name = type(target).__name__
        self._blocking = blocking
        self._takes: dict[str, frozenset[str] | None] = {}
        if inspect.isclass(target):
            raise InvalidTypeError(f"AccountsStorage takes a store or hooks: {target.__name__} is a class, call it")
        for method in _METHODS:
            function = getattr(target, method, None)
            if function is None:
                continue
            if not callable(function):
                raise InvalidTypeError(f"{self._name}.{method} must be a method, not {type(function).__name__}")
            if blocking and inspect.iscoroutinefunction(function):
                raise InvalidTypeError(
                    f"{self._name}.{method} is a coroutine function: use counterfoil.aio.AccountsStorage, or write "
                    "plain methods for the blocking one"
                )
            self._takes[method] = _parameters(function)
        if not self._takes:
            raise InvalidTypeError(
                f"AccountsStorage takes a store or an object with its methods, and {self._name} has none of them"
            )

    def hook(self, method: str, record: Fields, user: Fields | None) -> "Answer | Awaitable[Answer]":
        if method not in self._takes:
            raise NotSupportedError(f"{self._name} has no method {method}")
        positional, named = self._arguments(method, record, user)
        given = getattr(self._target, method)(*positional, **named)
        if not inspect.isawaitable(given):
            return self._answer(method, given)
        if self._blocking:
            if inspect.iscoroutine(given):
                given.close()
            raise InvalidTypeError(f"{self._name}.{method} must return a value here, not an awaitable")
        return self._later(method, given)

    async def _later(self, method: str, given: Awaitable[Any]) -> Answer:
        return self._answer(method, await given)

    # ---- what it gets ----

    def _arguments(self, method: str, record: Fields, user: Fields | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if method == "find_user_by_email":
            return (record["email_key"],), {}
        said = _said(record)
        positional: tuple[Any, ...] = (said.pop("id"),) if "id" in said else ()
        if method == "create_user":
            said.setdefault("user_info", None)
            self._old_email(method, said)
        if user is not None:
            said["user"] = _said(user)
        return positional, {name: value for name, value in said.items() if self._wants(method, name, value)}

    def _old_email(self, method: str, said: dict[str, Any]) -> None:
        """The oldest form takes user_info alone."""
        takes = self._takes[method]
        if takes is not None and "email" not in takes and said.get("email") is not None:
            said["user_info"] = {**(said["user_info"] or {}), "email": said["email"]}

    def _wants(self, method: str, name: str, value: Any) -> bool:
        takes = self._takes[method]
        if takes is not None and name in takes:
            return True
        if name == "email_key":  # never to **kwargs: it is no column of theirs unless they say so
            return False
        if takes is None or name not in _LATER:
            return True
        if name in _MAY_GO or value in _LATER[name]:
            return False
        raise NotSupportedError(f"{self._name}.{method} takes no {name}")

    # ---- what it gives ----

    def _answer(self, method: str, given: Any) -> Answer:
        if method.startswith("delete"):
            if not isinstance(given, bool | None):
                raise self._wrong(method, "bool or None", given)
            return given is not False, 0, []
        if method.startswith("list"):
            if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
                raise self._wrong(method, "social accounts", given)
            return True, 0, [self._record(method, "social_account", each) for each in given]
        if method.startswith("find_or_create"):
            if not isinstance(given, tuple) or len(given) != 3 or not isinstance(given[2], bool):
                raise self._wrong(method, "(user, social account, whether they were made)", given)
            account, user = self._record(method, "social_account", given[1]), self._record(method, "user", given[0])
            return True, int(given[2]), [account, user]
        kind = "social_account" if "social" in method else "user"
        if given is None and not method.startswith("create"):
            return False, 0, []
        return True, 0, [self._record(method, kind, given)]

    def _record(self, method: str, kind: str, given: Any) -> tuple[str, Fields]:
        fields: Fields = {}
        for name, (wanted, otherwise) in _FIELDS[kind].items():
            value = given.get(name, _ABSENT) if isinstance(given, Mapping) else getattr(given, name, _ABSENT)
            if value is _ABSENT or (value is None and otherwise is not None):
                if otherwise is _ABSENT:
                    if value is None or isinstance(given, Mapping) or hasattr(given, "id"):
                        raise self._corrupt(method, f"gave a {kind} without {name}")
                    raise self._wrong(method, f"a {kind}", given)
                fields[name] = otherwise
            else:
                fields[name] = self._value(method, name, wanted, value)
        return kind, fields

    def _value(self, method: str, name: str, wanted: str, value: Any) -> Any:
        if wanted is _ID:
            text = id_text(value)
            return str(value) if text is None and not isinstance(value, str | bool | float) else text
        if value is None:
            return None
        try:
            if wanted is _INSTANT:
                return instant(value, name)
            if wanted is _JSON:
                return dump(dict(value) if isinstance(value, Mapping) else value, name)
        except (TypeError, ValueError):
            pass
        else:
            if wanted is _TEXT and isinstance(value, str):
                if sayable(value):
                    return str(value)
                raise self._corrupt(method, f"gave {name} with a lone surrogate, which is not text")
            if wanted is _FLAG and isinstance(value, bool):
                return value
        raise self._corrupt(method, f"must give {name} as {wanted}, not {type(value).__name__}")

    def _wrong(self, method: str, wanted: str, given: Any) -> CorruptError:
        return self._corrupt(method, f"must return {wanted}, not {type(given).__name__}")

    def _corrupt(self, method: str, problem: str) -> CorruptError:
        """What only reads has changed nothing; what a method that writes has done is its own affair."""
        reads = method.startswith(("find", "list")) and not method.startswith("find_or_create")
        return CorruptError(f"{self._name}.{method} {problem}", outcome="not_applied" if reads else "unknown")


def _parameters(function: Any) -> frozenset[str] | None:
    """The names that it takes; None: any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    names = {each.name for each in parameters}
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return _Anything(names)
    return frozenset(names)


class _Anything(frozenset[str]):
    """It has **kwargs: it takes all but what only a name of its own can ask for."""

    def __contains__(self, name: object) -> bool:
        return name != "email_key" or super().__contains__(name)


def _said(record: Fields) -> dict[str, Any]:
    """The fields of a record as arguments."""
    said: dict[str, Any] = {}
    for name, value in record.items():
        if name in ("user_info", "extra_fields"):
            said[name] = load(value, name)
        elif name.endswith("_at"):
            said[name] = None if value is None else moment(value)
        else:
            said[name] = value
    return said


class HookedStore(Store):
    """A store that keeps no keys, over hooks."""

    def __init__(self, hooks: object, rest: bytes, timeout: float, stage: _native.Stage | None) -> None:
        self._name = type(hooks).__name__
        self._listeners = Listeners()
        target = Hooks(hooks, blocking=True)
        self._open(target, _IS_HOOKS, "", None, timeout, stage, None, 64, rest)
        self._timeout = float(timeout)


def hooked_async_store(hooks: object, rest: bytes, timeout: float, stage: _native.Stage | None) -> "AsyncStore":
    from ..aio import AsyncStore

    store = AsyncStore.__new__(AsyncStore)
    target = Hooks(hooks, blocking=False)
    store._begin(target, "", None, timeout, stage, rest, {}, _IS_HOOKS)
    return store
