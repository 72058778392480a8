"""One party of the memory bench, in Python: python party.py (ops|fill) PARTY KEYS SECONDS

ops   repeats get and set over KEYS keys for SECONDS each, in an order that is mixed once: from one thread and from
      eight, or awaited by one task and by 256 tasks at a time
fill  puts KEYS sessions into an empty store

One JSON object goes to standard output: figures by name, times in nanoseconds.
"""

import asyncio
import gc
import json
import os
import sys
import threading
import time

DAY = 86400  # seconds: the ttl of everything, for those that know one
THREADS = 8
TASKS = 256
REPEAT = 10  # passes of a thread or task, so that starting it does not count


def key_of(i: int) -> str:
    return f"session:{i:032}"


def text_of(i: int) -> str:
    return key_of(i).ljust(500, "v")


class TTLDict:
    """What one writes by hand: a dict, a deadline beside each value, and a lock, so that threads may share it."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._entries: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> str | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry[1] <= time.monotonic():
                del self._entries[key]
                return None
            return entry[0]

    def set(self, key: str, value: str) -> None:
        with self._lock:
            self._entries[key] = (value, time.monotonic() + self._ttl)


class AsyncTTLDict:
    """The same for asyncio. One thread has it, so it needs no lock."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._entries: dict[str, tuple[str, float]] = {}

    async def get(self, key: str) -> str | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] <= time.monotonic():
            del self._entries[key]
            return None
        return entry[0]

    async def set(self, key: str, value: str) -> None:
        self._entries[key] = (value, time.monotonic() + self._ttl)


def counterfoil_party():
    import counterfoil

    store = counterfoil.open("memory:", ttl=DAY)
    return store.get, store.set, lambda: store.stats()["bytes"]


def dict_party():
    entries = {}
    return entries.get, entries.__setitem__, None


def ttl_dict_party():
    store = TTLDict(DAY)
    return store.get, store.set, None


def cachetools_party():
    # "If shared between threads, access must be synchronized": cachetools' own documentation.
    from cachetools import TTLCache

    cache, lock = TTLCache(maxsize=float("inf"), ttl=DAY), threading.Lock()

    def get(key):
        with lock:
            return cache.get(key)

    def set(key, value):
        with lock:
            cache[key] = value

    return get, set, None


async def aio_party():
    import counterfoil.aio

    store = await counterfoil.aio.open("memory:", ttl=DAY)
    return store.get, store.set


async def aio_ttl_dict_party():
    store = AsyncTTLDict(DAY)
    return store.get, store.set


BLOCKING = {
    "counterfoil": counterfoil_party,
    "dict": dict_party,
    "dict-ttl": ttl_dict_party,
    "cachetools": cachetools_party,
}
AWAITED = {"counterfoil-aio": aio_party, "dict-ttl-aio": aio_ttl_dict_party}


def mixed(count: int) -> list[int]:
    order = []
    seed = 12345  # the same order in every run and host
    for i in range(count):
        seed = (seed * 1664525 + 1013904223) % 2**32
        j = seed * (i + 1) >> 32
        order.append(i)
        order[i], order[j] = order[j], i
    return order


class Meter:
    """Adds up what was between start() and stop(), but for the first two times, which are the warm-up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.passes, self.wall, self.cpu, self.count = seconds, 0, 0, 0, 0

    def hungry(self) -> bool:
        return self.passes < 5 or self.wall < self.seconds * 1e9

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter_ns(), time.process_time_ns()

    def stop(self, count: int) -> None:
        wall, cpu = time.perf_counter_ns() - self._wall, time.process_time_ns() - self._cpu
        self.passes += 1
        if self.passes > 2:
            self.wall, self.cpu, self.count = self.wall + wall, self.cpu + cpu, self.count + count

    def figures(self, name: str) -> dict[str, float]:
        return {name: self.wall / self.count, name + "_cpu": self.cpu / self.count}


def read(get, keys):
    for key in keys:
        get(key)


def write(set, items):
    for key, value in items:
        set(key, value)


def in_threads(act, function, work, meter):
    """The time is from when all threads are ready until the last has finished."""
    ready = threading.Barrier(THREADS + 1)

    def run():
        ready.wait()
        act(function, work)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    meter.start()
    for thread in threads:
        thread.join()
    meter.stop(THREADS * len(work))


def blocking_ops(name: str, count: int, seconds: float) -> dict[str, float]:
    get, set, _ = BLOCKING[name]()
    keys = [key_of(i) for i in mixed(count)]
    items = [(key_of(i), text_of(i)) for i in mixed(count)]
    figures = {}
    for what, act, function, work in (("set", write, set, items), ("get", read, get, keys)):
        meter = Meter(seconds)
        while meter.hungry():
            meter.start()
            act(function, work)
            meter.stop(len(work))
        figures |= meter.figures(what + "_one")
        meter = Meter(seconds)
        while meter.hungry():
            in_threads(act, function, work * REPEAT, meter)
        figures |= meter.figures(what + "_many")
    if get(items[0][0]) != items[0][1]:
        raise AssertionError("what was read is not what was written")
    return figures


async def read_awaited(get, keys):
    for key in keys:
        await get(key)


async def write_awaited(set, items):
    for key, value in items:
        await set(key, value)


async def awaited_ops(name: str, count: int, seconds: float) -> dict[str, float]:
    get, set = await AWAITED[name]()
    keys = [key_of(i) for i in mixed(count)]
    items = [(key_of(i), text_of(i)) for i in mixed(count)]
    figures = {}
    for what, act, function, work in (("set", write_awaited, set, items), ("get", read_awaited, get, keys)):
        meter = Meter(seconds)
        while meter.hungry():
            meter.start()
            await act(function, work)
            meter.stop(len(work))
        figures |= meter.figures(what + "_one")
        parts = [work[i::TASKS] * REPEAT for i in range(TASKS)]
        meter = Meter(seconds)
        while meter.hungry():
            meter.start()
            await asyncio.gather(*(act(function, part) for part in parts))
            meter.stop(len(work) * REPEAT)
        figures |= meter.figures(what + "_many")
    if await get(items[0][0]) != items[0][1]:
        raise AssertionError("what was read is not what was written")
    return figures


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(name: str, count: int) -> dict[str, float]:
    get, set, own = BLOCKING[name]()
    gc.collect()
    before, start, longest = resident(), time.perf_counter_ns(), 0
    last = start
    for i in range(count):
        set(key_of(i), text_of(i))
        now = time.perf_counter_ns()
        if now - last > longest:
            longest = now - last
        last = now
    figures = {"insert": (last - start) / count, "stall": longest}
    collect = time.perf_counter_ns()
    gc.collect()
    figures["gc"] = time.perf_counter_ns() - collect
    figures["rss"] = (resident() - before) / count
    if own:
        figures["own"] = own() / count
    if get(key_of(count - 1)) is None:
        raise AssertionError("the last session is not there")
    return figures


def main(what: str, name: str, count: str, seconds: str) -> None:
    if what == "fill":
        fill(name, 2000)  # warm-up, in a store of its own
        figures = fill(name, int(count))
    elif name in AWAITED:
        figures = asyncio.run(awaited_ops(name, int(count), float(seconds)))
    else:
        figures = blocking_ops(name, int(count), float(seconds))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
