"""Every pure machine, and where it is proved: against a model, and at every (state, event) pair.

A machine is a class of a pure module that changes after it was made. `tests.property.test_machines`
walks the package, so that a new one without a proof fails there. ``PROVED`` names the test that
drives a machine with any sequence of events (Hypothesis), ``PAIRS`` the one that lists its states
and events and what each pair does; ``NOT`` says why something needs neither.
"""

from __future__ import annotations

__all__ = ["NOT", "PAIRS", "PROVED", "PURE"]

PURE = (
    "dflow.broker", "dflow.flow", "dflow.story", "dflow.worker.ordered", "dflow.worker.spin",
    "dflow.worker.state", "dflow.worker.ticks", "dflow.worker.turn", "dflow.launch.protocol",
)  # fmt: skip
"""Packages and modules of pure decisions; those of graph and wire build values and keep none."""

IMPURE = ("dflow.broker.loop", "dflow.broker.main", "dflow.broker.signals")

PROVED: dict[str, str] = {
    "dflow.broker.cancelling.Cancelling": "test_broker_cancelling",
    "dflow.broker.complaints.Complaints": "test_broker_parts",
    "dflow.broker.observers.Observers": "test_broker_parts",
    "dflow.broker.participants.Participants": "test_broker_parts",
    "dflow.broker.pausing.Pausing": "test_broker_parts",
    "dflow.broker.state.CoordinatorState": "test_broker_state",
    "dflow.broker.tally.Tally": "test_broker_parts",
    "dflow.broker.timers.Timers": "test_broker_parts",
    "dflow.broker.turns.TurnScheduler": "test_broker_turns",
    "dflow.flow.allowance.Allowance": "test_flow_parts",
    "dflow.flow.asking.Doubt": "test_flow_parts",
    "dflow.flow.bands.BandQueue": "test_flow_bands",
    "dflow.flow.batch.Lane": "test_flow_lone",
    "dflow.flow.credit.ReceiveWindow": "test_flow_credit",
    "dflow.flow.credit.SendWindow": "test_flow_credit",
    "dflow.flow.ids.Ids": "test_flow_parts",
    "dflow.flow.in_edge.InChannel": "test_flow_channel",
    "dflow.flow.keyed_lane.KeyedLane": "test_flow_parts",
    "dflow.flow.keys.DoneByKey": "test_flow_parts",
    "dflow.flow.keys.KeyCounts": "test_flow_parts",
    "dflow.flow.local_edge.LocalEdge": "test_worker_emitting",
    "dflow.flow.news.Completions": "test_flow_parts",
    "dflow.flow.order.Merge": "test_flow_order",
    "dflow.flow.order.Origin": "test_ordered_pipeline",
    "dflow.flow.out_edge.OutEdge": "test_flow_channel",
    "dflow.flow.queue_edge.QueueEdge": "test_flow_latest",
    "dflow.flow.ready.ReadyQueue": "test_flow_ready",
    "dflow.flow.slabs.Slabs": "test_flow_slabs",
    "dflow.flow.waiting.LimitedLine": "test_flow_parts",
    "dflow.flow.waiting.Line": "test_flow_parts",
    "dflow.launch.protocol.Frames": "test_machines",
    "dflow.story.Story": "test_machines",
    "dflow.worker.ordered.Order": "test_worker_parts",
    "dflow.worker.spin.Spin": "test_worker_parts",
    "dflow.worker.state.WorkerState": "test_worker_state",
    "dflow.worker.ticks.Ticks": "test_worker_ticks",
    "dflow.worker.turn.OwnTurn": "test_worker_parts",
}
"""Machine -> module of tests/property that drives it with any events."""

PAIRS: dict[str, str] = {
    "dflow.broker.lifecycle RUN": "tests/unit/broker/test_lifecycle.py",
    "dflow.broker.lifecycle PARTICIPANT": "tests/unit/broker/test_lifecycle.py",
    "dflow.broker.participants.Participant": "tests/property/test_broker_parts.py",
    "dflow.broker.state.CoordinatorState": "tests/property/test_broker_parts.py",
    "dflow.flow.credit.ReceiveWindow": "tests/property/test_flow_credit.py",
    "dflow.flow.credit.SendWindow": "tests/property/test_flow_credit.py",
    "dflow.flow.in_edge.InChannel": "tests/property/test_flow_in_channel.py",
    "dflow.worker.plane.Gate": "tests/property/test_worker_parts.py",
    "dflow.worker.state.WorkerState": "tests/property/test_worker_state.py",
    "dflow.worker.turn.OwnTurn": "tests/property/test_worker_parts.py",
}
"""Machine with states one can name -> the file that lists every pair of a state and an event.

The others are counters and collections: their states are numbers, and a model says what is right.
"""

NOT: dict[str, str] = {
    "dflow.broker.cancelling._Search": "what Cancelling remembers of one search",
    "dflow.broker.gathering.Gathering": "tests/unit/broker/test_gathering.py drives whole runs",
    "dflow.broker.participants.Participant": "its only change is `move`: see PAIRS",
    "dflow.broker.turns._Worker": "what TurnScheduler remembers of one worker",
    "dflow.flow.queue.Queue": "a part of QueueEdge, which test_flow_queue_edge models with it",
    "dflow.flow.slabs.Slab": "what Slabs remembers of one segment",
}
