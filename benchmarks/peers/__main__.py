"""Measure dflow and its peers on the same work, in turn; print a table and write JSON.

    python -m benchmarks.peers [--quick] [--rounds N] [--only NAME …] [--work WORK …]
                               [--count N] [--venv DIR] [--json FILE]

Each measurement is a fresh process with a time limit. A peer that cannot be installed or fails is
a row with the reason. Peers alternate within a round; figures are medians of the rounds.
`python -m benchmarks.peers.table` writes the tables of README.md and docs/peers.md from the JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import dflow
from benchmarks.peers.environment import ROOT, commit, install, machine, versions
from benchmarks.peers.measuring import Failed, loopback_only, measure
from benchmarks.peers.registry import PEERS, Peer
from benchmarks.peers.table import print_rows
from benchmarks.peers.verdict import Round, summary
from benchmarks.peers.work import WARM_UP, WORKS

LIMIT_S = 90.0
BUSY_SAMPLE_S = 0.2


@dataclass(slots=True)
class Found:
    """What was measured, by adapter and work, and how busy the machine was before each."""

    rounds: dict[str, dict[str, list[Round]]] = field(default_factory=lambda: defaultdict(dict))
    failures: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    busy: list[float] = field(default_factory=list)


def main() -> int:
    """Measure, print, write."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left of that either
    asked = _parser().parse_args()
    peers = [peer for peer in PEERS if not asked.only or peer.adapter in asked.only]
    if asked.quick:
        asked.rounds = 1
    began = time.monotonic()
    needed = any(not peer.own for peer in peers)
    python, missing = install(asked.venv) if needed else (Path(sys.executable), {})
    found = Found()
    try:
        for number, peer, work in _turns(peers, asked.work or WORKS, asked.rounds):
            if peer.package in missing:
                found.failures[peer.adapter][work] = missing[peer.package]
            elif work not in found.failures[peer.adapter]:
                told = _measure_one(found, peer, work, _count(peer, work, asked), python)
                print(f"{number} {peer.adapter} {work}: {told}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; this is what there is", file=sys.stderr)
        asked.quick = True
    document = _document(found, peers, asked, python)
    document["took_s"] = round(time.monotonic() - began)
    asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print_rows(document)
    return 0


def _measure_one(found: Found, peer: Peer, work: str, count: int, python: Path) -> str:
    """Measure once, keep what came of it, and return a line about it."""
    found.busy.append(psutil.cpu_percent(BUSY_SAMPLE_S) / 100)
    began = time.monotonic()
    try:
        if peer.own:
            one = measure(Path(sys.executable), peer.adapter, work, count, LIMIT_S)
        else:
            one = measure(python, peer.adapter, work, count, LIMIT_S, loopback_only())
    except Failed as failed:
        found.failures[peer.adapter][work] = str(failed)
        return str(failed)
    found.rounds[peer.adapter].setdefault(work, []).append(one)
    return f"{_short(work, one)} [{time.monotonic() - began:.1f} s]"


def _document(
    found: Found, peers: list[Peer], asked: argparse.Namespace, python: Path
) -> dict[str, Any]:
    packages = sorted({peer.package for peer in peers if peer.package})
    known = {
        **versions(python, packages),
        **versions(Path(sys.executable), ["pyzmq"]),
        "dflow": dflow.__version__,
        "": f"Python {platform.python_version()}",
    }
    busy = sorted(found.busy) or [0.0]
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "rounds": asked.rounds,
        "quick": bool(asked.quick or asked.count),
        "others": {"median": round(busy[len(busy) // 2], 3), "max": round(busy[-1], 3)},
        "peers": [
            _row(peer, known, found.rounds[peer.adapter], found.failures[peer.adapter])
            for peer in peers
        ],
    }


def _turns(
    peers: list[Peer], works: list[str] | tuple[str, ...], rounds: int
) -> Iterator[tuple[int, Peer, str]]:
    """Yield every measurement; the peer that begins changes from round to round."""
    for number in range(rounds):
        for work in works:
            first = number * len(peers) // rounds
            for peer in peers[first:] + peers[:first]:
                if work in peer.counts:
                    yield number, peer, work


def _count(peer: Peer, work: str, asked: argparse.Namespace) -> int:
    """Return how many messages to send; a quick run has a tenth of them."""
    if asked.count:
        return int(asked.count)
    if not asked.quick:
        return peer.counts[work]
    return WARM_UP + 500 if work == "paced" else max(100, peer.counts[work] // 10)


def _row(
    peer: Peer, known: dict[str, str], rounds: dict[str, list[Round]], failures: dict[str, str]
) -> dict[str, Any]:
    works: dict[str, Any] = {
        work: {**summary(found), "rounds": [asdict(one) for one in found]}
        for work, found in rounds.items()
    }
    for work, reason in failures.items():
        works.setdefault(work, {})["failed"] = reason
    described = {
        name: value for name, value in asdict(peer).items() if name not in ("counts", "own")
    }
    return {**described, "version": known.get(peer.package, ""), "works": works}


def _short(work: str, one: Round) -> str:
    speed = f"p50 {one.p50_us:.0f} us" if work == "paced" else f"{one.rate:,.0f}/s"
    fate = "" if one.sound else f" lost {one.lost}, again {one.repeated}, damaged {one.damaged}"
    return f"{speed}{fate}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of the messages")
    parser.add_argument(
        "--only", nargs="+", choices=[peer.adapter for peer in PEERS], help="only these peers"
    )
    parser.add_argument("--work", nargs="+", choices=WORKS, help="only these works")
    parser.add_argument("--count", type=int, help="messages, instead of what the registry says")
    parser.add_argument("--venv", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
