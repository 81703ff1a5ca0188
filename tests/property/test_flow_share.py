"""How the messages of a lane are shared out: never too much, never held back, evened out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dflow.flow.sharing import share_out

messages = st.integers(0, 200)
some_rooms = st.lists(st.integers(-3, 50), min_size=1, max_size=6)


@given(messages, some_rooms, st.integers(0, 5))
def test_no_channel_gets_more_than_its_room(count: int, rooms: list[int], first: int) -> None:
    shares = share_out(count, rooms, first)
    assert all(0 <= share <= max(room, 0) for share, room in zip(shares, rooms, strict=True))


@given(messages, some_rooms, st.integers(0, 5))
def test_nothing_is_held_back_and_nothing_is_made_up(
    count: int, rooms: list[int], first: int
) -> None:
    total = sum(max(room, 0) for room in rooms)
    assert sum(share_out(count, rooms, first)) == min(count, total)


@given(messages, some_rooms, st.integers(0, 5))
def test_channels_that_got_something_end_with_equal_rooms(
    count: int, rooms: list[int], first: int
) -> None:
    shares = share_out(count, rooms, first)
    left = [room - share for room, share in zip(rooms, shares, strict=True)]
    served = [rest for rest, share in zip(left, shares, strict=True) if share]
    if served:
        assert max(served) - min(served) <= 1
        # who got nothing had no more room than the others have left, or lost a tie by one
        assert max(left) <= min(served) + 1


@given(st.integers(1, 6), st.integers(1, 40))
def test_ties_go_round_robin(channels: int, room: int) -> None:
    winners = [share_out(1, [room] * channels, first).index(1) for first in range(channels)]
    assert winners == list(range(channels))
