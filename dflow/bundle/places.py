"""Where a process was, in one phrase, from the text of its stacks.

What matters is the innermost line of the user's own code on the thread that runs it; what lies
above (dflow) and below it (libraries) is in the file for whoever wants it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dflow.bundle.words import plain

__all__ = ["place_of"]

_FRAME = re.compile(r'\s*File "(?P<file>[^"]*)", line (?P<line>\d+),? in (?P<name>.*)')
_PY_SPY = re.compile(r"\s+(?P<name>\S.*) \((?P<file>.*):(?P<line>\d+)\)$")
_OURS = re.compile(
    r"[/\\]dflow[/\\](worker|launch|broker|transport|flow|wire|graph|bundle|runtime|cli|__main__)"
)
_LIBRARY = re.compile(r"[/\\](lib[/\\]python3|site-packages|dist-packages)|^<")
_WAITS = re.compile(
    r"[/\\]dflow[/\\](transport[/\\]poller|launch[/\\](questions|local)|runtime)\.py$"
)


@dataclass(frozen=True, slots=True)
class _Frame:
    file: str
    line: int
    name: str

    def __str__(self) -> str:
        name = self.file.replace("\\", "/").rpartition("/")[2]
        return plain(f"{name}:{self.line} in {self.name}", 200)


def place_of(stacks: str) -> str:
    """Return ``"at flows.py:19 in stuck"``, ``"waiting for messages"``, or "" if nobody knows."""
    if not stacks:
        return ""
    kernel = re.search(r"^State:\s*(\S.*)$", stacks, re.MULTILINE)
    frames = _frames(stacks)
    if not frames:
        return f"in state {plain(kernel[1], 50)}" if kernel is not None else ""
    for frame in (*frames, *_first_block(_of_tasks(stacks), innermost_first=False)):
        if not _OURS.search(frame.file) and not _LIBRARY.search(frame.file):
            return f"at {frame}"
    return "waiting for messages" if _WAITS.search(frames[0].file) else f"at {frames[0]}"


def _frames(stacks: str) -> list[_Frame]:
    """Return the frames of the thread that matters, the innermost first."""
    crashed = stacks.partition("Current thread ")[2]
    if crashed:  # the words of faulthandler
        return _first_block(crashed, innermost_first=True)
    own = stacks.partition("thread MainThread")[2]
    if own:
        return _first_block(own, innermost_first=False)
    spied = re.search(r'^Thread \d+ .*"MainThread"$', stacks, re.MULTILINE)
    if spied is not None:
        return _first_block(stacks[spied.end() :], innermost_first=True, frame=_PY_SPY)
    *_, last = stacks.split("(most recent call first):")  # faulthandler's main thread comes last
    return _first_block(last, innermost_first=True)


def _of_tasks(stacks: str) -> str:
    """Return the text from the first task on, if the thread runs tasks."""
    found = re.search(r"^task .*, most recent last:$", stacks, re.MULTILINE)
    return "" if found is None else stacks[found.end() :]


def _first_block(
    text: str, *, innermost_first: bool, frame: re.Pattern[str] = _FRAME
) -> list[_Frame]:
    frames: list[_Frame] = []
    for line in text.splitlines()[1:]:
        found = frame.match(line)
        if found is not None:
            frames.append(_Frame(found["file"], int(found["line"][:9]), found["name"]))
        elif not line.strip() or frame is _PY_SPY:
            break
    return frames if innermost_first else frames[::-1]
