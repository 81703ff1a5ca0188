"""Emitting on several edges with different policies: all or nothing, and nobody hampers another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dflow import EdgeFull, Graph, Priority, coalesce, sink, source
from dflow.flow.out_edge import OutEdge
from dflow.flow.queue_edge import QueueEdge
from dflow.graph.plan import WorkerId
from dflow.stats import NodeStats
from dflow.transport.endpoint import close_context
from dflow.wire.codec import Codec
from dflow.worker.context import Emit, make_emitters
from dflow.worker.plane import DataPlane
from tests.support import unheard


@source
def feed() -> Iterator[int]:
    """Never called."""
    yield 1


@sink
def show(x: Any) -> None:
    """Never called."""


def later(waiting: int, new: int) -> int:
    """Keep the new message; refuse to merge 13."""
    if new == 13:
        raise ValueError("13")
    return new


class Fan:
    """A source with an edge for each of some options; nobody answers at the other ends."""

    def __init__(self, *edges: dict[str, Any]) -> None:
        graph = Graph("fan")
        start = feed()
        for number, options in enumerate(edges):
            graph.connect(start, show().options(name=f"s{number}"), **options)
        plan = graph.plan()
        self.codec = Codec()
        self.plane = DataPlane(
            plan, WorkerId("feed"), token="t", epoch=1, edge_key=graph.edge_key,
            on_violation=lambda text: None, codec=self.codec, edge_merge=graph.merge,
        )  # fmt: skip
        self.plane.outbound.open([c.number, unheard()] for c in plan.channels)
        self.edges: list[Any] = self.plane.outbound.edges
        self.emit: Emit = make_emitters(start, self.plane, self.codec).by_port["out"]

    @property
    def offered(self) -> list[int]:
        """How many messages each edge was given."""
        return [edge.offered for edge in self.edges]

    def arrived(self, at: int, messages: int) -> None:
        """The receiver of an edge has taken so many messages more."""
        edge = self.edges[at]
        (window,) = edge.windows
        taken = window.taken + messages
        edge.on_credit(edge.channels[0], taken, taken, taken)

    def sent(self, at: int) -> list[int]:
        """Return how many messages left by an edge."""
        return [window.sent for window in self.edges[at].windows]


@pytest.fixture
def fan() -> Iterator[Callable[..., Fan]]:
    """Give `Fan`; what it made is closed afterwards."""
    made: list[Fan] = []

    def make(*edges: dict[str, Any]) -> Fan:
        made.append(Fan(*edges))
        return made[-1]

    yield make
    for one in made:
        one.plane.close()
    close_context()


BLOCK: dict[str, Any] = {"capacity": 2}
REJECT: dict[str, Any] = {"policy": "reject", "capacity": 2}
LATEST: dict[str, Any] = {"policy": "latest", "capacity": 8}


def test_plain_and_queued_edges_get_what_is_emitted(fan: Callable[..., Fan]) -> None:
    one = fan({}, {"cancellable": True}, {"policy": "drop"}, LATEST)
    assert [type(edge) for edge in one.edges] == [OutEdge, QueueEdge, QueueEdge, QueueEdge]
    one.emit(1)
    assert one.offered == [1, 1, 1, 1]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_refused_branch_commits_none_of_the_others(fan: Callable[..., Fan], at: int) -> None:
    edges = [BLOCK, LATEST]
    edges.insert(at, REJECT)
    one = fan(*edges)
    for number in range(2):
        one.emit(number)
    with pytest.raises(EdgeFull) as refused:
        one.emit(2)
    assert (refused.value.edge, refused.value.capacity) == (one.edges[at].id, 2)
    assert [edge.emitted for edge in one.edges] == [2, 2, 2]
    assert one.edges[at].fates.rejected == 1


def test_credit_that_has_come_back_is_seen_before_anything_is_refused(
    fan: Callable[..., Fan], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = fan(REJECT)
    one.emit(0)
    one.emit(1)
    pump = one.plane.pump

    def with_credit() -> None:
        pump()
        if one.sent(0) == [2]:
            one.arrived(0, 1)

    monkeypatch.setattr(one.plane, "pump", with_credit)
    one.emit(2)
    assert one.edges[0].fates.rejected == 0


def test_a_full_block_branch_leaves_a_latest_branch_fresh_and_whole(
    fan: Callable[..., Fan],
) -> None:
    one = fan(BLOCK, LATEST)
    for number in range(5):
        one.emit(number)
    assert one.edges[0].full
    assert one.sent(1) == [1]
    one.arrived(1, 1)
    one.plane.flush()
    assert one.sent(1) == [2]  # its newest left, though the other branch is stuck
    assert one.edges[1].fates.dropped == 3
    assert one.edges[0].waiting == 3  # nothing of the branch that blocks is lost
    assert not one.edges[1].full
    assert one.plane.gate.shut


def test_a_bad_value_or_key_leaves_every_edge_as_it_was(fan: Callable[..., Fan]) -> None:
    one = fan({"policy": "drop"}, {}, {"policy": "drop_oldest", "key": "user"})
    for bad in (object(), {"name": "ann"}, {"user": {"a": 1}}):
        with pytest.raises(Exception, match=r"user|payload|key="):
            one.emit(bad)
    assert one.offered == [0, 0, 0]


def test_a_merge_that_raises_harms_neither_emit_nor_the_other_edges(
    fan: Callable[..., Fan],
) -> None:
    one = fan({"policy": coalesce(later), "capacity": 1}, {})
    for number in (11, 12, 13, 14):
        one.emit(number)
    assert one.offered == [4, 4]
    fates = one.edges[0].fates
    assert (fates.errors, fates.dropped + fates.coalesced) == (1, 4 - 1 - one.sent(0)[0])


def test_a_control_message_is_sent_by_emit_itself(fan: Callable[..., Fan]) -> None:
    one = fan({"priority": Priority.CONTROL, "cancellable": True}, {"cancellable": True})
    one.emit(1)
    assert [one.sent(0), one.edges[0].waiting] == [[1], 0]


def test_fates_and_queues_are_in_the_statistics(fan: Callable[..., Fan]) -> None:
    one = fan({}, {"policy": "drop", "capacity": 1, "key": lambda x: "k"})
    one.emit(1)
    one.emit(2)
    stats = one.plane.stats(NodeStats())
    assert stats.fates[1].dropped == 1
    (key,) = stats.queues[1].keys
    assert (key.key, key.waiting + key.in_flight) == ("'k'", 1)
    assert list(stats.fates) == [1]
