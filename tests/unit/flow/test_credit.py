"""Both ends of a credit window: what may be sent, what is reported, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.errors import ProtocolError
from dflow.flow.credit import ReceiveWindow, SendWindow


def test_sending_uses_up_both_windows_and_reports_give_back() -> None:
    window = SendWindow(4, 100)
    window.spend(3, 60)
    assert (window.room, window.room_bytes, window.idle) == (1, 40, False)
    assert window.report(2, 50, 0)
    assert (window.room, window.room_bytes) == (3, 90)
    assert window.report(3, 60, 3)
    assert window.idle


@pytest.mark.parametrize("report", [(1, 10, 0), (2, 20, 1), (0, 0, 0)])
def test_a_repeated_or_overtaken_report_changes_nothing(report: tuple[int, int, int]) -> None:
    window = SendWindow(4, 100)
    window.spend(3, 30)
    window.report(2, 20, 1)
    assert not window.report(*report)
    assert (window.taken, window.taken_bytes, window.done) == (2, 20, 1)


def test_done_alone_brings_no_credit_but_is_remembered() -> None:
    window = SendWindow(4, 100)
    window.spend(2, 20)
    window.report(2, 20, 0)
    assert not window.report(2, 20, 2)
    assert window.done == 2


@pytest.mark.parametrize("report", [(4, 30, 0), (3, 31, 0), (2, 20, 3)])
def test_an_impossible_report_is_refused_and_changes_nothing(report: tuple[int, int, int]) -> None:
    window = SendWindow(8, 100)
    window.spend(3, 30)
    with pytest.raises(ProtocolError, match="expected taken <= 3 messages / 30 bytes"):
        window.report(*report)
    assert (window.taken, window.taken_bytes, window.done) == (0, 0, 0)


def test_a_message_larger_than_the_window_leaves_negative_room() -> None:
    window = SendWindow(4, 10)
    window.spend(1, 25)
    assert window.room_bytes == -15


def test_a_prompt_receiver_reports_when_it_has_taken_half_of_what_it_was_sent() -> None:
    window = ReceiveWindow(1000, 1000, "prompt")
    assert not window.due(idle=False)
    window.receive(0, 5, 5)
    due = []
    for _ in range(5):
        window.taken += 1
        due.append(window.due(idle=False))
        if due[-1]:
            window.report()
    assert due == [False, False, True, True, True]
    window.receive(5, 900, 0)
    window.taken += 449
    assert not window.due(idle=False)
    window.taken += 1
    assert window.due(idle=False)


def test_a_gap_or_a_repetition_is_refused() -> None:
    window = ReceiveWindow(8, 100)
    window.receive(0, 3, 30)
    for sequence in (0, 2, 4):
        with pytest.raises(ProtocolError, match=f"expected sequence 3, got {sequence}"):
            window.receive(sequence, 1, 1)
    assert window.received == 3


def test_more_messages_than_the_capacity_are_refused() -> None:
    window = ReceiveWindow(4, 100)
    window.receive(0, 3, 3)
    with pytest.raises(ProtocolError, match=r"at most 1 messages \(capacity 4\), got 2"):
        window.receive(3, 2, 2)
    window.taken = 1
    window.receive(3, 2, 2)
    assert window.received == 5


def test_a_report_is_due_at_half_a_window_of_messages_or_of_bytes() -> None:
    window = ReceiveWindow(4, 100)
    window.receive(0, 4, 90)
    window.taken = 1
    assert not window.due(idle=False)
    window.taken = 2
    assert window.due(idle=False)
    window.report()
    assert not window.due(idle=False)
    window.taken_bytes = 50
    assert window.due(idle=False)


def test_an_idle_receiver_owes_every_taken_and_every_done_message() -> None:
    window = ReceiveWindow(1000, 1000)
    assert not window.due(idle=True)
    window.receive(0, 1, 5)
    window.taken, window.taken_bytes = 1, 5
    assert window.due(idle=True)
    assert window.report() == (1, 5, 0, ())
    assert not window.due(idle=True)
    window.done = 1
    assert not window.due(idle=False)
    assert window.due(idle=True)
    assert window.report() == (1, 5, 1, ())


def test_an_eager_receiver_owes_a_report_for_each_message() -> None:
    window = ReceiveWindow(8, 1000, "eager")
    window.receive(0, 4, 4)
    due = [window.due(idle=False)]
    window.taken = 1
    due.append(window.due(idle=False))
    window.report()
    due.append(window.due(idle=False))
    window.done = 1
    due.append(window.due(idle=False))
    assert due == [False, True, False, True]


def test_a_ready_receiver_asks_for_more_only_when_something_is_done() -> None:
    window = ReceiveWindow(2, 1000, "ready")
    window.receive(0, 2, 2)
    window.taken = 2
    assert not window.due(idle=True)
    window.finish(1)
    assert window.due(idle=False)
    assert window.report() == (1, 0, 0, (1,))
    window.finish(0)
    assert window.report() == (2, 0, 2, ())
    assert not window.due(idle=True)


@given(st.permutations(range(8)))
def test_what_is_done_in_any_order_is_done_in_the_end(order: list[int]) -> None:
    window = ReceiveWindow(8, 1000, "ready")
    window.receive(0, 8, 8)
    window.taken = 8
    seen: set[int] = set()
    for sequence in order:
        window.finish(sequence)
        seen.add(sequence)
        taken, _, done, beyond = window.report()
        assert {*range(done), *beyond} == seen
        assert taken == len(seen)
    assert (window.done, window.beyond) == (8, set())
