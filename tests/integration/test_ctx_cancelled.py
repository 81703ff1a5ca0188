"""A handler sees that the message it has in hand is no longer wanted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from dflow import Cancelled, Context, Graph, Input, Node, Output
from tests.integration.flows import await_file

pytestmark = pytest.mark.timeout(30)


class Blocking(Node):
    """Handles a message called "long" until it is cancelled."""

    paths = Input(str, required=False)
    out = Output(str)

    @paths.handler
    def handle(self, x: str, ctx: Context) -> str:
        path = Path(x)
        path.touch()
        while path.name == "long" and not ctx.cancelled:
            time.sleep(0.001)
        return f"{path.name} {ctx.cancelled}"


class Awaiting(Node):
    """The same as a coroutine."""

    paths = Input(str, required=False)
    out = Output(str)

    @paths.handler
    async def handle(self, x: str, ctx: Context) -> str:
        path = Path(x)
        path.touch()  # noqa: ASYNC240  # takes no time
        while path.name == "long" and not ctx.cancelled:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.001)
        return f"{path.name} {ctx.cancelled}"


@pytest.mark.parametrize("kind", [Blocking, Awaiting])
def test_the_message_in_hand_is_cancelled_and_no_other(
    kind: type[Blocking | Awaiting], tmp_path: Path
) -> None:
    stage = kind()
    with Graph("in_hand", stage).start(results=[stage]) as run:
        ids = [run.send(stage, str(tmp_path / name)) for name in ("short", "long", "last")]
        await_file(tmp_path / "long")
        found = [run.cancel(id) for id in (*ids[:2], "nobody's")]
        run.stop()
        values = list(run.results())
        report = run.wait(20)
    assert found == [Cancelled.DONE, Cancelled.HANDLING, Cancelled.UNKNOWN]
    assert values == ["short False", "long True", "last False"]
    assert report.balances, report.imbalances
