"""What the coordinator does with every event in every phase, whoever it comes from.

The tables tell where the run is afterwards: a phase, "=" for the same as before, "." if the event
was ignored (and counted). A finished run does nothing any more: that is not in the tables.
"""

from __future__ import annotations

from typing import get_args

import pytest

from dflow.broker.events import (
    AbortRequested,
    DrainRequested,
    Event,
    Garbled,
    Kept,
    Received,
    Send,
    Tick,
    Unreachable,
    WorkerExited,
)
from dflow.broker.lifecycle import Phase
from dflow.broker.state import CoordinatorState
from dflow.message import Priority
from dflow.options import RunOptions
from dflow.wire import control as c
from dflow.wire.control import said
from tests.unit.broker_pair import HANDLE, TOKEN, Fake, make_plan

PLAN = make_plan([("a", "b"), ("b", "c")], {"b": 2}, results=["c"])
WORKER, LAUNCHER = Fake(PLAN.workers[0]), Fake(HANDLE)
GUEST = b"guest"
GUESTS_HELLO = c.Hello("observer", TOKEN, 1, "here")

WORDS: dict[str, c.Control] = {
    "Hello": c.Hello("worker", TOKEN, 100, "here", "a"),
    "Bound": c.Bound({int(Priority.NORMAL): "ipc:///x"}),
    "Linked": c.Linked(),
    "Started": c.Started(),
    "Drained": c.Drained(),
    "Stopped": c.Stopped([]),
    "Stats": c.Stats([]),
    "Failed": c.Failed("handler", "E", ""),
    "Heartbeat": c.Heartbeat(),
    "Log": c.Log("INFO", 0.0, "text", "app", 1, {}),
    "Dumped": c.Dumped(9, "{}"),
    "Found": c.Found(9, "unknown", []),
    "Outcome": c.Outcome(9, "unknown"),
    "Held": c.Held(9),
    "TurnOver": c.TurnOver(0),
    "StatusRequest": c.StatusRequest(1),
    "DrainRequest": c.DrainRequest(3.0),
    "AbortRequest": c.AbortRequest("r"),
    "Locate": c.Locate(1, "b", "in"),
    "PauseRequest": c.PauseRequest(1, "b", 1),
    "DrainNodeRequest": c.DrainNodeRequest(1, "b"),
    "CancelRequest": c.CancelRequest(1, "m", []),
    "DumpRequest": c.DumpRequest(1),
    "Exit": c.Exit(),  # one that only the coordinator says
}

OF_A_WORKER = """
                 waiting  binding  linking  starting running  draining stopping aborting leaving
Hello            .        .        .        .        .        .        .        .        .
Bound            =        =        .        .        .        .        .        =        .
Linked           .        .        =        .        .        .        .        =        .
Started          .        .        .        =        .        .        .        =        .
Drained          .        .        .        .        =        =        .        =        .
Stopped          .        .        .        .        .        .        .        =        .
Stats            .        .        .        .        .        .        .        .        =
Failed           aborting aborting aborting aborting aborting aborting =        =        =
Heartbeat        =        =        =        =        =        =        =        =        =
Log              =        =        =        =        =        =        =        =        =
Dumped           =        =        =        =        =        =        =        =        =
Found            =        =        =        =        =        =        =        =        =
Outcome          =        =        =        =        =        =        =        =        =
Held             =        =        =        =        =        =        =        =        =
TurnOver         =        =        =        =        =        =        =        =        =
StatusRequest    .        .        .        .        .        .        .        .        .
DrainRequest     .        .        .        .        .        .        .        .        .
AbortRequest     .        .        .        .        .        .        .        .        .
Locate           .        .        .        .        .        .        .        .        .
PauseRequest     .        .        .        .        .        .        .        .        .
DrainNodeRequest .        .        .        .        .        .        .        .        .
CancelRequest    .        .        .        .        .        .        .        .        .
DumpRequest      .        .        .        .        .        .        .        .        .
Exit             .        .        .        .        .        .        .        .        .
"""
# While the run waits the launching process is the one that has not joined: it is a stranger.
OF_THE_LAUNCHER = """
                 waiting  binding  linking  starting running  draining stopping aborting leaving
Hello            binding  .        .        .        .        .        .        .        .
Bound            .        =        .        .        .        .        .        =        .
Linked           .        .        =        .        .        .        .        =        .
Started          .        .        .        .        .        .        .        =        .
Drained          .        .        .        .        =        =        =        =        .
Stopped          .        .        .        .        .        .        =        =        .
Stats            .        .        .        .        .        .        .        .        =
Failed           .        aborting aborting aborting aborting aborting =        =        =
Heartbeat        .        =        =        =        =        =        =        =        =
Log              .        =        =        =        =        =        =        =        =
Dumped           .        =        =        =        =        =        =        =        =
Found            .        =        =        =        =        =        =        =        =
Outcome          .        =        =        =        =        =        =        =        =
Held             .        =        =        =        =        =        =        =        =
TurnOver         .        =        =        =        =        =        =        =        =
StatusRequest    .        =        =        =        =        =        =        =        =
DrainRequest     .        aborting aborting aborting draining =        =        =        =
AbortRequest     .        aborting aborting aborting aborting aborting aborting =        =
Locate           .        =        =        =        =        =        =        =        =
PauseRequest     .        =        =        =        =        =        =        =        =
DrainNodeRequest .        =        =        =        =        =        =        =        =
CancelRequest    .        =        =        =        =        =        =        =        =
DumpRequest      .        =        =        =        =        =        =        =        =
Exit             .        .        .        .        .        .        .        .        .
"""
OF_OTHERS = """
                 waiting  binding  linking  starting running  draining stopping aborting leaving
Garbled          .        .        .        .        .        .        .        .        .
Unreachable      =        =        =        =        =        =        =        =        =
WorkerExited     aborting aborting aborting aborting aborting aborting =        =        =
DrainRequested   aborting aborting aborting aborting draining =        =        =        =
AbortRequested   aborting aborting aborting aborting aborting aborting aborting =        =
Tick             =        =        =        =        =        =        =        =        =
Kept             =        =        =        =        =        =        =        =        =
"""
ANSWERED_TO_GUESTS = {"Hello", "Heartbeat", "StatusRequest", "DumpRequest"}
"""What somebody who looks on may say; it never changes the run."""

EVENTS: dict[str, Event] = {
    "Garbled": Garbled(WORKER.key, "no message"),
    "Unreachable": Unreachable(WORKER.key),
    "WorkerExited": WorkerExited(WORKER.worker, 100, None, "SIGKILL"),
    "DrainRequested": DrainRequested(),
    "AbortRequested": AbortRequested("r"),
    "Tick": Tick(),
    "Kept": Kept("/x"),
}
PHASES: list[Phase] = [phase for phase in Phase if phase is not Phase.FINISHED]


def at_phase(phase: Phase) -> CoordinatorState:
    """Return a run that came to ``phase`` the ordinary way; its first source takes its time."""
    state = CoordinatorState(PLAN, RunOptions(), "r", TOKEN)
    fakes = [Fake(worker) for worker in (*PLAN.workers, HANDLE)]
    slow, others = fakes[0], fakes[1:]

    def say(who: list[Fake], word: c.Control) -> None:
        for fake in who:
            state.handle(Received(fake.key, word), 0.0)

    for fake in fakes[:-1] if phase is Phase.WAITING else fakes:
        state.handle(Received(fake.key, fake.hello()), 0.0)
    way: list[tuple[Phase, c.Control]] = [
        (Phase.BINDING, WORDS["Bound"]), (Phase.LINKING, WORDS["Linked"]),
        (Phase.STARTING, WORDS["Started"]),
    ]  # fmt: skip
    for before, word in way:
        if phase in (Phase.WAITING, before):
            break
        for _ in fakes:  # level by level
            say(fakes, word)
    if phase in (Phase.DRAINING, Phase.STOPPING):
        say(fakes[-1:], c.DrainRequest(5.0))
    if phase is Phase.STOPPING:
        say([slow, *others], WORDS["Drained"])
    if phase in (Phase.ABORTING, Phase.LEAVING, Phase.FINISHED):
        say(fakes[-1:], c.AbortRequest("r"))
    if phase in (Phase.LEAVING, Phase.FINISHED):
        say(fakes, WORDS["Stopped"])
    if phase is Phase.FINISHED:
        for fake in fakes:
            state.handle(WorkerExited(fake.worker, 100, 0, None), 0.0)
    assert state.phase is phase
    return state


def expected(table: str, row: str, phase: Phase) -> str:
    """Return what a table says."""
    rows = {line.split()[0]: line.split()[1:] for line in table.strip().splitlines()}
    head = table.split("\n")[1].split()
    assert head == [one.value for one in PHASES]
    told = rows[row][head.index(phase.value)]
    return phase.value if told == "=" else told


def happens(state: CoordinatorState, event: Event) -> str:
    """Return where the run is after an event, "." if it was ignored and nothing has changed."""
    before = state.status().to_dict(), state.phase, sum(state.ignored.values())
    state.handle(event, 0.0)
    state.validate_state()
    if sum(state.ignored.values()) == before[2]:
        return state.phase.value
    assert sum(state.ignored.values()) == before[2] + 1
    assert (state.status().to_dict(), state.phase) == before[:2]
    return "."


def test_the_tables_have_every_event_and_every_word() -> None:
    assert {type(word).__name__ for word in WORDS.values()} == {*said.__all__, "Exit"}
    assert {*EVENTS, "Received"} == {kind.__name__ for kind in get_args(Event)}
    for table, names in ((OF_A_WORKER, WORDS), (OF_THE_LAUNCHER, WORDS), (OF_OTHERS, EVENTS)):
        assert [line.split()[0] for line in table.strip().splitlines()[1:]] == list(names)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_a_worker_in_every_phase(phase: Phase, word: str) -> None:
    told = Received(WORKER.key, WORDS[word])
    assert happens(at_phase(phase), told) == expected(OF_A_WORKER, word, phase)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_the_launching_process_in_every_phase(phase: Phase, word: str) -> None:
    message = LAUNCHER.hello() if word == "Hello" else WORDS[word]
    told = Received(LAUNCHER.key, message)
    assert happens(at_phase(phase), told) == expected(OF_THE_LAUNCHER, word, phase)


@pytest.mark.parametrize("phase", PHASES)
def test_every_word_of_somebody_who_looks_on_in_every_phase(phase: Phase) -> None:
    for word, message in WORDS.items():
        state = at_phase(phase)
        state.handle(Received(GUEST, GUESTS_HELLO), 0.0)
        told = Received(GUEST, GUESTS_HELLO if word == "Hello" else message)
        assert happens(state, told) == (phase.value if word in ANSWERED_TO_GUESTS else "."), word


@pytest.mark.parametrize("phase", PHASES)
def test_every_word_of_a_stranger_in_every_phase(phase: Phase) -> None:
    for word, message in WORDS.items():
        assert happens(at_phase(phase), Received(b"stranger", message)) == ".", word


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_other_event_in_every_phase(phase: Phase, event: str) -> None:
    assert happens(at_phase(phase), EVENTS[event]) == expected(OF_OTHERS, event, phase)


def test_every_event_after_the_end_does_nothing() -> None:
    state = at_phase(Phase.FINISHED)
    before = state.status().to_dict(), dict(state.ignored), state.report
    words: list[Event] = [
        Received(key, word) for key in (WORKER.key, LAUNCHER.key, GUEST) for word in WORDS.values()
    ]
    for event in (*words, *EVENTS.values()):
        assert state.handle(event, 0.0) == []
    assert (state.status().to_dict(), dict(state.ignored), state.report) == before


REQUESTS = [
    word for word in WORDS
    if word.endswith("Request") and word not in ("DrainRequest", "AbortRequest", "DumpRequest")
]  # fmt: skip

OTHERS_ARE_ASKED = {
    "PauseRequest": {Phase.RUNNING},
    "CancelRequest": {Phase.RUNNING, Phase.DRAINING, Phase.STOPPING},
}


@pytest.mark.parametrize("phase", PHASES[1:])
@pytest.mark.parametrize("word", [*REQUESTS, "Locate"])
def test_every_request_is_answered_at_once_unless_others_are_asked(phase: Phase, word: str) -> None:
    state = at_phase(phase)
    todo = state.handle(Received(LAUNCHER.key, WORDS[word]), 0.0)
    sent = [one for one in todo if isinstance(one, Send)]
    answers = [o.message for o in sent if o.key == LAUNCHER.key and hasattr(o.message, "request")]
    asked = any(isinstance(one.message, c.Pause | c.Find) for one in sent)
    assert len(answers) == (not asked)
    assert asked == (phase in OTHERS_ARE_ASKED.get(word, ()))
