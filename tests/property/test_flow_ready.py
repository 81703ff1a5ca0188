"""The ready-queue: bands by weight, fair within a band, nobody twice, nobody forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dflow.flow.in_edge import InChannel
from dflow.flow.ready import ReadyQueue
from dflow.message import Priority
from dflow.wire.frames import pack_batch, parse


def channel(number: int, band: Priority, messages: int) -> InChannel:
    """Return a channel with ``messages`` batches of one message in its inbox."""
    made = InChannel(number, f"a.out->b.in{number}", "in", band, 64, 1 << 16, 1)
    for sequence in range(messages):
        made.accept(parse(pack_batch(number, 1, sequence, [b"\x01"], 0)))
    return made


loads = st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 12)), min_size=1, max_size=8)


@given(loads)
def test_every_message_is_served_and_the_first_is_of_the_highest_band(
    load: list[tuple[Priority, int]],
) -> None:
    channels = [channel(i, band, count) for i, (band, count) in enumerate(load)]
    queue = ReadyQueue()
    for one in channels:
        queue.push(one)
        queue.push(one)  # a channel stands in the queue once
    served: list[InChannel] = []
    while (one_ready := queue.pop()) is not None:
        served.append(one_ready)
        one_ready.take(1)
        queue.push(one_ready)
    if served:
        assert served[0].priority == min(one.priority for one in served)
    assert [served.count(one) for one in channels] == [count for _, count in load]


@given(loads)
def test_within_a_band_no_channel_waits_longer_than_one_round(
    load: list[tuple[Priority, int]],
) -> None:
    channels = [channel(i, band, count) for i, (band, count) in enumerate(load)]
    queue = ReadyQueue()
    for one in channels:
        queue.push(one)
    last: dict[int, int] = {}
    band_turn = dict.fromkeys(Priority, 0)
    while (one_ready := queue.pop()) is not None:
        band = one_ready.priority
        peers = sum(1 for other in channels if other.priority is band)
        waited = band_turn[band] - last.get(one_ready.number, -1)
        assert waited <= peers
        last[one_ready.number] = band_turn[band]
        band_turn[band] += 1
        one_ready.take(1)
        queue.push(one_ready)


@given(loads)
def test_only_control_leaves_data_where_it_is(load: list[tuple[Priority, int]]) -> None:
    channels = [channel(i, band, count) for i, (band, count) in enumerate(load)]
    queue = ReadyQueue()
    for one in channels:
        queue.push(one)
    control = [c for c in channels if c.priority is Priority.CONTROL and c.inbox]
    assert queue.waiting(only_control=True) == bool(control)
    served = []
    while (one_ready := queue.pop(only_control=True)) is not None:
        served.append(one_ready)
    assert served == control
    assert queue.waiting() == any(c.inbox for c in channels if c not in control)
