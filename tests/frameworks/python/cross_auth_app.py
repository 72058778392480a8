"""Cross Auth's FastAPI example (sessions for browsers, codes and tokens for a separate single-page application, GitHub
and a password) with our storages in the place of its own, as each release wants to be put together. One application for
each URL.

    cross_auth_app.py {"urls": [...], "github": "http://..."}    prints the ports, and ends with its input
"""

import asyncio
import importlib.metadata
import json
import os
import socket
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import counterfoil
import jwt
import uvicorn
from counterfoil.adapters.cross_auth import AccountsStorage, SecondaryStorage, SessionStorage
from fastapi import FastAPI, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse
from passlib.context import CryptContext

RELEASE = tuple(int(part) for part in importlib.metadata.version("cross-auth").split(".")[:2])
COOKIE = "cross_auth_example_session"
DEMO_EMAIL, DEMO_PASSWORD = "demo@example.com", "password123"
TOKEN_KEY = "a key of the example, and only for it: 32 bytes or more"
SPA_ORIGINS = ["localhost:5173", "127.0.0.1:5173"]
LONG = 30 * 86400  # releases 0.6 to 0.15 keep sessions in it, and name no ttl


def create_token(user_id: str) -> tuple[str, int]:
    return jwt.encode({"sub": user_id, "exp": datetime.now(UTC) + timedelta(hours=1)}, TOKEN_KEY), 3600


def github_provider(github: str) -> Any:
    places = {
        "authorization_endpoint": f"{github}/login/oauth/authorize",
        "token_endpoint": f"{github}/login/oauth/access_token",
    }
    if RELEASE >= (0, 15):
        from cross_auth.social_providers.github import GitHubProvider

        return GitHubProvider("demo-client", "demo-secret", **places, api_base_url=f"{github}/api")
    # The oldest GitHubProvider has GitHub's addresses in its code.
    from cross_auth.social_providers.oauth import OAuth2Provider

    fields = {
        "id": "github",
        "user_info_endpoint": f"{github}/api/user",
        "scopes": ["user:email"],
        "supports_pkce": True,
    }
    return type("GitHub", (OAuth2Provider,), places | fields)(client_id="demo-client", client_secret="demo-secret")


def router_and_auth(store: counterfoil.Store, github: str) -> tuple[Any, Any]:
    """`auth` is None before there was a CrossAuth."""
    parts: dict[str, Any] = {"providers": [github_provider(github)], "trusted_origins": SPA_ORIGINS}
    secondary, accounts = SecondaryStorage(store, ttl=LONG), AccountsStorage(store)
    if RELEASE < (0, 6):
        from cross_auth.router import AuthRouter

        parts |= {"secondary_storage": secondary, "get_user_from_request": lambda request: None}
        return AuthRouter(**parts, accounts_storage=accounts, create_token=create_token), None
    from cross_auth.fastapi import CrossAuth

    config: dict[str, Any] = {"account_linking": {"enabled": True}, "allowed_client_ids": ["spa-example"]}
    if RELEASE < (0, 16):
        parts |= {"create_token": create_token, "session_config": {"cookie_name": COOKIE, "secure": False}}
    else:
        parts |= {"session_storage": SessionStorage(store), "token_issuer": lambda asked: create_token(asked.user_id)}
        config["session"] = {"cookies": {"auth": True, "name": COOKIE, "secure": False}}
    auth = CrossAuth(**parts, storage=secondary, accounts_storage=accounts, config=config)
    return auth.router, auth


def person(user: counterfoil.User) -> dict[str, Any]:
    return {"id": user.id, "email": user.email, "providers": [account.provider for account in user.social_accounts]}


def application(store: counterfoil.Store, github: str) -> FastAPI:
    accounts = AccountsStorage(store)
    hashed = CryptContext(schemes=["bcrypt"]).hash(DEMO_PASSWORD, rounds=4)
    accounts.create_user(user_info={}, email=DEMO_EMAIL, email_verified=True, hashed_password=hashed)
    router, auth = router_and_auth(store, github)
    app = FastAPI()
    app.include_router(router, prefix="/auth")

    @app.post("/login")
    def login(email: str = Form(), password: str = Form()) -> RedirectResponse:
        user = auth.authenticate(email, password)
        if user is None:
            return RedirectResponse("/?error=invalid_credentials", 303)
        response = RedirectResponse("/profile", 303)
        auth.login(str(user.id), response=response)
        return response

    @app.post("/logout")
    def logout(request: Request) -> RedirectResponse:
        response = RedirectResponse("/", 303)
        auth.logout(request, response=response)
        return response

    @app.get("/")
    @app.get("/profile")
    def profile(request: Request) -> dict[str, Any]:
        user = auth.get_current_user(request)
        return person(user) if user else {}

    @app.get("/api/me-session")
    def me_session(request: Request) -> dict[str, Any]:
        return person(auth.require_current_user(request))

    @app.get("/api/me-token")
    def me_token(request: Request) -> JSONResponse:
        try:
            token = request.headers["authorization"].removeprefix("Bearer ")
            user = accounts.find_user_by_id(jwt.decode(token, TOKEN_KEY, algorithms=["HS256"])["sub"])
        except (KeyError, jwt.PyJWTError):
            user = None
        return JSONResponse(person(user) if user else {}, 200 if user else 401)

    return app


async def serve(urls: list[str], github: str) -> None:
    stores = [counterfoil.open(url, prefix=f"{os.getpid()}:", keys={1: bytes(32)}) for url in urls]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in stores]
    servers = [
        uvicorn.Server(uvicorn.Config(application(store, github), log_level="error", lifespan="off"))
        for store in stores
    ]
    tasks = [asyncio.create_task(server.serve([sock])) for server, sock in zip(servers, sockets, strict=True)]
    print(json.dumps([sock.getsockname()[1] for sock in sockets]), flush=True)

    def end() -> None:
        sys.stdin.read()
        for server in servers:
            server.should_exit = True

    threading.Thread(target=end, daemon=True).start()
    await asyncio.gather(*tasks)
    for store in stores:
        for key in list(store.scan()):
            store.delete(key)
        store.close()


if __name__ == "__main__":
    asyncio.run(serve(**json.loads(sys.argv[1])))
