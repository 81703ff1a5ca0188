"""The smallest graph: numbers are squared in two processes and printed by a third.

    python examples/hello.py
    dflow run examples/hello.py:graph

Squares may come out of order: two replicas work at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator

from dflow import Graph, node, sink, source


@source
def numbers(n: int) -> Iterator[int]:
    """Yield 0, 1, 2 … ``n - 1``; ``n`` is configuration, given when the graph is built."""
    yield from range(n)


@node
def square(x: int) -> int:
    """Return the square; the first parameter is the message."""
    return x * x


@sink
def show(x: int) -> None:
    """Print what arrives."""
    print(x, flush=True)


graph = Graph("squares", numbers(10) >> square().options(replicas=2) >> show())

if __name__ == "__main__":
    print(graph.run())  # blocks until everything has arrived; prints the run report
