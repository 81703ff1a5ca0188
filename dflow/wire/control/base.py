"""What every control message is."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["Control"]


class Control:
    """Base of control messages."""

    __slots__ = ()
    code: ClassVar[int]
