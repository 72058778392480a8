"""A store of your own in Python: a table of SQLite, for an application that is a single process.

python examples/python_backend.py
"""

import sqlite3
import time

import counterfoil


class TableBackend(counterfoil.Backend):
    binary = True  # values come as bytes
    single_process = True  # nobody else changes the table: pop, touch and conditions may be derived from these three

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB, expiry INTEGER)")

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def get(self, key: str) -> bytes | None:
        found = self.db.execute("SELECT value FROM kept WHERE key = ? AND expiry > ?", (key, self.now())).fetchone()
        return bytes(found[0]) if found else None

    def set(self, key: str, value: bytes, ttl: float | None) -> None:
        expiry = 2**63 - 1 if ttl is None else self.now() + round(ttl * 1000)
        self.db.execute("REPLACE INTO kept VALUES (?, ?, ?)", (key, value, expiry))

    def delete(self, key: str) -> bool:
        return self.db.execute("DELETE FROM kept WHERE key = ? AND expiry > ?", (key, self.now())).rowcount > 0

    def close(self) -> None:
        self.db.close()


if __name__ == "__main__":
    with counterfoil.open(TableBackend(":memory:")) as store:
        codes = counterfoil.SecondaryStorage(store, ttl=300)
        codes.set("oauth:state:b7d1", "/account")
        print(codes.pop("oauth:state:b7d1"))  # /account
        print(codes.pop("oauth:state:b7d1"))  # None: exactly one wins
