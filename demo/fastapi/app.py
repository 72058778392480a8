"""An OAuth-style login on FastAPI; Counterfoil keeps the `state`, the code and the session. Started by `./run demo`.

The provider is built in (the /authorize page), so that the whole round trip can be watched in one program:

    /login       the application makes a state, remembers it and sends the browser to the provider
    /authorize   the provider asks the user, makes a code, remembers it and sends the browser back
    /callback    the application pops the state, the provider's side pops the code: both work once, for one caller

The routes are plain functions, which FastAPI runs on a pool of threads: they share one blocking store.
"""

import html
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from string import Template
from typing import Annotated
from urllib.parse import urlencode

import counterfoil
import uvicorn
from counterfoil import SecondaryStorage, Storage
from fastapi import Cookie, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

URL = os.environ.get("COUNTERFOIL_URL") or "sqlite:demo.db"  # `./run demo` names one in build/demo
PLACE = "a file that Counterfoil keeps" if URL.startswith("sqlite:") else "Counterfoil"
CLIENT_ID = "demo-client"
STATE_SECONDS = 600
CODE_SECONDS = 60
SESSION_SECONDS = 1800

store = counterfoil.open(URL, prefix="demo:fastapi:once:")
once = SecondaryStorage(store)
session_store = counterfoil.open(URL, prefix="demo:fastapi:session:", ttl=SESSION_SECONDS)
sessions = Storage(session_store)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    store.close()
    session_store.close()


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.middleware("http")
async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
    )
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"  # the callback's URL holds a code
    return response


@app.get("/")
def home(demo_fastapi: Annotated[str | None, Cookie()] = None) -> Response:
    session = sessions.get(demo_fastapi) if demo_fastapi else None
    if session is None:
        return page(
            "Not signed in",
            '<p>This application has no passwords. It sends you to a provider, which vouches for you.</p>'
            '<p><a class="button" href="/login">Sign in with the demo provider</a></p>',
        )
    return page(
        f"Hello, {session['name']}",
        f'<p>The provider says that you are <strong id="who">{html.escape(session["name"])}</strong>.</p>'
        '<form method="post" action="/logout"><button class="quiet">Sign out</button></form>'
        '<p class="hint">Go back in your history to the callback address: it is refused, because its state and '
        "its code were good for one use.</p>"
        f'<p class="hint">Your browser holds an id. Your name is here, in {PLACE}, under '
        "<code>demo:fastapi:session:</code> and that id; states and codes were under "
        "<code>demo:fastapi:once:</code>.</p>",
    )


@app.get("/login")
def login(request: Request) -> Response:
    state = secrets.token_urlsafe(32)
    once.set(f"state:{state}", json.dumps({"for": CLIENT_ID}), ttl=STATE_SECONDS)
    query = urlencode({"client_id": CLIENT_ID, "redirect_uri": callback_url(request), "state": state})
    response = RedirectResponse(f"/authorize?{query}", status_code=303)
    # Ties the state to this browser: a callback link prepared by somebody else comes without the cookie.
    response.set_cookie("demo_state", state, max_age=STATE_SECONDS, httponly=True, samesite="lax", path="/callback")
    return response


@app.get("/authorize")
def ask(request: Request, client_id: str, redirect_uri: str, state: str) -> Response:
    if client_id != CLIENT_ID or redirect_uri != callback_url(request):
        return refuse("The provider does not know this application.")
    return page(
        "The demo provider asks",
        "<p>May <strong>Counterfoil on FastAPI</strong> know who you are?</p>"
        '<form method="post" action="/authorize">'
        f'<input type="hidden" name="client_id" value="{html.escape(client_id)}">'
        f'<input type="hidden" name="redirect_uri" value="{html.escape(redirect_uri)}">'
        f'<input type="hidden" name="state" value="{html.escape(state)}">'
        '<label for="name">Your name</label>'
        '<input id="name" name="name" value="Grace Hopper" maxlength="60" required autocomplete="name">'
        "<button>Yes, tell it</button></form>",
    )


@app.post("/authorize")
def allow(
    request: Request,
    client_id: Annotated[str, Form()],
    redirect_uri: Annotated[str, Form()],
    state: Annotated[str, Form()],
    name: Annotated[str, Form(max_length=60)],
) -> Response:
    if client_id != CLIENT_ID or redirect_uri != callback_url(request):
        return refuse("The provider does not know this application.")
    code = secrets.token_urlsafe(32)
    once.set(f"code:{code}", json.dumps({"name": name}), ttl=CODE_SECONDS)
    return RedirectResponse(f"{redirect_uri}?{urlencode({'code': code, 'state': state})}", status_code=303)


@app.get("/callback")
def callback(code: str = "", state: str = "", demo_state: Annotated[str | None, Cookie()] = None) -> Response:
    if not demo_state or not secrets.compare_digest(state.encode(), demo_state.encode()):
        return refuse("This sign-in was not started in this browser.")
    if pop("state", state) is None:
        return refuse("This sign-in was completed before, or took too long.")
    user = pop("code", code)
    if user is None:
        return refuse("This code was used before, or is too old.")
    sid = secrets.token_urlsafe(32)
    sessions.set(sid, {"name": user["name"]})
    response = RedirectResponse("/", status_code=303)
    response.set_cookie("demo_fastapi", sid, max_age=SESSION_SECONDS, httponly=True, samesite="lax")
    return response


@app.post("/logout")
def logout(demo_fastapi: Annotated[str | None, Cookie()] = None) -> Response:
    if demo_fastapi:
        sessions.set(demo_fastapi, None)
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie("demo_fastapi")
    return response


@app.exception_handler(counterfoil.InvalidError)
def invalid(_: Request, __: Exception) -> Response:
    """Codes and ids come from strangers: one that cannot be a key (too long, a line break in it) is their mistake."""
    return refuse("This is not something that we have issued.")


def pop(kind: str, token: str) -> dict[str, str] | None:
    """What was remembered under this token, to one caller only: get and delete are one step."""
    found = once.pop(f"{kind}:{token}")
    return None if found is None else json.loads(found)


def callback_url(request: Request) -> str:
    return f"{request.base_url}callback"


def refuse(why: str) -> Response:
    return page("Refused", f'<p class="problem" role="alert">{why}</p><p><a href="/">Start again</a></p>', status=400)


def page(title: str, body: str, status: int = 200) -> Response:
    return HTMLResponse(PAGE.substitute(title=html.escape(title), body=body), status)


PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title · Counterfoil on FastAPI</title>
<style>
  :root { color-scheme: light dark; --line: #8884; --ink: #3b55a8; }
  @media (prefers-color-scheme: dark) { :root { --ink: #a9bbff; } }
  body { font: 1.05rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 0 1.25rem; }
  header { color: var(--ink); font-weight: 600; border-bottom: 2px dashed var(--line); padding-bottom: .5rem; }
  h1 { font-size: 1.6rem; margin: 1.25rem 0 .75rem; }
  form { display: grid; gap: .4rem; margin: 1rem 0; }
  label { font-weight: 600; }
  input, button, .button { font: inherit; padding: .55rem .7rem; border-radius: .4rem; border: 1px solid #888; }
  button, .button { background: #3b55a8; border-color: #3b55a8; color: #fff; cursor: pointer; margin-top: .3rem; }
  .button { display: inline-block; text-decoration: none; }
  button.quiet { background: none; border-color: #888; color: inherit; }
  :focus-visible { outline: 3px solid var(--ink); outline-offset: 2px; }
  .problem { border-left: 4px solid #b3261e; padding-left: .75rem; }
  .hint { font-size: .9rem; opacity: .8; }
</style>
</head>
<body>
<header>Counterfoil on FastAPI</header>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")


def main() -> None:
    host = os.environ.get("DEMO_HOST", "127.0.0.1")
    listener = socket.create_server((host, int(os.environ.get("DEMO_FASTAPI_PORT", "0"))), backlog=128)
    print(f"listening on http://{host}:{listener.getsockname()[1]}/", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
