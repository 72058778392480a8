"""Stores that the conformance kit is run over: ours, which pass, and those of others, whose results are the table in
docs/conformance/python.md."""

import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis
from counterfoil.testing import KINDS, Report, check, rules
from cross_auth._storage import session_status
from cross_auth.storage.redis import RedisStorage
from cross_auth.storage.sqlmodel import SQLModelAccountsStorage, SQLModelSessionStorage
from faults.proxy import Proxy
from faults.servers import RedisServer
from miro_api import Miro
from miro_api.storage import InMemoryStorage
from sqlalchemy import UniqueConstraint, event
from sqlalchemy.orm import registry
from sqlalchemy.pool import NullPool
from sqlmodel import Field, Session, SQLModel, create_engine

CROSS_AUTH = f"Cross Auth {version('cross-auth')}"
SQLMODEL = f"SQLModel {version('sqlmodel')}, SQLite"
REDIS = f"redis-py {version('redis')}, Redis"
MIRO = f"miro_api {version('miro_api')}"


# ----------------------------------------------------------------------------------------------- Redis, with its faults


class StagedRedis:
    """A server whose clock can be moved, behind a proxy that can refuse. Not the suites' own one: their cases take its
    clock on by decades, and what is tried here says instants of today."""

    def __init__(self) -> None:
        self.server = RedisServer(clock=True).start()
        self.proxy = Proxy(self.server)
        self.url = f"redis://127.0.0.1:{self.proxy.port}/0"

    def advance(self, thing: object, seconds: float) -> None:
        self.server.advance(round(seconds * 1000))

    @contextlib.contextmanager
    def broken(self, thing: object) -> Iterator[None]:
        self.proxy("refuse on")
        self.proxy("now cut request 0 rst")
        try:
            yield
        finally:
            self.proxy("refuse off")
            self.proxy("pass")

    def options(self) -> dict[str, Any]:
        return {"advance": self.advance, "broken": self.broken}

    def client(self) -> "redis.Redis":
        """redis-py without its pauses between tries, so that an outage is told at once."""
        return redis.Redis.from_url(self.url, retry=None, socket_timeout=5)


@contextlib.contextmanager
def staged_redis() -> Iterator[StagedRedis]:
    server = StagedRedis()
    try:
        with server.proxy:
            yield server
    finally:
        server.server.stop()


class StorageOfTheGuide:
    """As Cross Auth's page "Storage Implementation" has it over Redis: a pop is a GET and a DEL."""

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client

    def set(self, key: str, value: str) -> None:
        self.client.set(key, value, ex=600)

    def get(self, key: str) -> str | None:
        found: Any = self.client.get(key)
        return found.decode() if found else None

    def delete(self, key: str) -> None:
        self.client.delete(key)

    def pop(self, key: str) -> str | None:
        found = self.get(key)
        if found:
            self.delete(key)
        return found


# ------------------------------------------------------------------------------------------------------------- SQLModel


@cache
def models(unique: bool) -> Any:
    """Tables as SQLModelAccountsStorage and SQLModelSessionStorage want them, with UNIQUE or without."""

    class Base(SQLModel, registry=registry()):
        pass

    prefix = "unique" if unique else "plain"

    class User(Base, table=True):
        __tablename__ = f"{prefix}_user"
        id: int | None = Field(default=None, primary_key=True)
        email: str | None = Field(default=None, unique=unique)
        email_verified: bool = False
        hashed_password: str | None = None

        @property
        def has_usable_password(self) -> bool:
            return self.hashed_password is not None

        @property
        def social_accounts(self) -> list[Any]:
            return []

    class SocialAccount(Base, table=True):
        __tablename__ = f"{prefix}_account"
        __table_args__ = (UniqueConstraint("provider", "provider_user_id"),) if unique else ()
        id: int | None = Field(default=None, primary_key=True)
        user_id: int = Field(foreign_key=f"{prefix}_user.id", index=True)
        provider: str
        provider_user_id: str
        provider_email: str | None = None
        provider_email_verified: bool | None = None
        is_login_method: bool = True
        access_token: str | None = None
        refresh_token: str | None = None
        access_token_expires_at: datetime | None = None
        refresh_token_expires_at: datetime | None = None
        scope: str | None = None

    class UserSession(Base, table=True):
        __tablename__ = f"{prefix}_session"
        id: int | None = Field(default=None, primary_key=True)
        token_hash: str = Field(unique=unique, index=True)
        user_id: str
        created_at: datetime
        updated_at: datetime
        expires_at: datetime
        last_active_at: datetime | None = None
        revoked_at: datetime | None = None
        client_id: str | None = None
        client_name: str | None = None
        user_agent: str | None = None
        ip: str | None = None

        @property
        def status(self) -> Any:
            return session_status(self)

    return Base.metadata, User, SocialAccount, UserSession


def engine_at(folder: str, unique: bool) -> tuple[Any, dict[str, Any]]:
    """An engine, and how the kit breaks it: no session gets a connection."""
    engine = create_engine(f"sqlite:///{folder}/{unique}.db", connect_args={"timeout": 30}, poolclass=NullPool)
    down = threading.Event()

    @event.listens_for(engine, "do_connect")
    def refuse(*_: Any) -> None:
        if down.is_set():
            raise sqlite3.OperationalError("unable to open database file")

    @contextlib.contextmanager
    def broken(thing: object) -> Iterator[None]:
        down.set()
        try:
            yield
        finally:
            down.clear()

    @event.listens_for(engine, "connect")
    def settings(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")  # no power fails in a test

    models(unique)[0].create_all(engine)
    return engine, {"broken": broken}


# ----------------------------------------------------------------------------------------------------- those of others


@dataclass(frozen=True)
class Party:
    """A line of the table."""

    name: str
    of: str
    kind: str
    make: Callable[[], Any]
    options: dict[str, Any]

    def row(self, report: Report) -> str:
        failed = ", ".join(f"`{each.rule.id}`" for each in report.failed) or "none"
        passed, without = len(report.passed), len(report.not_applicable)
        return f"| {self.name} | {self.of} | {self.kind} | {passed} | {failed} | {without} |"

    def check(self) -> Report:
        return check(self.make, self.kind, **self.options)


def parties(stack: ExitStack) -> Iterator[Party]:
    server = stack.enter_context(staged_redis())
    folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    few = {"rounds": 3, "contenders": 3}

    def over_redis(kind: Callable[[Any], Any]) -> Callable[[], Any]:
        def make() -> Any:
            client = server.client()
            stack.callback(client.close)
            return kind(client)

        return make

    yield Party(
        "`RedisStorage`", f"{CROSS_AUTH} ({REDIS})", "secondary", over_redis(RedisStorage), {**server.options(), **few}
    )
    yield Party(
        'the storage of the page "Storage Implementation"', f"Cross Auth's guide ({REDIS})", "secondary",
        over_redis(StorageOfTheGuide), server.options(),
    )  # fmt: skip
    for unique in (True, False):
        engine, options = engine_at(folder, unique)
        stack.callback(engine.dispose)
        _, user, account, session = models(unique)

        def factory(engine: Any = engine) -> Session:
            return Session(engine)

        where = "models with UNIQUE" if unique else "models without UNIQUE, which it takes too"
        yield Party(
            f"`SQLModelAccountsStorage`, {where}", f"{CROSS_AUTH} ({SQLMODEL})", "accounts",
            lambda user=user, account=account, factory=factory: SQLModelAccountsStorage(  # type: ignore[misc]
                user, account, session_factory=factory
            ),
            {**few, **options},
        )  # fmt: skip
        yield Party(
            f"`SQLModelSessionStorage`, {where}", f"{CROSS_AUTH} ({SQLMODEL})", "sessions",
            lambda session=session, factory=factory: SQLModelSessionStorage(session, session_factory=factory),  # type: ignore[misc]
            {**few, **options},
        )  # fmt: skip
    yield Party("`InMemoryStorage`, one for each user", MIRO, "miro", InMemoryStorage, {"make_other": InMemoryStorage})

    def given_by_miro() -> Any:
        return Miro("id", "secret", "https://app.example")._storage

    yield Party("what `Miro()` has without a storage", MIRO, "miro", given_by_miro, {"make_other": given_by_miro})


# ---------------------------------------------------------------------------------------------------------------- page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance" / "python.md"


def table(lines: list[str]) -> str:
    head = "| what | of | checked as | passed | failed | not applicable |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "\n".join(lines) + "\n"


def rule_tables() -> str:
    """All rules, as the page has them."""
    text = ""
    for kind in KINDS:
        text += f"\n### {kind}\n\n| rule | expected | from |\n| --- | --- | --- |\n"
        for each in rules(kind):
            text += "| " + " | ".join(part.replace("|", "or") for part in (f"`{each.id}`", each.sentence, each.source))
            text += " |\n"
    return text


if __name__ == "__main__":  # writes both into the page
    with ExitStack() as everything:
        found = table([party.row(party.check()) for party in parties(everything)])
    page = PAGE.read_text()
    before, rest = page.split("compares it -->\n")
    comment = rest[rest.index("\nWhat they fail") :].split("\n## The rules\n")[0]
    PAGE.write_text(f"{before}compares it -->\n{found}{comment}\n## The rules\n{rule_tables()}")
