"""The yardstick: the pipelines a good engineer writes by hand with pyzmq and msgpack.

`run_throughput`: source → map → sink in three processes over ``ipc``. Messages travel in
batches of 512 packed as one msgpack array behind a small header. The receiver binds a
ROUTER, the sender connects a DEALER, and cumulative credits flow back on the same socket:
the receiver reports how many messages it has taken, the sender never has more than a
window of them under way, and the sender closes only after everything was confirmed.

`run_latency`: the barest two hops there are, PUSH → PULL twice, one message a frame. `run_start`:
as many such hops as one likes, and one message, to see how long starting takes.

It has no error handling, no order of start and stop, no byte credit, no policies, no
statistics. Rejected as yardsticks: PUSH/PULL with nothing but high-water marks (no faster
with batches this size, and the tail can be lost on closing) and one frame a message (many
times slower).
"""

from __future__ import annotations

import multiprocessing
import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgpack
import zmq

from benchmarks import workload

__all__ = ["BATCH", "WINDOW", "run_latency", "run_one_hop", "run_start", "run_throughput"]

BATCH = 512
WINDOW = 16 * BATCH
"""Messages under way on a hop; 16 to 32 batches measure best, 2 are a fifth slower."""

_HEADER = struct.Struct("<QI")  # number of the first message, how many (0: the end)
_CREDIT = struct.Struct("<Q")  # messages taken since the beginning
_LIMIT_S = 120


class Sender:
    """Sends batches as far as the receiver's credit allows; blocks beyond it."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.connect(endpoint)
        self._pack = msgpack.Packer().pack
        self._sent = 0
        self._taken = 0

    def send(self, messages: list[Any]) -> None:
        """Send one batch, after waiting for credit."""
        body = self._pack(messages)
        self._await_taken(self._sent + len(messages) - WINDOW)
        self._socket.send(_HEADER.pack(self._sent, len(messages)) + body)
        self._sent += len(messages)

    def finish(self) -> None:
        """Send the end and wait until the receiver has taken everything."""
        self._socket.send(_HEADER.pack(self._sent, 0))
        self._await_taken(self._sent)
        self._socket.close()

    def _await_taken(self, wanted: int) -> None:
        while self._taken < wanted:
            self._taken = max(self._taken, _CREDIT.unpack(self._socket.recv())[0])


class Receiver:
    """Receives batches, checks their numbers and reports credit at half a window."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.bind(endpoint)
        self._taken = 0
        self._reported = 0

    def batches(self) -> Iterable[list[Any]]:
        """Yield batches until the sender's end, then confirm all of them."""
        while True:
            sender, frame = self._socket.recv_multipart()
            first, count = _HEADER.unpack_from(frame)
            if first != self._taken:
                raise RuntimeError(f"expected message {self._taken}, got {first}")
            if not count:
                break
            yield msgpack.unpackb(memoryview(frame)[_HEADER.size :])
            self._taken += count
            if self._taken - self._reported >= WINDOW // 2:
                self._report(sender)
        self._report(sender)
        self._socket.close()

    def _report(self, sender: bytes) -> None:
        self._socket.send_multipart([sender, _CREDIT.pack(self._taken)])
        self._reported = self._taken


def _source(endpoint: str, count: int) -> None:
    with zmq.Context() as context:
        sender = Sender(context, endpoint)
        messages = workload.readings(count)
        while batch := list(islice(messages, BATCH)):
            sender.send(batch)
        sender.finish()


def _map(endpoint_in: str, endpoint_out: str) -> None:
    with zmq.Context() as context:
        receiver, sender = Receiver(context, endpoint_in), Sender(context, endpoint_out)
        enrich = workload.enrich
        for batch in receiver.batches():
            sender.send([enrich(message) for message in batch])
        sender.finish()


def _sink(endpoint: str, result: str) -> None:
    with zmq.Context() as context:
        receiver = Receiver(context, endpoint)
        tally = workload.ThroughputTally(result)
        add = tally.add
        for batch in receiver.batches():
            for message in batch:
                add(message)
        tally.finish()


def run_throughput(count: int, result: str) -> None:
    """Run the batched pipeline once; the sink writes to the file ``result``."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = f"ipc://{folder}/1", f"ipc://{folder}/2"
        _run_processes([(_sink, second, result), (_map, first, second), (_source, first, count)])


def run_one_hop(count: int, result: str) -> None:
    """Run source → sink once, without the map between them."""
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/1"
        _run_processes([(_sink, endpoint, result), (_source, endpoint, count)])


def _paced_source(endpoint: str, count: int, interval_s: float, spin: bool) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as out:
        out.connect(endpoint)
        for message in workload.stamped(count, interval_s, spin):
            out.send(msgpack.packb(message))


def _paced_relay(endpoint_in: str, endpoint_out: str, count: int) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as into:
        into.bind(endpoint_in)
        with context.socket(zmq.PUSH) as out:
            out.connect(endpoint_out)
            for _ in range(count):
                out.send(msgpack.packb(workload.relay(msgpack.unpackb(into.recv()))))


def _paced_sink(endpoint: str, count: int, result: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as into:
        into.bind(endpoint)
        tally = workload.LatencyTally(result)
        for _ in range(count):
            tally.add(msgpack.unpackb(into.recv()))
        tally.finish()


def run_latency(count: int, interval_s: float, spin: bool, result: str) -> None:
    """Run the bare two hops once; the sink writes to the file ``result``."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = f"ipc://{folder}/1", f"ipc://{folder}/2"
        _run_processes(
            [
                (_paced_sink, second, count, result),
                (_paced_relay, first, second, count),
                (_paced_source, first, count, interval_s, spin),
            ]
        )


def _one_message(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as out:
        out.connect(endpoint)
        out.send(msgpack.packb(1))


def _note_time(endpoint: str, result: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as into:
        into.bind(endpoint)
        into.recv()
        Path(result).write_text(str(time.monotonic_ns()), encoding="utf-8")


def run_start(nodes: int, result: str) -> None:
    """Send one message through a chain of ``nodes`` processes; ``result`` gets its arrival."""
    with tempfile.TemporaryDirectory() as folder:
        ends = [f"ipc://{folder}/{number}" for number in range(nodes - 1)]
        relays = [(_paced_relay, one, other, 1) for one, other in pairwise(ends)]
        _run_processes([(_note_time, ends[-1], result), *relays, (_one_message, ends[0])])


def _run_processes(calls: list[tuple[Callable[..., None], *tuple[Any, ...]]]) -> None:
    spawn = multiprocessing.get_context("spawn")
    running = [spawn.Process(target=call[0], args=call[1:]) for call in calls]
    for process in running:
        process.start()
    for process in running:
        process.join(_LIMIT_S)
    codes = [process.exitcode for process in running]
    for process in running:
        process.kill()
    if codes != [0] * len(codes):
        raise RuntimeError(f"reference pipeline: expected exit codes 0, got {codes}")
