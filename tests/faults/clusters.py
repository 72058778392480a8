"""Primaries that share 16384 slots, and a replica of each: real processes, on loopback, each with its own ports.

with ClusterGroup(node_timeout_ms=800) as cluster:
    counterfoil.open(cluster.url())
    cluster.fail_over()                     # planned: the old primary stays up
    cluster.kill_primary(cluster.primaries()[0])   # and by accident; returns when there is another one
    cluster.revive()
    slot = slot_of("key")
    cluster.begin_move(slot, to)            # from now on: MOVED, ASK, TRYAGAIN
    cluster.move_keys(slot, to)
    cluster.finish_move(slot, to)
"""

from __future__ import annotations

import binascii
import contextlib
import itertools
import random
import signal
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from faults.certificates import Certificates
from faults.resp import Connection, ReplyError, command
from faults.sentinels import until
from faults.servers import Group, RedisServer

SLOTS = 16384
BUS = 10000  # what a cluster's members say to each other they say so many ports further


def slot_of(key: str | bytes) -> int:
    """CRC16 of the key, or of what stands in its first braces, if anything does."""
    data = key.encode() if isinstance(key, str) else key
    begin = data.find(b"{")
    if begin >= 0 and (end := data.find(b"}", begin + 1)) > begin + 1:
        data = data[begin + 1 : end]
    return binascii.crc_hqx(data, 0) % SLOTS


def key_in(slots: Iterable[int], prefix: str = "key") -> str:
    """The first of prefix0, prefix1, ... that is in one of these slots."""
    wanted = set(slots)
    return next(key for key in (f"{prefix}{number}" for number in itertools.count()) if slot_of(key) in wanted)


def free_pair() -> int:
    """A port that is free together with its bus. Below those that the kernel gives away, so that who comes again after
    a restart finds his own."""
    while True:
        port = random.randrange(14000, 22700)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for wanted in (port, port + BUS):
                probe = probes.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", wanted))
            return port


class Node(RedisServer):
    """A redis-server that is one of a cluster. Its folder has what it knows of the others, so a restart keeps that."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._id = ""
        self._talks = threading.Lock()
        self.frozen = False

    def cli(self, *words: bytes | str | int | float) -> Any:
        """Slots are moved by threads of their own."""
        with self._talks:
            return super().cli(*words)

    def pause(self) -> None:
        super().pause()
        self.frozen = True

    def resume(self) -> None:
        super().resume()
        self.frozen = False

    def _end(self, how: signal.Signals) -> None:
        super()._end(how)
        self.frozen = False

    def _launch(self) -> None:
        if not self.fixed_port:
            self.port = free_pair()
            (self.dir / "nodes.conf").unlink(missing_ok=True)
        super()._launch()

    @property
    def id(self) -> str:
        """Forty hexadecimal digits, for life."""
        self._id = self._id or self.cli("CLUSTER", "MYID").decode()
        return self._id

    def sees(self) -> dict[str, list[str]]:
        """What it knows of everybody: by id the words of a line of CLUSTER NODES."""
        lines = [line.split() for line in self.cli("CLUSTER", "NODES").decode().splitlines()]
        return {words[0]: words for words in lines}

    def state(self) -> dict[str, str]:
        text = self.cli("CLUSTER", "INFO").decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def is_primary(self) -> bool:
        return bool(self.cli("ROLE")[0] == b"master")

    def stop(self) -> None:
        super().stop()
        (self.dir / "nodes.conf").unlink(missing_ok=True)  # a cluster that is made here later is another one


def ranges(words: list[str]) -> list[tuple[int, int]]:
    """The slots of a line of CLUSTER NODES; those that are on their way stand in brackets there."""
    found = [word.split("-") for word in words[8:] if not word.startswith("[")]
    return [(int(pair[0]), int(pair[-1])) for pair in found]


class ClusterGroup(Group):
    """`nodes` are all that were ever made; at first the primaries and then a replica for each in the same order.

    password   of the default user
    acl        {"user": (password, "rules")}; the default user is then off, url(user=) names one
    tls        all of them speak nothing else
    config     further directives of every node
    """

    def __init__(
        self,
        *,
        primaries: int = 3,
        replicas: int = 1,
        node_timeout_ms: int = 800,
        password: str | None = None,
        acl: Mapping[str, tuple[str, str]] | None = None,
        tls: bool = False,
        certificates: Certificates | None = None,
        config: dict[str, str | int] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(folder, "cf-cluster-")
        self.password, self.acl = password, acl
        self.counts = (primaries, replicas)
        self.certificates = (certificates or Certificates(self.dir / "tls")) if tls else None
        self.config: dict[str, str | int] = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": node_timeout_ms,
            # A replica that was cut off for long is promoted all the same: how much that loses is what tests are about.
            "cluster-replica-validity-factor": 0,
            # Replicas stay where they were put.
            "cluster-allow-replica-migration": "no",
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
            **self._tls_directives(),
            **(config or {}),
        }
        self.nodes: list[Node] = []
        self._kit = "by-which-they-follow"  # of the administrator of servers with `acl`: the same for all

    # ---- life

    def members(self) -> list[Node]:
        return self.nodes

    def begin(self) -> None:
        """All that wait_until_whole() then waits for: two seconds, which a primary takes at its start."""
        primaries, replicas = self.counts
        for _ in range(primaries * (1 + replicas)):
            self._made()
        for epoch, node in enumerate(self.nodes, 1):  # otherwise they have to find out by collisions
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for number, node in enumerate(self.nodes[:primaries]):
            first, last = (SLOTS * at // primaries for at in (number, number + 1))
            node.cli("CLUSTER", "ADDSLOTS", *range(first, last))
        for node, other in itertools.combinations(self.nodes, 2):  # hearsay would take seconds
            node.cli("CLUSTER", "MEET", other.host, other.port)
        for number, node in enumerate(self.nodes[primaries:]):
            self._replicate(node, self.nodes[number % primaries])

    def _tls_directives(self) -> dict[str, str | int]:
        if not self.certificates:
            return {}
        mine = self.certificates.client  # among themselves each shows one, whatever is asked of clients
        return {
            "tls-cluster": "yes",
            "tls-replication": "yes",
            "tls-client-cert-file": str(mine.cert),
            "tls-client-key-file": str(mine.key),
        }

    def _made(self) -> Node:
        login: dict[str, str | int] = {}
        if self.acl:
            login = {"masteruser": "kit", "masterauth": self._kit}
        elif self.password:
            login = {"masterauth": self.password}
        number = len(self.nodes)
        node = self._server(
            number,
            folder=self.dir / f"node{number}",
            password=self.password,
            acl=self.acl,
            tls=bool(self.certificates),
            certificates=self.certificates,
            config=self.config | login,
        )
        node._admin_password = self._kit
        self.nodes.append(node)
        node.start()
        return node

    def _server(self, number: int, **options: Any) -> Node:
        return Node(**options)

    @staticmethod
    def _replicate(node: Node, primary: Node) -> None:
        until(lambda: primary.id in node.sees() and "handshake" not in node.sees()[primary.id][2])
        until(lambda: node.cli("CLUSTER", "REPLICATE", primary.id) == "OK")

    def live(self) -> list[Node]:
        """All that answer."""
        return [node for node in self.nodes if node.process and not node.frozen]

    def wait_until_whole(self, timeout: float = 60) -> None:
        """Until everybody who runs knows everybody, all agree on whose the slots are, and replicas follow."""
        until(self._whole, timeout)

    def _whole(self) -> bool:
        live = self.live()
        ids = {node.id for node in live}
        owners = set()
        for node in live:
            if node.state()["cluster_state"] != "ok":
                return False
            seen = node.sees()
            lines = [seen[one] for one in ids if one in seen]
            if len(lines) != len(live) or any("fail" in line[2] or "handshake" in line[2] for line in lines):
                return False
            owners.add(frozenset((line[0], *pair) for line in seen.values() for pair in ranges(line)))
            role = node.cli("ROLE")
            if role[0] == b"slave":
                # Whom it follows must be whom the others take for its primary, and be one.
                of = seen[node.id][3]
                if role[3] != b"connected" or of not in ids or "master" not in seen[of][2]:
                    return False
            else:
                followers = [line for line in lines if line[3] == node.id]
                if len(role[2]) < len(followers):
                    return False
        return len(owners) == 1

    # ---- who is who

    def primaries(self) -> list[Node]:
        """Those that have slots, as they say themselves."""
        return [node for node in self.live() if node.is_primary() and ranges(node.sees()[node.id])]

    def replicas(self, of: Node | None = None) -> list[Node]:
        """All that follow, or the followers of one."""
        found = []
        for node in self.live():
            seen = node.sees()[node.id]
            if "slave" in seen[2] and (of is None or seen[3] == of.id):
                found.append(node)
        return found

    def owner(self, slot: int) -> Node:
        """The primary that says it has this slot; of two (one that came back and has not heard yet) the newer one."""
        found: list[tuple[int, Node]] = []
        for node in self.live():
            words = node.sees()[node.id]
            if "master" in words[2] and any(first <= slot <= last for first, last in ranges(words)):
                found.append((int(words[6]), node))
        if not found:
            raise ReplyError(f"nobody has slot {slot}")
        return max(found, key=lambda one: one[0])[1]

    def slots_of(self, node: Node) -> list[int]:
        return [slot for first, last in ranges(node.sees()[node.id]) for slot in range(first, last + 1)]

    def url(self, *, user: str | None = None, nodes: Iterable[Node] | None = None, **options: str) -> str:
        """Every node is a seed, or those that are named."""
        hosts = ",".join(f"{node.host}:{node.port}" for node in (self.nodes if nodes is None else nodes))
        return self.url_of(hosts, user=user, **options)

    def url_of(self, hosts: str, *, user: str | None = None, **options: str) -> str:
        login = ""
        if user is not None:
            assert self.acl
            login = f"{quote(user, safe='')}:{quote(self.acl[user][0], safe='')}@"
        elif self.password is not None:
            login = f":{quote(self.password, safe='')}@"
        if self.certificates:
            options = {"tls_ca": str(self.certificates.ca)} | options
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        return f"{'rediss' if self.certificates else 'redis'}+cluster://{login}{hosts}/" + (
            f"?{asked}" if asked else ""
        )

    # ---- failovers

    def fail_over(self, primary: Node | None = None) -> Node:
        """Planned: a replica of this primary (else of the first) takes its place. Returns it; the old one stays up."""
        old = primary or self.primaries()[0]
        new = self.replicas(old)[0]
        for _ in range(30):  # the others do not vote again so soon; and a slow step makes it give up
            until(lambda: new.cli("CLUSTER", "FAILOVER") == "OK")
            with contextlib.suppress(TimeoutError):
                until(lambda: new.is_primary() and not old.is_primary(), timeout=1)
                return new
        raise TimeoutError("there was no failover")

    def wait_for_primary(self, slot: int, other_than: Node, timeout: float = 60) -> Node:
        """The one that has been promoted, and of which all others that run have heard."""

        def promoted() -> Node | None:
            found = self.owner(slot)
            if found is other_than or found.state()["cluster_state"] != "ok":
                return None
            for node in self.live():
                if node is not other_than and found.id != self._owner_seen_by(node, slot):
                    return None
            return found

        found = until(promoted, timeout)
        assert isinstance(found, Node)
        return found

    @staticmethod
    def _owner_seen_by(node: Node, slot: int) -> str:
        for words in node.sees().values():
            if any(first <= slot <= last for first, last in ranges(words)):
                return words[0]
        return ""

    def kill_primary(self, primary: Node | None = None) -> Node:
        """Returns the one in its place, when there is one."""
        old = primary or self.primaries()[0]
        slot = self.slots_of(old)[0]
        replicas = self.replicas(old)
        old.kill()
        return self.wait_for_successor(old, slot, replicas)

    def wait_for_successor(self, old: Node, slot: int, replicas: list[Node]) -> Node:
        """Of a primary that the others do not see any more, and that had this slot and these replicas."""
        try:
            return self.wait_for_primary(slot, other_than=old, timeout=8)
        except TimeoutError:
            # Where slots have moved shortly before, the others may deny a replica their votes for long: it asks nobody.
            replicas[0].cli("CLUSTER", "FAILOVER", "TAKEOVER")
            return self.wait_for_primary(slot, other_than=old)

    def cut_off(self, primary: Node) -> list[Node]:
        """Its replicas, which cannot follow until let_follow: what it does from now on dies with it."""
        replicas = self.replicas(primary)
        for replica in replicas:
            replica.cli("CONFIG", "SET", "masterauth", "another")
        primary.cli("CLIENT", "KILL", "TYPE", "replica")
        return replicas

    def let_follow(self, replicas: Iterable[Node]) -> None:
        word = self._kit if self.acl else self.password
        assert word, "they need a password, so that it can be a wrong one"
        for replica in replicas:

            def allowed(replica: Node = replica) -> bool:
                return bool(replica.cli("CONFIG", "SET", "masterauth", word) == "OK")

            until(allowed)

    def revive(self) -> None:
        """Everybody is up again, no slot is half-moved, and all agree."""
        for node in self.nodes:
            if node.process is None:
                node.restart()
            elif node.frozen:
                node.resume()
        for node in self.nodes:
            for word in node.sees()[node.id][8:]:
                if word.startswith("["):
                    node.cli("CLUSTER", "SETSLOT", int(word[1:].partition("-")[0]), "STABLE")
        self.wait_until_whole()

    # ---- slots that move

    def begin_move(self, slot: int, to: Node) -> Node:
        """Half-moved from now on: what is not there is asked of `to` (ASK). Returns whose it was."""
        old = self.owner(slot)
        assert old is not to
        to.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", old.id)
        old.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        return old

    def move_keys(self, slot: int, to: Node, keys: Iterable[bytes | str] | None = None) -> int:
        """All keys of the slot, or these."""
        old = self.owner(slot)
        login: list[str] = []
        if self.acl:
            login = ["AUTH2", "kit", self._kit]
        elif self.password is not None:
            login = ["AUTH", self.password]
        moved = 0
        while True:
            some = list(keys) if keys is not None else old.cli("CLUSTER", "GETKEYSINSLOT", slot, 100)
            if some:
                # REPLACE: what is over there may have been made by ASK after it had expired here.
                old.cli("MIGRATE", to.host, to.port, "", 0, 10_000, "REPLACE", *login, "KEYS", *some)
                moved += len(some)
            if keys is not None or not some:
                return moved

    def finish_move(self, slot: int, to: Node) -> None:
        """The new owner first, or nobody might have it; then everybody."""
        old = self.owner(slot)
        self._give([slot], to, old)

    def cancel_move(self, slot: int) -> None:
        for node in self.primaries():
            node.cli("CLUSTER", "SETSLOT", slot, "STABLE")

    def move_slot(self, slot: int, to: Node) -> None:
        if self.owner(slot) is to:
            return
        self.begin_move(slot, to)
        self.move_keys(slot, to)
        self.finish_move(slot, to)

    def move_slots(self, slots: Iterable[int], to: Node) -> None:
        """Many of them, each with its keys; with few round trips where a slot is empty."""
        for old in self.primaries():
            if old is to:
                continue
            wanted = sorted(set(slots) & set(self.slots_of(old)))
            for at in range(0, len(wanted), 200):
                some = wanted[at : at + 200]
                many(to, [("CLUSTER", "SETSLOT", slot, "IMPORTING", old.id) for slot in some])
                many(old, [("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id) for slot in some])
                counts = many(old, [("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in some])
                for slot, count in zip(some, counts, strict=True):
                    if count:
                        self.move_keys(slot, to)
                self._give(some, to, old)

    def _give(self, slots: list[int], to: Node, old: Node) -> None:
        """The new owner's claim must be newer than the old one's. Until it has heard how new that is, it may lose, and
        they would hand the slot to each other for ever: so all are asked, and told again."""
        first = [to, old]
        told = first + [node for node in self.live() if node not in first and node.is_primary()]

        def agreed() -> bool:
            wrong = 0
            for node in told:
                mine = self._owners_seen_by(node, slots)
                if lost := [slot for slot in slots if mine.get(slot) != to.id]:
                    wrong += len(lost)
                    if node is to:  # as one who is being given it: that makes its claim the newest
                        many(to, [("CLUSTER", "SETSLOT", slot, "IMPORTING", mine.get(slot, old.id)) for slot in lost])
                    many(node, [("CLUSTER", "SETSLOT", slot, "NODE", to.id) for slot in lost])
            return wrong == 0

        for node in told:
            many(node, [("CLUSTER", "SETSLOT", slot, "NODE", to.id) for slot in slots])
        until(agreed)

    @staticmethod
    def _owners_seen_by(node: Node, slots: list[int]) -> dict[int, str]:
        lines = [(line[0], *pair) for line in node.sees().values() for pair in ranges(line)]
        return {slot: owner for slot in slots for owner, first, last in lines if first <= slot <= last}

    # ---- nodes that come and go

    def add(self) -> Node:
        """One more primary, without slots yet."""
        others = self.live()
        node = self._made()
        for other in others:
            node.cli("CLUSTER", "MEET", other.host, other.port)
        self.wait_until_whole()
        return node

    def remove(self, node: Node) -> None:
        """Its slots go to the others, by turns, and then it goes."""
        others = [one for one in self.primaries() if one is not node]
        slots = self.slots_of(node)
        for number, other in enumerate(others):
            self.move_slots(slots[number :: len(others)], other)
        gone = node.id
        node.stop()
        self.nodes.remove(node)
        for one in self.live():
            until(lambda one=one: one.cli("CLUSTER", "FORGET", gone) == "OK" or gone not in one.sees())  # type: ignore[misc]
        self.wait_until_whole()


def many(node: Node, commands: list[tuple[Any, ...]]) -> list[Any]:
    """Their answers, with one round trip."""
    made: Connection = node.connect()
    try:
        made.socket.sendall(b"".join(command(*words) for words in commands))
        return [made.reply() for _ in commands]
    finally:
        made.close()
