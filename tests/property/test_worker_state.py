"""A worker's life: every (phase, event) pair, and the way from the first word to the last.

The table below is the expectation, written again by hand from DESIGN §7 and not read from the
machine's own, so that a slip in either shows.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.errors import ProtocolError
from dflow.wire import control as c
from dflow.worker import state as s
from dflow.worker.state import TABLE, Phase, Simple, WorkerState

P = Phase

EVENTS: dict[str, s.Event] = {
    "Assign": c.Assign("a", 0, "run-1", 1),
    "Link": c.Link([[3, "ipc:///x"]]),
    "WELCOMED": Simple.WELCOMED,
    "Start": c.Start(),
    "on_start": s.HookReturned("on_start"),
    "Run": c.Run(),
    "Drain": c.Drain(),
    "DrainNode": c.DrainNode("a"),
    "Pause": c.Pause("a", 1),
    "EXHAUSTED": Simple.EXHAUSTED,
    "on_end": s.HookReturned("on_end"),
    "FLUSHED": Simple.FLUSHED,
    "Stop": c.Stop(),
    "on_stop": s.HookReturned("on_stop"),
    "on_tick": s.HookReturned("on_tick"),
    "HookRaised": s.HookRaised("handler", "ValueError: x", "Traceback"),
    "Stats": c.Stats([]),
    "Abort": c.Abort("asked to"),
    "Exit": c.Exit(),
    "Refused": c.Refused("wrong token"),
    "Ping": c.Ping(),
}
ALWAYS = {"Abort", "Exit", "Refused", "Ping"}

WAY: dict[Phase, dict[str, Phase]] = {
    P.JOINING: {"Assign": P.BOUND},
    P.BOUND: {"Link": P.LINKING},
    P.LINKING: {"WELCOMED": P.LINKED, "HookRaised": P.FAILED},
    P.LINKED: {"Start": P.STARTING, "HookRaised": P.FAILED},
    P.STARTING: {"on_start": P.READY, "HookRaised": P.FAILED},
    P.READY: {"Run": P.RUNNING, "HookRaised": P.FAILED},
    P.RUNNING: {
        "Drain": P.RUNNING,
        "DrainNode": P.RUNNING,
        "Pause": P.RUNNING,
        "EXHAUSTED": P.ENDING,
        "HookRaised": P.FAILED,
    },
    P.ENDING: {
        "Drain": P.ENDING,
        "DrainNode": P.ENDING,
        "Pause": P.ENDING,
        "on_end": P.FLUSHING,
        "HookRaised": P.FAILED,
    },
    P.FLUSHING: {
        "Drain": P.FLUSHING,
        "DrainNode": P.FLUSHING,
        "Pause": P.FLUSHING,
        "FLUSHED": P.DRAINED,
        "HookRaised": P.FAILED,
    },
    P.DRAINED: {
        "Drain": P.DRAINED,
        "DrainNode": P.DRAINED,
        "Pause": P.DRAINED,
        "Stop": P.STOPPING,
        "HookRaised": P.FAILED,
    },
    P.STOPPING: {"on_stop": P.STOPPED},
    P.STOPPED: {},
    P.FAILED: {
        "HookRaised": P.FAILED,
        "Drain": P.FAILED,
        "DrainNode": P.FAILED,
        "Pause": P.FAILED,
        "Stop": P.FAILED,
    },
    P.GONE: {},
}
STARTED = {P.READY, P.RUNNING, P.ENDING, P.FLUSHING, P.DRAINED, P.STOPPING, P.STOPPED}

ROUTES = {
    P.JOINING: "",
    P.BOUND: "Assign",
    P.LINKING: "Assign Link",
    P.LINKED: "Assign Link WELCOMED",
    P.STARTING: "Assign Link WELCOMED Start",
    P.READY: "Assign Link WELCOMED Start on_start",
    P.RUNNING: "Assign Link WELCOMED Start on_start Run",
    P.ENDING: "Assign Link WELCOMED Start on_start Run EXHAUSTED",
    P.FLUSHING: "Assign Link WELCOMED Start on_start Run EXHAUSTED on_end",
    P.DRAINED: "Assign Link WELCOMED Start on_start Run EXHAUSTED on_end FLUSHED",
    P.STOPPING: "Assign Link WELCOMED Start on_start Run EXHAUSTED on_end FLUSHED Stop",
    P.STOPPED: "Assign Link WELCOMED Start on_start Run EXHAUSTED on_end FLUSHED Stop on_stop",
    P.FAILED: "Assign Link WELCOMED Start HookRaised",
    P.GONE: "Exit",
}


def at(phase: Phase) -> WorkerState:
    """Return a worker that has come to ``phase`` the ordinary way."""
    state = WorkerState()
    for name in ROUTES[phase].split():
        state.handle(EVENTS[name])
    assert state.phase is phase
    return state


def heard(instructions: list[s.Instruction]) -> list[str]:
    """Return the instructions in words, messages by their class."""
    words = []
    for one in instructions:
        if isinstance(one, s.Say):
            words.append(f"say {type(one.message).__name__}")
        elif isinstance(one, s.CallHook):
            words.append(f"call {one.name}")
        else:
            words.append(type(one).__name__)
    return words


LEGAL = [(phase, event, after) for phase, row in WAY.items() for event, after in row.items()]
ILLEGAL = [
    (phase, event)
    for phase, row in WAY.items()
    for event in EVENTS
    if event not in row and event not in ALWAYS
]


@pytest.mark.parametrize(("phase", "event", "after"), LEGAL)
def test_a_legal_event_goes_where_the_table_says(phase: Phase, event: str, after: Phase) -> None:
    state = at(phase)
    state.handle(EVENTS[event])
    assert state.phase is after
    assert state.started == (phase in STARTED or event == "on_start")


@pytest.mark.parametrize(("phase", "event"), ILLEGAL)
def test_an_illegal_event_raises_and_changes_nothing(phase: Phase, event: str) -> None:
    state = at(phase)
    started = state.started
    with pytest.raises(ProtocolError, match=f"worker in phase {phase.value}: expected"):
        state.handle(EVENTS[event])
    assert (state.phase, state.started) == (phase, started)


@pytest.mark.parametrize("phase", [phase for phase in P if phase is not P.GONE])
def test_abort_calls_on_stop_exactly_when_on_start_has_returned(phase: Phase) -> None:
    state = at(phase)
    instructions = heard(state.handle(EVENTS["Abort"]))
    if phase in (P.STOPPING, P.STOPPED):
        assert (state.phase, instructions) == (phase, [])
    elif phase in STARTED:
        assert (state.phase, instructions) == (P.STOPPING, ["StopWork", "call on_stop"])
    else:
        assert (state.phase, instructions) == (P.STOPPED, ["StopWork", "say Stopped"])


def test_abort_after_a_failure_in_the_run_calls_on_stop() -> None:
    state = at(P.RUNNING)
    assert heard(state.handle(EVENTS["HookRaised"])) == ["say Failed"]
    assert state.phase is P.FAILED
    assert heard(state.handle(EVENTS["Abort"])) == ["StopWork", "call on_stop"]


@pytest.mark.parametrize("phase", P)
def test_ping_changes_nothing_anywhere(phase: Phase) -> None:
    state = at(phase)
    assert state.handle(c.Ping()) == []
    assert state.phase is phase


@pytest.mark.parametrize("phase", P)
@pytest.mark.parametrize(("event", "reason"), [("Exit", ""), ("Refused", "wrong token")])
def test_exit_and_refusal_end_it_anywhere(phase: Phase, event: str, reason: str) -> None:
    state = at(phase)
    assert state.handle(EVENTS[event]) == [s.Leave(reason)]
    assert state.phase is P.GONE


def test_abort_after_leaving_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="phase gone"):
        at(P.GONE).handle(c.Abort("late"))


def test_the_machine_knows_no_more_and_no_less_than_the_expectation() -> None:
    def word(key: Any) -> str:
        return (
            key if isinstance(key, str) else key.name if isinstance(key, Simple) else key.__name__
        )

    known = {
        phase: {word(key): after for key, after in row.items() if word(key) not in ALWAYS}
        for phase, row in TABLE.items()
    }
    assert known == WAY


# --- what it does on the way ---------------------------------------------------------------------

SAID = {
    "Assign": ["Bind"],
    "Link": ["OpenChannels"],
    "WELCOMED": ["say Linked"],
    "Start": ["call on_start"],
    "on_start": ["say Started"],
    "Run": ["BeginRun"],
    "EXHAUSTED": ["call on_end"],
    "on_end": [],
    "FLUSHED": ["EndChannels", "say Drained"],
    "Stop": ["call on_stop"],
    "on_stop": ["say Stopped"],
    "Exit": ["Leave"],
}


def test_an_ordinary_life() -> None:
    state = WorkerState()
    assert {name: heard(state.handle(EVENTS[name])) for name in SAID} == SAID
    assert state.phase is P.GONE


def test_channels_are_opened_as_the_coordinator_says() -> None:
    assert at(P.BOUND).handle(EVENTS["Link"]) == [s.OpenChannels([[3, "ipc:///x"]])]


TOLD_TO_END = [P.RUNNING, P.ENDING, P.FLUSHING, P.DRAINED, P.FAILED]


@pytest.mark.parametrize("word", [c.Drain(), c.DrainNode("a")], ids=["run", "node"])
@pytest.mark.parametrize("phase", TOLD_TO_END)
def test_drain_closes_the_inputs_of_a_running_worker_only(phase: Phase, word: s.Event) -> None:
    expected = ["CloseInputs"] if phase is P.RUNNING else []
    assert heard(at(phase).handle(word)) == expected


@pytest.mark.parametrize("paused", [0, 1])
@pytest.mark.parametrize("phase", TOLD_TO_END)
def test_pause_holds_a_running_worker_only(phase: Phase, paused: int) -> None:
    expected = [s.Hold("a", bool(paused))] if phase is P.RUNNING else []
    assert at(phase).handle(c.Pause("a", paused)) == expected


@pytest.mark.parametrize("phase", TOLD_TO_END)
def test_a_pause_that_asks_is_answered_even_when_it_is_too_late(phase: Phase) -> None:
    assert at(phase).handle(c.Pause("a", 1, 7))[-1:] == [s.Say(c.Held(7))]


def test_only_the_first_failure_is_told() -> None:
    state = at(P.RUNNING)
    first = s.HookRaised("handler", "ValueError: x", "Traceback")
    assert state.handle(first) == [s.Say(c.Failed("handler", "ValueError: x", "Traceback"))]
    assert state.handle(s.HookRaised("on_tick", "again", "")) == []


def test_an_error_names_what_was_expected_and_what_was_got() -> None:
    with pytest.raises(ProtocolError) as caught:
        at(P.FLUSHING).handle(Simple.WELCOMED)
    assert str(caught.value) == (
        "worker in phase flushing: expected one of Drain, DrainNode, FLUSHED, HookRaised, Pause, "
        "got WELCOMED"
    )


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=30))
def test_no_sequence_of_events_breaks_the_order_of_hooks(names: list[str]) -> None:
    state = WorkerState()
    done: list[str] = []
    for name in names:
        try:
            done += heard(state.handle(EVENTS[name]))
        except ProtocolError:
            continue
    for once in ("Bind", "call on_start", "call on_stop", "BeginRun", "EndChannels", "say Stopped"):
        assert done.count(once) <= 1
    assert done.count("say Failed") <= 1
    if "call on_stop" in done:  # owed only by a worker that was started
        assert done.index("say Started") < done.index("call on_stop")
    if "say Drained" in done:
        assert done.index("call on_end") < done.index("say Drained")
        assert done.index("EndChannels") < done.index("say Drained")
