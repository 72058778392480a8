"""What only the SQLite backend has: files, other processes and their locks, and commits that threads share."""

import asyncio
import http.client
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import counterfoil
import counterfoil.aio
import pytest
from support import run_python, run_trio, run_uvloop
from test_threads import HANG, together

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture(params=[asyncio.run, run_uvloop, run_trio])
def runner(request: pytest.FixtureRequest) -> Runner:
    run: Runner = request.param
    return run


def python(code: str, **more: Any) -> "subprocess.Popen[str]":
    """Another process, which is spoken to by lines."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, **more,
    )  # fmt: skip


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


HOLDER = """
import sqlite3, sys
there = sqlite3.connect({path!r}, isolation_level=None, timeout=30)
there.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
there.execute("ROLLBACK")
there.close()
print("left", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Another process, with another SQLite, holds the lock for writing until it is told."""
    with python(HOLDER.format(path=str(path))) as process:
        assert process.stdin is not None
        assert heard(process) == "locked"

        def leave() -> None:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert heard(process) == "left"

        try:
            yield leave
        finally:
            process.stdin.close()
            process.kill()


def rows(path: Path) -> list[tuple[Any, ...]]:
    """As another process sees the table: in this one no other SQLite may open the file."""
    code = f"""
        import sqlite3
        there = sqlite3.connect("file:{quote(str(path))}?mode=ro", uri=True)
        print(there.execute("SELECT key, expiry, hex(value) FROM entry ORDER BY key").fetchall())
        print(there.execute("PRAGMA integrity_check").fetchone())
    """
    with python(code) as process:
        found, checked = heard(process), heard(process)
    assert checked == "('ok',)"
    listed: list[tuple[Any, ...]] = eval(found)
    return listed


# --------------------------------------------------------------------------------------------------------------- files


def test_it_lasts(path: Path) -> None:
    with counterfoil.open(f"sqlite:{path}", prefix="p:") as store:
        store.set("k", "é")
        store.set("bytes", b"\xff\0")
        assert store.incr("n", 41) == 41
        store.set("gone", "1", ttl=0.001)
        time.sleep(0.002)
        assert store.get("gone") is None
    with counterfoil.open(f"sqlite:{path}") as store:
        assert store.get("p:k") == "é"
        assert store.get_bytes("p:bytes") == b"\xff\0"
        assert store.incr("p:n") == 42
        assert store.get("p:gone") is None
        assert sorted(store.scan()) == ["p:bytes", "p:k", "p:n"]


def test_the_rows_of_the_format(path: Path) -> None:
    before = time.time_ns() // 1_000_000
    with counterfoil.open(f"sqlite:{path}", prefix="p:") as store:
        store.set("k", "é", ttl=1000.5)
        store.set("l", "v")
        store.incr("n", 41)
        found = rows(path)
    after = time.time_ns() // 1_000_000
    assert [(key, value) for key, _, value in found] == [("p:k", "C3A9"), ("p:l", "76"), ("p:n", "3431")]
    assert before + 1_000_500 <= found[0][1] <= after + 1_000_500
    assert found[1][1] is found[2][1] is None


def test_all_files_are_private(path: Path) -> None:
    before = os.umask(0)
    try:
        with counterfoil.open(f"sqlite:{path}") as store:
            store.set("k", "v")
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["app.db", "app.db-wal", "app.db-shm", "app.db-reserve"], 0o600)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "50% of é? #1 & more=x"
    folder.mkdir()
    with counterfoil.open(f"sqlite:{quote(str(folder))}/a%20b.db", synchronous="normal") as store:
        store.set("k", "v")
    assert {"a b.db", "a b.db-reserve"} == {each.name for each in folder.iterdir()}
    monkeypatch.chdir(folder)
    with counterfoil.open("sqlite:a%20b.db") as relative:
        monkeypatch.chdir(tmp_path)
        together(8, lambda _: check(relative.set("l", relative.get("k") or "")))  # connections that are opened only now
        with counterfoil.open(f"sqlite:{quote(str(folder))}/a%20b.db") as again:
            assert again.get("l") == "v"
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("options", [{"synchronous": "normal"}, {"single_process": True}, {"remote": True}])
def test_options(path: Path, options: dict[str, Any]) -> None:
    with counterfoil.open(f"sqlite:{path}", synchronous="full", single_process=False, remote=False, max_pending=9):
        if "remote" not in options:
            with pytest.raises(counterfoil.InvalidError, match="with other options"):
                counterfoil.open(f"sqlite:{path}", **options)
    with counterfoil.open(f"sqlite:{path}", **options) as store:
        together(4, lambda number: store.set(f"{number}", "1"))
        assert store.count() == 4


def test_a_process_that_has_the_file_to_itself(path: Path) -> None:
    """Other threads go on while opening waits."""
    code = f"""
        import sys, counterfoil
        store = counterfoil.open("sqlite:{path}", single_process=True)
        store.set("k", "v")
        print("ready", flush=True)
        sys.stdin.read()
    """
    counted = [0]
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0.001)

    with python(code) as process:
        assert heard(process) == "ready"
        thread = threading.Thread(target=others)
        thread.start()
        try:
            with pytest.raises(counterfoil.UnavailableError, match="another process has locked the database") as caught:
                counterfoil.open(f"sqlite:{path}")
        finally:
            stop.set()
            thread.join()
        assert caught.value.outcome == "not_applied"
        assert counted[0] > 100, "opening kept the other threads waiting"
        assert process.stdin is not None
        process.stdin.close()
        process.wait(HANG)
    with counterfoil.open(f"sqlite:{path}") as store:
        assert store.get("k") == "v"


@pytest.mark.parametrize("url", ["sqlite::memory:", "sqlite:%3amem%6Fry:?synchronous=normal"])
def test_in_memory_is_private_and_one(url: str) -> None:
    with counterfoil.open(url) as store, counterfoil.open(url) as other:
        together(8, lambda number: store.set(f"{number}", f"{number}"))
        together(8, lambda number: check(store.get(f"{number}") == f"{number}"))
        assert store.count() == 8
        assert store.stats()["connections"] == 1
        assert other.count() == 0


def check(holds: bool) -> None:
    assert holds


# ------------------------------------------------------------------------------------------- mistakes of a newcomer

SLASHES = (
    "write sqlite:PATH, without //: sqlite:data/app.db from the current folder, sqlite:/var/lib/app.db from the root"
)


MISTAKES = {
    "sqlite:///app.db": SLASHES,
    "sqlite://app.db": SLASHES,
    "sqlite:": "the URL names no file: sqlite:PATH, or sqlite::memory:",
    "sqlite:missing/app.db": "the folder of the database does not exist: make it, or name another",
    "sqlite:text.db": "that file is not an SQLite database: give the name of one that does not exist yet",
    "sqlite:theirs.db": "that database belongs to another application: Counterfoil keeps a file of its own, give",
    "sqlite:newer.db": "that database was written by a newer version of Counterfoil",
    "sqlite:link.db": "links, folders and devices are not followed",
    "sqlite:dangling.db": "links, folders and devices are not followed",
    "sqlite:.": "links, folders and devices are not followed",
    "sqlite:text.db/app.db": "a part of the path of the database is no folder",
    "app.db": "a store's URL looks like scheme:rest",
    "sqlite3:app.db": "known: memory:, sqlite:",
}

STRANGERS = """
import sqlite3
for name in "theirs", "newer":
    with sqlite3.connect(f"{name}.db") as there:
        there.execute("CREATE TABLE entry(key)")
        if name == "newer":
            there.executescript("PRAGMA application_id=1131701875; PRAGMA user_version=99")
"""


def test_what_is_no_database_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with a sentence that helps, and left as it was."""
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("a text, and longer than the header of a database\n" * 100)
    Path("link.db").symlink_to("app.db")
    Path("dangling.db").symlink_to("nowhere")
    subprocess.run([sys.executable, "-c", STRANGERS], check=True)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    for url, says in MISTAKES.items():
        with pytest.raises(counterfoil.InvalidError) as caught:
            counterfoil.open(url)
        assert says in str(caught.value), url
        assert caught.value.outcome == "not_applied"
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()} == before
    assert {"text.db", "theirs.db", "newer.db"} == set(before)


NOBODY = """
import os, counterfoil
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for url in {urls!r}:
    try:
        store = counterfoil.open(url)
        store.get("k")
        store.set("k", "v")
        print("it works")
    except counterfoil.Error as error:
        print(type(error).__name__, error.outcome, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_have(tmp_path: Path) -> None:
    """It does not say that the file is damaged, or is not there."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp") and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o700)
    with counterfoil.open(f"sqlite:{tmp_path}/mine.db") as store:
        store.set("k", "v")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    urls = [f"sqlite:{tmp_path}/{name}" for name in ("mine.db", "closed/app.db", "new.db", "open/app.db")]
    with python(NOBODY.format(urls=urls)) as process:
        said = [heard(process) for _ in urls]
    assert said == [
        "UnavailableError not_applied sqlite: the database cannot be opened: may this user read and write it, "
        "and are there descriptors left (ulimit -n)?",
        *["UnavailableError not_applied sqlite: this user may not make or read the database there"] * 2,
        "it works",
    ]


# -------------------------------------------------------------------------------------------------------------- threads


def test_threads_get_what_they_set(path: Path) -> None:
    with counterfoil.open(f"sqlite:{path}") as store:

        def work(number: int) -> None:
            for index in range(100):
                key = f"{number}:{index % 7}"
                assert store.set(key, f"{key}={index}") is True
                assert store.get(key) == f"{key}={index}"
                other = store.get(f"{(number + 1) % 8}:{index % 7}")
                assert other is None or other.startswith(f"{(number + 1) % 8}:{index % 7}="), "somebody else's value"

        together(8, work)
        figures = store.stats()
        assert figures["connections"] <= 8
        assert figures["commits"] < figures["grouped"] == 800, "a commit keeps the other threads from asking"
        assert figures["operations"] == 2400


def test_reads_keep_the_interpreter_and_writes_let_it_go(path: Path) -> None:
    """A read takes microseconds: to let other threads in between would cost more than it."""
    turns = [0]
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # lets the interpreter go

    before = sys.getswitchinterval()
    thread = threading.Thread(target=others)
    with counterfoil.open(f"sqlite:{path}") as store:
        store.set("k", "v")
        store.get("k")
        sys.setswitchinterval(60)  # nobody is made to let it go
        try:
            thread.start()
            seen = [turns[0]]
            for _ in range(2000):
                store.get("k")
            seen.append(turns[0])
            for number in range(50):
                store.set("k", f"{number}")
            seen.append(turns[0])
        finally:
            sys.setswitchinterval(before)
            stop.set()
            thread.join()
    assert seen[1] - seen[0] < 200
    assert seen[2] - seen[1] >= 25


def test_contested_pops_have_one_winner(path: Path) -> None:
    keys = [f"{number:x}" for number in range(400)]
    shared = counterfoil.open(f"sqlite:{path}")

    async def fill() -> None:
        async with await counterfoil.aio.open(f"sqlite:{path}") as store:
            await asyncio.gather(*(store.set(key, key) for key in keys))

    asyncio.run(fill())
    won: list[str] = []

    def work(number: int) -> None:
        store = shared if number % 2 else counterfoil.open(f"sqlite:{path}")
        for key in keys:
            value = store.pop(key)
            if value is not None:
                assert value == key
                won.append(value)
        if store is not shared:
            store.close()

    together(8, work)
    assert sorted(won) == sorted(keys)
    assert shared.count() == 0
    shared.close()


def test_more_threads_than_connections(path: Path) -> None:
    """They take turns; none is refused."""
    with counterfoil.open(f"sqlite:{path}", max_connections=3, timeout=HANG) as store:

        def work(number: int) -> None:
            for _ in range(5):
                store.incr("n")
                assert int(store.get("n") or 0) > 0

        together(48, work)
        assert store.get("n") == "240"
        assert store.stats()["connections"] <= 3 + 1
        assert store.stats()["busy"] == 0


def test_reads_go_on_while_every_connection_waits_for_the_lock(path: Path) -> None:
    """What another process keeps waiting are writes: reads have a connection that no write can take."""
    with counterfoil.open(f"sqlite:{path}", max_connections=2, timeout=HANG) as store:
        store.set("k", "v")
        with locked(path) as leave:
            writers = [threading.Thread(target=store.set, args=(f"{number}", "1")) for number in range(4)]
            for writer in writers:
                writer.start()
            while store.stats()["connections"] < 2:
                time.sleep(0.002)
            time.sleep(0.05)
            began = time.monotonic()
            together(8, lambda _: [check(store.get("k") == "v") for _ in range(100)] and None)
            assert time.monotonic() - began < 20  # of HANG
            assert list(store.scan()) == ["k"]
            leave()
            for writer in writers:
                writer.join(HANG)
        assert store.count() == 5
        assert store.stats()["busy"] == 0


def test_a_lock_of_another_process_is_waited_for(path: Path) -> None:
    with counterfoil.open(f"sqlite:{path}", timeout=HANG) as store, locked(path) as leave:
        threading.Timer(0.1, leave).start()
        assert store.incr("n") == 1
        assert store.stats()["waits"] > 0


def test_a_lock_that_is_held_too_long(path: Path) -> None:
    with counterfoil.open(f"sqlite:{path}", timeout=0.2) as store:
        store.set("k", "v")
        with locked(path):
            for call in (lambda: store.set("k", "w"), lambda: store.pop("k"), lambda: store.incr("n")):
                with pytest.raises(
                    counterfoil.DeadlineError, match="another process had the database locked"
                ) as caught:
                    call()
                assert caught.value.outcome == "not_applied"
                assert isinstance(caught.value, TimeoutError)
            assert store.get("k") == "v"
        assert store.pop("k") == "v"
        assert store.get("n") is None


class Rang(Exception):
    pass


def test_a_signal_is_answered_while_the_database_is_locked(path: Path) -> None:
    def ring(*_: object) -> None:
        rung.append(time.monotonic())
        raise Rang

    rung: list[float] = []
    before = signal.signal(signal.SIGALRM, ring)
    took = []
    try:
        with counterfoil.open(f"sqlite:{path}", timeout=HANG) as store, locked(path) as leave:
            for _ in range(5):
                due = time.monotonic() + 0.1
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(Rang):
                    store.set("k", "v")
                took.append(time.monotonic() - due)
            leave()
            # Each was cancelled, and none of them had begun.
            assert store.set("l", "v") is True
            assert store.get("k") is None
    finally:
        signal.signal(signal.SIGALRM, before)
    assert min(took) < 0.05, took


def test_close_among_calls(path: Path) -> None:
    """Stores are closed while threads use them: each call gives its answer or ClosedError; what was answered lasts."""
    for attempt in range(8):
        store = counterfoil.open(f"sqlite:{path}", prefix=f"{attempt}:")
        stored: list[str] = []

        def work(number: int, store: counterfoil.Store = store, stored: list[str] = stored) -> None:
            try:
                for index in range(1000):
                    if number == 0 and index == 10:
                        store.close()
                    store.set(f"{number}:{index}", "v")
                    stored.append(f"{number}:{index}")
                    store.get("nobody")
            except counterfoil.ClosedError as error:
                assert error.outcome == "not_applied"

        together(4, work)
        assert store.closed
        with counterfoil.open(f"sqlite:{path}", prefix=f"{attempt}:") as again:
            assert set(stored) <= set(again.scan())


def test_close_while_a_call_waits_for_the_lock(path: Path) -> None:
    store = counterfoil.open(f"sqlite:{path}", timeout=0.5)
    ended: list[str] = []

    def work() -> None:
        try:
            store.set("k", "v")
        except counterfoil.Error as error:
            ended.append(f"{error.code} {error.outcome}")

    with locked(path):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        store.close()
        for thread in threads:
            thread.join(HANG)
    assert ended == ["TIMEOUT not_applied"] * 3
    with counterfoil.open(f"sqlite:{path}") as again:
        assert again.count() == 0


def test_a_file_that_is_removed(path: Path) -> None:
    """Nothing is written into a file that nobody can find."""
    with counterfoil.open(f"sqlite:{path}") as store:
        store.set("k", "v")
        path.unlink()
        for call in (lambda: store.set("k", "w"), lambda: store.get("k")):
            end = time.monotonic() + HANG
            said = ""
            while not said:
                assert time.monotonic() < end
                try:
                    call()
                except counterfoil.CorruptError as error:
                    said = str(error)
                time.sleep(0.01)
            assert "removed or replaced" in said
            assert "close the store and open it again" in said
    with counterfoil.open(f"sqlite:{path}") as store:
        assert store.get("k") is None


# -------------------------------------------------------------------------------------------------------------- asyncio


def test_many_in_flight(path: Path, runner: Runner) -> None:
    """256 at a time: each gets its own answer, and many share a commit."""

    async def main() -> None:
        async with await counterfoil.aio.open(f"sqlite:{path}") as store:
            for turn in range(8):
                ops = [store.set(f"{number}", f"{number}={turn}") for number in range(256)]
                assert [await op for op in ops] == [True] * 256
                ops_get = [store.get(f"{number}") for number in range(256)]
                assert [await op for op in ops_get] == [f"{number}={turn}" for number in range(256)]
            figures = store.stats()
            assert figures["grouped"] == 8 * 2 * 256
            assert figures["commits"] <= 8 * 40
            assert await store.count() == 256
            found = [key async for key in store.scan()]
            assert len(found) == len(set(found)) == 256
            assert await store.clear(force=True) == 256

    runner(main())


def test_what_one_task_asks_is_done_in_order(path: Path, runner: Runner) -> None:
    async def main() -> None:
        async with await counterfoil.aio.open(f"sqlite:{path}") as store:
            for turn in range(30):
                first, read = store.set("k", f"{turn}"), store.get("k")
                popped, gone, after = store.pop("k"), store.get("k"), store.incr("n")
                assert [await first, await read, await popped, await gone] == [True, f"{turn}", f"{turn}", None]
                assert await after == turn + 1

    runner(main())


@pytest.mark.parametrize("run", [asyncio.run, run_uvloop])
def test_tasks_that_are_cancelled(path: Path, run: Runner) -> None:
    async def main() -> None:
        chance = random.Random(7)
        async with await counterfoil.aio.open(f"sqlite:{path}", timeout=HANG) as store:
            stored: set[str] = set()
            some = asyncio.Event()

            async def work(number: int) -> None:
                for turn in count():
                    await store.set(f"{number}", f"{number}={turn}")
                    stored.add(f"{number}")
                    some.set()
                    assert await store.get(f"{number}") == f"{number}={turn}"

            for _ in range(10):
                tasks = [asyncio.create_task(work(number)) for number in range(64)]
                await some.wait()
                for _ in range(40):
                    await asyncio.sleep(0.0005)
                    chance.choice(tasks).cancel()
                assert not [task for task in tasks if task.done() and not task.cancelled()]
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(each) for each in ended} == {asyncio.CancelledError}
            assert store.stats()["pending"] == 0
            assert stored <= {key async for key in store.scan()}

    run(main())


def test_event_loops_and_threads_on_one_file(path: Path) -> None:
    """Two event loops of different kinds, and threads that wait: one winner of each pop, a counter that is right."""
    keys = [f"{number}" for number in range(200)]
    with counterfoil.open(f"sqlite:{path}", timeout=HANG) as main:
        for key in keys[:100]:
            main.set(key, key)
        won: list[str] = []

        async def in_loop() -> None:
            async with await counterfoil.aio.open(f"sqlite:{path}", timeout=HANG) as store:
                for key in keys:
                    value, _ = await asyncio.gather(store.pop(key), store.incr("n"))
                    if value is not None:
                        won.append(value)

        def work(number: int) -> None:
            if number == 0:
                asyncio.run(in_loop())
            elif number == 1:
                run_uvloop(in_loop())
            else:
                for key in keys:
                    if number == 2:
                        main.set(f"new:{key}", key)
                    value = main.pop(key)
                    if value is not None:
                        won.append(value)
                    main.incr("n")

        together(5, work)
        assert sorted(won) == sorted(keys[:100])
        assert main.get("n") == "1000"
        assert main.count("new:") == 200


def test_an_event_loop_goes_on_while_the_database_is_locked(path: Path, runner: Runner) -> None:
    async def main() -> None:
        store = await counterfoil.aio.open(f"sqlite:{path}", timeout=0.5)
        await store.set("k", "v")
        with locked(path):
            write = store.set("k", "w")
            last = store.set("l", "w")
            with pytest.raises(counterfoil.DeadlineError, match="another process had the database locked") as caught:
                await write
            assert caught.value.outcome == "not_applied"
            with pytest.raises(counterfoil.DeadlineError):
                await last
            assert await store.get("k") == "v"
            pending = store.set("m", "w")
            await store.close()
            with pytest.raises(counterfoil.ClosedError):
                await pending
        with counterfoil.open(f"sqlite:{path}") as again:
            assert list(again.scan()) == ["k"]

    runner(main())


# --------------------------------------------------------------------------------------------------- fork and processes


def test_forks_while_threads_are_at_work(path: Path) -> None:
    done = run_python(
        f"""
        import os, threading, counterfoil
        store = counterfoil.open("sqlite:{path}", timeout=60)
        store.set("k", "v")
        stop, bad = False, []
        def work(first):
            number = 0
            while not stop:
                key = f"{{os.getpid()}}:{{first}}"
                store.set(key, str(number))
                if store.get(key) != str(number):
                    bad.append(key)
                number += 1
        threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        for attempt in range(10):
            pid = os.fork()
            if pid == 0:
                try:
                    more = [threading.Thread(target=work, args=(first,)) for first in range(2)]
                    for thread in more:
                        thread.start()
                    for number in range(10):
                        assert store.get("k") == "v"
                        store.incr("n")
                    stop = True
                    for thread in more:
                        thread.join()
                    assert not bad
                    if attempt % 2:
                        store.close()
                    os._exit(0)
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(9)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code == 0, code
        stop = True
        for thread in threads:
            thread.join()
        assert not bad
        assert store.get("n") == "100"
        store.close()
        print("done")
        """,
        timeout=HANG,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    assert ("n", None, b"100".hex()) in rows(path)


def test_an_async_store_in_the_child(path: Path) -> None:
    done = run_python(
        f"""
        import asyncio, os, counterfoil.aio
        async def main():
            store = await counterfoil.aio.open("sqlite:{path}")
            await store.set("k", "v")
            for _ in range(5):
                pending = [store.incr("parent") for _ in range(20)]
                await asyncio.sleep(0)
                pid = os.fork()
                if pid == 0:
                    code = 9
                    try:
                        async def child():
                            async with await counterfoil.aio.open("sqlite:{path}") as own:
                                assert await own.get("k") == "v"
                                await own.incr("child")
                        asyncio._set_running_loop(None)
                        asyncio.run(child())
                        code = 0
                    except BaseException:
                        import traceback
                        traceback.print_exc()
                    os._exit(code)
                await asyncio.gather(*pending)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert await store.get("parent") == "100"
            assert await store.get("child") == "5"
            await store.close()
            print("done")
        asyncio.run(main())
        """,
        timeout=HANG,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def _count(store: counterfoil.Store) -> None:
    for _ in range(50):
        store.incr("n")


def test_multiprocessing_with_fork(path: Path) -> None:
    """The children use the parent's store, which opens the file again."""
    context = multiprocessing.get_context("fork")
    with counterfoil.open(f"sqlite:{path}", timeout=HANG) as store:
        store.set("n", "0")
        processes = [context.Process(target=_count, args=(store,)) for _ in range(3)]
        for process in processes:
            process.start()
        _count(store)
        for process in processes:
            process.join(HANG)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert store.get("n") == "200"


def test_two_processes_make_the_file_at_once(tmp_path: Path) -> None:
    code = f"""
        import sys, counterfoil
        for number in range(8):
            sys.stdin.readline()
            with counterfoil.open(f"sqlite:{tmp_path}/{{number}}.db") as store:
                print(store.incr("n"), flush=True)
    """
    with python(code) as one, python(code) as two:
        for _ in range(8):
            for process in (one, two):
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            assert sorted([heard(one), heard(two)]) == ["1", "2"]


def test_gunicorn_that_loads_first_and_forks_then(path: Path, tmp_path: Path) -> None:
    """`gunicorn --preload`: the store is opened, and used, before the workers are forked; they share what it keeps."""
    (tmp_path / "app.py").write_text(f"""
import os, threading, counterfoil
store = counterfoil.open("sqlite:{path}", ttl=600)
store.set("loaded", str(os.getpid()))
def application(environ, start_response):
    name = environ["PATH_INFO"]
    store.set(name, name + "=")
    answer = f"{{os.getpid()}} {{store.get('loaded')}} {{store.get(name)}} {{store.incr('n')}}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [answer.encode()]
""")
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = f"{sys.executable} -m gunicorn --preload -b 127.0.0.1:0 --workers 2 --threads 4 app:application".split()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=output)
    try:
        end = time.monotonic() + HANG
        while b"Booting worker" not in log.read_bytes():
            assert process.poll() is None
            assert time.monotonic() < end, "gunicorn did not start"
            time.sleep(0.01)
        port = int(log.read_text().partition("Listening at: http://127.0.0.1:")[2].split()[0])
        workers: set[str] = set()
        numbers: list[int] = []

        def work(number: int) -> None:
            for index in count():
                if index >= 25 and len(workers) == 2:
                    break
                assert index < 10_000, "one worker took them all"
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
                connection.request("GET", f"/{number}.{index}")
                worker, loaded, value, counted = connection.getresponse().read().decode().split()
                connection.close()
                assert loaded == str(process.pid)
                assert value == f"/{number}.{index}="
                workers.add(worker)
                numbers.append(int(counted))

        together(4, work)
        assert str(process.pid) not in workers
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "the workers do not share one counter"
    finally:
        process.terminate()
        process.wait(HANG)
    with counterfoil.open(f"sqlite:{path}") as store:
        assert store.get("n") == str(len(numbers))


def test_what_was_acknowledged_outlives_a_kill(path: Path) -> None:
    """Threads and an event loop write; the process is killed in the middle, again and again."""
    code = f"""
        import asyncio, os, threading, counterfoil, counterfoil.aio
        own = os.getpid()
        store = counterfoil.open("sqlite:{path}")
        def say(key):
            os.write(1, key.encode() + b"\\n")  # in one piece
        def work(first):
            for number in range(10**9):
                store.set(f"{{own}}:{{first}}:{{number}}", "v" * 200)
                say(f"{{own}}:{{first}}:{{number}}")
        async def main():
            async with await counterfoil.aio.open("sqlite:{path}") as store:
                for turn in range(10**9):
                    keys = [f"{{own}}:loop:{{turn}}:{{number}}" for number in range(20)]
                    await asyncio.gather(*(store.set(key, "v" * 200) for key in keys))
                    for key in keys:
                        say(key)
        for first in range(3):
            threading.Thread(target=work, args=(first,), daemon=True).start()
        asyncio.run(main())
    """
    chance = random.Random()
    acknowledged: set[str] = set()
    for _ in range(3):
        with python(code) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            killer = threading.Timer(0.1 + chance.random() * 0.2, process.kill)
            killer.start()
            said += process.stdout.read()
            killer.join()
        assert said.endswith("\n")
        mine = set(said.split())
        assert len(mine) > 20, "it was killed too early to tell anything"
        acknowledged |= mine
        with counterfoil.open(f"sqlite:{path}") as store:
            there = set(store.scan())
            assert acknowledged <= there
            store.set("after", "v")
    assert len(rows(path)) >= len(acknowledged) + 1


# ------------------------------------------------------------------------------------------------------- the end of it


@pytest.mark.parametrize(
    "code",
    [
        "store.set('k', 'v')",
        """
import threading, time
def work():
    while True:
        store.set("k", "v")
        store.get("k")
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
        """
import asyncio, counterfoil.aio
async def main():
    global other, ops
    other = await counterfoil.aio.open(url)
    ops = [other.set(f"{number}", "v") for number in range(100)]
asyncio.run(main())
""",
    ],
    ids=["an open store", "daemon threads in calls", "pending operations of asyncio"],
)
@pytest.mark.parametrize("lock", [False, True], ids=["free", "locked"])
def test_exit(path: Path, code: str, lock: bool) -> None:
    """With the right code, at once: also while another process has the lock."""
    with counterfoil.open(f"sqlite:{path}"):
        pass
    if lock:
        code = code.replace("store.set('k', 'v')", "store.get('k')")
    program = f"import sys, counterfoil\nurl = 'sqlite:{path}'\nstore = counterfoil.open(url, timeout=60)\n{code}\n"
    with locked(path) if lock else open(os.devnull):
        done = run_python(program + "sys.exit(3)", timeout=30)
    assert done.returncode == 3, done.stderr
    assert "Fatal" not in done.stderr
    with counterfoil.open(f"sqlite:{path}") as store:
        store.set("after", "v")


def test_a_worker_that_has_nothing_to_do_keeps_nobody(path: Path) -> None:
    """The file's thread is gone when the last store was closed."""

    async def main() -> None:
        async with await counterfoil.aio.open(f"sqlite:{path}") as store:
            await store.set("k", "v")

    before = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        asyncio.run(main())
    end = time.monotonic() + HANG
    while len(os.listdir("/proc/self/task")) > before:  # it goes on for a moment after it has let go of the file
        assert time.monotonic() < end
        time.sleep(0.002)


# --------------------------------------------------------------------------------------------- figures, interfaces


FIGURES = {
    "operations", "errors", "timeouts", "pending", "commits", "reads", "grouped", "waits", "swept", "connections",
    "busy",
}  # fmt: skip


def test_figures(path: Path) -> None:
    assert set(counterfoil.Stats.__annotations__) >= FIGURES
    with counterfoil.open(f"sqlite:{path}") as store, counterfoil.open(f"sqlite:{path}") as other:
        for _ in range(3):
            store.set("a", "1", ttl=0.001)
        time.sleep(0.002)
        store.set("b", "1")
        store.set("c", "1")
        assert store.get("a") is None
        figures = store.stats()
        assert set(figures) == FIGURES
        assert all(type(figure) is int for figure in figures.values())
        assert figures["commits"] == figures["grouped"] == 5
        assert (figures["operations"], figures["swept"], figures["pending"]) == (6, 1, 0)
        assert other.stats()["commits"] == 0, "what happened in the file is counted once"

    async def main() -> None:
        async with await counterfoil.aio.open(f"sqlite:{path}") as store:
            await asyncio.gather(*(store.get("b") for _ in range(50)))
            figures = store.stats()
            assert (figures["commits"], figures["grouped"]) == (0, 50)
            assert 1 <= figures["reads"] <= 10

    asyncio.run(main())


def test_interfaces(path: Path) -> None:
    state = {"user": "ada", "visits": [1, 2, {"é": None}]}
    with counterfoil.open(f"sqlite:{path}", prefix="s:") as store:
        counterfoil.Storage(store).set(7, state)
        counterfoil.SecondaryStorage(store).set("code", "4711")
    with counterfoil.open(f"sqlite:{path}", prefix="s:") as store:
        assert counterfoil.Storage(store).get("7") == state
        together(8, lambda _: check(counterfoil.SecondaryStorage(store).pop("code") in ("4711", None)))
        assert counterfoil.SecondaryStorage(store).pop("code") is None

    async def main() -> None:
        async with await counterfoil.aio.open(f"sqlite:{path}", prefix="s:") as store:
            storage, codes = counterfoil.aio.Storage(store), counterfoil.aio.SecondaryStorage(store)
            assert await storage.get(7) == state
            await asyncio.gather(storage.set("8", [1]), codes.set("code", "5"))
            popped = await asyncio.gather(*(codes.pop("code") for _ in range(20)))
            assert sorted(map(str, popped)) == ["5", *["None"] * 19]
            await storage.set(7, None)
            assert await storage.get("7") is None
            assert await storage.get(8) == [1]

    asyncio.run(main())


# -------------------------------------------------------------------------------------------------------------- secrets


def test_no_secret_is_shown_or_left(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not by what went wrong, nor in the files once it was taken."""
    key, value = "canary-of-the-key", "canary-of-the-value"
    shown = []
    caplog.set_level(logging.DEBUG)
    with counterfoil.open(f"sqlite:{path}?synchronous=normal", timeout=0.1) as store:
        store.set(key, value, ttl=60)
        store.set(f"{key}-2", value * 1000)
        shown.append(repr(store))
        with locked(path):
            for call in (lambda: store.set(key, value), lambda: store.incr(key), lambda: store.pop(key)):
                with pytest.raises(counterfoil.DeadlineError) as caught:
                    call()
                shown += [repr(caught.value), *traceback.format_exception_only(caught.value)]
        with pytest.raises(counterfoil.InvalidError) as refused:
            store.incr(key)
        shown += [repr(refused.value), *traceback.format_exception_only(refused.value)]
        assert store.pop(key) == value
        assert store.delete(f"{key}-2") is True
        shown += map(str, store.stats().items())
    assert "canary" not in "".join(shown) + caplog.text
    assert path.name not in repr(store)
    for file in path.parent.iterdir():
        assert b"canary" not in file.read_bytes(), file.name


def test_the_module_has_an_sqlite_of_its_own() -> None:
    """Python's sqlite3 brings another copy into the process: neither may call into the other."""
    native = counterfoil._native.__file__
    assert native is not None
    symbols = subprocess.run(["nm", "-D", native], capture_output=True, text=True, check=True).stdout
    assert "PyInit__native" in symbols
    assert [line for line in symbols.splitlines() if "sqlite" in line] == []
    needed = subprocess.run(["readelf", "-d", native], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" in needed
    assert "sqlite" not in needed


def test_both_libraries_in_one_process(tmp_path: Path) -> None:
    """On files of their own: what the rule allows."""
    theirs = sqlite3.connect(tmp_path / "theirs.db", isolation_level=None)
    theirs.execute("PRAGMA journal_mode=WAL")
    theirs.execute("CREATE TABLE t(n)")
    with counterfoil.open(f"sqlite:{tmp_path}/ours.db") as store:
        for number in range(20):
            theirs.execute("INSERT INTO t VALUES(?)", (number,))
            assert store.incr("n") == number + 1
        assert theirs.execute("SELECT count(*) FROM t").fetchone() == (20,)
    theirs.close()
