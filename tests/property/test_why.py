"""Whatever a status says, it is explained, and the text fits a terminal."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dflow.report import EdgeStatus, NodeStatus, ReplicaStatus, RunStatus
from dflow.stats import Doing
from dflow.why import explain

NAMES = ("a", "b", "c", "run")
PHASES = ("waiting", "starting", "running", "draining", "stopping", "aborting", "finished")
WHATS = (
    "", "idle", "handler", "source", "tasks", "credit", "order", "paused", "turn", "thread",
    "ended", "on_start", "on_stop", "results", "send", "news from later",
)  # fmt: skip


def any_status(seed: int) -> RunStatus:
    """Return some status: waits may lead anywhere, also to what is not there."""
    draw = Random(seed)
    ids = sorted(
        {f"{draw.choice(NAMES)}.out->{draw.choice(NAMES)}.in" for _ in range(draw.randint(0, 6))}
    )

    def replica(name: str) -> ReplicaStatus:
        return ReplicaStatus(
            name,
            draw.choice(("absent", "linked", "starting", "running", "running", "drained", "gone")),
            draw.choice(WHATS),
            draw.choice((0.0, 0.5, 3.0, 1e6)),
            draw.random(),
            draw.choice((0.0, 0.1, 8.0)),
            pid=draw.randint(0, 3),
            edges=tuple(draw.choices([*ids, "x.out->y.in"], k=draw.randint(0, 2))),
            waits_for=tuple(draw.choices(("a[0]", "b[1]", "z[9]"), k=draw.randint(0, 2))),
        )

    nodes = tuple(
        NodeStatus(
            name, "node", 2, doing=tuple(replica(f"{name}[{i}]") for i in range(draw.randint(0, 2)))
        )
        for name in NAMES[:-1]
    )
    launcher = draw.choice((None, replica("run[0]")))
    depths = tuple(EdgeStatus(edge, depth=draw.randint(0, 9), capacity=8) for edge in ids)
    return RunStatus("g", "1", draw.choice(PHASES), 3.0, nodes, depths, launcher)


@given(st.integers(0, 1 << 32), st.sampled_from((0.0, 1.0)))
def test_every_status_is_explained(seed: int, patience_s: float) -> None:
    why = explain(any_status(seed), patience_s)
    assert max(map(len, str(why).splitlines())) <= 79
    assert all(chain.links for chain in why.chains)
    assert why.to_dict()["summary"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=12,
)


@given(values)
def test_what_a_peer_says_it_does_is_checked_through_and_through(row: object) -> None:
    try:
        doing = Doing.from_wire(row)
    except (TypeError, ValueError):
        return
    again = Doing.from_wire(doing.to_wire())
    assert (again.what, again.place, again.edges) == (doing.what, doing.place, doing.edges)
