"""What happens to a message that an edge has no room for: the overflow policies.

``policy="latest"`` and ``policy=latest()`` mean the same; only `coalesce` needs a function and
so has no name as text. A policy acts at the sender, on what has no credit yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dflow.errors import OptionError, did_you_mean

__all__ = [
    "NAMES",
    "Policy",
    "as_policy",
    "block",
    "coalesce",
    "drop",
    "drop_oldest",
    "latest",
    "reject",
]

Merge = Callable[[Any, Any], Any]

NAMES = ("block", "drop", "drop_oldest", "latest", "coalesce", "reject")
"""Names of all policies."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy; made by the functions of this module. ``merge`` is coalesce's function."""

    name: str
    merge: Merge | None = None

    def __str__(self) -> str:
        return self.name


def block() -> Policy:
    """The sender waits: nothing is lost."""
    return Policy("block")


def drop() -> Policy:
    """The new message is dropped and counted."""
    return Policy("drop")


def drop_oldest() -> Policy:
    """The message that has waited longest is dropped and counted, the new one waits."""
    return Policy("drop_oldest")


def latest() -> Policy:
    """Only the newest message waits; the receiver gets it when it is ready for one."""
    return Policy("latest")


def coalesce(merge: Merge) -> Policy:
    """Merge the new message into the newest that waits: ``merge(waiting, new)``.

    A left fold in the order of emitting. ``merge`` runs in the sender and must be something
    that can be sent to a worker. If it raises, both messages are kept, as `drop_oldest` would.
    Raises `OptionError` if it cannot be called.
    """
    if not callable(merge):
        raise OptionError(f"coalesce: expected a function of two messages, got {merge!r}")
    return Policy("coalesce", merge)


def reject() -> Policy:
    """``emit`` and ``run.send`` raise `EdgeFull`; nothing was sent on any edge."""
    return Policy("reject")


def as_policy(value: object) -> Policy:
    """Return the policy meant by a `Policy` or its name; raises `OptionError`."""
    if isinstance(value, Policy):
        return value
    if callable(value) and getattr(value, "__module__", "") == __name__:
        name = getattr(value, "__name__", "")
        argument = "fn" if name == "coalesce" else ""
        raise OptionError(
            f"policy: expected a policy, got the function {name}; write {name}({argument})"
        )
    if value == "coalesce":
        raise OptionError("policy: 'coalesce' needs a function; write policy=coalesce(fn)")
    if not isinstance(value, str) or value not in NAMES:
        hint = did_you_mean(value, NAMES) if isinstance(value, str) else ""
        raise OptionError(
            f"policy: expected one of {', '.join(map(repr, NAMES))}, got {value!r}{hint}"
        )
    return Policy(value)
