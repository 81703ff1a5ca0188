"""Tables and tensors through a graph: lent, forwarded, and of the type that was emitted."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dflow import Graph, node, source

ROWS = 50_000


def missing(name: str) -> Any:
    """Skip where a library is not installed, and say so."""
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")


def made(kind: str, number: int) -> Any:
    """Return a large value of a kind, full of a number."""
    library: Any = importlib.import_module(kind)
    if kind == "torch":
        return library.full((ROWS,), number)
    column = np.full(ROWS, number)
    if kind == "pandas":
        return library.DataFrame({"n": column, "text": ["x"] * ROWS})
    return library.table({"n": column})


def summed(value: Any) -> int:
    """Return the sum of the numbers of a value."""
    if type(value).__name__ == "Table":
        value = value["n"].to_pandas()
    elif type(value).__name__ == "DataFrame":
        value = value["n"]
    return int(value.sum())


@source
def values(kind: str, count: int) -> Iterator[Any]:
    """Yield large values."""
    for number in range(count):
        yield made(kind, number)


@node
def passed(value: Any) -> dict[str, Any]:
    """Pass a value on, inside of another."""
    return {"value": value, "kind": type(value).__name__}


@node
def looked_at(message: dict[str, Any]) -> tuple[str, int]:
    """Say what arrived."""
    value = message["value"]
    return type(value).__name__, summed(value)


@pytest.mark.parametrize("shm_bytes", ["100MB", 0])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param("pyarrow", "Table", marks=missing("pyarrow")),
        pytest.param("pandas", "DataFrame", marks=[missing("pandas"), missing("pyarrow")]),
        pytest.param("torch", "Tensor", marks=missing("torch")),
    ],
)
def test_large_values_arrive_over_two_hops(kind: str, name: str, shm_bytes: Any) -> None:
    count = 20
    look = looked_at()
    graph = Graph("tables", values(kind, count) >> passed() >> look)
    with graph.start(shm_bytes=shm_bytes, results=[look]) as run:
        got = list(run.results())
    assert got == [(name, number * ROWS) for number in range(count)]
