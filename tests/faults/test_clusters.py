"""Every lever of clusters.py does what it says: a fault that does not happen makes a test worthless."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.clusters import SLOTS, ClusterGroup, Node, key_in, slot_of
from faults.resp import ReplyError
from faults.sentinels import until


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterGroup]:
    with ClusterGroup(password="p@ss:w/o?r#d") as made:
        yield made


def refusal(node: Node, *words: str) -> str:
    with pytest.raises(ReplyError) as caught:
        node.cli(*words)
    return str(caught.value)


@pytest.mark.parametrize(
    "key", ["a", "{}", "{}a", "a{b", "a}b", "}{", "a{x}b{y}", "{{x}}", "a{}{b}", "{a}{b", "\n{records}"]
)
def test_slots_are_those_of_redis(cluster: ClusterGroup, key: str) -> None:
    assert slot_of(key) == cluster.nodes[0].cli("CLUSTER", "KEYSLOT", key)


def test_who_is_who(cluster: ClusterGroup) -> None:
    primaries = cluster.primaries()
    assert len(primaries) == 3
    assert [len(cluster.replicas(node)) for node in primaries] == [1, 1, 1]
    assert {node.port for node in primaries}.isdisjoint(node.port for node in cluster.replicas())
    assert sorted(slot for node in primaries for slot in cluster.slots_of(node)) == list(range(SLOTS))
    slot = slot_of("a")
    assert cluster.owner(slot).cli("SET", "a", "1") == "OK"
    other = next(node for node in primaries if node is not cluster.owner(slot))
    assert refusal(other, "GET", "a") == f"MOVED {slot} 127.0.0.1:{cluster.owner(slot).port}"


def test_a_slot_that_is_half_moved_asks_and_says_try_again(cluster: ClusterGroup) -> None:
    slot = slot_of("moving")
    old = cluster.owner(slot)
    new = next(node for node in cluster.primaries() if node is not old)
    old.cli("SET", "moving", "1")
    old.cli("SET", "{moving}2", "2")
    cluster.begin_move(slot, new)
    assert old.cli("GET", "moving") == b"1"
    assert refusal(old, "GET", "{moving}none") == f"ASK {slot} 127.0.0.1:{new.port}"
    assert cluster.move_keys(slot, new, ["moving"]) == 1
    assert refusal(old, "GET", "moving").startswith("ASK ")
    assert refusal(old, "MGET", "moving", "{moving}2").startswith("TRYAGAIN ")
    assert refusal(new, "GET", "moving").startswith("MOVED ")
    assert cluster.move_keys(slot, new) == 1
    cluster.finish_move(slot, new)
    assert cluster.owner(slot) is new
    assert new.cli("MGET", "moving", "{moving}2") == [b"1", b"2"]
    assert refusal(old, "GET", "moving").startswith("MOVED ")
    cluster.begin_move(slot, old)
    cluster.cancel_move(slot)
    assert new.cli("GET", "{moving}none") is None
    cluster.move_slot(slot, old)
    assert old.cli("GET", "moving") == b"1"
    cluster.wait_until_whole()


def test_failovers_planned_and_not(cluster: ClusterGroup) -> None:
    old = cluster.primaries()[0]
    slot = cluster.slots_of(old)[0]
    new = cluster.fail_over(old)
    assert (new.is_primary(), old.is_primary()) == (True, False)
    cluster.wait_until_whole()
    key = key_in([slot])
    new.cli("SET", key, "1")
    new.cli("WAIT", 1, 5000)
    third = cluster.kill_primary(new)
    assert third is cluster.owner(slot)
    assert third is not new
    assert third.cli("GET", key) == b"1"
    cluster.revive()
    assert not new.is_primary()
    third.pause()
    assert cluster.wait_for_primary(slot, other_than=third) is new
    cluster.revive()
    assert not third.is_primary()


def test_what_is_written_while_the_replicas_are_cut_off_dies_with_the_primary(cluster: ClusterGroup) -> None:
    primary = cluster.primaries()[0]
    slot = cluster.slots_of(primary)[0]
    cut = cluster.cut_off(primary)
    until(lambda: primary.cli("ROLE")[2] == [])
    primary.cli("SET", key_in([slot], "lost"), "1")
    new = cluster.kill_primary(primary)
    cluster.let_follow(cut)
    assert new.cli("GET", key_in([slot], "lost")) is None
    cluster.revive()


def test_a_node_joins_and_leaves(cluster: ClusterGroup) -> None:
    slots = range(100, 200)
    key = key_in(slots, "travels")
    cluster.owner(100).cli("SET", key, "1")
    new = cluster.add()
    cluster.move_slots(slots, new)
    cluster.wait_until_whole()
    assert cluster.slots_of(new) == list(slots)
    assert new.cli("GET", key) == b"1"
    cluster.remove(new)
    assert len(cluster.primaries()) == 3
    assert cluster.owner(slot_of(key)).cli("GET", key) == b"1"


def test_users_and_tls() -> None:
    with ClusterGroup(acl={"someone": ("w o r d", "-@all +get ~*")}, tls=True) as cluster:
        assert cluster.url(user="someone").startswith("rediss+cluster://someone:w%20o%20r%20d@127.0.0.1:")
        cluster.kill_primary()
        cluster.revive()
