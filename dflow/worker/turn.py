"""The worker's half of the turns that `dflow.broker.turns` hands out. Pure.

A worker has a standing turn until the coordinator says otherwise. In turns it computes until its
turn is over or there is nothing to do; then it says so and waits to be told.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["OwnTurn"]

HAS_NOTHING_TO_DO, WANTS_ANOTHER = 0, 1
"""What `TurnOver` says."""


class _State(Enum):
    STANDING = "standing"
    HOLDING = "holding"
    RESTING = "resting"
    WAITING = "waiting"


class OwnTurn:
    """Whether this worker may compute. ``rationed``: `mind` wants to be asked every round."""

    __slots__ = ("_state", "_until_ns", "rationed")

    def __init__(self) -> None:
        self._state = _State.STANDING
        self._until_ns = 0
        self.rationed = False

    @property
    def held(self) -> bool:
        """Whether the node must be held."""
        return self._state is _State.WAITING

    def given(self, seconds: float, now_ns: int) -> None:
        """Take in a `Turn`: for ``seconds``, 0 until further notice, < 0 not now."""
        self.rationed = seconds != 0
        if seconds > 0:
            self._state = _State.HOLDING
            self._until_ns = now_ns + int(seconds * 1e9)
        else:
            self._state = _State.WAITING if seconds else _State.STANDING

    def mind(self, ready: bool, now_ns: int) -> int | None:
        """Return what `TurnOver` has to say now, or None. ``ready``: there is something to do."""
        if self._state is _State.HOLDING and not ready:
            self._state = _State.RESTING
            return HAS_NOTHING_TO_DO
        if (self._state is _State.HOLDING and now_ns >= self._until_ns) or (
            self._state is _State.RESTING and ready
        ):
            self._state = _State.WAITING
            return WANTS_ANOTHER
        return None
