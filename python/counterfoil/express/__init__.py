"""The sessions of an Express application, in Python: read and written as express-session does it over
`counterfoil/express-session` or connect-redis, so that one login holds in both.

    import os
    from typing import Annotated
    from counterfoil.express import ExpressSession, ExpressSessions
    from fastapi import Depends, FastAPI, HTTPException, Request

    app = FastAPI()
    sessions = ExpressSessions("redis://cache", secret=os.environ["SESSION_SECRET"])  # the secret that Express has

    def session_of(request: Request) -> ExpressSession:
        session = sessions.load(request.cookies)
        if session is None:
            raise HTTPException(401)
        sessions.touch(session)
        return session

    @app.get("/cart")
    def cart(session: Annotated[ExpressSession, Depends(session_of)]) -> list[str]:
        return session.setdefault("cart", [])

    @app.post("/cart/{item}")
    def add(item: str, session: Annotated[ExpressSession, Depends(session_of)]) -> None:
        session.setdefault("cart", []).append(item)
        sessions.save(session)  # False: logged out meanwhile, and it stays so

A session that begins in Python:

    session = sessions.create({"user": user.id})
    response.headers.append("set-cookie", sessions.set_cookie(session))

`AsyncExpressSessions` is the same, awaited. Both take `memory:NAME` (which no other process sees), `sqlite:PATH` and
`redis://` URLs; and open stores, sealed ones and ones that hash their keys too, where Express has the same keys.
"""

from .cookies import Cookie, CookieOptions
from .session import ExpressSession
from .sessions import AsyncExpressSessions, EndedError, ExpressSessions
from .users import Login, UserSession

__all__ = [
    "AsyncExpressSessions",
    "Cookie",
    "CookieOptions",
    "EndedError",
    "ExpressSession",
    "ExpressSessions",
    "Login",
    "UserSession",
]
