"""Plays the steps of tests/cases that are about AccountsStorage and SessionStorage."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import counterfoil
import counterfoil.aio
from counterfoil.testing import Stage

Value = Callable[[Any], Any]
Finish = Callable[[Any], Awaitable[Any]]

_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_ACCOUNTS = ("max_social_accounts",)
_SESSIONS = ("max_sessions", "when_full", "retention")
_MUST = {  # what these methods insist on: a step that does not say it gives None
    "accounts.create_user": ("user_info",),
    "accounts.create_social_account": ("user_id", "provider", "provider_user_id"),
    "accounts.find_or_create_by_social_account": ("provider", "provider_user_id"),
    "sessions.create": ("token_hash", "user_id", "created_at", "updated_at", "expires_at"),
    "sessions.refresh": ("updated_at", "expires_at"),
    "sessions.revoke": ("revoked_at",),
    "sessions.revoke_all_for_user": ("revoked_at",),
}
_FIRST = {"sessions.list_for_user": "user_id", "sessions.revoke_all_for_user": "user_id", "sessions.epoch": "user_id"}
_GIVE_NOTHING = ("accounts.delete_social_account", "sessions.revoke")


def is_instant(name: str) -> bool:
    return name.endswith("_at") or name == "now"


class RecordPlayer:
    def __init__(self, store: Any, stage: Stage, options: dict[str, Any], value: Value, finish: Finish) -> None:
        module: Any = counterfoil if isinstance(store, counterfoil.Store) else counterfoil.aio
        self.stage = stage
        self.value = value
        self.finish = finish
        self.known: dict[str, Any] = {}
        self.accounts = module.AccountsStorage(store, **{name: options[name] for name in _ACCOUNTS if name in options})
        self.sessions = module.SessionStorage(store, **{name: options[name] for name in _SESSIONS if name in options})

    def instant(self, said: Any) -> Any:
        if isinstance(said, dict) and list(said) == ["in"]:
            return self.stage.now() + timedelta(seconds=said["in"])
        said = self.value(said)
        if isinstance(said, bool) or not isinstance(said, int):
            return said
        try:
            return _1970 + timedelta(microseconds=said)
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)

    def said(self, name: str, said: Any) -> Any:
        if name == "user" and isinstance(said, dict):
            return {each: self.said(each, inner) for each, inner in said.items()}
        if is_instant(name):
            return self.instant(said)
        if name in ("user_info", "extra_fields"):
            return self.value(said) if isinstance(said, dict) and "wrong_type" in said else said
        said = self.value(said)
        return self.known[said[1:]] if isinstance(said, str) and said.startswith("$") else said

    async def call(self, step: dict[str, Any]) -> Any:
        do = step["do"]
        arguments = {name: self.said(name, said) for name, said in step.get("args", {}).items()}
        for name in _MUST.get(do, ()):
            arguments.setdefault(name, None)
        if do in ("sessions.list_for_user", "sessions.get"):
            arguments.setdefault("now", self.stage.now())
        first = _FIRST.get(do, "id")
        positional = (arguments.pop(first),) if first in arguments else ()
        interface, method = do.split(".")
        return await self.finish(getattr(getattr(self, interface), method)(*positional, **arguments))

    async def step(self, step: dict[str, Any]) -> None:
        do = step["do"]
        if "error" in step:
            try:
                result = await self.call(step)
            except counterfoil.Error as error:
                assert (error.code, error.outcome) == (step["error"], "not_applied"), f"{step}: {error!r}"
                if "existing" in step:
                    assert isinstance(error, counterfoil.ExistsError)
                    self.compare(step, error.existing, step["existing"])
                return
            raise AssertionError(f"{step} gave {result!r}")
        result = await self.call(step)
        if do == "accounts.find_or_create_by_social_account":
            user, account, created = result
            self.remember(step, account)
            if "user_as" in step:
                self.known[step["user_as"]] = user.id
            result = {"user": user, "social_account": account, "created": created}
        else:
            self.remember(step, result)
        if do == "sessions.list_for_user":
            if "more" in step:
                assert (result.next_cursor is not None) == step["more"], f"{step} gave {result!r}"
            result = list(result.records)
        if "expect_length" in step:
            assert len(result) == len({each.id for each in result}) == step["expect_length"], f"{step} gave {result}"
        if "expect" in step and do not in _GIVE_NOTHING:
            self.compare(step, result, step["expect"])

    def remember(self, step: dict[str, Any], result: Any) -> None:
        if "as" not in step:
            return
        if isinstance(result, int):
            self.known[step["as"]] = result
        else:
            self.known[step["as"]] = result.next_cursor if hasattr(result, "next_cursor") else result.id

    def compare(self, step: dict[str, Any], result: Any, expected: Any) -> None:
        if isinstance(expected, list):
            assert len(result) == len(expected), f"{step} gave {result!r}"
            for each, wanted in zip(result, expected, strict=True):
                self.compare(step, each, wanted)
        elif isinstance(expected, dict) and isinstance(result, dict):
            assert result.keys() == expected.keys() or expected.keys() < result.keys()
            for name, wanted in expected.items():
                self.compare(step, result[name], wanted)
        elif isinstance(expected, dict):
            assert result is not None, f"{step} gave nothing"
            for name, wanted in expected.items():
                got, wanted = getattr(result, name), self.said(name, wanted)
                assert (type(got), got) == (type(wanted), wanted), f"{step}: {name} is {got!r}"
        else:
            wanted = self.said("", expected)
            assert (type(result), result) == (type(wanted), wanted), f"{step} gave {result!r}"


def speaks_of_now(said: Any) -> bool:
    """Whether a case needs a clock that stands still."""
    if isinstance(said, dict):
        return list(said) == ["in"] or any(speaks_of_now(each) for each in said.values())
    return isinstance(said, list) and any(speaks_of_now(each) for each in said)
