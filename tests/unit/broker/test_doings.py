"""What replicas do, with names: numbers of edges and channels, and when each was last heard of."""

from __future__ import annotations

from dataclasses import replace

from dflow.broker.lifecycle import Phase
from dflow.stats import Doing, NodeStats
from dflow.wire import control as c
from tests.unit.broker_pair import Fleet, chain


def running() -> Fleet:
    """Return ``a >> b`` under way, b in two replicas, that does not end by itself."""
    fleet = Fleet(chain("a", "b", b=2), with_handle=True)
    for fake in fleet.fakes.values():
        fake.mute = {c.Run}
    fleet.join()
    assert fleet.state.phase is Phase.RUNNING
    return fleet


def report(fleet: Fleet, node: str, doing: Doing, replica: int = 0) -> None:
    """Let a replica say what it does."""
    fake = fleet.fake(node, replica)
    stats = replace(fake.stats, node=NodeStats(doing=doing))
    fleet.say(fake, c.Stats(stats.to_wire()))


def test_edges_and_channels_get_names() -> None:
    fleet = running()
    report(fleet, "a", Doing("credit", 2.0, edges=(0,), channels=(1,)))
    told = fleet.state.status().nodes[0].doing[0]
    assert (told.name, told.what, told.for_s) == ("a[0]", "credit", 2.0)
    assert (told.edges, told.waits_for) == (("a.out->b.in",), ("b[1]",))


def test_channels_from_outside_have_names_too_and_unknown_numbers_none() -> None:
    fleet = running()
    outside = fleet.state.plan.external_channel("b", "in", 0)
    edge = fleet.state.plan.external_edge("b", "in").index
    report(fleet, "run", Doing("send", edges=(edge, 999), channels=(outside, 10**9)))
    told = fleet.state.status().launcher
    assert told is not None
    assert (told.edges, told.waits_for) == (("run->b.in",), ("b[0]",))


def test_what_was_going_on_at_the_last_word_goes_on_since() -> None:
    fleet = running()
    report(fleet, "b", Doing("handler", 2.0), 1)
    fleet.advance(4.0)
    told = fleet.state.status().nodes[1].doing[1]
    assert (told.for_s, told.heard_s) == (6.0, 4.0)


def test_one_that_has_not_joined_or_has_left_is_not_silent() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.advance(5.0)
    told = fleet.state.status().nodes[0].doing[0]
    assert (told.step, told.heard_s) == ("absent", 0.0)


def test_words_that_are_no_doing_are_refused() -> None:
    fleet = running()
    fake = fleet.fake("a")
    row = replace(fake.stats, node=NodeStats()).to_wire()
    row[0] = [*row[0][:-1], ["handler", "long"]]
    fleet.say(fake, c.Stats(row))
    assert fleet.state.ignored["unexpected"] == 1
    assert fleet.state.status().nodes[0].doing[0].what == ""
