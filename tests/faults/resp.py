"""A Redis client of a few lines, so that the kit never depends on what it tests."""

from __future__ import annotations

import socket
import ssl
from typing import Any


class ReplyError(Exception):
    """The server answered with an error; its text."""


class Connection:
    """One blocking connection: call() sends one command and gives its reply."""

    def __init__(
        self,
        address: str | tuple[str, int],
        tls: ssl.SSLContext | None = None,
        name: str = "localhost",
        timeout: float = 10,
    ) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self.socket = tls.wrap_socket(self.socket, server_hostname=name)
        self.reader = self.socket.makefile("rb")

    def call(self, *words: bytes | str | int | float) -> Any:
        self.socket.sendall(command(*words))
        return self.reply()

    def reply(self) -> Any:
        line = self.reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        data = self.reader.read(int(rest) + 2)
        if len(data) != int(rest) + 2:
            raise ConnectionError("the connection ended")
        return data[:-2]

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


def command(*words: bytes | str | int | float) -> bytes:
    """A command as bytes on the wire."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
