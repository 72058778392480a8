"""A worker of the campaign in Python: takes orders as lines of JSON, answers each with one. See README.md.

worker.py URL '{"timeout": 3, "threads": false}'    threads: over the blocking store, from a pool of threads
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import counterfoil
import counterfoil.aio

TTL = 600  # seconds
THREADS = 32
PATIENCE = 60.0  # seconds in which a call is asked for again
PAUSE = 0.05
RECEIPT = (
    10.0  # seconds that a receipt lives at least: what arrives later finds none, and is told that nothing is there
)
SECRET = re.compile("value of|code-|lock-|person-|token-|once-|campaign")  # what no error may say


class Threads:
    """The methods of a blocking object, to be awaited."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._target, name)
        return lambda *args, **kwargs: asyncio.to_thread(method, *args, **kwargs)


class Worker:
    def __init__(self, store: Any, accounts: Any, sessions: Any, timeout: float, room: int) -> None:
        self.store, self.accounts, self.sessions, self.timeout = store, accounts, sessions, timeout
        self.room = asyncio.Semaphore(room)  # a call that waits for a thread has not begun
        self.load: Load | None = None
        self.begin()

    def begin(self) -> None:
        self.calls = self.retries = 0
        self.late = 0.0  # by how much the latest call was later than its deadline
        self.latest = ""  # which that was, and how it ended
        self.stood_still = (0.0, 0.0)  # how long this event loop did at most, and what processor time that took
        self.wrong: list[str] = []
        self.errors: Counter[str] = Counter()
        self.texts: dict[str, str] = {}

    async def once(self, what: str, call: Awaitable[Any]) -> Any:
        """One call, and what there is to know about it: how long it took, how it failed, what its error says."""
        async with self.room:
            return await self.timed(what, call)

    async def timed(self, what: str, call: Awaitable[Any]) -> Any:
        start = time.monotonic()
        self.calls += 1
        end = "answered"
        try:
            return await call
        except counterfoil.Error as error:
            end = str(error)
            if not isinstance(error, counterfoil.ExistsError):
                kind = f"{what}: {error.code} {error.outcome}"
                self.errors[kind] += 1
                self.texts.setdefault(kind, str(error))
                if "READONLY" in str(error):
                    self.errors["READONLY"] += 1
            if SECRET.search(str(error)):
                self.wrong.append(f"an error of {what} tells more than it should: {error}")
            raise
        finally:
            if (late := time.monotonic() - start - self.timeout) > self.late:
                self.late, self.latest = late, f"{what}: {end}"

    async def watched(self) -> None:
        """Whose time it was: with none for the processor, the machine's; with much, ours; and if there is none, a call
        that was late has been forgotten."""
        while True:
            start, cpu = time.monotonic(), time.process_time()
            await asyncio.sleep(0.05)
            self.stood_still = max(self.stood_still, (time.monotonic() - start - 0.05, time.process_time() - cpu))

    async def patiently(self, what: str, call: Callable[[str | None], Awaitable[Any]], repeatable: bool = False) -> Any:
        """The answer, however often it takes to get it. What was not applied is asked for again; so is what has a
        receipt, by it, and what may be repeated. "unknown" where none of this holds any more."""
        receipt: str | None = None
        begin = since = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                return await self.once(what, call(receipt))
            except (counterfoil.UnavailableError, counterfoil.DeadlineError, counterfoil.BusyError) as error:
                self.retries += 1
                if error.outcome != "not_applied" and not repeatable:
                    since = since if receipt else asked
                    receipt = error.receipt or receipt
                    if receipt is None:
                        return "unknown"
            except counterfoil.ExistsError:
                return "there"
            except counterfoil.Error as error:
                self.wrong.append(f"{what}: {error.code}: {error}")
                return "unknown"
            await asyncio.sleep(PAUSE)
            now = time.monotonic()
            if now > begin + PATIENCE or (receipt and now + self.timeout > since + RECEIPT):
                return "unknown"

    async def issue(self, codes: list[str], ways: list[bool]) -> dict[str, Any]:
        """Sets codes, each to a value of its own; where its way is True only if nobody has: that waits for replicas."""

        def one(code: str, conditional: bool) -> Awaitable[Any]:
            if conditional:
                return self.claim(code, f"value of {code}")
            return self.patiently("set", lambda _: self.store.set(code, f"value of {code}", ttl=TTL), True)

        done = await asyncio.gather(*map(one, codes, ways))
        self.wrong += [f"{code}: somebody has set it" for code, how in zip(codes, done, strict=True) if how is False]
        return {"set": [code for code, how in zip(codes, done, strict=True) if how is True]}

    async def pop(self, codes: list[str]) -> dict[str, Any]:
        def one(code: str) -> Awaitable[Any]:
            return self.patiently("pop", lambda receipt: self.store.pop(code, receipt=receipt))

        told = await asyncio.gather(*map(one, codes))
        wrong = [c for c, value in zip(codes, told, strict=True) if value not in (None, "unknown", f"value of {c}")]
        self.wrong += [f"the value of another code for {c}" for c in wrong]
        return {
            "won": [c for c, value in zip(codes, told, strict=True) if value == f"value of {c}"],
            "unknown": [c for c, value in zip(codes, told, strict=True) if value == "unknown"],
        }

    async def incr(self, key: str, times: int) -> dict[str, Any]:
        told = await asyncio.gather(
            *(self.patiently("incr", lambda receipt: self.store.incr(key, receipt=receipt)) for _ in range(times))
        )
        return {"numbers": [number for number in told if number != "unknown"]}

    async def lock(self, names: list[str], me: str) -> dict[str, Any]:
        """Takes what nobody holds."""
        told = await asyncio.gather(*(self.claim(name, me) for name in names))
        return {"held": [name for name, got in zip(names, told, strict=True) if got is True]}

    async def swap(self, key: str, me: str, times: int) -> dict[str, Any]:
        """Puts a value of its own in the place of the one that is there; which ones it has replaced."""
        swaps = []
        for number in range(times):
            was = await self.patiently("get", lambda _: self.store.get(key), True)
            if was in (None, "unknown"):
                continue
            if await self.replace(key, was, f"{me}-{number}") is True:
                swaps.append(was)
        return {"swaps": swaps}

    def claim(self, name: str, value: str) -> Awaitable[Any]:
        return self.patiently(
            "if_absent", lambda receipt: self.store.set(name, value, ttl=TTL, if_absent=True, receipt=receipt)
        )

    def replace(self, key: str, was: str, now: str) -> Awaitable[Any]:
        return self.patiently("if_equal", lambda receipt: self.store.set(key, now, if_equal=was, receipt=receipt))

    async def once_each(self, names: list[str]) -> dict[str, Any]:
        """Sets each of these once, whatever comes of it: what the errors said."""

        async def one(name: str) -> str:
            try:
                call = self.store.set(name, f"value of {name}", ttl=TTL, if_absent=True)
                return "kept" if await self.once("if_absent", call) else "refused"
            except counterfoil.Error as error:
                return str(error.outcome)

        return {"said": dict(zip(names, await asyncio.gather(*(one(name) for name in names)), strict=True))}

    async def look(self, names: list[str]) -> dict[str, Any]:
        def one(name: str) -> Awaitable[Any]:
            return self.patiently("get", lambda _: self.store.get(name), True)

        told = await asyncio.gather(*map(one, names))
        return {
            "there": [n for n, value in zip(names, told, strict=True) if value not in (None, "unknown")],
            "absent": [n for n, value in zip(names, told, strict=True) if value is None],
        }

    async def sign_up(self, people: list[str], rivals: list[str], me: str) -> dict[str, Any]:
        """Everybody signs everybody up; and rivals too, with the same e-mail, but each with an account of his own."""

        async def one(person: str, provider_user_id: str) -> list[Any]:
            call = self.accounts.find_or_create_by_social_account
            fields = {"provider": "chaos", "provider_user_id": provider_user_id}
            user = {"email": f"{person}@example.org"}
            told = await self.patiently("find_or_create", lambda _: call(**fields, user=user), True)
            return [told, False] if isinstance(told, str) else [str(told[0].id), told[2]]

        told = await asyncio.gather(
            *(one(person, person) for person in people), *(one(rival, f"{rival} {me}") for rival in rivals)
        )
        return {"told": dict(zip(people + rivals, told, strict=True))}

    async def who(self, people: list[str]) -> dict[str, Any]:
        """Whose account it is by now."""

        async def one(person: str) -> str:
            found = await self.patiently(
                "find", lambda _: self.accounts.find_social_account(provider="chaos", provider_user_id=person), True
            )
            return "nobody" if found is None else "unknown" if found == "unknown" else str(found.user_id)

        return {"ids": dict(zip(people, await asyncio.gather(*(one(person) for person in people)), strict=True))}

    async def log_out(self, user: str, tokens: list[str]) -> dict[str, Any]:
        """Logs a user in with each of these tokens, and out again of all."""
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "user_id": user,
            "created_at": now,
            "updated_at": now,
            "expires_at": now + timedelta(hours=1),
        }

        def log_in(token: str) -> Awaitable[Any]:
            return self.patiently("log in", lambda _: self.sessions.create(token_hash=token, **fields), True)

        for token in tokens:
            await log_in(token)
        told = await self.patiently(
            "revoke", lambda _: self.sessions.revoke_all_for_user(user, revoked_at=now), repeatable=True
        )
        return {"revoked": told != "unknown"}

    async def alive(self, tokens: list[str]) -> dict[str, Any]:
        """Which of these tokens are of a live session."""

        def one(token: str) -> Awaitable[Any]:
            return self.patiently(
                "session", lambda _: self.sessions.get(token_hash=token, now=datetime.now(UTC)), repeatable=True
            )

        told = await asyncio.gather(*map(one, tokens))
        return {"alive": [t for t, one in zip(tokens, told, strict=True) if one is not None and one != "unknown"]}

    async def work(self, lanes: list[list[str]], pause: float) -> dict[str, Any]:
        """Goes on calling until `rest`: each lane has keys of its own."""
        self.load = Load(self, lanes, pause)
        return {}

    async def told(self) -> dict[str, Any]:
        """Of each lane when its calls succeeded since the last time: microseconds of the machine's steady clock."""
        assert self.load
        ends, self.load.ends = self.load.ends, [[] for _ in self.load.ends]
        return {"ends": ends}

    async def rest(self) -> dict[str, Any]:
        assert self.load
        await self.load.stop()
        return {}

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        what = order.pop("do")
        answer: dict[str, Any] = await getattr(self, what)(**order)
        answer |= {"calls": self.calls, "retries": self.retries, "late": self.late, "wrong": self.wrong}
        answer |= {"errors": self.errors, "texts": self.texts}
        answer |= {"latest": self.latest, "stood_still": self.stood_still}
        self.begin()
        return answer


class Load:
    """Calls that write, one after the other in each lane; each is made once, with its deadline."""

    def __init__(self, worker: Worker, lanes: list[list[str]], pause: float) -> None:
        self.worker, self.pause, self.over = worker, pause, False
        self.ends: list[list[int]] = [[] for _ in lanes]
        self.lanes = [asyncio.create_task(self.lane(number, keys)) for number, keys in enumerate(lanes)]

    async def lane(self, number: int, keys: list[str]) -> None:
        store, once, count = self.worker.store, self.worker.once, 0
        while not self.over:
            key, kind = keys[count % len(keys)], count % 4
            count += 1
            try:
                if kind == 0:
                    await once("set", store.set(key, "value of the load", ttl=600))
                elif kind == 1:
                    await once("pop", store.pop(keys[(count - 2) % len(keys)]))
                elif kind == 2:
                    await once("incr", store.incr(f"{key}:count", ttl=600))
                else:
                    await once("if_absent", store.set(f"{key}:lock", "me", ttl=1, if_absent=True))
                self.ends[number].append(time.monotonic_ns() // 1000)
            except counterfoil.Error:
                pass  # it is counted
            await asyncio.sleep(self.pause)

    async def stop(self) -> None:
        self.over = True
        await asyncio.gather(*self.lanes)


async def serve(worker: Worker) -> None:
    orders = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    watch = asyncio.create_task(worker.watched())
    while line := await orders.readline():
        print(json.dumps(await worker.obey(json.loads(line))), flush=True)
    watch.cancel()


async def main() -> None:
    url, options = sys.argv[1], json.loads(sys.argv[2])
    timeout = options["timeout"]
    if options["threads"]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        with counterfoil.open(url, prefix="chaos:", timeout=timeout) as blocking:
            accounts, sessions = counterfoil.AccountsStorage(blocking), counterfoil.SessionStorage(blocking)
            await serve(Worker(Threads(blocking), Threads(accounts), Threads(sessions), timeout, THREADS))
        return
    async with await counterfoil.aio.open(url, prefix="chaos:", timeout=timeout) as store:
        await serve(
            Worker(
                store, counterfoil.aio.AccountsStorage(store), counterfoil.aio.SessionStorage(store), timeout, 1 << 30
            )
        )


asyncio.run(main())
