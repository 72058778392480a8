"""The adapter for Cross Auth, with Cross Auth as it is released."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from typing import Any

import counterfoil
import httpx
import pytest
from counterfoil.adapters.cross_auth import SecondaryStorage
from counterfoil.testing import Stage
from support import ROOT, Full, run_python


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
def test_an_authorization_request_lives_in_the_store() -> None:
    """Cross Auth keeps its state under our keys, for its own ttl, and takes it exactly once."""
    stage = Stage()
    with counterfoil.open("memory:", prefix="auth:", stage=stage) as store:
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


def test_it_does_what_cross_auths_own_storage_does() -> None:
    """The same calls as cross_auth.storage.redis.RedisStorage answers, with the same answers (ttl <= 0 deletes)."""
    stage = Stage()
    with counterfoil.open("memory:", stage=stage) as store:
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

store = counterfoil.open("memory:")
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


def test_threads_share_it() -> None:
    """Cross Auth's routes run in a pool of threads."""
    with SecondaryStorage.from_url("memory:") as storage:
        for number in range(2000):
            storage.set(f"oauth:code:{number}", str(number))
        won: list[str] = []

        def work() -> None:
            for number in range(2000):
                value = storage.pop(f"oauth:code:{number}")
                if value is not None:
                    won.append(value)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(won, key=int) == [str(number) for number in range(2000)]


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
