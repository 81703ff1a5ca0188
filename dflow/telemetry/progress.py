"""Show a run while it goes on: a live table on a terminal, a line now and then in a pipe.

Both go to stderr, so that what the user's nodes print to stdout stays theirs. On a terminal the
table has to share the screen with the prints and logs of every process of the run. They
all pass through this process then: `Progress` puts streams without a file descriptor in the
place of ``sys.stdout`` and ``sys.stderr``, the launch sees that and carries the processes'
output into them, and they print it above the table. So enter `Progress` before the launch.

Time is the run's own (`RunStatus.uptime_s`); nothing here reads a clock.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from dflow.report import NodeStatus, RunStatus
from dflow.telemetry.choice import nodes_worth_showing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Progress"]

LINE_EVERY_S = 2.0
_RATE_OVER_S = 1.0
_BAR = 12
_MANY_NODES = 8
_MOST_ROWS = 40


class Progress:
    """A context manager around a run; give it every `RunStatus` by `update`.

    ``stream`` is where to show it: stderr if None. Never raises for a stream that is gone.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        terminal = self._stream is not None and self._stream.isatty()
        self._view: _Live | _Lines = _Live(self._stream) if terminal else _Lines(self._stream)

    def __enter__(self) -> Self:
        self._view.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._view.close()

    def update(self, status: RunStatus) -> None:
        """Show ``status``; cheap enough for a few times a second."""
        self._view.update(status)


@dataclass(frozen=True, slots=True)
class _Sample:
    uptime_s: float
    counts: dict[str, int]


class _Rates:
    """Messages per second by node, over about the last second."""

    def __init__(self) -> None:
        self._samples: list[_Sample] = []

    def update(self, status: RunStatus) -> dict[str, float]:
        """Take in ``status``; return each node's rate."""
        now = _Sample(status.uptime_s, {node.name: _work(node) for node in status.nodes})
        self._samples.append(now)
        while len(self._samples) > 2 and now.uptime_s - self._samples[1].uptime_s >= _RATE_OVER_S:
            self._samples.pop(0)
        then = self._samples[0]
        span = now.uptime_s - then.uptime_s
        if span <= 0:
            return dict.fromkeys(now.counts, 0.0)
        return {name: max(0, n - then.counts.get(name, 0)) / span for name, n in now.counts.items()}


def _work(node: NodeStatus) -> int:
    return node.emitted if node.kind == "source" else node.handled


# --- lines, in a pipe ---------------------------------------------------------------------


class _Lines:
    """One line when the phase changes and every few seconds while it does not."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._rates = _Rates()
        self._shown = ("", "")
        self._shown_s = 0.0

    def open(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to undo."""

    def update(self, status: RunStatus) -> None:
        """Print a line if one is due."""
        rates, missing = self._rates.update(status), _missing(status)
        due = not missing and status.uptime_s - self._shown_s >= LINE_EVERY_S
        if (status.phase, missing) == self._shown and not due:
            return
        self._shown, self._shown_s = (status.phase, missing), status.uptime_s
        line = (
            f"{status.graph}: {status.phase} {status.uptime_s:.1f} s; "
            f"{missing or _summary(status, rates)}"
        )
        if self._stream is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # the reader of the pipe has left
                self._stream = None


def _missing(status: RunStatus) -> str:
    """Return how many workers a run that waits for them has; empty when it does not."""
    steps = [step for node in status.nodes for step in node.workers]
    here = sum(step != "absent" for step in steps)
    return f"{here} of {len(steps)} workers are here" if status.phase == "waiting" else ""


def _summary(status: RunStatus, rates: dict[str, float]) -> str:
    """Return rates by node; only the slowest ones of a large graph."""
    nodes = [node for node in status.nodes if node.kind != "external"]
    shown, rest = nodes, ""
    if len(nodes) > _MANY_NODES:
        shown = sorted(nodes, key=lambda node: rates[node.name])[:_MANY_NODES]
        rest = f", … ({len(nodes)} nodes)"
    parts = [f"{node.name} {rates[node.name]:,.0f}/s" for node in shown]
    errors = sum(node.errors for node in nodes)
    return ", ".join(parts) + rest + (f"; {errors:,} errors" if errors else "")


# --- live table, on a terminal ------------------------------------------------------------


class _Live:
    """A table that stays at the bottom of the terminal and goes when the run ends."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._rates = _Rates()
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="ellipsis",
        )
        self._undo: list[Callable[[], None]] = []

    def open(self) -> None:
        """Start the table and lead stdout and stderr past it."""
        both = True
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                above = _Above(self._console)
                setattr(sys, name, above)
                self._undo.append(_restorer(name, above, stream))
            else:
                both = False
        if both and not {"FORCE_COLOR", "NO_COLOR"} & set(os.environ):
            # The processes of the run write to a pipe, but a terminal is at its end.
            os.environ["FORCE_COLOR"] = "1"
            self._undo.append(_no_forced_colour)
        self._live.start()

    def close(self) -> None:
        """Take the table away and give the streams back."""
        self._live.stop()
        while self._undo:
            self._undo.pop()()

    def update(self, status: RunStatus) -> None:
        """Draw the table anew."""
        table = _table(status, self._rates.update(status))
        self._live.update(table, refresh=True)


def _no_forced_colour() -> None:
    os.environ.pop("FORCE_COLOR", None)


def _restorer(name: str, above: _Above, stream: TextIO) -> Callable[[], None]:
    def restore() -> None:
        above.finish()
        if getattr(sys, name) is above:
            setattr(sys, name, stream)

    return restore


class _Above(io.TextIOBase):
    """A text stream that prints whole lines above the live table.

    It has no file descriptor on purpose: that makes the launch carry the output of the run's
    processes here instead of letting them write into the table.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._partial = ""
        self._lock = Lock()

    def isatty(self) -> bool:
        """Return True: what is written ends on a terminal."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Print the lines completed by ``text``; the rest waits for its end."""
        with self._lock:
            *lines, self._partial = (self._partial + text).split("\n")
            if lines:
                self._print("\n".join(lines))
        return len(text)

    def finish(self) -> None:
        """Print what never got a newline."""
        with self._lock:
            if self._partial:
                self._print(self._partial)
                self._partial = ""

    def _print(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(text), soft_wrap=True)


def _table(status: RunStatus, rates: dict[str, float]) -> Table:
    from rich.table import Table

    title = f"{status.graph}  {status.phase}  {status.uptime_s:.1f} s  {_missing(status)}"
    if len(status.nodes) > _MOST_ROWS:
        title += f"  ({_MOST_ROWS} of {len(status.nodes):,} nodes)"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("node", no_wrap=True)
    for head in ("replicas", "handled", "emitted", "errors", "per second"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("waiting", no_wrap=True)
    fill = _fill(status)
    for row in _rows(status, rates, fill):
        table.add_row(*row)
    return table


def _rows(
    status: RunStatus, rates: dict[str, float], fill: dict[str, tuple[int, int]]
) -> Iterator[tuple[Any, ...]]:
    from rich.text import Text

    for node in nodes_worth_showing(status, _MOST_ROWS):
        errors = Text(f"{node.errors:,}", style="red" if node.errors else "dim")
        counts = (str(node.replicas), f"{node.handled:,}", f"{node.emitted:,}", errors)
        yield (Text(node.name, style="cyan"), *counts, f"{rates[node.name]:,.0f}", _bar(fill, node))


def _fill(status: RunStatus) -> dict[str, tuple[int, int]]:
    """Return for each node how many messages wait at its inputs, and how many may."""
    found: dict[str, tuple[int, int]] = {}
    for edge in status.edges:
        receiver = edge.id.partition("->")[2].rpartition(".")[0]
        depth, capacity = found.get(receiver, (0, 0))
        found[receiver] = (depth + edge.depth, capacity + edge.capacity)
    return found


def _bar(fill: dict[str, tuple[int, int]], node: NodeStatus) -> Any:
    """Return a bar of how full a node's inputs are; empty for a source."""
    from rich.text import Text

    depth, capacity = fill.get(node.name, (0, 0))
    if not capacity:
        return Text("")
    share = min(1.0, depth / capacity)
    full = round(share * _BAR)
    style = "red" if share > 0.9 else "yellow" if share > 0.5 else "green"
    return Text.assemble(("━" * full, style), ("━" * (_BAR - full), "dim"), f" {depth:,}")
