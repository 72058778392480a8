"""The adapter for Cross Auth, with Cross Auth as it is released."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlparse

import counterfoil
import httpx
import pytest
from counterfoil.adapters.cross_auth import AccountsStorage, SecondaryStorage, SessionStorage
from redis_servers import ServerStage, own_prefix
from support import PLACES, ROOT, Full, run_python, staged_url_of, url_of

over_all = pytest.mark.parametrize("place", PLACES)


def make_app(storage: Any) -> Any:
    from cross_auth.fastapi import CrossAuth
    from cross_auth.social_providers.oauth import OAuth2Provider
    from fastapi import FastAPI

    class Provider(OAuth2Provider):
        id = "example"
        authorization_endpoint = "https://provider.example/authorize"
        token_endpoint = "https://provider.example/token"
        user_info_endpoint = "https://provider.example/me"
        scopes = ("email",)
        supports_pkce = True

    class Accounts:
        """Nobody has an account."""

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **more: None

    auth = CrossAuth(
        providers=[Provider(client_id="id", client_secret="secret")],
        storage=storage,
        accounts_storage=Accounts(),  # type: ignore[arg-type]
        trusted_origins=["app.example"],
        base_url="https://app.example",
        config={"allowed_client_ids": ["app"]},
    )
    app = FastAPI()
    app.include_router(auth.router)
    return app


@pytest.mark.skipif(
    "COUNTERFOIL_NATIVE" in os.environ, reason="libasan replaces crypt(), which passlib calls, and crashes"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that Cross Auth uses
@over_all
def test_an_authorization_request_lives_in_the_store(place: str, stage: ServerStage) -> None:
    """Cross Auth keeps its state under our keys, for its own ttl, and takes it exactly once."""
    with counterfoil.open(staged_url_of(place, stage), prefix=own_prefix(), stage=stage) as store:
        app = make_app(SecondaryStorage(store))

        def get(path: str, params: dict[str, str]) -> httpx.Response:
            async def ask() -> httpx.Response:
                async with httpx.AsyncClient(
                    transport=httpx.ASGITransport(app), base_url="https://app.example"
                ) as client:
                    return await client.get(path, params=params)

            return asyncio.run(ask())

        def begin() -> str:
            answer = get(
                "/example/authorize",
                {
                    "redirect_uri": "https://app.example/callback",
                    "client_id": "app",
                    "state": "mine",
                    "response_type": "code",
                    "code_challenge": "x" * 43,
                    "code_challenge_method": "S256",
                },
            )
            assert answer.status_code == 302, answer.text
            assert answer.headers["location"].startswith("https://provider.example/authorize"), answer.headers[
                "location"
            ]
            (key,) = store.scan("oauth:authorization_request:")
            return key

        key = begin()
        state = json.loads(store.get(key) or "")
        assert state["client_redirect_uri"] == "https://app.example/callback"
        stage.advance(599.999)
        assert store.get(key) is not None
        stage.advance(0.001)
        assert store.get(key) is None, "the ttl that Cross Auth gave is kept"

        key = begin()
        taken = get("/example/callback", params={"state": key.rpartition(":")[2], "error": "access_denied"})
        assert taken.status_code == 302, taken.text
        assert store.get(key) is None, "the state was taken"
        again = get("/example/callback", params={"state": key.rpartition(":")[2], "error": "access_denied"})
        assert again.status_code >= 400 or "error" in again.headers.get("location", ""), "a state is good for once"


@over_all
def test_it_does_what_cross_auths_own_storage_does(place: str, stage: ServerStage) -> None:
    """The same calls as cross_auth.storage.redis.RedisStorage answers, with the same answers (ttl <= 0 deletes)."""
    with counterfoil.open(staged_url_of(place, stage), prefix=own_prefix(), stage=stage) as store:
        storage = SecondaryStorage(store)
        storage.set("k", "v")
        assert storage.get("k") == "v"
        storage.set("k", "v", ttl=10)
        stage.advance(10)
        assert storage.get("k") is None
        storage.set("k", "v")
        storage.set("k", "w", ttl=0)
        assert storage.get("k") is None
        storage.set("k", "v")
        assert (storage.pop("k"), storage.pop("k")) == ("v", None)
        assert storage.delete("missing") is None


def test_it_satisfies_the_protocol() -> None:
    """Checked by mypy, because the protocol cannot be checked at run time."""
    code = """
from cross_auth._storage import SecondaryStorage as Wanted
import counterfoil
from counterfoil.adapters.cross_auth import SecondaryStorage

from cross_auth._storage import AccountsStorage as WantedAccounts, SessionStorage as WantedSessions
from cross_auth._storage import SocialAccount, User, SessionRecord, SessionListResult
from counterfoil.adapters.cross_auth import AccountsStorage, SessionStorage

store = counterfoil.open("memory:")
four: WantedAccounts = counterfoil.AccountsStorage(store)
five: WantedSessions = counterfoil.SessionStorage(store)
six: WantedAccounts = AccountsStorage(store)
seven: WantedSessions = SessionStorage(store, max_sessions=5, when_full="refuse")
user: User | None = counterfoil.AccountsStorage(store).find_user_by_id("1")
account: SocialAccount | None = counterfoil.AccountsStorage(store).find_social_account_by_id("1")
record: SessionRecord | None = counterfoil.SessionStorage(store).get_any("1")
one: Wanted = SecondaryStorage(store)
two: Wanted = SecondaryStorage.from_url("memory:auth", prefix="auth:", ttl=300, max_entries=1000)
three: Wanted = counterfoil.SecondaryStorage(store, ttl=300)
"""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "-c", code],
        cwd=ROOT / "python", capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_who_closes() -> None:
    backend = Full()
    with counterfoil.open(backend) as store:
        with SecondaryStorage(store) as borrowed:
            borrowed.set("k", "v")
        assert not store.closed
        owned = SecondaryStorage.from_url(backend, prefix="own:")
        owned.set("k", "v")
        assert store.get("own:k") == "v"
        owned.close()
        owned.close()
        with pytest.raises(counterfoil.ClosedError):
            owned.get("k")
        assert backend.closed == 0
    assert backend.closed == 1


def test_a_bad_ttl_leaves_nothing_open() -> None:
    backend = Full()
    with pytest.raises(counterfoil.InvalidError):
        SecondaryStorage.from_url(backend, ttl=0)
    assert backend.closed == 1


@over_all
def test_threads_share_it(place: str) -> None:
    """Cross Auth's routes run in a pool of threads."""
    count = 2000 if place == "memory" else 200
    with SecondaryStorage.from_url(url_of(place), prefix=own_prefix()) as storage:
        for number in range(count):
            storage.set(f"oauth:code:{number}", str(number))
        won: list[str] = []

        def work() -> None:
            for number in range(count):
                value = storage.pop(f"oauth:code:{number}")
                if value is not None:
                    won.append(value)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(won, key=int) == [str(number) for number in range(count)]


def test_cross_auth_need_not_be_installed() -> None:
    done = run_python("""
        import sys
        sys.modules["cross_auth"] = None
        from counterfoil.adapters.cross_auth import SecondaryStorage
        with SecondaryStorage.from_url("memory:") as storage:
            storage.set("k", "v")
            print(storage.pop("k"))
    """)
    assert (done.stdout, done.returncode) == ("v\n", 0), done.stderr


def test_the_adapter_knows_the_package_only() -> None:
    text = (ROOT / "python" / "counterfoil" / "adapters" / "cross_auth.py").read_text()
    assert "_native" not in text


class Person:
    """What the provider says of whoever signs in next."""

    def __init__(self) -> None:
        self.info: dict[str, Any] = {"id": "1", "email": "Ann@Example.org", "email_verified": True, "name": "Ann"}
        self.token: dict[str, Any] = {
            "token_type": "Bearer", "access_token": "access canary", "refresh_token": "refresh canary",
            "expires_in": 3600, "scope": "user",
        }  # fmt: skip


def make_whole_app(store: counterfoil.Store, person: Person, accounts: Any = None) -> tuple[Any, Any]:
    """An application that keeps everything in one store, and a provider that answers without a network."""
    from cross_auth.fastapi import CrossAuth, SessionCookieMiddleware
    from cross_auth.models.oauth_token_response import TokenResponse
    from cross_auth.social_providers.oauth import OAuth2Provider, ValidatedUserInfo
    from fastapi import FastAPI, Request

    class Provider(OAuth2Provider):
        id = "example"
        authorization_endpoint = "https://provider.example/authorize"
        token_endpoint = "https://provider.example/token"
        user_info_endpoint = "https://provider.example/me"
        scopes = ("email",)
        supports_pkce = True

        def exchange_code(self, *args: Any, **more: Any) -> Any:
            return TokenResponse(**person.token)

        def fetch_user_info(self, *args: Any, **more: Any) -> Any:
            return person.info

        def validate_user_info(self, user_info: Any) -> Any:
            return ValidatedUserInfo(
                email=user_info["email"], provider_user_id=user_info["id"], email_verified=user_info["email_verified"]
            )

    auth = CrossAuth(
        providers=[Provider(client_id="id", client_secret="secret")],
        storage=SecondaryStorage(store),
        accounts_storage=accounts or AccountsStorage(store),
        session_storage=SessionStorage(store),
        trusted_origins=["app.example"],
        base_url="https://app.example",
        config={
            "allowed_client_ids": ["app"],
            "session": {"cookies": {"auth": True, "name": "session_id"}, "update_age": 0},
        },
    )
    app = FastAPI()
    app.include_router(auth.router)
    app.add_middleware(SessionCookieMiddleware)

    @app.get("/me")
    def me(request: Request) -> Any:
        user = auth.get_current_user(request)
        return {"id": user.id if user else None}

    return app, auth


def browse(app: Any, steps: Any) -> Any:
    async def main() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example") as client:
            return await steps(client)

    return asyncio.run(main())


async def sign_in(client: httpx.AsyncClient, path: str = "/example/login") -> httpx.Response:
    begun = await client.get(path)
    assert begun.status_code == 302, begun.text
    (state,) = parse_qs(urlparse(begun.headers["location"]).query)["state"]
    return await client.get("/example/callback", params={"state": state, "code": "code"})


whole = pytest.mark.skipif(
    "COUNTERFOIL_NATIVE" in os.environ and "LD_PRELOAD" in os.environ,
    reason="libasan replaces crypt(), which passlib calls, and crashes",
)


@whole
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@over_all
def test_signing_in_connecting_and_out_again(place: str) -> None:
    person = Person()
    with counterfoil.open(url_of(place), prefix=own_prefix(), keys={1: bytes(32)}) as store:
        accounts, sessions = counterfoil.AccountsStorage(store), counterfoil.SessionStorage(store)
        app, auth = make_whole_app(store, person)

        async def story(client: httpx.AsyncClient) -> None:
            assert (await client.get("/me")).json() == {"id": None}
            done = await sign_in(client)
            assert (done.status_code, done.headers["location"]) == (302, "/")
            user = accounts.find_user_by_email("ann@example.org")
            assert user is not None
            assert (user.email, user.email_verified, user.has_usable_password) == ("ann@example.org", True, False)
            assert user.user_info["name"] == "Ann"
            assert (await client.get("/me")).json() == {"id": user.id}
            (account,) = user.social_accounts
            assert (account.access_token, account.refresh_token, account.scope) == (
                "access canary", "refresh canary", "user",
            )  # fmt: skip
            assert (account.provider_email, account.is_login_method) == ("Ann@Example.org", True)

            person.token = {"token_type": "Bearer", "access_token": "later"}
            await sign_in(client)
            (again,) = accounts.list_social_accounts(user_id=user.id)
            assert (again.id, again.access_token, again.refresh_token) == (account.id, "later", None)
            assert len(auth.list_sessions(user_id=user.id).records) == 2
            assert accounts.update_social_account(again.id, extra_fields={"kept": 1}).extra_fields == {"kept": 1}

            person.info = {**person.info, "id": "2"}
            refused = await sign_in(client)
            assert (refused.status_code, refused.json()["error"]) == (400, "account_not_linked")
            connected = await sign_in(client, "/example/connect")
            assert connected.status_code == 302
            first, second = accounts.list_social_accounts(user_id=user.id)
            assert (first.id, second.provider_user_id, second.is_login_method) == (account.id, "2", False)
            assert first.extra_fields == {"kept": 1}, "Cross Auth gives {} with every login"

            gone = await client.delete(f"/example/social-accounts/{second.id}")
            assert gone.status_code == 200, gone.text
            kept = await client.delete(f"/example/social-accounts/{first.id}")
            assert kept.status_code == 400, "the last way in stays"
            assert (await client.delete("/example/social-accounts/nonsense")).status_code == 400

            assert auth.revoke_all_sessions(user_id=user.id) == 2
            assert sessions.epoch(user.id) == 1
            assert (await client.get("/me")).json() == {"id": None}

        browse(app, story)


@whole
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@over_all
def test_two_first_logins_at_once_end_with_an_error_and_not_with_a_500(place: str) -> None:
    """Find then create are two steps in Cross Auth: here somebody else is between them."""
    person = Person()
    with counterfoil.open(url_of(place), prefix=own_prefix()) as store:

        class Late(AccountsStorage):
            def find_user_by_email(self, email: str) -> None:
                return None

        app, _ = make_whole_app(store, person, Late(store))
        there = counterfoil.AccountsStorage(store).create_user(user_info={}, email="ann@example.org")

        async def story(client: httpx.AsyncClient) -> None:
            refused = await sign_in(client)
            assert (refused.status_code, refused.json()["error"]) == (400, "account_not_linked")

        browse(app, story)
        assert there.social_accounts == []


@over_all
def test_errors_are_cross_auths_too(place: str) -> None:
    from cross_auth.exceptions import CrossAuthException, InvalidCursorError

    with counterfoil.open(url_of(place), prefix=own_prefix()) as store:
        accounts = AccountsStorage(store, max_social_accounts=1)
        ann = accounts.create_user(user_info={}, email="ann@example.org")
        with pytest.raises(CrossAuthException) as caught:
            accounts.create_user(user_info={}, email="ANN@example.org")
        assert isinstance(caught.value, counterfoil.ExistsError)
        assert isinstance(caught.value, ValueError)
        assert caught.value.existing == ann
        assert (caught.value.code, caught.value.error) == ("EXISTS", "account_not_linked")
        one = accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id="1")
        with pytest.raises(counterfoil.ExistsError) as twice:
            accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id="1")
        assert isinstance(twice.value, CrossAuthException)
        assert twice.value.existing == one
        with pytest.raises(counterfoil.LimitError) as full:
            accounts.create_social_account(user_id=ann.id, provider="p", provider_user_id="2")
        assert isinstance(full.value, CrossAuthException)
        assert full.value.code == "LIMIT"
        for cursor in ("", "x", "\ud800", "9.1.aa"):
            with pytest.raises(InvalidCursorError) as bad:
                SessionStorage(store).list_for_user("1", now=datetime.now(UTC), cursor=cursor)
            assert isinstance(bad.value, counterfoil.InvalidCursorError)
            assert isinstance(bad.value, ValueError)
            assert bad.value.code == "CURSOR"
