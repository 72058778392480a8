"""One party of the redis bench, in Python: python party.py PORT (blocking|asyncio|uvloop) PARTY. See loops.py."""

import sys
from functools import partial

from loops import serve

HOST = "127.0.0.1"
HUNDRED_SECONDS = 100_000  # of glide: it would give up after a quarter of one


def counterfoil_party(port):
    import counterfoil

    store = counterfoil.open(f"redis://{HOST}:{port}/")
    return store.get, store.set


def redis_party(port):
    import redis

    with_hiredis(redis)
    client = redis.Redis(host=HOST, port=port, decode_responses=True)
    return client.get, client.set


def with_hiredis(redis):
    if not redis.utils.HIREDIS_AVAILABLE:
        raise SystemExit("redis-py has not found hiredis")


def glide_party(port):
    from glide_sync import GlideClient, GlideClientConfiguration, NodeAddress

    client = GlideClient.create(GlideClientConfiguration([NodeAddress(HOST, port)], request_timeout=HUNDRED_SECONDS))
    return (lambda key: client.get(key).decode()), client.set


async def counterfoil_aio(port, stack):
    import counterfoil.aio

    store = await stack.enter_async_context(await counterfoil.aio.open(f"redis://{HOST}:{port}/"))
    return store.get, store.set


async def redis_aio(port, stack):
    import redis.asyncio

    with_hiredis(redis)
    # A connection for each call. Its default is an error beyond 100; its BlockingConnectionPool is slower.
    client = redis.asyncio.Redis(host=HOST, port=port, decode_responses=True, max_connections=1000)
    await stack.enter_async_context(client)
    return client.get, client.set


async def glide_aio(port, stack):
    from glide import GlideClient, GlideClientConfiguration, NodeAddress

    where = GlideClientConfiguration([NodeAddress(HOST, port)], request_timeout=HUNDRED_SECONDS)
    client = await GlideClient.create(where)
    stack.push_async_callback(client.close)

    async def get(key):
        return (await client.get(key)).decode()

    return get, client.set


async def coredis_aio(port, stack):
    import coredis

    client = await stack.enter_async_context(coredis.Redis(host=HOST, port=port, decode_responses=True))
    return client.get, client.set


BLOCKING = {"counterfoil": counterfoil_party, "redis-py": redis_party, "valkey-glide": glide_party}
AWAITED = {
    "counterfoil": counterfoil_aio,
    "redis-py": redis_aio,
    "valkey-glide": glide_aio,
    "coredis": coredis_aio,
}

if __name__ == "__main__":
    port, manner, name = sys.argv[1:]
    serve(manner, partial((BLOCKING if manner == "blocking" else AWAITED)[name], int(port)))
