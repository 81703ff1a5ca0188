"""What the run's log says of its life: a few lines a run, however many nodes it has.

Each is a sentence for people with labels for machines: ``event`` says what happened (the names
below do not change), the rest tells how many, how long and why. What happens to one worker or
channel is logged only when it is not as it should be.
"""

from __future__ import annotations

from dflow.broker.events import Say
from dflow.broker.lifecycle import Phase
from dflow.broker.outcome import Cause
from dflow.graph.plan import Plan, WorkerId
from dflow.report import FATES, RunReport

__all__ = ["ended", "entered", "failed", "paused", "starting", "worker_exited"]


def starting(plan: Plan) -> Say:
    """The run begins: its workers are awaited."""
    nodes = sum(node.kind != "external" for node in plan.nodes)
    counts = {"nodes": nodes, "workers": len(plan.workers), "edges": len(plan.edges)}
    text = ", ".join(_count(number, what) for what, number in counts.items())
    labels = {"event": "run.starting", "phase": Phase.WAITING.value, "graph": plan.name, **counts}
    return Say("INFO", f"{plan.name} is starting: {text}", labels)


def entered(phase: Phase, plan: Plan, lasted_s: float, drain_s: float) -> list[Say]:
    """The run has reached ``phase``, ``lasted_s`` after its begin."""
    labels: dict[str, object] = {"phase": phase.value, "after_s": round(lasted_s, 3)}
    match phase:
        case Phase.STARTING:
            channels = len(plan.channels)
            return [
                Say(
                    "INFO",
                    f"linked by {_count(channels, 'channels')}; nodes start",
                    {"event": "run.linked", **labels, "channels": channels},
                )
            ]
        case Phase.RUNNING:
            text = f"running; every node has started, {lasted_s:.2f} s after the begin"
            return [Say("INFO", text, {"event": "run.running", **labels})]
        case Phase.DRAINING:
            text = f"draining for up to {drain_s:g} s: sources end, what is under way is handled"
            return [Say("INFO", text, {"event": "run.draining", **labels, "within_s": drain_s})]
        case Phase.ABORTING:
            workers = len(plan.workers)
            text = f"aborting: {_count(workers, 'workers')} are told to end at once"
            return [Say("INFO", text, {"event": "run.aborting", **labels, "workers": workers})]
    return []


def failed(cause: Cause) -> Say:
    """Something has ended the run otherwise than by finishing."""
    labels: dict[str, object] = {"event": "run.failed", "kind": cause.kind}
    if cause.kind == "aborted":
        labels["event"] = "run.aborted"
    return Say("ERROR", cause.text, labels | _who(cause.worker))


def worker_exited(worker: WorkerId, text: str) -> Say:
    """A worker's process has ended otherwise than it should."""
    return Say("WARNING", text, {"event": "worker.exited", **_who(worker)})


def paused(node: str, *, on: bool) -> Say:
    """A node takes no more data for now, or goes on."""
    labels = {"event": "node.paused" if on else "node.resumed", "node": node}
    return Say("INFO", f"{node} is {'paused' if on else 'resumed'}", labels)


def ended(report: RunReport) -> Say:
    """The run is over, and every process has left."""
    totals = report.totals
    errors = sum(node.errors for node in report.nodes)
    counts = {name: totals[name] for name in ("sent", *FATES)}
    shown = [f"{counts[name]:,} {name}" for name in counts if counts[name] or name == "sent"]
    text = f"{report.outcome} after {report.wall_s:.2f} s: {', '.join(shown)}".replace("_", "-")
    text += f"; {_count(errors, 'errors')}" if errors else ""
    labels: dict[str, object] = {
        "event": "run.finished",
        "phase": Phase.FINISHED.value,
        "outcome": report.outcome,
        "wall_s": round(report.wall_s, 3),
        "errors": errors,
        "balances": report.balances,
    }
    text += "" if report.balances else "; the books do not balance"
    return Say("INFO", text, {**labels, **counts})


def _who(worker: WorkerId | None) -> dict[str, object]:
    return {} if worker is None else {"node": worker.node, "replica": worker.replica}


def _count(number: int, what: str) -> str:
    """Return "1 node" or "3 nodes"."""
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"
