"""Options of nodes, edges and runs: checked when given, frozen afterwards.

One dataclass a scope. A wrong value raises :class:`~dflow.errors.OptionError` at the line
that gave it, with what was expected and what was got.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from dflow.errors import OptionError, did_you_mean
from dflow.message import Priority
from dflow.policy import Policy, as_policy

__all__ = [
    "DEFAULT_CAPACITY",
    "DEFAULT_MAX_BYTES",
    "EdgeOptions",
    "NodeOptions",
    "RunOptions",
    "parse_bytes",
]

DEFAULT_CAPACITY = 2048
DEFAULT_MAX_BYTES = 64 * 1024 * 1024
DEFAULT_SHM_BYTES = 10**9
MAX_CAPACITY = 1 << 20
MAX_REPLICAS = 256
MAX_CONCURRENCY = 4096
MAX_SLOTS = 4096
MAX_SECONDS = 10**9
"""Some thirty years: times in nanoseconds stay far from where floats are coarse."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_ON_ERROR = ("skip", "stop")


def parse_bytes(value: int | str, what: str = "max_bytes", least: int = 1) -> int:
    """Return a size in bytes from ``64_000_000`` or ``"64MB"`` / ``"64MiB"``, ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise OptionError(f"{what}: expected bytes as int or text like '64MB', got {value!r}")
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value)
        if match is None or match[2].upper() not in _UNITS:
            raise OptionError(f"{what}: expected bytes like '64MB' or '512KiB', got {value!r}")
        size = int(float(match[1]) * _UNITS[match[2].upper()])
    if size < least:
        raise OptionError(
            f"{what}: expected at least {least} byte{'s' * (least != 1)}, got {value!r}"
        )
    return size


def _whole(what: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{what}: expected a whole number from {low} to {high}, got {value!r}")


def _seconds(what: str, value: object, *, zero: bool = False) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not (value >= 0 if zero else value > 0):  # type: ignore[operator]  # narrowed by `good`
        least = ">= 0" if zero else "> 0"
        raise OptionError(f"{what}: expected seconds {least}, got {value!r}")
    if value > MAX_SECONDS:  # type: ignore[operator]  # narrowed by `good`
        raise OptionError(f"{what}: expected at most {MAX_SECONDS:,} seconds, got {value!r}")


def _directory(what: str, value: object) -> None:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise OptionError(f"{what}: expected a directory like 'bundles', got {value!r}")


def _one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        names = ", ".join(repr(name) for name in allowed)
        raise OptionError(f"{what}: expected one of {names}, got {value!r}")


def _band(value: object) -> None:
    if value is not None and not isinstance(value, Priority):
        raise OptionError(f"priority: expected a dflow.Priority, got {value!r}")


def _cpus(value: object) -> tuple[int, ...]:
    given = (value,) if isinstance(value, int) else value
    good = isinstance(given, (tuple, list, set, frozenset, range)) and all(
        isinstance(cpu, int) and not isinstance(cpu, bool) and cpu >= 0 for cpu in given
    )
    if not good or not given:
        raise OptionError(f"affinity: expected CPU numbers like [0, 1], got {value!r}")
    return tuple(sorted(set(given)))  # type: ignore[call-overload]  # narrowed by `good`


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a node runs.

    ``replicas``: number of worker processes. ``concurrency``: how many messages an
    ``async def`` handler may have under way. ``tick_s``: seconds between ``on_tick``.
    ``on_error``: ``"skip"`` counts and logs, ``"stop"`` ends the run. ``ordered``: results leave
    in the order in which the inputs came, whichever replica or task made them.
    ``max_in_flight_per_key``: messages of one key handled at once, by all replicas together.
    ``priority``: the band the scheduler puts the node in; ``None``: the best band of its inputs.
    ``affinity``: the CPUs it may run on; ``niceness``: from 0 to 19; ``None``: by its band.
    ``spin_s``: how long a worker that has nothing to do keeps looking for messages, on a core of
    its own, before it sleeps.
    """

    name: str | None = None
    replicas: int = 1
    concurrency: int = 1
    tick_s: float | None = None
    on_error: str = "skip"
    ordered: bool = False
    max_in_flight_per_key: int | None = None
    priority: Priority | None = None
    affinity: tuple[int, ...] | None = None
    niceness: int | None = None
    spin_s: float = 0.0

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise OptionError(f"name: expected text, got {self.name!r}")
        _whole("replicas", self.replicas, 1, MAX_REPLICAS)
        _whole("concurrency", self.concurrency, 1, MAX_CONCURRENCY)
        if self.tick_s is not None:
            _seconds("tick_s", self.tick_s)
        _one_of("on_error", self.on_error, _ON_ERROR)
        if not isinstance(self.ordered, bool):
            raise OptionError(f"ordered: expected True or False, got {self.ordered!r}")
        if self.max_in_flight_per_key is not None:
            _whole("max_in_flight_per_key", self.max_in_flight_per_key, 1, MAX_CONCURRENCY)
        _band(self.priority)
        if self.affinity is not None:
            object.__setattr__(self, "affinity", _cpus(self.affinity))
        if self.niceness is not None:
            _whole("niceness", self.niceness, 0, 19)
        _seconds("spin_s", self.spin_s, zero=True)

    def updated(self, changes: Mapping[str, Any]) -> NodeOptions:
        """Return a copy with ``changes``; an unknown option raises `OptionError`."""
        return _updated(self, changes, "options()")


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """How an edge carries messages.

    ``capacity`` (messages) and ``max_bytes`` (bytes) bound each channel of a ``block`` edge;
    with other policies, what waits of one sender replica (of each key's replica, with ``key``).
    ``key`` routes each key to one replica: a field name, an attribute name, or a callable.
    ``priority`` is the band; ``None`` takes the input port's, then NORMAL. ``policy`` says what
    happens at capacity (`dflow.policy`); ``ttl_s``: what has waited longer is dropped.
    ``cancellable``: messages may be emitted with an id, for `Run.cancel`.
    """

    policy: Policy | str = "block"
    capacity: int = DEFAULT_CAPACITY
    max_bytes: int = DEFAULT_MAX_BYTES
    key: str | Callable[[Any], Any] | None = None
    priority: Priority | None = None
    ttl_s: float | None = None
    cancellable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", as_policy(self.policy))
        if self.ttl_s is not None:
            _seconds("ttl_s", self.ttl_s)
        _whole("capacity", self.capacity, 1, MAX_CAPACITY)
        object.__setattr__(self, "max_bytes", parse_bytes(self.max_bytes))
        if self.key is not None and not isinstance(self.key, str) and not callable(self.key):
            raise OptionError(f"key: expected a field name or a callable, got {self.key!r}")
        _band(self.priority)
        if not isinstance(self.cancellable, bool):
            raise OptionError(f"cancellable: expected True or False, got {self.cancellable!r}")

    @property
    def overflow(self) -> Policy:
        """The policy, as what it always is after the check."""
        return as_policy(self.policy)

    def updated(self, changes: Mapping[str, Any]) -> EdgeOptions:
        """Return a copy with ``changes``; an unknown option raises `OptionError`."""
        return _updated(self, changes, "edge()")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run behaves.

    ``transport``: ``"ipc"`` (private directory) or ``"tcp"`` (loopback). ``start_method``:
    ``"fork"`` or ``"spawn"``; ``None`` picks fork on Linux. ``drain_timeout_s``: what a
    requested drain may take before the rest is abandoned. ``start_timeout_s``: from the
    first process to all nodes ready. ``stats_interval_s``: between two reports of a worker's
    counters, longer in large runs (`dflow.broker.pace`). ``log``: ``"human"`` or ``"json"``
    lines on stderr.
    ``check_types``: check every emitted value against its port's type. ``slots``: how many
    workers may compute at once before they take turns; ``None``: the cores this process may
    use, and only workers of different bands take turns; 0: they never do. ``shm_bytes``: shared
    memory each worker may make for large messages, ``512_000_000`` or ``"512MB"``; 0: none.
    ``bundle``: the directory in which a run that fails leaves its failure bundle
    (``docs/diagnosis.md``); ``None``: what ``DFLOW_BUNDLE`` says, else none is written.
    """

    transport: str = "ipc"
    start_method: str | None = None
    drain_timeout_s: float = 30.0
    start_timeout_s: float = 60.0
    stats_interval_s: float = 0.25
    log: str = "human"
    log_level: str = "INFO"
    check_types: bool = False
    slots: int | None = None
    shm_bytes: int = DEFAULT_SHM_BYTES
    bundle: str | None = None

    def __post_init__(self) -> None:
        _one_of("transport", self.transport, ("ipc", "tcp"))
        if self.start_method is not None:
            _one_of("start_method", self.start_method, ("fork", "spawn"))
        _seconds("drain_timeout_s", self.drain_timeout_s, zero=True)
        _seconds("start_timeout_s", self.start_timeout_s)
        _seconds("stats_interval_s", self.stats_interval_s)
        _one_of("log", self.log, ("human", "json"))
        levels = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
        _one_of("log_level", self.log_level, levels)
        if not isinstance(self.check_types, bool):
            raise OptionError(f"check_types: expected True or False, got {self.check_types!r}")
        if self.slots is not None:
            _whole("slots", self.slots, 0, MAX_SLOTS)
        if self.bundle is not None:
            _directory("bundle", self.bundle)
            object.__setattr__(self, "bundle", os.fspath(self.bundle))
        object.__setattr__(self, "shm_bytes", parse_bytes(self.shm_bytes, "shm_bytes", 0))

    def updated(self, changes: Mapping[str, Any]) -> RunOptions:
        """Return a copy with ``changes``; an unknown option raises `OptionError`."""
        return _updated(self, changes, "run()")


_Options = TypeVar("_Options", NodeOptions, EdgeOptions, RunOptions)


def _updated(options: _Options, changes: Mapping[str, Any], what: str) -> _Options:
    known = [f.name for f in fields(options)]
    for name in changes:
        if name not in known:
            raise OptionError(
                f"{what}: unknown option {name!r}{did_you_mean(name, known)}"
                f" (the options are {', '.join(known)})"
            )
    try:
        return replace(options, **changes)
    except OptionError as error:
        raise OptionError(f"{what}: {error}") from None
