"""The types: the stubs say what the module has, and the package is strictly typed."""

import os
import subprocess
import sys
from pathlib import Path

import counterfoil
import pytest
from support import ROOT

pytestmark = pytest.mark.skipif("COUNTERFOIL_NATIVE" in os.environ, reason="types do not depend on a sanitizer")


def run(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# The kit's own modules: users see what `counterfoil.testing` has of them. A contract is given its tests as it is made,
# one for each rule, which stubtest cannot know.
MADE = r"counterfoil\.testing\.[a-z]+\..*"


def test_stubs(tmp_path: Path) -> None:
    (tmp_path / "made").write_text(MADE)
    run("mypy.stubtest", "counterfoil", "--allowlist", str(tmp_path / "made"), cwd=ROOT / "python")


def test_strict() -> None:
    run("mypy", "--strict", "python/counterfoil", "examples/python_backend.py", "examples/python_accounts.py")


def test_what_users_see(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text("""
from typing import assert_type
import asyncio
import counterfoil
import counterfoil.aio
from datetime import UTC, datetime
from pathlib import Path

store = counterfoil.open("memory:", prefix="p", ttl=5, max_entries=5)
assert_type(store, counterfoil.Store)
assert_type(store.get("a"), str | None)
assert_type(store.get_bytes("a"), bytes | None)
assert_type(store.set("a", b"1", expires_at=datetime.now(UTC)), bool)
assert_type(store.get_many(["a"]), dict[str, str | None])
assert_type(store.incr("n", receipt=None), int)
assert_type(store.stats(), counterfoil.Stats)
assert_type(store.stats()["operations"], int)
assert_type(store.stats()["latency_us"], dict[float, int])

def connected(what: str) -> None: ...
store.on("connect", connected)(what="")
store.off("connect", connected)
store.on("disconnect", connected)  # type: ignore[call-overload]  # an error comes, not text
try:
    store.pop("a")
except counterfoil.Error as error:
    assert_type(error.receipt, str | None)
accounts = counterfoil.AccountsStorage(store, max_social_accounts=5)
assert_type(accounts.find_user_by_email("a@b"), counterfoil.User | None)
ann = accounts.create_user(user_info={}, email="a@b")
assert_type(ann.social_accounts, list[counterfoil.SocialAccount])
assert_type(
    accounts.find_or_create_by_social_account(provider="p", provider_user_id="1", user={"email": "a@b"}),
    tuple[counterfoil.User, counterfoil.SocialAccount, bool],
)
wrong = {"mail": ""}
accounts.find_or_create_by_social_account(provider="p", provider_user_id="1", user=wrong)  # type: ignore[arg-type]
accounts.update_social_account("1", access_token=None, scope=..., is_login_method=False)
ann.email = "other"  # type: ignore[misc]
sessions = counterfoil.SessionStorage(store, when_full="refuse", retention=3600)
page = sessions.list_for_user("1", now=datetime.now(UTC), status="active", order_by="created_at_asc")
assert_type(page.next_cursor, str | None)
sessions.list_for_user("1", now=datetime.now(UTC), order_by="id")  # type: ignore[arg-type]
assert_type(sessions.get_any("1"), counterfoil.Session | None)
counterfoil.SessionStorage(store, when_full="drop")  # type: ignore[arg-type]

async def awaited() -> None:
    async with await counterfoil.aio.open("memory:") as store:
        assert_type(await counterfoil.aio.AccountsStorage(store).find_user_by_id(5), counterfoil.User | None)
        assert_type(await counterfoil.aio.SessionStorage(store).epoch("1"), int)

counterfoil.open("redis://localhost", max_connections=5, receipts=False, tls_ca=Path("ca.pem"), password=None)
for key in store.scan():
    assert_type(key, str)
for progress in store.reseal():
    assert_type(progress.sealed + progress.unreadable, int)
for progress in accounts.reseal():
    assert_type(progress, counterfoil.Resealed)
counterfoil.open("memory:", keys={1: b""}, plain_until=datetime.now(UTC))

async def main() -> None:
    async with await counterfoil.aio.open("memory:") as store:
        assert_type(await store.get("a"), str | None)
        assert_type(await store.set("a", "1"), bool)
        assert_type(await asyncio.gather(store.incr("n"), store.get("a")), tuple[int, str | None])
        async for key in store.scan():
            assert_type(key, str)
        async for progress in store.reseal("p"):
            assert_type(progress, counterfoil.Resealed)
        async for progress in counterfoil.aio.AccountsStorage(store).reseal():
            assert_type(progress, counterfoil.Resealed)
        task = asyncio.create_task(store.pop("a"))
        assert_type(await task, str | None)

class Mine(counterfoil.Backend):
    single_process = True
    async def get(self, key: str) -> str | None: ...
    async def set(self, key: str, value: str, ttl: float | None) -> None: ...
    async def delete(self, key: str) -> bool: ...
""")
    run(
        "mypy",
        "--strict",
        "--config-file=",
        "--disable-error-code=empty-body",
        str(tmp_path / "use.py"),
        cwd=ROOT / "python",
    )


def test_typed_marker() -> None:
    assert counterfoil.__file__ is not None
    assert (Path(counterfoil.__file__).parent / "py.typed").exists()
