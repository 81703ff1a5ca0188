"""Text of strangers made harmless: for a terminal, and as the name of a file."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["moment", "plain", "safe_name", "when"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._\[\]-]")
_LONGEST_NAME = 80
# Controls, and what reorders or hides text on a terminal or in an editor (Trojan Source).
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def plain(text: str, limit: int = 100_000) -> str:
    """Return ``text`` with nothing in it that a terminal obeys: ESC becomes ``\\x1b`` to read."""
    short = text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
    harmless = _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), short)
    return harmless.encode(errors="backslashreplace").decode()


def safe_name(text: str) -> str:
    """Return a file name made of ``text``; not empty, hidden or in another directory."""
    name = _UNSAFE.sub("_", text)[:_LONGEST_NAME].lstrip(".")
    return name or "_"


def when(time_s: float) -> str:
    """Return a Unix time as text that sorts: ``2026-01-31T12:00:00.000000Z``."""
    try:
        there = datetime.fromtimestamp(time_s, UTC)
    except (ValueError, OverflowError, OSError):  # a peer's clock may say anything
        there = datetime.fromtimestamp(0, UTC)
    return there.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> float | None:
    """Return the Unix time that `when` wrote at the beginning of ``text``; None if it did not."""
    try:
        return datetime.strptime(text[:27], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
