"""Options: what is accepted, and what the error says about the rest."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from dflow.errors import DflowError, OptionError
from dflow.message import Priority
from dflow.options import (
    DEFAULT_CAPACITY,
    DEFAULT_MAX_BYTES,
    MAX_CAPACITY,
    MAX_CONCURRENCY,
    MAX_REPLICAS,
    MAX_SLOTS,
    EdgeOptions,
    NodeOptions,
    RunOptions,
    parse_bytes,
)
from dflow.policy import block, coalesce, latest


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, 1),
        (64_000_000, 64_000_000),
        ("512", 512),
        ("10B", 10),
        ("64MB", 64_000_000),
        (" 64 mib ", 64 * 2**20),
        ("1.5KiB", 1536),
        ("2 GB", 2 * 10**9),
    ],
)
def test_sizes_are_whole_bytes_or_text_with_a_unit(given: int | str, expected: int) -> None:
    assert parse_bytes(given) == expected


@pytest.mark.parametrize("given", [0, -5, "0MB", "0.1B", "-3MB", "5 bananas", "", 1.5, None, True])
def test_a_wrong_size_is_refused_and_shown(given: Any) -> None:
    with pytest.raises(OptionError, match=r"max_bytes: expected .*, got") as caught:
        parse_bytes(given)
    assert repr(given) in str(caught.value)


def test_a_size_error_names_what_it_is_about() -> None:
    with pytest.raises(OptionError, match=r"^camera\.frames: expected"):
        parse_bytes("lots", "camera.frames")


@pytest.mark.parametrize(("given", "size"), [(0, 0), ("0", 0), ("0GB", 0), ("1 MB", 10**6)])
def test_shared_memory_may_be_none_at_all(given: int | str, size: int) -> None:
    assert RunOptions(shm_bytes=given).shm_bytes == size  # type: ignore[arg-type]  # text is allowed


@pytest.mark.parametrize("given", [False, True, -1, "-1", "none", 1.5, None])
def test_shared_memory_is_bytes(given: Any) -> None:
    with pytest.raises(OptionError, match="shm_bytes: expected"):
        RunOptions(shm_bytes=given)


def test_option_errors_are_value_errors_and_dflow_errors() -> None:
    assert issubclass(OptionError, ValueError)
    assert issubclass(OptionError, DflowError)


GOOD: list[tuple[type[Any], dict[str, Any]]] = [
    (NodeOptions, {}),
    (NodeOptions, {"replicas": MAX_REPLICAS, "concurrency": MAX_CONCURRENCY, "tick_s": 0.001}),
    (NodeOptions, {"spin_s": 0}),
    (NodeOptions, {"spin_s": 0.0005}),
    (NodeOptions, {"name": "x", "tick_s": 5, "on_error": "stop"}),
    (NodeOptions, {"ordered": True, "max_in_flight_per_key": MAX_CONCURRENCY, "niceness": 19}),
    (NodeOptions, {"priority": Priority.LOW, "max_in_flight_per_key": 1, "niceness": 0}),
    (EdgeOptions, {"policy": latest(), "ttl_s": 0.001, "cancellable": True}),
    (EdgeOptions, {"policy": coalesce(max), "ttl_s": 3600}),
    (RunOptions, {"slots": 0}),
    (RunOptions, {"slots": MAX_SLOTS}),
    (EdgeOptions, {"capacity": MAX_CAPACITY, "max_bytes": 1}),
    (EdgeOptions, {"capacity": 1, "key": "user", "priority": Priority.CONTROL}),
    (EdgeOptions, {"key": len}),
    (RunOptions, {"drain_timeout_s": 0, "transport": "tcp", "start_method": "spawn"}),
    (RunOptions, {"log": "json", "log_level": "DEBUG", "check_types": True}),
]


@pytest.mark.parametrize(("kind", "values"), GOOD)
def test_legal_options_are_kept(kind: type[Any], values: dict[str, Any]) -> None:
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize(
    ("given", "kept"),
    [(3, (3,)), (0, (0,)), ([1, 0, 1], (0, 1)), ({2, 1}, (1, 2)), (range(3), (0, 1, 2))],
)
def test_cpus_are_a_number_or_several(given: Any, kept: tuple[int, ...]) -> None:
    assert NodeOptions(affinity=given).affinity == kept


def test_an_edge_blocks_unless_it_is_told_otherwise() -> None:
    assert EdgeOptions().overflow == EdgeOptions().policy == block()
    assert (EdgeOptions().ttl_s, EdgeOptions().cancellable) == (None, False)


BAD: list[tuple[type[Any], str, Any]] = [
    (NodeOptions, "name", 7),
    (NodeOptions, "replicas", 0),
    (NodeOptions, "replicas", MAX_REPLICAS + 1),
    (NodeOptions, "replicas", True),
    (NodeOptions, "replicas", 2.0),
    (NodeOptions, "concurrency", 0),
    (NodeOptions, "concurrency", MAX_CONCURRENCY + 1),
    (NodeOptions, "spin_s", -0.001),
    (NodeOptions, "spin_s", math.inf),
    (NodeOptions, "spin_s", None),
    (NodeOptions, "spin_s", "1ms"),
    (NodeOptions, "tick_s", 0),
    (NodeOptions, "tick_s", -1.0),
    (NodeOptions, "tick_s", math.nan),
    (NodeOptions, "tick_s", math.inf),
    (NodeOptions, "tick_s", "1s"),
    (NodeOptions, "tick_s", True),
    (NodeOptions, "on_error", "ignore"),
    (NodeOptions, "ordered", 1),
    (NodeOptions, "ordered", None),
    (NodeOptions, "max_in_flight_per_key", 0),
    (NodeOptions, "max_in_flight_per_key", MAX_CONCURRENCY + 1),
    (NodeOptions, "max_in_flight_per_key", True),
    (NodeOptions, "priority", 0),
    (NodeOptions, "priority", "HIGH"),
    (NodeOptions, "affinity", -1),
    (NodeOptions, "affinity", []),
    (NodeOptions, "affinity", "0-3"),
    (NodeOptions, "affinity", [0, True]),
    (NodeOptions, "affinity", [0.0]),
    (NodeOptions, "niceness", -1),
    (NodeOptions, "niceness", 20),
    (EdgeOptions, "policy", "drop_everything"),
    (EdgeOptions, "ttl_s", 0),
    (EdgeOptions, "ttl_s", math.inf),
    (EdgeOptions, "ttl_s", "1s"),
    (EdgeOptions, "cancellable", 1),
    (RunOptions, "slots", -1),
    (RunOptions, "slots", MAX_SLOTS + 1),
    (RunOptions, "slots", True),
    (EdgeOptions, "capacity", 0),
    (EdgeOptions, "capacity", MAX_CAPACITY + 1),
    (EdgeOptions, "capacity", "10"),
    (EdgeOptions, "max_bytes", 0),
    (EdgeOptions, "max_bytes", "many"),
    (EdgeOptions, "key", 3),
    (EdgeOptions, "priority", 1),
    (EdgeOptions, "priority", "HIGH"),
    (RunOptions, "transport", "carrier pigeon"),
    (RunOptions, "start_method", "forkserver"),
    (RunOptions, "drain_timeout_s", -1),
    (RunOptions, "drain_timeout_s", None),
    (RunOptions, "start_timeout_s", 0),
    (RunOptions, "stats_interval_s", 0),
    (RunOptions, "log", "xml"),
    (RunOptions, "log_level", "LOUD"),
    (RunOptions, "check_types", 1),
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_an_illegal_option_is_refused_by_name_and_shown(
    kind: type[Any], name: str, value: Any
) -> None:
    with pytest.raises(OptionError, match=f"^{name}: expected .*, got") as caught:
        kind(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("options", [NodeOptions(), EdgeOptions(), RunOptions()])
def test_options_are_frozen(options: Any) -> None:
    for field in dataclasses.fields(options):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(options, field.name, None)


def test_updates_make_a_copy_and_are_checked() -> None:
    first = NodeOptions(name="a", replicas=2)
    second = first.updated({"replicas": 3})
    assert (first.replicas, second.replicas, second.name) == (2, 3, "a")


@pytest.mark.parametrize(
    ("options", "wrong", "text"),
    [
        (NodeOptions(), {"replicas": 0}, "options(): replicas: expected"),
        (EdgeOptions(), {"capacity": "8"}, "edge(): capacity: expected"),
        (RunOptions(), {"transport": "x"}, "run(): transport: expected"),
    ],
)
def test_an_illegal_update_says_where_it_was_given(
    options: Any, wrong: dict[str, Any], text: str
) -> None:
    with pytest.raises(OptionError) as caught:
        options.updated(wrong)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("options", "typo", "meant", "where"),
    [
        (NodeOptions(), "replica", "replicas", "options()"),
        (EdgeOptions(), "capacities", "capacity", "edge()"),
        (RunOptions(), "drain_timeout", "drain_timeout_s", "run()"),
    ],
)
def test_an_unknown_option_is_answered_with_a_near_one(
    options: Any, typo: str, meant: str, where: str
) -> None:
    with pytest.raises(OptionError) as caught:
        options.updated({typo: 1})
    text = str(caught.value)
    assert text.startswith(f"{where}: unknown option '{typo}'; did you mean '{meant}'?")
    assert all(field.name in text for field in dataclasses.fields(options))


def test_edges_are_bounded_by_default() -> None:
    assert (EdgeOptions().capacity, EdgeOptions().max_bytes) == (2048, 64 * 2**20)
    assert (DEFAULT_CAPACITY, DEFAULT_MAX_BYTES) == (2048, 64 * 2**20)


@pytest.mark.parametrize(
    ("name", "least"), [("drain_timeout_s", ">= 0"), ("start_timeout_s", "> 0")]
)
def test_a_wrong_number_of_seconds_is_told_the_least_there_may_be(name: str, least: str) -> None:
    with pytest.raises(OptionError, match=f"{name}: expected seconds {least}, got -1"):
        RunOptions().updated({name: -1})
