"""Drives the fault proxy (proxy.c) from Python.

with Proxy(f"127.0.0.1:{server.port}") as proxy:
    proxy("next cut reply 5 rst")       # any line of its language, see README.md
    client.connect(("127.0.0.1", proxy.port))
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Literal

from faults.build import built
from faults.servers import RedisServer, spawn

Direction = Literal["request", "reply"]
How = Literal["fin", "rst", "stall", "blackhole"]


class ProxyError(Exception):
    """The proxy did not understand, or what was waited for did not happen."""


def data(raw: bytes) -> str:
    """Bytes as the proxy's language writes them."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b"\\;" else f"\\x{byte:02x}" for byte in raw)


class Proxy:
    def __init__(self, to: str | RedisServer, listen: str = "127.0.0.1:0") -> None:
        target = f"127.0.0.1:{to.port}" if isinstance(to, RedisServer) else to
        command: list[str | Path] = [built("proxy"), "--listen", listen, "--to", target]
        self.process = spawn(command, stdout=subprocess.PIPE)
        assert self.process.stdout
        ready = self.process.stdout.readline().split()
        if ready[:1] != [b"ready"]:
            self.process.wait()
            raise ProxyError("the proxy did not start")
        self.port = int(ready[1])
        self.address = ("127.0.0.1", self.port)
        self._control = socket.create_connection(("127.0.0.1", int(ready[2])), 60)
        self._control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._control.makefile("r")

    def __call__(self, line: str) -> str:
        """Says a line; gives what the proxy answered after its "ok"."""
        self._control.sendall(line.encode() + b"\n")
        verdict, _, rest = self._answers.readline().rstrip("\n").partition(" ")
        if verdict != "ok":
            raise ProxyError(f"{line[:200]}: {verdict} {rest}")
        return rest

    def cut(self, direction: Direction, place: int | str, how: How = "fin", scope: str = "next") -> None:
        self(f"{scope} cut {direction} {place} {how}")

    def lose(self, place: int | str = "#0", how: How = "fin", scope: str = "now") -> None:
        """The server has executed the command, the client never hears of it."""
        self(f"{scope} lose {place} {how}")

    def insert(self, direction: Direction, place: int | str, raw: bytes, scope: str = "now") -> None:
        self(f"{scope} insert {direction} {place} {data(raw)}")

    def answer(self, raw: bytes, place: str = "#0", scope: str = "now") -> None:
        """The server executes, but this is what the client reads in place of the whole reply."""
        self(f"{scope} answer {place} {data(raw)}")

    def passing(self) -> None:
        """Nothing is disturbed any more. What is stalled stays so until `resume`."""
        self("pass")

    def stats(self) -> dict[str, int]:
        return {name: int(value) for name, value in (pair.split("=") for pair in self("stats").split())}

    def wait(self, field: str, op: Literal["=", "<=", ">="], wanted: int, timeout: float = 10) -> int:
        return int(self(f"wait {field} {op} {wanted} {int(timeout * 1000)}"))

    def close(self) -> None:
        self._answers.close()
        self._control.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
