"""Waiting for sockets, and being woken by another thread while waiting."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Container
from typing import Any

import zmq
from zmq.backend import zmq_poll
from zmq.utils.monitor import recv_monitor_message

__all__ = ["ConnectionWatch", "Poller", "Wakeup"]

_POLLIN = int(zmq.POLLIN)


class Wakeup:
    """A file descriptor another thread can make readable; ``set`` never blocks."""

    __slots__ = ("_write", "fd")

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)

    def set(self) -> None:
        """Wake the waiter, now or when it next waits."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: it is awake anyway
            os.write(self._write, b"\0")

    def clear(self, ready: Container[Any] | None = None) -> None:
        """Forget wakeups so far; with ``ready``, only if it is among what can be read."""
        if ready is not None and self.fd not in ready:
            return
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 4096)

    def close(self) -> None:
        """Close both ends; idempotent. A late `set` must not reach who gets the number next."""
        fd, write, self.fd, self._write = self.fd, self._write, -1, -1
        if fd >= 0:
            os.close(fd)
            os.close(write)


class ConnectionWatch:
    """Tells when the only connection of a socket breaks, and when it is there again.

    libzmq reconnects by itself and says nothing; its monitor does. Register ``socket``.
    """

    __slots__ = ("socket",)

    def __init__(self, watched: zmq.Socket[bytes]) -> None:
        self.socket: Any = watched.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
        )

    def connected(self) -> bool:
        """Return the news, once `socket` can be read: whether there is a connection."""
        return bool(recv_monitor_message(self.socket)["event"] != zmq.EVENT_DISCONNECTED)


class Poller:
    """Which of the registered sockets and descriptors can be read.

    Each is registered under a ``tag``, by default itself, which is what `wait` returns: so a
    loop gets the link behind a socket without looking it up.

    It sleeps in poll(2) on the sockets' own descriptors, and asks ZeroMQ only before: that is half
    the system calls of `zmq.Poller`, and nothing of ZeroMQ between waking up and receiving. Such a
    descriptor says that there is news since the socket was last asked, which is not always a
    message. So a tag may be returned though there is nothing to receive, and a loop must be
    prepared for that.
    """

    __slots__ = ("_by_fd", "_items", "_sleep", "_sleeper", "_tags", "descriptors")

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self._tags: dict[Any, Any] = {}
        self._by_fd: dict[int, Any] = {}
        self._items: list[tuple[Any, int]] = []
        self._sleeper = select.poll()
        self._sleep = self._sleeper.poll

    def add(self, source: Any, tag: Any = None) -> None:
        """Watch a socket or a file descriptor."""
        fd = source if isinstance(source, int) else source.getsockopt(zmq.FD)
        self._tags[source] = self._by_fd[fd] = source if tag is None else tag
        self._items.append((source, _POLLIN))
        self._sleeper.register(fd, select.POLLIN)
        self.descriptors.append(fd)

    def wait(self, timeout_s: float | None) -> list[Any]:
        """Return the tags of what can be read; waits ``timeout_s``, whole ms (None: ever)."""
        found = zmq_poll(self._items, 0)
        if found:
            tags = self._tags
            return [tags[source] for source, _ in found]
        if timeout_s == 0:
            return []
        by_fd = self._by_fd
        timeout_ms = None if timeout_s is None else int(timeout_s * 1000 + 0.999)
        return [by_fd[fd] for fd, _ in self._sleep(timeout_ms)]
