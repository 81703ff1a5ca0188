"""Whatever a peer sends: a value or a typed error, soon, for little memory; books stay right.

The targets and their promise are those of the coverage-guided fuzzer (`tests.fuzz`,
``scripts/fuzz``); here each gets a short time in every run of CI, and all that was ever found.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dflow.errors import ProtocolError
from tests.fuzz import mutations
from tests.fuzz.peers import ME, _inbound_seeds, _Receiver
from tests.fuzz.promise import BrokenPromise, Target, check, spelled_bytes
from tests.fuzz.targets import TARGETS, pins, read

BATCH = 5
"""Mutations an example: most of what an example costs is Hypothesis. One, if it is a script."""


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """Weigh what the targets take."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """Return a target by its name; skip it where what it needs is not installed."""
    found = TARGETS[request.param]
    if found.missing:
        pytest.skip(f"needs {', '.join(found.missing)}")
    return found


@cache
def seeds_of(name: str) -> list[bytes]:
    """Return the valid inputs of a target."""
    return TARGETS[name].seeds()


every_target = pytest.mark.parametrize("target", sorted(TARGETS), indirect=True)


@every_target
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**64 - 1), data=st.binary(max_size=200))
def test_any_input_is_a_value_or_a_typed_error(target: Target, seed: int, data: bytes) -> None:
    rng, seeds = Random(seed), seeds_of(target.name)
    check(target, data)
    for _ in range(1 if target.script else BATCH):
        check(target, mutations.mutated(seeds, rng, script=target.script))


@every_target
def test_valid_input_and_bombs_keep_the_promise(target: Target) -> None:
    bombs = mutations.bombs()
    if target.script:
        each = [(number % 32, bomb[:0xFFFF]) for number, bomb in enumerate(bombs)]
        bombs = [mutations.pack(each[at : at + 20]) for at in range(0, len(each), 20)]
    for data in [*seeds_of(target.name), *bombs]:
        check(target, data)


@pytest.mark.parametrize(
    ("target", "path"), [pytest.param(name, p, id=f"{name}-{p.stem}") for name, p in pins()],
    indirect=["target"],
)  # fmt: skip
def test_what_was_found_once_stays_fixed(target: Target, path: Path) -> None:
    check(target, read(path))


# --- the check itself must be able to fail ------------------------------------------------------


def _broken(run: object, data: bytes = b"\x91", **kind: object) -> str:
    target = Target("mine", run, list, (ProtocolError,), **kind)  # type: ignore[arg-type]
    with pytest.raises(BrokenPromise) as caught:
        check(target, data)
    return str(caught.value)


def test_another_error_breaks_the_promise_and_says_how_to_see_it_again() -> None:
    said = _broken(lambda data: data[5])
    assert "expected a value or ProtocolError, got IndexError" in said
    assert "python -m tests.fuzz --target mine --base64 kQ==" in said


def test_memory_for_what_is_only_claimed_breaks_the_promise() -> None:
    assert "bytes of memory, got" in _broken(lambda data: bytearray(1 << 20))
    check(Target("mine", lambda data: None, list, ()), b"")


def test_a_hang_breaks_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.promise.HANG_S", 0.05)

    def hang(data: bytes) -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:  # noqa: BLE001  # decoders do that
                continue

    assert "hangs" in _broken(hang)


def test_lists_that_are_spelled_out_may_weigh_what_python_takes_for_them() -> None:
    assert spelled_bytes(b"\x90" * 100) == 9600
    assert spelled_bytes(b"abc\x00\xff") == 0
    kept: list[list[object]] = []

    def decode(data: bytes) -> None:
        kept.extend([] for _ in data)

    check(Target("mine", decode, list, (), 1000, values=True), b"\x90" * 10_000)


@pytest.mark.parametrize("who", sorted(ME))
def test_the_scripts_are_what_well_behaved_peers_say(who: str) -> None:
    receiver = _Receiver(ME[who])
    receiver.play(_inbound_seeds(who)[0])
    assert (receiver.violations, receiver.inbound.strangers, receiver.node.open) == ([], 0, 0)
    assert {channel.window.done for channel in receiver.node.channels} == {3}


def test_a_script_comes_back_from_its_bytes() -> None:
    chunks = [(0, b""), (255, b"x" * 300), (7, b"abc")]
    assert mutations.unpack(mutations.pack(chunks)) == chunks
    assert mutations.unpack(mutations.pack(chunks)[:-2])[-1] == (7, b"a")


def test_a_mutation_is_a_function_of_its_seed() -> None:
    seeds = TARGETS["control"].seeds()
    many = [[mutations.mutated(seeds, Random(n)) for n in range(50)] for _ in range(2)]
    assert many[0] == many[1]
    assert len(set(many[0])) > 40
