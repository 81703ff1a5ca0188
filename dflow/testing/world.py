"""A whole run in one thread: coordinator, agent and workers, each with its real loop.

What is simulated is what lies around them: the operating system (`dflow.testing.system`), the
transport (`dflow.testing.network`), the agent's part (starting workers, reporting how they ended,
killing them on request), and time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from dflow.broker.events import Event as CoordinatorEvent
from dflow.broker.loop import Loop
from dflow.broker.state import CoordinatorState
from dflow.errors import GraphError
from dflow.graph.plan import Plan, WorkerId
from dflow.message import EXTERNAL
from dflow.options import RunOptions
from dflow.report import RunReport
from dflow.testing.agent import REAP_S, Agent, Worker
from dflow.testing.faults import Cut, Faults, Kill, Stall, draw
from dflow.testing.invariants import Broken
from dflow.testing.kernel import Kernel, Process, Task
from dflow.testing.launching import Launching
from dflow.testing.logs import simulated_logger
from dflow.testing.network import Network, edge_of
from dflow.testing.system import WALL_NS, SimulatedSystem
from dflow.testing.taps import Taps
from dflow.testing.trace import Trace
from dflow.wire import control as c
from dflow.worker.assemble import NotMade, WorkerConfig, assemble, make_nodes, wait_unmade
from dflow.worker.context import Context
from dflow.worker.faults import Interrupted
from dflow.worker.pulse import Pulse

if TYPE_CHECKING:
    from dflow.graph.builder import Graph

__all__ = ["Worker", "World"]

EPOCH = 1
TOKEN = "simulated"
ENDPOINT = "sim://coordinator"
FORK_S = 0.003
"""Within this time all workers have begun to live."""

FIRST_PID = 1000


@dataclass(eq=False)
class World:
    """One simulated run. ``observe`` what happens before `run`; ``report`` says how it ended."""

    graph: Graph
    plan: Plan
    options: RunOptions
    seed: int
    faults: Faults
    taps: Taps | None = None
    send: Mapping[Any, Sequence[Any]] | None = None
    workers: dict[WorkerId, Worker] = field(default_factory=dict, init=False)
    report: RunReport | None = field(default=None, init=False)
    logs: list[tuple[str, c.Log]] = field(default_factory=list, init=False)
    crash: BaseException | None = field(default=None, init=False)
    broken: Broken | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.kernel = Kernel(self.seed)
        self.trace = Trace()
        self.channels = channel_names(self.plan)
        self.network = Network(self.kernel, self.trace, self.faults, self.seed, self.channels)
        self._endpoints = count(1)
        self._pids = count(FIRST_PID)
        self._processes: list[Process] = []
        self._agent = Agent(self)
        self._main: Task | None = None
        self.launching = Launching.of(self.graph, self.plan, self.send or {})
        self._begin_coordinator()
        for me in self.plan.workers:
            self.workers[me] = self._begin_worker(me)
        self.launcher = self._begin_launcher()
        self._expect_faults()

    # --- from outside ----------------------------------------------------------------------------

    def observe(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` after each step of the simulation."""
        self.kernel.observers.append(callback)

    def tell(self, event: CoordinatorEvent) -> None:
        """Let the coordinator hear of ``event`` now; not from a simulated thread."""
        if self.report is None:
            self._loop.feed(event)

    def run(self, limit_s: float) -> bool:
        """Run to the end; False if it is not over after ``limit_s`` of virtual time."""
        limit_ns = int(limit_s * 1e9)
        kernel = self.kernel
        try:
            kernel.run(lambda: self.over or kernel.now > limit_ns)
            return self.over
        finally:
            for loop in self.network.loops:
                loop.abandon()
            kernel.unwind(self._processes)

    @property
    def over(self) -> bool:
        """Whether every process has ended, or one has crashed."""
        if self.crash is not None or self.broken is not None:
            return True
        return (
            self._main is not None
            and self._main.ended
            and (self.launcher is None or self.launcher.ended)
            and not any(worker.process.alive for worker in self.workers.values())
        )

    @property
    def last_progress_ns(self) -> int:
        """When data moved last."""
        return self.network.moved_ns

    # --- participants ----------------------------------------------------------------------------

    def _process(self, name: str) -> tuple[Process, SimulatedSystem]:
        process = Process(name)
        self._processes.append(process)
        return process, SimulatedSystem(self.network, process)

    def _begin_coordinator(self) -> None:
        process, system = self._process("coordinator")
        router = system.control_router(ENDPOINT)
        self.state = CoordinatorState(
            self.plan,
            self.options,
            "simulated",
            TOKEN,
            EPOCH,
            with_handle=self.launching is not None,
            managed=True,
            cores=len(self.plan.workers),
            now=system.clock.monotonic_s(),
            wall_s=WALL_NS / 1e9,
        )
        agent: Any = self._agent
        loop = Loop(self.state, router, agent, system=system, relay=self._relay, say=self._say)
        self._loop = loop

        def coordinate() -> None:
            self.report = loop.run()
            if self.launching is not None:  # which hears of it as of the end of the agent
                self.soon(REAP_S, self.launching.over)

        self._main = Task(self.kernel, process, self._guarded(coordinate, process), process.name)
        self._main.start()

    def _begin_worker(self, me: WorkerId) -> Worker:
        process, system = self._process(str(me))
        worker = Worker(me, next(self._pids), process)

        def live() -> None:
            worker.code = 1
            worker.code = self._live(worker, system)

        def end() -> None:
            self._ended(worker)

        worker.main = Task(self.kernel, process, self._guarded(live, process, end), process.name)
        system.exited = lambda code: self._exit(worker, code)
        self.soon(FORK_S, worker.main.start)
        return worker

    def _begin_launcher(self) -> Task | None:
        launching = self.launching
        if launching is None:
            return None
        process, system = self._process(EXTERNAL)

        def live() -> None:
            launching.live(self.kernel, system, process, self.options, ENDPOINT, TOKEN, EPOCH)

        task = Task(self.kernel, process, self._guarded(live, process), process.name)
        task.start()
        return task

    def _live(self, worker: Worker, system: SimulatedSystem) -> int:
        """Do what `dflow.worker.main.run_worker` does."""
        me, options = worker.me, self.options
        identity = str(me).encode()
        pulse = Pulse(
            ENDPOINT, identity, stats_interval_s=options.stats_interval_s, remote=False,
            system=system,
        )  # fmt: skip
        pulse.start()
        pulse.post(
            c.Hello("worker", TOKEN, worker.pid, "simulated", me.node, me.replica,
                    self.plan.fingerprint)
        )  # fmt: skip
        config = WorkerConfig(
            me, "simulated", TOKEN, ENDPOINT, "", EPOCH, self.graph, self.plan, options
        )
        contexts = [
            Context(m.node, m.replica, config.run_id, self._logger(pulse, system, m))
            for m in self.plan.members(me)
        ]
        try:
            nodes = make_nodes(self.graph, contexts)
        except NotMade as error:
            wait_unmade(pulse, error.failed)
            return 0
        taps = self.taps
        if taps is not None:
            for node in nodes:
                taps.follow(node)

        def interrupt() -> None:
            main = worker.main
            if main is not None and main.interruptible and pulse.take_interrupt():
                main.interrupt(Interrupted())

        replica = assemble(
            config, nodes, contexts, pulse, self._endpoint, interrupt, None, system,
            None if taps is None else taps.watch,
        )  # fmt: skip
        worker.replica = replica
        try:
            replica.loop.run()
            return 3 if replica.loop.left else 0
        finally:
            replica.close()
            pulse.leave()

    def _endpoint(self) -> str:
        return f"sim://{next(self._endpoints)}"

    def _logger(self, pulse: Pulse, system: SimulatedSystem, me: WorkerId) -> Any:
        """Return a logger of the worker's own, whose records go to the coordinator."""

        def post(record: c.Log) -> None:
            pulse.post_log(replace(record, time_s=system.clock.wall_s()))

        return simulated_logger(
            post, self.options.log_level, run_id="simulated", node=me.node, replica=me.replica
        )

    # --- how they end ----------------------------------------------------------------------------

    def _guarded(
        self, run: Callable[[], None], process: Process, end: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Return ``run`` with what it raises kept as the crash of the simulation."""

        def guarded() -> None:
            try:
                run()
            except SystemExit as error:  # user code may end its worker
                self._exit_code(process, error)
            except Exception as error:  # noqa: BLE001  # dflow's own mistake, told by `simulate`
                self.crash = error
            except KeyboardInterrupt as error:  # of the real process
                self.crash = error
            if end is not None:
                end()

        return guarded

    def _exit_code(self, process: Process, error: SystemExit) -> None:
        for worker in self.workers.values():
            if worker.process is process:
                worker.code = error.code if isinstance(error.code, int) else 1

    def _exit(self, worker: Worker, code: int) -> None:
        worker.code = code
        self._ended(worker)

    def _ended(self, worker: Worker) -> None:
        if worker.process.alive:
            worker.process.alive = False
            how = "killed" if worker.killed else f"code {worker.code}"
            self.trace.note(self.kernel.now, str(worker.me), "exit", how)
            self._agent.reap(worker)

    def kill(self, me: WorkerId) -> None:
        """End a worker here and now, if it lives."""
        worker = self.workers[me]
        if worker.process.alive:
            worker.killed = True
            self.network.killed(worker.process)
            self._ended(worker)

    # --- what goes wrong -------------------------------------------------------------------------

    def _expect_faults(self) -> None:
        names = {str(me): me for me in self.plan.workers}
        known = {*self.channels.values(), *map(edge_of, self.channels.values())}
        dice = Random(f"{self.seed} faults")
        for fault in draw(self.faults, dice, list(names), list(self.channels.values())):
            if isinstance(fault, (Kill, Stall)) and fault.worker not in names:
                raise GraphError(
                    f"{fault!r}: expected one of the workers {', '.join(names)}; of fused nodes "
                    f"it is the first one's"
                )
            if not isinstance(fault, (Kill, Stall)) and fault.channel not in known:
                raise GraphError(
                    f"{fault!r}: expected one of the channels {', '.join(self.channels.values())}"
                )
            if isinstance(fault, (Kill, Stall, Cut)):
                self.kernel.at(int(fault.at_s * 1e9), self._going_wrong(fault, names))

    def _going_wrong(
        self, fault: Kill | Stall | Cut, names: Mapping[str, WorkerId]
    ) -> Callable[[], None]:
        def goes_wrong() -> None:
            if isinstance(fault, Cut):
                self.network.cut(fault)
                return
            worker = self.workers[names[fault.worker]]
            if not worker.process.alive:
                return
            self.network.fault(fault)
            if isinstance(fault, Kill):
                self.kill(worker.me)
            else:
                worker.process.stalled_until = self.kernel.now + int(fault.for_s * 1e9)

        return goes_wrong

    # --- small change ----------------------------------------------------------------------------

    def soon(self, within_s: float, action: Callable[[], object]) -> None:
        """Call ``action`` at a moment within so many seconds that the seed decides."""
        self.kernel.at(self.kernel.now + self.kernel.between(1_000, int(within_s * 1e9)), action)

    def _relay(self, record: c.Log, worker: str) -> None:
        self.logs.append((worker, record))
        self.trace.note(self.kernel.now, worker, "log", record.level)

    def _say(self, level: str, text: str, labels: Mapping[str, object]) -> None:
        at_s = (WALL_NS + self.kernel.now) / 1e9
        record = c.Log(level, at_s, text, "dflow.broker", 0, dict(labels))
        self.logs.append(("coordinator", record))
        if text.startswith("run is "):
            self.trace.note(self.kernel.now, "run", "phase", text.removeprefix("run is "))
        elif level != "DEBUG":
            self.trace.note(self.kernel.now, "run", "says", f"{level} {text.partition(chr(10))[0]}")


def channel_names(plan: Plan) -> dict[int, str]:
    """Return what each channel is called: ``a[0].out->b[1].in``."""
    edges = {edge.index: edge for edge in (*plan.edges, *plan.external_edges)}
    names = {}
    for ch in (*plan.channels, *plan.external_channels):
        edge = edges[ch.edge]
        sender = f"{ch.sender}.{edge.output}" if ch.sender.node != EXTERNAL else EXTERNAL
        names[ch.number] = f"{sender}->{ch.receiver}.{edge.input}"
    return names
