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
    "dflow.broker.gathering.Gathering": "test_broker_gathering",
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

PAIRS: dict[str, tuple[str, ...]] = {
    "dflow.broker.lifecycle RUN": (
        "unit/broker/test_lifecycle.py", "test_every_pair_of_state_and_event",
    ),
    "dflow.broker.lifecycle PARTICIPANT": (
        "unit/broker/test_lifecycle.py", "test_every_pair_of_state_and_event",
    ),
    "dflow.broker.participants.Participant": (
        "property/test_broker_parts.py", "test_every_move_of_a_participant_at_every_step",
    ),
    "dflow.broker.state.CoordinatorState": (
        "property/test_broker_pairs.py",
        "test_every_word_of_a_worker_in_every_phase",
        "test_every_word_of_the_launching_process_in_every_phase",
        "test_every_word_of_somebody_who_looks_on_in_every_phase",
        "test_every_word_of_a_stranger_in_every_phase",
        "test_every_other_event_in_every_phase",
    ),
    "dflow.flow.credit.ReceiveWindow": (
        "property/test_flow_credit.py", "test_every_batch_at_every_state_of_a_receiver",
    ),
    "dflow.flow.credit.SendWindow": (
        "property/test_flow_credit.py", "test_every_report_at_every_state_of_a_sender",
        "test_what_a_sender_may_send_at_every_state",
    ),
    "dflow.flow.in_edge.InChannel": (
        "property/test_flow_in_channel.py", "test_every_frame_at_every_state",
    ),
    "dflow.worker.plane.Gate": (
        "property/test_worker_parts.py", "test_every_event_of_a_gate_at_every_state",
    ),
    "dflow.worker.state.WorkerState": (
        "property/test_worker_state.py", "test_a_legal_event_goes_where_the_table_says",
        "test_an_illegal_event_raises_and_changes_nothing",
    ),
    "dflow.worker.turn.OwnTurn": (
        "property/test_worker_parts.py", "test_every_event_of_a_turn_at_every_state",
    ),
}  # fmt: skip
"""Machine with states one can name -> file of tests/, and tests that list its states and events.

The others are counters and collections: their states are numbers, and a model says what is right.
"""

NOT: dict[str, str] = {
    "dflow.broker.cancelling._Search": "what Cancelling remembers of one search",
    "dflow.broker.participants.Participant": "its only change is `move`: see PAIRS",
    "dflow.broker.turns._Worker": "what TurnScheduler remembers of one worker",
    "dflow.flow.queue.Queue": "a part of QueueEdge, which test_flow_queue_edge models with it",
    "dflow.flow.slabs.Slab": "what Slabs remembers of one segment",
}
