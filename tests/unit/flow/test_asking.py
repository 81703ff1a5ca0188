"""When a sender asks its receiver how it stands."""

from __future__ import annotations

from dflow.flow.asking import FIRST_NS, MOST_NS, Doubt
from dflow.flow.credit import SendWindow


def sent(count: int) -> SendWindow:
    window = SendWindow(100, 1000)
    window.spend(count, 0)
    return window


def questions(doubt: Doubt, until_ns: int, *, ended: bool = False, begin: int = 0) -> list[int]:
    """Return when somebody who looks four times a second would ask."""
    step = FIRST_NS // 4
    return [now for now in range(begin, until_ns, step) if doubt.due(now, ended=ended)]


def test_nothing_is_asked_while_everything_sent_is_done() -> None:
    assert questions(Doubt(sent(0)), 100 * FIRST_NS) == []


def test_it_asks_after_a_second_without_news_and_then_less_and_less_often() -> None:
    asked = questions(Doubt(sent(1)), 200 * FIRST_NS)
    assert [at // FIRST_NS for at in asked] == [1, 3, 7, 15, 31, 63, 123, 183]
    assert asked[-1] - asked[-2] == MOST_NS


def test_news_begin_the_second_anew() -> None:
    window = sent(2)
    doubt = Doubt(window)
    assert questions(doubt, 2 * FIRST_NS) == [FIRST_NS]
    window.report(1, 0, 1)
    assert questions(doubt, 4 * FIRST_NS, begin=2 * FIRST_NS) == [3 * FIRST_NS]


def test_end_is_repeated_though_everything_is_done() -> None:
    assert questions(Doubt(sent(0)), 4 * FIRST_NS, ended=True) == [FIRST_NS, 3 * FIRST_NS]
