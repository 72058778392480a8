"""TLS as a caller meets it: over fifty bad peers are refused before they hear a word, good ones are accepted, and
certificates that are replaced on disk are used by the next connection."""

import asyncio
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import counterfoil
import counterfoil.aio
import pytest
from faults.certificates import Certificates
from faults.servers import RedisServer
from faults.tls_peers import BAD, GOOD, Peer, Peers
from test_threads import HANG

USER, PASSWORD = "annabel", "hunter22"
TIMEOUT, CONNECT = 1.5, 0.4  # of a call, of one attempt: so that the call knows why, when it gives up

# ------------------------------------------------------------------------------------------------------------ bad peers

# What OpenSSL's own words leave out, or say in others than those that the kit advises.
WORDS = {"unknown_ca": "self-signed certificate in", "bad_finished_1_2": "cipher operation failed"}


def codes(name: str) -> set[str]:
    """AUTH where somebody who is not to be trusted answers, UNAVAILABLE where there is nobody."""
    if BAD[name].ends == "deadline":
        return {"UNAVAILABLE", "TIMEOUT"}
    if name.startswith(("closed_", "reset_", "truncated_")):
        return {"UNAVAILABLE"}
    # Of a record that cannot be decrypted OpenSSL says in TLS 1.2 only that a cipher failed.
    return {"UNAVAILABLE", "AUTH"} if name == "bad_finished_1_2" else {"AUTH"}


@dataclass
class Attempt:
    """What two calls to one peer came to."""

    errors: list[counterfoil.Error] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    seconds: float = 0
    accepted: int = 0
    seen: bytes = b""

    def said(self) -> str:
        return " ".join([*self.events, *(f"{error!s} {error!r}" for error in self.errors)])


def url(peers: Peers, host: str, port: int) -> str:
    return f"rediss://{USER}:{PASSWORD}@{host}:{port}/0?tls_ca={peers.ca}&connect_timeout={CONNECT}"


def blocking(attempt: Attempt, peers: Peers, peer: Peer) -> None:
    with counterfoil.open(url(peers, peer.host, peer.port), timeout=TIMEOUT) as store:
        for event in ("connect", "disconnect", "error", "warning"):
            store.on(event, lambda what, event=event: attempt.events.append(f"{event} {what}"))
        start = time.monotonic()
        calls: tuple[Callable[[], object], ...] = (lambda: store.get("key"), lambda: store.set("key", PASSWORD))
        for call in calls:
            try:
                call()
            except counterfoil.Error as error:
                attempt.errors.append(error)
        attempt.seconds = time.monotonic() - start


async def awaited(attempt: Attempt, peers: Peers, peer: Peer) -> None:
    async with await counterfoil.aio.open(url(peers, peer.host, peer.port), timeout=TIMEOUT) as store:
        for event in ("connect", "disconnect", "error", "warning"):
            store.on(event, lambda what, event=event: attempt.events.append(f"{event} {what}"))
        start = time.monotonic()
        answers = await asyncio.gather(store.get("key"), store.set("key", PASSWORD), return_exceptions=True)
        attempt.seconds = time.monotonic() - start
        attempt.errors = [answer for answer in answers if isinstance(answer, counterfoil.Error)]


def in_threads(peers: Peers, running: dict[str, Peer]) -> dict[str, Attempt]:
    attempts = {name: Attempt() for name in running}
    threads = [threading.Thread(target=blocking, args=(attempts[name], peers, peer)) for name, peer in running.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive(), "a call hangs"
    return attempts


def in_one_loop(peers: Peers, running: dict[str, Peer]) -> dict[str, Attempt]:
    attempts = {name: Attempt() for name in running}

    async def main() -> None:
        await asyncio.gather(*(awaited(attempts[name], peers, peer) for name, peer in running.items()))

    asyncio.run(asyncio.wait_for(main(), HANG))
    return attempts


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with Peers() as peers:
        yield peers


@pytest.fixture(scope="module", params=[in_threads, in_one_loop])
def attempts(request: pytest.FixtureRequest, peers: Peers) -> dict[str, Attempt]:
    """All at the same time: those that stall take as long as a deadline."""
    running = {name: peers.start(name) for name in BAD}
    attempts: dict[str, Attempt] = request.param(peers, running)
    for name, peer in running.items():
        attempts[name].seen = peer.seen(HANG)
        attempts[name].accepted = peer.accepted
        peer.stop()
    return attempts


@pytest.mark.parametrize("name", BAD)
def test_a_bad_peer_is_refused(attempts: dict[str, Attempt], name: str) -> None:
    attempt, words = attempts[name], (*BAD[name].because, WORDS.get(name, "\0"))
    if BAD[name].ends == "deadline":
        words = ("the tls handshake did not end",)
    assert len(attempt.errors) == 2
    assert attempt.accepted >= 1
    assert attempt.seen == b""
    for error in attempt.errors:
        assert error.code in codes(name), str(error)
        assert error.outcome == "not_applied"
        assert any(word in str(error).lower() for word in words), str(error)
        if error.code == "AUTH":
            assert isinstance(error, PermissionError)
    assert any(event.startswith("error ") for event in attempt.events)
    assert not any(event.startswith("connect ") for event in attempt.events)
    assert PASSWORD not in attempt.said()
    assert USER not in attempt.said()
    if BAD[name].ends == "refused" and codes(name) == {"AUTH"}:
        # One loop opens them all: on a busy machine an attempt can run out of its time, and is repeated.
        slow = sum("did not answer in time" in event for event in attempt.events)
        assert attempt.accepted == 1 + slow, "who is not trusted is not asked again at once"
    assert attempt.seconds < 2 * TIMEOUT + 5


# --------------------------------------------------------------------------------------------------------- good servers


@pytest.fixture(scope="module")
def good(peers: Peers) -> Iterator[RedisServer]:
    acl = {USER: (PASSWORD, "~* +@all")}
    with RedisServer(tls=True, certificates=peers.certificates, acl=acl) as server:
        yield server


@pytest.mark.parametrize("host", GOOD)
def test_a_good_server_is_accepted_by_each_of_its_names(peers: Peers, good: RedisServer, host: str) -> None:
    async def main() -> object:
        async with await counterfoil.aio.open(url(peers, host, good.port)) as store:
            return await store.pop("key")

    with counterfoil.open(url(peers, host, good.port)) as store:
        store.set("key", "value")
        assert store.get("key") == "value"
    assert asyncio.run(main()) == "value"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_both_versions_are_spoken(peers: Peers, version: str) -> None:
    config = {"tls-protocols": version}
    with RedisServer(tls=True, certificates=peers.certificates, config=config) as server:
        with counterfoil.open(f"rediss://localhost:{server.port}", tls_ca=peers.ca) as store:
            store.set("key", "value")
            assert store.get("key") == "value"
        context = ssl.create_default_context(cafile=peers.ca)
        with (
            socket.create_connection(("127.0.0.1", server.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            assert client.version() == version  # the control: this server speaks no other


def test_the_system_does_not_trust_our_authority(good: RedisServer) -> None:
    with (
        counterfoil.open(f"rediss://localhost:{good.port}") as store,
        pytest.raises(counterfoil.AuthError, match="certificate"),
    ):
        store.get("key")


def test_the_name_to_be_found_may_be_another_than_that_to_be_dialled(peers: Peers) -> None:
    with (
        peers.start("wrong_name") as peer,
        counterfoil.open(
            f"rediss://127.0.0.1:{peer.port}", tls_ca=peers.ca, tls_server_name="redis.example.org", timeout=1
        ) as store,
        # This one answers +OK to everything, which is no answer to GET: but it was spoken to.
        pytest.raises(counterfoil.Error) as caught,
    ):
        store.get("key")
    assert caught.value.code != "AUTH"
    assert b"PING" in peer.seen()


# -------------------------------------------------------------------------------------------------- client certificates


@pytest.fixture(scope="module", params=["TLSv1.2", "TLSv1.3"])
def mutual(request: pytest.FixtureRequest, peers: Peers) -> Iterator[RedisServer]:
    config = {"tls-protocols": request.param}
    with RedisServer(tls="mutual", certificates=peers.certificates, config=config) as server:
        yield server


def test_a_client_certificate_is_shown(peers: Peers, mutual: RedisServer) -> None:
    ours = peers.certificates.client
    with counterfoil.open(
        f"rediss://localhost:{mutual.port}", tls_ca=peers.ca, tls_cert=str(ours.chain), tls_key=str(ours.key)
    ) as store:
        assert store.set("key", "value")
        assert store.get("key") == "value"


def test_a_missing_client_certificate_is_what_the_error_says(peers: Peers, mutual: RedisServer) -> None:
    # Many: where the server leaves while we speak, its reason must not get lost.
    for _ in range(20):
        with counterfoil.open(f"rediss://localhost:{mutual.port}", tls_ca=peers.ca, timeout=HANG) as store:
            with pytest.raises(counterfoil.AuthError, match="without a certificate") as caught:
                store.get("key")
            assert caught.value.outcome == "not_applied"


@pytest.mark.parametrize("what", ["expired", "unknown"])
def test_a_bad_client_certificate_is_what_the_error_says(peers: Peers, mutual: RedisServer, what: str) -> None:
    kit = peers.certificates
    if what == "expired":
        ours = kit.issue("client-expired", usage="clientAuth", starts=-20, ends=-10)
    else:
        ours = kit.issue("client-unknown", issuer=None, usage="clientAuth")
    with (
        counterfoil.open(
            f"rediss://localhost:{mutual.port}", tls_ca=peers.ca, tls_cert=str(ours.chain), tls_key=str(ours.key)
        ) as store,
        pytest.raises(counterfoil.AuthError, match="refuses our certificate"),
    ):
        store.get("key")


def test_files_are_looked_at_when_opening(peers: Peers, tmp_path: Path) -> None:
    kit, secret = peers.certificates, tmp_path / "hunter22.pem"
    secret.write_text("no certificate")
    options = [
        {"tls_ca": str(tmp_path / "hunter22-absent.pem")},
        {"tls_ca": str(secret)},
        {"tls_cert": str(kit.client.chain), "tls_key": str(secret)},
        {"tls_cert": str(kit.client.chain), "tls_key": str(kit.server.key)},
        {"tls_cert": str(secret), "tls_key": str(kit.client.key)},
        {"tls_cert": str(kit.client.chain)},
        {"tls_key": str(kit.client.key)},
    ]
    for option in options:
        with pytest.raises(counterfoil.InvalidError, match="tls_") as caught:
            counterfoil.open("rediss://localhost", **option)
        assert "hunter22" not in str(caught.value)


# -------------------------------------------------------------------------------------- certificates that change


def put(source: Path, target: Path) -> None:
    """As those who renew certificates do it."""
    shutil.copy(source, target.with_suffix(".new"))
    target.with_suffix(".new").replace(target)


def eventually(call: Callable[[], object]) -> object:
    """After a refusal nobody is asked again for a second."""
    end = time.monotonic() + 15
    while True:
        try:
            return call()
        except counterfoil.Error:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_a_replaced_authority_is_trusted_by_the_next_connection(peers: Peers, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    put(peers.certificates.ca, trusted)
    old, new = peers.certificates, Certificates(tmp_path / "new")
    with RedisServer(tls=True, certificates=old) as server:
        port = server.port
        store = counterfoil.open(f"rediss://localhost:{port}", tls_ca=str(trusted), timeout=5)
        store.set("key", "value")
        # What cannot be read does not take away what was trusted before.
        trusted.write_text("half a certif")
        server.cli("CLIENT", "KILL", "TYPE", "normal")
        assert eventually(lambda: store.get("key")) == "value"
        put(old.ca, trusted)
    with store, RedisServer(tls=True, certificates=new, port=port):
        with pytest.raises(counterfoil.AuthError, match="certificate"):
            store.get("key")
        put(new.ca, trusted)
        assert eventually(lambda: store.get("key")) is None
        store.set("key", "value")
        assert store.get("key") == "value"


def test_a_renewed_client_certificate_is_shown_by_the_next_connection(
    peers: Peers, mutual: RedisServer, tmp_path: Path
) -> None:
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"
    old = peers.certificates.issue("client-old", usage="clientAuth", starts=-20, ends=-10)
    new = peers.certificates.client
    put(old.chain, cert)
    put(old.key, key)
    with counterfoil.open(
        f"rediss://localhost:{mutual.port}", tls_ca=peers.ca, tls_cert=str(cert), tls_key=str(key), timeout=5
    ) as store:
        with pytest.raises(counterfoil.AuthError, match="refuses our certificate"):
            store.get("key")
        # Between the two renames the key does not belong to the certificate: such a pair is not used.
        put(new.chain, cert)
        with pytest.raises(counterfoil.AuthError, match="refuses our certificate"):
            store.get("key")
        put(new.key, key)
        eventually(lambda: store.set("key", "value"))
        assert store.get("key") == "value"
