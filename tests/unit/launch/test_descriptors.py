"""Large runs get the descriptors they need, small ones leave the limit alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dflow.launch.descriptors import SPARE, descriptors_wanted
from dflow.transport.endpoint import close_context, context
from tests.unit.broker_pair import chain, make_plan

CODE = """
import resource, sys
from dflow.launch.descriptors import allow_descriptors
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(allow_descriptors(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "after"),
    [
        (200, 400, 150, "200 200 400"),  # enough as it is
        (200, 400, 300, "300 300 400"),
        (200, 400, 900, "400 400 400"),  # as many as there are
    ],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed(
    soft: int, hard: int, wanted: int, after: str
) -> None:
    asked = [sys.executable, "-c", CODE, str(soft), str(hard), str(wanted)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == after


def test_small_runs_want_less_than_every_system_allows() -> None:
    assert descriptors_wanted(chain("a", "b", "c", b=8)) < 1024


def test_many_workers_and_many_channels_want_more() -> None:
    names = [f"n{i}" for i in range(1000)]
    wide = make_plan([("a", name) for name in names])
    assert descriptors_wanted(wide) >= SPARE + 3 * len(wide.workers)
    full = chain("a", "b", "c", a=30, b=200, c=30)
    assert descriptors_wanted(full) >= SPARE + 2 * 200


def test_a_process_may_send_on_more_channels_than_libzmq_allows_by_itself() -> None:
    import zmq

    sockets = [context().socket(zmq.DEALER) for _ in range(1100)]
    assert len(sockets) == 1100
    close_context()
