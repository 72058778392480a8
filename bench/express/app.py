"""One party of the express bench in Python: python app.py URL SESSIONS PARTY, a FastAPI application under uvicorn.

It says what app.cjs says, and is told the same, but knows no delay of its event loop. The sessions are as in the other
benches, 500 bytes of JSON. Routes that are not `async` run on FastAPI's threads: Cross Auth's storages block.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

import counterfoil
import counterfoil.aio
import redis
import uvicorn
import uvloop
from counterfoil.adapters.cross_auth import SecondaryStorage
from counterfoil.express import AsyncExpressSessions
from cross_auth.storage.redis import RedisStorage
from fastapi import FastAPI, Request
from kept import DAY, text_of

URL, SESSIONS, PARTY = sys.argv[1], int(sys.argv[2]), sys.argv[3]
PREFIX = f"{PARTY}:"
SECRET = "only for the bench"  # as in load.cjs


def id_of(request: Request) -> str:
    """Of a cookie that Express has signed. Whoever keeps only values does not look at the signature."""
    return unquote(request.cookies["connect.sid"])[2:].partition(".")[0]


def changed(session: dict) -> str:
    session["visits"] += 1
    return json.dumps(session, separators=(",", ":"))


def blocking(app: FastAPI, storage: SecondaryStorage | RedisStorage, prefix: str) -> None:
    @app.get("/read")
    def read(request: Request) -> dict[str, str]:
        session = json.loads(storage.get(prefix + id_of(request)))
        return {"name": session["user"]["name"]}

    @app.get("/write")
    def write(request: Request) -> dict[str, str | int]:
        key = prefix + id_of(request)
        session = json.loads(storage.get(key))
        storage.set(key, changed(session), ttl=DAY)
        return {"name": session["user"]["name"], "visits": session["visits"]}


@asynccontextmanager
async def awaited(app: FastAPI) -> AsyncIterator[None]:
    async with await counterfoil.aio.open(URL, prefix=PREFIX) as store:
        storage = counterfoil.aio.SecondaryStorage(store)

        @app.get("/read")
        async def read(request: Request) -> dict[str, str]:
            session = json.loads(await storage.get(id_of(request)))
            return {"name": session["user"]["name"]}

        @app.get("/write")
        async def write(request: Request) -> dict[str, str | int]:
            session = json.loads(await storage.get(id_of(request)))
            await storage.set(id_of(request), changed(session), ttl=DAY)
            return {"name": session["user"]["name"], "visits": session["visits"]}

        yield


@asynccontextmanager
async def express(app: FastAPI) -> AsyncIterator[None]:
    async with await counterfoil.aio.open(URL) as store:
        sessions = AsyncExpressSessions(store, secret=SECRET, prefix=PREFIX)

        @app.get("/read")
        async def read(request: Request) -> dict[str, str]:
            session = await sessions.load(request.cookies)
            await sessions.touch(session)
            return {"name": session["user"]["name"]}

        @app.get("/write")
        async def write(request: Request) -> dict[str, str | int]:
            session = await sessions.load(request.cookies)
            session["visits"] += 1
            await sessions.save(session)
            return {"name": session["user"]["name"], "visits": session["visits"]}

        yield


def application() -> FastAPI:
    lifespan = {"counterfoil-aio": awaited, "counterfoil-express": express}.get(PARTY)
    app = FastAPI(lifespan=lifespan)
    if PARTY == "counterfoil":
        blocking(app, SecondaryStorage(counterfoil.open(URL, prefix=PREFIX)), "")
    elif PARTY == "cross-auth":
        blocking(app, RedisStorage.from_url(URL), PREFIX)
    elif lifespan is None:
        raise SystemExit(f"app.py: there is no party {PARTY}")
    return app


def fill() -> None:
    client = redis.Redis.from_url(URL)
    pipeline = client.pipeline(transaction=False)
    for i in range(SESSIONS):
        pipeline.set(f"{PREFIX}{i:032}", text_of(i), ex=DAY)
    pipeline.execute()
    client.close()


def answer(server: uvicorn.Server, port: int) -> None:
    """On a thread of its own, which waits."""
    before = 0.0
    for line in sys.stdin:
        if line.strip() == "port":
            print(port, flush=True)
        elif line.strip() == "start":
            before = time.process_time()
        else:
            print(json.dumps({"cpu": (time.process_time() - before) * 1e6}), flush=True)
    server.should_exit = True


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print("ready", flush=True)


async def main() -> None:
    fill()
    server = Server(uvicorn.Config(application(), log_level="warning", timeout_keep_alive=600))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=[server, listening.getsockname()[1]], daemon=True).start()
        await server.serve([listening])


if __name__ == "__main__":
    uvloop.run(main())
