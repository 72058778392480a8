"""One party of the sqlite bench, in Python: python party.py PATH (blocking|asyncio) PARTY. See loops.py.

PATH is a file of this party's own, which is not there yet. Everybody keeps the same rows, each with an expiry that a
read compares with the clock; WAL, synchronous=FULL, every set a transaction, unless it shares one with others.
"""

import asyncio
import sqlite3
import sys
import threading
import time
from functools import partial

from kept import DAY
from loops import ITEMS, serve

TABLE = "CREATE TABLE entry(key TEXT NOT NULL PRIMARY KEY, expiry INTEGER, value TEXT NOT NULL) STRICT, WITHOUT ROWID"
GET = "SELECT value FROM entry WHERE key = ? AND (expiry IS NULL OR expiry > ?)"
SET = (
    "INSERT INTO entry(key, expiry, value) VALUES(?, ?, ?)"
    " ON CONFLICT(key) DO UPDATE SET expiry = excluded.expiry, value = excluded.value"
)
PATIENCE = 60  # seconds for the lock of another connection
# In the order of the keys, which is not that of the loops: or what they write one after the other would share pages.
ROWS = [(key, value) for key, value, _ in sorted(ITEMS)]

# So often each is written before anything is measured, so that the WAL of everybody is as long as it gets: a file that
# grows costs a commit about twice the sync.
TIMES = 4
STAY_OPEN: list[sqlite3.Connection] = []


def now():
    return int(time.time() * 1000)


def later():
    return int(time.time() * 1000) + DAY * 1000


def fill(path):
    """The rows, in one transaction for each time. The connection stays open: whoever is the last to close takes the WAL
    away. Ours makes its own table."""
    connection = connected(path)
    connection.execute(TABLE)
    for _ in range(TIMES):
        connection.execute("BEGIN")
        connection.executemany(SET, [(key, later(), value) for key, value in ROWS])
        connection.execute("COMMIT")
    STAY_OPEN.append(connection)


def connected(path, **options):
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, **options)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def fill_ours(url):
    import counterfoil.aio

    async def sets():
        async with await counterfoil.aio.open(url, ttl=DAY) as store:
            for at in list(range(0, len(ROWS), 1000)) * TIMES:
                await asyncio.gather(*(store.set(key, value) for key, value in ROWS[at : at + 1000]))

    asyncio.run(sets())


def counterfoil_party(path, options=""):
    import counterfoil

    url = f"sqlite:{path}{options}"
    store = counterfoil.open(url, ttl=DAY)
    fill_ours(url)  # beside it, so that the WAL stays
    return store.get, store.set


class Each(threading.local):
    """A connection for every thread that comes."""

    def __init__(self, connect):
        self.execute = connect().execute


def of_each(path, connect):
    fill(path)
    mine = Each(partial(connect, path))
    return (
        lambda key: mine.execute(GET, (key, now())).fetchone()[0],
        lambda key, value: mine.execute(SET, (key, later(), value)),
    )


def shared_party(path):
    fill(path)
    execute, lock = connected(path, check_same_thread=False).execute, threading.Lock()

    def get(key):
        with lock:
            return execute(GET, (key, now())).fetchone()[0]

    def set(key, value):
        with lock:
            execute(SET, (key, later(), value))

    return get, set


def apsw_connected(path):
    import apsw

    connection = apsw.Connection(path)
    connection.set_busy_timeout(PATIENCE * 1000)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


async def counterfoil_aio(path, stack):
    import counterfoil.aio

    url = f"sqlite:{path}"
    store = await stack.enter_async_context(await counterfoil.aio.open(url, ttl=DAY))
    await asyncio.to_thread(fill_ours, url)
    return store.get, store.set


async def aiosqlite_party(path, stack):
    import aiosqlite

    fill(path)
    connection = await stack.enter_async_context(aiosqlite.connect(path, timeout=PATIENCE, isolation_level=None))
    await connection.execute("PRAGMA journal_mode=WAL")
    await connection.execute("PRAGMA synchronous=FULL")
    # One visit to its thread; execute() and fetchone() would be three.
    ask = connection.execute_fetchall

    async def get(key):
        return (await ask(GET, (key, now())))[0][0]

    async def set(key, value):
        await ask(SET, (key, later(), value))

    return get, set


BLOCKING = {
    "counterfoil": counterfoil_party,
    "counterfoil-alone": partial(counterfoil_party, options="?single_process=on"),
    "sqlite3": partial(of_each, connect=connected),
    "sqlite3-shared": shared_party,
    "apsw": partial(of_each, connect=apsw_connected),
}
AWAITED = {"counterfoil": counterfoil_aio, "aiosqlite": aiosqlite_party}

if __name__ == "__main__":
    path, manner, name = sys.argv[1:]
    serve(manner, partial((BLOCKING if manner == "blocking" else AWAITED)[name], path))
