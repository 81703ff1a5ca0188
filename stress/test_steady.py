"""Many producers, many consumers, a steady pace: how old messages are, and that none is amiss."""

from __future__ import annotations

import pytest

from dflow import Context, Graph, edge, node
from stress.conftest import Keep
from stress.histogram import Histogram
from stress.ledger import Verdict
from stress.nodes import Checked, Timed, numbered_now, paced, run_checked

MS = 1_000_000
EVENTS_PER_S = 10_000
SHORT_S = 3
LONG_S = 300
P99_MS = 500
BUSY_MACHINE = 4
"""How much later messages may be in the short form, on a machine that others use, too."""

PRODUCERS = 8
CONSUMERS = 8
WINDOW = 64


@node
def consume(message: tuple[str, int, int], ctx: Context) -> tuple[str, int, int, int]:
    """Pass a message on, with who it was."""
    return *message, ctx.replica


def test_10_000_events_a_second_through_3_consumers(
    scale: int, long_form: bool, keep: Keep
) -> None:
    seconds = LONG_S if long_form else SHORT_S * scale
    count = EVENTS_PER_S * seconds
    consumers, timed = consume().options(replicas=3), Timed()
    graph = Graph("steady", paced("s", count, EVENTS_PER_S) >> consumers >> timed)
    checked = run_checked(graph, timed)
    ages = ages_of_all(checked, {"s": count})
    wall_s = round(checked.report.wall_s, 1)
    keep({"age at the end": ages}, wall_s=wall_s, peaks_mb=checked.peaks_mb)
    assert ages.percentile_ns(99) < P99_MS * MS * (1 if long_form else BUSY_MACHINE)


@pytest.mark.parametrize("keyed", [False, True], ids=["shared out", "by key"])
def test_many_producers_to_many_consumers_flat_out(keyed: bool, scale: int, keep: Keep) -> None:
    count = 4_000 * scale
    names = [f"p{number}" for number in range(PRODUCERS)]
    producers = [numbered_now(name, count).options(name=name) for name in names]
    consumers, timed = consume().options(replicas=CONSUMERS), Timed()
    narrow = edge(capacity=WINDOW, key=origin if keyed else None)
    graph = Graph("crowd", producers >> narrow >> consumers >> edge(capacity=WINDOW) >> timed)
    checked = run_checked(graph, timed)
    ages = ages_of_all(checked, dict.fromkeys(names, count))
    per_s = round(PRODUCERS * count / checked.report.wall_s)
    keep({"age at the end": ages}, per_s=per_s, peaks_mb=checked.peaks_mb)


def origin(message: tuple[str, int, int]) -> str:
    """Return whose message it is."""
    return message[0]


def ages_of_all(checked: Checked, sent: dict[str, int]) -> Histogram:
    """Return the ages; fail if a message is lost, repeated, or later than one behind it."""
    verdict, kept = checked.result
    assert verdict == Verdict(sent)
    ages = Histogram.from_dict(kept)
    assert (ages.count, ages.early) == (sum(sent.values()), 0)
    return ages
