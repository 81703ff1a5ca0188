"""The two tables, stated a second time and in another form: every (state, event) pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import pytest

from dflow.broker.lifecycle import (
    ENDED,
    HELD,
    PARTICIPANT,
    RUN,
    Move,
    Phase,
    Role,
    RunEvent,
    Step,
    advance,
)
from dflow.errors import ProtocolError

# One row a state, one column an event; "." is illegal.
WORKER_GRID = """
          joined bound linking? linked start    started run     drained  stop     abort    stopped leave   lose vacate
absent    joined .     .        .      .        .       .       .        .        gone     .       .       gone .
joined    .      bound .        .      .        .       .       .        .        aborting .       .       gone absent
bound     .      .     linking  .      .        .       .       .        .        aborting .       .       gone absent
linking   .      .     .        linked .        .       .       .        .        aborting .       .       gone .
linked    .      .     .        .      starting .       .       .        .        aborting .       .       gone .
starting  .      .     .        .      .        started .       .        .        aborting .       .       gone .
started   .      .     .        .      .        .       running .        .        aborting .       .       gone .
running   .      .     .        .      .        .       .       drained  .        aborting .       .       gone .
drained   .      .     .        .      .        .       .       .        stopping aborting .       .       gone .
stopping  .      .     .        .      .        .       .       .        .        aborting stopped .       gone .
aborting  .  aborting  .    aborting   .      aborting  .       aborting .        aborting stopped .       gone .
stopped   .      .     .        .      .        .       .       .        .        stopped  .       leaving gone .
leaving   .      .     .        .      .        .       .       .        .        leaving  .       .       gone .
gone      .      .     .        .      .        .       .       .        .        gone     .       .       gone .
"""  # noqa: E501  # a table
HANDLE_GRID = """
          joined bound linking? linked start    started run     drained  stop     abort    stopped leave   lose vacate
absent    joined .     .        .      .        .       .       .        .        gone     .       .       gone .
joined    .      bound .        .      .        .       .       .        .        aborting .       .       gone .
bound     .      .     linking  .      .        .       .       .        .        aborting .       .       gone .
linking   .      .     .        linked .        .       .       .        .        aborting .       .       gone .
linked    .      .     .        .      .        .       running .        .        aborting .       .       gone .
starting  .      .     .        .      .        .       .       .        .        .        .       .       .    .
started   .      .     .        .      .        .       .       .        .        .        .       .       .    .
running   .      .     .        .      .        .       .       drained  stopping aborting .       .       gone .
drained   .      .     .        .      .        .       .       .        stopping aborting .       .       gone .
stopping  .      .     .        .      .        .       .       stopping .        aborting stopped .       gone .
aborting  .  aborting  .    aborting   .      aborting  .       aborting .        aborting stopped .       gone .
stopped   .      .     .        .      .        .       .       .        .        stopped  .       leaving gone .
leaving   .      .     .        .      .        .       .       .        .        leaving  .       .       gone .
gone      .      .     .        .      .        .       .       .        .        gone     .       .       gone .
"""  # noqa: E501  # a table
RUN_GRID = """
          joined  bound   linked   started drained  stopped gone     drain    fail     abort
waiting   binding .       .        .       .        .       .        aborting aborting aborting
binding   .       linking .        .       .        .       .        aborting aborting aborting
linking   .       .       starting .       .        .       .        aborting aborting aborting
starting  .       .       .        running .        .       .        aborting aborting aborting
running   .       .       .        .       stopping .       .        draining aborting aborting
draining  .       .       .        .       stopping .       .        draining aborting aborting
stopping  .       .       .        .       .        leaving .        stopping stopping aborting
aborting  .       .       .        .       .        leaving .        aborting aborting aborting
leaving   .       .       .        .       .        .       finished leaving  leaving  leaving
finished  .       .       .        .       .        .       .        finished finished finished
"""
MOVES = [
    Move.JOINED, Move.BOUND, Move.LINK, Move.LINKED, Move.START, Move.STARTED, Move.RUN,
    Move.DRAINED, Move.STOP, Move.ABORT, Move.STOPPED, Move.LEAVE, Move.LOSE, Move.VACATE,
]  # fmt: skip
RUN_EVENTS = [
    RunEvent.ALL_JOINED, RunEvent.ALL_BOUND, RunEvent.ALL_LINKED, RunEvent.ALL_STARTED,
    RunEvent.ALL_DRAINED, RunEvent.ALL_STOPPED, RunEvent.ALL_GONE, RunEvent.DRAIN, RunEvent.FAIL,
    RunEvent.ABORT,
]  # fmt: skip

Table = Mapping[Any, Mapping[Any, Any]]


def pairs(table: Table, grid: str, states: type[Enum], events: list[Any]) -> Iterator[Any]:
    """Yield (table, state, event, expected next state or None) for every pair."""
    every: list[Any] = [*Move] if events[0] in Move else [*RunEvent]
    assert set(events) == set(every)
    rows = [line.split() for line in grid.strip().splitlines()[1:]]
    assert [row[0] for row in rows] == [state.value for state in states]
    for state, *cells in rows:
        for event, cell in zip(events, cells, strict=True):
            expected = None if cell == "." else states(cell)
            yield pytest.param(table, states(state), event, expected, id=f"{state}, {event.value}")


@pytest.mark.parametrize(
    ("table", "state", "event", "expected"),
    [
        *pairs(PARTICIPANT[Role.WORKER], WORKER_GRID, Step, MOVES),
        *pairs(PARTICIPANT[Role.HANDLE], HANDLE_GRID, Step, MOVES),
        *pairs(RUN, RUN_GRID, Phase, RUN_EVENTS),
    ],
)
def test_every_pair_of_state_and_event(table: Table, state: Any, event: Any, expected: Any) -> None:
    if expected is not None:
        assert advance(table, state, event, "x") is expected
        return
    with pytest.raises(ProtocolError) as caught:
        advance(table, state, event, "square[0]")
    assert str(caught.value).startswith("square[0]: expected ")
    assert repr(event.value) in str(caught.value)
    assert repr(state.value) in str(caught.value)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("step", [s for s in Step if s not in (Step.STARTING, Step.STARTED)])
def test_any_participant_can_be_lost_or_aborted_at_any_step(role: Role, step: Step) -> None:
    assert PARTICIPANT[role][step][Move.LOSE] is Step.GONE
    assert PARTICIPANT[role][step][Move.ABORT] in ENDED | {Step.ABORTING}


@pytest.mark.parametrize("phase", list(Phase))
def test_any_phase_can_reach_the_end_and_take_any_request(phase: Phase) -> None:
    reached, frontier = {phase}, [phase]
    while frontier:
        for after in RUN[frontier.pop()].values():
            if after not in reached:
                reached.add(after)
                frontier.append(after)
    assert Phase.FINISHED in reached
    assert {RunEvent.DRAIN, RunEvent.FAIL, RunEvent.ABORT} <= set(RUN[phase])


def test_no_phase_but_starting_leads_to_running() -> None:
    assert [p for p in Phase if Phase.RUNNING in RUN[p].values()] == [Phase.STARTING]


def test_every_phase_says_which_steps_it_may_hold() -> None:
    assert set(HELD) == set(Phase)
    assert set().union(*HELD.values()) == set(Step)
