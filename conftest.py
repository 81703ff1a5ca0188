"""What every test of every folder shares: the quarantine."""

from __future__ import annotations

import pytest

from tests import quarantine


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    quarantine.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", quarantine.MARK)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is in quarantine."""
    quarantine.keep_apart(items, quarantined=config.getoption("--quarantined"))
