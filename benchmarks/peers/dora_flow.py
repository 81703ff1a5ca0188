"""dora: a dataflow in YAML, a Python node for each of its nodes, run by ``dora run``.

https://github.com/dora-rs/dora/blob/main/docs/python-guide.md: ``Node()``, ``send_output`` with
an Arrow array, ``for event in node``; ``dora run`` is its way to run on one machine (it brings its
own daemon, and no coordinator). A message is one Arrow value: a dict is an array with one struct, a
frame an array of bytes. There is no batching of messages.

https://github.com/dora-rs/dora/blob/main/docs/yaml-spec.md: a full input drops its oldest message
by default. ``queue_policy: backpressure`` lets it grow to ten times its size before it does
(https://docs.rs/dora-message/1.1.0/dora_message/config/enum.QueuePolicy.html); the sender is not
held up. So the queues are made large enough for the whole measurement; where they drop, they have
the ``queue_size: 1000`` of dora's own benchmark. ``shared_memory_pool_size``: in the default pool
frames of this size find no room and go another, slower way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import work

QUEUE_SIZES = {"backpressure": 10_000, "drop_oldest": 1000}
FRAMES_QUEUED = 32
"""What the pool has room for with some to spare; beyond it the slower way is taken."""
POOL = "512MB"
NODE = Path(__file__).with_name("dora_node.py")


def run(job: work.Job, policy: str = "backpressure") -> None:
    """Run the job once."""
    size = FRAMES_QUEUED if job.work == "frames" else QUEUE_SIZES[policy]
    queue = {"queue_size": size, "queue_policy": policy}
    nodes = [_node("source", job, outputs=["out"])]
    last = "source"
    if work.step(job) is not None:
        nodes.append(_node("map", job, outputs=["out"], source="source/out", queue=queue))
        last = "map"
    nodes += [
        _node(f"sink{index}", job, source=f"{last}/out", queue=queue) for index in range(job.sinks)
    ]
    flow = Path(job.folder, "flow.yml")
    flow.write_text(json.dumps({"nodes": nodes}), encoding="utf-8")  # JSON is YAML
    bin_folder = Path(sys.executable).parent
    subprocess.run(
        [bin_folder / "dora", "run", flow, "--log-level", "error"],
        cwd=job.folder,
        env={
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "DORA_ZENOH_MULTICAST": "false",  # nobody else is to be found
        },
        check=True,
    )


def _node(
    name: str,
    job: work.Job,
    *,
    outputs: list[str] | None = None,
    source: str = "",
    queue: dict[str, Any] | None = None,
) -> dict[str, Any]:
    arguments = f"{name} {job.work} {job.count} {job.folder}"
    node: dict[str, Any] = {"id": name, "path": str(NODE), "args": arguments}
    if outputs:
        node["outputs"] = outputs
        node["shared_memory_pool_size"] = POOL
    if source:
        node["inputs"] = {"into": {"source": source, **(queue or {})}}
    return node
