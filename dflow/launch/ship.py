"""Make the user's code travel: by name where a name leads to it, by value where not.

By name is better (small, same identity, no copies of globals) and is taken for everything
in an importable module and for everything in a ``__main__`` that has a file, which the
agent loads as `preload.MAIN`. Lambdas, local functions, notebook cells and modules made on
the spot go by value with cloudpickle. This is pickle: it may only cross the private pipe
from the user's own process.

The sending half is in `dflow.launch.pickler`, so that a receiver need not import cloudpickle.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import dataclass
from typing import Any

from dflow.errors import StartError
from dflow.launch.preload import MAIN

__all__ = ["Shipment", "dumps", "from_main", "from_module", "loads", "lookup", "ship"]


@dataclass(frozen=True, slots=True)
class Shipment:
    """``code`` is for `loads`; ``uses_main``: it refers to the user's main module by name."""

    code: bytes
    uses_main: bool


def ship(obj: object) -> Shipment:
    """Return ``obj`` ready to travel; `GraphError` names the part that cannot."""
    from dflow.launch.pickler import pickled

    return Shipment(*pickled(obj))


def dumps(obj: object) -> bytes:
    """Return ``obj`` as bytes for `loads`; `GraphError` names the part that cannot travel."""
    return ship(obj).code


def loads(code: bytes) -> Any:
    """Return what `dumps` was given; `StartError` when a name leads nowhere here."""
    try:
        return pickle.loads(code)  # from the user's own process only
    except StartError:
        raise
    except Exception as error:  # importing user modules may raise anything
        raise StartError(
            f"the graph's code could not be loaded in the agent: {type(error).__name__}: {error}. "
            f"Expected every module it uses to be importable by {sys.executable} from the "
            f"directories on sys.path when the run was started"
        ) from error


def lookup(module: str, qualname: str) -> Any:
    """Return what ``qualname`` leads to in an imported module, None if nothing."""
    found = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


def from_main(qualname: str) -> Any:
    """Return an object of the user's main module, loaded before; part of a shipment."""
    found = lookup(MAIN, qualname)
    if found is None:
        raise StartError(
            f"{qualname!r} is in the graph but not in the main script as the agent loaded it. "
            f"Expected it at module level, above the line that starts the run and not under "
            f'`if __name__ == "__main__":`'
        )
    return found


def from_module(module: str, qualname: str) -> Any:
    """Return an object of an importable module; part of a shipment."""
    importlib.import_module(module)
    found = lookup(module, qualname)
    if found is None:
        raise StartError(f"{module}.{qualname}: expected to find it in the agent too, did not")
    return found
