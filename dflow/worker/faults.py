"""What goes wrong in user code: interrupting it, describing it, and not drowning in it."""

from __future__ import annotations

import functools
import inspect
import os
import traceback
from pathlib import Path
from types import GeneratorType
from typing import Any

import msgpack

from dflow.graph.node import Node, unknown_attribute

__all__ = ["ErrorLog", "Interrupted", "describe", "is_dflows", "place_of", "user_traceback"]

_NOT_THE_USERS = (
    str(Path(__file__).resolve().parent.parent) + os.sep,
    str(Path(msgpack.__file__).resolve().parent) + os.sep,
    "msgpack/",  # as its compiled modules name their sources
)
_FULL_REPORTS = 5
_EVERY_NS = 1_000_000_000


class Interrupted(BaseException):
    """Raised inside user code that blocks while its node must stop; never reaches a user."""


def is_dflows(path: str) -> bool:
    """Whether a source file is dflow's own, or its packer's."""
    return path.startswith(_NOT_THE_USERS)


def _user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not is_dflows(frame.filename)]


def describe(error: BaseException, returned_by: str = "") -> str:
    """Return ``Type: message (file.py:12 in function)``, pointing at the user's own line.

    A value that cannot travel has no such line when it was returned or yielded: then the
    function that did so, ``returned_by`` (`place_of`), stands in.
    """
    frames = _user_frames(error)
    said = _with_hint(error)
    text = f"{type(said).__name__}: {said}"
    if frames:
        last = frames[-1]
        return f"{text} ({last.filename}:{last.lineno} in {last.name})"
    return f"{text} (emitted by {returned_by})" if returned_by else text


def _with_hint(error: BaseException) -> BaseException:
    """Return the error that names a node's ports, for an attribute that the node does not have."""
    if not isinstance(error, AttributeError) or not isinstance(error.obj, Node):
        return error
    name = error.name or ""
    known = hasattr(type(error.obj), name)  # then a property raised it
    return error if known else unknown_attribute(error.obj, name)


def place_of(call: Any) -> str:
    """Return ``file.py:12 in function`` of what a worker calls; empty if it has no such place.

    Of a generator that has just yielded, the line of the ``yield``.
    """
    if isinstance(call, GeneratorType) and call.gi_frame is not None:
        return f"{call.gi_code.co_filename}:{call.gi_frame.f_lineno} in {call.gi_code.co_name}"
    while isinstance(call, functools.partial):
        call = call.func
    call = inspect.unwrap(call)
    code = getattr(getattr(call, "__func__", call), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno} in {code.co_name}" if code else ""


def user_traceback(error: BaseException) -> str:
    """Return the traceback without the frames of dflow and its packer."""
    lines = ["Traceback (most recent call last):\n"]
    lines += traceback.format_list(traceback.StackSummary.from_list(_user_frames(error)))
    lines += traceback.format_exception_only(type(error), error)
    return "".join(lines).rstrip()


class ErrorLog:
    """Decides which errors are worth a log line: the first few, then one a second."""

    __slots__ = ("_last_ns", "_reported", "_silent")

    def __init__(self) -> None:
        self._reported = 0
        self._silent = 0
        self._last_ns = 0

    def line(
        self, error: BaseException, where: str, now_ns: int, returned_by: str = ""
    ) -> str | None:
        """Return what to log about ``error``, or None to stay silent for now."""
        if self._reported >= _FULL_REPORTS and now_ns - self._last_ns < _EVERY_NS:
            self._silent += 1
            return None
        self._last_ns = now_ns
        self._reported += 1
        more = f" (and {self._silent} more since the last report)" if self._silent else ""
        self._silent = 0
        text = f"{where} raised {describe(error, returned_by)}; skipped{more}"
        return f"{text}\n{user_traceback(error)}" if self._reported <= _FULL_REPORTS else text

    def last_word(self) -> str | None:
        """Return what to log at the end about errors nobody has read of yet, or None."""
        silent, self._silent = self._silent, 0
        return f"{silent} more errors were skipped without a line of their own" if silent else None
