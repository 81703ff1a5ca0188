"""Testing graphs: a whole run in one process, in virtual time, the same for the same seed.

`simulate` runs a graph with its real handlers, and with the real coordinator, workers and edges,
in milliseconds; `Faults` makes things go wrong; `spend` stands for work. docs/simulation.md says
what is simulated and what is not.
"""

from dflow.testing.faults import Cut, Drop, Duplicate, Faults, Kill, Stall
from dflow.testing.simulation import Simulation, SimulationFailed, simulate
from dflow.testing.spending import spend

__all__ = [
    "Cut",
    "Drop",
    "Duplicate",
    "Faults",
    "Kill",
    "Simulation",
    "SimulationFailed",
    "Stall",
    "simulate",
    "spend",
]
