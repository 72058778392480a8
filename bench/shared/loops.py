"""The loops of a party in Python, and what it answers.

It says "ready", then answers every line "OP IN_FLIGHT SECONDS" with one line of JSON: operations per second,
microseconds of CPU of the whole process per operation, and the latencies (microseconds) that one of the loops has seen.
IN_FLIGHT threads or tasks each do one operation after the other. Every party gives text.
"""

import asyncio
import json
import os
import sys
import threading
import time
import traceback
from contextlib import AsyncExitStack
from itertools import cycle

from kept import KEYS, is_write, key_of, mixed, text_of

ORDER = mixed(KEYS)
ITEMS = [(key_of(i), text_of(i), is_write(at)) for at, i in enumerate(ORDER)]


class Run:
    """Adds up what its loops did. It is over when `over` is not empty: the cheapest question there is."""

    def __init__(self, seconds):
        self.seconds, self.over, self.count, self.latencies = seconds, [], 0, []
        self._lock = threading.Lock()

    def start(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self.end = self._wall + self.seconds

    def add(self, count):
        with self._lock:
            self.count += count

    def figures(self):
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        seen = sorted(self.latencies)
        return {
            "ops": self.count / wall,
            "cpu": cpu * 1e6 / self.count,
            "p50": seen[len(seen) // 2] * 1e6,
            "p99": seen[len(seen) * 99 // 100] * 1e6,
        }


# The same loops for every party: an operation each time round, and in the timed ones a look at the clock. A timed loop
# ends the run. They are written out, because a function between a loop and the party would be a part of every figure.


def read(get, set, part, run):
    count, over = 0, run.over
    for key, _, _ in cycle(part):
        if over:
            break
        get(key)
        count += 1
    run.add(count)


def write(get, set, part, run):
    count, over = 0, run.over
    for key, value, _ in cycle(part):
        if over:
            break
        set(key, value)
        count += 1
    run.add(count)


def mix(get, set, part, run):
    count, over = 0, run.over
    for key, value, writes in cycle(part):
        if over:
            break
        if writes:
            set(key, value)
        else:
            get(key)
        count += 1
    run.add(count)


def timed(op):
    def act(get, set, part, run):
        last, end, clock, seen = time.perf_counter(), run.end, time.perf_counter, run.latencies.append
        for key, value, writes in cycle(part):
            if op == "set" or (op == "mix" and writes):
                set(key, value)
            else:
                get(key)
            now = clock()
            seen(now - last)
            last = now
            if now > end:
                break
        run.over.append(True)
        run.add(len(run.latencies))

    return act


async def read_awaited(get, set, part, run):
    count, over = 0, run.over
    for key, _, _ in cycle(part):
        if over:
            break
        await get(key)
        count += 1
    run.add(count)


async def write_awaited(get, set, part, run):
    count, over = 0, run.over
    for key, value, _ in cycle(part):
        if over:
            break
        await set(key, value)
        count += 1
    run.add(count)


async def mix_awaited(get, set, part, run):
    count, over = 0, run.over
    for key, value, writes in cycle(part):
        if over:
            break
        if writes:
            await set(key, value)
        else:
            await get(key)
        count += 1
    run.add(count)


def timed_awaited(op):
    async def act(get, set, part, run):
        last, end, clock, seen = time.perf_counter(), run.end, time.perf_counter, run.latencies.append
        for key, value, writes in cycle(part):
            if op == "set" or (op == "mix" and writes):
                await set(key, value)
            else:
                await get(key)
            now = clock()
            seen(now - last)
            last = now
            if now > end:
                break
        run.over.append(True)
        run.add(len(run.latencies))

    return act


THREADS = {"get": read, "set": write, "mix": mix}
TASKS = {"get": read_awaited, "set": write_awaited, "mix": mix_awaited}


def fail(*_):
    """At once: a client may go on for ever when one of its calls has failed in the midst of others."""
    traceback.print_exc()
    os._exit(1)


def check(item, found):
    if json.loads(found)["user"]["id"] != item[0]:
        raise SystemExit("what was read is not what was written")


def in_threads(op, get, set, in_flight, seconds):
    run = Run(seconds)
    parts = [ITEMS[n::in_flight] for n in range(in_flight)]
    ready = threading.Barrier(in_flight)

    def begin(part):
        ready.wait()
        THREADS[op](get, set, part, run)

    threads = [threading.Thread(target=begin, args=(part,)) for part in parts[1:]]
    for thread in threads:
        thread.start()
    # Those who run keep the interpreter's lock for long: starting the last of them would take up a part of the run.
    ready.wait()
    run.start()
    timed(op)(get, set, parts[0], run)
    for thread in threads:
        thread.join()
    return run.figures()


async def in_tasks(op, get, set, in_flight, seconds):
    run = Run(seconds)
    parts = [ITEMS[n::in_flight] for n in range(in_flight)]
    run.start()
    others = (TASKS[op](get, set, part, run) for part in parts[1:])
    try:
        await asyncio.gather(timed_awaited(op)(get, set, parts[0], run), *others)
    except Exception:
        fail()
    return run.figures()


def asked(line):
    op, in_flight, seconds = line.split()
    return op, int(in_flight), float(seconds)


def blocking(party):
    """`party()` gives two functions: get(key), set(key, value)."""
    get, set = party()
    get(ITEMS[0][0])
    print("ready", flush=True)
    while line := sys.stdin.readline():
        op, in_flight, seconds = asked(line)
        in_threads(op, get, set, in_flight, seconds / 2)  # warm-up
        figures = in_threads(op, get, set, in_flight, seconds)
        for item in ITEMS[0], ITEMS[-1]:
            check(item, get(item[0]))
        print(json.dumps(figures), flush=True)


async def awaited(party):
    """`party(stack)` gives the same, as coroutine functions; what is on the stack is closed at the end."""
    async with AsyncExitStack() as stack:
        get, set = await party(stack)
        await get(ITEMS[0][0])
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            op, in_flight, seconds = asked(line)
            await in_tasks(op, get, set, in_flight, seconds / 2)  # warm-up
            figures = await in_tasks(op, get, set, in_flight, seconds)
            for item in ITEMS[0], ITEMS[-1]:
                check(item, await get(item[0]))
            print(json.dumps(figures), flush=True)


def serve(manner, party):
    threading.excepthook = fail
    try:
        if manner == "blocking":
            blocking(party)
        elif manner == "asyncio":
            asyncio.run(awaited(party))
        else:
            import uvloop

            uvloop.run(awaited(party))
    except Exception:
        fail()
