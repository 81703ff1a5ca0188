"""What user code sees: emit on a port, its errors, and the node's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loguru import logger

from dflow import Context, Graph, Input, Node, Output, sink, source
from dflow.errors import EncodeError, OptionError, PortError
from dflow.flow.batch import MAX_BATCH
from dflow.flow.out_edge import OutEdge
from dflow.flow.queue_edge import QueueEdge
from dflow.graph.plan import WorkerId
from dflow.message import Cancelled
from dflow.transport.endpoint import close_context
from dflow.wire.codec import Codec
from dflow.worker.context import Emit, Unconsumed, make_emitters
from dflow.worker.plane import DataPlane
from tests.support import unheard


class Splitter(Node):
    """Two outputs; ``rest`` may be left alone."""

    numbers = Input(int)
    even = Output(int)
    rest = Output(int, required=False)

    @numbers.handler
    def split(self, number: int) -> None:
        """Never called."""


@source
def feed() -> Iterator[int]:
    """Never called."""
    yield 1


@sink
def show(x: int) -> None:
    """Never called."""


@sink
def count(x: int) -> None:
    """Never called."""


class Watched(DataPlane):
    """Counts how often emit asks for attention."""

    attended = 0

    def attend(self) -> None:
        """Count, and look at the wire."""
        self.attended += 1
        super().attend()


class Bench:
    """A `Splitter` whose edges lead to lanes that nobody empties."""

    def __init__(self, connect: Callable[[Graph, Splitter], None], **options: Any) -> None:
        graph = Graph("g")
        self.node = Splitter()
        graph.connect(feed(), self.node)
        connect(graph, self.node)
        plan = graph.plan()
        self.plane = Watched(
            plan, WorkerId("splitter"), token="t", epoch=1, edge_key=graph.edge_key,
            on_violation=lambda text: None,
        )  # fmt: skip
        outgoing = [c.number for c in plan.channels if c.sender == WorkerId("splitter")]
        self.plane.outbound.open([number, unheard()] for number in outgoing)
        self.codec = Codec()
        made = make_emitters(self.node, self.plane, self.codec, **options)
        self.emitters, self.unconsumed, self.direct = made.by_port, made.unconsumed, made.direct

    @property
    def attended(self) -> int:
        """How often emit had the wire looked at."""
        return self.plane.attended

    def values(self, edge: int) -> list[Any]:
        """Return what waits on an edge."""
        found: list[Any] = []
        for cut in self.plane.outbound.edges[edge].flush(0):
            found += map(self.codec.decode, cut.payloads)
        return found


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Give `Bench`; what it made is closed afterwards."""
    made: list[Bench] = []

    def make(connect: Callable[[Graph, Splitter], None], **options: Any) -> Bench:
        made.append(Bench(connect, **options))
        return made[-1]

    yield make
    for one in made:
        one.plane.close()
    close_context()


def to_one(graph: Graph, node: Splitter) -> None:
    """Connect ``even`` once."""
    graph.connect(node.even, show())


def to_two(graph: Graph, node: Splitter) -> None:
    """Connect ``even`` twice: one copy each."""
    graph.connect(node.even, show())
    graph.connect(node.even, count())


def by_key(graph: Graph, node: Splitter) -> None:
    """Connect ``even`` to keyed replicas, and to one plain sink."""
    graph.connect(node.even, show())
    graph.connect(node.even, count().options(replicas=3), key=lambda value: value["user"])


def context(emitters: dict[str, Emit] | None = None) -> Context:
    """Return a context."""
    made = Context("splitter", 2, "run-1", logger)
    if emitters is not None:
        made.attach(emitters)
    return made


def test_what_is_emitted_waits_on_its_edge(bench: Callable[..., Bench]) -> None:
    one = bench(to_one)
    ctx = context(one.emitters)
    ctx.emit(2, "even")
    one.emitters["even"](4)
    assert one.values(0) == [2, 4]


def test_a_value_is_frozen_when_it_is_emitted(bench: Callable[..., Bench]) -> None:
    one = bench(to_one)
    value = [1, 2]
    one.emitters["even"](value)
    value.append(3)
    assert one.values(0) == [[1, 2]]


def test_several_edges_get_a_copy_each(bench: Callable[..., Bench]) -> None:
    one = bench(to_two)
    for number in range(3):
        one.emitters["even"](number)
    assert one.values(0) == one.values(1) == [0, 1, 2]


@pytest.mark.parametrize("connect", [to_one, to_two])
def test_a_full_batch_asks_for_attention(
    bench: Callable[..., Bench], connect: Callable[[Graph, Splitter], None]
) -> None:
    one = bench(connect)
    for _ in range(MAX_BATCH - 1):
        one.emitters["even"](0)
    before = one.attended
    one.emitters["even"](0)
    assert (before, one.attended) == (0, 1)


def test_a_port_without_consumer_counts_and_drops(bench: Callable[..., Bench]) -> None:
    one = bench(to_one)
    ctx = context(one.emitters)
    ctx.emit(1, "rest")
    ctx.emit(object(), "rest")
    assert [unconsumed.count for unconsumed in one.unconsumed] == [2]
    assert isinstance(one.emitters["rest"], Unconsumed)


@pytest.mark.parametrize("connect", [to_one, to_two, by_key])
def test_a_value_that_cannot_travel_raises_here_and_is_not_offered(
    bench: Callable[..., Bench], connect: Callable[[Graph, Splitter], None]
) -> None:
    one = bench(connect)
    with pytest.raises(EncodeError, match=r'payload\["user"\]'):
        one.emitters["even"]({"user": object()})
    assert [edge.offered for edge in one.plane.outbound.edges] == [0] * len(
        one.plane.outbound.edges
    )


@pytest.mark.parametrize(
    ("value", "error"), [({"name": "ann"}, KeyError), ({"user": {"a": 1}}, OptionError)]
)
def test_a_key_that_cannot_be_had_leaves_every_edge_as_it_was(
    bench: Callable[..., Bench], value: Any, error: type[Exception]
) -> None:
    one = bench(by_key)
    with pytest.raises(error):
        one.emitters["even"](value)
    assert [edge.offered for edge in one.plane.outbound.edges] == [0, 0]


def test_a_key_leads_to_one_lane(bench: Callable[..., Bench]) -> None:
    one = bench(by_key)
    for number in range(12):
        one.emitters["even"]({"user": "ann", "n": number})
    keyed = one.plane.outbound.edges[1]
    assert isinstance(keyed, OutEdge)
    assert sorted(lane.waiting for lane in keyed.lanes) == [0, 0, 12]
    assert one.plane.outbound.edges[0].waiting == 12


@pytest.mark.parametrize(
    ("connect", "options", "direct"),
    [
        (to_one, {}, ["even"]),
        (to_one, {"check_types": True}, []),
        (to_two, {}, []),
        (by_key, {}, []),
    ],
)
def test_only_one_plain_edge_may_be_emitted_to_directly(
    bench: Callable[..., Bench],
    connect: Callable[[Graph, Splitter], None],
    options: dict[str, Any],
    direct: list[str],
) -> None:
    assert list(bench(connect, **options).direct) == direct


def test_types_are_checked_when_asked_for(bench: Callable[..., Bench]) -> None:
    one = bench(to_one, check_types=True)
    one.emitters["even"](2)
    one.emitters["rest"](3)
    for port in ("even", "rest"):
        with pytest.raises(TypeError, match=rf"splitter\.{port}: expected int, got str"):
            one.emitters[port]("two")
    assert one.values(0) == [2]
    assert one.unconsumed[0].count == 1


def test_an_unknown_port_is_answered_with_the_known_ones(bench: Callable[..., Bench]) -> None:
    ctx = context(bench(to_one).emitters)
    with pytest.raises(PortError, match=r"\('even', 'rest'\), got 'odd'"):
        ctx.emit(1, "odd")


def to_both_kinds(graph: Graph, node: Splitter) -> None:
    """Connect ``even`` to a plain edge and to one whose messages can be cancelled."""
    graph.connect(node.even, show())
    graph.connect(node.even, count(), cancellable=True)


def cancellable(graph: Graph, node: Splitter) -> None:
    """Connect ``even`` so that messages can be cancelled."""
    graph.connect(node.even, show(), cancellable=True)


@pytest.mark.parametrize("connect", [to_one, to_two, by_key, to_both_kinds])
@pytest.mark.parametrize("check_types", [True, False])
def test_an_id_needs_edges_that_can_take_a_message_back(
    bench: Callable[..., Bench], connect: Callable[..., None], check_types: bool
) -> None:
    one = bench(connect, check_types=check_types)
    with pytest.raises(PortError, match=r"got splitter\.even->show\.in.*cancellable=True"):
        context(one.emitters).emit(2, "even", id="a")
    assert one.values(0) == []


def test_an_id_is_a_text(bench: Callable[..., Bench]) -> None:
    one = bench(cancellable)
    with pytest.raises(PortError, match="a text, got 7"):
        context(one.emitters).emit(2, "even", id=7)  # type: ignore[arg-type]  # the mistake
    assert one.values(0) == []


@pytest.mark.parametrize("check_types", [True, False])
def test_what_was_emitted_with_an_id_can_be_found_by_it(
    bench: Callable[..., Bench], check_types: bool
) -> None:
    one = bench(cancellable, check_types=check_types)
    context(one.emitters).emit(2, "even", id="two")
    one.emitters["even"](4, id="four")
    (edge,) = one.plane.outbound.edges
    assert isinstance(edge, QueueEdge)
    assert edge.withdraw("two") == (Cancelled.CANCELLED, [])
    assert one.values(0) == [4]


def test_a_node_without_outputs_has_nowhere_to_emit() -> None:
    with pytest.raises(PortError, match=r"\(none\), got 'out'"):
        context({}).emit(1)


def test_a_context_names_the_place() -> None:
    ctx = context()
    assert (ctx.node, ctx.replica, ctx.run_id) == ("splitter", 2, "run-1")
    assert (ctx.headers, ctx.stopping) == (None, False)


def test_metrics_add_up_and_gauges_keep_the_last() -> None:
    metrics = context().metrics
    metrics.count("frames")
    metrics.count("frames", 2)
    metrics.gauge("queue", 7)
    metrics.gauge("queue", 3)
    assert metrics.values == {"frames": 3, "queue": 3}
