"""The user code of the benchmarks: the same functions run in dflow and in the reference.

Nothing here knows what carries the messages, so a difference between the two sides is a
difference between the carriers. Every sink verifies what it got: a benchmark that loses or
repeats a message fails instead of looking fast.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["LatencyTally", "ThroughputTally", "enrich", "readings", "relay", "stamped"]

Message = dict[str, Any]


def readings(count: int) -> Iterator[Message]:
    """Yield ``count`` small dicts, numbered from 0, as fast as they are wanted."""
    for number in range(count):
        yield {"id": number, "sensor": "boiler-17", "value": number * 0.5}


def enrich(message: Message) -> Message:
    """Return a new dict with a little arithmetic done."""
    return {
        "id": message["id"],
        "sensor": message["sensor"],
        "value": message["value"] * 1.8 + 32.0,
    }


def relay(message: Message) -> Message:
    """Return the message as it is."""
    return message


def stamped(count: int, interval_s: float, spin: bool) -> Iterator[Message]:
    """Yield ``count`` messages on an absolute schedule, each stamped when it is made.

    ``spin`` burns the core while waiting instead of sleeping. A late wake-up delays the
    stamp too, so the timer's jitter is not measured, and never shifts the schedule.
    """
    begin = time.monotonic() + 0.05
    for number in range(count):
        due = begin + number * interval_s
        if spin:
            while time.monotonic() < due:
                pass
        else:
            time.sleep(max(0.0, due - time.monotonic()))
        yield {"id": number, "sent_ns": time.monotonic_ns()}


class ThroughputTally:
    """Counts at the sink and takes the time from the first message to the last."""

    def __init__(self, result: str) -> None:
        self.result = result
        self.count = 0
        self.id_sum = 0
        self.first_ns = 0

    def add(self, message: Message) -> None:
        """Count one message."""
        if not self.count:
            self.first_ns = time.monotonic_ns()
        self.count += 1
        self.id_sum += message["id"]

    def finish(self) -> None:
        """Write the result; the stream has ended."""
        seconds = (time.monotonic_ns() - self.first_ns) / 1e9
        _write(self.result, {"count": self.count, "id_sum": self.id_sum, "seconds": seconds})


class LatencyTally:
    """Keeps the age of every message at the sink, in the order they arrived."""

    def __init__(self, result: str) -> None:
        self.result = result
        self.ages_ns: list[int] = []
        self.in_order = True

    def add(self, message: Message) -> None:
        """Note how old the message is."""
        age_ns = time.monotonic_ns() - message["sent_ns"]
        self.in_order = self.in_order and message["id"] == len(self.ages_ns)
        self.ages_ns.append(age_ns)

    def finish(self) -> None:
        """Write the result; the stream has ended."""
        _write(self.result, {"ages_ns": self.ages_ns, "in_order": self.in_order})


def _write(path: str, result: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(result), encoding="utf-8")
