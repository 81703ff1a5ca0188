"""Fixtures for every test: isolation, the leak check, and a Hypothesis seed one can repeat."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import bundles, support

_LEAK_DEADLINE_S = 5.0

hypothesis.settings.register_profile("dflow", deadline=None, print_blob=True)
hypothesis.settings.load_profile("dflow")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Isolate the session and choose the Hypothesis seed, before any plugin reads either."""
    outside = tempfile.gettempdir()
    config.stash[_SESSION] = support.isolate()
    config.stash[_OUTSIDE] = outside
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))
    bundles.install(config)


_SESSION = pytest.StashKey[Path]()
_OUTSIDE = pytest.StashKey[str]()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's temp directory."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        shutil.rmtree(session, ignore_errors=True)
        tempfile.tempdir = config.stash[_OUTSIDE]


def pytest_report_header(config: pytest.Config) -> str:
    """Print how to repeat the property tests of this session."""
    return f"repeat property tests with: --hypothesis-seed={config.option.hypothesis_seed}"


@pytest.fixture(autouse=True)
def leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an integration test that leaves anything of a run behind.

    Looks for processes (orphans too), zombies, run directories and anything else in the temp
    directory, shared memory and dflow's threads. Things may take a moment to go, so the check
    waits for them to, up to a deadline.
    """
    if "integration" not in request.path.parts:
        yield
        return
    before = support.leftovers()
    yield

    def remaining() -> dict[str, list[str]]:
        now = support.leftovers()
        return {kind: sorted(now[kind] - before[kind]) for kind in now if now[kind] - before[kind]}

    try:
        support.eventually(lambda: not remaining(), within_s=_LEAK_DEADLINE_S)
    except AssertionError:
        left = remaining()
        if left:
            pytest.fail(f"left behind {_LEAK_DEADLINE_S} s after the test: {left}", pytrace=False)
