"""A store of your own in Python: a table of SQLite, for an application that is a single process.

python examples/python_backend.py
"""

import sqlite3
import time
from typing import Any

import counterfoil


class TableBackend(counterfoil.Backend):
    binary = keeps_ttl = single_process = True  # values are bytes, set() knows KEEP, and all else may be derived
    now = staticmethod(lambda: time.time_ns() // 1_000_000)

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB, expiry INTEGER)")

    def get(self, key: str, column: str = "value") -> Any:
        found = self.db.execute(f"SELECT {column} FROM kept WHERE key = ? AND expiry > ?", (key, self.now())).fetchone()
        return found[0] if found else None

    def set(self, key: str, value: bytes, ttl: Any) -> None:
        kept, life = (self.get(key, "expiry"), ttl.otherwise) if ttl == self.KEEP else (None, ttl)
        expiry = kept or (2**63 - 1 if life is None else self.now() + round(life * 1000))
        self.db.execute("REPLACE INTO kept VALUES (?, ?, ?)", (key, value, expiry))

    def delete(self, key: str) -> bool:
        return self.db.execute("DELETE FROM kept WHERE key = ? AND expiry > ?", (key, self.now())).rowcount > 0

    def scan(self, prefix: str, cursor: None, limit: int) -> list[str]:
        return [k for (k,) in self.db.execute("SELECT key FROM kept") if k.startswith(prefix) and self.get(k, "1")]

    def close(self) -> None:
        self.db.close()


if __name__ == "__main__":
    with counterfoil.open(TableBackend(":memory:")) as store:
        codes = counterfoil.SecondaryStorage(store, ttl=300)
        codes.set("oauth:state:b7d1", "/account")
        print(codes.pop("oauth:state:b7d1"))  # /account
        print(codes.pop("oauth:state:b7d1"))  # None: exactly one wins
