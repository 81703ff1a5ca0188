"""``python -m soak``: soak, stop, go on, and say what came of it.

Exit codes: 0 passed, or not enough evidence; 1 failed; 2 wrong usage; 3 not enough evidence and
``--strict``; 130 stopped by Ctrl-C or SIGTERM (the report is of what there is, and ``--resume``
goes on).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from soak.history import LAUNCHER, Part, history
from soak.judging import FAILED, PASSED, UNDECIDED, Finding, judge, overall
from soak.page import write_report
from soak.part import BUNDLES, PROFILES, SAMPLES, run_part, sweep
from soak.samples import read
from soak.state import FILE, State, is_alive, load, save

__all__ = ["main"]

EXIT_PASSED, EXIT_FAILED, EXIT_USAGE, EXIT_UNDECIDED, EXIT_STOPPED = 0, 1, 2, 3, 130
PLAIN_EVERY_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        folder, state = _prepared(asked)
    except ValueError as error:
        print(f"soak: {error}", file=sys.stderr)
        return EXIT_USAGE
    how = "finished"
    if asked.report is None:
        left_s = state.wanted_s - _done_s(folder)
        if left_s <= 0:
            print(f"soak: {folder} has had its {state.wanted_s / 3600:g} h; this is its report")
        else:
            print(
                f"soak: {state.profile}, {left_s / 3600:.3g} h to go, samples in {folder}/{SAMPLES}"
            )
            sys.stdout.flush()
            screen = Screen(sys.stdout, left_s)
            how = run_part(folder, state, left_s, screen.show)
            screen.end()
    parts = history(read(folder / SAMPLES), asked.warm_up_s)
    findings = judge(parts)
    written = write_report(folder, parts, findings)
    _print(parts, findings, written, sorted((folder / BUNDLES).glob("*/")))
    return _exit_code(findings, stopped=how == "stopped", strict=asked.strict)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m soak",
        description="Run a busy graph for hours; judge memory, leaks, throughput and books.",
        epilog="Ctrl-C drains and reports; --resume goes on. docs/soak.md has the whole story.",
    )
    time_asked = parser.add_mutually_exclusive_group()
    time_asked.add_argument("--hours", type=float, help="how long (default 1)")
    time_asked.add_argument("--minutes", type=float, help="the same in minutes")
    parser.add_argument("--profile", choices=PROFILES, help="what to run (default mixed)")
    parser.add_argument("--dir", type=Path, help="new directory for samples and report")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with a soak")
    parser.add_argument("--report", type=Path, metavar="DIR", help="only judge and report again")
    parser.add_argument("--load", type=float, default=1.0, help="factor of the rates (default 1)")
    parser.add_argument("--seed", type=int, help="of the profile's chance (default: a random one)")
    parser.add_argument("--sample-s", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument(
        "--warm-up-s", type=float, help="not judged (default: a fifth of a part, at most 600)"
    )
    parser.add_argument("--strict", action="store_true", help="too little evidence is a failure")
    return parser


def _prepared(asked: argparse.Namespace) -> tuple[Path, State]:
    """Return the directory and the state to go on from; ValueError if that cannot be."""
    known = asked.resume or asked.report
    if asked.resume and asked.report:
        raise ValueError("expected --resume or --report, got both")
    if known is not None:
        state = load(known)
        if asked.profile not in (None, state.profile):
            raise ValueError(f"{known}: is a soak of profile {state.profile}, not {asked.profile}")
        if asked.resume and is_alive(state):
            raise ValueError(f"{known}: process {state.pid} is still at it; stop that one first")
        if asked.resume and (living := sweep(state)):
            listed = ", ".join(f"{pid} ({command})" for pid, command in living.items())
            raise ValueError(f"{known}: processes of its last part are still alive: {listed}")
        return known, state
    wanted_s = 60 * asked.minutes if asked.minutes is not None else 3600 * (asked.hours or 1.0)
    if wanted_s <= 0 or asked.sample_s <= 0 or asked.load <= 0:
        raise ValueError("expected a time, a load and --sample-s above 0")
    profile = asked.profile or "mixed"
    folder = asked.dir or Path(f"soak-{profile}-{time.strftime('%Y%m%d-%H%M%S')}")
    if (folder / FILE).exists():
        raise ValueError(f"{folder}: there is a soak already; --resume {folder} goes on with it")
    folder.mkdir(parents=True, exist_ok=True)
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1 << 32)
    state = State(profile, wanted_s, asked.sample_s, asked.warm_up_s, seed, asked.load)
    save(folder, state)
    return folder, state


def _done_s(folder: Path) -> float:
    """Return for how long a soak has run, all parts together."""
    if not (folder / SAMPLES).exists():
        return 0.0
    last: dict[int, float] = {}
    for line in read(folder / SAMPLES):
        last[line["part"]] = max(last.get(line["part"], 0.0), line["t"])
    return sum(last.values())


class Screen:
    """The live line: rewritten in place on a terminal, else a line a minute."""

    def __init__(self, out: TextIO, left_s: float) -> None:
        self.out = out
        self.left_s = left_s
        self.live = out.isatty()
        self._delivered: tuple[float, float] | None = None
        self._next_s = 0.0
        self._trouble = ""

    def show(self, line: Mapping[str, Any]) -> None:
        """Show the numbers of one look."""
        if line["trouble"] != self._trouble:
            self._trouble = line["trouble"]
            what = f"cannot write samples: {self._trouble}" if self._trouble else "writing again"
            self.out.write(f"\nsoak: {what}; the run goes on\n")
        text = self._text(line)
        if self.live:
            self.out.write(f"\r\x1b[K{text}")
        elif line["t"] >= self._next_s:
            self._next_s = line["t"] + PLAIN_EVERY_S
            self.out.write(f"{text}\n")
        self.out.flush()

    def end(self) -> None:
        """Leave the line."""
        if self.live:
            self.out.write("\n")
            self.out.flush()

    def _text(self, line: Mapping[str, Any]) -> str:
        processes = {name: row for name, row in line["p"].items() if not name.startswith("other:")}
        memory = sum(row[3] for row in processes.values()) / 1e6
        words = [
            f"{_clock(line['t'])} of {_clock(self.left_s)}",
            f"{len(processes)} processes",
            f"{memory:.0f} MB",
        ]
        if LAUNCHER in processes:
            words.append(f"{processes[LAUNCHER][5]} files open here")
        if "e" in line:
            delivered = sum(row[4] for row in line["e"].values())
            if self._delivered is not None and line["t"] > self._delivered[0]:
                rate = (delivered - self._delivered[1]) / (line["t"] - self._delivered[0])
                words.append(f"{rate:,.0f} messages/s")
            self._delivered = line["t"], delivered
            words.append(f"{sum(row[0] for row in line['e'].values()):,} waiting")
            words.append(f"{sum(row[2] for row in line['n'].values()):,} errors")
        slowest = max((row[2] for row in line.get("l", {}).values()), default=0)
        if slowest:
            words.append(f"p99 {slowest / 1e6:.1f} ms")
        return ", ".join(words)


def _clock(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}"


def _print(
    parts: Sequence[Part],
    findings: Sequence[Finding],
    written: Sequence[Path],
    bundles: Sequence[Path],
) -> None:
    """Print the findings that matter, where all of them are, and what failed runs have left."""
    shown = [f for f in findings if f.verdict != PASSED or f.name.endswith("of all")]
    shown += [f for f in findings if f not in shown and f.group != "memory"]
    marks = {PASSED: "ok", FAILED: "FAILED", UNDECIDED: "open"}
    for finding in sorted(shown, key=findings.index):
        print(f"{marks[finding.verdict]:<7}{finding.name}: {finding.text}")
    verdict = overall(findings)
    print(f"report: {', '.join(map(str, written))}")
    for bundle in bundles:
        print(f"failure bundle; read it with: dflow doctor {bundle}")
    reasons = [f.name for f in findings if f.verdict == verdict]
    print(f"soak: {verdict}" + ("" if verdict == PASSED else f": {', '.join(reasons)}"))
    sys.stdout.flush()


def _exit_code(findings: Sequence[Finding], *, stopped: bool, strict: bool) -> int:
    verdict = overall(findings)
    if verdict == FAILED:
        return EXIT_FAILED
    if stopped:
        return EXIT_STOPPED
    return EXIT_UNDECIDED if strict and verdict == UNDECIDED else EXIT_PASSED
