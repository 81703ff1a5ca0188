"""The file of samples: one JSON object a line, written at once, readable whatever happened.

Each line is a single `write` at the end of the file, so a kill can tear the last line and no other.
Whoever reads leaves a torn last line out; whoever goes on writing cuts it off first. A disk that is
full costs samples and nothing else: what was written of a line is taken back, the loss is counted,
and the next line tries again. Rejected: a database (one more thing that can break in the middle of
a night) and keeping samples in memory (the soak would find its own leak).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Line", "SampleFile", "read"]

Line = dict[str, Any]
_TAIL_BYTES = 1 << 20


class SampleFile:
    """Appends lines to ``path``; raises OSError only when it cannot be opened.

    ``lost`` counts the lines that were not written since the last one that was, ``lost_in_all``
    all of them; ``trouble`` is what the system said, empty while all is well.
    """

    def __init__(self, path: Path, write: Callable[[int, bytes], int] = os.write) -> None:
        self.lost = 0
        self.lost_in_all = 0
        self.trouble = ""
        self._write = write
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = self._whole_bytes()
        os.ftruncate(self._file, self._size)

    def _whole_bytes(self) -> int:
        """Return the size without a torn last line."""
        size = os.fstat(self._file).st_size
        begin = max(0, size - _TAIL_BYTES)
        last = os.pread(self._file, size - begin, begin).rfind(b"\n")
        return begin + last + 1 if last >= 0 else 0

    def append(self, line: Line) -> bool:
        """Write ``line``; return whether it is in the file. After a loss it says ``lost``: N."""
        if self.lost:
            line = line | {"lost": self.lost}
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            written = self._write(self._file, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written")
        except OSError as error:
            self.lost += 1
            self.lost_in_all += 1
            self.trouble = error.strerror or str(error)
            os.ftruncate(self._file, self._size)
            return False
        self._size += written
        self.lost = 0
        self.trouble = ""
        return True

    def close(self) -> None:
        """Close the file; safe to repeat."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def read(path: Path) -> Iterator[Line]:
    """Yield the lines of ``path``, without a torn last one.

    Raises ValueError, with the number of the line, if any other is not a JSON object, and
    OSError if the file cannot be read.
    """
    with open(path, "rb") as file:
        for number, data in enumerate(file, 1):
            if not data.endswith(b"\n"):
                return
            try:
                line = json.loads(data)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: expected a JSON object, got {error}") from None
            if not isinstance(line, dict):
                raise ValueError(f"{path}:{number}: expected a JSON object, got {data[:40]!r}")
            yield line
