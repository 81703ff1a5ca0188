"""Ends of streams that add up what they sent and what they saw, so that the two can be compared.

The books of a run count; these say that what was counted is what was sent. Every message of a
stream has a number. A source adds the numbers of what has to arrive, a sink those that did, each
scrambled first, so that a loss and a duplicate do not make up for each other: two different sets
of numbers have the same sum by chance once in 2^40. Sums do not depend on order or replicas.
Where order is promised, the sink also counts what is not the next one, and content carries its
checksum. All of it travels as metrics of the nodes, and so ends up in the report of the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dflow import Context, Input, Node, Output, RunReport
from stress.histogram import Histogram

__all__ = ["Collect", "Seen", "Sent", "Stream", "now_ns", "paced", "streams"]

MASK = (1 << 40) - 1
CATCH_UP_S = 1.0
now_ns = time.monotonic_ns  # one clock for all processes of a host


def scrambled(number: int) -> int:
    """Return 40 bits that tell nothing about their neighbours' (Fibonacci hashing, Knuth 6.4)."""
    return (number * 0x9E3779B97F4A7C15 >> 21) & MASK


class Sent:
    """What has to arrive at the end of ``stream``, as its source knows it."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.count = 0
        self.sum = 0

    def add(self, number: int, times: int = 1) -> None:
        """Count a message that has to arrive ``times`` times."""
        self.count += times
        self.sum = self.sum + scrambled(number) * times & MASK

    def note(self, ctx: Context) -> None:
        """Keep it as metrics of the node."""
        ctx.metrics.gauge(f"sent.{self.stream}.count", self.count)
        ctx.metrics.gauge(f"sent.{self.stream}.sum", self.sum)


class Seen:
    """What arrived at one sink of ``stream``, how late, and what was wrong with it."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.count = 0
        self.sum = 0
        self.wrong = 0
        self.due = 0
        self.latency = Histogram()

    def add(self, number: int, sent_ns: int | None = None) -> None:
        """Count a message, and how long it took."""
        self.count += 1
        self.sum = self.sum + scrambled(number) & MASK
        if sent_ns is not None:
            self.latency.add(now_ns() - sent_ns)

    def in_order(self, number: int) -> None:
        """Count it as wrong if it is not the next one."""
        self.wrong += number != self.due
        self.due = number + 1

    def note(self, ctx: Context) -> dict[str, Any]:
        """Keep it as metrics of the node; return what to tell of the time since the last call."""
        ctx.metrics.gauge(f"seen.{self.stream}.count", self.count)
        ctx.metrics.gauge(f"seen.{self.stream}.sum", self.sum)
        ctx.metrics.gauge(f"seen.{self.stream}.wrong", self.wrong)
        told = {"stream": self.stream, "latency": self.latency.to_dict()}
        self.latency = Histogram()
        return told


class Collect(Node):
    """Gathers what sinks tell into one output, which the soak reads."""

    into = Input(dict)
    out = Output(dict)

    @into.handler
    def pass_on(self, told: dict[str, Any]) -> None:
        """Pass it on."""
        self.out.emit(told)


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream at the end of a run; ``error`` is empty if all that was sent was seen once."""

    name: str
    sent: int
    seen: int
    error: str = ""


def streams(report: RunReport, outside: Iterable[Sent] = ()) -> list[Stream]:
    """Return every stream in the metrics of ``report``; ``outside`` was sent by `Run.send`."""
    sums: dict[str, dict[str, int]] = {}
    for node in report.nodes:
        for name, value in node.metrics.items():
            _count(sums, name, value)
    for sent in outside:
        _count(sums, f"sent.{sent.stream}.count", sent.count)
        _count(sums, f"sent.{sent.stream}.sum", sent.sum)
    return [_judged(name, found) for name, found in sorted(sums.items())]


def _count(sums: dict[str, dict[str, int]], metric: str, value: float) -> None:
    side, _, rest = metric.partition(".")
    stream, _, what = rest.rpartition(".")
    if side in ("sent", "seen") and stream:
        found = sums.setdefault(stream, {})
        found[f"{side}.{what}"] = found.get(f"{side}.{what}", 0) + int(value)


def _judged(name: str, found: Mapping[str, int]) -> Stream:
    sent, seen = found.get("sent.count", 0), found.get("seen.count", 0)
    error = ""
    if sent != seen:
        error = f"stream {name}: expected {sent:,} messages to arrive, got {seen:,}"
    elif (found.get("sent.sum", 0) - found.get("seen.sum", 0)) & MASK:
        error = f"stream {name}: as many arrived as were sent ({sent:,}), but not the same ones"
    elif found.get("seen.wrong", 0):
        error = (
            f"stream {name}: {found['seen.wrong']:,} of {seen:,} messages were out of order or"
            f" not what was sent"
        )
    return Stream(name, sent, seen, error)


def paced(
    ctx: Context, per_s: float, *, burst: int = 0, every_s: float = 10.0, wait_s: float = 0.02
) -> Iterator[int]:
    """Yield 0, 1, 2 … at ``per_s`` until the run drains, and ``burst`` more every ``every_s``.

    What was missed while the run was busy is made up for, as far as it is not older than a
    second: a soak offers a load, it does not race.
    """
    number, owed = 0, 0.0
    last_s = time.monotonic()
    burst_s = last_s + every_s
    while not ctx.stopping:
        now_s = time.monotonic()
        owed = min(owed + (now_s - last_s) * per_s, per_s * CATCH_UP_S)
        last_s = now_s
        count = int(owed)
        owed -= count
        if burst and now_s >= burst_s:
            count += burst
            burst_s = now_s + every_s
        for _ in range(count):
            yield number
            number += 1
        time.sleep(wait_s)
