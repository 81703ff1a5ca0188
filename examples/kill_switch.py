"""A kill switch: a control message overtakes everything that waits in front of it.

    python examples/kill_switch.py

A planner floods a motor with commands, far more than it can carry out. The motor's switch is an
input on the CONTROL band: what comes there is handled next, whatever else waits. So after the
switch no command is carried out, though thousands had been sent before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from dflow import Context, Graph, Input, Node, Priority, source


@source
def planner(ctx: Context) -> Iterator[float]:
    """Yield commands as fast as they are taken."""
    angle = 0.0
    while not ctx.stopping:
        yield angle
        angle += 0.1


class Motor(Node):
    """Carries out commands while it is switched on, and counts what it refused meanwhile."""

    commands = Input(float)
    switch = Input(tuple[bool, float], priority=Priority.CONTROL)

    def __init__(self) -> None:
        self.on = False
        self.carried_out = self.refused = 0

    @commands.handler
    def turn(self, angle: float) -> None:
        """Turn, which takes half a millisecond; or refuse to."""
        if self.on:
            self.carried_out += 1
            time.sleep(0.0005)
        else:
            self.refused += 1

    @switch.handler
    def change(self, pressed: tuple[bool, float]) -> None:
        """Start or stop at once; the message says when the switch was pressed."""
        self.on, pressed_s = pressed
        late_ms = (time.time() - pressed_s) * 1000
        word = "on" if self.on else "off"
        print(f"{word} {late_ms:.1f} ms after the switch was pressed, {self.counts()}", flush=True)
        self.refused = 0

    def counts(self) -> str:
        """Return the counts, for people."""
        return f"{self.carried_out} commands carried out, {self.refused} refused"

    def on_end(self) -> None:
        """Say what became of all the commands."""
        print(f"in the end {self.counts()}")


motor = Motor()
graph = Graph("kill-switch", planner() >> motor.commands)

if __name__ == "__main__":
    with graph.start() as run:
        run.send(motor.switch, (True, time.time()))
        time.sleep(0.5)
        run.send(motor.switch, (False, time.time()))
        time.sleep(0.2)
        run.stop()
        report = run.wait(timeout_s=30)
    print(f"\n{report}")
