"""The coordinator's socket, with what can go wrong turned into values."""

from __future__ import annotations

import zmq

from dflow.transport.endpoint import bind_control, context, wait

__all__ = ["ControlRouter"]


class ControlRouter:
    """A bound ROUTER that carries one frame a message; ``endpoint`` is the real one."""

    __slots__ = ("endpoint", "socket")

    def __init__(self, endpoint: str) -> None:
        self.socket, self.endpoint = bind_control(endpoint)

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """Return (peer, frames) of the next message, or None; never blocks."""
        try:
            peer, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return peer, frames

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send one frame to ``peer``; False, with nothing sent, when it is gone. Never blocks."""
        try:
            self.socket.send_multipart((peer, frame), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something to receive, or ``timeout_s`` has passed."""
        wait([self.socket], timeout_s)

    def finish(self, within_s: float) -> None:
        """Close; give what was sent up to ``within_s`` to leave this process.

        Ends the context of the process, whose IO thread does the sending: no other socket of
        it may be open.
        """
        self.socket.close(int(within_s * 1000))
        context().term()
