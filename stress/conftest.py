"""Marks every test here ``stress``, stretches its time limit, checks for orphans, keeps figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stress.histogram import Histogram
from tests import bundles
from tests.support import eventually

_HERE = Path(__file__).parent
_KEPT = _HERE.parent / ".stress"
_LIMIT_S = 60
_LONG = 20

Keep = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    bundles.install(config)
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


@pytest.fixture
def long_form() -> bool:
    """Whether bars on time are the real ones: nothing else runs beside a long form."""
    return _scale() >= _LONG


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Keep:
    """Print ages and figures of this test, and keep them as ``.stress/<test>.json``."""

    def keep_ages(ages: dict[str, Histogram], **figures: Any) -> None:
        for name, one in ages.items():
            print(f"{name}: {one}")
        plain = {name: value for name, value in figures.items() if not isinstance(value, dict)}
        print(", ".join(f"{name} {value}" for name, value in plain.items()))
        _KEPT.mkdir(exist_ok=True)
        told = {"scale": _scale(), **figures, "ages": {n: h.to_dict() for n, h in ages.items()}}
        path = _KEPT / f"{request.node.name.replace('/', ' ')}.json"
        path.write_text(f"{json.dumps(told)}\n", encoding="utf-8")

    return keep_ages


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
