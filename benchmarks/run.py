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
from benchmarks import control, latency, scheduler, startup, throughput
from benchmarks.rounds import measure_parser, print_table

BARS = {
    "throughput": ("at least", 0.5),
    "latency_p50": ("at most", 2.0),
    "startup_ms": ("at most", 600.0),
    "import_ms": ("at most", 100.0),
    "scheduler": ("at least", 0.98),
    "bands_high_p99": ("at most", 0.2),
    "bands_low_rate": ("at least", 0.8),
    "control_50us_p99_us": ("at most", 1000.0),
    "control_50us_max_us": ("at most", 5000.0),
    "control_5000us_p99_us": ("at most", 6000.0),
}
"""What must hold: ratios to the reference or to doing nothing, and times."""


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


def bands(rounds: int, share: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure what bands do under load and CONTROL beside data; return figures and details."""
    ways = scheduler.measure(1 if share > 1 else min(rounds, 3), 20 / share)
    cost = scheduler.cost(rounds, 2_000_000 // share)
    ages = control.measure(60 / share)
    print_table(scheduler.rows(ways), scheduler.HEAD)
    print_table(throughput.rows(cost), ("scheduler's cost", "slots=0", "default", "ratio"))
    print_table(control.rows(ages), control.HEAD)
    medians = scheduler.figures(ways)
    nothing, default = medians["nothing"], medians["default"]
    figures = {
        "scheduler": cost.ratio(lambda one: one.rate).ratio,
        "bands_high_p99": default.p99_ms / nothing.p99_ms,
        "bands_low_rate": default.low_rate / nothing.low_rate,
        "bands_share": default.share,
    }
    for handler_us, one in ages.items():
        figures[f"control_{handler_us}us_p99_us"] = one.p99_us
        figures[f"control_{handler_us}us_max_us"] = one.max_us
    details = {
        "bands": {way: [asdict(one) for one in measured] for way, measured in ways.items()},
        "scheduler": cost.to_dict(),
        "control": {str(handler_us): asdict(one) for handler_us, one in ages.items()},
    }
    return figures, details


def main() -> int:
    """Measure, print, write."""
    parser = measure_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages and of time")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    asked = parser.parse_args()
    share = 10 if asked.quick else 1
    flow = throughput.measure(asked.rounds, 2_000_000 // share)
    paced = latency.measure(asked.rounds, 4000 // share)
    begun = startup.measure(asked.rounds)
    print_table([*throughput.rows(flow), *latency.rows(paced), *startup.rows(begun)])
    of_bands, details = bands(asked.rounds, share)
    figures = {
        "throughput": flow.ratio(lambda one: one.rate).ratio,
        "latency_p50": paced.ratio(lambda one: one.p50_us).ratio,
        "latency_p99": paced.ratio(lambda one: one.p99_us).ratio,
        "startup_ms": begun.first_message_ms,
        "import_ms": begun.import_ms,
        "worker_pss_mb": begun.worker_pss_mb,
        **of_bands,
    }
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": asked.rounds,
        "figures": figures,
        "throughput": flow.to_dict(),
        "latency": paced.to_dict(),
        "startup": asdict(begun),
        **details,
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
