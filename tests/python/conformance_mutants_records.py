"""Wrong storages of users, sessions and Miro's states, as conformance_mutants.py has wrong backends."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import counterfoil
from conformance_mutants import MUTANTS, STAGE, Mutant, broken, mutant

# ------------------------------------------------------------------------------------------------------------ accounts


def store() -> counterfoil.Store:
    return counterfoil.open("memory:", stage=STAGE)


class Accounts(counterfoil.AccountsStorage):
    """Ours, to be made wrong."""

    def __init__(self) -> None:
        super().__init__(store())
        self.makers: dict[str, int] = {}

    def made(self, name: str, made: Any) -> Any:
        self.makers[name] = threading.get_ident()
        return made

    def by_another(self, name: str) -> bool:
        """Whether another thread has made what is called so."""
        return self.makers.get(name) != threading.get_ident()


@mutant("accounts", "shape.methods")
class NeverUnlinks(Accounts):
    delete_social_account = None  # type: ignore[assignment]


@mutant("accounts", "user.round_trip")
class Unverified(Accounts):
    def create_user(self, **more: Any) -> Any:
        return super().create_user(**{**more, "email_verified": False})


@mutant("accounts", "user.miss")
class CastsIds(Accounts):
    def find_user_by_id(self, id: Any) -> Any:
        if len(id) not in (26, 32, 36):
            raise ValueError("no such id")
        return super().find_user_by_id(id)


@mutant("accounts", "user.email_unique")
class SignsUpAgain(Accounts):
    """Who comes again is given the user who is there."""

    def create_user(self, **more: Any) -> Any:
        try:
            return self.made(more["email"], super().create_user(**more))
        except counterfoil.ExistsError as error:
            if self.by_another(more["email"]):
                raise
            return error.existing


@mutant("accounts", "user.email_one_winner")
class SignsUpAtOnce(Accounts):
    def create_user(self, **more: Any) -> Any:
        try:
            return self.made(more["email"], super().create_user(**more))
        except counterfoil.ExistsError as error:
            if not self.by_another(more["email"]):
                raise
            return error.existing


@mutant("accounts", "user.email_normalised")
class AsWritten(Accounts):
    def find_user_by_email(self, email: str) -> Any:
        found = super().find_user_by_email(email)
        return found if found is not None and found.email == email else None


@mutant("accounts", "user.nothing_said")
class NoneIsAnAddress(Accounts):
    def create_user(self, **more: Any) -> Any:
        return super().create_user(**{**more, "email": more["email"] or "none@example.org"})


@mutant("accounts", "user.update")
class WritesAll(Accounts):
    def update_user(self, user_id: Any, **more: Any) -> Any:
        return super().update_user(user_id, **{"email": None, **more})


@mutant("accounts", "user.delete")
class SaysNothing(Accounts):
    def delete_user(self, user_id: Any) -> Any:
        super().delete_user(user_id)


@mutant("accounts", "account.round_trip")
class NoScope(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        return super().create_social_account(**{**more, "scope": None})


@mutant("accounts", "account.miss")
class CastsAccountIds(Accounts):
    def find_social_account_by_id(self, social_account_id: Any) -> Any:
        if len(social_account_id) not in (26, 32, 36):
            raise ValueError("no such id")
        return super().find_social_account_by_id(social_account_id)


@mutant("accounts", "account.tokens")
class ShortTokens(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        return super().create_social_account(**{**more, "access_token": (more["access_token"] or "")[:4096] or None})


@mutant("accounts", "account.exact_names")
class Trims(Accounts):
    def find_social_account(self, *, provider: str, provider_user_id: str) -> Any:
        return super().find_social_account(provider=provider, provider_user_id=provider_user_id.rstrip())


class Boxed:
    """An account with an id of its user that is equal to no user's id."""

    def __init__(self, account: Any) -> None:
        self.account = account
        self.user_id = (account.user_id,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.account, name)


@mutant("accounts", "account.user_id_is_the_users")
class OtherType(Accounts):
    def find_social_account(self, **names: Any) -> Any:
        found = super().find_social_account(**names)
        return None if found is None else Boxed(found)

    def create_social_account(self, **more: Any) -> Any:
        return Boxed(super().create_social_account(**more))

    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        return Boxed(super().update_social_account(social_account_id, **more))


@mutant("accounts", "account.unique")
class LinksAgain(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        try:
            return self.made(more["provider_user_id"], super().create_social_account(**more))
        except counterfoil.ExistsError as error:
            if self.by_another(more["provider_user_id"]):
                raise
            return error.existing


@mutant("accounts", "account.one_winner")
class LinksAtOnce(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        try:
            return self.made(more["provider_user_id"], super().create_social_account(**more))
        except counterfoil.ExistsError as error:
            if not self.by_another(more["provider_user_id"]):
                raise
            return error.existing


@mutant("accounts", "account.needs_user")
class LinksNobody(Accounts):
    def create_social_account(self, **more: Any) -> Any:
        try:
            return super().create_social_account(**more)
        except counterfoil.MissingError:
            return SimpleNamespace(**more, id="1")


@mutant("accounts", "account.list")
class FirstTwo(Accounts):
    def list_social_accounts(self, *, user_id: Any) -> Any:
        return super().list_social_accounts(user_id=user_id)[:2]


@mutant("accounts", "account.update")
class NoneIsKept(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        said = {name: value for name, value in more.items() if value is not None}
        return super().update_social_account(social_account_id, **said)


@mutant("accounts", "account.update_missing")
class UpdatesNone(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        try:
            return super().update_social_account(social_account_id, **more)
        except counterfoil.MissingError:
            return None


@mutant("accounts", "account.loses_no_update")
class WritesWhatItRead(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        found = self.find_social_account_by_id(social_account_id)
        names = ("access_token", "refresh_token", "scope")
        read = {name: getattr(found, name) for name in names} if found else {}
        time.sleep(0.0001)
        return super().update_social_account(social_account_id, **{**read, **more})


@mutant("accounts", "account.delete")
class UnlinksOnce(Accounts):
    def delete_social_account(self, social_account_id: Any) -> None:
        if self.find_social_account_by_id(social_account_id) is None:
            raise KeyError("there is none")
        super().delete_social_account(social_account_id)


@mutant("accounts", "account.no_resurrection")
class UpdateBringsBack(Accounts):
    def update_social_account(self, social_account_id: Any, **more: Any) -> Any:
        found = self.find_social_account_by_id(social_account_id)
        time.sleep(0.0001)
        try:
            return super().update_social_account(social_account_id, **more)
        except counterfoil.MissingError:
            if found is None:
                raise
            named = {"provider": found.provider, "provider_user_id": found.provider_user_id}
            return super().create_social_account(user_id=found.user_id, **named, **more)


@mutant("accounts", "login.one_winner")
class AllAreNew(Accounts):
    def find_or_create_by_social_account(self, **more: Any) -> Any:
        user, account, created = super().find_or_create_by_social_account(**more)
        if created:
            self.made(more["provider_user_id"], user)
        return user, account, created or self.by_another(more["provider_user_id"])


@mutant("accounts", "login.nothing_half")
class HalfALogin(Accounts):
    def find_or_create_by_social_account(self, *, user: Any = None, **more: Any) -> Any:
        try:
            return super().find_or_create_by_social_account(user=user, **more)
        except counterfoil.ExistsError:
            super().find_or_create_by_social_account(user={"email": None}, **more)
            raise


@contextlib.contextmanager
def accounts_down(storage: Any) -> Iterator[None]:
    storage.find_user_by_email = lambda email: None
    yield


MUTANTS.append(Mutant("accounts", "fault.rejects", Accounts, {"broken": accounts_down}))


# ------------------------------------------------------------------------------------------------------------ sessions


class Sessions(counterfoil.SessionStorage):
    """Ours, to be made wrong."""

    def __init__(self) -> None:
        super().__init__(store())


@mutant("sessions", "shape.methods")
class NeverEverywhere(Sessions):
    revoke_all_for_user = None  # type: ignore[assignment]


@mutant("sessions", "session.round_trip")
class NoAddress(Sessions):
    def create(self, **more: Any) -> Any:
        return super().create(**{**more, "ip": None})


@mutant("sessions", "session.miss")
class CastsSessionIds(Sessions):
    def get_any(self, session_id: Any) -> Any:
        if len(session_id) not in (26, 32, 36):
            raise ValueError("no such id")
        return super().get_any(session_id)


@mutant("sessions", "session.token_unique")
class SameAgain(Sessions):
    def create(self, **more: Any) -> Any:
        try:
            return super().create(**more)
        except counterfoil.ExistsError as error:
            return error.existing


TICK = timedelta(microseconds=1)


@mutant("sessions", "session.exact_end")
class OverAtTheEnd(Sessions):
    def get(self, *, token_hash: str, now: Any) -> Any:
        return super().get(token_hash=token_hash, now=now + TICK)


@mutant("sessions", "session.any_status")
class HidesTheExpired(Sessions):
    def get_any(self, session_id: Any) -> Any:
        found = super().get_any(session_id)
        return None if found is not None and found.status == "expired" else found


@mutant("sessions", "refresh.moves")
class AlwaysActive(Sessions):
    def refresh(self, session_id: Any, *, updated_at: Any, expires_at: Any, last_active_at: Any = None) -> Any:
        last = last_active_at or updated_at
        return super().refresh(session_id, updated_at=updated_at, expires_at=expires_at, last_active_at=last)


@mutant("sessions", "refresh.missing")
class RefreshesNone(Sessions):
    def refresh(self, session_id: Any, **more: Any) -> Any:
        found = super().refresh(session_id, **more)
        return SimpleNamespace() if found is None and self.get_any(session_id) is None else found


@mutant("sessions", "revoke.ends")
class RevokesOnce(Sessions):
    def revoke(self, session_id: Any, *, revoked_at: Any) -> None:
        if self.get_any(session_id) is None:
            raise KeyError("there is none")
        super().revoke(session_id, revoked_at=revoked_at)


@mutant("sessions", "revoke.refused_refresh")
class RefreshesTheRevoked(Sessions):
    def refresh(self, session_id: Any, **more: Any) -> Any:
        return super().refresh(session_id, **more) or self.get_any(session_id)


class Zombies(Sessions):
    """Who refreshes writes back what he has read, revoked_at too: seen by `get` here."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: dict[str, Any] = {}
        self.alone: set[Any] = set()
        self.undead: set[Any] = set()

    def create(self, **more: Any) -> Any:
        made = super().create(**more)
        self.ids[more["token_hash"]] = made.id
        return made

    def refresh(self, session_id: Any, **more: Any) -> Any:
        found = self.get_any(session_id)
        time.sleep(0.0001)
        given = super().refresh(session_id, **more)
        if given is None and found is not None and found.revoked_at is None:
            self.undead.add(session_id)
        return given

    def revoke(self, session_id: Any, *, revoked_at: Any) -> None:
        self.alone.add(session_id)
        super().revoke(session_id, revoked_at=revoked_at)

    def one_by_one(self) -> bool:
        raise NotImplementedError

    def get(self, *, token_hash: str, now: Any) -> Any:
        id = self.ids.get(token_hash)
        if id in self.undead and (id in self.alone) == self.one_by_one():
            return self.get_any(id)
        return super().get(token_hash=token_hash, now=now)


@mutant("sessions", "revoke.no_resurrection")
class RevokedComesBack(Zombies):
    def one_by_one(self) -> bool:
        return True


@mutant("sessions", "revoke_all.no_resurrection")
class SomeComeBack(Zombies):
    def one_by_one(self) -> bool:
        return False


@mutant("sessions", "revoke_all.counts")
class CountsTheActive(Sessions):
    def revoke_all_for_user(self, user_id: Any, *, revoked_at: Any, except_session_id: Any = None) -> int:
        active = self.list_for_user(user_id, now=revoked_at.astimezone(UTC), status="active").records
        super().revoke_all_for_user(user_id, revoked_at=revoked_at, except_session_id=except_session_id)
        return len([each for each in active if each.id != except_session_id])


@mutant("sessions", "list.pages")
class LosesOne(Sessions):
    def list_for_user(self, user_id: Any, *, limit: int = 50, **more: Any) -> Any:
        page = super().list_for_user(user_id, limit=limit, **more)
        return page if limit != 2 else SimpleNamespace(records=page.records[:1], next_cursor=page.next_cursor)


@mutant("sessions", "list.status")
class ListsOverAtTheEnd(Sessions):
    def list_for_user(self, user_id: Any, *, now: Any, **more: Any) -> Any:
        return super().list_for_user(user_id, now=now + TICK, **more)


@mutant("sessions", "list.refuses")
class AtLeastOne(Sessions):
    def list_for_user(self, user_id: Any, *, limit: int = 50, **more: Any) -> Any:
        return super().list_for_user(user_id, limit=max(limit, 1), **more)


@contextlib.contextmanager
def sessions_down(storage: Any) -> Iterator[None]:
    storage.get = lambda **names: None
    yield


MUTANTS.append(Mutant("sessions", "fault.rejects", Sessions, {"broken": sessions_down}))


# ---------------------------------------------------------------------------------------------------------------- Miro


class Miro:
    """A storage of one user, that keeps copies."""

    def __init__(self) -> None:
        self.state: Any = None
        self.down = False

    def get(self) -> Any:
        if self.down:
            raise ConnectionError("nothing is there")
        return None if self.state is None else SimpleNamespace(**self.state)

    def set(self, state: Any) -> None:
        if self.down:
            raise ConnectionError("nothing is there")
        self.state = None if state is None else dict(vars(state))


@mutant("miro", "get.miss")
class MissRaises(Miro):
    ever = False

    def get(self) -> Any:
        if not self.ever:
            raise KeyError("there is none")
        return super().get()

    def set(self, state: Any) -> None:
        self.ever = self.ever or state is not None
        super().set(state)


@mutant("miro", "get.what_was_set")
class NoneIsText(Miro):
    def set(self, state: Any) -> None:
        super().set(state)
        if self.state is not None and self.state["token_expires_at"] is None and self.state["access_token"] != "two":
            self.state["refresh_token"] = self.state["refresh_token"] or ""

    def get(self) -> Any:
        given = super().get()
        if given is not None and given.access_token.startswith("access two"):
            given.refresh_token = given.refresh_token or None
        return given


@mutant("miro", "expiry.naive_local")
class Aware(Miro):
    def get(self) -> Any:
        given = super().get()
        if given is not None and given.token_expires_at is not None:
            given.token_expires_at = given.token_expires_at.astimezone(UTC)
        return given


@mutant("miro", "set.replaces")
class Merges(Miro):
    def set(self, state: Any) -> None:
        before = self.state or {}
        super().set(state)
        if self.state is not None and self.state["refresh_token"] is None:
            self.state["refresh_token"] = before.get("refresh_token")


@mutant("miro", "set.none_deletes")
class NeverForgets(Miro):
    def set(self, state: Any) -> None:
        if state is not None or not (self.state or {}).get("access_token", "").startswith("access one"):
            super().set(state)


_ONE = Miro()


@mutant("miro", "set.keeps_others", make_other=lambda: OneForAll())
class OneForAll(Miro):
    def get(self) -> Any:
        return _ONE.get()

    def set(self, state: Any) -> None:
        _ONE.set(state)


@mutant("miro", "set.whole")
class FieldByField(Miro):
    def set(self, state: Any) -> None:
        if state is None or self.state is None:
            super().set(state)
            return
        self.state["access_token"] = state.access_token
        time.sleep(0.0001)
        self.state = dict(vars(state))


@mutant("miro", "refresh.one")
class RefreshesEach(Miro):
    def refresh_once(self, refresh: Any) -> Any:
        state = self.get()
        if state.token_expires_at < datetime.now():
            self.set(refresh(state))
        return self.get()


@mutant("miro", "lock.one_holder")
class LocksNobody(Miro):
    fences = itertools.count()

    def with_lock(self, work: Any) -> Any:
        return work(SimpleNamespace(fence=next(self.fences)))


@mutant("miro", "fault.rejects", **broken)
class AsksAgain(Miro):
    def get(self) -> Any:
        return None if self.down else super().get()
