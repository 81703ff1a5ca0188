"""The peers: what is measured, how much of it, and what one has to know to read the figures.

``counts`` says how many messages a measurement has: so many that it lasts about two seconds on the
machine of docs/peers.md (rates are compared, not times). Without an entry the work is not done:
another row does the same, or, frames in one process, nothing would move.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PEERS", "Peer"]

PACED = 2500


@dataclass(frozen=True, slots=True)
class Peer:
    """One row. ``adapter``: its module here. ``package``: its distribution, if it has one.

    ``own``: runs in the interpreter of this checkout instead of the peers' own environment.
    ``way``: "processes" or "one process". ``batches``: who makes batches of small messages.
    """

    adapter: str
    title: str
    package: str
    counts: dict[str, int]
    batches: str
    note: str
    way: str = "processes"
    own: bool = False


def _counts(small: int, frames: int, fanout: int) -> dict[str, int]:
    return {"small": small, "paced": PACED, "frames": frames, "fanout": fanout}


PEERS = (
    Peer(
        "dflow_graph",
        "dflow",
        "dflow",
        _counts(1_600_000, 2000, 500_000),
        "dflow",
        "default options; lossless, ordered, books that balance",
        own=True,
    ),
    Peer(
        "dflow_allocate",
        "dflow, ctx.allocate",
        "dflow",
        {"frames": 4000},
        "",
        "the source asks dflow for its frames, as a camera's driver has its own: nothing is copied",
        own=True,
    ),
    Peer(
        "by_hand",
        "pyzmq + msgpack, by hand",
        "pyzmq",
        _counts(2_500_000, 1000, 800_000),
        "the author, of 512",
        "the yardstick: no error handling, no order of start and stop, no account",
        own=True,
    ),
    Peer(
        "mp_pipe",
        "multiprocessing.Pipe",
        "",
        _counts(150_000, 150, 70_000),
        "nobody",
        "in every Python; two ends only; bounded by the kernel's buffer",
        own=True,
    ),
    Peer(
        "mp_queue",
        "multiprocessing.Queue",
        "",
        _counts(80_000, 120, 50_000),
        "nobody",
        "in every Python; many readers and writers; `maxsize` 10,000",
        own=True,
    ),
    Peer(
        "ezmsg_units",
        "ezmsg",
        "ezmsg",
        _counts(15_000, 2000, 13_000),
        "nobody",
        "lossless; publish and subscribe that others can join while it runs",
    ),
    Peer(
        "ray_actors",
        "Ray actors",
        "ray",
        _counts(4000, 400, 1600),
        "nobody",
        "a call for each message; clusters, any Python object, recovery of actors",
    ),
    Peer(
        "ray_batches",
        "Ray actors, lists of 512",
        "ray",
        {"small": 300_000, "fanout": 180_000},
        "the user, of 512",
        "lists made by the user's code, as Ray advises",
    ),
    Peer(
        "ray_graph",
        "Ray compiled graph",
        "ray",
        _counts(10_000, 1500, 5000),
        "nobody",
        "the driver is the source; made for few, large steps on accelerators",
    ),
    Peer(
        "dora_flow",
        "dora, backpressure",
        "dora-rs",
        _counts(20_000, 120, 20_000),
        "nobody",
        "`queue_size` 10,000, so that the whole measurement fits in: the sender is not held up",
    ),
    Peer(
        "dora_drop",
        "dora, drop_oldest",
        "dora-rs",
        _counts(8000, 3000, 9000),
        "nobody",
        "the default policy, made for robots: fresh data first; frames in shared memory",
    ),
    Peer(
        "bytewax_cluster",
        "Bytewax, three processes",
        "bytewax",
        _counts(500_000, 200, 250_000),
        "Bytewax, of 1000",
        "`redistribute`: a third of the messages stays in its process; no order; windows, state",
    ),
    Peer(
        "bytewax_alone",
        "Bytewax, one worker",
        "bytewax",
        {"small": 3_000_000, "paced": PACED, "fanout": 1_000_000},
        "Bytewax, of 1000",
        "one thread: nothing is encoded or sent anywhere",
        way="one process",
    ),
    Peer(
        "meridian_graph",
        "Meridian Runtime",
        "meridian-runtime",
        {"small": 20_000, "paced": PACED, "fanout": 14_000},
        "nobody",
        "one thread: nothing is encoded or sent anywhere; bands, policies, metrics",
        way="one process",
    ),
)
