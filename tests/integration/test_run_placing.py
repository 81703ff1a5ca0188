"""Where workers compute: CPU affinity and niceness as options of a node."""

from __future__ import annotations

import os
import sys

import pytest

from dflow import Graph, StartError, node
from tests.integration.flows import collect, count

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(sys.platform != "linux", reason="what Linux does"),
]


@node
def where_am_i(x: int) -> list[list[int]]:
    """Return the CPUs of every thread here, and this thread's niceness."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    cpus = {cpu for thread in threads for cpu in os.sched_getaffinity(thread)}
    return [sorted(cpus), [os.getpriority(os.PRIO_PROCESS, 0)]]


def test_a_worker_keeps_to_its_cpus_and_its_niceness() -> None:
    cpu = min(os.sched_getaffinity(0))
    asked = where_am_i().options(affinity=[cpu], niceness=7)
    ((cpus, (niceness,)),), _ = collect(Graph("g", count(1) >> asked), asked)
    assert (cpus, niceness) == ([cpu], 7)


def test_nodes_that_spin_do_all_their_work_and_end() -> None:
    spinning = where_am_i().options(spin_s=3600, replicas=2)
    found, report = collect(Graph("g", count(500) >> spinning), spinning)
    assert len(found) == 500
    assert report.balances


def test_a_cpu_that_is_not_there_keeps_the_run_from_starting() -> None:
    asked = where_am_i().options(affinity=[4095])
    with pytest.raises(StartError, match=r"where_am_i\[0\].*affinity: expected CPUs .*, got 4095"):
        collect(Graph("g", count(1) >> asked), asked)
