"""Bad TLS peers, each a listener on loopback that a client must refuse before it has sent a byte of Redis.

    with Peers() as peers:                      # makes the certificates
        with peers.start("expired") as peer:
            ...connect to rediss://{peer.host}:{peer.port}/0?tls_ca={peers.ca}...
            assert peer.seen() == b""

    python tests/faults/tls_peers.py serve --dir DIR     all of them, for programs in other languages (README.md)

BAD says what each is and how a client's attempt must end; GOOD are the controls, real servers that must be accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import select
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.certificates import LOCAL, Certificates, Issued
from faults.servers import RedisServer

PATIENCE = 30.0  # a stalled peer waits so long for its client to give up
HANDSHAKE, ALERT, CHANGE_CIPHER = 22, 21, 20

V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

Certify = Callable[[Certificates], Issued]
Serve = Callable[["Peer", socket.socket], None]
Prepare = Callable[[Certificates], ssl.SSLContext]


@dataclass(frozen=True)
class PeerFactory:
    """One kind of bad peer.

    ends      "refused": at once, by the client's own judgement or because the peer left;
              "deadline": the client's patience ends it, if not its judgement before;
              "lost": the handshake is good, so the client may have spoken, and then the connection is lost
    because   words of which the client's sentence may contain one (OpenSSL's, in lower case); advice, not a law
    host      the name that the client connects to
    """

    ends: Literal["refused", "deadline", "lost"]
    because: tuple[str, ...]
    serve: Serve
    host: str = "localhost"
    certificate: bool = False  # refused for its certificate or version alone: a client that checks nothing gets through
    prepare: Prepare | None = None  # before the first client, so that what goes wrong here is not taken for a refusal


class Peer:
    """A running listener. It takes any number of clients, one thread each."""

    def __init__(self, name: str, factory: PeerFactory, peers: Peers) -> None:
        self.name, self.factory, self.peers = name, factory, peers
        self.host = factory.host
        self.accepted = 0
        self.handshakes = 0  # that have succeeded, as this side sees it
        self._seen = bytearray()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._busy = 0
        self.context = peers.prepared(name, factory)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"peer-{name}", daemon=True).start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self._busy += 1
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        try:
            client.settimeout(PATIENCE)
            with client, contextlib.suppress(OSError, ssl.SSLError):
                self.factory.serve(self, client)
        finally:
            with self._lock:
                self._busy -= 1

    def saw(self, raw: bytes) -> None:
        with self._lock:
            self._seen += raw

    def seen(self, settle: float = 2.0) -> bytes:
        """What a client has said to the application, encrypted or not; empty is what a test wants. Waits until those
        that have hung up have been read to their end."""
        deadline = time.monotonic() + settle
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.002)
        with self._lock:
            return bytes(self._seen)

    def stop(self) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Peers:
    """The certificates of all peers, made when they are first asked for."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self._temporary = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="cf-tls-"))
        self.certificates = Certificates(self.folder)
        self.ca = str(self.certificates.ca)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._redis: RedisServer | None = None
        self._lock = threading.Lock()

    def prepared(self, name: str, factory: PeerFactory) -> ssl.SSLContext:
        with self._lock:
            if name not in self._contexts:
                make = factory.prepare or good_context
                self._contexts[name] = make(self.certificates)
            return self._contexts[name]

    def redis(self) -> RedisServer:
        """A real server without TLS."""
        with self._lock:
            if self._redis is None:
                self._redis = RedisServer().start()
            return self._redis

    def start(self, name: str) -> Peer:
        return Peer(name, BAD[name], self)

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._redis:
            self._redis.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


# ---------------------------------------------------------------------------------- peers that are wrong by certificate


def server_context(issued: Issued) -> ssl.SSLContext:
    """A server that would do anything: what is refused is refused by the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(issued.chain, issued.key)
    return context


def good_context(kit: Certificates) -> ssl.SSLContext:
    return server_context(kit.server)


def talk(peer: Peer, client: socket.socket) -> None:
    """The handshake, and then as a Redis that likes everything: what a client says is remembered."""
    try:
        wrapped = peer.context.wrap_socket(client, server_side=True)
    except (OSError, ssl.SSLError):
        return
    peer.handshakes += 1
    with wrapped:
        while raw := wrapped.recv(65536):
            peer.saw(raw)
            wrapped.sendall(b"+OK\r\n")


def certified(
    because: tuple[str, ...], make: Certify, host: str = "localhost", version: ssl.TLSVersion | None = None
) -> PeerFactory:
    def prepare(kit: Certificates) -> ssl.SSLContext:
        context = server_context(make(kit))
        if version:
            context.maximum_version = version
        return context

    return PeerFactory("refused", because, talk, host, certificate=True, prepare=prepare)


def simple(name: str, **changes: Any) -> Certify:
    return lambda kit: kit.issue(name, **({"names": LOCAL} | changes))


def unknown_ca(kit: Certificates) -> Issued:
    # Named like the right one: only its key is another.
    other = kit.issue("unknown-ca", issuer=None, authority=True, common_name="counterfoil test ca")
    return kit.issue("unknown", issuer=other, names=LOCAL)


def below(name: str, leaf: dict[str, Any] | None = None, send: bool = True, **changes: Any) -> Certify:
    """A good certificate under an intermediate that has something wrong with it."""

    def make(kit: Certificates) -> Issued:
        middle = kit.issue(f"{name}-issuer", **({"authority": True} | changes))
        made = kit.issue(name, issuer=middle, **({"names": LOCAL} | (leaf or {})))
        if not send:
            shutil.copy(made.cert, made.chain)
        return made

    return make


def below_short_path(kit: Certificates) -> Issued:
    last = kit.issue("short-path", authority=True, more=("basicConstraints = critical,CA:TRUE,pathlen:0",))
    middle = kit.issue("too-deep-issuer", issuer=last, authority=True)
    return kit.issue("too-deep", issuer=middle, names=LOCAL)


def signed_with_md5(kit: Certificates) -> Issued:
    middle = kit.issue("md5-issuer", authority=True, key="2048")  # there is no ECDSA with MD5
    return kit.issue("md5", issuer=middle, names=LOCAL, digest="md5")


def der_name(name: bytes) -> str:
    """A subjectAltName of one DNS name, for bytes that openssl's own words cannot say."""
    inner = bytes([0x82, len(name)]) + name
    return "DER:" + ":".join(f"{byte:02X}" for byte in bytes([0x30, len(inner)]) + inner)


NAME = ("hostname mismatch", "host name", "name")
ADDRESS = ("ip address mismatch", "address", "name")
WEAK = ("too weak", "too small", "weak", "key", "handshake")

BAD: dict[str, PeerFactory] = {
    "expired": certified(("expired",), simple("expired", starts=-20, ends=-10)),
    "expired_just_now": certified(("expired",), simple("expired-now", starts=-20, ends=-1 / 86400)),
    "not_yet_valid": certified(("not yet valid",), simple("early", starts=10, ends=20)),
    "wrong_name": certified(NAME, simple("wrong-name", names="DNS:redis.example.org")),
    "wrong_address": certified(ADDRESS, simple("wrong-address", names="IP:127.0.0.2"), host="127.0.0.1"),
    "address_has_only_the_name": certified(
        ADDRESS, simple("name-for-address", names="DNS:localhost"), host="127.0.0.1"
    ),
    "address_as_a_dns_name": certified(ADDRESS, simple("address-as-name", names="DNS:127.0.0.1"), host="127.0.0.1"),
    "no_name_but_the_common_one": certified(NAME, simple("common-name", names=None, common_name="localhost")),
    "common_name_right_others_wrong": certified(
        NAME, simple("common", names="DNS:example.org", common_name="localhost")
    ),
    "no_name_at_all": certified(NAME, simple("nameless", names=None)),
    "wildcard_elsewhere": certified(NAME, simple("wildcard", names="DNS:*.example.org")),
    "wildcard_alone": certified(NAME, simple("star", names="DNS:*")),
    "wildcard_inside": certified(NAME, simple("inside", names="DNS:local*,DNS:*host")),
    "longer_name": certified(NAME, simple("longer", names="DNS:localhost.example.org")),
    "nul_in_name": certified(NAME, simple("nul", names=der_name(b"localhost\0.example.org"))),
    "self_signed": certified(("self-signed", "self signed"), simple("self-signed", issuer=None)),
    "unknown_ca": certified(("unable to get", "unknown", "verify", "signature"), unknown_ca),
    "missing_intermediate": certified(("unable to get", "verify"), below("orphan", send=False)),
    "issuer_is_no_authority": certified(
        ("invalid ca", "verify", "purpose"), below("forged", authority=False, usage=None)
    ),
    "expired_issuer": certified(("expired",), below("below-expired", starts=-20, ends=-10)),
    "chain_too_deep": certified(("path length",), below_short_path),
    "outside_name_constraints": certified(
        ("permitted subtree",),
        below(
            "constrained",
            more=("nameConstraints = critical,permitted;DNS:example.org",),
            leaf={"names": "DNS:localhost"},
        ),
    ),
    "client_only_usage": certified(("purpose",), simple("client-usage", usage="clientAuth")),
    "signing_certificates_only_usage": certified(
        ("purpose",), simple("sign-usage", more=("keyUsage = critical,keyCertSign",))
    ),
    "unknown_critical_extension": certified(
        ("critical",), simple("critical", more=("1.3.6.1.4.1.99999.1 = critical,DER:05:00",))
    ),
    "rsa_512": certified(WEAK, simple("rsa-512", key="512"), version=V2),
    "rsa_1024": certified(WEAK, simple("rsa-1024", key="1024")),
    "signed_with_md5": certified(WEAK, signed_with_md5),
    "signed_with_sha1": certified(WEAK, simple("sha1", digest="sha1")),
}

# ------------------------------------------------------------------------------------------- wrong by version or cipher


def only(version: ssl.TLSVersion, words: str = "ALL:@SECLEVEL=0") -> Prepare:
    def prepare(kit: Certificates) -> ssl.SSLContext:
        context = good_context(kit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # they are: that is why they are here
            context.minimum_version = context.maximum_version = version
        context.set_ciphers(words)
        return context

    return prepare


VERSION = ("version", "protocol", "handshake", "alert")

BAD |= {
    "tls_1_0": PeerFactory("refused", VERSION, talk, certificate=True, prepare=only(ssl.TLSVersion.TLSv1)),
    "tls_1_1": PeerFactory("refused", VERSION, talk, certificate=True, prepare=only(ssl.TLSVersion.TLSv1_1)),
    "anonymous_ciphers": PeerFactory(
        "refused", ("handshake", "cipher", "alert"), talk, prepare=only(V2, "aNULL:@SECLEVEL=0")
    ),
    "no_encryption": PeerFactory(
        "refused", ("handshake", "cipher", "alert"), talk, prepare=only(V2, "eNULL:@SECLEVEL=0")
    ),
}

# ------------------------------------------------------------------------------------------------- raw, without any TLS


class Records:
    """Tells, of what a client sends to a peer that is no TLS server, what is not part of a handshake."""

    def __init__(self) -> None:
        self.held = b""

    def application(self, raw: bytes) -> bytes:
        self.held += raw
        found = b""
        while self.held:
            if self.held[0] not in (HANDSHAKE, ALERT, CHANGE_CIPHER):
                found, self.held = found + self.held, b""
            elif len(self.held) >= 5 and len(self.held) >= 5 + (size := int.from_bytes(self.held[3:5], "big")):
                self.held = self.held[5 + size :]
            else:
                break
        return found


def listen_on(peer: Peer, client: socket.socket, seconds: float) -> None:
    """Reads what comes until the client leaves."""
    records, deadline = Records(), time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not peer._stopping.is_set():
        if select.select([client], [], [], min(left, 0.1))[0]:
            raw = client.recv(65536)
            if not raw:
                return
            peer.saw(records.application(raw))


def hello(peer: Peer, client: socket.socket) -> None:
    """Waits for the client's first bytes."""
    peer.saw(Records().application(client.recv(65536)))


def says(answer: bytes, then_close: bool = True) -> Serve:
    def serve(peer: Peer, client: socket.socket) -> None:
        hello(peer, client)
        client.sendall(answer)
        if then_close:
            client.shutdown(socket.SHUT_WR)
        listen_on(peer, client, PATIENCE)

    return serve


def closes(peer: Peer, client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    listen_on(peer, client, PATIENCE)


def resets(peer: Peer, client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stalls(peer: Peer, client: socket.socket) -> None:
    listen_on(peer, client, PATIENCE)


def trickles(peer: Peer, client: socket.socket) -> None:
    """The beginning of a handshake, for ever: every byte is progress, none is an answer."""
    hello(peer, client)
    with contextlib.suppress(OSError):
        client.sendall(bytes([HANDSHAKE, 3, 3, 0x3F, 0xFF, 2, 0, 0x3F, 0xFB]))
        while not peer._stopping.is_set():
            client.sendall(b"\0")
            if select.select([client], [], [], 0.02)[0] and not client.recv(65536):
                return


def plain_redis(peer: Peer, client: socket.socket) -> None:
    """A real Redis that has no TLS; whatever reaches it is seen first. It may wait for the end of a line for ever."""
    with socket.create_connection(("127.0.0.1", peer.peers.redis().port)) as redis:
        records = Records()
        while True:
            for ready in select.select([client, redis], [], [], PATIENCE)[0]:
                raw = ready.recv(65536)
                if ready is client:
                    peer.saw(records.application(raw))
                if not raw:
                    return
                (redis if ready is client else client).sendall(raw)


PATIENT = ("deadline", "timeout", "timed out")
DECRYPT = ("bad record mac", "decrypt", "signature", "digest", "bad")
GARBAGE = random.Random(1).randbytes(4096)
LEFT = ("closed", "eof", "reset", "ended", "unexpected")
NO_TLS = ("wrong version", "too long", "record", "unexpected", "unknown protocol", "bad", "alert", *LEFT)

BAD |= {
    "plain_redis": PeerFactory("deadline", (*PATIENT, *NO_TLS), plain_redis),
    "web_server": PeerFactory("refused", NO_TLS, says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")),
    "redis_pong_unasked": PeerFactory("refused", NO_TLS, says(b"+PONG\r\n+OK\r\n" * 10, then_close=False)),
    "garbage": PeerFactory("refused", NO_TLS, says(b"\xff" + GARBAGE, then_close=False)),
    "garbage_in_a_record": PeerFactory(
        "refused", NO_TLS, says(bytes([HANDSHAKE, 3, 3, 16, 0]) + GARBAGE, then_close=False)
    ),
    "oversized_record": PeerFactory(
        "refused", NO_TLS, says(bytes([HANDSHAKE, 3, 3, 255, 255]) + GARBAGE * 16, then_close=False)
    ),
    "application_data_at_once": PeerFactory(
        "refused", NO_TLS, says(b"\x17\x03\x03\x00\x07+PONG\r\n", then_close=False)
    ),
    "alert_at_once": PeerFactory("refused", ("alert", "handshake"), says(bytes([ALERT, 3, 3, 0, 2, 2, 40]))),
    "closed_at_once": PeerFactory("refused", LEFT, closes),
    "closed_after_hello": PeerFactory("refused", LEFT, says(b"")),
    "reset_at_once": PeerFactory("refused", LEFT, resets),
    "stalled": PeerFactory("deadline", PATIENT, stalls),
    "trickled": PeerFactory("deadline", PATIENT, trickles),
}

# ------------------------------------------------------------------------------- a good server, damaged on its way here

Damage = Callable[[int, int, bytes], bytes | None]


def damaged(version: ssl.TLSVersion, damage: Damage, ends: Literal["refused", "deadline"] = "refused") -> PeerFactory:
    """`damage` gets the number and type of each record that the server sends, and the record; gives what the client
    gets instead. After None nothing more comes; with "deadline", not even an end."""

    def serve(peer: Peer, client: socket.socket) -> None:
        near, far = socket.socketpair()
        near.settimeout(PATIENCE)
        far.settimeout(PATIENCE)
        server = threading.Thread(target=talk_and_close, args=(peer, far), daemon=True)
        server.start()
        held, number, ended = b"", 0, False
        with near:
            while True:
                for ready in select.select([client] if ended else [client, near], [], [], PATIENCE)[0]:
                    raw = ready.recv(65536)
                    if ready is client:
                        if not raw:
                            near.close()
                            server.join(2)
                            return
                        with contextlib.suppress(OSError):
                            near.sendall(raw)
                        continue
                    held += raw
                    ended = ended or not raw
                    while not ended and len(held) >= 5 and len(held) >= (size := 5 + int.from_bytes(held[3:5], "big")):
                        record, held = held[:size], held[size:]
                        passed = damage(number, record[0], record)
                        number += 1
                        ended = passed is None
                        with contextlib.suppress(OSError):
                            client.sendall(passed or b"")
                    if ended and ends != "deadline":
                        with contextlib.suppress(OSError):
                            client.shutdown(socket.SHUT_WR)

    because = PATIENT if ends == "deadline" else (*DECRYPT, *NO_TLS)
    return PeerFactory(ends, because, serve, prepare=only(version))


def talk_and_close(peer: Peer, far: socket.socket) -> None:
    with far, contextlib.suppress(OSError, ssl.SSLError):
        talk(peer, far)


def flipped(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


def from_record(wanted: int, change: Callable[[bytes], bytes | None]) -> Damage:
    return lambda number, _, record: change(record) if number == wanted else record


def bad_finished(number: int, kind: int, record: bytes) -> bytes:
    # The first handshake records are plain; what comes short and after them is the encrypted Finished.
    return flipped(record) if kind == HANDSHAKE and len(record) <= 5 + 64 and number >= 4 else record


def truncated(version: ssl.TLSVersion, after: int, ends: Literal["refused", "deadline"] = "refused") -> PeerFactory:
    """Exactly so many records of the server's, and then its end, or silence."""
    return damaged(version, lambda number, _, record: record if number < after else None, ends)


BAD |= {
    "truncated_after_server_hello_1_2": truncated(V2, 1),
    "truncated_after_server_hello_1_3": truncated(V3, 1),
    "truncated_after_certificate": truncated(V2, 2),
    "truncated_before_finished": truncated(V3, 5),
    "stalled_after_server_hello": truncated(V2, 1, "deadline"),
    "stalled_before_finished": truncated(V3, 5, "deadline"),
    "bad_server_hello": damaged(V2, from_record(0, flipped)),
    "bad_key_exchange_signature": damaged(V2, from_record(2, flipped)),
    "bad_finished_1_2": damaged(V2, bad_finished),
    "bad_record_1_3": damaged(V3, from_record(2, flipped)),
    "bad_finished_1_3": damaged(V3, from_record(5, flipped)),
}

# ----------------------------------------------------------------------- good handshakes after which nothing good comes


def leaves_after_handshake(peer: Peer, client: socket.socket) -> None:
    """A truncated stream: the end of TCP without the end of TLS."""
    wrapped = peer.context.wrap_socket(client, server_side=True)
    peer.handshakes += 1
    wrapped.shutdown(socket.SHUT_RDWR)
    wrapped.close()


def wants_client_certificate(kit: Certificates) -> ssl.SSLContext:
    context = good_context(kit)
    context.load_verify_locations(kit.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


BAD |= {
    "truncated_after_handshake": PeerFactory("lost", LEFT, leaves_after_handshake),
    "wants_client_certificate": PeerFactory(
        "lost", ("certificate", "alert", *LEFT), talk, prepare=wants_client_certificate
    ),
}

PEERS = BAD

# Controls: real servers with the good certificate, reached by each of its names. Start one with RedisServer(tls=True).
GOOD = ("localhost", "127.0.0.1", "[::1]")


# ----------------------------------------------------------------------------------------------------- lines of JSON


def serve_all(folder: Path | None) -> None:
    """All peers at once: one line of JSON says what and where; then each line is a name, answered with what that peer
    has seen."""
    with Peers(folder) as peers, RedisServer(tls=True, certificates=peers.certificates) as good:
        running = {name: peers.start(name) for name in BAD}
        told = {
            name: {
                "host": peer.host,
                "port": peer.port,
                "ends": peer.factory.ends,
                "because": peer.factory.because,
                "certificate": peer.factory.certificate,
            }
            for name, peer in running.items()
        }
        print(json.dumps({"ca": peers.ca, "good": [f"{host}:{good.port}" for host in GOOD], "peers": told}), flush=True)
        for line in sys.stdin:
            peer = running.get(line.strip())
            if peer is None:
                print(json.dumps({"error": "no such peer"}), flush=True)
                continue
            seen = peer.seen().decode("latin-1")
            print(json.dumps({"seen": seen, "accepted": peer.accepted, "handshakes": peer.handshakes}), flush=True)
        for peer in running.values():
            peer.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["serve"])
    parser.add_argument("--dir", type=Path, help="where the certificates are made; otherwise a temporary folder")
    serve_all(parser.parse_args().dir)
