"""Orders of many customers: first come, first served for each, and nobody waits for another.

    python examples/per_customer_fifo.py

Two replicas serve four orders each at a time, but never two of one customer. Ann's first order
takes a minute, so her others wait; Bob's and Eve's do not. What waits can be cancelled, an order
under way is told so and may give up, and when ten are waiting more are refused.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dflow import Context, EdgeFull, Graph, node


class Order(NamedTuple):
    """What a customer wants, and how long it takes."""

    customer: str
    number: int
    seconds: float = 0.02


@node
async def serve(order: Order, ctx: Context) -> str:
    """Work on an order, and look now and then whether it is still wanted."""
    end = asyncio.get_running_loop().time() + order.seconds
    while asyncio.get_running_loop().time() < end:
        if ctx.cancelled:
            return f"{order.customer} {order.number} given up"
        await asyncio.sleep(0.005)
    return f"{order.customer} {order.number} served by replica {ctx.replica}"


shop = serve().options(replicas=2, concurrency=4, max_in_flight_per_key=1)
graph = Graph("shop", shop)
graph.accept(shop, key="customer", policy="reject", capacity=10)


def main() -> int:
    """Send orders, cancel three, and send until there is no room."""
    with graph.start(results=[shop]) as run:
        done = run.results(shop)
        orders = [Order("ann", 1, 60.0), Order("bob", 1), Order("ann", 2), Order("eve", 1)]
        orders += [Order("ann", 3), Order("bob", 2), Order("bob", 3), Order("eve", 2)]
        ids = {order[:2]: run.send(shop, order) for order in orders}
        for _ in range(5):  # all of Bob's and Eve's
            print(next(done))

        print("ann 2 cancelled while it waits:", run.cancel(ids["ann", 2]).value)
        print("bob 1 cancelled too late:", run.cancel(ids["bob", 1]).value)

        sent = 0
        try:
            for number in range(100):
                run.send(shop, Order("ann", 4 + number))
                sent += 1
        except EdgeFull as error:
            room = f"{error.depth} of {error.capacity} waiting"
            print(f"{sent} more orders of ann taken, then refused: {room}")

        print("ann 1 cancelled while under way:", run.cancel(ids["ann", 1]).value)
        run.stop()
        for line in done:
            print(line)
        report = run.wait(timeout_s=30)
    print(f"\n{report}")
    return 0 if report.balances else 1


if __name__ == "__main__":
    raise SystemExit(main())
