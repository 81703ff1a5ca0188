"""The side without metrics of `benchmarks.metrics` is dflow, less what serves only an onlooker."""

from __future__ import annotations

import pytest

from benchmarks.metrics import cuts, without
from dflow.flow.batch import Lane
from dflow.flow.credit import SendWindow


class Uncounted(Lane):
    """A lane as the benchmark has it."""

    __slots__ = ()


def lane(kind: type[Lane]) -> Lane:
    """Return a lane with 3 messages in it and credit for 2."""
    made = kind((SendWindow(2, 1000),))
    for payload in (b"a", b"b", b"c"):
        made.push(payload)
    return made


def test_what_is_taken_out_is_still_there_to_take_out() -> None:
    assert [(owner.__name__, name) for owner, name, _ in cuts()] == [
        ("Lane", "cut"),
        ("Lane", "_cut_lone"),
        ("Lane", "_cut_for"),
        ("Turns", "measured"),
    ]


def test_without_metrics_the_same_batches_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name, method in cuts():
        if owner is Lane:
            monkeypatch.setattr(Uncounted, name, method, raising=False)
    counted, uncounted = lane(Lane), lane(Uncounted)
    assert counted.cut(5) == uncounted.cut(5) == [(0, [b"a", b"b"], 0)]
    assert (counted.peak, uncounted.peak) == (3, 0)
    assert (counted.oldest(), uncounted.oldest()) == (5, None)
    assert counted.offered == uncounted.offered == 3


def test_what_has_changed_in_dflow_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="it has changed"):
        without(Lane.cut, "self.nothing =")
