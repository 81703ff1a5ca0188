"""Chains of ordered stages, at random: whatever their handlers and windows, the order is exact."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from dflow import Context, Graph, edge, node, source
from stress.memory import Memory
from stress.nodes import BASE_MB

LENGTH = 400
CHAINS = 4

Message = list[int]


def results(stage: int, message: Message) -> list[Message]:
    """Return what a stage makes of a message: the same wherever it is computed."""
    shape = Random(f"{stage} {message[0]} {len(message)} {sum(message)}")
    count = shape.choice((0, 1, 1, 1, 2, 5))
    return [[*message[:1], sum(message) % 97, place] for place in range(count)]


def pause_s(stage: int, message: Message, replica: int) -> float:
    """Return how long a stage takes for a message; some replicas are slow."""
    shape = Random(f"{stage} {message} pause")
    return shape.choice((0, 0, 0, 0.0005)) * (1 + 2 * replica)


@source
def messages(count: int) -> Iterator[Message]:
    """Yield ``[0] … [count - 1]``."""
    for number in range(count):
        yield [number]


@node
def generating(message: Message, stage: int, ctx: Context) -> Iterator[Message]:
    """Yield the results one by one."""
    for result in results(stage, message):
        time.sleep(pause_s(stage, result, ctx.replica))
        yield result


@node
def emitting(message: Message, stage: int, ctx: Context) -> None:
    """Emit all results, and fail afterwards now and then."""
    time.sleep(pause_s(stage, message, ctx.replica))
    for result in results(stage, message):
        ctx.emit(result)
    if sum(message) % 31 == 7:
        raise LookupError(str(message))


@node
async def awaiting(message: Message, stage: int, ctx: Context) -> AsyncIterator[Message]:
    """Yield the results after a while; many at once."""
    for result in results(stage, message):
        await asyncio.sleep(pause_s(stage, result, ctx.replica))
        yield result


@node
async def emitting_tasks(message: Message, stage: int, ctx: Context) -> None:
    """Emit the results after a while; many at once."""
    for result in results(stage, message):
        await asyncio.sleep(pause_s(stage, result, ctx.replica))
        ctx.emit(result)


KINDS: list[Any] = [generating, emitting, awaiting, emitting_tasks]


@dataclass(frozen=True)
class Stage:
    """How one stage of a chain looks."""

    kind: int
    replicas: int
    concurrency: int
    capacity: int
    keyed: bool


def a_stage(rng: Random) -> Stage:
    """Return a random stage."""
    kind = rng.randrange(len(KINDS))
    return Stage(
        kind,
        replicas=rng.choice((1, 2, 3)),
        concurrency=rng.choice((2, 10)) if kind >= 2 else 1,
        capacity=rng.choice((1, 2, 8, 64, 1024)),
        keyed=rng.random() < 0.3,
    )


def chain(stages: list[Stage], length: int) -> tuple[Graph, Any]:
    """Return a graph of the stages and its last node."""
    graph = Graph("chain")
    last: Any = messages(length)
    for number, stage in enumerate(stages):
        made = KINDS[stage.kind](number).options(
            name=f"stage{number}",
            ordered=True,
            replicas=stage.replicas,
            concurrency=stage.concurrency,
        )
        key = (lambda message: message[-1] % 5) if stage.keyed else None
        graph.add(last >> edge(capacity=stage.capacity, key=key) >> made)
        last = made
    return graph, last


def test_random_chains_of_ordered_stages_keep_the_order(scale: int) -> None:
    for seed in range(CHAINS * scale):
        rng = Random(seed)
        stages = [a_stage(rng) for _ in range(rng.choice((1, 2, 2, 3)))]
        print(f"seed {seed}: {stages}")
        expected: list[Message] = [[number] for number in range(LENGTH)]
        for number in range(len(stages)):
            expected = [one for message in expected for one in results(number, message)]
        graph, last = chain(stages, LENGTH)
        with graph.start(results=[last], log_level="CRITICAL") as run, Memory(run) as memory:
            values = list(run.results(last))
            report = run.wait(60)
        memory.assert_within(BASE_MB, {})
        assert report.outcome == "finished", report
        assert report.balances, report.imbalances
        assert values == expected, f"seed {seed}"
