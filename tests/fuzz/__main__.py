"""Fuzz every target for a while each, or replay one input; ``scripts/fuzz`` makes the environment.

    python -m tests.fuzz --minutes 5                     every target, five minutes each
    python -m tests.fuzz --target frame --minutes 1      one
    python -m tests.fuzz --target frame --replay FILE    what was found, again
    python -m tests.fuzz --pin FILE --target frame       keep it as a regression test

Inputs that reached something new are kept in ``--corpus`` (default: .fuzz/corpus), where the next
run begins; what broke a promise goes to .fuzz/found/TARGET. Afterwards every input of the corpus
is given to its target once more, and the memory it takes is weighed. Exits 1 if anything was found.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import re
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.promise import BrokenPromise, Target, check
from tests.fuzz.targets import PINS, TARGETS, pins, read

_HANG_S = 20
_MOST_MB = 2048
_MOST_ALLOCATION_MB = 512
_LAST = re.compile(r"#(\d+)\s+(?:DONE|pulse|NEW|REDUCE|RELOAD).*?cov: (\d+) ft: (\d+) corp: (\d+)")
_FIRST = re.compile(r"#\d+\s+INITED.*?cov: (\d+)")


@dataclass(frozen=True)
class Result:
    """What became of one target; ``cov`` counts places in the code that were reached."""

    name: str
    runs: int
    cov_before: int
    cov: int
    corpus: int
    heaviest: float
    found: tuple[Path, ...]

    def __str__(self) -> str:
        return (
            f"{self.name:12} {self.runs:>12,} {self.cov_before:>7} {self.cov:>7}"
            f" {self.corpus:>7} {self.heaviest:>8.0%}  {len(self.found) or 'nothing'}"
        )


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = _options()
    chosen = [TARGETS[name] for name in options.target] if options.target else [*TARGETS.values()]
    if options.replay or options.base64:
        return _replay(chosen[0], options)
    if options.pin:
        return _pin(chosen[0], options.pin)
    if importlib.util.find_spec("atheris") is None:
        print(
            "fuzz: expected atheris, the coverage-guided fuzzer; run scripts/fuzz, which makes an"
            " environment with it, or pip install 'dflow[fuzz]'", file=sys.stderr,
        )  # fmt: skip
        return 2
    results = []
    for target in chosen:
        if target.missing:
            print(f"{target.name}: skipped, expected {', '.join(target.missing)}", flush=True)
            continue
        results.append(_fuzz(target, options.minutes * 60, options.dir))
        print(results[-1], flush=True)
        for path in results[-1].found:
            print(f"  again: scripts/fuzz --target {target.name} --replay {path}", flush=True)
    print(f"\n{'target':12} {'executions':>12} {'cov at':>7} {'cov':>7} {'corpus':>7}"
          f" {'heaviest':>8}  found")  # fmt: skip
    print("\n".join(map(str, results)))
    return int(any(result.found for result in results))


def _options() -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("scripts/fuzz", description=__doc__, formatter_class=plain)
    parser.add_argument("--minutes", type=float, default=5.0, help="for each target")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), metavar="NAME",
                        help=f"one of {', '.join(TARGETS)}; may be repeated")  # fmt: skip
    parser.add_argument("--dir", type=Path, default=Path(".fuzz"), help="for corpora and findings")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give one input to the target")
    parser.add_argument("--base64", help="the same, in the command line")
    parser.add_argument("--pin", type=Path, metavar="FILE", help="keep an input for CI")
    options = parser.parse_args()
    if (options.replay or options.base64 or options.pin) and len(options.target or ()) != 1:
        parser.error("expected one --target to give the input to")
    return options


def _replay(target: Target, options: argparse.Namespace) -> int:
    data = base64.b64decode(options.base64) if options.base64 else read(options.replay)
    tracemalloc.start()
    try:
        check(target, b"")
        check(target, data)
    except BrokenPromise as error:
        print(error, file=sys.stderr)
        if error.__cause__ is not None:
            raise
        return 1
    print(f"{target.name}: {len(data):,} bytes keep the promise")
    return 0


def _pin(target: Target, path: Path) -> int:
    data = read(path)
    kept = PINS / target.name / f"{hashlib.sha256(data).hexdigest()[:12]}.b64"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(base64.encodebytes(data))
    print(f"kept as {kept}; rename it for what it does")
    return 0


def _fuzz(target: Target, seconds: float, place: Path) -> Result:
    """Run one target in a process of its own, then weigh what it found."""
    corpus, found = place / "corpus" / target.name, place / "found" / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    known = [read(path) for name, path in pins() if name == target.name]
    for data in [*target.seeds(), *known]:
        (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    before = set(found.iterdir())
    command = [
        sys.executable, "-m", "tests.fuzz.guided", target.name, f"-max_total_time={seconds:.0f}",
        f"-timeout={_HANG_S}", f"-rss_limit_mb={_MOST_MB}",
        f"-malloc_limit_mb={_MOST_ALLOCATION_MB}", f"-artifact_prefix={found}/", "-max_len=65536",
        "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    (found.parent / f"{target.name}.log").write_text(done.stderr + done.stdout)
    first, last = _FIRST.search(done.stderr), [*_LAST.finditer(done.stderr)]
    runs, cov = (int(last[-1][1]), int(last[-1][2])) if last else (0, 0)
    if not last:  # it did not even begin
        print(f"{target.name}: {done.stderr[-2000:]}", file=sys.stderr)
    heaviest, heavy = _weigh(target, corpus, found)
    new = sorted({*found.iterdir()} - before | heavy)
    count = sum(1 for _ in corpus.iterdir())
    return Result(
        target.name, runs, int(first[1]) if first else 0, cov, count, heaviest, tuple(new)
    )


def _weigh(target: Target, corpus: Path, found: Path) -> tuple[float, set[Path]]:
    """Return the largest part of what it may weigh that an input weighs, and who breaks it."""
    heaviest, heavy = 0.0, set()
    tracemalloc.start()
    try:
        for path in sorted(corpus.iterdir()):
            data = path.read_bytes()
            try:
                heaviest = max(heaviest, check(target, data) / target.most_bytes(data))
            except BrokenPromise as error:
                print(f"{target.name}: {error}", file=sys.stderr)
                kept = found / f"heavy-{path.name}"
                kept.write_bytes(data)
                heavy.add(kept)
    finally:
        tracemalloc.stop()
    return heaviest, heavy


if __name__ == "__main__":
    sys.exit(main())
