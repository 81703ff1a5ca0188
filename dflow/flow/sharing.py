"""How the messages of one lane or queue are shared out over its channels."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["share_out"]


def share_out(messages: int, rooms: Sequence[int], first: int = 0) -> list[int]:
    """Return how many of ``messages`` each channel gets, evening out what is left.

    Channels with more room get more, so that the remaining rooms are as equal as they can
    be (water-filling); ties go round robin, beginning at ``first``. No channel gets more
    than its room, and nothing is held back while there is room.
    """
    count = len(rooms)
    shares = [0] * count
    left = min(messages, sum(room for room in rooms if room > 0))
    if left <= 0:
        return shares
    order = sorted(range(count), key=lambda i: (-rooms[i], (i - first) % count))
    filled = 1
    # Lower the highest rooms together to the level of the next one, until nothing is left.
    while filled < count and left > 0:
        step = (rooms[order[0]] - shares[order[0]]) - max(rooms[order[filled]], 0)
        if step * filled >= left:
            break
        for i in order[:filled]:
            shares[i] += step
        left -= step * filled
        filled += 1
    each, extra = divmod(left, filled)
    for position, i in enumerate(order[:filled]):
        shares[i] += each + (position < extra)
    return shares
