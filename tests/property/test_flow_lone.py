"""A message that is alone in its lane is cut as any other, only in fewer steps."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dflow.flow.batch import MAX_BATCH_BYTES, Lane
from dflow.flow.credit import SendWindow

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from([0, 1, 7, 40, MAX_BATCH_BYTES + 1])),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("take"), st.integers(1, 3)),
    ),
    max_size=40,
)


class Careful(Lane):
    """A lane that knows no short cut."""

    def _cut_lone(self, now: int) -> None:
        return None


def seen(lane: Lane) -> list[Any]:
    """Return all of a lane that others look at."""
    (window,) = lane.windows
    return [
        lane.waiting, lane.offered, lane.flushed, lane.flushed_bytes, lane.queued_bytes, lane.peak,
        lane.full, lane.mark, lane.byte_mark, lane.oldest(), window.sent, window.sent_bytes,
    ]  # fmt: skip


@given(st.integers(1, 5), st.sampled_from([1, 50, 1 << 20]), STEPS)
def test_a_lone_message_is_cut_as_any_other(
    capacity: int, max_bytes: int, steps: list[tuple[str, int]]
) -> None:
    lanes = [kind([SendWindow(capacity, max_bytes)]) for kind in (Lane, Careful)]
    for now, (what, size) in enumerate(steps):
        results: list[Any] = []
        for lane in lanes:
            (window,) = lane.windows
            if what == "push":
                results.append(lane.push(b"x" * size))
            elif what == "cut":
                results.append(lane.cut(now))
            else:
                taken = min(window.sent, window.taken + size)
                size_bytes = window.sent_bytes if taken == window.sent else window.taken_bytes
                window.report(taken, size_bytes, taken)
                lane.update()
        assert results[:1] == results[1:]
        assert seen(lanes[0]) == seen(lanes[1])
