"""Contexts, endpoints and waiting: what every process needs before it has a link."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zmq

from dflow.errors import OptionError

__all__ = [
    "MAX_IPC_PATH",
    "bind_control",
    "bind_router",
    "close_context",
    "connect_control",
    "context",
    "fresh_endpoint",
    "is_tcp",
    "local_address_towards",
    "wait",
]

MAX_IPC_PATH = 100
"""Bytes of a unix socket path that fit everywhere (sun_path is 108 on Linux, 104 on BSD)."""

MAX_SOCKETS = 4096
"""One for each channel a process sends on; libzmq's own limit is 1,023."""

MAX_CONTROL_FRAME_BYTES = 16 * 1024 * 1024

_context: zmq.Context[zmq.Socket[bytes]] | None = None
_context_pid = 0


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return this process's context, made on first use (never before a fork)."""
    global _context, _context_pid
    if _context is None or _context.closed or _context_pid != os.getpid():
        _context = zmq.Context(io_threads=1)
        _context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        _context_pid = os.getpid()
    return _context


def close_context() -> None:
    """Close every socket of this process at once, dropping what was not sent."""
    global _context
    if _context is not None and _context_pid == os.getpid():
        _context.destroy(linger=0)
    _context = None


def bind_control(endpoint: str) -> tuple[zmq.Socket[bytes], str]:
    """Return a ROUTER bound to ``endpoint`` and its real endpoint (port 0 is resolved).

    Raises `OptionError` when the endpoint cannot be bound.
    """
    return bind_router(endpoint, hwm=0, max_frame_bytes=MAX_CONTROL_FRAME_BYTES)


def bind_router(endpoint: str, *, hwm: int, max_frame_bytes: int) -> tuple[zmq.Socket[bytes], str]:
    """Return a ROUTER bound to ``endpoint`` and its real endpoint.

    ``hwm`` is in ZeroMQ messages for each peer (0: unlimited); a peer that sends more than
    ``max_frame_bytes`` in one frame loses its connection. Raises `OptionError`.
    """
    router: zmq.Socket[bytes] = context().socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.SNDHWM, hwm)
    router.setsockopt(zmq.RCVHWM, hwm)
    router.setsockopt(zmq.MAXMSGSIZE, max_frame_bytes)
    if is_tcp(endpoint) and "[" in endpoint:
        router.setsockopt(zmq.IPV6, 1)
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        router.close()
        raise OptionError(
            f"endpoint {endpoint!r}: cannot listen there ({error.strerror}); "
            f"expected e.g. 'tcp://127.0.0.1:5555' with a free port and an address of this host"
        ) from None
    return router, router.getsockopt_string(zmq.LAST_ENDPOINT)


def connect_control(endpoint: str, identity: bytes) -> zmq.Socket[bytes]:
    """Return a DEALER that keeps trying to reach the coordinator at ``endpoint``."""
    dealer: zmq.Socket[bytes] = context().socket(zmq.DEALER)
    dealer.setsockopt(zmq.ROUTING_ID, identity)
    dealer.setsockopt(zmq.LINGER, 1000)
    dealer.setsockopt(zmq.SNDHWM, 0)
    dealer.setsockopt(zmq.RCVHWM, 0)
    if is_tcp(endpoint) and "[" in endpoint:
        dealer.setsockopt(zmq.IPV6, 1)
    try:
        dealer.connect(endpoint)
    except zmq.ZMQError as error:
        dealer.close()
        raise OptionError(
            f"endpoint {endpoint!r}: {error.strerror}; expected e.g. 'tcp://10.0.0.1:5555'"
        ) from None
    return dealer


def is_tcp(endpoint: str) -> bool:
    """Whether ``endpoint`` is a TCP one."""
    return endpoint.startswith("tcp://")


def fresh_endpoint(run_dir: str, host: str | None = None) -> str:
    """Return an endpoint nobody has used: random in ``run_dir``, or a free port of ``host``.

    Every incarnation of a worker binds a fresh one: libzmq hands what was queued for a
    killed process to whoever binds the same endpoint next.
    """
    if host is not None:
        return f"tcp://[{host}]:0" if ":" in host else f"tcp://{host}:0"
    return f"ipc://{Path(run_dir) / secrets.token_hex(6)}"


def local_address_towards(endpoint: str) -> str:
    """Return this host's address on the route to a TCP ``endpoint``; sends nothing."""
    parts = urlsplit(endpoint)
    if parts.hostname is None or parts.port is None:
        raise OptionError(f"endpoint {endpoint!r}: expected tcp://HOST:PORT")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            parts.hostname, parts.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise OptionError(f"endpoint {endpoint!r}: no route to it ({error.strerror})") from None


def wait(sources: Iterable[Any], timeout_s: float | None) -> list[Any]:
    """Return the sockets and file descriptors with something to read; [] on timeout."""
    poller = zmq.Poller()
    for source in sources:
        poller.register(source, zmq.POLLIN)
    timeout = -1 if timeout_s is None else max(0, int(timeout_s * 1000 + 0.999))
    return [source for source, _ in poller.poll(timeout)]
