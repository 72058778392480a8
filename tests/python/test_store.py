"""The blocking store, beside what the cases tell."""

import gc
import inspect
import threading
import warnings
import weakref
from datetime import UTC, datetime, timedelta, timezone

import counterfoil
import pytest
from counterfoil.testing import Stage
from support import Full, run_python


@pytest.fixture
def store(stage: Stage):
    with counterfoil.open("memory:", stage=stage) as store:
        yield store


def test_values(store: counterfoil.Store) -> None:
    for given, text in (
        ("plain", "plain"),
        ("", ""),
        ("é€😀\x00\n", "é€😀\x00\n"),
        (b"bytes", "bytes"),
        (bytearray(b"array"), "array"),
        (memoryview(b"view"), "view"),
        (type("Text", (str,), {})("subclass"), "subclass"),
    ):
        assert store.set("k", given) is True
        assert store.get("k") == text
        assert store.get_bytes("k") == text.encode()
        assert type(store.get("k")) is str
    store.set("k", b"\x00\xff")
    assert store.get_bytes("k") == b"\x00\xff"
    assert store.pop_bytes("k") == b"\x00\xff"
    assert store.pop_bytes("k") is None


def test_the_caller_may_change_what_it_gave(store: counterfoil.Store) -> None:
    value = bytearray(b"before")
    store.set("k", value)
    value[:] = b"after!"
    value.extend(b"and longer: the buffer is not held")
    assert store.get("k") == "before"


def test_a_value_that_is_not_utf8(store: counterfoil.Store) -> None:
    store.set("k", b"hunter2\xff")
    with pytest.raises(counterfoil.CorruptError, match="get_bytes") as caught:
        store.get("k")
    assert caught.value.outcome == "not_applied"
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None, "the exception of the decoder quotes the value"
    with pytest.raises(counterfoil.CorruptError, match="pop_bytes") as caught:
        store.pop("k")
    assert caught.value.outcome == "applied"
    assert store.get_bytes("k") is None


def test_expires_at(store: counterfoil.Store, stage: Stage) -> None:
    for zone in (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))):
        store.set("k", "v", expires_at=(stage.now() + timedelta(seconds=2)).astimezone(zone))
        stage.advance(1.999)
        assert store.get("k") == "v"
        stage.advance(0.001)
        assert store.get("k") is None
    store.set("k", "v")
    assert store.set("k", "w", expires_at=stage.now()) is True  # not in the future: deletes
    assert store.get("k") is None


def test_the_wall_clock_ends_nothing_early(store: counterfoil.Store, stage: Stage) -> None:
    store.set("k", "v", ttl=10)
    stage.step_wall(1_000_000)
    assert store.get("k") == "v"
    stage.step_wall(-2_000_000)
    stage.advance(10)
    assert store.get("k") is None


def test_keywords_and_positions(store: counterfoil.Store) -> None:
    assert store.set(
        key="k", value="1", ttl=5, if_absent=True, if_present=False, if_equal=None, keep_ttl=False, expires_at=None
    )
    assert store.get(key="k") == "1"
    assert store.set(**{"".join(["k", "ey"]): "k", "".join(["va", "lue"]): "2"})  # names that are not interned
    assert store.touch(key="k", ttl=1)
    assert store.incr(key="n", by=2, ttl=1) == 2
    assert store.incr("n", 3, 1) == 5
    assert store.count(prefix="n") == 1
    assert store.clear(prefix="n", force=True) == 1
    assert store.get_many(keys=("k", "n", "k")) == {"k": "2", "n": None}
    assert list(store.get_many(["z", "k", "a"])) == ["z", "k", "a"]
    assert store.pop(key="k") == "2"


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get(),
        lambda store: store.get("a", "b"),
        lambda store: store.get(nope="a"),
        lambda store: store.get("a", key="a"),
        lambda store: store.set("a"),
        lambda store: store.set("a", "b", 5),
        lambda store: store.set("a", "b", tl=5),
        lambda store: store.touch("a"),
        lambda store: store.incr(),
        lambda store: store.clear("a", True, 5),
    ],
)
def test_a_wrong_call_is_a_plain_type_error(store: counterfoil.Store, call) -> None:
    with pytest.raises(TypeError) as caught:
        call(store)
    assert not isinstance(caught.value, counterfoil.Error)


def test_scan(store: counterfoil.Store) -> None:
    keys = {f"k{number}" for number in range(1000)}
    for key in keys:
        store.set(key, "v")
    seen = []
    for number, key in enumerate(store.scan("k")):
        seen.append(key)
        if number == 10:
            store.set("other", "v")
            store.delete("other")
    assert len(seen) == 1000
    assert set(seen) == keys
    assert store.count("k99") == 11
    assert store.clear("k9") == 111
    assert len(list(store.scan())) == 889


def test_a_scan_may_outlive_its_store(store: counterfoil.Store) -> None:
    for number in range(300):
        store.set(f"k{number}", "v")
    scan = store.scan()
    next(scan)
    store.close()
    with pytest.raises(counterfoil.ClosedError):
        list(scan)


def test_shared_and_private(stage: Stage) -> None:
    with (
        counterfoil.open("memory:shared", stage=stage) as one,
        counterfoil.open("memory:shared", stage=stage, prefix="p:") as two,
        counterfoil.open("memory:", stage=stage) as private,
    ):
        one.set("p:a", "1")
        assert two.get("a") == "1"
        assert private.get("p:a") is None
        assert list(two.scan()) == ["a"]
        assert two.clear() == 1
        with counterfoil.open("memory:shared") as elsewhere:  # another stage, the real one
            one.set("x", "1")
            assert elsewhere.get("x") is None


def test_options(stage: Stage) -> None:
    with counterfoil.open("memory:", max_entries=2, stage=stage) as store:
        for key in "abc":
            store.set(key, "v")
        assert store.count() == 2
        assert store.stats()["evicted"] == 1
    with counterfoil.open("memory:?max_entries=2", max_bytes=100_000, stage=stage) as store:
        assert store.set("a", "v")
    for options in (
        {"nope": 1},
        {"max_entries": 0},
        {"max_entries": "many"},
        {"max_entries": -1},
        {"max_entries": True},
    ):
        with pytest.raises(counterfoil.InvalidError):
            counterfoil.open("memory:", stage=stage, **options)
    with pytest.raises(counterfoil.InvalidError):
        counterfoil.open("memory:?max_entries=2", max_entries=2, stage=stage)
    with pytest.raises(counterfoil.InvalidTypeError):
        counterfoil.open("memory:", max_entries=[2])
    with pytest.raises(counterfoil.InvalidError):
        counterfoil.open("memory:", max_entries="\ud800")


def test_stats(store: counterfoil.Store, stage: Stage) -> None:
    store.set("a", "1", ttl=1)
    store.get("a")
    stage.advance(1)
    store.get("a")
    with pytest.raises(counterfoil.InvalidError):
        store.get("")
    figures = store.stats()
    assert figures["operations"] == 4
    assert figures["errors"] == 1
    assert figures["timeouts"] == figures["pending"] == 0
    assert figures["expired"] == 1
    assert figures["entries"] == 0
    assert all(type(value) is int for value in figures.values())


def test_stats_of_a_pool() -> None:
    backend = Full()
    inside, leave = threading.Barrier(13), threading.Event()

    def slow_get(key: str) -> None:
        inside.wait(60)
        leave.wait(60)

    backend.get = slow_get
    with counterfoil.open(backend) as store:
        threads = [threading.Thread(target=store.get, args=("k",)) for _ in range(12)]
        for thread in threads:
            thread.start()
        inside.wait(60)
        leave.set()
        for thread in threads:
            thread.join(60)
        assert store.stats()["operations"] == 12  # also of the loops that were not kept


# -------------------------------------------------------------------------------------------------------------- life


def test_closed(stage: Stage) -> None:
    store = counterfoil.open("memory:", stage=stage)
    heard: list[int] = []
    store.on("close", lambda: heard.append(1))
    assert not store.closed
    store.close()
    store.close()
    assert heard == [1]
    assert store.closed
    for call in (
        lambda: store.get("a"),
        lambda: store.set("a", "1"),
        lambda: store.scan(),
        lambda: store.count(),
        lambda: store.get_many(["a"]),
        lambda: store.stats(),
        lambda: store.clear("a"),
        lambda: store.__enter__().get("a"),
    ):
        with pytest.raises(counterfoil.ClosedError) as caught:
            call()
        assert (caught.value.code, caught.value.outcome) == ("CLOSED", "not_applied")
    assert stage.blocks == 0


def test_on(store: counterfoil.Store) -> None:
    with pytest.raises(counterfoil.InvalidError, match="no such event"):
        store.on("open", print)  # type: ignore[arg-type]
    with pytest.raises(counterfoil.InvalidTypeError):
        store.on("close", "print")  # type: ignore[arg-type]
    called: list[str] = []

    def bad() -> None:
        called.append("bad")
        raise LookupError("listener")

    store.on("close", bad)
    store.on("close", lambda: called.append("good"))
    with pytest.raises(LookupError):
        store.close()
    assert called == ["bad", "good"]


def test_with_closes_also_when_it_is_left_by_an_exception() -> None:
    with pytest.raises(LookupError), counterfoil.open("memory:") as store:
        raise LookupError
    assert store.closed


def test_dropped_quietly(stage: Stage) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = counterfoil.open("memory:", stage=stage)
        store.set("a", "1")
        gone = weakref.ref(store)
        store.itself = store  # type: ignore[attr-defined]
        del store
        gc.collect()
    assert gone() is None
    assert stage.blocks == 0


def test_a_store_that_was_not_opened() -> None:
    store = counterfoil.Store.__new__(counterfoil.Store)
    for call in (lambda: store.get("a"), lambda: store.stats(), lambda: store.set("a", "b")):
        with pytest.raises(RuntimeError, match="never opened"):
            call()
    store.close()


def test_opened_once(store: counterfoil.Store) -> None:
    with pytest.raises(counterfoil.InvalidError, match="already"):
        store.__init__("memory:")  # type: ignore[misc]
    assert store.set("a", "1")


def test_system_calls_that_fail(stage: Stage) -> None:
    failures = 0
    for nth in range(1, 20):
        stage.fail_syscall(nth, 24)  # EMFILE
        try:
            counterfoil.open("memory:", stage=stage).close()
        except counterfoil.UnavailableError as error:
            failures += 1
            assert isinstance(error, ConnectionError)
            assert (error.code, error.outcome) == ("UNAVAILABLE", "not_applied")
        assert stage.blocks == 0
    stage.fail_syscall(0, 0)
    assert failures >= 3


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory:secretname", "<counterfoil.Store: memory>"),
        ("memory:secretname?max_entries=5", "<counterfoil.Store: memory>"),
    ],
)
def test_repr(url: str, shown: str) -> None:
    store = counterfoil.open(url, prefix="secretprefix")
    assert repr(store) == shown
    store.close()
    assert repr(store) == shown[:-1] + ", closed>"
    with counterfoil.open(Full()) as own:
        assert repr(own) == "<counterfoil.Store: Full>"


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@host/zero",
        "redis://user:hunter2@host:port/0",
        "redis://host/0?password=hunter2&hunter2=1",
        "hunter2",
        "hunter2:",
        "://hunter2",
        "memory:hunter2?x=hunter2",
        "memory:hunter\x002",
    ],
)
def test_a_url_is_never_repeated(url: str) -> None:
    with pytest.raises(counterfoil.InvalidError) as caught:
        counterfoil.open(url)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__context__ is None


# ------------------------------------------------------------------------------------------------------------- errors


def test_errors() -> None:
    import pickle

    from counterfoil import errors

    table = {
        "INVALID": (counterfoil.InvalidError, ValueError),
        "NO_MEMORY": (counterfoil.NoMemoryError, MemoryError),
        "TIMEOUT": (counterfoil.DeadlineError, TimeoutError),
        "UNAVAILABLE": (counterfoil.UnavailableError, ConnectionError),
        "BUSY": (counterfoil.BusyError, Exception),
        "NOT_SUPPORTED": (counterfoil.NotSupportedError, Exception),
        "CORRUPT": (counterfoil.CorruptError, Exception),
        "CLOSED": (counterfoil.ClosedError, Exception),
        "FORKED": (counterfoil.ForkedError, Exception),
        "EXISTS": (counterfoil.ExistsError, ValueError),
        "AUTH": (counterfoil.AuthError, PermissionError),
        "CANCELED": (counterfoil.CanceledError, Exception),
    }
    for code, (kind, also) in table.items():
        error = errors.make(code, "unknown", "a sentence")
        assert type(error) is kind
        assert isinstance(error, counterfoil.Error)
        assert isinstance(error, also)
        assert (error.code, error.outcome, str(error)) == (code, "unknown", "a sentence")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.outcome, str(again)) == (kind, "unknown", "a sentence")
    wrong = errors.make("INVALID", "not_applied", "a sentence", True)
    assert isinstance(wrong, counterfoil.InvalidTypeError)
    assert isinstance(wrong, TypeError)
    assert isinstance(wrong, ValueError)
    assert all(
        issubclass(getattr(counterfoil, name), counterfoil.Error) for name in dir(counterfoil) if name.endswith("Error")
    )


def test_text_signatures() -> None:
    assert str(inspect.signature(counterfoil.Store.get)) == "(self, /, key)"
    assert str(inspect.signature(counterfoil.Store.set)) == (
        "(self, /, key, value, *, ttl=None, expires_at=None, "
        "if_absent=False, if_present=False, if_equal=None, keep_ttl=False, receipt=None)"
    )
    for name in dir(counterfoil.Store):
        method = getattr(counterfoil.Store, name)
        if callable(method) and not name.startswith("__") and name != "_pages":
            assert method.__doc__, f"{name} has no docstring"
            inspect.signature(method)


def test_the_datetime_that_is_out_of_range(store: counterfoil.Store) -> None:
    for moment in (
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime(1969, 12, 31, tzinfo=UTC),
    ):
        with pytest.raises(counterfoil.InvalidError):
            store.set("k", "v", expires_at=moment)
    assert store.get("k") is None


def test_subinterpreters_each_have_their_own() -> None:
    done = run_python("""
        try:
            import _interpreters as interpreters
            create = lambda: interpreters.create("legacy")  # one that shares the GIL, as in 3.11
        except ImportError:
            import _xxsubinterpreters as interpreters
            create = lambda: interpreters.create(isolated=False)
        import counterfoil
        code = '''if True:
            import counterfoil
            class Mine:
                single_process = True
                def __init__(self): self.data = {}
                def get(self, key): return self.data.get(key)
                def set(self, key, value, ttl): self.data[key] = value
                def delete(self, key): return self.data.pop(key, None) is not None
            with counterfoil.open("memory:between") as store, counterfoil.open(Mine()) as own:
                assert store.get("a") == "1", "memory:NAME is shared in the process"
                store.set("b", "2")
                own.set("a", "1")
                assert own.pop("a") == "1"
                try:
                    own.set("", "")
                except counterfoil.InvalidError:
                    pass
        '''
        with counterfoil.open("memory:between") as store:
            store.set("a", "1")
            for _ in range(3):
                interpreter = create()
                failed = interpreters.run_string(interpreter, code)
                assert not failed, failed
                interpreters.destroy(interpreter)
            assert store.get("b") == "2"
        print("done")
    """)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
