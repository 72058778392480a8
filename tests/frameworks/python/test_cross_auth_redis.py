"""Beside Cross Auth's own RedisStorage on one server: what either has kept, the other gives, takes and ends."""

import uuid
from collections.abc import Iterator

import counterfoil
import pytest
import redis
from counterfoil.adapters.cross_auth import SecondaryStorage
from cross_auth.storage.redis import RedisStorage
from redis_servers import redis_variable

TEXTS = ["", "v", '{"user_id": "7", "name": "Ärger \\"x\\" \u2028"}', "é€\U0001f600\n\0end", "x" * 100_000]


@pytest.fixture
def key() -> str:
    """As Cross Auth makes them; nobody else's."""
    return f"oauth:authorization_request:{uuid.uuid4().hex}"


@pytest.fixture
def ours() -> Iterator[SecondaryStorage]:
    with SecondaryStorage.from_url(redis_variable("")) as storage:
        yield storage


@pytest.fixture
def theirs() -> Iterator[RedisStorage]:
    storage = RedisStorage.from_url(redis_variable(""))
    yield storage
    storage.close()


@pytest.fixture
def raw() -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_variable("")) as client:
        yield client


@pytest.mark.parametrize("text", TEXTS, ids=["empty", "v", "json", "awkward", "long"])
def test_each_reads_what_the_other_has_written(
    text: str, key: str, ours: SecondaryStorage, theirs: RedisStorage, raw: "redis.Redis"
) -> None:
    ours.set(key, text, ttl=60)
    assert theirs.get(key) == text
    stored, left = raw.get(key), raw.pttl(key)
    theirs.set(key, text, ttl=60)
    assert ours.get(key) == text
    assert raw.get(key) == stored == text.encode()
    assert 50_000 < left <= 60_000
    assert (ours.pop(key), theirs.pop(key), ours.get(key)) == (text, None, None)
    ours.set(key, text)
    assert (theirs.pop(key), ours.pop(key), theirs.get(key)) == (text, None, None)


def test_lives(key: str, ours: SecondaryStorage, theirs: RedisStorage, raw: "redis.Redis") -> None:
    """Where Cross Auth names no ttl, theirs keeps for ever, and ours for ten minutes. A ttl of 0 deletes, in both."""
    theirs.set(key, "a")
    assert ours.get(key) == "a"
    assert raw.pttl(key) == -1
    ours.set(key, "b")
    assert 590_000 < raw.pttl(key) <= 600_000
    for one, other in ((ours, theirs), (theirs, ours)):
        other.set(key, "c", ttl=60)
        one.set(key, "d", ttl=0)
        assert other.get(key) is None
        other.set(key, "e", ttl=60)
        one.delete(key)
        one.delete(key)
        assert other.get(key) is None


def test_one_of_both_takes_a_code(key: str, ours: SecondaryStorage, theirs: RedisStorage) -> None:
    for number in range(50):
        (ours, theirs)[number % 2].set(key, str(number), ttl=60)
        won = [storage.pop(key) for storage in ((ours, theirs), (theirs, ours))[number // 2 % 2]]
        assert won == [str(number), None]


def test_a_prefix_of_ours_is_part_of_the_key(key: str, theirs: RedisStorage) -> None:
    """Theirs has none: a store with one finds nothing of it, and the other way round."""
    with counterfoil.open(redis_variable(""), prefix="app:") as store:
        SecondaryStorage(store).set(key, "v", ttl=60)
        assert (theirs.get(key), theirs.pop(f"app:{key}")) == (None, "v")
