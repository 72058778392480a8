"""No secret anywhere but where it belongs: every secret is a marker, and everything that a store leaves behind is
searched for the markers, as they are and in hex and base64: files, what a server has and tells, output, errors.

As a program (`python test_canaries.py`) it makes every error there is and shows all that it can get hold of; the test
searches what it has printed. Nothing here says a marker in one piece, so a line of this file in a traceback is none.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import itertools
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import counterfoil
import counterfoil.aio
import pytest
from counterfoil.testing import Stage

HERE = Path(__file__)
NAMES = ("key", "value", "state", "code", "access", "refresh", "hash", "mail", "token", "info", "login", "ring")
MARKERS = {name: f"{'CANARY'}-{name}-marker" for name in NAMES}
MARKERS["mail"] = MARKERS["mail"] + "@example.org"
RING = {1: MARKERS["ring"].encode().ljust(32, b"!")}
REST: dict[str, Any] = {"keys": RING, "seal_values": True, "hash_keys": True}
S = SimpleNamespace(**MARKERS)
HOUR = timedelta(hours=1)
# Records are found by these and compared by these: they are in the data, and in what a server is asked for it.
RECORDS = ("hash", "mail", "token", "info")
# Sealed, hashed, or never written.
SEALED = tuple(name for name in NAMES if name not in RECORDS)


# ------------------------------------------------------------------------------------------------------------- the scan


def disguises(name: str) -> dict[str, bytes]:
    """A marker as it may be written; its beginning only, since what is cut off is shown all the same."""
    raw = f"{'CANARY'}-{name}-".encode()
    found = {"raw": raw, "small": raw.lower(), "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    found["utf-16"] = raw.decode().encode("utf-16-le")
    for shift in range(3):
        # What stands around it changes the first and the last letters only.
        whole = base64.b64encode(b"\0" * shift + raw)
        found[f"base64 {shift}"] = whole[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
    return found


def leaks(where: str, data: bytes, names: tuple[str, ...] = NAMES) -> list[str]:
    return [
        f"{name} ({how}) in {where}: ...{data[max(0, data.index(form) - 60) : data.index(form) + 40]!r}"
        for name in names
        for how, form in disguises(name).items()
        if form in data
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_scan_finds_what_is_there(name: str) -> None:
    marker = MARKERS[name].encode()
    for before, after in itertools.product((b"", b"x", b"xy", b"xyz"), repeat=2):
        for form in (bytes, bytes.hex, base64.b64encode, base64.urlsafe_b64encode):
            written = form(before + marker + after)
            data = written.encode() if isinstance(written, str) else written
            (first, *_) = leaks("it", b"\xff\0" + data + b"\n", (name,))
            assert first.startswith(f"{name} (")
    assert leaks("it", MARKERS[name].encode("utf-16-le"), (name,))
    assert leaks("it", marker.replace(b"-", b"_"), (name,)) == []


# -------------------------------------------------------------------------------------------------- what a store leaves


def work(store: counterfoil.Store) -> None:
    """Something of everything, some of which goes again."""
    storage, secondary = counterfoil.Storage(store), counterfoil.SecondaryStorage(store)
    accounts, sessions = counterfoil.AccountsStorage(store), counterfoil.SessionStorage(store)
    now = datetime.now(UTC)
    for number in range(3):
        store.set(f"{S.key} {number}", f"{S.value} {number}", ttl=600)
        store.set(f"{S.key} {number}", S.value.encode(), if_present=True, keep_ttl=True)
        store.set(f"{S.key} {number}", S.value, if_absent=True)
        store.touch(f"{S.key} {number}", 500)
        assert store.get(f"{S.key} {number}") == S.value
        storage.set(f"{S.key} state {number}", {"a": S.state})
        secondary.set(f"{S.key} code {number}", S.code, 60)
    assert store.pop(f"{S.key} 0") == S.value
    assert store.delete(f"{S.key} 1")
    assert secondary.pop(f"{S.key} code 0") == S.code
    user = accounts.create_user(user_info={"a": S.info}, email=S.mail, hashed_password=S.hash)
    account = accounts.create_social_account(
        user_id=user.id, provider="p", provider_user_id="1", access_token=S.access, refresh_token=S.refresh
    )
    accounts.update_social_account(account.id, access_token=S.access + " again")
    (found,) = accounts.list_social_accounts(user_id=user.id)
    assert (found.access_token, found.refresh_token) == (S.access + " again", S.refresh)
    for number in range(2):
        made = sessions.create(
            token_hash=f"{S.token} {number}", user_id=user.id, created_at=now, updated_at=now, expires_at=now + HOUR
        )
    sessions.refresh(made.id, updated_at=now, expires_at=now + 2 * HOUR)
    sessions.revoke_all_for_user(user.id, revoked_at=now, except_session_id=made.id)
    store.stats()


def files_of(folder: Path, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name not in but
    }


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
def test_the_files_of_sqlite(sealed: bool, tmp_path: Path) -> None:
    with counterfoil.open(f"sqlite:{tmp_path / 'canaries.db'}", **(REST if sealed else {})) as store:
        work(store)
        during = files_of(tmp_path)
    left = {"during": b"\n".join(during.values()), "after": b"\n".join(files_of(tmp_path).values())}
    assert {"canaries.db", "canaries.db-wal"} <= during.keys()
    for when, data in left.items():
        assert leaks(when, data, ("login", "ring")) == []
        if sealed:
            assert leaks(when, data, SEALED) == []
        for name in RECORDS if sealed else (*RECORDS, "key", "value", "state", "code", "access", "refresh"):
            assert leaks(when, data, (name,)), f"{name}: the scan looks where the data is not"


class Monitor:
    """What MONITOR tells while it runs."""

    def __init__(self, server: Any) -> None:
        self.data = b""
        self._connection = server.connect()
        assert self._connection.call("MONITOR") == "OK"
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := self._connection.reader.readline():
                self.data += line

    def end(self, server: Any) -> bytes:
        """All of it."""
        server.cli("ECHO", "the end of it")
        limit = time.monotonic() + 10
        while b"the end of it" not in self.data:
            assert time.monotonic() < limit, "MONITOR says nothing"
            time.sleep(0.01)
        self._connection.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()
        return self.data


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
def test_what_redis_has_and_tells(sealed: bool, tmp_path: Path) -> None:
    from faults.servers import RedisServer

    config = {
        "slowlog-log-slower-than": 0, "slowlog-max-len": 100000, "rdbcompression": "no", "aof-use-rdb-preamble": "no",
        "loglevel": "debug", "latency-monitor-threshold": 1,
    }  # fmt: skip
    folder = tmp_path / "redis"
    with RedisServer(persistence="aof-always", password=S.login, config=config, folder=folder) as server:
        monitor = Monitor(server)
        with counterfoil.open(server.url(), prefix="p:", **(REST if sealed else {})) as store:
            work(store)
            clients = server.cli("CLIENT", "LIST")
        watched = monitor.end(server)
        server.cli("SAVE")
        slow = repr(server.cli("SLOWLOG", "GET", "-1")).encode()
        told = clients + server.cli("INFO", "everything") + repr(server.cli("ACL", "LOG")).encode()
        server.cli("LATENCY", "RESET")
        left = files_of(folder, ("redis.conf",))
    log = left.pop("redis.log")
    data = b"\n".join(left.values())
    assert b"counterfoil" in clients
    assert b"Background" in log or b"DB saved" in log
    assert any(name.endswith(".rdb") for name in left)
    assert any(name.endswith(".aof") for name in left)
    assert leaks("CLIENT LIST, INFO, ACL LOG", told) == []
    assert leaks("the log", log) == []
    for where, seen in {"the data": data, "MONITOR": watched, "SLOWLOG": slow}.items():
        assert leaks(where, seen, ("login", "ring")) == []
        if sealed:
            assert leaks(where, seen, SEALED) == []
        for name in ("mail", "token") if sealed else ("mail", "token", "key", "value", "state", "code", "access"):
            assert leaks(where, seen, (name,)), f"{name}: the scan looks where {where} is not"


# ------------------------------------------------------------------------------------------- what a program gets to see


class Shower:
    """Prints all that there is to see of an object, as programs and their loggers do."""

    def __init__(self) -> None:
        self.codes: set[str] = set()
        self.log = logging.getLogger("shower")

    def show(self, what: object) -> None:
        print(what, repr(what), f"{what!s} {what!r} {what!a}")
        with contextlib.suppress(TypeError):
            print(vars(what))
        try:
            print(pickle.dumps(what))
        except Exception as error:
            print("no pickle:", repr(error))

    def error(self, error: BaseException) -> None:
        self.codes.add(getattr(error, "code", type(error).__name__))
        seen: list[BaseException] = []
        rest: list[BaseException | None] = [error]
        while rest:
            one = rest.pop()
            if one is None or one in seen:
                continue
            seen.append(one)
            rest += [one.__cause__, one.__context__]
            self.show(one)
            print(one.args, getattr(one, "__notes__", None), getattr(one, "existing", None))
        print("".join(traceback.format_exception(error)))
        self.log.exception("it failed", exc_info=error)

    def failing(self, call: Callable[[], object], surely: bool = True) -> None:
        """A call that must fail; or may."""
        try:
            given = call()
        except Exception as error:
            self.error(error)
            return
        if surely:
            print(f"it did not fail: {call!r}, {type(given).__name__}")

    async def awaited(self, awaitable: Any) -> Any:
        try:
            return await awaitable
        except Exception as error:
            self.error(error)


class Kept(counterfoil.Backend):
    """A backend of Python over a dict; a method that is named in `bad` gives or raises that instead."""

    single_process = True
    keeps_ttl = True
    binary = True

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.bad: dict[str, Any] = {}

    def _given(self, name: str, otherwise: Any) -> Any:
        given = self.bad.get(name, otherwise)
        if isinstance(given, Exception):
            raise given
        return given

    def get(self, key: str) -> Any:
        return self._given("get", self.data.get(key))

    def set(self, key: str, value: Any, ttl: object) -> Any:
        self.data[key] = value
        return self._given("set", None)

    def delete(self, key: str) -> Any:
        return self._given("delete", self.data.pop(key, None) is not None)

    def scan(self, prefix: str, cursor: Any, limit: int) -> Any:
        return self._given("scan", [key for key in self.data if key.startswith(prefix)])

    def close(self) -> None:
        self._given("close", None)


def bad_calls(store: Any) -> list[Callable[[], object]]:
    """Each is to fail, with a secret in its hands."""
    lone, long = S.value + "\ud800", S.value * 100000
    return [
        *(
            (lambda key=key, call=call: call(key))
            for key in (S.key * 99, S.key + "\ud800", S.key + "\0", S.key + "\r\n", S.key.encode(), [S.key], {S.key: 1})
            for call in (
                store.get, store.get_bytes, store.pop, store.pop_bytes, store.delete, store.incr,
                lambda key: store.set(key, S.value), lambda key: store.touch(key, 5), lambda key: store.get_many([key]),
            )
        ),
        *((lambda value=value: store.set(S.key, value)) for value in (lone, long, [S.value], {S.value}, 5, None)),
        *((lambda ttl=ttl: store.set(S.key, S.value, ttl=ttl)) for ttl in (S.value, -1, 1e300, [S.value])),
        *((lambda ttl=ttl: store.touch(S.key, ttl)) for ttl in (S.value, 0, None)),
        *((lambda by=by: store.incr(S.key, by)) for by in (S.value, 2**60, 1.5, [S.value])),
        lambda: store.set(S.key, S.value, expires_at=S.value),
        lambda: store.set(S.key, S.value, expires_at=datetime(2030, 1, 1)),
        lambda: store.set(S.key, S.value, if_equal=lone),
        lambda: store.set(S.key, S.value, if_equal=[S.value]),
        lambda: store.set(S.key, S.value, if_absent=S.value),
        lambda: store.set(S.key, S.value, if_absent=True, if_present=True),
        lambda: store.set(S.key, S.value, ttl=5, keep_ttl=True),
        lambda: store.set(S.key, S.value, receipt=S.value),
        lambda: store.pop(S.key, receipt=S.value),
        lambda: store.pop(S.key, receipt=S.value.encode()),
        lambda: store.get(S.key, S.value),
        lambda: store.set(S.key),
        lambda: store.get_many(S.key),
        lambda: store.get_many(5),
        lambda: store.count(S.key * 100),
        lambda: store.count(S.key.encode()),
        lambda: store.clear(S.key + "\0"),
        lambda: store.clear("", S.value),
    ]  # fmt: skip


def bad_openings() -> list[Callable[[], object]]:
    def opening(url: object = "memory:", **options: Any) -> Callable[[], object]:
        return lambda: counterfoil.open(url, **options)

    return [
        *(
            opening(url)
            for url in (
                f"{S.login}://host", f"redis://user:{S.login}@[::1", f"redis://user:{S.login}@host:port",
                f"redis://user:{S.login}@host/{S.login}", f"redis://:{S.login}@host?{S.login}=1",
                f"redis://:{S.login}@host?db={S.login}", f"redis://:{S.login}@host?password=%zz{S.login}",
                f"redis://:{S.login}\n@host", f"redis://:{S.login}\ud800@host", f"redis://:{S.login}@/x?silence={S.login}",
                f"rediss://:{S.login}@host?tls_ca=/{S.login}", f"memory:?{S.login}=1", f"memory:?max_entries={S.login}",
                f"sqlite:/nowhere/{S.login}/x.db", f"sqlite:x.db?{S.login}=1", f"redis://:{S.login * 1000}@host",
                S.login.encode(), [S.login], 5,
            )
        ),
        *(
            opening(f"redis://user:{S.login}@host:6379", **options)
            for options in (
                {"password": S.login + "\ud800"}, {"password": [S.login]}, {"password": S.login, "user": S.login},
                {"name": S.login + " \n"}, {"prefix": S.key * 100}, {"prefix": S.key.encode()}, {"ttl": S.value},
                {"timeout": S.value}, {"max_connections": S.value}, {"stage": S.value}, {"keys": S.ring},
                {"keys": {1: S.ring}, "seal_values": True}, {"keys": {1: RING[1][1:]}, "seal_values": True},
                {"keys": {S.ring: RING[1]}}, {"keys": [(1, RING[1]), (1, RING[1])]}, {"keys": [RING[1]]},
                {"keys": {2**40: RING[1]}}, {"seal_values": S.value}, {"hash_keys": S.value}, {"unknown": S.value},
            )
        ),
        opening(Kept(), password=S.login),
        opening(Kept, keys=RING),
    ]  # fmt: skip


def bad_records(store: counterfoil.Store) -> list[Callable[[], object]]:
    accounts, now = counterfoil.AccountsStorage(store, max_social_accounts=1), datetime.now(UTC)
    sessions = counterfoil.SessionStorage(store, max_sessions=1, when_full="refuse")
    user = accounts.create_user(user_info={"a": S.info}, email=S.mail, hashed_password=S.hash)
    tokens = {"access_token": S.access, "refresh_token": S.refresh, "provider": S.key, "provider_user_id": S.key}
    account = accounts.create_social_account(user_id=user.id, **tokens)
    times = {"created_at": now, "updated_at": now, "expires_at": now + HOUR}
    epoch = sessions.epoch("late")
    sessions.revoke_all_for_user("late", revoked_at=now)
    session = sessions.create(token_hash=S.token, user_id=user.id, **times)
    for shown in (user, account, session, sessions.list_for_user(user.id, now=now), accounts, sessions):
        print(shown, repr(shown), f"{shown}")
        with contextlib.suppress(TypeError):
            json.dumps(shown)
    loop: dict[str, Any] = {"a": S.info}
    loop[S.info] = loop

    def new(**said: Any) -> Callable[[], object]:
        return lambda: accounts.create_user(**{"user_info": {}, **said})

    def session_of(**said: Any) -> Callable[[], object]:
        return lambda: sessions.create(**{"token_hash": S.token, "user_id": user.id, **times, **said})

    return [
        new(email=S.mail), new(email=S.mail.upper()), new(email=S.mail + "\n"), new(email=S.mail * 100),
        new(email=[S.mail]), new(email=S.mail.encode()), new(email=S.mail + "\ud800"), new(email_verified=S.mail),
        new(hashed_password=S.hash.encode()), new(hashed_password=S.hash + "\0"), new(hashed_password=S.hash * 10000),
        new(user_info=loop), new(user_info={S.info: float("nan")}), new(user_info={S.info: {1}}),
        new(extra_fields={S.info: S.info * 100000}),
        lambda: accounts.update_user("f" * 32, email=S.mail),
        lambda: accounts.update_user([S.key], email=S.mail),
        lambda: accounts.find_user_by_email(S.mail.encode()),
        lambda: accounts.find_user_by_email([S.mail]),
        lambda: accounts.create_social_account(user_id="f" * 32, **{**tokens, "provider": "q"}),
        lambda: accounts.create_social_account(user_id=user.id, **{**tokens, "provider": "q"}),
        lambda: accounts.create_social_account(user_id=user.id, **tokens),
        lambda: accounts.create_social_account(user_id=user.id, **{**tokens, "access_token": S.access.encode()}),
        lambda: accounts.create_social_account(user_id=user.id, **{**tokens, "refresh_token": S.refresh + "\0"}),
        lambda: accounts.create_social_account(user_id=user.id, **{**tokens, "provider": [S.key]}),
        lambda: accounts.create_social_account(user_id=[S.key], **tokens),
        lambda: accounts.update_social_account(account.id, access_token=S.access * 10000),
        lambda: accounts.update_social_account("f" * 32, access_token=S.access),
        lambda: accounts.find_or_create_by_social_account(provider="q", provider_user_id="2", user={"email": S.mail}),
        lambda: accounts.find_or_create_by_social_account(provider="q", provider_user_id="2", user={S.mail: 1}),
        lambda: accounts.find_or_create_by_social_account(provider="q", provider_user_id="2", user=S.mail),
        session_of(), session_of(token_hash=S.token + "2"), session_of(token_hash=S.token * 100),
        session_of(token_hash=S.token.encode()), session_of(token_hash=S.token + "\0"),
        session_of(token_hash=S.token + "3", user_id="late", epoch=epoch),
        session_of(epoch=S.token), session_of(expires_at=S.token), session_of(user_id=[S.key]),
        session_of(ip=[S.info]), session_of(user_agent=S.info + "\ud800"), session_of(client_name=S.info * 10000),
        lambda: sessions.get(token_hash=[S.token], now=now),
        lambda: sessions.get(token_hash=S.token, now=S.token),
        lambda: sessions.list_for_user(user.id, now=now, cursor=S.key),
        lambda: sessions.list_for_user(user.id, now=now, cursor=[S.key]),
        lambda: sessions.list_for_user(user.id, now=now, order_by=S.key),
        lambda: sessions.list_for_user(user.id, now=now, status=S.key),
        lambda: sessions.list_for_user(user.id, now=now, limit=S.key),
        lambda: sessions.refresh(session.id, updated_at=S.key, expires_at=now),
        lambda: counterfoil.SessionStorage(store, when_full=S.key),
        lambda: counterfoil.SessionStorage(store, retention=S.key),
        lambda: counterfoil.AccountsStorage(S.key),
        lambda: counterfoil.AccountsStorage(S),
    ]  # fmt: skip


def bad_hooks() -> Iterator[Callable[[], object]]:
    """Hooks that give what is none, or what is somebody's; and those that raise."""

    def tables(**methods: Any) -> counterfoil.AccountsStorage:
        made = type("Tables", (), {name: lambda *_, given=given, **__: given for name, given in methods.items()})
        return counterfoil.AccountsStorage(made(), keys=RING)

    for given in (S.info, [S.mail], {"email": S.mail}, {"id": "1", "email": [S.mail]},
                  {"id": "1", "user_info": {S.info: {1}}}, {"id": "1", "created_at": S.info},
                  {"id": "1", "hashed_password": S.hash.encode()}, SimpleNamespace(email=S.mail)):  # fmt: skip
        yield lambda given=given: tables(find_user_by_email=given).find_user_by_email(S.mail)
        yield lambda given=given: tables(create_user=given).create_user(user_info={}, email=S.mail)
    account = {"id": "1", "user_id": "1", "provider": "p", "provider_user_id": "1"}
    for given in (S.access, {**account, "access_token": S.access}, {**account, "refresh_token": [S.refresh]}):
        yield lambda given=given: tables(find_social_account_by_id=given).find_social_account_by_id("1")
        yield lambda given=given: tables(list_social_accounts=[given]).list_social_accounts(user_id="1")
    yield lambda: tables(find_user_by_email=None).create_user(user_info={}, email=S.mail)

    class Raises:
        def create_user(self, **said: Any) -> object:
            raise counterfoil.ExistsError("that is there", existing=None)

        def create_social_account(self, **said: Any) -> object:
            raise LookupError("one of the application's own")

    raises = counterfoil.AccountsStorage(Raises(), keys=RING)
    yield lambda: raises.create_user(user_info={}, email=S.mail, hashed_password=S.hash)
    yield lambda: raises.create_social_account(
        user_id=S.key, provider="p", provider_user_id=S.key, access_token=S.access, refresh_token=S.refresh
    )


async def asynchronous(shower: Shower, url: str) -> None:
    async with await counterfoil.aio.open(url, prefix="a:", **REST) as store:
        for call in bad_calls(store):
            try:
                awaitable = call()
            except Exception as error:
                shower.error(error)
            else:
                shower.show(awaitable)
                await shower.awaited(awaitable)
        dropped = store.set(S.key, S.value)
        print(dropped)
        del dropped
        forgotten = asyncio.create_task(store.set(S.key, S.value * 100000))  # nobody asks how it ended
        await asyncio.sleep(0.05)
        print(forgotten, asyncio.all_tasks())
        del forgotten
        gc.collect()
        shower.show(store)

    class Slow(Kept):
        async def get(self, key: str) -> Any:
            await asyncio.sleep(60 if S.key in key else 0)

        async def pop(self, key: str) -> Any:
            raise asyncio.CancelledError

    async with await counterfoil.aio.open(Slow(), timeout=0.05) as store:
        await shower.awaited(store.get(S.key))
        await shower.awaited(store.pop(S.key))
        last = store.get(S.key)
    await shower.awaited(last)
    await shower.awaited(store.get(S.key))
    crowded = await counterfoil.aio.open(f"{url}?max_pending=1")
    await asyncio.gather(*(shower.awaited(crowded.set(S.key, S.value)) for _ in range(5)))
    await crowded.close()
    open_still = await counterfoil.aio.open(url)
    await open_still.set(S.key, S.value)
    del open_still  # nobody closes it
    gc.collect()


def program(url: str, dead: str, folder: str) -> None:
    """Everything that can go wrong, shown as loudly as Python can."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    logging.captureWarnings(True)
    warnings.simplefilter("always")
    shower = Shower()
    stage = Stage()
    kept = Kept()
    for target in ("memory:program", f"sqlite:{folder}/program.db", url, kept):
        store = counterfoil.open(target, prefix="b:", stage=None)
        for event in ("connect", "disconnect", "error", "warning", "close"):
            store.on(event, print)
        shower.failing(lambda store=store: store.on(S.key, print))
        shower.failing(lambda store=store: store.on("close", S.key))
        for call in (*bad_calls(store), *bad_records(store)):
            shower.failing(call)
        store.set(S.key, S.value)
        shower.failing(lambda store=store: store.incr(S.key))  # it is no number
        store.set(S.key, S.value.encode() + b"\xff")
        shower.failing(lambda store=store: store.get(S.key))
        shower.failing(lambda store=store: store.pop(S.key))
        with counterfoil.open(target, prefix="b:", **REST) as sealed:
            sealed.set(S.key, S.value)
            shower.failing(lambda sealed=sealed: list(sealed.scan(S.key)))
            if target is not kept:
                shower.failing(lambda sealed=sealed: sealed.incr(S.key))
        with counterfoil.open(target, prefix="b:", keys=RING, seal_values=True) as sealed:
            store.set(S.key, S.value)
            shower.failing(lambda sealed=sealed: sealed.get(S.key))
            shower.failing(lambda sealed=sealed: sealed.pop(S.key))
            list(sealed.reseal())
        with counterfoil.open(target, prefix="b:", keys={2: RING[1]}) as other:
            for made in counterfoil.AccountsStorage(other).list_social_accounts(user_id="1"):
                print(made)
            shower.failing(
                lambda other=other: counterfoil.AccountsStorage(other).find_social_account(S.key, S.key)
            )  # sealed by nobody
        shower.show(store)
        shower.show(store.stats())
        for each in (counterfoil.Storage(store), counterfoil.SecondaryStorage(store)):
            shower.show(each)
        store.set("1", "{" + S.state)
        shower.failing(lambda store=store: counterfoil.Storage(store).get("1"))
        shower.failing(lambda store=store: counterfoil.Storage(store).set(S.key, {S.state: {1}}))
        shower.failing(lambda store=store: counterfoil.Storage(store).set(S.key, {S.state: float("nan")}))
        shower.failing(lambda store=store: counterfoil.SecondaryStorage(store).set(S.key, [S.code], 5))
        store.close()
        shower.failing(lambda store=store: store.get(S.key))
        shower.show(store)
    for call in (*bad_openings(), *bad_hooks()):
        shower.failing(call)
    for bad in (S.value, [S.value], {S.value: 1}, 5, S.value.encode() * 100000, OSError("of the backend's own")):
        for name, call in {
            "get": lambda store: store.get(S.key), "delete": lambda store: store.delete(S.key),
            "set": lambda store: store.set(S.key, S.value), "scan": lambda store: list(store.scan(S.key)),
        }.items():  # fmt: skip
            backend = Kept()
            with counterfoil.open(backend, **({} if name == "scan" else REST)) as store:
                backend.bad[name] = bad
                shower.failing(lambda call=call, store=store: call(store), surely=False)
    backend = Kept()
    store = counterfoil.open(backend)
    store.set(S.key, S.value)
    backend.bad["close"] = OSError("of the backend's own")
    shower.failing(store.close)
    # A server that is not there, and one that does not know this password.
    shower.failing(lambda: counterfoil.open(f"redis://user:{S.login}@{dead}", timeout=0.2).set(S.key, S.value))
    server = url.partition("@")[2]
    wrong = counterfoil.open(f"redis://:{S.login}{S.login}@{server}", timeout=2)
    wrong.on("error", print)
    wrong.on("disconnect", lambda error: 1 / 0)  # goes to sys.unraisablehook
    shower.failing(lambda: wrong.set(S.key, S.value))
    wrong.close()
    with counterfoil.open("memory:", stage=stage) as store:
        for nth in range(1, 4):
            stage.fail_allocation(nth)
            shower.failing(lambda: store.set(S.key * 2, S.value * 100), surely=False)
            stage.fail_allocation(0)
    asyncio.run(asynchronous(shower, url), debug=True)
    unclosed = counterfoil.open(url, prefix="u:")
    unclosed.set(S.key, S.value)
    del unclosed
    gc.collect()
    print("CODES", *sorted(shower.codes))
    if "control" in sys.argv:
        print(repr(S.value))
    raise counterfoil.InvalidError("the end of the program")  # the interpreter shows it


def run_program(*more: str, folder: Path) -> tuple[str, str]:
    from faults.servers import RedisServer, free_port

    native = os.environ.get("COUNTERFOIL_NATIVE")
    assert not native or "PYTHONPATH" in os.environ
    with RedisServer(password=S.login) as server:
        words = [sys.executable, "-X", "dev", "-W", "always", str(HERE), server.url(), f"127.0.0.1:{free_port()}"]
        ran = subprocess.run(
            [*words, str(folder), *more], capture_output=True, timeout=100, check=False, cwd=folder, encoding="utf-8"
        )
    assert ran.returncode == 1, ran.stderr[-3000:]
    assert "the end of the program" in ran.stderr[-300:]
    return ran.stdout, ran.stderr


CODES = {
    "AUTH", "BUSY", "CANCELED", "CHANGED", "CLOSED", "CORRUPT", "CURSOR", "EXISTS", "INVALID", "LIMIT", "LookupError",
    "MISSING", "NOT_SUPPORTED", "NO_MEMORY", "OSError", "TIMEOUT", "TypeError", "UNAVAILABLE",
}  # fmt: skip


def test_nothing_that_a_program_gets_to_see(tmp_path: Path) -> None:
    out, err = run_program(folder=tmp_path)
    assert leaks("stdout", out.encode(errors="surrogatepass")) == []
    assert leaks("stderr", err.encode(errors="surrogatepass")) == []
    (line,) = [line for line in out.splitlines() if line.startswith("CODES ")]
    assert CODES - set(line.split()) == set(), "what was to go wrong did not"
    assert [line for line in out.splitlines() if "it did not fail" in line] == []


def test_the_scan_sees_what_a_program_shows(tmp_path: Path) -> None:
    out, _ = run_program("control", folder=tmp_path)
    assert len(leaks("stdout", out.encode(errors="surrogatepass"))) == 1


def test_what_is_there_already_does_not_travel_with_its_error() -> None:
    with counterfoil.open("memory:", keys=RING) as store:
        accounts = counterfoil.AccountsStorage(store)
        login = {"provider": "p", "provider_user_id": "1", "access_token": S.access}
        user = accounts.create_user(user_info={})
        account = accounts.create_social_account(user_id=user.id, **login)
        with pytest.raises(counterfoil.ExistsError) as caught:
            accounts.create_social_account(user_id=user.id, **login)
        assert caught.value.existing == account
        caught.value.add_note("a note")
        written = pickle.dumps(caught.value)
        again = pickle.loads(written)
    assert leaks("a pickle", written) == []
    assert (type(again), str(again), again.outcome) == (counterfoil.ExistsError, str(caught.value), "not_applied")
    assert (again.existing, again.__notes__) == (None, ["a note"])


if __name__ == "__main__":
    program(*sys.argv[1:4])
