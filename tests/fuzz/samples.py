"""Valid messages of every kind: where mutations begin."""

from __future__ import annotations

import datetime as dt
import enum
import json
from collections import Counter, OrderedDict, deque
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import numpy as np

from dflow.graph.plan import WorkerId
from dflow.launch import protocol
from dflow.report import (
    EdgeReport,
    EdgeStatus,
    KeyStatus,
    NodeReport,
    NodeStatus,
    RunReport,
    RunStatus,
)
from dflow.stats import (
    Fates,
    InChannelStats,
    KeyStats,
    NodeStats,
    OutChannelStats,
    QueueStats,
    WorkerStats,
)
from dflow.wire import control
from dflow.wire import frames as f
from dflow.wire.codec import Codec
from dflow.wire.notes import Notes, pack_notes

__all__ = [
    "TYPES", "batches", "controls", "frames", "notes", "pipe_messages", "reports", "run_notes",
    "stats", "statuses", "values",
]  # fmt: skip


class Colour(enum.Enum):
    """An enum that travels."""

    RED = 1
    BLUE = 2


class Rights(enum.Flag):
    """A flag that travels."""

    READ = 1
    WRITE = 2


@dataclass
class Sample:
    """A dataclass that travels, with fields that are restored."""

    name: str
    data: bytes
    parts: list[bytearray]


class Pair(NamedTuple):
    """A named tuple that travels."""

    left: int
    right: object


TYPES = (Colour, Rights, Sample, Pair)

_DTYPE = np.dtype([("x", "<f4"), ("y", "<i2", (3,))])
_NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
_VALUES: list[Any] = [
    None, 5, -(2**40), 3.5, "text", b"bytes", [1, [2, [3]]], {"a": {"b": [True]}}, {5: 6},
    (1, "a", (2,)), {1, 2}, frozenset({"x"}), 2**90, -(2**70), 1 + 2j, [[]] * 40, "é" * 30,
    _NOON, _NOON.date(), _NOON.timetz(), dt.timedelta(days=3, seconds=5),
    dt.timezone(dt.timedelta(hours=2), "here"), dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")),
    Decimal("1.25"), UUID(int=7), Path("/tmp/x"), deque([1, 2], 5), OrderedDict(a=1),
    Counter("aab"), Colour.RED, Rights.READ | Rights.WRITE, Sample("n", b"d", [bytearray(b"p")]),
    Pair(1, (2, 3)), msgpack.Timestamp(5, 7), list(range(1100)), memoryview(b"abcd"),
    np.arange(6, dtype="<i4").reshape(2, 3), np.zeros((2, 2), _DTYPE), np.float32(2.5),
    np.array(["ab", "c"]), np.asfortranarray(np.ones((3, 2))), np.datetime64("2026-01-01"),
    np.zeros((0, 5)), np.str_("x"), np.bool_(True), {"array": np.ones(3), "list": [(1, 2)] * 5},
    np.arange(6, dtype="<f8").reshape(2, 3).data,
]  # fmt: skip


def values() -> list[bytes]:
    """Return encoded values of every kind that travels in a message."""
    codec = Codec(TYPES)
    return [bytes(codec.encode(value)) for value in _VALUES]


def batches() -> list[bytes]:
    """Return bodies of BATCH frames behind their count in two bytes."""
    every = values()
    groups = [every[i : i + 1 + i % 4] for i in range(0, len(every), 3)]
    bodies = [(len(g), f.pack_batch(0, 0, 0, g, 0)[f.HEADER_BYTES :]) for g in groups]
    return [count.to_bytes(2, "little") + body for count, body in bodies]


def notes() -> list[bytes]:
    """Return packed notes behind the number of messages they are about."""
    place = (7, 8, 2**60, 1 << 20, 1 << 16, 0, 1, 0, 70_000)
    return [
        bytes((said[0],)) + pack_notes(said[1])
        for said in [
            (3, Notes(numbers=[1, 2, 3])),
            (2, Notes(tags=[4, 4], places=[0, 1], completed=[4], counts=[2])),
            (0, Notes(completed=[1, 2], counts=[0, 5])),
            (2, Notes(ages_ns=[5, 2**40])),
            (2, Notes(numbers=[5, 6], withdrawn=[1])),
            (1, Notes(buffers=place)),
            (1, Notes(numbers=[1], buffers=place * 2)),
            (255, Notes(numbers=list(range(1000, 1255)))),
        ]
    ]


def frames() -> list[bytes]:
    """Return a frame of each kind."""
    payloads = values()[:6]
    return [
        f.pack_hello(3, 1, "token"), f.pack_end(3, 1, 9, 5), f.pack_refused(3, 1, "no"),
        f.pack_credit(3, 1, 5, 50, 4), f.pack_credit(3, 1, 5, 50, 4, [6, 8]),
        f.pack_closed(3, 1, 5, 50, 4), f.pack_batch(3, 1, 0, payloads, 7),
        f.pack_noted(3, 1, 0, payloads[:3], 7, notes()[0][1:]),
        f.pack_noted(3, 1, 0, (), 7, notes()[2][1:]),
    ]  # fmt: skip


_BY_TYPE: dict[str, Any] = {
    "str": "text", "int": 1, "float": 2.5, "list[Any]": [[1, "ipc:///x"], [2, 5]],
    "Mapping[int, str]": {2: "ipc:///x"}, "Mapping[str, Any]": {"node": "a", "n": [1]},
}  # fmt: skip


def controls() -> list[bytes]:
    """Return a control message of each kind."""
    found = []
    for name in control.__all__:
        kind = getattr(control, name)
        if isinstance(kind, type) and issubclass(kind, control.Control) and hasattr(kind, "code"):
            every: tuple[Any, ...] = fields(kind)  # type: ignore[arg-type]  # all are dataclasses
            found.append(control.encode(kind(*(_BY_TYPE[str(one.type)] for one in every))))
            needed = [one for one in every if one.default is one.default_factory is MISSING]
            if len(needed) < len(every):
                found.append(control.encode(kind(*(_BY_TYPE[str(one.type)] for one in needed))))
    stats_message = control.Stats(_STATS.to_wire())
    return [
        *found,
        control.encode(stats_message),
        control.encode(control.Stopped(_STATS.to_wire())),
    ]


_STATS = WorkerStats(
    NodeStats(5, 4, 1, 2, 1000, {"hits": 2.5}, 1),
    {0: 5}, {0: 1}, {0: 3},
    (OutChannelStats(0, 4, 40, 3, 2),), (InChannelStats(1, 5, 4, 4, 1, 0, 0, 0),),
    {0: Fates(1, 0, 2, 0, 1, 0)}, {0: QueueStats(0.5, (KeyStats("k", 1, 2, 3, 0),))},
    12345, {"fused": NodeStats(1, 1)}, 99,
)  # fmt: skip


def stats() -> list[bytes]:
    """Return stats of a worker, as they are packed in a control message."""
    packed: list[bytes] = [msgpack.packb(one.to_wire()) for one in (_STATS, WorkerStats())]
    return packed


def statuses() -> list[bytes]:
    """Return what tells an observer how a run stands."""
    status = RunStatus(
        "g", "run-1", "running", 5.5, (NodeStatus("a", "source", 2, 5, 4, 1, ("running", "gone")),),
        (EdgeStatus("a->b", 5, 4, 1, 64, keys=(KeyStatus("k", 1, 1, 0, 5),)),),
    )  # fmt: skip
    return [msgpack.packb(status.to_dict()), msgpack.packb(RunStatus("g", "r", "p", 0).to_dict())]


def reports() -> list[bytes]:
    """Return what tells the launching process how a run went."""
    edge = EdgeReport("a.out->b.in", sent=5, delivered=4, abandoned=1, wired=5, received=5)
    report = RunReport(
        "g", "run-1", "failed", 1.0, 2.0, 1.0, "worker died", "worker_died",
        (NodeReport("a", "source", 1, 5, 4, 1, metrics={"hits": 2.0}),), (edge,),
    )  # fmt: skip
    return [msgpack.packb(report.to_dict())]


def pipe_messages() -> list[bytes]:
    """Return messages of a private pipe, each with its length in front."""
    worker = WorkerId("a", 1)
    events: list[protocol.Event] = [
        protocol.RunDir("/tmp/x"), protocol.Forked(worker, 5), protocol.Started(),
        protocol.Warned("w"), protocol.Failed("t", "tb"), protocol.Exited(worker, 5, None, 9),
        protocol.Exited(worker, 5, 0, None), protocol.Done(),
    ]  # fmt: skip
    every = [protocol.pack_event(event) for event in events]
    return [*every, protocol.pack({"kill": ["a", 1]})]


def run_notes() -> list[bytes]:
    """Return the file that says where a run is."""
    note = {"run_id": "r", "graph": "g", "token": "t", "pid": 5, "started_s": 1.5}
    return [json.dumps(note).encode()]
