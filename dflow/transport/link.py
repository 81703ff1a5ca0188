"""The two ends of the data plane's sockets: frames in, frames out, nothing else.

An `OutLink` is one channel at its sender (a DEALER); an `InLink` is where all channels of
one band arrive at a receiver replica (a ROUTER). Neither blocks. ZeroMQ's own high-water
marks stand above the credit windows, so credit is the only limiter.
"""

from __future__ import annotations

from typing import Any

import zmq

from dflow.errors import ProtocolError
from dflow.transport.endpoint import bind_router, context, is_tcp
from dflow.wire.frames import MAX_FRAME_BYTES

__all__ = ["InLink", "OutLink"]

_NOWAIT = zmq.NOBLOCK
_COPY_BELOW = 64 * 1024


class OutLink:
    """The sender's end of one channel."""

    __slots__ = ("_recv", "_send", "number", "socket")

    def __init__(self, number: int, endpoint: str) -> None:
        self.number = number
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
            self._send(frame, _NOWAIT, copy=False)

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
    """The receiver's end: every channel of one band."""

    __slots__ = ("_recv", "endpoint", "socket")

    def __init__(self, endpoint: str, hwm: int) -> None:
        self.socket, self.endpoint = bind_router(endpoint, hwm=hwm, max_frame_bytes=MAX_FRAME_BYTES)
        self._recv = self.socket.recv_multipart

    def receive(self) -> tuple[bytes, Any] | None:
        """Return (peer, frame), or None; raises `ProtocolError` naming a misshapen message."""
        try:
            peer, *frames = self._recv(_NOWAIT)
        except zmq.Again:
            return None
        if len(frames) != 1:
            raise ProtocolError(f"data message: expected 1 frame, got {len(frames)}")
        return peer, frames[0]

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send one frame to ``peer``; False when it is gone."""
        try:
            self.socket.send_multipart((peer, frame), _NOWAIT)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def close(self) -> None:
        """Close without waiting."""
        self.socket.close(0)
