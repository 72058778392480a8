"""Backends, modes and the player of tests/cases.

A backend is a line in BACKENDS, a mode a line in MODES: every case is played over every backend that declares what the
case needs, in every mode that fits.
"""

import asyncio
import importlib.util
import inspect
import json
import os
import socket
import socketserver
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import counterfoil
import counterfoil.aio
import trio
import uvloop
from counterfoil import Backend
from counterfoil.testing import Stage
from record_player import RecordPlayer, speaks_of_now
from redis_servers import Redis, ServerStage, own_prefix, redis_variable

ROOT = Path(__file__).resolve().parents[2]

# --------------------------------------------------------------------------------------------------------- backends


class Clocked(Backend):
    """Three methods over a dict, on the clock of a stage."""

    binary = True

    def __init__(self, stage: Stage | None = None) -> None:
        self.stage = stage or Stage()
        self.data: dict[str, tuple[Any, int | None]] = {}
        self.closed = 0

    def _live(self, key: str) -> bool:
        item = self.data.get(key)
        if item is not None and item[1] is not None and self.stage.wall_ms() >= item[1]:
            del self.data[key]
            item = None
        return item is not None

    def _expiry(self, ttl: Any) -> int | None:
        return None if ttl is None else self.stage.wall_ms() + round(ttl * 1000)

    def get(self, key: str) -> Any:
        return self.data[key][0] if self._live(key) else None

    def set(self, key: str, value: Any, ttl: Any) -> Any:
        if ttl == Backend.KEEP:
            expiry = self.data[key][1] if self._live(key) else self._expiry(ttl.otherwise)
        else:
            expiry = self._expiry(ttl)
        self.data[key] = (value, expiry)

    def delete(self, key: str) -> Any:
        there = self._live(key)
        self.data.pop(key, None)
        return there

    def close(self) -> Any:
        self.closed += 1


class Bare(Clocked):
    """What is missing is derived, but for incr and keep_ttl, and scan."""

    single_process = True


class BareKeeping(Bare):
    """Also incr is derived."""

    keeps_ttl = True


class Full(Clocked):
    """Every method."""

    keeps_ttl = True

    def pop(self, key: str) -> Any:
        return self.data.pop(key)[0] if self._live(key) else None

    def touch(self, key: str, ttl: float) -> Any:
        if not self._live(key):
            return False
        self.data[key] = (self.data[key][0], self._expiry(ttl))
        return True

    def incr(self, key: str, by: int, ttl: Any) -> Any:
        if not self._live(key):
            self.data[key] = (str(by).encode(), self._expiry(ttl))
            return by
        value, expiry = self.data[key]
        text = value.decode("latin-1")
        try:
            number = int(text)
            fits = str(number) == text and abs(number) < 2**53 and abs(number + by) < 2**53
        except ValueError:
            fits = False
        if not fits:
            raise counterfoil.InvalidError("not a counter")
        self.data[key] = (str(number + by).encode(), expiry)
        return number + by

    def set_if(self, key: str, value: Any, ttl: Any, condition: str, expected: Any) -> Any:
        there = self._live(key)
        holds = {"absent": not there, "present": there, "equal": there and self.data[key][0] == expected}[condition]
        if holds:
            self.set(key, value, ttl)
        return holds

    def scan(self, prefix: str, cursor: Any, limit: int) -> Any:
        # The cursor is the last key of the page before, so that keys which go meanwhile shift nothing.
        keys = sorted(
            key for key in list(self.data) if key.startswith(prefix) and key > (cursor or "") and self._live(key)
        )
        return keys[:limit], keys[limit - 1] if len(keys) > limit else None


Checkpoint = Callable[[], Awaitable[object]]


def with_coroutines(kind: type[Clocked], checkpoint: Checkpoint) -> type[Clocked]:
    """The same backend with coroutine functions, which wait before they do their work in one step."""

    def later(method: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(self: Clocked, *args: Any) -> Any:
            await checkpoint()
            return method(self, *args)

        return wrapper

    # set_if of Full calls set: bind that one to the plain method.
    plain = {f"_plain_{name}": getattr(kind, name) for name in ("set",)}
    methods = {
        name: later(getattr(kind, name))
        for name in ("get", "set", "delete", "pop", "touch", "incr", "scan", "close")
        if hasattr(kind, name)
    }
    if hasattr(kind, "set_if"):

        async def set_if(self: Any, key: str, value: Any, ttl: Any, condition: str, expected: Any) -> Any:
            await checkpoint()
            there = self._live(key)
            holds = {"absent": not there, "present": there, "equal": there and self.data[key][0] == expected}[condition]
            if holds:
                self._plain_set(key, value, ttl)
            return holds

        methods["set_if"] = set_if
    return type(f"{kind.__name__}Coroutines", (kind,), {**plain, **methods})


def load_example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example_target(stage: Stage) -> Any:
    """examples/python_backend.py as it is, but for its clock."""
    backend = load_example("python_backend").TableBackend(":memory:")
    backend.now = stage.wall_ms
    return backend


class Sqlite:
    """Database files, a new one for each store: in memory, where there is a file system for it."""

    def __init__(self) -> None:
        self._numbers = count()
        self._folders: dict[int, tempfile.TemporaryDirectory[str]] = {}

    @property
    def folder(self) -> Path:
        mine = self._folders.get(os.getpid())
        if mine is None:
            fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            mine = self._folders[os.getpid()] = tempfile.TemporaryDirectory(prefix="cf-sqlite-", dir=fast)
        return Path(mine.name)

    def new(self) -> str:
        return f"sqlite:{self.folder}/{next(self._numbers)}.db"

    def forget(self) -> None:
        """The files of stores that were closed."""
        for path in self.folder.iterdir():
            path.unlink()


EVERYTHING = frozenset({"pop", "touch", "incr", "conditions", "keep_ttl", "scan", "binary", "alone"})
RECORDS = frozenset({"records"})
SERVED = EVERYTHING | RECORDS
CLOCK = frozenset({"clock", "one_millisecond"})  # a clock that a case can move; exact also for the shortest life


class Kept(Backend):
    """The least of one process that may be sealed."""

    single_process = True
    keeps_ttl = True
    binary = True

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.data.get(key)

    def set(self, key: str, value: bytes, ttl: object) -> None:
        self.data[key] = value

    def delete(self, key: str) -> bool:
        return self.data.pop(key, None) is not None


class Scanned(Kept):
    """Somebody's own backend, of one process, that can be swept."""

    def scan(self, prefix: str, cursor: int | None, limit: int) -> tuple[list[str], int | None]:
        keys, begin = sorted(key for key in list(self.data) if key.startswith(prefix)), cursor or 0
        return keys[begin : begin + limit], begin + limit if begin + limit < len(keys) else None


@dataclass(frozen=True)
class BackendLine:
    """What to open: a URL, one of the Redis servers, a new database file, a class of backends whose methods may become
    coroutines, or a function that makes a backend."""

    name: str
    target: str | Redis | Sqlite | type[Clocked] | Callable[[Stage], Any]
    can: frozenset[str]
    modes: frozenset[str] | None = None  # None: all that fit


BACKENDS = [
    BackendLine("memory", "memory:", EVERYTHING | CLOCK | RECORDS | {"memory"}),
    BackendLine("memory-shared", "memory:cases", EVERYTHING | CLOCK | RECORDS | {"memory"}),
    BackendLine("full", Full, EVERYTHING | CLOCK),
    BackendLine("bare", Bare, CLOCK | RECORDS | {"pop", "touch", "conditions", "binary"}),
    BackendLine("example", example_target, EVERYTHING | CLOCK | RECORDS),
    BackendLine("bare-keeping", BareKeeping, EVERYTHING - {"scan"} | CLOCK | RECORDS),
    BackendLine("sqlite", Sqlite(), EVERYTHING | CLOCK | RECORDS, frozenset({"blocking", "asyncio"})),
    BackendLine("sqlite-memory", "sqlite::memory:", EVERYTHING | CLOCK | RECORDS, frozenset({"blocking", "asyncio"})),
    # Those whose clock can be moved play everything; the others play all that asks for no clock.
    BackendLine("redis-clock", Redis("CLOCK"), EVERYTHING | RECORDS | {"clock"}),
    BackendLine("redis", Redis(""), EVERYTHING | RECORDS, frozenset({"blocking", "asyncio"})),
    BackendLine("redis-unix", Redis("UNIX"), EVERYTHING, frozenset({"blocking", "asyncio"})),
    BackendLine("redis-tls", Redis("TLS"), EVERYTHING, frozenset({"blocking", "asyncio"})),
    BackendLine("redis-acl", Redis("ACL"), EVERYTHING | RECORDS, frozenset({"blocking", "asyncio"})),
    BackendLine("redis-sentinel", Redis("SENTINEL_CLOCK"), SERVED | {"clock"}, frozenset({"blocking", "asyncio"})),
    BackendLine(
        "redis-cluster", Redis("CLUSTER_CLOCK"), SERVED - {"alone"} | {"clock"}, frozenset({"blocking", "asyncio"})
    ),
    BackendLine("redis-tls-acl", Redis("TLS_ACL"), EVERYTHING, frozenset({"blocking", "asyncio"})),
]

# Where interfaces and adapters are tried, beyond the cases: a new place is a line here. What is on a server that others
# use too is under a prefix of its own.

SERVERS = {"redis": "", "redis-sentinel": "SENTINEL", "redis-cluster": "CLUSTER"}
FILES = Sqlite()
PLACES = ("memory", "sqlite", *SERVERS)
SHARED = PLACES[1:]  # by other processes


def url_of(place: str) -> str:
    """A new place; that in memory has a name, so that it can be opened again."""
    if place in SERVERS:
        return redis_variable(SERVERS[place])
    return FILES.new() if place == "sqlite" else f"memory:places-{own_prefix()}"


def staged_url_of(place: str, stage: ServerStage) -> str:
    """The same where time is the stage's."""
    if place not in SERVERS:
        return url_of(place)
    stage.lead()
    return redis_variable("_".join(filter(None, [SERVERS[place], "CLOCK"])))


# ------------------------------------------------------------------------------------------------------------- modes


def run_blocking(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the blocking store waited")


def run_uvloop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def run_trio(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        return await coroutine

    return trio.run(main)


async def asyncio_checkpoint() -> None:
    await asyncio.sleep(0)


@dataclass(frozen=True)
class Mode:
    name: str
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    blocking: bool = False
    checkpoint: Checkpoint | None = None  # coroutine backends


MODES = [
    Mode("blocking", run_blocking, blocking=True),
    Mode("asyncio", asyncio.run),
    Mode("trio", run_trio),
    Mode("asyncio-coroutines", asyncio.run, checkpoint=asyncio_checkpoint),
    Mode("uvloop-coroutines", run_uvloop, checkpoint=asyncio_checkpoint),
    Mode("trio-coroutines", run_trio, checkpoint=trio.lowlevel.checkpoint),
]


def fits(backend: BackendLine, mode: Mode) -> bool:
    if backend.modes is not None and mode.name not in backend.modes:
        return False
    return mode.checkpoint is None or isinstance(backend.target, type)


def target_of(backend: BackendLine, mode: Mode, stage: Stage, query: str = "") -> Any:
    if isinstance(backend.target, Redis):
        if isinstance(stage, ServerStage) and backend.target.which.endswith("CLOCK"):
            stage.lead()
        return backend.target.url
    if isinstance(backend.target, Sqlite):
        return backend.target.new()
    if isinstance(backend.target, str):
        return backend.target + ("?" + query if query else "")
    if isinstance(backend.target, type) and mode.checkpoint is not None:
        return with_coroutines(backend.target, mode.checkpoint)(stage)
    return backend.target(stage)


# ----------------------------------------------------------------------------------------------------------- playing

Case = dict[str, Any]


def load_cases() -> list[Case]:
    cases = []
    for path in sorted((ROOT / "tests" / "cases").glob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")):
            cases.append({**case, "file": path.stem})
    assert len(cases) > 300, "the cases have gone"
    return cases


_WRONG = {"list": [], "object": {}, "boolean": True, "number": 5, "null": None}


def value_of(said: Any) -> Any:
    """What JSON cannot say."""
    match said:
        case {"repeat": [text, times]}:
            return text * times
        case {"hex": digits}:
            return bytes.fromhex(digits)
        case {"number": name}:
            return float(name)
        case {"wrong_type": name}:
            return _WRONG[name]
        case {"lone_surrogate": True}:
            return "a\ud800b"
    return said


def state_of(said: Any) -> Any:
    """A state is JSON itself: only long text is said in another way."""
    return value_of(said) if isinstance(said, dict) and list(said) == ["repeat"] else said


async def finish(result: Any) -> Any:
    """A result of either kind of store, in the shape in which the cases expect it."""
    if hasattr(result, "__anext__"):
        return sorted([key async for key in result])
    if inspect.isawaitable(result):
        return await result
    if hasattr(result, "__next__"):
        return sorted(result)
    return result


def advance(stage: Stage, seconds: float) -> None:
    stage.advance(round(seconds * 1000) / 1000)


class Player:
    """Tells one case to one store."""

    def __init__(self, store: Any, stage: Stage, options: dict[str, Any]) -> None:
        self.store = store
        self.stage = stage
        module: Any = counterfoil if isinstance(store, counterfoil.Store) else counterfoil.aio
        self.records = RecordPlayer(store, stage, options, value_of, finish)
        self.storage = module.Storage(store)
        self.secondary = module.SecondaryStorage(
            store, **({"ttl": options["secondary_ttl"]} if "secondary_ttl" in options else {})
        )

    def begin(self, step: dict[str, Any]) -> Any:
        do = step["do"]
        known = {"do", "expect", "expect_length", "error", "expires_in"}
        arguments = {name: value_of(said) for name, said in step.items() if name not in known}
        if do.startswith("storage."):
            if do == "storage.set":
                arguments["state"] = state_of(step.get("state"))
            return getattr(self.storage, do[8:])(**arguments)
        if do.startswith("secondary."):
            return getattr(self.secondary, do[10:])(**arguments)
        if "expires_in" in step:
            seconds = value_of(step["expires_in"])
            good = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            arguments["expires_at"] = self.stage.now() + timedelta(seconds=seconds) if good else seconds
        return getattr(self.store, do)(**arguments)

    async def fill(self, keys: list[str], ttl: Any) -> None:
        raised: Exception | None = None
        for result in [self.store.set(key, key, ttl=ttl) for key in keys]:
            try:
                assert await finish(result) is True
            except counterfoil.Error as error:
                raised = raised or error
        if raised is not None:
            raise raised

    async def step(self, step: dict[str, Any]) -> None:
        do = step["do"]
        if do.startswith(("accounts.", "sessions.")):
            await self.records.step(step)
            return
        if do == "advance":
            advance(self.stage, step["seconds"])
            return
        if do == "fill":
            keys = [f"{step['prefix']}{number:04}" for number in range(step["count"])]
            for at in range(0, len(keys), 50):  # so many are under way at once
                await self.fill(keys[at : at + 50], step.get("ttl"))
            return
        if "error" in step:
            try:
                result = await finish(self.begin(step))
            except counterfoil.Error as error:
                assert (error.code, error.outcome) == (step["error"], "not_applied"), f"{step}: {error!r}"
                return
            raise AssertionError(f"{step} gave {result!r}")
        result = await finish(self.begin(step))
        if "expect" in step:
            expected = state_of(step["expect"]) if do == "storage.get" else value_of(step["expect"])
            assert result == expected, f"{step} gave {str(result)[:200]}"
            assert type(result) is type(expected), f"{step} gave a {type(result).__name__}"
        elif "expect_length" in step:
            assert len(result) == len(set(result)) == step["expect_length"], f"{step} gave {len(result)} keys"


async def open_in(mode: Mode, target: Any, stage: Stage, options: dict[str, Any]) -> Any:
    wanted = {name: value_of(said) for name, said in options.items() if name in ("prefix", "ttl", "timeout")}
    if mode.blocking:
        return counterfoil.open(target, stage=stage, **wanted)
    return await counterfoil.aio.open(target, stage=stage, **wanted)


def needs(case: Case) -> set[str]:
    """What a backend must be able to do. A Redis server keeps a value through the millisecond of its expiry, so it is
    asked for one less; a life of one millisecond has none to give."""
    found = set(case.get("needs", []))
    steps = case.get("steps", [])
    if any(step["do"] == "advance" for step in steps) or speaks_of_now(steps):
        found.add("clock")
    lives = [case.get("open", {}).get(name) for name in ("ttl", "secondary_ttl")]
    lives += [step.get(name) for step in steps for name in ("ttl", "expires_in")]
    if any(isinstance(life, int | float) and 0 < life <= 0.001 for life in lives):
        found.add("one_millisecond")
    if about_all(case):
        found.add("alone")
    return found


def about_all(case: Case) -> bool:
    """Of everybody's keys, not only of those under its own prefix."""
    return any(step["do"] == "clear" and step["prefix"] == "" and "error" in step for step in case.get("steps", []))


async def play(case: Case, backend: BackendLine, mode: Mode, stage: Stage) -> None:
    options = case.get("open", {})
    target = target_of(backend, mode, stage, options.get("query", ""))
    if isinstance(backend.target, Redis) and "open_error" not in case:
        await play_on_server(case, backend.target, mode, stage)
        return
    if "open_error" in case:
        try:
            await open_in(mode, target, stage, options)
        except counterfoil.Error as error:
            assert (error.code, error.outcome) == (case["open_error"], "not_applied")
            if hasattr(target, "db"):  # the example: what was refused before the core is not closed by it
                target.close()
            return
        raise AssertionError("it was opened")
    store = await open_in(mode, target, stage, options)
    try:
        player = Player(store, stage, options)
        for step in case["steps"]:
            await player.step(step)
    finally:
        await finish(store.close())
        if isinstance(backend.target, Sqlite):
            backend.target.forget()


async def play_on_server(case: Case, server: Redis, mode: Mode, stage: Stage) -> None:
    """On a server with others, and with what they have left: under a prefix of its own, or where a case is about
    everybody's keys or the longest prefix, in a database of its own."""
    options = case.get("open", {})
    prefix = value_of(options.get("prefix", ""))
    apart = about_all(case) or len(prefix.encode()) > 200
    if not apart:
        options = {**options, "prefix": own_prefix() + prefix}
    store = await open_in(mode, server.apart if apart else server.url, stage, options)
    try:
        await finish(store.clear("", force=True))
        player = Player(store, stage, options)
        for step in case["steps"]:
            await player.step(step)
        await finish(store.clear("", force=True))
    finally:
        await finish(store.close())


# ------------------------------------------------------------------------------------------- servers that are none


class FakeServer(socketserver.ThreadingTCPServer):
    """Listens from when it is made until its block ends, and leaves each connection to `talk`, on its own thread."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        del client_address
        self.talk(request)

    def talk(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


# --------------------------------------------------------------------------------------------------------- processes


def run_python(code: str, *, timeout: float = 60, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs code in another interpreter, which must end in time; what it prints must not look like a crash."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=timeout, check=False, **more,
    )  # fmt: skip
