"""One target under atheris, which looks for inputs that reach code no other input has.

``python -m tests.fuzz.guided TARGET [libFuzzer's arguments] CORPUS``. Ends the process: 0 when the
time is up, else the input that broke the promise is where ``-artifact_prefix`` says. Memory is
not weighed here (that makes it ten times slower) but limited; `tests.fuzz.__main__` weighs what
was found afterwards.
"""

from __future__ import annotations

import sys
import warnings
from random import Random

import atheris

with atheris.instrument_imports(include=["dflow"]):
    from tests.fuzz.mutations import mutated
    from tests.fuzz.promise import check
    from tests.fuzz.targets import TARGETS

__all__: list[str] = []

_OWN = 3  # of four mutations are ours


def main(argv: list[str]) -> None:
    """Fuzz the target that the first argument names."""
    target = TARGETS[argv[1]]
    seeds = target.seeds()
    warnings.simplefilter("ignore")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.randrange(4) < _OWN:
            new = mutated([data, data, rng.choice(seeds)], rng, script=target.script)
        else:
            new = atheris.Mutate(data, max_size)
        return bytes(new[:max_size])

    atheris.Setup(
        [argv[0], *argv[2:]], lambda data: check(target, data), custom_mutator=mutate
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
