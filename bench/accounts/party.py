"""One party of the accounts bench: python party.py PATH (blocking|asyncio) PARTY. See loops.py.

PATH is a database file of this party's own, which is not there yet. `get` is the login of somebody who is known, `set`
of somebody who is new: both find or create a user by the social account. Everybody: WAL, synchronous=FULL, unique
indexes on what must be unique, the same fields.
"""

import asyncio
import itertools
import sqlite3
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial

import loops
from loops import ITEMS, serve

SCOPE = "openid email profile"
TOKENS = {"access_token": "a" * 120, "refresh_token": "r" * 120, "scope": SCOPE}
PATIENCE = 60  # seconds for the lock of another connection
numbers = itertools.count()


def fresh():
    return f"new-{next(numbers)}"


def fields(subject):
    return {
        **TOKENS,
        "access_token_expires_at": datetime.now(UTC) + timedelta(hours=1),
        "refresh_token_expires_at": None,
        "user_info": {"sub": subject, "name": "Ada Lovelace"},
        "provider_email": f"{subject}@example.org",
        "provider_email_verified": True,
        "is_login_method": True,
    }


def check(item, found):
    if found != item[0]:
        raise SystemExit("who was found is not who was meant")


# ---------------------------------------------------------------------------------------------------------------- ours


def asked(subject):
    return {
        "provider": "github",
        "provider_user_id": subject,
        "user": {"email": f"{subject}@example.org", "email_verified": True},
        **fields(subject),
    }


async def filled(path):
    import counterfoil.aio

    async with await counterfoil.aio.open(f"sqlite:{path}") as store:
        accounts = counterfoil.aio.AccountsStorage(store)
        for at in range(0, len(ITEMS), 1000):
            some = ITEMS[at : at + 1000]
            await asyncio.gather(*(accounts.find_or_create_by_social_account(**asked(key)) for key, _, _ in some))


def ours(path):
    import counterfoil

    asyncio.run(filled(path))
    accounts = counterfoil.AccountsStorage(counterfoil.open(f"sqlite:{path}"))

    def login(subject):
        _, account, _ = accounts.find_or_create_by_social_account(**asked(subject))
        return account.provider_user_id

    return login, lambda key, value: login(fresh())


async def ours_awaited(path, stack):
    import counterfoil.aio

    await asyncio.to_thread(asyncio.run, filled(path))
    store = await stack.enter_async_context(await counterfoil.aio.open(f"sqlite:{path}"))
    accounts = counterfoil.aio.AccountsStorage(store)

    async def login(subject):
        _, account, _ = await accounts.find_or_create_by_social_account(**asked(subject))
        return account.provider_user_id

    async def new(key, value):
        await login(fresh())

    return login, new


# ------------------------------------------------------------------------------------------------- Cross Auth, SQLModel


def sqlmodel_storage(path):
    from cross_auth.storage.sqlmodel import SQLModelAccountsStorage
    from sqlalchemy import UniqueConstraint, event
    from sqlmodel import Field, Relationship, Session, SQLModel, create_engine

    class User(SQLModel, table=True):
        id: int | None = Field(default=None, primary_key=True)
        email: str | None = Field(default=None, unique=True)
        email_verified: bool = False
        hashed_password: str | None = None
        social_accounts: list["SocialAccount"] = Relationship(back_populates="user")

        @property
        def has_usable_password(self):
            return self.hashed_password is not None

    class SocialAccount(SQLModel, table=True):
        __table_args__ = (UniqueConstraint("provider", "provider_user_id"),)
        id: int | None = Field(default=None, primary_key=True)
        user_id: int = Field(foreign_key="user.id", index=True)
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
        user: User | None = Relationship(back_populates="social_accounts")

    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": PATIENCE}, pool_size=64)

    @event.listens_for(engine, "connect")
    def settings(connection, _):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    SQLModel.metadata.create_all(engine)
    with Session(engine) as session:
        for key, _, _ in ITEMS:
            user = User(email=f"{key}@example.org", email_verified=True)
            given = {name: value for name, value in fields(key).items() if name != "user_info"}
            user.social_accounts.append(SocialAccount(provider="github", provider_user_id=key, **given))
            session.add(user)
        session.commit()
    return SQLModelAccountsStorage(User, SocialAccount, session_factory=lambda: Session(engine))


def sqlmodel(path):
    accounts = sqlmodel_storage(path)

    # What Cross Auth does with it: two steps, between which somebody else may come.
    def login(subject):
        account = accounts.find_social_account(provider="github", provider_user_id=subject)
        if account:
            accounts.find_user_by_id(account.user_id)
            return account.provider_user_id
        given = fields(subject)
        user = accounts.create_user(user_info=given["user_info"], email=f"{subject}@example.org", email_verified=True)
        account = accounts.create_social_account(user_id=user.id, provider="github", provider_user_id=subject, **given)
        return account.provider_user_id

    return login, lambda key, value: login(fresh())


async def sqlmodel_awaited(path, stack):
    from concurrent.futures import ThreadPoolExecutor

    login, new = await asyncio.to_thread(sqlmodel, path)
    threads = stack.enter_context(ThreadPoolExecutor(40))  # as many as FastAPI gives to plain functions
    run = asyncio.get_running_loop().run_in_executor

    async def known(key):
        return await run(threads, login, key)

    async def fresh_one(key, value):
        await run(threads, new, key, value)

    return known, fresh_one


# ------------------------------------------------------------------------------------------------- sqlite3, by hand

TABLES = """
CREATE TABLE user(id TEXT PRIMARY KEY, email TEXT UNIQUE, email_verified INTEGER, user_info TEXT, created_at INTEGER);
CREATE TABLE account(id TEXT PRIMARY KEY, user_id TEXT REFERENCES user(id), provider TEXT, provider_user_id TEXT,
 access_token TEXT, refresh_token TEXT, access_token_expires_at INTEGER, scope TEXT, created_at INTEGER,
 UNIQUE(provider, provider_user_id));
CREATE INDEX account_user ON account(user_id);
"""
KNOWN = (
    "SELECT account.*, user.* FROM account JOIN user ON user.id = account.user_id"
    " WHERE provider = ? AND provider_user_id = ?"
)


def connected(path):
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def add(execute, subject):
    now, user = int(time.time() * 1e6), uuid.uuid4().hex
    execute("INSERT INTO user VALUES(?, ?, 1, ?, ?)", (user, f"{subject}@example.org", "{}", now))
    tokens = TOKENS["access_token"], TOKENS["refresh_token"]
    row = (uuid.uuid4().hex, user, "github", subject, *tokens, now, SCOPE, now)
    execute("INSERT INTO account VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


class Each(threading.local):
    """A connection for every thread that comes."""

    def __init__(self, path):
        self.execute = connected(path).execute


def by_hand(path):
    first = connected(path)
    first.executescript(TABLES)
    first.execute("BEGIN")
    for key, _, _ in ITEMS:
        add(first.execute, key)
    first.execute("COMMIT")
    mine = Each(path)

    def login(subject):
        execute = mine.execute
        row = execute(KNOWN, ("github", subject)).fetchone()
        if not row:
            execute("BEGIN IMMEDIATE")
            row = execute(KNOWN, ("github", subject)).fetchone()
            if not row:
                add(execute, subject)
            execute("COMMIT")
        return row[3] if row else subject

    return login, lambda key, value: login(fresh())


BLOCKING = {"counterfoil": ours, "sqlmodel": sqlmodel, "sqlite3": by_hand}
AWAITED = {"counterfoil": ours_awaited, "sqlmodel": sqlmodel_awaited}

if __name__ == "__main__":
    loops.check = check
    path, manner, name = sys.argv[1:]
    serve(manner, partial((BLOCKING if manner == "blocking" else AWAITED)[name], path))
