"""A bundle on disk: written whole or not at all, and read as what it is, the work of strangers.

Written into a directory beside its place and renamed, for the owner alone. Read with a bound on
everything: no links are followed, nothing outside the directory is touched, a file is cut off
where it gets too long, and what is missing or damaged is said and not a reason to stop.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from dflow.bundle.words import plain, safe_name
from dflow.errors import BundleError

__all__ = ["INDEX", "MOST_FILES", "Bundle", "folder_name", "read", "write"]

INDEX = "bundle.json"
"""The file by which a directory is known for a bundle."""

_OURS = frozenset(
    {
        INDEX, "plan.json", "graph.mmd", "status.json", "counters.json", "run_queue.json",
        "environment.json", "report.json", "report.txt", "processes",
    }
)  # fmt: skip
"""By one of them a directory is known for what is left of a bundle."""

MOST_BYTES = 8 * 1024 * 1024
MOST_BYTES_IN_ALL = 256 * 1024 * 1024
MOST_FILES = 5000
_MOST_NAMES = 100
_MOST_DEPTH = 20


def folder_name(graph: str, run_id: str) -> str:
    """Return the name of a run's bundle."""
    return safe_name(f"dflow-{graph}-{run_id}")


def write(files: Mapping[str, str], base: str, name: str) -> str:
    """Write ``files`` (relative path to text) as the directory ``name`` in ``base``; return where.

    A taken name gets a number. Raises `BundleError`, with nothing left behind, if it cannot.
    """
    size = sum(len(text) for text in files.values())
    try:
        os.makedirs(base, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f".{name}-", dir=base)  # 0700
    except OSError as error:
        raise _cannot(base, size, error) from None
    try:
        folders = {place for name in files for place in PurePath(name).parents} - {PurePath(".")}
        for place in sorted(folders):
            (Path(made) / place).mkdir(mode=0o700)
        for name_inside, text in files.items():
            _write_file(Path(made) / name_inside, text)
        return _place(made, os.path.join(base, name))
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise _cannot(base, size, error) from None
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _write_file(path: Path, text: str) -> None:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(file, "w", encoding="utf-8", errors="backslashreplace") as out:
        out.write(text)


def _place(made: str, path: str) -> str:
    """Rename, to the first name that is free; a directory that is not empty is never replaced."""
    for number in range(1, _MOST_NAMES + 1):
        wanted = path if number == 1 else f"{path}-{number}"
        if os.path.lexists(wanted):
            continue
        try:
            os.rename(made, wanted)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return wanted
    raise FileExistsError(errno.EEXIST, "a hundred bundles of that name are there already")


def _cannot(base: str, size: int, error: OSError) -> BundleError:
    return BundleError(
        f"expected to write a bundle of about {max(1, size // 1024):,} KiB to {base}, got "
        f"{error.strerror or error}; make room or name another directory"
    )


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was found in the directory ``path``; ``problems``: what was not as it should be."""

    path: str
    files: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """Return a file, "" if there is none."""
        return self.files.get(name, "")

    def data(self, name: str) -> dict[str, Any]:
        """Return a file of JSON; {} and a problem noted if it is missing or no JSON object."""
        if name not in self.files:
            self._note(f"{name} is missing")
            return {}
        try:
            found = json.loads(self.files[name])
        except (ValueError, RecursionError) as error:
            self._note(f"{name} is damaged: {plain(str(error), 200)}")
            return {}
        if not isinstance(found, dict):
            self._note(f"{name} is damaged: expected an object, got {type(found).__name__}")
            return {}
        return found

    def require_known(self) -> None:
        """Raise `BundleError` if nothing here is what a bundle has."""
        if not any(name.partition("/")[0] in _OURS for name in self.files):
            raise BundleError(
                f"{plain(self.path)}: expected a bundle ({INDEX} and others), got "
                f"{len(self.files):,} files of something else; name the directory that the run "
                f"said it left"
            )

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def read(path: str) -> Bundle:
    """Return the bundle in the directory ``path``; raises `BundleError` if it is none."""
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(
            f"{plain(path)}: expected the directory of a bundle, got {error.strerror}"
        ) from None
    reader = _Reader()
    try:
        reader.directory(top, "", _MOST_DEPTH)
    finally:
        os.close(top)
    if not reader.files:
        raise BundleError(f"{plain(path)}: expected a bundle ({INDEX} and others), got no files")
    return Bundle(path, reader.files, reader.problems)


class _Reader:
    """Reads a directory with a bound on everything."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.problems: list[str] = []
        self._room = MOST_BYTES_IN_ALL

    def directory(self, fd: int, inside: str, depth: int) -> None:
        """Read what is in the open directory ``fd``, whose files are named ``inside`` + name."""
        for name in sorted(os.listdir(fd)):
            if len(self.files) >= MOST_FILES or len(self.problems) >= MOST_FILES:
                self.problems.append(f"more than {MOST_FILES:,} files: the rest was not read")
                return
            relative = f"{inside}{name}"
            try:
                self._entry(fd, name, relative, depth)
            except OSError as error:
                self.problems.append(f"{plain(relative)} cannot be read: {error.strerror}")

    def _entry(self, fd: int, name: str, relative: str, depth: int) -> None:
        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and depth > 0:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, flags, dir_fd=fd)
            try:
                self.directory(below, f"{relative}/", depth - 1)
            finally:
                os.close(below)
        elif stat.S_ISREG(mode):
            self.files[relative] = self._file(fd, name, relative)
        else:
            self.problems.append(f"{plain(relative)} is no file: it was not read")

    def _file(self, fd: int, name: str, relative: str) -> str:
        limit = min(MOST_BYTES, self._room)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(name, flags, dir_fd=fd), "rb") as file:
            data = file.read(limit + 1)
        long = len(data) > limit
        self._room -= min(len(data), limit)
        if long:
            self.problems.append(f"{plain(relative)}: beyond {limit:,} bytes it was not read")
        try:
            return data[:limit].decode()
        except UnicodeDecodeError:
            if not long:
                self.problems.append(f"{plain(relative)} is damaged: it is not UTF-8")
            return data[:limit].decode(errors="replace")
