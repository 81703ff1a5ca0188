"""From ``module:graph`` or ``file.py:graph`` to the `Graph` it names, in any process.

The command line gets such a reference from the user and a worker that joins by hand gets it
from the coordinator, so both load the same graph from their own copy of the code; it never
travels. A file is loaded as a user's script is in workers (`dflow.launch.preload`): its guard
``if __name__ == "__main__":`` is false, and a run it starts without one is where loading stops.
A file inside a package is loaded as the module it is, or its relative imports would fail.

Raises `GraphError` for a reference that names nothing, with the nearest name that exists, and
`StartError` with the user's traceback when the user's code raises.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from dflow.errors import GraphError, StartError, did_you_mean
from dflow.graph.builder import Graph
from dflow.launch import preload

__all__ = ["Reference", "load_graph"]

_HOW = "expected module:graph or file.py:graph"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a graph is: in a ``file`` or a ``module`` (one is empty), under ``attribute``.

    Without an attribute it is the only graph there.
    """

    file: str
    module: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the parts of ``text``; `GraphError` if it cannot be a reference."""
        where, colon, attribute = text.rpartition(":") if ":" in text else (text, "", "")
        if not where or (colon and not attribute):
            raise GraphError(f"{text!r}: {_HOW}, got an empty part")
        if attribute and not all(part.isidentifier() for part in attribute.split(".")):
            raise GraphError(f"{text!r}: expected a name after the colon, got {attribute!r}")
        if where.endswith(".py") or os.sep in where or Path(where).is_file():
            return cls(where, "", attribute)
        if not all(part.isidentifier() for part in where.split(".")):
            raise GraphError(f"{text!r}: {_HOW}, got {where!r} which is neither")
        return cls("", where, attribute)


def load_graph(ref: str) -> Graph:
    """Return the graph that ``ref`` names; imports the user's code."""
    reference = Reference.parse(ref)
    module = _load_file(reference.file) if reference.file else _load_module(reference.module)
    where = reference.file or reference.module
    if not reference.attribute:
        return _only_graph(module, where)
    return _as_graph(_find(module, where, reference.attribute), f"{where}:{reference.attribute}")


# --- the module ---------------------------------------------------------------------------


def _load_file(name: str) -> ModuleType:
    path = Path(name).resolve()
    if path.is_dir():
        raise GraphError(f"{name}: expected a Python file, got a directory")
    if not path.is_file():
        raise GraphError(f"{name}: no such file{_similar_file(path)}")
    root, dotted = _package_of(path)
    _search_first(str(root))
    if "." in dotted:
        return _load_module(dotted)
    module, _ = preload.load_main(preload.MainModule(path=str(path)))
    return module


def _package_of(path: Path) -> tuple[Path, str]:
    """Return the directory to search and the dotted name of the module in ``path``."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def _load_module(name: str) -> ModuleType:
    _search_first(str(Path.cwd()))
    with preload.refusing_runs():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise _broken(name, error) from None
            raise GraphError(f"no module {error.name!r}{_similar_module(error.name)}") from None
        except preload.PreloadDone:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the user's code may raise any
            raise _broken(name, error) from None


def _search_first(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _broken(name: str, error: BaseException) -> StartError:
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    return StartError(f"importing {name} raised {type(error).__name__}: {error}\n{text}")


def _is_machinery(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


def _similar_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (and no directory {path.parent.name!r})"
    names = sorted(entry.name for entry in path.parent.glob("*.py"))
    return did_you_mean(path.name, names)


def _similar_module(name: str) -> str:
    import pkgutil

    parent, _, last = name.rpartition(".")
    paths = getattr(sys.modules.get(parent), "__path__", []) if parent else [str(Path.cwd())]
    names = [module.name for module in pkgutil.iter_modules(paths)]
    return did_you_mean(last, names)


# --- the graph in it ----------------------------------------------------------------------


def _find(module: ModuleType, where: str, attribute: str) -> object:
    value: object = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            graphs = _graphs(module)
            have = f" (its graphs are {', '.join(graphs)})" if graphs else " (it has no graph)"
            near = did_you_mean(part, [*graphs, *vars(module)])
            raise GraphError(f"{where} has no {attribute!r}{near}{have}") from None
    return value


def _as_graph(value: Any, where: str) -> Graph:
    """Return ``value`` if it is a graph, or the graph that the function ``value`` returns."""
    if isinstance(value, Graph):
        return value
    if isinstance(value, FunctionType):
        made = _call(value, where)
        if isinstance(made, Graph):
            return made
        raise GraphError(f"{where}(): expected it to return a Graph, got {type(made).__name__}")
    raise GraphError(f"{where}: expected a Graph or a function that returns one, got {value!r}")


def _call(function: Callable[..., object], where: str) -> object:
    import inspect

    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise GraphError(f"{where}: expected a function without arguments; {error}") from None
    try:
        return function()
    except Exception as error:  # noqa: BLE001  # the user's code may raise any
        raise _broken(f"{where}()", error) from None


def _only_graph(module: ModuleType, where: str) -> Graph:
    graphs = _graphs(module)
    if len({id(graph) for graph in graphs.values()}) == 1:
        return next(iter(graphs.values()))
    if not graphs:
        raise GraphError(f"{where} has no graph: expected a Graph at module level")
    first = next(iter(graphs))
    raise GraphError(
        f"{where} has several graphs ({', '.join(graphs)}): say which, like {where}:{first}"
    )


def _graphs(module: ModuleType) -> dict[str, Graph]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Graph)}
