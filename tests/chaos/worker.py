"""A worker of the campaign in Python: takes orders as lines of JSON, answers each with one. See README.md."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import counterfoil
import counterfoil.aio

PATIENCE = 60.0  # seconds in which a call is asked for again
CALL = 3.0  # the time-out of one


class Worker:
    def __init__(self, store: counterfoil.aio.AsyncStore) -> None:
        self.store = store
        self.accounts = counterfoil.aio.AccountsStorage(store)
        self.sessions = counterfoil.aio.SessionStorage(store)
        self.retries = 0
        self.wrong: list[str] = []

    async def patiently(self, call: Callable[[str | None], Awaitable[Any]], repeatable: bool = False) -> Any:
        """The answer, however often it takes to get it. What was not applied is asked for again; so is what has a
        receipt, by it, and what may be repeated. "unknown" where none of this holds any more."""
        receipt: str | None = None
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                return await call(receipt)
            except (counterfoil.UnavailableError, counterfoil.DeadlineError, counterfoil.BusyError) as error:
                self.retries += 1
                if error.outcome != "not_applied" and not repeatable:
                    receipt = error.receipt or receipt
                    if receipt is None:
                        return "unknown"
            except counterfoil.ExistsError:
                return "there"
            except counterfoil.Error as error:
                self.wrong.append(f"{error.code}: {error}")
                return "unknown"
            if asyncio.get_running_loop().time() > end:
                return "unknown"
            await asyncio.sleep(0.05)

    async def issue(self, codes: list[str]) -> dict[str, Any]:
        """Sets codes; each has a value of its own."""
        done = await asyncio.gather(
            *(self.patiently(lambda _, c=c: self.store.set(c, f"value of {c}", ttl=3600), True) for c in codes)
        )
        return {"set": [code for code, how in zip(codes, done, strict=True) if how != "unknown"]}

    async def pop(self, codes: list[str]) -> dict[str, Any]:
        told = await asyncio.gather(
            *(self.patiently(lambda receipt, c=c: self.store.pop(c, receipt=receipt)) for c in codes)
        )
        wrong = [c for c, value in zip(codes, told, strict=True) if value not in (None, "unknown", f"value of {c}")]
        self.wrong += [f"the value of another code for {c}" for c in wrong]
        return {
            "won": [c for c, value in zip(codes, told, strict=True) if value == f"value of {c}"],
            "unknown": [c for c, value in zip(codes, told, strict=True) if value == "unknown"],
        }

    async def incr(self, key: str, times: int) -> dict[str, Any]:
        told = await asyncio.gather(
            *(self.patiently(lambda receipt: self.store.incr(key, receipt=receipt)) for _ in range(times))
        )
        return {"numbers": [number for number in told if number != "unknown"], "unknown": told.count("unknown")}

    async def sign_up(self, people: list[str]) -> dict[str, Any]:
        """Everybody signs everybody up."""

        async def one(person: str) -> str:
            def find_or_create(_: str | None) -> Awaitable[Any]:
                return self.accounts.find_or_create_by_social_account(
                    provider="chaos", provider_user_id=person, user={"email": f"{person}@example.org"}
                )

            told = await self.patiently(find_or_create, repeatable=True)
            return "unknown" if told == "unknown" else str(told[0].id)

        ids = await asyncio.gather(*(one(person) for person in people))
        return {"ids": dict(zip(people, ids, strict=True))}

    async def log_out(self, user: str, tokens: list[str]) -> dict[str, Any]:
        """Logs a user in with each of these tokens, and out again of all."""
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "user_id": user,
            "created_at": now,
            "updated_at": now,
            "expires_at": now + timedelta(hours=1),
        }
        for token in tokens:
            await self.patiently(lambda _, t=token: self.sessions.create(token_hash=t, **fields), repeatable=True)
        told = await self.patiently(lambda _: self.sessions.revoke_all_for_user(user, revoked_at=now), repeatable=True)
        return {"revoked": told != "unknown"}

    async def alive(self, tokens: list[str]) -> dict[str, Any]:
        """Which of these tokens are of a live session."""
        told = await asyncio.gather(
            *(
                self.patiently(lambda _, t=t: self.sessions.get(token_hash=t, now=datetime.now(UTC)), repeatable=True)
                for t in tokens
            )
        )
        return {"alive": [t for t, one in zip(tokens, told, strict=True) if one is not None and one != "unknown"]}

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        what = order.pop("do")
        answer: dict[str, Any] = await getattr(self, what)(**order)
        answer |= {"retries": self.retries, "wrong": self.wrong}
        self.retries, self.wrong = 0, []
        return answer


async def main() -> None:
    orders = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with await counterfoil.aio.open(sys.argv[1], prefix="chaos:", timeout=CALL) as store:
        worker = Worker(store)
        while line := await orders.readline():
            print(json.dumps(await worker.obey(json.loads(line))), flush=True)


asyncio.run(main())
