"""Applications of Express and of FastAPI, on a store as it is by default, while its servers change: who is logged in
stays so, and who has logged out does too."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from typing import Any

import counterfoil
import express_node
import httpx
import pytest
from counterfoil.express import AsyncExpressSessions
from express_node import Browser, served
from faults.clusters import ClusterGroup, Node, slot_of
from faults.sentinels import SentinelGroup, until
from faults.servers import RedisServer
from redis_servers import own_prefix
from test_cross_auth import Person, browse, make_whole_app, sign_in

PATIENT = 20  # seconds, of every store
KEYS = "{records}"  # what all keys begin with: on a cluster one primary has them, and the records too


class Sentinels(SentinelGroup):
    def concerned(self) -> tuple[RedisServer, list[RedisServer]]:
        """The primary of all that has KEYS in front, and its replicas."""
        primary = self.primary()
        return primary, [one for one in self.data if one is not primary]

    def change(self) -> None:
        self.kill_primary()


class Cluster(ClusterGroup):
    def concerned(self) -> tuple[Node, list[Node]]:
        primary = self.owner(slot_of(KEYS))
        return primary, self.replicas(primary)

    def change(self) -> None:
        self.kill_primary(self.owner(slot_of(KEYS)))


@pytest.fixture(params=["sentinel", "cluster"])
def group(request: pytest.FixtureRequest) -> Iterator[Sentinels | Cluster]:
    made: Sentinels | Cluster
    if request.param == "sentinel":
        made = Sentinels(down_after_ms=800, password="p@ss:w/o?r#d", sentinel_password="watchers")
    else:
        made = Cluster(node_timeout_ms=800, password="p@ss:w/o?r#d")
    with made:
        yield made


def replicated(group: Sentinels | Cluster) -> None:
    """All that was written until now; what is written meanwhile need not be."""
    primary, replicas = group.concerned()
    offset = int(primary.cli("ROLE")[1])
    until(lambda: all(int(replica.cli("ROLE")[4]) >= offset for replica in replicas))


class Visits:
    """Somebody who visits an application again and again: `visit` says whether it has known him."""

    def __init__(self, visit: Callable[[], bool]) -> None:
        self.visit = visit
        self.stop = threading.Event()
        self.known = self.unknown = 0
        self.failed: list[Exception] = []
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                if self.visit():
                    self.known += 1
                else:
                    self.unknown += 1
            except Exception as error:
                self.failed.append(error)

    def go_on(self, turns: int = 5) -> None:
        before, deadline = self.known, time.monotonic() + 60
        while self.known < before + turns:
            assert time.monotonic() < deadline, (self.known, self.unknown, self.failed[:3])
            time.sleep(0.005)

    def __enter__(self) -> "Visits":
        self.thread.start()
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def well(self) -> None:
        assert self.unknown == 0
        # A plain write whose answer was lost with its server, and whoever asked for it was told so.
        assert len(self.failed) <= 2, self.failed


def fastapi_app(sessions: AsyncExpressSessions) -> Any:
    from fastapi import FastAPI, Request

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await sessions.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/visit")
    async def visit(request: Request) -> Any:
        session = await sessions.load(request.cookies)
        if session is None:
            return None
        session["visits"] = session.get("visits", 0) + 1
        await sessions.save(session)
        return session["passport"]["user"]

    @app.post("/leave")
    async def leave(request: Request) -> None:
        session = await sessions.load(request.cookies)
        assert session is not None
        await sessions.destroy(session)

    return app


def test_express_and_fastapi_with_the_same_sessions(group: Sentinels | Cluster) -> None:
    prefix, turns = KEYS + own_prefix(), count()
    with ExitStack() as stack:
        node = stack.enter_context(express_node.Node())
        express = node.app(group.url(), options={"prefix": prefix, "timeout": PATIENT})
        sessions = AsyncExpressSessions(group.url(), secret="new", prefix=prefix, timeout=PATIENT)
        fastapi = stack.enter_context(served(fastapi_app(sessions)))
        people = [stack.enter_context(Browser(express)) for _ in range(7)]
        for number, browser in enumerate(people):
            browser.do("/login", username=f"person {number}", password="right")
        ada, bob, *leaving = people
        bobs = stack.enter_context(httpx.Client(base_url=fastapi, cookies=bob.cookies, timeout=60))

        def at_express() -> bool:
            ada.do("/set", turn=next(turns))
            return bool(ada.do("/me").get("passport") == {"user": "person 0"})

        def at_fastapi() -> bool:
            return bool(bobs.post("/visit").raise_for_status().json() == "person 1")

        with Visits(at_express) as first, Visits(at_fastapi) as second:
            # While nobody else could know it, nobody is told that he is out.
            frozen = group.concerned()[1]
            for replica in frozen:
                replica.pause()
            assert leaving[0].post("/logout").json() == {"error": "UNAVAILABLE"}
            for replica in frozen:
                replica.resume()
            group.wait_until_whole()
            replicated(group)
            for number, browser in enumerate(leaving[1:]):
                if number % 2:
                    browser.do("/logout")
                else:
                    httpx.post(f"{fastapi}/leave", cookies=browser.cookies, timeout=60).raise_for_status()
            group.change()
            for visits in (first, second):
                visits.go_on()
        for visits in (first, second):
            visits.well()
        for browser in leaving:
            assert "passport" not in browser.do("/me"), "he has logged out"


@pytest.mark.skipif(
    "COUNTERFOIL_NATIVE" in os.environ and "LD_PRELOAD" in os.environ,
    reason="libasan replaces crypt(), which passlib calls, and crashes",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that Cross Auth uses
def test_cross_auth(group: Sentinels | Cluster) -> None:
    with counterfoil.open(group.url(), prefix=KEYS + own_prefix(), timeout=PATIENT) as store:
        person = Person()
        app, auth = make_whole_app(store, person)

        async def story(client: httpx.AsyncClient) -> None:
            assert (await sign_in(client)).status_code == 302
            ann = (await client.get("/me")).json()["id"]
            person.info = {**person.info, "id": "2", "email": "bob@example.org"}
            other = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example")
            assert (await sign_in(other)).status_code == 302
            bob = (await other.get("/me")).json()["id"]
            assert None not in (ann, bob)
            await asyncio.to_thread(replicated, group)
            assert await asyncio.to_thread(auth.revoke_all_sessions, user_id=bob) == 1

            changing = asyncio.create_task(asyncio.to_thread(group.change))
            while not changing.done():
                assert (await client.get("/me")).json() == {"id": ann}
            await changing
            assert (await client.get("/me")).json() == {"id": ann}
            assert (await other.get("/me")).json() == {"id": None}, "his sessions were revoked"
            assert (await sign_in(other)).status_code == 302
            assert (await other.get("/me")).json() == {"id": bob}, "he is the same person"
            await other.aclose()

        browse(app, story)
