"""Where the time of one small message goes in a node that does nothing: line by line.

    python -m benchmarks.overhead [--rounds N]

No sockets and one process: a batch of 512 small dicts is received, decoded, handed to an empty
handler, packed and cut into a frame, by the very code a worker runs. The lines of the innermost
loop (`dflow.worker.emitting`) are measured by adding one after the other to an empty loop, the
bookkeeping of a turn by what a whole turn takes beyond them. All figures are nanoseconds a
message, the least of many repetitions: noise only ever adds.

What a worker does besides, once a batch (poll, receive, send), is system calls and ZeroMQ;
`benchmarks.throughput` has it all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from typing import Any

import msgpack

from benchmarks.micro.wireless import BATCH, MESSAGES, Edge
from benchmarks.rounds import measure_parser, print_table
from dflow.flow.in_edge import InChannel
from dflow.graph.calls import Handler
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, parse
from dflow.worker.context import Direct
from dflow.worker.dispatch import Dispatcher
from dflow.worker.plane import Gate

__all__ = ["main", "rows"]


def handler(message: Any) -> Any:
    """Return the message: an empty handler that emits."""
    return message


def least_ns(rounds: int, run: Callable[[], Any]) -> float:
    """Return the nanoseconds a message of the fastest of ``rounds`` runs."""
    found = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        run()
        found.append(time.perf_counter_ns() - begin)
    return min(found) / BATCH


Line = tuple[str, str, Callable[[], None]]
"""A line of the loop, whose work it is, and the loop up to and with that line."""


def calling_loops() -> list[Line]:
    """Return the lines that get a result."""

    def take() -> None:
        for _ in islice(iter(MESSAGES), BATCH):
            pass

    def call() -> None:
        for value in islice(iter(MESSAGES), BATCH):
            handler(value)

    def compare() -> None:
        for value in islice(iter(MESSAGES), BATCH):
            result = handler(value)
            if result is not None:
                pass

    return [
        ("for value in islice(each, chunk):", "interpreter", take),
        ("result = call(value)", "user code", call),
        ("if result is not None:", "interpreter", compare),
    ]


def packing_loops(codec: Codec) -> list[Line]:
    """Return the lines after those, which make a message of the result."""
    pack, gate, pending = codec.pack, Gate(), list[Any]()
    append = pending.append

    def packed() -> None:
        for value in islice(iter(MESSAGES), BATCH):
            result = handler(value)
            if result is not None:
                pack(result)

    def appended() -> None:
        pending.clear()
        for value in islice(iter(MESSAGES), BATCH):
            result = handler(value)
            if result is not None:
                append(pack(result))

    def whole() -> None:
        pending.clear()
        for value in islice(iter(MESSAGES), BATCH):
            result = handler(value)
            if result is not None:
                append(pack(result))
            if gate.shut:
                break

    return [
        ("pack(result)", "msgpack", packed),
        ("append(...)", "interpreter", appended),
        ("if gate.shut: break", "dflow", whole),
    ]


def whole_hop(codec: Codec) -> Callable[[], None]:
    """Return what takes one batch through a node: from a frame to the next one, and the report."""
    into = InChannel(0, "a.out->b.in", "in", Priority.NORMAL, 1 << 60, 1 << 60, 1)
    out = Edge(codec).out
    lane, gate = out.lanes[0], Gate()

    def emit(value: Any) -> None:
        lane.push(codec.encode(value))

    direct = Direct(lane, codec, lambda: None, nullcontext())
    handlers = {"in": Handler.of(handler, handler)}
    dispatcher = Dispatcher(handlers, emit, codec, gate, _fail, direct)
    payloads = [codec.encode(message) for message in MESSAGES]
    frame = bytearray(pack_batch(0, 1, 0, payloads, 0))

    def run() -> None:
        frame[18:26] = into.window.received.to_bytes(8, "little")  # the sequence in the header
        into.accept(parse(bytes(frame)))
        while into.inbox:
            gate.open()
            dispatcher.turn(into)
        for number, first, batch, _ in out.flush(0):
            pack_batch(number, 1, first, batch, 0)
        window = out.windows[0]
        parse(into.credit_frame())
        out.on_credit(0, window.sent, window.sent_bytes, window.sent)

    return run


def _fail(error: BaseException, where: str) -> None:
    raise AssertionError(where) from error


def rows(rounds: int) -> list[list[str]]:
    """Return the table: each part, whose work it is, nanoseconds a message, and its share."""
    codec = Codec()
    body = msgpack.packb(MESSAGES)
    decode = least_ns(rounds, lambda: msgpack.unpackb(body))
    parts = [("msgpack.unpackb(batch)", "msgpack", decode)]
    before = 0.0
    for line, owner, loop in calling_loops() + packing_loops(codec):
        now = least_ns(rounds, loop)
        parts.append((line, owner, max(0.0, now - before)))
        before = now
    run = whole_hop(codec)
    for _ in range(12):  # turns grow
        run()
    total = least_ns(rounds, run)
    rest = total - before - decode
    parts.append(("once a turn and batch: frames, credit, counters", "dflow", rest))
    table = [[line, owner, f"{ns:.0f}", f"{ns / total:.0%}"] for line, owner, ns in parts]
    mine = sum(ns for _, owner, ns in parts if owner == "dflow")
    return [
        *table,
        ["in all", "", f"{total:.0f}", ""],
        ["of it dflow's", "", f"{mine:.0f}", f"{mine / total:.0%}"],
    ]


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.set_defaults(rounds=2000)
    print_table(rows(parser.parse_args().rounds), ("what", "whose", "ns a message", "share"))


if __name__ == "__main__":
    main()
