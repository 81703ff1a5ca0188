"""``python -m tests.sim``: random graphs in the simulator, as many as one likes.

python -m tests.sim --count 2000                 as in CI; the base seed is drawn and printed
python -m tests.sim --count 50000 --jobs 2       as at night
python -m tests.sim --seed 17                    the same case again
python -m tests.sim --seed 17 --trace            with its whole trace
python -m tests.sim --case '{"seed": ...}'       a case as a failure prints it

Exit code 1 if any case fails: its seed, its case made smaller, and what happened there are printed.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.sim.campaign import Verdict, explain, judge_all
from tests.sim.draw import FAULTS, draw
from tests.sim.spec import Case
from tests.sim.trial import try_case

MOST_FAILURES = 5
TOLD_EVERY_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    chosen = _parser().parse_args(arguments)
    if chosen.case is not None:
        return _one(Case.from_json(chosen.case), chosen.trace, chosen.budget)
    if chosen.seed is not None and chosen.count is None:
        return _one(draw(chosen.seed, chosen.faults), chosen.trace, chosen.budget)
    base = secrets.randbelow(2**31) if chosen.seed is None else chosen.seed
    return _many(base, chosen.count or 1000, chosen.faults, chosen.jobs, chosen.budget)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.sim", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, help="how many cases; with --seed from that seed on")
    parser.add_argument("--seed", type=int, help="without --count: this case alone")
    parser.add_argument("--case", help="a case as JSON")
    parser.add_argument("--faults", choices=FAULTS, default="all", help="what may go wrong")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="print the whole trace of one case")
    parser.add_argument(
        "--budget", type=float, default=30.0, help="seconds to make a failing case smaller"
    )
    return parser


def _one(case: Case, trace: bool, budget_s: float) -> int:
    trial = try_case(case)
    if trace and trial.simulation is not None:
        print(trial.simulation.trace)
    print(case.to_json())
    if not trial.wrong:
        print(f"{trial.outcome} after {trial.steps} steps: nothing is wrong")
        return 0
    print("\n".join(trial.wrong) if trace else explain(case, budget_s=budget_s))
    return 1


def _many(base: int, count: int, faults: str, jobs: int, budget_s: float) -> int:
    print(f"{count} cases from seed {base} on, faults: {faults}", flush=True)
    began_s = told_s = time.monotonic()
    outcomes: Counter[str] = Counter()
    steps = 0
    failed: list[Verdict] = []
    for verdict in judge_all(range(base, base + count), faults, jobs):
        outcomes[verdict.outcome] += 1
        steps += verdict.steps
        if verdict.wrong:
            failed.append(verdict)
            print(f"seed {verdict.seed}: {verdict.wrong[0]}", flush=True)
        if len(failed) >= MOST_FAILURES:
            break
        if time.monotonic() - told_s > TOLD_EVERY_S:
            told_s = time.monotonic()
            print(f"  {outcomes.total()} of {count}", file=sys.stderr, flush=True)
    took_s = time.monotonic() - began_s
    told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    done = outcomes.total()
    print(f"{done} cases in {took_s:.1f} s: {done / took_s:.1f} a second, {steps:,} steps ({told})")
    if not failed:
        return 0
    seed = failed[0].seed
    print(f"\n{len(failed)} failed. seed {seed}, made smaller:\n")
    print(explain(draw(seed, faults), budget_s=budget_s))
    print(f"\nagain: python -m tests.sim --seed {seed} --faults {faults} [--trace]")
    return 1


if __name__ == "__main__":
    sys.exit(main())
