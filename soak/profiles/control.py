"""Profile *control*: everything that can be said to a run while it works, again and again.

Control messages from within and from outside in their hundreds a second, pause and resume, messages
sent and cancelled, observers that come, look and go, while data flows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

from dflow import Cancelled, Context, Graph, Input, Node, Output, Priority, Run
from dflow.errors import RunError
from dflow.launch.observer import Observer
from dflow.launch.rundir import live_runs
from soak.conduct import Conduct
from soak.streams import Collect, Seen, Sent, now_ns, paced

__all__ = ["control_graph", "drive"]

DATA_PER_S = 400.0
SETTINGS_PER_S = 100.0
ROUND_S = 0.5
JOBS = 12
ORDERS = 20
REPLICAS = 2
Message = dict[str, Any]


class Numbered(Node):
    """A source of numbered messages at a rate; each has to arrive ``times`` times."""

    out = Output(dict)

    def __init__(self, stream: str, per_s: float, times: int = 1) -> None:
        self.stream = stream
        self.per_s = per_s
        self.times = times

    def produce(self, ctx: Context) -> Iterator[Message]:
        """Yield until the run drains."""
        sent = Sent(self.stream)
        for number in paced(ctx, self.per_s):
            yield {"id": number, "at": now_ns()}
            sent.add(number, self.times)
        sent.note(ctx)


class Motor(Node):
    """Takes data, settings from within the graph, and orders from outside."""

    data = Input(dict)
    settings = Input(dict, priority=Priority.CONTROL)
    orders = Input(dict, priority=Priority.CONTROL)
    told = Output(dict)

    def __init__(self) -> None:
        self.of = {name: Seen(name) for name in ("data", "settings", "orders")}

    @data.handler
    def work(self, message: Message) -> None:
        """Count it."""
        self.of["data"].add(message["id"], message["at"])

    @settings.handler
    def change(self, message: Message) -> None:
        """Count it, in order."""
        self.of["settings"].add(message["id"], message["at"])
        self.of["settings"].in_order(message["id"])

    @orders.handler
    def obey(self, message: Message) -> None:
        """Count it, in order."""
        self.of["orders"].add(message["id"], message["at"])
        self.of["orders"].in_order(message["id"])

    def on_tick(self, ctx: Context) -> None:
        """Tell."""
        for seen in self.of.values():
            self.told.emit(seen.note(ctx))

    def on_end(self, ctx: Context) -> None:
        """Tell for the last time."""
        self.on_tick(ctx)


class Jobs(Node):
    """Takes its time for jobs from outside, which may be cancelled until it has begun."""

    into = Input(dict)
    told = Output(dict)

    def __init__(self) -> None:
        self.seen = Seen("jobs")

    @into.handler
    async def work(self, job: Message) -> None:
        """Take a while."""
        await asyncio.sleep(0.01)
        self.seen.add(job["id"])

    def on_tick(self, ctx: Context) -> None:
        """Tell."""
        self.told.emit(self.seen.note(ctx))

    def on_end(self, ctx: Context) -> None:
        """Tell for the last time."""
        self.told.emit(self.seen.note(ctx))


def control_graph(load: float = 1.0) -> tuple[Graph, Node]:
    """Return the graph, and the node that collects what its sinks tell."""
    graph, collect = Graph("control"), Collect()
    motor, jobs = Motor().options(replicas=REPLICAS, tick_s=1.0), Jobs().options(tick_s=1.0)
    graph.connect(Numbered("data", DATA_PER_S * load).options(name="producer"), motor.data)
    settings = Numbered("settings", SETTINGS_PER_S * load, REPLICAS).options(name="settings")
    graph.connect(settings, motor.settings)
    graph.connect(motor.told, collect)
    graph.connect(jobs.told, collect)
    graph.accept(jobs.into, capacity=100)
    return graph, collect


def drive(soak: Conduct) -> None:
    """Talk to the run until the soak is over."""
    graph, collect = control_graph(soak.load)
    chance, orders, jobs = random.Random(soak.seed), Sent("orders"), Sent("jobs")
    number = 0
    with soak.run(graph, collect, outside=[orders, jobs]) as run:
        while soak.wait(ROUND_S):
            for _ in range(ORDERS):
                run.send("motor.orders", {"id": orders.count // REPLICAS, "at": now_ns()})
                orders.add(orders.count // REPLICAS, REPLICAS)
            number = _send_jobs(run, jobs, number, chance)
            node = chance.choice(["motor", "producer", "settings"])
            run.pause(node)
            _look_on(soak, run)
            run.resume(node)


def _send_jobs(run: Run, jobs: Sent, number: int, chance: random.Random) -> int:
    """Send some jobs and cancel a few of them; return the next number."""
    names = {f"job-{number + i}": number + i for i in range(JOBS)}
    for name, job in names.items():
        run.send("jobs.into", {"id": job}, id=name)
    taken_back = {
        names[name]
        for name in chance.sample(sorted(names), JOBS // 3)
        if run.cancel(name) is Cancelled.CANCELLED
    }
    for job in names.values():
        if job not in taken_back:
            jobs.add(job)
    return number + JOBS


def _look_on(soak: Conduct, run: Run) -> None:
    """Look at the run as ``dflow status`` does, and leave."""
    for live in live_runs():
        if live.run_id == run.run_id:
            try:
                observer = Observer(live.endpoint, live.token)
                try:
                    observer.status()
                finally:
                    observer.close()
            except RunError as error:
                soak.event(f"an observer was not answered: {error}")
