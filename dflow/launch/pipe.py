"""One end of a private pipe: a socket pair carrying `dflow.launch.protocol` messages."""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from dflow.launch.protocol import Frames, pack

__all__ = ["Pipe"]

READ_BYTES = 1 << 20


class Pipe:
    """Blocking sends; blocking or selected receives. ``closed_by_peer`` after end of file."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()
        self._pending: deque[dict[str, Any]] = deque()
        self.closed_by_peer = False

    @classmethod
    def pair(cls) -> tuple[Pipe, Pipe]:
        """Return two connected ends."""
        left, right = socket.socketpair()
        return cls(left), cls(right)

    @classmethod
    def from_fd(cls, fd: int) -> Pipe:
        """Return the end that was inherited as file descriptor ``fd``."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return self._sock.fileno()

    def send(self, data: bytes) -> bool:
        """Send packed bytes; False when the other end is gone."""
        try:
            self._sock.sendall(data)
        except OSError:
            return False
        return True

    def send_message(self, message: dict[str, Any]) -> bool:
        """Pack and send one message; False when the other end is gone."""
        return self.send(pack(message))

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the other end is gone."""
        while not self._pending:
            if self.closed_by_peer:
                return None
            self._read()
        return self._pending.popleft()

    def available(self) -> list[dict[str, Any]]:
        """Read once and return the complete messages; never blocks."""
        self._read(socket.MSG_DONTWAIT)
        found = list(self._pending)
        self._pending.clear()
        return found

    def _read(self, flags: int = 0) -> None:
        try:
            data = self._sock.recv(READ_BYTES, flags)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._pending.extend(self._frames.feed(data))
        else:
            self.closed_by_peer = True

    def detach(self) -> int:
        """Give up the file descriptor and return it."""
        return self._sock.detach()

    def close(self) -> None:
        """Close this end; safe to repeat."""
        self._sock.close()
