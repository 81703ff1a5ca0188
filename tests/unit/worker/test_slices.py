"""Short slices: asked for where the kernel knows them, and nothing else is changed."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from dflow.worker import slices
from tests.unit.worker.test_placing import in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what Linux does")


def test_niceness_stays_as_it_was_with_every_thread() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    nicer = before + 5

    def code() -> tuple[int, int]:
        go_on = threading.Event()
        started = threading.Event()

        def wait() -> None:
            started.set()
            go_on.wait()

        other = threading.Thread(target=wait)
        other.start()
        started.wait()
        os.setpriority(os.PRIO_PROCESS, 0, nicer)
        slices.be_prompt()
        assert other.native_id is not None
        seen = [os.getpriority(os.PRIO_PROCESS, t) for t in (0, other.native_id)]
        go_on.set()
        other.join()
        return seen[0], seen[1]

    assert in_child(code) == (nicer, before)


def test_policy_that_the_user_chose_is_kept() -> None:
    def code() -> int:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # as `chrt --batch 0` does
        slices.be_prompt()
        return os.sched_getscheduler(0)

    assert in_child(code) == os.SCHED_BATCH


def test_an_unknown_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("it was called"))
    slices.be_prompt()
