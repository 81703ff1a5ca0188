"""CPU affinity and niceness: kept for the whole process, or said why not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import Any

import pytest

from dflow.errors import StartError
from dflow.worker import placing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what Linux does")


def in_child(code: Callable[[], Any]) -> Any:
    """Return what ``code`` returns in a process of its own."""
    context = get_context("fork")
    queue: SimpleQueue[Any] = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(code()))
    child.start()
    result = queue.get()
    child.join()
    return result


def test_a_process_stays_on_its_cpus() -> None:
    cpu = min(os.sched_getaffinity(0))

    def code() -> Any:
        placing.stay_on([cpu], pytest.fail)
        return os.sched_getaffinity(0)

    assert in_child(code) == {cpu}


def test_a_cpu_this_process_may_not_use_is_an_error_before_anything_is_changed() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(StartError, match=r"expected CPUs this process may use .*, got 4095"):
        placing.stay_on([min(before), 4095], pytest.fail)
    assert os.sched_getaffinity(0) == before


def test_niceness_is_kept_and_what_the_kernel_refuses_is_a_warning() -> None:
    def code() -> Any:
        said: list[str] = []
        placing.be_nice(11, said.append)
        before = os.getpriority(os.PRIO_PROCESS, 0)
        if os.geteuid() == 0:
            os.setuid(65534)
        placing.be_nice(3, said.append)
        return before, os.getpriority(os.PRIO_PROCESS, 0), said

    before, after, said = in_child(code)
    assert (before, after) == (11, 11)
    assert said == ["niceness 3 was refused by the kernel: Permission denied"]


def test_elsewhere_both_only_say_that_they_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    said: list[str] = []
    placing.stay_on([4095], said.append)
    placing.be_nice(3, said.append)
    assert said == ["affinity is only kept on Linux", "niceness is only kept on Linux"]
