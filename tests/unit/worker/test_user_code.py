"""The door to user code, when an interrupt comes just there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from dflow.worker.faults import Interrupted
from dflow.worker.main import _interrupter
from dflow.worker.pulse import INTERRUPT_SIGNAL, install_interrupt
from dflow.worker.user_code import UserCode


class Pulse:
    """Is always ready to interrupt; its signal comes in ``within``."""

    def __init__(self, within: str) -> None:
        self.within = within

    def take_interrupt(self) -> bool:
        return True

    def user_code_begins(self) -> None:
        if self.within == "begin":
            signal.raise_signal(INTERRUPT_SIGNAL)

    def user_code_ended(self) -> None:
        if self.within == "end":
            signal.raise_signal(INTERRUPT_SIGNAL)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (INTERRUPT_SIGNAL, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def door(within: str) -> tuple[UserCode, Any]:
    pulse: Any = Pulse(within)
    install_interrupt(_interrupter(pulse))
    plane = Mock()
    return UserCode(Mock(), Mock(), plane, pulse, Mock()), plane.lock


@pytest.mark.parametrize("within", ["begin", "end"])
def test_nothing_is_raised_on_the_way_in_or_out(within: str) -> None:
    code, lock = door(within)
    ran = False
    with code:
        ran = True
    assert ran
    assert lock.release.call_count == lock.acquire.call_count == 1


def test_user_code_itself_is_interrupted() -> None:
    code, lock = door("")
    ended = False
    with code:
        signal.raise_signal(INTERRUPT_SIGNAL)
        ended = True
    assert not ended
    assert lock.release.call_count == lock.acquire.call_count == 1
    with pytest.raises(Interrupted):
        signal.raise_signal(INTERRUPT_SIGNAL)


def test_a_hook_is_looked_up_once_however_often_it_is_called() -> None:
    """To ask for its signature costs more than a tick."""
    node, called = Mock(), Mock()
    node.hook.return_value = called
    code = UserCode(node, Mock(), Mock(), Mock(), Mock())
    code._now = lambda: 0
    for _ in range(3):
        assert code.hook("on_tick", lambda results: None) is None
    assert called.call_count == 3
    assert node.hook.call_count == 1
