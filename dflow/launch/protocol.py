"""What goes over the private pipes of a run: user process <-> agent <-> coordinator.

Pure: bytes in, messages out. A message is one msgpack map with one entry, ``{verb: value}``,
behind its length (u32, little endian). The pipes are anonymous socket pairs inherited by
fork or exec, so both ends are ours; a malformed message is still a `ProtocolError`, never
garbage carried on.

Verbs, agent -> user process: ``run_dir``, ``forked``, ``started``, ``warned``, ``failed``,
``exited``, ``done``. Agent -> coordinator: ``exited``. Coordinator -> agent: ``kill``. User
process -> agent, once: ``job``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgpack

from dflow.errors import ProtocolError
from dflow.graph.plan import WorkerId
from dflow.wire.unpack import require_whole

__all__ = [
    "COORDINATOR",
    "AgentGone",
    "Done",
    "Event",
    "Exited",
    "Failed",
    "Forked",
    "Frames",
    "RunDir",
    "Started",
    "Warned",
    "pack",
    "pack_event",
    "parse_event",
    "signal_name",
]

LENGTH = struct.Struct("<I")
MAX_PIPE_BYTES = (1 << 32) - 1

COORDINATOR = WorkerId("(coordinator)", 0)
"""Stands for the coordinator in events about processes; no node can have this name."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """The agent made the private directory of the run."""

    path: str


@dataclass(frozen=True, slots=True)
class Forked:
    """A process of the run exists."""

    worker: WorkerId
    pid: int


@dataclass(frozen=True, slots=True)
class Started:
    """Every process of the run exists."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know, in words for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The run could not start; ``traceback`` is the user's, if their code raised."""

    text: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Exited:
    """A process ended: by ``code``, or by ``signal`` (number) when ``code`` is None."""

    worker: WorkerId
    pid: int
    code: int | None
    signal: int | None

    @property
    def cause(self) -> str:
        """Return ``"exit code 3"`` or ``"signal SIGKILL"``."""
        return f"exit code {self.code}" if self.signal is None else signal_name(self.signal)


@dataclass(frozen=True, slots=True)
class Done:
    """Every process ended and the run's directory is gone; the agent leaves now."""


@dataclass(frozen=True, slots=True)
class AgentGone:
    """Last event, made by the user process: nothing of the run is left.

    ``orderly``: the agent said `Done`. Otherwise it died by ``code`` or ``signal``, and the
    user process ended what it had started and removed the directory.
    """

    orderly: bool
    code: int | None
    signal: int | None


Event: TypeAlias = RunDir | Forked | Started | Warned | Failed | Exited | Done | AgentGone


def signal_name(number: int) -> str:
    """Return ``"signal SIGKILL"`` for 9, ``"signal 63"`` for one without a name."""
    import signal

    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"


def pack(message: dict[str, Any]) -> bytes:
    """Return one message with its length in front; `ProtocolError` from 4 GiB up."""
    try:
        body: bytes = msgpack.packb(message)
    except ValueError as error:  # msgpack's own limit is the same 4 GiB
        raise ProtocolError(f"pipe: message too large: {error}") from None
    if len(body) > MAX_PIPE_BYTES:
        raise ProtocolError(f"pipe: expected less than 4 GiB, got {len(body)} bytes")
    return LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return every message completed by ``data``; raises `ProtocolError`."""
        buffer = self._buffer
        buffer += data
        found: list[dict[str, Any]] = []
        start = 0
        while len(buffer) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(buffer, start)
            end = start + LENGTH.size + size
            if len(buffer) < end:
                break
            found.append(_unpack(bytes(memoryview(buffer)[start + LENGTH.size : end])))
            start = end
        if start:
            del buffer[:start]
        return found


def _unpack(body: bytes) -> dict[str, Any]:
    try:
        require_whole(body)
        message = msgpack.unpackb(body)
    except Exception as error:  # noqa: BLE001   # msgpack raises many types for malformed input
        raise ProtocolError(f"pipe: malformed message ({type(error).__name__})") from None
    if not isinstance(message, dict) or len(message) != 1:
        raise ProtocolError("pipe: expected a map with one entry, {verb: value}")
    return message


def pack_event(event: Event) -> bytes:
    """Return the bytes of one event of the agent."""
    match event:
        case RunDir(path):
            return pack({"run_dir": path})
        case Forked(worker, pid):
            return pack({"forked": [worker.node, worker.replica, pid]})
        case Started():
            return pack({"started": True})
        case Warned(text):
            return pack({"warned": text})
        case Failed(text, traceback):
            return pack({"failed": [text, traceback]})
        case Exited(worker, pid, code, signal):
            return pack({"exited": [worker.node, worker.replica, pid, code, signal]})
        case Done():
            return pack({"done": True})
        case AgentGone():
            raise ProtocolError("pipe: AgentGone is never sent")


def parse_event(message: dict[str, Any]) -> Event:
    """Return the event in ``message``; raises `ProtocolError` for anything else."""
    try:
        match message:
            case {"run_dir": str(path)}:
                return RunDir(path)
            case {"forked": [str(node), int(replica), int(pid)]}:
                return Forked(WorkerId(node, replica), pid)
            case {"started": True}:
                return Started()
            case {"warned": str(text)}:
                return Warned(text)
            case {"failed": [str(text), str(traceback)]}:
                return Failed(text, traceback)
            case {
                "exited": [
                    str(node),
                    int(replica),
                    int(pid),
                    int() | None as code,
                    int() | None as signal,
                ]
            }:
                return Exited(WorkerId(node, replica), pid, code, signal)
            case {"done": True}:
                return Done()
    except TypeError:
        pass
    raise ProtocolError(f"pipe: expected an event of the agent, got {sorted(message)}")
