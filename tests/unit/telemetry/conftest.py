"""What every test of logs shares: this process plays another, and is itself again afterwards."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
from loguru import logger

from dflow.telemetry import logs


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Play a process of dflow's own, and put everything back."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    root = logging.getLogger()
    level, renderer = root.level, logs._render
    yield
    logger.remove()
    logger.configure(extra={}, patcher=lambda record: None)
    logger.add(sys.stderr)
    for handler in [each for each in root.handlers if isinstance(each, logs._Intercept)]:
        root.removeHandler(handler)
    root.setLevel(level)
    logs._render = renderer
