"""Load the user's main module in a process that is not the user's.

Functions of a script travel by name, so the agent loads the script once, as a module named
``__dflow_main__``: the guard ``if __name__ == "__main__":`` is false there. A script without
the guard would start the run again; instead `check_not_preloading`, called first by
``graph.run()`` and ``graph.start()``, ends the script at that point. What is defined above
it is kept, which is all the graph can refer to, and the user is told once about the guard.

Rejected: setting ``__name__`` to ``"__main__"`` (every script would run twice) and parsing
the script for a guard (the call may be in a function, or in another module).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dflow.errors import GraphError, StartError

__all__ = [
    "MAIN",
    "MainModule",
    "PreloadDone",
    "check_not_preloading",
    "describe_main",
    "load_main",
    "mark_launched",
]

MAIN = "__dflow_main__"
"""Name of the user's main module in every process but the user's own."""

GUARD_HINT = (
    "{name} starts a run when it is imported, so the worker processes stopped importing it "
    "there: what stands above the call ran twice, what stands below it does not exist in "
    'workers. Put the call under `if __name__ == "__main__":`'
)


class PreloadDone(SystemExit):
    """Unwinds a script that reached its run while being preloaded.

    A SystemExit, because that is what asyncio and click let through.
    """


@dataclass(frozen=True, slots=True)
class MainModule:
    """How to find the main module: by ``path``, or by ``module`` name (``python -m``)."""

    path: str | None = None
    module: str | None = None

    @property
    def name(self) -> str:
        """What a user would call it."""
        return f"module {self.module}" if self.module else Path(self.path or "").name


class _Preloading:
    active = False
    reached = False
    loaded: MainModule | None = None
    launched = False


def mark_launched() -> None:
    """Say that this is not the user's process: its ``__main__`` is dflow's to replace."""
    _Preloading.launched = True


def check_not_preloading() -> None:
    """Return at once; while the user's main module is being preloaded, end it here."""
    if _Preloading.active:
        _Preloading.reached = True
        # a thread ends in silence by a plain SystemExit only, not by a subclass
        in_main = threading.current_thread() is threading.main_thread()
        raise (PreloadDone if in_main else SystemExit)(0)


@contextmanager
def refusing_runs() -> Iterator[None]:
    """Raise `GraphError` if a module imported inside starts a run: every process would, too."""
    before, _Preloading.active = _Preloading.active, True
    try:
        yield
    except PreloadDone as done:
        modules = [
            frame.f_globals.get("__name__", "")
            for frame, _ in traceback.walk_tb(done.__traceback__)
        ]
        users = [name for name in modules if name.partition(".")[0] not in ("dflow", "importlib")]
        name = f"module {users[-1]}" if users else "a module of the graph"
        raise GraphError(
            f"{name} starts a run when it is imported, and every process of a run imports it: "
            'put the call under `if __name__ == "__main__":`'
        ) from None
    finally:
        _Preloading.active = before


def describe_main() -> MainModule | None:
    """Return how other processes find this process's main module; None if they cannot.

    They cannot for ``python -c``, a REPL and a notebook: there, code travels by value.
    """
    if _Preloading.loaded is not None:
        return _Preloading.loaded
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name and spec.name != "__main__":
        return MainModule(module=spec.name)
    path = getattr(main, "__file__", None)
    if path is None or not Path(path).is_file():
        # a directory or zip archive given to python has the archive in sys.path instead
        return MainModule(module="__main__") if spec is not None and path else None
    return MainModule(path=str(Path(path).absolute()))


def load_main(main: MainModule) -> tuple[types.ModuleType, str | None]:
    """Import ``main`` as `MAIN`; return it and what the user should be told, if anything.

    Also usable in a user process, to make a script's objects known to a run (the command
    line does). Raises `StartError` with the user's traceback when the script raises.
    """
    if _Preloading.loaded == main:
        return sys.modules[MAIN], None
    module, code = _prepare(main)
    sys.modules[MAIN] = module
    if _Preloading.launched:
        sys.modules["__main__"] = module
    _Preloading.active, _Preloading.reached = True, False
    try:
        exec(code, module.__dict__)  # the user's own script
    except SystemExit:
        pass  # our own PreloadDone, or a script that ends by sys.exit(): kept so far
    except BaseException as error:  # noqa: BLE001  # becomes the StartError of the run
        if not _Preloading.reached:
            raise _broken(main, error) from None
    finally:
        _Preloading.active = False
    _Preloading.loaded = main
    hint = GUARD_HINT.format(name=main.name) if _Preloading.reached else None
    return module, hint


def _broken(main: MainModule, error: BaseException) -> StartError:
    shown = error.__traceback__
    while shown is not None and shown.tb_frame.f_code.co_filename == __file__:
        shown = shown.tb_next
    text = "".join(traceback.format_exception(type(error), error, shown))
    return StartError(
        f"{main.name}: importing it in the agent raised {type(error).__name__}: {error}\n{text}"
    )


def _prepare(main: MainModule) -> tuple[types.ModuleType, Any]:
    module = types.ModuleType(MAIN)
    spec: importlib.machinery.ModuleSpec | None
    if main.module is not None:
        if main.module == "__main__":
            spec = importlib.machinery.PathFinder.find_spec("__main__", sys.path[:1])
        else:
            spec = importlib.util.find_spec(main.module)
        loader: Any = spec.loader if spec is not None else None
        code = loader.get_code(main.module) if hasattr(loader, "get_code") else None
        if spec is None or code is None:
            raise StartError(f"{main.name}: expected to find its code on sys.path, found none")
        module.__dict__.update(
            __spec__=spec, __loader__=loader, __file__=spec.origin, __package__=spec.parent,
            __cached__=spec.cached,
        )  # fmt: skip
        return module, code
    assert main.path is not None  # MainModule has one of both
    loader = importlib.machinery.SourceFileLoader(MAIN, main.path)
    try:
        if main.path.endswith(".pyc"):
            code = importlib.machinery.SourcelessFileLoader(MAIN, main.path).get_code(MAIN)
        else:
            # compiled here: a cached .pyc for a script would litter the user's directory
            code = compile(loader.get_data(main.path), main.path, "exec", dont_inherit=True)
    except (OSError, SyntaxError) as error:
        raise StartError(f"{main.name}: expected a Python script, got {error}") from None
    module.__dict__.update(__file__=main.path, __loader__=loader, __package__=None, __cached__=None)
    return module, code
