"""A Sentinel group and a cluster whose time of day is what a file says (clock.c): for tests that move it by years.

Only those that have the data are told so. They are patient with each other, since a clock that was moved looks like
silence; Sentinels live in the real time and notice nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faults.clusters import ClusterGroup, Node
from faults.sentinels import SentinelGroup
from faults.servers import RedisServer

PATIENT: dict[str, str | int] = {"repl-timeout": 10**9}  # in seconds
PATIENT_MS = 10**14


class StagedSentinels(SentinelGroup):
    def __init__(self, clock: Path, **options: Any) -> None:
        super().__init__(config=PATIENT, **options)
        self.clock = clock

    def _server(self, number: int, **options: Any) -> RedisServer:
        return super()._server(number, clock=self.clock, **options)


class StagedCluster(ClusterGroup):
    def __init__(self, clock: Path, **options: Any) -> None:
        super().__init__(config=PATIENT, **options)
        self.clock = clock

    def _server(self, number: int, **options: Any) -> Node:
        return super()._server(number, clock=self.clock, **options)
