"""os.fork() with open stores."""

import pytest
from support import run_python

PRELUDE = """
import os, sys, threading, counterfoil
sys.path.insert(0, {tests!r})

def in_child(check):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            check()
        except BaseException as error:
            import traceback
            traceback.print_exc()
            os._exit(9)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"the child ended with {{os.waitstatus_to_exitcode(status)}}"

class Mine(counterfoil.Backend):
    single_process = keeps_ttl = True
    closed = 0
    def __init__(self): self.data = {{}}
    def get(self, key): return self.data.get(key)
    def set(self, key, value, ttl): self.data[key] = value
    def delete(self, key): return self.data.pop(key, None) is not None
    def close(self): self.closed += 1
"""


def check(code: str) -> None:
    import textwrap
    from pathlib import Path

    done = run_python(PRELUDE.format(tests=str(Path(__file__).parent)) + textwrap.dedent(code) + "\nprint('done')\n")
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["memory:", "memory:forked", "Mine()"])
def test_the_child_has_a_private_copy(url: str) -> None:
    target = url if url == "Mine()" else repr(url)
    check(f"""
        store = counterfoil.open({target})
        store.set("a", "1")
        for round in range(3):
            def child():
                assert store.get("a") == "1"
                assert store.pop("a") == "1"
                store.set("b", "child")
                assert store.incr("n") == 1
                store.close()
            in_child(child)
            assert store.get("a") == "1", "the parent is not disturbed"
            assert store.get("b") is None
        assert store.pop("a") == "1"
        store.close()
    """)


def test_a_child_of_a_child() -> None:
    check("""
        store = counterfoil.open("memory:")
        store.set("a", "1")
        def child():
            store.set("a", "2")
            def grandchild():
                assert store.get("a") == "2"
                store.set("a", "3")
            in_child(grandchild)
            assert store.get("a") == "2"
        in_child(child)
        assert store.get("a") == "1"
    """)


def test_calls_of_other_threads_are_not_in_the_child() -> None:
    """The child closes without waiting for calls that it does not have, and its calls need not wait for their locks."""
    check("""
        inside, leave = threading.Event(), threading.Event()
        class Slow(Mine):
            def get(self, key):
                if key == "slow":
                    inside.set()
                    leave.wait(60)
                return super().get(key)
        backend = Slow()
        store = counterfoil.open(backend, timeout=3600)  # waiting for them would be noticed
        store.set("a", "1")
        thread = threading.Thread(target=store.pop, args=("slow",))
        thread.start()
        inside.wait(60)
        def child():
            assert store.get("a") == "1"
            assert store.pop("a") == "1"
            store.set("b", "2", if_absent=True)
            store.close()
        in_child(child)
        leave.set()
        thread.join()
        assert store.pop("a") == "1"
        store.close()
        assert backend.closed == 1
    """)


def test_fork_inside_a_backend() -> None:
    check("""
        class Forking(Mine):
            def get(self, key):
                if key == "fork":
                    pid = os.fork()
                    if pid == 0:
                        return "child"
                    _, status = os.waitpid(pid, 0)
                    return f"parent {os.waitstatus_to_exitcode(status)}"
                return super().get(key)
        store = counterfoil.open(Forking())
        store.set("a", "1")
        result = store.get("fork")
        if result == "child":
            try:
                assert store.get("a") == "1"
                assert store.pop("a") == "1"
                store.close()
            except BaseException:
                os._exit(9)
            os._exit(7)
        assert result == "parent 7", result
        assert store.get("a") == "1"
        store.close()
    """)


def test_an_async_store_in_the_child() -> None:
    check("""
        import asyncio, counterfoil.aio
        class Later(Mine):
            async def get(self, key):
                await asyncio.sleep(0)
                return self.data.get(key)
        async def main():
            store = await counterfoil.aio.open("memory:")
            own = await counterfoil.aio.open(Later())
            await store.set("a", "1")
            await own.set("a", "1")
            assert await own.get("a") == "1"
            pending = own.get("a")
            def child():
                def run(op):
                    try:
                        op.send(None)
                    except StopIteration as stop:
                        return stop.value
                assert run(store.get("a")) == "1"
                assert run(store.pop("a")) == "1"
            in_child(child)
            assert await pending == "1"
            assert await store.get("a") == "1"
            await store.close()
            await own.close()
        asyncio.run(main())
    """)


def test_multiprocessing_with_fork() -> None:
    check("""
        import multiprocessing
        context = multiprocessing.get_context("fork")
        store = counterfoil.open("memory:")
        store.set("n", "5")
        def work(queue):
            queue.put(store.incr("n"))
        queue = context.SimpleQueue()
        processes = [context.Process(target=work, args=(queue,)) for _ in range(4)]
        for process in processes: process.start()
        assert [queue.get() for _ in processes] == [6, 6, 6, 6]
        for process in processes: process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0, 0]
        assert store.get("n") == "5"
    """)


def test_a_child_that_exits_normally() -> None:
    """Finalization in the child closes the inherited store there, and nothing in the parent."""
    check("""
        store = counterfoil.open("memory:")
        own = counterfoil.open(Mine())
        store.set("a", "1")
        own.set("a", "1")
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            assert store.get("a") == "1"
            sys.exit(5)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 5
        assert store.get("a") == own.get("a") == "1"
        store.close()
        own.close()
    """)


def test_a_fork_while_another_thread_counts() -> None:
    """All threads share the one loop of a memory store: calls that the child does not have must not keep it busy."""
    check("""
        store = counterfoil.open("memory:forked")
        for number in range(20000):
            store.set(str(number), "1")
        stop = False
        def work():
            while not stop:
                store.count()
        thread = threading.Thread(target=work)
        thread.start()
        inside = 0
        for attempt in range(1000):
            pid = os.fork()
            if pid == 0:
                try:
                    inside = "pending" not in store.stats()  # of a loop that is in use by a thread that is not here
                    assert store.get("7") == "1"
                    assert store.pop("7") == "1"
                    assert store.count() == 19999
                    store.close()
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(9)
                os._exit(7 if inside else 0)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code in (0, 7), code
            inside += code == 7
            if inside == 3:
                break
        stop = True
        thread.join()
        assert inside == 3, "no fork was in the middle of a count"
        assert store.get("7") == "1"
        store.close()
    """)


def test_a_signal_handler_that_forks_during_a_count() -> None:
    """In the child the count ends with ForkedError, and everything after it works."""
    check("""
        import signal
        store = counterfoil.open("memory:forked")
        for number in range(20000):
            store.set(str(number), "1")
        pid = None
        def handler(*_):
            global pid
            pid = os.fork()
            if pid == 0:
                try:
                    assert store.get("7") == "1"
                except BaseException:
                    os._exit(9)
        signal.signal(signal.SIGALRM, handler)
        codes = []
        for attempt in range(1000):
            pid = None
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            counted = None
            try:
                while pid is None:
                    counted = None
                    counted = store.count()
            except counterfoil.ForkedError as error:
                if pid != 0 or error.outcome != "not_applied":
                    os._exit(9)
            if pid == 0:
                try:
                    assert store.count() == 20000
                    store.close()
                except BaseException:
                    os._exit(9)
                os._exit(0 if counted == 20000 else 7)
            assert counted == 20000, "the parent's is not disturbed"
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            assert codes[-1] in (0, 7), codes
            if codes.count(7) == 3:
                break
        assert codes.count(7) == 3, "no handler ran in the middle of a count"
        store.close()
    """)
