"""Running a graph from Python: `start` gives a `Run`, `run` waits for its report.

A `Run` is a handle: it may be used from any thread, and several runs may be under way in
one process. Leaving its ``with`` block drains the run and waits for it.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from dflow import errors
from dflow.broker.pace import report_interval_s
from dflow.bundle.wanted import settled
from dflow.clock import wall_s
from dflow.errors import OptionError, PortError, RunError
from dflow.graph.node import Node
from dflow.graph.plan import Plan
from dflow.graph.ports import BoundPort
from dflow.launch.interrupt import DrainOnSignal
from dflow.launch.local import Launched, launch
from dflow.launch.preload import check_not_preloading
from dflow.launch.protocol import COORDINATOR, AgentGone, Event, Exited
from dflow.launch.remains import Remains
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus, report_of_the_dead

if TYPE_CHECKING:
    from dflow.graph.builder import Graph
    from dflow.graph.ports import BoundInput, BoundOutput
    from dflow.launch.handle import Handle
    from dflow.message import Cancelled
    from dflow.why import Why

__all__ = ["Run", "run", "start"]

EPOCH = 1
STATUS_INTERVAL_S = 0.25
BUNDLE_S = 10.0
_LIVE = ("running", "draining")
_FAILURES: dict[str, type[RunError]] = {
    "worker_died": errors.WorkerDied,
    "hook_failed": errors.HookFailed,
    "start_failed": errors.StartError,
    "drain_timeout": errors.DrainTimeout,
    "stop_timeout": errors.DrainTimeout,
}
RUNS: WeakSet[Run] = WeakSet()
"""The runs of this process, as long as somebody holds them: for who looks for what went wrong."""

OnStatus = Callable[[RunStatus], None]


def failure_of(report: RunReport) -> RunError:
    """Return what is raised for a run that failed, without its report."""
    return _FAILURES.get(report.error_kind or "", RunError)(report.error or report.outcome)


def start(
    graph: Graph, *, results: Node | BoundOutput | Sequence[Any] = (), **run_options: Any
) -> Run:
    """Start ``graph`` and return once every node is ready and the sources run.

    ``results`` names nodes or outputs to be read here with `Run.results`. ``run_options`` are
    the fields of `RunOptions`. Raises `GraphError` (with every problem found), `OptionError`,
    `PortError` for a result that is no output of the graph, `StartError` when a process cannot
    start, `HookFailed` when an ``on_start`` raises.
    """
    check_not_preloading()
    options = settled(RunOptions().updated(run_options))
    ports = _result_ports(graph, results)
    started = Run(graph, graph.plan(ports), options)
    started._await_start()
    return started


def run(
    graph: Graph,
    *,
    progress: bool = False,
    on_status: OnStatus | None = None,
    **run_options: Any,
) -> RunReport:
    """Run ``graph`` until it is drained and return its report.

    Called in the main thread, Ctrl-C once (or SIGTERM) drains and returns the report, Ctrl-C
    twice stops now and raises KeyboardInterrupt. ``progress`` shows live rates on stderr;
    ``on_status`` is called about four times a second. Raises as `start` and `Run.wait` do.
    """
    check_not_preloading()
    options = settled(RunOptions().updated(run_options))
    plan = graph.plan()
    # before the start: processes inherit where stdout leads
    with _Progress(progress) as shown, DrainOnSignal() as signals:
        started = Run(graph, plan, options)
        signals.watch(started)
        started._await_start()
        report = started.watch([s for s in (shown, on_status) if s is not None])
    signals.conclude(started=started._ran)
    return report


def _result_ports(graph: Graph, results: Any) -> tuple[BoundOutput, ...]:
    listed = results if isinstance(results, (list, tuple)) else [results]
    return tuple(graph.find_output(result) for result in listed)


class Run:
    """A run under way. ``run_id`` names it in logs and reports."""

    def __init__(self, graph: Graph, plan: Plan, options: RunOptions) -> None:
        self.run_id = secrets.token_hex(4)
        RUNS.add(self)
        self._started_s = wall_s()
        self._graph = graph
        self._plan = plan
        self._options = options
        self._inputs: dict[BoundInput | str, BoundInput] = {}
        self._coordinator_exit: Exited | None = None
        self._gone = threading.Event()
        self._agent_gone: AgentGone | None = None
        self._failure: RunError | None = None
        self._told = False
        self._remains = Remains(plan, self.run_id, options, self._started_s)
        token = secrets.token_urlsafe(24)
        self._handle: Handle | None = None
        try:
            self._launched: Launched = launch(
                graph, plan, options, run_id=self.run_id, token=token, epoch=EPOCH,
                on_event=self._on_event,
            )  # fmt: skip
        except errors.StartError as error:
            _tell_of(error, self._remains.leave("start_failed", str(error)))
            raise
        try:
            # imported by `launch` while the agent starts, and not before
            from dflow.launch.handle import Handle
            from dflow.launch.sending import GraphCode
            from dflow.wire.codec import Codec

            self._handle = Handle(
                plan,
                options,
                token=token,
                epoch=EPOCH,
                endpoint=self._launched.endpoint,
                run_dir=self._launched.run_dir,
                code=GraphCode(
                    Codec(graph.types()), graph.external_key, graph.merge, self._restore
                ),
            )
        except BaseException:
            self._launched.kill()
            raise

    def _restore(self, port: str) -> Callable[[Any], Any] | None:
        """Return what makes bytes that are read here what the output's annotation says."""
        from dflow.wire.restoring import restorer

        return restorer(self._graph.find_output(port).type)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Exited) and event.worker == COORDINATOR:
            self._coordinator_exit = event
        elif isinstance(event, AgentGone):
            self._agent_gone = event
            self._gone.set()
            if self._handle is not None:
                self._handle.over()

    @property
    def _ran(self) -> bool:
        return self._handle is not None and self._handle.ran

    def _await_start(self) -> None:
        handle = self._handle
        assert handle is not None
        try:
            with handle.changed:
                handle.changed.wait_for(
                    lambda: handle.phase in (*_LIVE, "stopping", "finished") or self._gone.is_set()
                )
        except BaseException:
            try:
                self._launched.kill()
            finally:
                handle.close()
            raise
        if handle.phase == "finished" or self._gone.is_set():
            report = self._end()
            if report.error is not None and report.outcome != "aborted":  # as in `wait`
                raise self._error(report)

    # --- looking ---------------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        """The phase of the run: ``running``, ``draining``, …, ``finished``."""
        return self._handle.phase if self._handle is not None else "waiting"

    @property
    def report(self) -> RunReport | None:
        """The report, once the run is over."""
        return self._handle.report if self._handle is not None and self._gone.is_set() else None

    @property
    def pids(self) -> dict[str, int]:
        """Ids of the processes that live: ``agent``, ``coordinator``, and ``node[replica]``."""
        pids = dict(self._launched.pids)
        found = {"agent": self._launched.agent_pid}
        if COORDINATOR in pids:
            found["coordinator"] = pids.pop(COORDINATOR)
        return found | {str(worker): pid for worker, pid in pids.items()}

    def status(self) -> RunStatus:
        """Return live counters of every node and edge, at most half a second old.

        Raises `NodeEnded` after the end, `TimeoutError` if the coordinator does not answer
        within 5 s.
        """
        assert self._handle is not None
        return self._handle.status()

    def why(self) -> Why:
        """Return who waits for whom now, and what keeps them waiting; ``print(run.why())``.

        At most half a second old, and a wait counts from one second on. Raises as `status`.
        """
        return self.status().why()

    def results(self, port: Node | BoundOutput | str | None = None) -> Iterator[Any]:
        """Yield what an output emits, in this process, until its node has ended.

        The output must be named in ``start(results=...)``; with only one, ``port`` is not
        needed. The edge is bounded like any other: who does not read slows the graph down, and
        holds it back for ever once its window is full. What fits may be read after the end.
        It ends early if the run fails; `wait`, or leaving the ``with`` block, raises why.
        Raises `PortError` for any other output.
        """
        assert self._handle is not None
        declared = [e.input for e in self._plan.edges if e.receiver == "run"]
        if port is None and len(declared) == 1:
            return self._handle.results(declared[0])
        wanted = None if port is None else str(self._graph.find_output(port))
        if wanted not in declared:
            names = ", ".join(declared) or "none"
            raise PortError(
                f"results: expected an output named in start(results=[...]) (there: {names}), "
                f"got {wanted}"
            )
        return self._handle.results(wanted)

    # --- acting ----------------------------------------------------------------------------------

    def send(
        self,
        target: Node | BoundInput | str,
        value: Any,
        *,
        timeout_s: float | None = None,
        id: str | None = None,
    ) -> str:
        """Send ``value`` to an input of a running node; return its id, for `cancel`.

        ``target`` is a port, ``"node.port"``, or a node with one input. ``id`` chooses the id,
        which is made up otherwise. What happens when the node does not keep up is said by
        `Graph.accept`; by default, this waits. Raises `EncodeError` if the value cannot travel,
        `NodeEnded` if the node takes no more, `TimeoutError` after ``timeout_s`` seconds without
        credit (None waits for ever), `EdgeFull` with policy "reject", and `PortError` for what
        is no input of this graph.
        """
        assert self._handle is not None
        meant = target.as_input() if isinstance(target, (Node, BoundPort)) else target
        into = self._inputs.get(meant) if isinstance(meant, (BoundPort, str)) else None
        if into is None:  # looked up once: it takes longer than sending does
            into = self._inputs[meant] = self._graph.find_input(meant)
        return self._handle.send(into.node.name, into.name, value, timeout_s, id)

    def pause(self, target: Node | BoundPort | str) -> None:
        """Let a node take no more data; a source is not pulled. Nothing is begun after this.

        What it has begun is finished, maybe later; control messages and ticks go on. What is sent
        to it waits, and by and by its senders do. `resume` lets it go on, and so does `drain`,
        `stop` or leaving the ``with`` block. ``target`` is a node, one of its ports, or a name.
        Raises `GraphError` if there is no such node, `NodeEnded` if it has ended or the run drains.
        """
        self._pause(target, paused=True)

    def resume(self, target: Node | BoundPort | str) -> None:
        """Let a paused node go on; nothing happens if it is not paused. Raises as `pause`."""
        self._pause(target, paused=False)

    def _pause(self, target: Node | BoundPort | str, *, paused: bool) -> None:
        assert self._handle is not None
        self._handle.pause(self._graph.find(target).name, paused=paused)

    def drain(self, target: Node | BoundPort | str) -> None:
        """End one node in order: the sources it is fed from end, what is under way is handled.

        Whatever else those sources feed ends with them; the rest of the run goes on. An input
        that only the outside feeds takes no more from `send`; what was sent is handled first,
        for which this waits, up to the run's ``drain_timeout_s``. Raises as `pause`.
        """
        assert self._handle is not None
        node = self._graph.find(target).name
        self._handle.drain_node(node, self._options.drain_timeout_s)

    def cancel(self, id: str, *, timeout_s: float = 10.0) -> Cancelled:
        """Cancel the message with ``id``: that `send` returned, or that it was emitted with.

        A message that is still queued is taken out: no handler sees it, and the others keep their
        order. For one that is being handled ``ctx.cancelled`` turns true there. Returns which of
        the two it was, or that it is done, or not known; of a message with copies, the first of
        these that holds for any. Raises `NodeEnded` once the run is over, `TimeoutError` if the
        coordinator does not answer within ``timeout_s``.
        """
        assert self._handle is not None
        if not isinstance(id, str):
            raise OptionError(f"cancel: expected the id of a message as text, got {id!r}")
        return self._handle.cancel(id, timeout_s)

    def stop(self) -> None:
        """Ask the run to drain: sources end, everything in flight is handled. Returns at once."""
        assert self._handle is not None
        self._handle.request_drain(self._options.drain_timeout_s)

    def abort(self, reason: str = "aborted by the user") -> None:
        """Ask the run to end now; what is in flight is abandoned and counted."""
        assert self._handle is not None
        self._handle.request_abort(reason)

    def bundle(self, directory: str | os.PathLike[str] = ".") -> str:
        """Write a failure bundle of the run as it is into ``directory``; return where it is.

        Of a run that is over, or whose coordinator does not answer, it holds what is known in this
        process. Looking costs the run next to nothing. Raises `BundleError` if it cannot be
        written.
        """
        handle, files = self._handle, {}
        if handle is not None and not self._gone.is_set():
            with suppress(errors.NodeEnded, TimeoutError):
                files = handle.bundle(BUNDLE_S)
        report = handle.report if handle is not None else None
        return self._remains.write(os.fspath(directory), files, report, self._last_status)

    @property
    def _last_status(self) -> RunStatus | None:
        return self._handle.last_status if self._handle is not None else None

    def wait(self, timeout_s: float | None = None) -> RunReport:
        """Wait for the end and return the report.

        Raises `TimeoutError`; `WorkerDied`, `HookFailed`, `DrainTimeout`, `CoordinatorDied` or
        `AgentDied` (with ``.report``) if the run failed. A run that was aborted on request
        returns its report.
        """
        if not self._gone.wait(timeout_s):
            raise TimeoutError(f"the run has not ended within {timeout_s:g} s (it goes on)")
        report = self._end()
        if report.error is not None and report.outcome != "aborted":
            raise self._error(report)
        return report

    def watch(self, observers: Sequence[OnStatus]) -> RunReport:
        """Wait like `wait`, calling ``observers`` with the status about four times a second.

        Less often in a run of more than 250 workers (`dflow.broker.pace`).
        """
        every_s = report_interval_s(STATUS_INTERVAL_S, len(self._plan.workers))
        while observers and not self._gone.wait(every_s):
            try:
                status = self.status()
            except (errors.NodeEnded, TimeoutError):
                continue
            for observer in observers:
                observer(status)
        return self.wait()

    def _end(self) -> RunReport:
        self._gone.wait()
        handle = self._handle
        assert handle is not None
        ended = self._coordinator_exit
        handle.close(report_expected=ended is not None and ended.code == 0)
        if handle.report is None:
            handle.report = self._report_of_the_dead()
        return handle.report

    def _report_of_the_dead(self) -> RunReport:
        """Return what can be said when the coordinator had no last word."""
        gone, ended = self._agent_gone, self._coordinator_exit
        kind: type[RunError] = errors.CoordinatorDied
        if gone is not None and not gone.orderly:
            kind, what = errors.AgentDied, f"the agent died ({_how(gone.code, gone.signal)})"
        elif ended is not None:
            how = _how(ended.code, ended.signal)
            what = f"the coordinator died ({how})"
        else:
            what = "the run's processes ended without a report"
        assert self._handle is not None
        report = report_of_the_dead(
            self._plan.name, self.run_id, self._handle.last_status, what, self._started_s, wall_s()
        )
        self._failure = kind(report.error or what)
        text = report.error or what
        left = self._remains.leave("process_died", text, report, self._last_status)
        return replace(report, bundle=left)

    def _error(self, report: RunReport) -> RunError:
        if self._failure is None:
            self._failure = failure_of(report)
        self._failure.report = report
        if not self._told:
            _tell_of(self._failure, report.bundle)
        self._told = True
        return self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._handle is not None
        if self._gone.is_set():
            self._end()
            if kind is None and not self._told:
                self.wait()  # raises what went wrong meanwhile
            return
        self._handle.discard_results()
        if kind is None:
            self.stop()
            self.wait()
        else:
            self._remains.leave_live(self.bundle)
            self.abort(f"the with block was left by {kind.__name__}")
            self._end()


def _tell_of(error: RunError, bundle: str | None) -> None:
    """Have the traceback of ``error`` say where the bundle is; its text is about what happened."""
    if bundle:
        error.add_note(f"failure bundle: {bundle}\nread it with: dflow doctor {bundle}")


def _how(code: int | None, signum: int | None) -> str:
    return signal.Signals(signum).name if signum is not None else f"exit code {code}"


class _Progress:
    """The progress display, imported only when it is asked for."""

    def __init__(self, wanted: bool) -> None:
        self._display: Any = None
        if wanted:
            from dflow.telemetry.progress import Progress

            self._display = Progress()

    def __enter__(self) -> OnStatus | None:
        if self._display is None:
            return None
        self._display.__enter__()
        update: OnStatus = self._display.update
        return update

    def __exit__(self, *exc: object) -> None:
        if self._display is not None:
            self._display.__exit__(*exc)
