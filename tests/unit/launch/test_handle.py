"""The launching process's end of a run, against a coordinator and a receiver made by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dflow import Graph, Input, Node, NodeEnded
from dflow.launch.handle import Handle
from dflow.launch.sending import GraphCode
from dflow.options import RunOptions
from dflow.stats import WorkerStats
from dflow.transport.control import ControlRouter
from dflow.transport.endpoint import wait
from dflow.transport.link import InLink
from dflow.wire import control as c
from dflow.wire import frames as f
from dflow.wire.codec import Codec

WITHIN_S = 5.0
TOKEN = "token"


class Swallow(Node):
    """Takes messages from outside."""

    data = Input(int, required=False)

    @data.handler
    def take(self, value: int) -> None:
        """Take a message."""


class Bench:
    """A handle, the coordinator it talks to, and where its messages arrive."""

    def __init__(self, folder: Path) -> None:
        graph = Graph("g", Swallow().options(name="swallow"))
        self.router = ControlRouter(f"ipc://{folder}/coordinator")
        self.link = InLink(f"ipc://{folder}/data", 100)
        self.peer = b""
        code = GraphCode(Codec(graph.types()), graph.external_key, graph.merge)
        self.handle = Handle(
            graph.plan(), RunOptions(), token=TOKEN, epoch=1, endpoint=self.router.endpoint,
            run_dir=str(folder), code=code,
        )  # fmt: skip

    def hear(self, kind: type[c.Control]) -> c.Control:
        """Return the next word of this kind."""
        until = time.monotonic() + WITHIN_S
        while wait([self.router.socket], max(0.0, until - time.monotonic())):
            assert time.monotonic() < until, f"expected {kind.__name__}"
            heard = self.router.receive()
            if heard is not None:
                self.peer, message = heard[0], c.decode(heard[1][0])
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"expected {kind.__name__}")

    def say(self, message: c.Control) -> None:
        """Say something to the handle."""
        assert self.router.send(self.peer, c.encode(message))

    def locate(self) -> None:
        """Answer where the only channel from outside leads to."""
        asked = self.hear(c.Locate)
        assert isinstance(asked, c.Locate)
        self.say(c.Located(asked.request, [[0, self.link.endpoint]]))

    def arrived(self, count: int) -> None:
        """Wait for so many messages."""
        while count:
            assert wait([self.link.socket], WITHIN_S), f"expected {count} more messages"
            received = self.link.receive()
            if received is not None:
                count -= f.parse(received[1]).count

    def close(self) -> None:
        """End the handle and close the sockets."""
        self.handle.close()
        self.router.socket.close(0)
        self.link.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a bench."""
    made = Bench(tmp_path)
    yield made
    made.close()


def test_after_its_last_word_nothing_more_is_sent(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as user:
        sent = user.submit(bench.handle.send, "swallow", "data", 1, WITHIN_S)
        bench.locate()
        sent.result(WITHIN_S)
    bench.arrived(1)
    bench.say(c.Abort("enough"))
    stopped = bench.hear(c.Stopped)
    assert isinstance(stopped, c.Stopped)
    assert [each.sent for each in WorkerStats.from_wire(stopped.stats).outs] == [1]
    with pytest.raises(NodeEnded):
        bench.handle.send("swallow", "data", 2, WITHIN_S)


def test_who_pauses_a_node_while_the_run_is_asked_to_drain_does_not_hold_it_up(
    bench: Bench,
) -> None:
    with ThreadPoolExecutor(1) as user:
        paused = user.submit(bench.handle.pause, "swallow", paused=True)
        asked = bench.hear(c.PauseRequest)
        assert isinstance(asked, c.PauseRequest)
        bench.handle.request_drain(WITHIN_S)  # this may have been said before the other
        assert bench.hear(c.PauseRequest) == c.PauseRequest(0, "", 0)
        bench.say(c.Answer(asked.request, ""))
        paused.result(WITHIN_S)
    assert bench.hear(c.PauseRequest) == c.PauseRequest(0, "", 0)
