"""`Problem`: one reason a graph cannot run, in three parts a user needs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    """``where`` (a node, port or edge), ``what`` is wrong, and the ``next_step``."""

    where: str
    what: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.next_step}"
