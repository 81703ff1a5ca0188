"""A run with many workers costs each of them no more than a small run does.

Whatever happens once a worker, or once an edge, must not look at all of them: these tests count
instructions for a size and for four times that size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest

from dflow.broker.events import DrainRequested, Event, Received, Send, Tick
from dflow.broker.lifecycle import Phase
from dflow.broker.state import CoordinatorState
from dflow.broker.turns import niceness_of
from dflow.graph import Graph
from dflow.graph.plan import Plan
from dflow.options import RunOptions
from dflow.wire import control as c
from tests.unit.broker_pair import HANDLE, TOKEN, Fake, chain, flow, make_plan
from tests.unit.counting import grows
from tests.unit.graph_nodes import numbers, show, square

SMALL, TIMES = 20, 4
HANDLE_KEY = Fake(HANDLE).key
LINEAR = 1.25
"""Some growth is not of our making: dicts that grow, numbers that get longer."""


def wide(size: int) -> Plan:
    """Return one source, ``size`` nodes beside each other, and one sink."""
    names = [f"n{i}" for i in range(size)]
    return make_plan([*(("a", n) for n in names), *((n, "z") for n in names)])


def deep(size: int) -> Plan:
    """Return one long chain."""
    return chain(*(f"n{i}" for i in range(size)))


def replicated(size: int) -> Plan:
    """Return two nodes, the second with many replicas."""
    return chain("a", "b", b=size)


PLANS = pytest.mark.parametrize("plan_of", [wide, deep, replicated])


class Run:
    """A coordinator whose workers answer at once. Invariants are checked at the end only."""

    def __init__(self, plan: Plan, *, managed: bool = False, named: bool = True) -> None:
        self.state = CoordinatorState(
            plan, RunOptions(), "r", TOKEN, with_handle=True, managed=managed, now=0.0
        )
        self.fakes = [Fake(worker, endless=True) for worker in (*plan.workers, HANDLE)]
        for worker, stats in flow(plan, 7).items():
            next(fake for fake in self.fakes if fake.worker == worker).stats = stats
        self.by_key = {fake.key: fake for fake in self.fakes}
        self.named = named
        self.heard = 0

    def feed(self, events: Iterable[Event]) -> None:
        """Have ``events`` happen, and all that follows."""
        todo = deque(events)
        while todo:
            for instruction in self.state.handle(todo.popleft(), 0.1):
                if isinstance(instruction, Send):
                    self.heard += 1
                    fake = self.by_key[instruction.key]
                    todo += (Received(fake.key, m) for m in fake.hear(instruction.message))

    def start(self) -> None:
        """Have everybody join, and everything that follows until the run runs."""
        unnamed = {} if self.named else {"node": ""}
        for fake in self.fakes:
            changes = unnamed if fake.worker != HANDLE else {}
            self.feed([Received(fake.key, fake.hello(**changes))])
        assert self.state.phase is Phase.RUNNING

    def report(self) -> None:
        """Have everybody send statistics and a heartbeat."""
        for fake in self.fakes:
            self.feed([Received(fake.key, c.Stats(fake.stats.to_wire()))])
            self.feed([Received(fake.key, c.Heartbeat()), Tick()])

    def end(self) -> None:
        """Drain, and everything that follows."""
        self.feed([DrainRequested()])
        for fake in self.fakes:
            if not fake.heard or not isinstance(fake.heard[-1], c.Drain):
                self.feed([Received(fake.key, c.Drained())])
        assert self.state.phase in (Phase.LEAVING, Phase.FINISHED)


def begun(plan: Plan) -> Run:
    """Return a run that runs."""
    run = Run(plan)
    run.start()
    return run


@PLANS
@pytest.mark.parametrize("named", [True, False])
def test_starting_costs_each_worker_the_same(plan_of: Callable[[int], Plan], named: bool) -> None:
    assert grows(lambda size: Run(plan_of(size), named=named).start, SMALL, TIMES) < LINEAR


@PLANS
def test_taking_in_statistics_costs_each_worker_the_same(plan_of: Callable[[int], Plan]) -> None:
    def work(size: int) -> Callable[[], object]:
        return begun(plan_of(size)).report

    # the ends of a wide graph report on as many channels as it is wide
    assert grows(work, SMALL, TIMES) < LINEAR


@PLANS
def test_ending_costs_each_worker_the_same(plan_of: Callable[[int], Plan]) -> None:
    def work(size: int) -> Callable[[], object]:
        run = begun(plan_of(size))
        run.report()
        return run.end

    assert grows(work, SMALL, TIMES) < LINEAR


@PLANS
def test_the_status_costs_each_worker_the_same(plan_of: Callable[[int], Plan]) -> None:
    def work(size: int) -> Callable[[], object]:
        run = begun(plan_of(size))
        run.report()
        return lambda: run.state.status().to_dict()

    assert grows(work, SMALL, TIMES) < LINEAR


def test_locating_a_port_does_not_look_at_other_nodes() -> None:
    def work(size: int) -> Callable[[], object]:
        run = begun(deep(size))
        asked = [Received(HANDLE_KEY, c.Locate(n, f"n{n}", "in")) for n in (1, 2)]
        run.feed(asked[:1])  # what the plan looks up once
        return lambda: run.feed(asked[1:])

    assert grows(work, SMALL, TIMES) * TIMES < LINEAR


def test_pausing_a_node_does_not_look_at_the_others() -> None:
    def work(size: int) -> Callable[[], object]:
        run = begun(deep(size))
        asked = [Received(HANDLE_KEY, c.PauseRequest(n, f"n{n}", 1)) for n in (1, 2)]
        run.feed(asked[:1])  # what the plan looks up once
        return lambda: run.feed(asked[1:])

    assert grows(work, SMALL, TIMES) * TIMES < LINEAR


@PLANS
def test_a_plan_knows_its_workers_and_channels_at_the_same_cost(
    plan_of: Callable[[int], Plan],
) -> None:
    def look(plan: Plan) -> None:
        for worker in plan.workers:
            found = [plan.members(worker), plan.band(worker), niceness_of(plan, worker)]
            found += [plan.in_edges(worker.node), plan.out_edges(worker.node)]
            found += [plan.takes_control(worker.node)]
            for port in plan.by_name[worker.node].inputs:
                found += [plan.external_channel(worker.node, port, worker.replica)]
        found = [plan.worker_levels, plan.ways, plan.widths, plan.fingerprint, list(plan.levels())]

    def work(size: int) -> Callable[[], object]:
        plan = plan_of(size)
        return lambda: look(plan)

    assert grows(work, SMALL, TIMES) < LINEAR


def build(size: int) -> Graph:
    """Return a graph connected one by one."""
    graph = Graph("scale")
    nodes = [numbers(), *(square() for _ in range(size)), show()]
    for before, after in pairwise(nodes):
        graph.connect(before, after)
    return graph


def build_named(size: int) -> Graph:
    """Return the same with names that somebody gave."""
    graph = Graph("scale")
    nodes = [numbers(), *(square().options(name=f"s{i}") for i in range(size)), show()]
    for before, after in pairwise(nodes):
        graph.connect(before, after)
    return graph


@pytest.mark.parametrize("make", [build, build_named])
def test_connecting_costs_each_edge_the_same(make: Callable[[int], Graph]) -> None:
    assert grows(lambda size: lambda: make(size), SMALL, TIMES) < LINEAR


def test_checking_and_planning_cost_each_node_the_same() -> None:
    def work(size: int) -> Callable[[], object]:
        return build(size).plan

    assert grows(work, SMALL, TIMES) < LINEAR
