"""The reference: what a good engineer writes by hand with pyzmq and msgpack.

Small messages use `benchmarks.reference`: batches of 512, credit, an end. Paced ones its barest
way, a frame a message. Fan-out packs a batch once for all. Frames are sent as they are,
``copy=False``, and read where they were received; https://zguide.zeromq.org/docs/chapter2/ has
the high-water mark that bounds them. It has no error handling, no order of start and stop, no
policies, no account.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgpack
import zmq

from benchmarks import reference
from benchmarks.peers import work
from benchmarks.peers.processes import run_all

END = b""
_spawn = multiprocessing.get_context("spawn")


def run(job: work.Job) -> None:
    """Run the job once."""
    singles = job.work in ("paced", "frames")
    ends = [f"ipc://{job.folder}/sink{index}" for index in range(job.sinks)]
    calls: list[tuple[Any, ...]] = [
        (_single_sink if singles else _batch_sink, job, index, end)
        for index, end in enumerate(ends)
    ]
    firsts = ends
    if work.step(job) is not None:
        firsts = [f"ipc://{job.folder}/map"]
        calls.append((_single_map if singles else _batch_map, job, firsts[0], ends[0]))
    calls.append((_single_source if singles else _batch_source, job, firsts))
    run_all(_spawn, calls)


def _batch_source(job: work.Job, ends: list[str]) -> None:
    with zmq.Context() as context:
        senders = [_Packed(context, end) for end in ends]
        messages = work.source(job)
        pack = msgpack.Packer().pack
        while batch := list(islice(messages, reference.BATCH)):
            body = pack(batch)
            for sender in senders:
                sender.send_packed(body, len(batch))
        for sender in senders:
            sender.finish()


class _Packed(reference.Sender):
    """A sender of what is packed already."""

    def send_packed(self, body: bytes, count: int) -> None:
        """Send one batch, after waiting for credit."""
        self._await_taken(self._sent + count - reference.WINDOW)
        self._socket.send(reference._HEADER.pack(self._sent, count) + body)
        self._sent += count


def _batch_map(job: work.Job, begin: str, end: str) -> None:
    step = work.step(job)
    assert step is not None
    with zmq.Context() as context:
        receiver, sender = reference.Receiver(context, begin), reference.Sender(context, end)
        for batch in receiver.batches():
            sender.send([step(message) for message in batch])
        sender.finish()


def _batch_sink(job: work.Job, index: int, end: str) -> None:
    with zmq.Context() as context:
        sink = work.sink(job, index)
        add = sink.add
        for batch in reference.Receiver(context, end).batches():
            for message in batch:
                add(message)
        sink.finish()


def _single_source(job: work.Job, ends: list[str]) -> None:
    with zmq.Context() as context, _pipe(context, zmq.PUSH) as out:
        out.connect(ends[0])
        frames = job.work == "frames"
        for message in work.source(job):
            out.send(message if frames else msgpack.packb(message), copy=not frames)
        out.send(END)


def _single_map(job: work.Job, begin: str, end: str) -> None:
    step = work.step(job)
    assert step is not None
    with (
        zmq.Context() as context,
        _pipe(context, zmq.PULL) as into,
        _pipe(context, zmq.PUSH) as out,
    ):
        into.bind(begin)
        out.connect(end)
        while body := into.recv():
            out.send(msgpack.packb(step(msgpack.unpackb(body))))
        out.send(END)


def _single_sink(job: work.Job, index: int, end: str) -> None:
    with zmq.Context() as context, _pipe(context, zmq.PULL) as into:
        into.bind(end)
        sink = work.sink(job, index)
        for message in _frames(into) if job.work == "frames" else _messages(into):
            sink.add(message)
        sink.finish()


def _messages(into: Any) -> Iterator[Any]:
    while body := into.recv():
        yield msgpack.unpackb(body)


def _frames(into: Any) -> Iterator[Any]:
    import numpy as np

    while len(body := into.recv(copy=False).buffer):
        yield np.frombuffer(body, dtype=np.uint8)


def _pipe(context: zmq.Context[Any], kind: int) -> Any:
    """Return a socket that holds few messages: a frame may not be overwritten while it waits."""
    socket = context.socket(kind)
    socket.set_hwm(work.IN_FLIGHT // 4)
    return socket
