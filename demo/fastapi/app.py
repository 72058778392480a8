"""FastAPI with Cross Auth. Counterfoil keeps users and sessions, and reads those of Express. Started by `./run demo`.

The routes are plain functions, which FastAPI runs on a pool of threads: they share one blocking store.
"""

import base64
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import counterfoil
import cross_auth
import uvicorn
from counterfoil.adapters.cross_auth import AccountsStorage, SecondaryStorage, SessionStorage
from counterfoil.express import ExpressSession, ExpressSessions
from cross_auth.fastapi import CrossAuth
from fastapi import Depends, FastAPI, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates

EXPRESS_URL, FASTAPI_URL = os.environ["DEMO_EXPRESS_URL"], os.environ["DEMO_FASTAPI_URL"]
PROVIDER_URL = os.environ["DEMO_PROVIDER_URL"]
PAGES = Path(__file__).parent.parent / "pages"
MINUTES_30 = 1800

logging.getLogger("passlib").setLevel(logging.ERROR)  # it warns of every bcrypt that is newer than itself

# ------------------------------------------------------------------------- what both applications share

store = counterfoil.open(
    os.environ["COUNTERFOIL_URL"],
    prefix="demo:",
    keys={1: base64.b64decode(os.environ["DEMO_STORE_KEY"])},  # seals the providers' tokens
)
accounts = AccountsStorage(store)
auth_sessions = SessionStorage(store)


def passport_user(session: ExpressSession) -> str | None:
    user: str | None = session.get("passport", {}).get("user")
    return user


express_sessions = ExpressSessions(
    store,
    secret=os.environ["DEMO_SESSION_SECRET"],
    name="demo_express",
    user_of=passport_user,
)


@dataclass
class Visitor:
    """Who has sent a request: by a session of Express, of Cross Auth, or both. Nobody, without a user."""

    user: counterfoil.User | None
    express: ExpressSession | None
    auth: counterfoil.Session | None


def visitor(cookies: Mapping[str, str]) -> Visitor:
    express = express_sessions.load(cookies)
    token = cookies.get("demo_fastapi")
    token_hash = hashlib.sha256(token.encode()).hexdigest() if token else ""
    auth = auth_sessions.get(token_hash=token_hash, now=datetime.now(UTC)) if token else None
    user_id = (express and passport_user(express)) or (auth and auth.user_id)
    return Visitor(accounts.find_user_by_id(user_id) if user_id else None, express, auth)


# ------------------------------------------------------------------------------------------ Cross Auth


class BoxOffice(cross_auth.OAuth2Provider):
    """The demo's provider, as one of Cross Auth's: OAuth 2 with state and PKCE."""

    id = "boxoffice"  # as the Express application calls it, too
    authorization_endpoint = f"{PROVIDER_URL}/authorize"
    token_endpoint = f"{PROVIDER_URL}/token"
    user_info_endpoint = f"{PROVIDER_URL}/user"
    scopes = ["profile"]  # noqa: RUF012
    supports_pkce = True


auth = CrossAuth(
    providers=[BoxOffice("fastapi", os.environ["DEMO_CLIENT_SECRET"])],
    storage=SecondaryStorage(store),
    accounts_storage=accounts,
    session_storage=auth_sessions,
    trusted_origins=[urlsplit(FASTAPI_URL).netloc],
    base_url=FASTAPI_URL,
    get_user_from_request=lambda request: visitor(request.cookies).user,
    config={"session": {"max_age": MINUTES_30, "cookies": {"auth": True, "name": "demo_fastapi", "secure": False}}},
)


@auth.before("social_account.create")
def log_in_with_it(event: cross_auth.BeforeSocialAccountCreateEvent) -> cross_auth.BeforeSocialAccountCreateEvent:
    """Also with an account that was linked later, which Cross Auth would keep for other purposes."""
    return replace(event, is_login_method=True)


# --------------------------------------------------------------------------------------------- FastAPI


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    store.close()


app = FastAPI(lifespan=lifespan, openapi_url=None)
app.include_router(auth.router, prefix="/auth")
templates = Jinja2Templates(PAGES)
templates.env.globals.update(app="FastAPI", express=EXPRESS_URL, fastapi=FASTAPI_URL, place=os.environ["DEMO_PLACE"])


@app.middleware("http")
async def same_browser(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """A callback link that somebody else has prepared would log their victim in as them. So a cookie has the state.
    And what Cross Auth refuses is said on a page instead of in JSON."""
    begun, state = request.cookies.get("demo_state"), request.query_params.get("state")
    if request.url.path == "/auth/boxoffice/callback" and (not state or state != begun):
        return message(request, "This login was not started in this browser.", 400)
    response = await call_next(request)
    if request.url.path in ("/auth/boxoffice/login", "/auth/boxoffice/connect") and "location" in response.headers:
        state = parse_qs(urlsplit(response.headers["location"]).query)["state"][0]
        response.set_cookie("demo_state", state, max_age=600, httponly=True, samesite="lax", path="/auth")
    if request.url.path.startswith("/auth/boxoffice/") and response.status_code >= 400:
        why = "This login was refused, or was used before; or somebody has this e-mail or account already."
        return message(request, why, response.status_code)
    return response


@app.middleware("http")
async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    # SameSite does not tell ports apart, but Origin does: no form of another site, nor of the other application.
    if request.method in ("GET", "HEAD") or request.headers.get("origin") == FASTAPI_URL:
        response = await call_next(request)
    else:
        response = message(request, "This form was not sent by a page of this application.", 403)
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'"
    )
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


@app.get("/style.css")
def style() -> Response:
    return FileResponse(PAGES / "style.css")


def visitor_of(request: Request) -> Visitor:
    return visitor(request.cookies)


Who = Annotated[Visitor, Depends(visitor_of)]


@app.get("/")
def home(request: Request, who: Who, error: str = "") -> Response:
    problem = "That login has ended, or was used before. Please begin again." if error else ""
    if who.user is None:
        return login_page(request, problem)
    listed = sessions_of(who.user, who)
    express = who.express if who.express and passport_user(who.express) else None
    context: dict[str, Any] = {
        "problem": problem,
        "user": {
            "id": who.user.id,
            "name": (who.user.user_info or {}).get("name") or who.user.email,
            "email": who.user.email,
            "password": who.user.has_usable_password,
        },
        "cookie": "demo_express" if express else "demo_fastapi",
        "session": next((one for one in listed if one["current"]), {}),
        "pages": count_page(express) if express else None,
        "sessions": listed,
        "accounts": [{"provider": one.provider, "email": one.provider_email} for one in who.user.social_accounts],
        "oauth_link": "/auth/boxoffice/connect",
    }
    response = templates.TemplateResponse(request, "home.html", context)
    if express:
        response.headers.append("Set-Cookie", express_sessions.set_cookie(express))  # it lives for longer now
    return response


def count_page(session: ExpressSession) -> dict[str, int]:
    """Changes the session of Express: the next request there sees it."""
    pages: dict[str, int] = session.get("pages", {})
    session["pages"] = pages = {**pages, "fastapi": pages.get("fastapi", 0) + 1}
    express_sessions.save(session)
    return pages


def sessions_of(user: counterfoil.User, who: Visitor) -> list[dict[str, Any]]:
    """The user's sessions of both kinds, in one list."""
    of_express = express_sessions.sessions_of(user.id, current=who.express)
    of_auth = auth.list_sessions(user.id, status="active").records
    return [
        *({"kind": "Express", "handle": one.handle, "since": clock(one.created), "seen": clock(one.last_seen),
           "current": one.current} for one in of_express),
        *({"kind": "Cross Auth", "handle": one.id, "since": clock(one.created_at), "seen": clock(one.last_active_at),
           "current": who.auth is not None and one.id == who.auth.id} for one in of_auth),
    ]  # fmt: skip


@app.post("/login")
def login(
    request: Request, email: Annotated[str, Form(max_length=120)], password: Annotated[str, Form(max_length=72)]
) -> Response:
    user = auth.authenticate(email, password)
    if user is None:
        return login_page(request, "That e-mail and that password do not belong together.", 401)
    response = RedirectResponse("/", 303)
    auth.login(user.id, response=response)
    return response


@app.post("/sessions/end")
def end(who: Who, handle: Annotated[str, Form()]) -> Response:
    if who.user is not None and not express_sessions.end(handle, user=who.user.id):
        auth.revoke_session(handle, user_id=who.user.id)
    return RedirectResponse("/", 303)


@app.post("/logout")
def logout(request: Request, who: Who) -> Response:
    if who.express is not None:
        express_sessions.destroy(who.express)
    return leave(request)


@app.post("/logout/everywhere")
def logout_everywhere(request: Request, who: Who) -> Response:
    if who.user is not None:
        express_sessions.end_all_of(who.user.id)
        auth.revoke_all_sessions(user_id=who.user.id)
    return leave(request)


@app.exception_handler(RequestValidationError)
@app.exception_handler(counterfoil.InvalidError)
def invalid(request: Request, _: Exception) -> Response:
    """A form without its fields, what is too long, what cannot be a key: no page of ours sends that."""
    return message(request, "Something is missing, or is not what we have issued.", 400)


def leave(request: Request) -> Response:
    response = RedirectResponse("/", 303)
    auth.logout(request, response=response)
    response.headers.append("Set-Cookie", express_sessions.clear_cookie())
    return response


def login_page(request: Request, problem: str = "", status: int = 200) -> Response:
    context = {"problem": problem, "oauth_login": "/auth/boxoffice/login"}
    return templates.TemplateResponse(request, "login.html", context, status)


def message(request: Request, text: str, status: int) -> Response:
    return templates.TemplateResponse(request, "message.html", {"title": "Refused", "text": text}, status)


def clock(at: datetime | None) -> str:
    return f"{at:%H:%M:%S}" if at else ""


if __name__ == "__main__":
    here = urlsplit(FASTAPI_URL)
    uvicorn.run(app, host=here.hostname or "", port=here.port or 0, log_level="warning")
