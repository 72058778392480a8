"""A store against a model of it: a dict, and a clock that the test moves."""

from typing import Any

import counterfoil
import pytest
from counterfoil.testing import Stage
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis_servers import Redis, ServerStage, own_prefix
from support import BareKeeping, Full, Sqlite

KEYS = st.sampled_from(["a", "b", "ab", "abc", "é", "z" * 100])
VALUES = st.one_of(st.sampled_from(["", "1", "41", "-7", "x"]), st.text(max_size=20), st.binary(max_size=20))
TTLS = st.one_of(st.none(), st.integers(2, 5000).map(lambda ms: ms / 1000))  # 2: see support.needs
MOMENTS = st.one_of(st.integers(0, 3000), st.sampled_from([1, 999, 1000, 1001])).map(lambda ms: ms / 1000)


def as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


class Machine(RuleBasedStateMachine):
    target: Any = "memory:"
    scans = True

    @initialize(ttl=TTLS, prefix=st.sampled_from(["", "p:"]))
    def open(self, ttl: float | None, prefix: str) -> None:
        self.stage: Stage = Stage()
        if isinstance(self.target, Redis):
            self.stage = ServerStage()
            self.stage.leads = True
            target: Any = self.target.url
            prefix = own_prefix() + prefix
        elif isinstance(self.target, Sqlite):
            target = self.target.new()
        else:
            target = self.target if isinstance(self.target, str) else self.target(self.stage)
        self.store = counterfoil.open(target, ttl=ttl, prefix=prefix, stage=self.stage)
        self.ttl = ttl
        self.now = 0
        self.model: dict[str, tuple[bytes, int | None]] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            if isinstance(self.target, Redis):
                self.store.clear()
            self.store.close()
            if isinstance(self.target, Sqlite):
                self.target.forget()
            assert self.stage.blocks == 0

    def live(self) -> dict[str, tuple[bytes, int | None]]:
        self.model = {key: item for key, item in self.model.items() if item[1] is None or self.now < item[1]}
        return self.model

    def expiry(self, ttl: float | None) -> int | None:
        ttl = self.ttl if ttl is None else ttl
        return None if ttl is None else self.now + round(ttl * 1000)

    @rule(seconds=MOMENTS)
    def advance(self, seconds: float) -> None:
        self.stage.advance(seconds)
        self.now += round(seconds * 1000)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: str, value: Any, ttl: float | None) -> None:
        assert self.store.set(key, value, ttl=ttl) is True
        self.live()[key] = as_bytes(value), self.expiry(ttl)

    @rule(key=KEYS, value=VALUES)
    def set_keeping(self, key: str, value: Any) -> None:
        assert self.store.set(key, value, keep_ttl=True) is True
        live = self.live()
        live[key] = as_bytes(value), live[key][1] if key in live else self.expiry(None)

    @rule(key=KEYS, value=VALUES, ttl=TTLS, condition=st.sampled_from(["if_absent", "if_present"]))
    def set_if(self, key: str, value: Any, ttl: float | None, condition: str) -> None:
        live = self.live()
        stored = (key in live) == (condition == "if_present")
        assert self.store.set(key, value, ttl=ttl, **{condition: True}) is stored
        if stored:
            live[key] = as_bytes(value), self.expiry(ttl)

    @rule(key=KEYS, value=VALUES, expected=VALUES, right=st.booleans())
    def set_if_equal(self, key: str, value: Any, expected: Any, right: bool) -> None:
        live = self.live()
        if right and key in live:
            expected = live[key][0]
        stored = key in live and live[key][0] == as_bytes(expected)
        assert self.store.set(key, value, if_equal=expected) is stored
        if stored:
            live[key] = as_bytes(value), self.expiry(None)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.store.delete(key) is (self.live().pop(key, None) is not None)

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        expected = self.live().pop(key, None)
        assert self.store.pop_bytes(key) == (expected and expected[0])

    @rule(key=KEYS, ttl=st.integers(2, 5000).map(lambda ms: ms / 1000))
    def touch(self, key: str, ttl: float) -> None:
        live = self.live()
        assert self.store.touch(key, ttl) is (key in live)
        if key in live:
            live[key] = live[key][0], self.expiry(ttl)

    @rule(key=KEYS, by=st.one_of(st.integers(-5, 5), st.sampled_from([2**53 - 1, -(2**53) + 1])), ttl=TTLS)
    def incr(self, key: str, by: int, ttl: float | None) -> None:
        live = self.live()
        text = live[key][0] if key in live else b"0"
        try:
            number: int | None = int(text)
            if str(number).encode() != text or abs(number or 0) >= 2**53 or abs((number or 0) + by) >= 2**53:
                number = None
        except ValueError:
            number = None
        if number is None:
            with pytest.raises(counterfoil.InvalidError):
                self.store.incr(key, by, ttl)
            return
        assert self.store.incr(key, by, ttl) == number + by
        live[key] = str(number + by).encode(), live[key][1] if key in live else self.expiry(ttl)

    @rule(prefix=st.sampled_from(["", "a", "ab", "é", "nothing"]))
    def scan(self, prefix: str) -> None:
        if self.scans:
            expected = sorted(key for key in self.live() if key.startswith(prefix))
            assert sorted(self.store.scan(prefix)) == expected
            assert self.store.count(prefix) == len(expected)

    @rule(prefix=st.sampled_from(["a", "ab", "é", ""]))
    def clear(self, prefix: str) -> None:
        if self.scans:
            gone = [key for key in self.live() if key.startswith(prefix)]
            assert self.store.clear(prefix, force=True) == len(gone)
            for key in gone:
                del self.model[key]

    @invariant()
    def the_same_as_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        live = self.live()
        for key in ("a", "b", "ab", "abc", "é", "z" * 100):
            assert self.store.get_bytes(key) == (live[key][0] if key in live else None)


TARGETS = {
    "memory": "memory:", "full": Full, "bare-keeping": BareKeeping, "redis": Redis("CLOCK"), "sqlite": Sqlite(),
}  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_against_a_model(kind: str) -> None:
    machine = type(f"Machine_{kind}", (Machine,), {"target": TARGETS[kind], "scans": kind != "bare-keeping"})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, print_blob=True, database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )  # fmt: skip
