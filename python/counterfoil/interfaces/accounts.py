"""AccountsStorage: users, and the social accounts that belong to them."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypedDict

from .. import _native
from ..at_rest import Keys, at_rest
from ..errors import ExistsError, InvalidError, InvalidTypeError, MissingError, NotSupportedError
from ..store import Resealed, Store, sweep, sweep_async
from .hooks import HookedStore, hooked_async_store
from .records import Fields, check_count, dump, id_text, instant, load, moment, sayable, some_id

if TYPE_CHECKING:
    from ..aio import AsyncStore

__all__ = ["AccountsStorage", "AsyncAccountsStorage", "NewUser", "SocialAccount", "User"]

Call = tuple[str, str, Fields, Fields | None]
Records = list[tuple[str, Fields]]
Answer = tuple[Records, bool, int, str | None]

_NOTHING: Answer = ([], False, 0, None)


class NewUser(TypedDict, total=False):
    """The user that is made where `find_or_create_by_social_account` finds no account."""

    email: str | None
    email_verified: bool
    hashed_password: str | None
    user_info: Mapping[str, Any] | None
    extra_fields: Mapping[str, Any] | None


class _Record:
    __slots__ = ("_fields",)

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def _text(self, name: str) -> str | None:
        value: str | None = self._fields[name]
        return value

    def _moment(self, name: str) -> datetime | None:
        value: int | None = self._fields[name]
        return None if value is None else moment(value)

    @property
    def id(self) -> str:
        return str(self._fields["id"])

    @property
    def user_info(self) -> Any:
        """What the provider said, as it was given; a copy."""
        return load(self._text("user_info"), "user_info")

    @property
    def extra_fields(self) -> Any:
        """What the application added, as it was given; a copy."""
        return load(self._text("extra_fields"), "extra_fields")

    @property
    def created_at(self) -> datetime:
        return moment(self._fields["created_at"])

    @property
    def updated_at(self) -> datetime:
        return moment(self._fields["updated_at"])


class SocialAccount(_Record):
    """An account of a user at a provider, as it was when it was read. Instants are aware datetimes in UTC."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<counterfoil.SocialAccount {self.id}>"

    @property
    def user_id(self) -> str:
        return str(self._fields["user_id"])

    @property
    def provider(self) -> str:
        return str(self._fields["provider"])

    @property
    def provider_user_id(self) -> str:
        return str(self._fields["provider_user_id"])

    @property
    def provider_email(self) -> str | None:
        return self._text("provider_email")

    @property
    def provider_email_verified(self) -> bool | None:
        value: bool | None = self._fields["provider_email_verified"]
        return value

    @property
    def is_login_method(self) -> bool:
        return bool(self._fields["is_login_method"])

    @property
    def access_token(self) -> str | None:
        return self._text("access_token")

    @property
    def refresh_token(self) -> str | None:
        return self._text("refresh_token")

    @property
    def access_token_expires_at(self) -> datetime | None:
        return self._moment("access_token_expires_at")

    @property
    def refresh_token_expires_at(self) -> datetime | None:
        return self._moment("refresh_token_expires_at")

    @property
    def scope(self) -> str | None:
        return self._text("scope")


class User(_Record):
    """A user, as it was when it was read. Instants are aware datetimes in UTC."""

    __slots__ = ("_accounts",)

    def __init__(self, fields: Fields, accounts: Callable[[str], list[SocialAccount]]) -> None:
        super().__init__(fields)
        self._accounts = accounts

    def __repr__(self) -> str:
        return f"<counterfoil.User {self.id}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> "User":
        return self  # nothing of it can be changed, and the storage that it asks is no part of it

    @property
    def email(self) -> str | None:
        """As it was given: mail goes there."""
        return self._text("email")

    @property
    def email_verified(self) -> bool:
        return bool(self._fields["email_verified"])

    @property
    def hashed_password(self) -> str | None:
        return self._text("hashed_password")

    @property
    def has_usable_password(self) -> bool:
        """Whether there is a hashed password."""
        return bool(self._fields["hashed_password"])

    @property
    def social_accounts(self) -> list[SocialAccount]:
        """The user's social accounts, the oldest first. A blocking storage asks for them each time; with
        `counterfoil.aio` they were read right after the user."""
        return self._accounts(self.id)


# ---- arguments ----


def _json(value: Any, name: str) -> str | None:
    return dump(dict(value) if isinstance(value, Mapping) else value, name)


def _encoded(said: Mapping[str, Any]) -> Fields:
    """The fields of a record; what is ... is not said."""
    fields: Fields = {}
    for name, value in said.items():
        if value is ...:
            continue
        if name.endswith("_at"):
            fields[name] = instant(value, name)
        elif name in ("user_info", "extra_fields"):
            fields[name] = _json(value, name)
        else:
            fields[name] = value
    return fields


def _new_user(said: Mapping[str, Any]) -> Fields:
    email = said.get("email")
    if not isinstance(email, str | None):
        raise InvalidTypeError(f"email must be str, not {type(email).__name__}")
    return _encoded(said)


def _find_user_by_email(email: str) -> Call | None:
    if isinstance(email, str) and not sayable(email):
        return None
    return "find_user_by_email", "user", {"email": email}, None


def _by_id(method: str, kind: str, name: str, id: object) -> Call | None:
    known = id_text(id)
    return None if known is None else (method, kind, {name: known}, None)


def _find_social_account(provider: str, provider_user_id: object) -> Call | None:
    known = id_text(provider_user_id)
    if known is None or (isinstance(provider, str) and not sayable(provider)):
        return None
    fields = {"provider": provider, "provider_user_id": known}
    return "find_social_account", "social_account", fields, None


def _create_user(said: dict[str, Any]) -> Call:
    """email None: what user_info says, as the oldest releases of Cross Auth have it."""
    info = said["user_info"]
    if said["email"] is None and isinstance(info, Mapping):
        said["email"] = info.get("email")
    return "create_user", "user", _new_user(said), None


def _create_social_account(user_id: object, provider_user_id: object, said: Mapping[str, Any]) -> Call:
    fields = {
        "user_id": some_id(user_id, "user_id"),
        "provider_user_id": some_id(provider_user_id, "provider_user_id"),
        **_encoded(said),
    }
    return "create_social_account", "social_account", fields, None


def _update_social_account(social_account_id: object, said: dict[str, Any]) -> Call:
    extra = said["extra_fields"]
    if isinstance(extra, Mapping) and not extra:
        said["extra_fields"] = ...
    return _update("update_social_account", "social_account", social_account_id, said)


def _update(method: str, kind: str, id: object, said: dict[str, Any]) -> Call:
    fields = _encoded(said)
    known = id_text(id)
    if known is None:
        raise MissingError(f"there is no such {kind}")
    return method, kind, {"id": known, **fields}, None


def _find_or_create(provider_user_id: object, user: Mapping[str, Any] | None, said: Mapping[str, Any]) -> Call:
    if not isinstance(user, Mapping | None):
        raise InvalidTypeError(f"user must be a dict, not {type(user).__name__}")
    made = {} if user is None else dict(user)
    unknown = made.keys() - NewUser.__annotations__.keys()
    if unknown:
        raise InvalidError("a user that is made has email, email_verified, hashed_password, user_info, extra_fields")
    account = {"provider_user_id": some_id(provider_user_id, "provider_user_id"), **_encoded(said)}
    return "find_or_create_by_social_account", "social_account", account, _new_user(made)


def _accounts_of(records: Records) -> list[SocialAccount]:
    return [SocialAccount(fields) for kind, fields in records if kind == "social_account"]


def _one_account(answer: Answer) -> SocialAccount | None:
    return SocialAccount(answer[0][0][1]) if answer[0] else None


class AccountsStorage:
    """Users and their social accounts, over a store. It has the shape that Cross Auth (0.2 to 0.22) calls
    AccountsStorage.

    store_or_hooks: a Store; or an object of yours with some of these methods, which keeps them in tables of its own
        (see below).
    max_social_accounts: of one user, 1 to 10000; one more is LimitError. (Over a store.)

    Two e-mail addresses are one when they are equal without the whitespace around them, with small ASCII letters, and
    with a domain that is not ASCII as its A-labels: ann@bücher.de is Ann@xn--bcher-kva.de. What was given is kept, and
    mail should go there. A domain that IDNA refuses is InvalidError; nobody is found by it. E-mails, and pairs of
    provider and provider_user_id, belong to one record each: making a second one is ExistsError, whose `existing` is
    the first, however many try at once. Nothing is ever linked by an e-mail alone: who finds a user by an address and
    means it calls `create_social_account`. Ids are str; in a lookup an int is its decimal text, and what cannot be an
    id is a miss. Tokens are sealed where the store was opened with `keys`, and `user_info` and `extra_fields` are any
    JSON.

    HOOKS. An application that has users already gives an object with the methods of this class, of which those that
    are missing are NotSupportedError. They are called with the same names and keyword arguments, so a storage that was
    written for Cross Auth will do:

        accounts = AccountsStorage(MyTables(engine), keys={1: key}, timeout=5)

    - Ids come as str. `find_user_by_email` gets the normalised address. `create_user` and `update_user` get the address
      as it was given, and the normalised one as `email_key` if they take that: keep it in a column with UNIQUE. Tokens
      come sealed, and are opened in what comes back, if there are `keys` (a sealed token is text, up to twice as long).
      An update of a token asks `find_social_account_by_id` first: a token is sealed for its own account.
      Datetimes are aware, in UTC. `update_social_account` and `update_user` get only what changes.
    - Later arguments (email, email_verified, hashed_password, provider_email, is_login_method, extra_fields) are passed
      to methods that take them; the oldest form of `create_user` finds the address in user_info["email"].
    - They give back objects with the attributes of User and SocialAccount, or dicts; None for a miss. An id of any type
      becomes text. Of a user, `id` must be there, of a social account also user_id, provider and provider_user_id;
      without created_at and updated_at both are 1970. A wrong type is CorruptError.
    - What a method raises reaches the caller as it is. So uniqueness is a matter of your tables: turn the
      IntegrityError of a duplicate into `counterfoil.ExistsError("...", existing=row)`.
    - Methods are called by any thread that uses the storage. A deadline cannot end a method that blocks.
    - With `plain_until` (see `counterfoil.open`) tokens that your tables have had before there were keys are read as
      they are until then. `reseal` cannot list your tables: saving an account's tokens seals them.
    """

    def __init__(
        self,
        store_or_hooks: object,
        *,
        max_social_accounts: int = 64,
        keys: Keys | None = None,
        plain_until: datetime | None = None,
        timeout: float | None = None,
        stage: _native.Stage | None = None,
    ) -> None:
        self._most = check_count(max_social_accounts, "max_social_accounts")
        if isinstance(store_or_hooks, _native.AsyncStore):
            raise InvalidTypeError("AccountsStorage takes a Store or hooks, not AsyncStore")
        if isinstance(store_or_hooks, Store):
            _no_options(keys, plain_until, timeout, stage)
            self._store = store_or_hooks
        else:
            rest = at_rest(keys, False, False, plain_until)
            self._store = HookedStore(store_or_hooks, rest, 5.0 if timeout is None else timeout, stage)

    def _call(self, call: Call | None) -> Answer:
        if call is None:
            return _NOTHING
        try:
            return self._store._accounts(*call, self._most)
        except ExistsError as error:
            if error._record is not None:
                kind, fields = error._record
                error._record = None
                error.existing = self._user_of(fields) if kind == "user" else SocialAccount(fields)
            raise

    def _list(self, user_id: str) -> list[SocialAccount]:
        return self.list_social_accounts(user_id=user_id)

    def _user_of(self, fields: Fields) -> User:
        return User(fields, self._list)

    def _user(self, answer: Answer) -> User | None:
        return self._user_of(answer[0][0][1]) if answer[0] else None

    def find_user_by_email(self, email: str) -> User | None:
        """The user who has this address, or None."""
        return self._user(self._call(_find_user_by_email(email)))

    def find_user_by_id(self, id: Any) -> User | None:
        """The user with this id, or None."""
        return self._user(self._call(_by_id("find_user_by_id", "user", "id", id)))

    def find_social_account(self, *, provider: str, provider_user_id: str) -> SocialAccount | None:
        """The social account, or None."""
        return _one_account(self._call(_find_social_account(provider, provider_user_id)))

    def find_social_account_by_id(self, social_account_id: Any) -> SocialAccount | None:
        """The social account with this id, or None."""
        call = _by_id("find_social_account_by_id", "social_account", "id", social_account_id)
        return _one_account(self._call(call))

    def list_social_accounts(self, *, user_id: Any) -> list[SocialAccount]:
        """The social accounts of a user, the oldest first."""
        return _accounts_of(self._call(_by_id("list_social_accounts", "social_account", "user_id", user_id))[0])

    def create_user(
        self,
        *,
        user_info: Mapping[str, Any] | None = None,
        email: str | None = None,
        email_verified: bool = False,
        extra_fields: Mapping[str, Any] | None = None,
        hashed_password: str | None = None,
    ) -> User:
        """Makes a user. An address that somebody has is ExistsError. Without `email` it is user_info["email"], if there
        is one."""
        call = _create_user(
            {"user_info": user_info, "email": email, "email_verified": email_verified, "extra_fields": extra_fields,
             "hashed_password": hashed_password}
        )  # fmt: skip
        return self._user_of(self._call(call)[0][0][1])

    def update_user(
        self,
        user_id: Any,
        *,
        email: str | EllipsisType | None = ...,
        email_verified: bool | EllipsisType = ...,
        hashed_password: str | EllipsisType | None = ...,
        user_info: Mapping[str, Any] | EllipsisType | None = ...,
        extra_fields: Mapping[str, Any] | EllipsisType | None = ...,
    ) -> User:
        """Changes what is given, in one step. MissingError; an address that somebody else has is ExistsError."""
        call = _update(
            "update_user", "user", user_id,
            {"email": email, "email_verified": email_verified, "hashed_password": hashed_password,
             "user_info": user_info, "extra_fields": extra_fields},
        )  # fmt: skip
        return self._user_of(self._call(call)[0][0][1])

    def delete_user(self, user_id: Any) -> bool:
        """Deletes a user with its social accounts and sessions, in one step; whether it was there."""
        return self._call(_by_id("delete_user", "user", "id", user_id))[1]

    def create_social_account(
        self,
        *,
        user_id: Any,
        provider: str,
        provider_user_id: str,
        access_token: str | None = None,
        refresh_token: str | None = None,
        access_token_expires_at: datetime | None = None,
        refresh_token_expires_at: datetime | None = None,
        scope: str | None = None,
        user_info: Mapping[str, Any] | None = None,
        provider_email: str | None = None,
        provider_email_verified: bool | None = None,
        is_login_method: bool = True,
        extra_fields: Mapping[str, Any] | None = None,
    ) -> SocialAccount:
        """Links an account to a user. ExistsError where it is linked already, to whomever; MissingError without such a
        user; LimitError."""
        call = _create_social_account(
            user_id, provider_user_id,
            {"provider": provider, "access_token": access_token, "refresh_token": refresh_token,
             "access_token_expires_at": access_token_expires_at, "refresh_token_expires_at": refresh_token_expires_at,
             "scope": scope, "user_info": user_info, "provider_email": provider_email,
             "provider_email_verified": provider_email_verified, "is_login_method": is_login_method,
             "extra_fields": extra_fields},
        )  # fmt: skip
        return SocialAccount(self._call(call)[0][0][1])

    def update_social_account(
        self,
        social_account_id: Any,
        *,
        access_token: str | EllipsisType | None = ...,
        refresh_token: str | EllipsisType | None = ...,
        access_token_expires_at: datetime | EllipsisType | None = ...,
        refresh_token_expires_at: datetime | EllipsisType | None = ...,
        scope: str | EllipsisType | None = ...,
        user_info: Mapping[str, Any] | EllipsisType | None = ...,
        provider_email: str | EllipsisType | None = ...,
        provider_email_verified: bool | EllipsisType | None = ...,
        is_login_method: bool | EllipsisType = ...,
        extra_fields: Mapping[str, Any] | EllipsisType | None = ...,
    ) -> SocialAccount:
        """Changes what is given, in one step; None takes a value away. MissingError. Empty extra_fields leave those
        that are there: Cross Auth gives such with every login."""
        call = _update_social_account(
            social_account_id,
            {"access_token": access_token, "refresh_token": refresh_token,
             "access_token_expires_at": access_token_expires_at, "refresh_token_expires_at": refresh_token_expires_at,
             "scope": scope, "user_info": user_info, "provider_email": provider_email,
             "provider_email_verified": provider_email_verified, "is_login_method": is_login_method,
             "extra_fields": extra_fields},
        )  # fmt: skip
        return SocialAccount(self._call(call)[0][0][1])

    def delete_social_account(self, social_account_id: Any) -> None:
        """Deletes it; one that is not there is fine."""
        self._call(_by_id("delete_social_account", "social_account", "id", social_account_id))

    def reseal(self) -> Iterator[Resealed]:
        """Seals the tokens of all social accounts that an older key of the ring has sealed with the first one, so that
        the old one can be given up; until `plain_until` also those that are plain. It works while it is iterated, a
        page of accounts at a time, and says after each how many tokens it has sealed and how many do not open, which
        it leaves:

            for progress in accounts.reseal():
                print(progress.sealed, progress.unreadable)

        A token that is changed meanwhile stays as it was left. Once this has come to its end, and every program seals
        with the new key, no token needs the old one any more (a store with `seal_values` needs `Store.reseal` too).
        Stopped, or ended by an error, it can begin again. InvalidError for a store without keys; NotSupportedError over
        hooks, and where a backend of yours has no `scan`.
        """
        return sweep(self._store._reseal_tokens)

    def find_or_create_by_social_account(
        self,
        *,
        provider: str,
        provider_user_id: str,
        user: NewUser | None = None,
        access_token: str | None = None,
        refresh_token: str | None = None,
        access_token_expires_at: datetime | None = None,
        refresh_token_expires_at: datetime | None = None,
        scope: str | None = None,
        user_info: Mapping[str, Any] | None = None,
        provider_email: str | None = None,
        provider_email_verified: bool | None = None,
        is_login_method: bool = True,
        extra_fields: Mapping[str, Any] | None = None,
    ) -> tuple[User, SocialAccount, bool]:
        """The user with this social account, the account, and whether they were made now: in one step, so of any number
        of callers one makes them and all get them. What is found is given as it is.

        user: the user that is made. When somebody has its address already it is ExistsError, with that user, and
            nothing is made or linked: ask who owns the address, then call `create_social_account`.
        """
        call = _find_or_create(
            provider_user_id, user,
            {"provider": provider, "access_token": access_token, "refresh_token": refresh_token,
             "access_token_expires_at": access_token_expires_at, "refresh_token_expires_at": refresh_token_expires_at,
             "scope": scope, "user_info": user_info, "provider_email": provider_email,
             "provider_email_verified": provider_email_verified, "is_login_method": is_login_method,
             "extra_fields": extra_fields},
        )  # fmt: skip
        records, _, made, _ = self._call(call)
        return self._user_of(records[1][1]), SocialAccount(records[0][1]), made == 1


def _no_options(*options: object) -> None:
    if any(option is not None for option in options):
        raise InvalidError("keys, plain_until, timeout and stage belong to hooks: a store was opened with its own")


class AsyncAccountsStorage:
    """As `counterfoil.AccountsStorage`, over an AsyncStore or over hooks whose methods may be coroutine functions:
    `counterfoil.aio.AccountsStorage`. Over hooks it is made in the event loop that will use it; a method that outlasts
    the timeout is cancelled. The social accounts of a user are read right after the user."""

    def __init__(
        self,
        store_or_hooks: object,
        *,
        max_social_accounts: int = 64,
        keys: Keys | None = None,
        plain_until: datetime | None = None,
        timeout: float | None = None,
        stage: _native.Stage | None = None,
    ) -> None:
        self._most = check_count(max_social_accounts, "max_social_accounts")
        if isinstance(store_or_hooks, _native.Store):
            raise InvalidTypeError("aio.AccountsStorage takes an AsyncStore or hooks, not Store")
        self._store: _native.AsyncStore | AsyncStore
        if isinstance(store_or_hooks, _native.AsyncStore):
            _no_options(keys, plain_until, timeout, stage)
            self._store = store_or_hooks
        else:
            rest = at_rest(keys, False, False, plain_until)
            self._store = hooked_async_store(store_or_hooks, rest, 5.0 if timeout is None else timeout, stage)

    async def _call(self, call: Call | None) -> Answer:
        if call is None:
            return _NOTHING
        try:
            return await self._store._accounts(*call, self._most)
        except ExistsError as error:
            if error._record is not None:
                kind, fields = error._record
                error._record = None
                error.existing = await self._user_of(fields) if kind == "user" else SocialAccount(fields)
            raise

    async def _user_of(self, fields: Fields, *, read: bool = False) -> User:
        """read: the user is all that was asked for. After a write, which is done, what is wrong with the social
        accounts is said when they are asked for."""
        try:
            accounts = await self.list_social_accounts(user_id=fields["id"])
        except Exception as error:
            if read and not isinstance(error, NotSupportedError):
                raise
            problem = error

            def without(user_id: str) -> list[SocialAccount]:
                raise problem

            return User(fields, without)
        return User(fields, lambda user_id: accounts)

    async def _user(self, answer: Answer) -> User | None:
        return await self._user_of(answer[0][0][1], read=True) if answer[0] else None

    async def find_user_by_email(self, email: str) -> User | None:
        """The user who has this address, or None."""
        return await self._user(await self._call(_find_user_by_email(email)))

    async def find_user_by_id(self, id: Any) -> User | None:
        """The user with this id, or None."""
        return await self._user(await self._call(_by_id("find_user_by_id", "user", "id", id)))

    async def find_social_account(self, *, provider: str, provider_user_id: str) -> SocialAccount | None:
        """The social account, or None."""
        return _one_account(await self._call(_find_social_account(provider, provider_user_id)))

    async def find_social_account_by_id(self, social_account_id: Any) -> SocialAccount | None:
        """The social account with this id, or None."""
        call = _by_id("find_social_account_by_id", "social_account", "id", social_account_id)
        return _one_account(await self._call(call))

    async def list_social_accounts(self, *, user_id: Any) -> list[SocialAccount]:
        """The social accounts of a user, the oldest first."""
        call = _by_id("list_social_accounts", "social_account", "user_id", user_id)
        return _accounts_of((await self._call(call))[0])

    async def create_user(
        self,
        *,
        user_info: Mapping[str, Any] | None = None,
        email: str | None = None,
        email_verified: bool = False,
        extra_fields: Mapping[str, Any] | None = None,
        hashed_password: str | None = None,
    ) -> User:
        """As `counterfoil.AccountsStorage.create_user`."""
        call = _create_user(
            {"user_info": user_info, "email": email, "email_verified": email_verified, "extra_fields": extra_fields,
             "hashed_password": hashed_password}
        )  # fmt: skip
        return User((await self._call(call))[0][0][1], lambda user_id: [])

    async def update_user(
        self,
        user_id: Any,
        *,
        email: str | EllipsisType | None = ...,
        email_verified: bool | EllipsisType = ...,
        hashed_password: str | EllipsisType | None = ...,
        user_info: Mapping[str, Any] | EllipsisType | None = ...,
        extra_fields: Mapping[str, Any] | EllipsisType | None = ...,
    ) -> User:
        """As `counterfoil.AccountsStorage.update_user`."""
        call = _update(
            "update_user", "user", user_id,
            {"email": email, "email_verified": email_verified, "hashed_password": hashed_password,
             "user_info": user_info, "extra_fields": extra_fields},
        )  # fmt: skip
        return await self._user_of((await self._call(call))[0][0][1])

    async def delete_user(self, user_id: Any) -> bool:
        """Deletes a user with its social accounts and sessions, in one step; whether it was there."""
        return (await self._call(_by_id("delete_user", "user", "id", user_id)))[1]

    async def create_social_account(
        self,
        *,
        user_id: Any,
        provider: str,
        provider_user_id: str,
        access_token: str | None = None,
        refresh_token: str | None = None,
        access_token_expires_at: datetime | None = None,
        refresh_token_expires_at: datetime | None = None,
        scope: str | None = None,
        user_info: Mapping[str, Any] | None = None,
        provider_email: str | None = None,
        provider_email_verified: bool | None = None,
        is_login_method: bool = True,
        extra_fields: Mapping[str, Any] | None = None,
    ) -> SocialAccount:
        """As `counterfoil.AccountsStorage.create_social_account`."""
        call = _create_social_account(
            user_id, provider_user_id,
            {"provider": provider, "access_token": access_token, "refresh_token": refresh_token,
             "access_token_expires_at": access_token_expires_at, "refresh_token_expires_at": refresh_token_expires_at,
             "scope": scope, "user_info": user_info, "provider_email": provider_email,
             "provider_email_verified": provider_email_verified, "is_login_method": is_login_method,
             "extra_fields": extra_fields},
        )  # fmt: skip
        return SocialAccount((await self._call(call))[0][0][1])

    async def update_social_account(
        self,
        social_account_id: Any,
        *,
        access_token: str | EllipsisType | None = ...,
        refresh_token: str | EllipsisType | None = ...,
        access_token_expires_at: datetime | EllipsisType | None = ...,
        refresh_token_expires_at: datetime | EllipsisType | None = ...,
        scope: str | EllipsisType | None = ...,
        user_info: Mapping[str, Any] | EllipsisType | None = ...,
        provider_email: str | EllipsisType | None = ...,
        provider_email_verified: bool | EllipsisType | None = ...,
        is_login_method: bool | EllipsisType = ...,
        extra_fields: Mapping[str, Any] | EllipsisType | None = ...,
    ) -> SocialAccount:
        """As `counterfoil.AccountsStorage.update_social_account`."""
        call = _update_social_account(
            social_account_id,
            {"access_token": access_token, "refresh_token": refresh_token,
             "access_token_expires_at": access_token_expires_at, "refresh_token_expires_at": refresh_token_expires_at,
             "scope": scope, "user_info": user_info, "provider_email": provider_email,
             "provider_email_verified": provider_email_verified, "is_login_method": is_login_method,
             "extra_fields": extra_fields},
        )  # fmt: skip
        return SocialAccount((await self._call(call))[0][0][1])

    async def delete_social_account(self, social_account_id: Any) -> None:
        """Deletes it; one that is not there is fine."""
        await self._call(_by_id("delete_social_account", "social_account", "id", social_account_id))

    def reseal(self) -> AsyncIterator[Resealed]:
        """As `counterfoil.AccountsStorage.reseal`, with `async for`."""
        return sweep_async(self._store._reseal_tokens)

    async def find_or_create_by_social_account(
        self,
        *,
        provider: str,
        provider_user_id: str,
        user: NewUser | None = None,
        access_token: str | None = None,
        refresh_token: str | None = None,
        access_token_expires_at: datetime | None = None,
        refresh_token_expires_at: datetime | None = None,
        scope: str | None = None,
        user_info: Mapping[str, Any] | None = None,
        provider_email: str | None = None,
        provider_email_verified: bool | None = None,
        is_login_method: bool = True,
        extra_fields: Mapping[str, Any] | None = None,
    ) -> tuple[User, SocialAccount, bool]:
        """As `counterfoil.AccountsStorage.find_or_create_by_social_account`."""
        call = _find_or_create(
            provider_user_id, user,
            {"provider": provider, "access_token": access_token, "refresh_token": refresh_token,
             "access_token_expires_at": access_token_expires_at, "refresh_token_expires_at": refresh_token_expires_at,
             "scope": scope, "user_info": user_info, "provider_email": provider_email,
             "provider_email_verified": provider_email_verified, "is_login_method": is_login_method,
             "extra_fields": extra_fields},
        )  # fmt: skip
        records, _, made, _ = await self._call(call)
        account = SocialAccount(records[0][1])
        if made == 1:
            return User(records[1][1], lambda user_id: [account]), account, True
        return await self._user_of(records[1][1]), account, False
