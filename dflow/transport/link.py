"""The two ends of the data plane's sockets: frames in, frames out, nothing else.

An `OutLink` is one channel at its sender (a DEALER); an `InLink` is where all channels of
one band arrive at a receiver replica (a ROUTER). Neither blocks. ZeroMQ's own high-water
marks stand above the credit windows, so credit is the only limiter.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import zmq

from dflow.errors import ProtocolError
from dflow.transport.endpoint import bind_router, context, is_tcp
from dflow.wire.buffers import FROZEN, MAX_BUFFERS
from dflow.wire.frames import MAX_FRAME_BYTES

__all__ = ["InLink", "OutLink"]

_NOWAIT = zmq.NOBLOCK

_COPY_BELOW = 256 * 1024
"""Frames from this size on are lent to libzmq instead of copied.

Lending costs a message to pyzmq's collector thread and a wakeup there. Between two processes a
frame of 64 KiB took 30 us of processor time copied and 38 lent, 256 KiB 81 and 88, 1 MiB 480 and
350, and the call that sends 8 MiB 6 ms and 0.3.
"""

FROZEN.add(zmq.Frame)  # what was received is passed on without a copy

_lending = threading.Lock()
_lending_pid = 0


def _prepare_lending() -> None:
    """Have pyzmq's collector of lent frames made by one thread.

    It makes the socket by which frames come back, and the mutex for it, on first use and without
    a lock. Two runs of one process that lend their first frames at the same time would make two,
    and one would be closed while libzmq still uses it.
    """
    global _lending_pid
    with _lending:
        if _lending_pid != os.getpid():
            zmq.Frame(b"first", copy=False)
            _lending_pid = os.getpid()


class OutLink:
    """The sender's end of one channel. ``shared``: its receiver is on this host."""

    __slots__ = ("_recv", "_send", "number", "shared", "socket")

    def __init__(self, number: int, endpoint: str) -> None:
        self.number = number
        self.shared = not is_tcp(endpoint)
        socket: zmq.Socket[bytes] = context().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        if is_tcp(endpoint) and "[" in endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        socket.connect(endpoint)
        self.socket = socket
        self._send = socket.send
        self._recv = socket.recv

    def send(self, frame: bytes) -> None:
        """Hand one frame to ZeroMQ; never blocks."""
        if len(frame) < _COPY_BELOW:
            self._send(frame, _NOWAIT)
        else:
            if _lending_pid != os.getpid():
                _prepare_lending()
            self._send(frame, _NOWAIT, copy=False)

    def send_with(self, frame: bytes, buffers: Sequence[memoryview]) -> None:
        """Hand one frame to ZeroMQ with ``buffers``, each a frame of its own; never blocks.

        They must not change until the receiver has reported the message.
        """
        if _lending_pid != os.getpid():
            _prepare_lending()
        self._send(frame, _NOWAIT | zmq.SNDMORE)
        last = len(buffers) - 1
        for at, buffer in enumerate(buffers):
            more = zmq.SNDMORE if at < last else 0
            self._send(buffer, _NOWAIT | more, copy=len(buffer) < _COPY_BELOW)

    def receive(self) -> bytes | None:
        """Return the next frame from the receiver, or None."""
        try:
            frame: bytes = self._recv(_NOWAIT)
        except zmq.Again:
            return None
        return frame

    def close(self) -> None:
        """Close without waiting; what was not sent is dropped."""
        self.socket.close(0)


class InLink:
    """The receiver's end: every channel of one band. ``shared``: senders are on this host."""

    __slots__ = ("_more", "_recv", "_send", "endpoint", "shared", "socket")

    def __init__(self, endpoint: str, hwm: int) -> None:
        self.socket, self.endpoint = bind_router(endpoint, hwm=hwm, max_frame_bytes=MAX_FRAME_BYTES)
        self.shared = not is_tcp(self.endpoint)
        self._recv = self.socket.recv
        self._send = self.socket.send
        self._more = self.socket.getsockopt

    def receive(self) -> tuple[bytes, Any, Sequence[memoryview]] | None:
        """Return (peer, frame, buffers), or None; raises `ProtocolError` if there are too many.

        ``buffers`` are the frames that came with the first one, where they were received.
        """
        try:
            peer: bytes = self._recv(_NOWAIT)
        except zmq.Again:
            return None
        frame: bytes = self._recv(_NOWAIT)  # a message is there as a whole
        if not self._more(zmq.RCVMORE):
            return peer, frame, ()
        buffers: list[memoryview] = []
        count = 0
        while self._more(zmq.RCVMORE):
            buffer = self._recv(_NOWAIT, copy=False)
            count += 1
            if count <= MAX_BUFFERS:
                buffers.append(memoryview(buffer.buffer).toreadonly())
        if count > MAX_BUFFERS:
            raise ProtocolError(f"data message: expected at most {MAX_BUFFERS} buffers")
        return peer, frame, buffers

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send one frame to ``peer``; False when it is gone."""
        try:
            self._send(peer, _NOWAIT | zmq.SNDMORE)
            self._send(frame, _NOWAIT)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def close(self) -> None:
        """Close without waiting."""
        self.socket.close(0)
