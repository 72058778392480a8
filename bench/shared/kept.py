"""What the benches of the key stores keep: KEYS sessions of 500 bytes of JSON. loops.cjs makes the same."""

import json

KEYS = 10_000
DAY = 86400  # seconds: the ttl of every session. What is no session has none.


def key_of(i: int) -> str:
    return f"sess:{i:032}"


def text_of(i: int) -> str:
    session = {
        "cookie": {"originalMaxAge": DAY * 1000, "expires": "2099-01-01T00:00:00.000Z", "httpOnly": True, "path": "/"},
        "user": {"id": key_of(i), "name": "Ada Lovelace", "roles": ["reader", "author"], "verified": True},
        "csrf": "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
        "returnTo": "/account/orders?page=2&sort=date",
        "flash": {"info": ["Welcome back."]},
        "visits": 17,
        "padding": "",
    }
    text = json.dumps(session, separators=(",", ":"))
    return text[:-2] + "v" * (500 - len(text)) + text[-2:]


def mixed(count: int) -> list[int]:
    order: list[int] = []
    seed = 12345  # the same order in every run and host
    for i in range(count):
        seed = (seed * 1664525 + 1013904223) % 2**32
        j = seed * (i + 1) >> 32
        order.append(i)
        order[i], order[j] = order[j], i
    return order


def is_write(at: int) -> bool:
    """Of a mix: every fifth, spread over the order."""
    return at * 37 % 100 < 20
