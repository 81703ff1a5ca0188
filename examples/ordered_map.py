"""An ordered parallel map: four replicas work at their own speed, results leave in order.

    python examples/ordered_map.py

Each page takes a different time to render. With four replicas they would be ready in another
order than they came in; ``ordered=True`` puts the results back in line, without waiting for more
than the page that is missing. Blank pages give no result, and that holds up nobody.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from dflow import Context, Graph, node, sink, source

PAGES = 24


class Picture(NamedTuple):
    """What was made of a page."""

    page: int
    replica: int
    work_s: float
    ready_s: float


@source
def pages() -> Iterator[int]:
    """Yield page numbers."""
    yield from range(PAGES)


@node
def render(page: int, ctx: Context) -> Picture | None:
    """Take 20 to 90 ms; return nothing for a blank page."""
    if page % 8 == 5:
        return None
    work_s = 0.02 + page * 37 % 8 * 0.01
    time.sleep(work_s)
    return Picture(page, ctx.replica, work_s, time.time())


@sink
def book(picture: Picture) -> None:
    """Print the pages as they come: in order."""
    waited_ms = (time.time() - picture.ready_s) * 1000
    print(
        f"page {picture.page:2d} by replica {picture.replica} in {picture.work_s * 1000:2.0f} ms,"
        f" waited {waited_ms:3.0f} ms for the pages before it",
        flush=True,
    )


rendering = render().options(replicas=4, ordered=True)
graph = Graph("book", pages() >> rendering >> book())


if __name__ == "__main__":
    report = graph.run()
    busy_s = report.node("render").busy_s
    print(f"\n{busy_s:.2f} s of work done in {report.wall_s:.2f} s\n\n{report}")
