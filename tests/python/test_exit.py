"""The end of the interpreter: right exit code, no hang, no crash, whatever is still open."""

import pytest
from support import run_python

BACKEND = """
class Mine(counterfoil.Backend):
    single_process = True
    def __init__(self): self.data = {}
    def get(self, key): return self.data.get(key)
    def set(self, key, value, ttl): self.data[key] = value
    def delete(self, key): return self.data.pop(key, None) is not None
"""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("an open memory store", 'store = counterfoil.open("memory:")\nstore.set("a", "1")'),
        ("an open shared store", 'store = counterfoil.open("memory:name")\nstore.set("a", "1")'),
        ("an open store over a backend", 'store = counterfoil.open(Mine())\nstore.set("a", "1")'),
        ("a store in a cycle", "store = counterfoil.open(Mine())\nstore.me = store\nstore.backend = Mine()"),
        ("a store that only builtins know", "import builtins\nbuiltins.store = counterfoil.open(Mine())"),
        ("a backend that holds its store", "backend = Mine()\nbackend.store = counterfoil.open(backend)"),
        (
            "a backend that throws from close",
            "class Bad(Mine):\n    def close(self): raise LookupError\nstore = counterfoil.open(Bad())",
        ),
        (
            "a scan in its middle",
            'store = counterfoil.open("memory:")\n[store.set(str(n), "") for n in range(300)]\n'
            "scan = store.scan()\nnext(scan)",
        ),
        (
            "a stage",
            "from counterfoil.testing import Stage\nstage = Stage()\nstore = counterfoil.open('memory:', stage=stage)",
        ),
        (
            "daemon threads in calls",
            """
import threading, time
store, own = counterfoil.open("memory:"), counterfoil.open(Mine())
def work():
    while True:
        for each in (store, own):
            each.set("k", "v" * 1000)
            each.pop("k")
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
        ),
        (
            "daemon threads that wait for a key",
            """
import threading, time
inside = threading.Event()
class Slow(Mine):
    def get(self, key):
        inside.set()
        time.sleep(60)
own = counterfoil.open(Slow(), timeout=60)
for _ in range(4):
    threading.Thread(target=own.pop, args=("k",), daemon=True).start()
inside.wait()
time.sleep(0.1)
""",
        ),
        (
            "pending operations of asyncio",
            """
import asyncio, counterfoil.aio
class Later(Mine):
    async def get(self, key): await asyncio.sleep(60)
async def main():
    global store, op
    store = await counterfoil.aio.open(Later())
    op = store.get("a")
    await asyncio.sleep(0.01)
asyncio.run(main())
""",
        ),
        (
            "an async store that nobody closed",
            """
import asyncio, counterfoil.aio
async def main():
    global store
    store = await counterfoil.aio.open("memory:")
    await store.set("a", "1")
    await store.count()
asyncio.run(main())
""",
        ),
        (
            "pending operations of trio",
            """
import trio, counterfoil.aio
class Later(Mine):
    async def get(self, key): await trio.sleep(60)
async def main():
    global store, op
    store = await counterfoil.aio.open(Later())
    op = store.get("a")
    await trio.sleep(0.01)
trio.run(main)
""",
        ),
        (
            "an event loop that was stopped in the middle",
            """
import asyncio, counterfoil.aio
class Later(Mine):
    async def get(self, key): await asyncio.sleep(60)
loop = asyncio.new_event_loop()
async def main():
    global store
    store = await counterfoil.aio.open(Later())
    await store.get("a")
task = loop.create_task(main())
loop.call_later(0.05, loop.stop)
loop.run_forever()
""",
        ),
    ],
    ids=lambda value: value if "=" not in value else "",
)
def test_exit(name: str, code: str) -> None:
    done = run_python(f"import sys, counterfoil\n{BACKEND}\n{code}\nsys.exit(3)", timeout=30)
    assert done.returncode == 3, done.stderr
    assert "Fatal" not in done.stderr


def test_exit_by_signal() -> None:
    done = run_python(
        f"import os, signal, counterfoil\n{BACKEND}\nstore = counterfoil.open(Mine())\nstore.set('a', '1')\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nimport time\ntime.sleep(60)",
        timeout=30,
    )
    assert done.returncode == -15, done.stderr


def test_the_module_can_be_imported_again() -> None:
    """As tests of others do that clear sys.modules; the second copy is another module with its own state."""
    done = run_python("""
        import sys, counterfoil
        first = counterfoil.open("memory:again")
        first.set("a", "1")
        for name in [name for name in sys.modules if name.startswith("counterfoil")]:
            del sys.modules[name]
        import counterfoil as again
        second = again.open("memory:again")
        assert second.get("a") == "1"
        try:
            second.get("")
        except again.InvalidError:
            print("its own error")
        first.close()
        second.close()
    """)
    assert (done.stdout, done.returncode) == ("its own error\n", 0), done.stderr
