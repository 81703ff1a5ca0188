"""Measure everything against the reference, in one run; print a table and write JSON.

    python -m benchmarks.run [--rounds N] [--quick] [--json FILE]

Exit code 1 when a figure misses its bar and ``--check`` was given.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import zmq

import dflow
from benchmarks import latency, startup, throughput
from benchmarks.rounds import measure_parser, print_table

BARS = {
    "throughput": ("at least", 0.5),
    "latency_p50": ("at most", 2.0),
    "startup_ms": ("at most", 600.0),
    "import_ms": ("at most", 100.0),
}
"""What must hold: ratios to the reference, and milliseconds."""


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "dflow": getattr(dflow, "__version__", "unknown"),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgpack": ".".join(map(str, msgpack.version)),
    }


def missed(figures: dict[str, float]) -> list[str]:
    """Return a sentence for each figure that misses its bar."""
    found = []
    for name, (sense, bar) in BARS.items():
        good = figures[name] >= bar if sense == "at least" else figures[name] <= bar
        if not good:
            found.append(f"{name}: expected {sense} {bar:g}, got {figures[name]:.2f}")
    return found


def main() -> int:
    """Measure, print, write."""
    parser = measure_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    asked = parser.parse_args()
    share = 10 if asked.quick else 1
    flow = throughput.measure(asked.rounds, 2_000_000 // share)
    paced = latency.measure(asked.rounds, 4000 // share)
    begun = startup.measure(asked.rounds)
    print_table([*throughput.rows(flow), *latency.rows(paced), *startup.rows(begun)])
    figures = {
        "throughput": flow.ratio(lambda one: one.rate).ratio,
        "latency_p50": paced.ratio(lambda one: one.p50_us).ratio,
        "latency_p99": paced.ratio(lambda one: one.p99_us).ratio,
        "startup_ms": begun.first_message_ms,
        "import_ms": begun.import_ms,
        "worker_pss_mb": begun.worker_pss_mb,
    }
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": asked.rounds,
        "figures": figures,
        "throughput": flow.to_dict(),
        "latency": paced.to_dict(),
        "startup": asdict(begun),
    }
    asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for warning in (flow.disturbance(), paced.disturbance()):
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    for sentence in missed(figures):
        print(f"missed: {sentence}", file=sys.stderr)
    return 1 if asked.check and missed(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
