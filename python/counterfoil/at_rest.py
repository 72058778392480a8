"""How a store keeps its data at rest: its ring of keys, two flags, and until when what is plain may lie among it."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from .errors import InvalidError, InvalidTypeError

__all__ = ["Keys", "at_rest"]

Keys = Mapping[int, bytes] | Iterable[tuple[int, bytes]]
"""Pairs of an id (1 to 2**32 - 1) and 32 random bytes: the first one seals, the others open what was sealed before."""

_SEAL_VALUES, _HASH_KEYS = 1, 2
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def _record(pair: object) -> bytes:
    """An id in four bytes and its key. The errors never show a key."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InvalidTypeError("keys must be pairs (id, 32 bytes), for example {1: key}")
    number, key = pair
    if not isinstance(number, int) or isinstance(number, bool):
        raise InvalidTypeError("a key's id must be an int")
    if not 1 <= number <= 0xFFFFFFFF:
        raise InvalidError("a key's id must be from 1 to 4294967295")
    if not isinstance(key, bytes | bytearray | memoryview):
        raise InvalidTypeError("a key must be bytes")
    key = bytes(key)
    if len(key) != 32:
        raise InvalidError("a key must have 32 bytes")
    return number.to_bytes(4, "big") + key


def _milliseconds(plain_until: object) -> int:
    if plain_until is None:
        return 0
    if not isinstance(plain_until, datetime):
        raise InvalidTypeError(f"plain_until must be a datetime, not {type(plain_until).__name__}")
    if plain_until.utcoffset() is None:
        raise InvalidError("plain_until must say its time zone: datetime(2030, 1, 31, tzinfo=UTC)")
    return (plain_until - _1970) // timedelta(milliseconds=1) or -1  # 0 is none; the core refuses what is before 2020


def at_rest(keys: Keys | None, seal_values: bool, hash_keys: bool, plain_until: datetime | None = None) -> bytes:
    """What the native half gets: the flags, the end of what is plain in eight bytes, then the ring."""
    flags = _SEAL_VALUES * _flag(seal_values, "seal_values") | _HASH_KEYS * _flag(hash_keys, "hash_keys")
    head = bytes([flags]) + _milliseconds(plain_until).to_bytes(8, "big", signed=True)
    if keys is None:
        return head
    pairs: object = keys.items() if isinstance(keys, Mapping) else keys
    if isinstance(pairs, str | bytes | bytearray) or not isinstance(pairs, Iterable):
        raise InvalidTypeError("keys must be pairs (id, 32 bytes), for example {1: key}")
    ring = b"".join(_record(pair) for pair in pairs)
    if not ring:  # or nothing would be sealed, and nobody would know
        raise InvalidError("keys must have at least one pair (id, 32 bytes)")
    return head + ring
