"""Marks every test here ``stress``, stretches its time limit, and checks for orphans."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import eventually

_HERE = Path(__file__).parent
_LIMIT_S = 60


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line("markers", "stress: heavy load; DFLOW_STRESS=N makes it N times longer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.stress)
            item.add_marker(pytest.mark.timeout(_LIMIT_S * _scale()))


def _scale() -> int:
    return max(1, int(os.environ.get("DFLOW_STRESS") or 1))


@pytest.fixture
def scale() -> int:
    """How many times longer than the short form."""
    return _scale()


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail a test whose run left a process behind."""
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    yield
    eventually(
        lambda: {child.pid for child in me.children(recursive=True)} <= before,
        what="no process left of the run",
    )
