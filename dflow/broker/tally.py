"""How many workers are at which step, all together and on each level.

Every barrier of a run asks whether everybody has taken a step, and it is asked after every event.
Looking at everybody each time would make the start and the end of a run quadratic in its
workers; here a move costs two counts and a question as many as it names steps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator

from dflow.broker.lifecycle import Step

__all__ = ["Tally"]


class Tally:
    """The workers of one run, all ABSENT at first; ``levels``: that of each worker."""

    __slots__ = ("_all", "_by_level", "_sizes", "_total")

    def __init__(self, levels: Iterable[int]) -> None:
        self._sizes = Counter(levels)
        self._total = self._sizes.total()
        self._all = Counter({Step.ABSENT: self._total})
        self._by_level = defaultdict(
            Counter, {level: Counter({Step.ABSENT: size}) for level, size in self._sizes.items()}
        )

    def moved(self, level: int, before: Step, after: Step) -> None:
        """Count a worker of ``level`` at another step."""
        for counts in (self._all, self._by_level[level]):
            counts[before] -= 1
            counts[after] += 1

    def all_at(self, steps: Collection[Step]) -> bool:
        """Whether every worker is at one of ``steps``."""
        return sum([self._all[step] for step in steps]) == self._total

    def level_at(self, level: int, steps: Collection[Step]) -> bool:
        """Whether every worker of ``level`` is at one of ``steps``."""
        counts = self._by_level[level]
        return sum([counts[step] for step in steps]) == self._sizes[level]

    def problems(self, workers: Iterable[tuple[int, Step]]) -> Iterator[str]:
        """Yield how the counts differ from those of ``workers``, (level, step) each."""
        true = Counter(workers)
        for level, counts in self._by_level.items():
            for step in Step:
                if counts[step] != true[level, step]:
                    yield (
                        f"level {level}: counted {counts[step]} {step.value}, "
                        f"there are {true[level, step]}"
                    )
