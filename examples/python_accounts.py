"""Accounts in tables of your own, with SQLAlchemy over PostgreSQL: hooks for counterfoil.AccountsStorage, blocking and
for asyncio.

pip install 'sqlalchemy[asyncio]' 'psycopg[binary]'
export DATABASE_URL=postgresql+psycopg://localhost/app TOKEN_KEY=$(openssl rand -hex 32)
python examples/python_accounts.py
"""

import functools
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import counterfoil
from sqlalchemy import JSON, BigInteger, DateTime, Engine, ForeignKey, Identity, UniqueConstraint, create_engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_info: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    extra_fields: Mapped[Any] = mapped_column(JSON(none_as_null=True), nullable=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Person(Base):
    __tablename__ = "people"
    email: Mapped[str | None]
    email_key: Mapped[str | None] = mapped_column(unique=True)  # the normalised address, which is looked up
    email_verified: Mapped[bool] = mapped_column(default=False)
    hashed_password: Mapped[str | None]


class Account(Base):
    __tablename__ = "accounts"
    __table_args__ = (UniqueConstraint("provider", "provider_user_id"),)
    user_id: Mapped[int] = mapped_column(ForeignKey(Person.id, ondelete="CASCADE"), index=True)
    provider: Mapped[str]
    provider_user_id: Mapped[str]
    provider_email: Mapped[str | None]
    provider_email_verified: Mapped[bool | None]
    is_login_method: Mapped[bool] = mapped_column(default=True)
    access_token: Mapped[str | None]  # sealed, where the storage has keys
    refresh_token: Mapped[str | None]
    access_token_expires_at: Mapped[datetime | None]
    refresh_token_expires_at: Mapped[datetime | None]
    scope: Mapped[str | None]


# The methods, each in one transaction. Ids come as text.


def number(id: str) -> int:
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else -1  # which nobody has


def taken(db: Session, there: Any) -> Exception:
    found = db.scalar(there)
    if found is not None:
        db.expunge(found)  # it stays readable when the transaction is rolled back
    return counterfoil.ExistsError("there is one already", existing=found)


def insert(db: Session, row: Base, there: Any) -> None:
    """The database decides who is first."""
    try:
        with db.begin_nested():
            db.add(row)
            db.flush()
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", "") == "23503":  # of a foreign key
            raise counterfoil.MissingError("there is no such user") from None
        raise taken(db, there) from None


def find_user_by_email(db: Session, email: str) -> Any:
    return db.scalar(select(Person).where(Person.email_key == email))


def find_user_by_id(db: Session, id: str) -> Any:
    return db.get(Person, number(id))


def create_user(db: Session, *, email_key: str | None = None, **fields: Any) -> Any:
    person = Person(email_key=email_key, **fields)
    insert(db, person, select(Person).where(Person.email_key == email_key))
    return person


def update_user(db: Session, id: str, *, email_key: str | None = None, **changes: Any) -> Any:
    person = db.get(Person, number(id), with_for_update=True)
    if person is None:
        return None
    if "email" in changes:
        changes["email_key"] = email_key
    try:
        with db.begin_nested():
            for name, value in changes.items():
                setattr(person, name, value)
    except IntegrityError:
        raise taken(db, select(Person).where(Person.email_key == email_key)) from None
    return person


def delete_user(db: Session, id: str) -> bool:
    person = db.get(Person, number(id))
    if person is not None:
        db.delete(person)
    return person is not None


def find_social_account(db: Session, *, provider: str, provider_user_id: str) -> Any:
    wanted = (Account.provider == provider, Account.provider_user_id == provider_user_id)
    return db.scalar(select(Account).where(*wanted))


def find_social_account_by_id(db: Session, social_account_id: str) -> Any:
    return db.get(Account, number(social_account_id))


def list_social_accounts(db: Session, *, user_id: str) -> Any:
    return db.scalars(select(Account).where(Account.user_id == number(user_id)).order_by(Account.id)).all()


def create_social_account(db: Session, *, user_id: str, **fields: Any) -> Any:
    account = Account(user_id=number(user_id), **fields)
    wanted = (Account.provider == account.provider, Account.provider_user_id == account.provider_user_id)
    insert(db, account, select(Account).where(*wanted))
    return account


def update_social_account(db: Session, social_account_id: str, **changes: Any) -> Any:
    account = db.get(Account, number(social_account_id), with_for_update=True)
    if account is not None:
        for name, value in changes.items():
            setattr(account, name, value)
    return account


def delete_social_account(db: Session, social_account_id: str) -> bool:
    account = db.get(Account, number(social_account_id))
    if account is not None:
        db.delete(account)
    return account is not None


def find_or_create_by_social_account(db: Session, *, user: dict[str, Any], **fields: Any) -> Any:
    names = {"provider": fields["provider"], "provider_user_id": fields["provider_user_id"]}
    account = find_social_account(db, **names)
    if account is not None:
        return db.get(Person, account.user_id), account, False
    made = db.begin_nested()
    try:
        person = create_user(db, **user)
        account = create_social_account(db, user_id=str(person.id), **fields)
        made.commit()
        return person, account, True
    except counterfoil.ExistsError:  # somebody else was first: with this account, or with this address
        made.rollback()
        account = find_social_account(db, **names)
        if account is None:
            raise
        return db.get(Person, account.user_id), account, False


WORK = (
    find_user_by_email, find_user_by_id, create_user, update_user, delete_user, find_social_account,
    find_social_account_by_id, list_social_accounts, create_social_account, update_social_account,
    delete_social_account, find_or_create_by_social_account,
)  # fmt: skip


class Tables:
    """For counterfoil.AccountsStorage; any thread may use it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine


class AsyncTables:
    """For counterfoil.aio.AccountsStorage."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine


def blocking(work: Callable[..., Any]) -> Any:
    @functools.wraps(work)
    def method(self: Tables, *args: Any, **more: Any) -> Any:
        with Session(self.engine, expire_on_commit=False) as db, db.begin():
            return work(db, *args, **more)

    return method


def awaited(work: Callable[..., Any]) -> Any:
    @functools.wraps(work)
    async def method(self: AsyncTables, *args: Any, **more: Any) -> Any:
        async with AsyncSession(self.engine, expire_on_commit=False) as db, db.begin():
            return await db.run_sync(work, *args, **more)

    return method


for work in WORK:
    setattr(Tables, work.__name__, blocking(work))
    setattr(AsyncTables, work.__name__, awaited(work))


if __name__ == "__main__":
    engine = create_engine(os.environ["DATABASE_URL"])
    Base.metadata.create_all(engine)
    accounts = counterfoil.AccountsStorage(Tables(engine), keys={1: bytes.fromhex(os.environ["TOKEN_KEY"])})
    user, account, created = accounts.find_or_create_by_social_account(
        provider="github", provider_user_id="1234", access_token="gho_...", user={"email": "Ann@Example.org"}
    )
    print(user.email, account.provider, created)
