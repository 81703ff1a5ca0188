"""The sending half of `dflow.launch.ship`: decides what is named and what is copied."""

from __future__ import annotations

import pickle
import sys
import types
from io import BytesIO
from typing import Any

import cloudpickle

from dflow.errors import GraphError
from dflow.launch.culprit import find_culprit
from dflow.launch.preload import MAIN, describe_main
from dflow.launch.ship import from_main, from_module, lookup

__all__ = ["pickled"]

_DEFINED = (type, types.FunctionType)


def pickled(obj: object) -> tuple[bytes, bool]:
    """Return (bytes, whether they name the main module); `GraphError` names the culprit."""
    try:
        return _pickled(obj)
    except Exception as error:  # __reduce__ of user classes may raise anything
        path, part = find_culprit(obj, _travels)
        raise GraphError(
            f"{path}: expected something that can travel to a worker process, got "
            f"{type(part).__module__}.{type(part).__qualname__} ({type(error).__name__}: {error})."
            f" Make it in on_start, which runs in the worker, or at the top of a module"
        ) from error


def _pickled(obj: object) -> tuple[bytes, bool]:
    with BytesIO() as file:
        pickler = _Pickler(file)
        try:
            pickler.dump(obj)
        finally:
            for module in pickler.by_value:
                cloudpickle.unregister_pickle_by_value(module)
        return file.getvalue(), pickler.uses_main


def _travels(obj: object) -> bool:
    try:
        _pickled(obj)
    except Exception:  # noqa: BLE001  # whatever it is, it does not travel
        return False
    return True


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def __init__(self, file: BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.uses_main = False
        self.by_value: list[types.ModuleType] = []
        self._importable: dict[str, bool] = {}
        self._main = _main_names()

    def reducer_override(self, obj: Any) -> Any:
        """Name what can be named; leave the rest to cloudpickle."""
        if isinstance(obj, _DEFINED) or type(obj).__module__ != "builtins":
            module = getattr(obj, "__module__", None)
            qualname = getattr(obj, "__qualname__", None)
            if type(module) is str and type(qualname) is str:
                named = self._by_name(obj, module, qualname)
                if named is not None:
                    return named
        return super().reducer_override(obj)

    def _by_name(self, obj: Any, module: str, qualname: str) -> Any:
        """Return a reduction by name, or None where no name leads to ``obj``."""
        found = lookup(module, qualname)
        if found is None:
            return None
        if module in ("__main__", MAIN):
            if module not in self._main or not _of_the_script(obj, module):
                return None
            if found is obj:
                self.uses_main = True
                return from_main, (qualname,)
        elif not self._can_import(module):
            self._copy(sys.modules[module])
            # an object that names itself would do so again; take it apart as any other
            reduce: object = type(obj).__reduce__
            plain = reduce is object.__reduce__ and not isinstance(obj, _DEFINED)
            return object.__reduce_ex__(obj, 4) if plain else None
        elif found is obj:
            return None if isinstance(obj, _DEFINED) else (from_module, (module, qualname))
        if getattr(found, "__wrapped__", None) is obj:  # a function behind its decorator
            return getattr, (found, "__wrapped__")
        return None

    def _can_import(self, name: str) -> bool:
        known = self._importable.get(name)
        if known is None:
            known = self._importable[name] = _importable(name)
        return known

    def _copy(self, module: types.ModuleType) -> None:
        if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            self.by_value.append(module)


def _main_names() -> tuple[str, ...]:
    """Names under which this process knows the module that the agent will load as `MAIN`."""
    if describe_main() is None:
        return ()
    loaded = sys.modules.get(MAIN)
    if loaded is None:
        return ("__main__",)
    return (MAIN, "__main__") if sys.modules.get("__main__") is loaded else (MAIN,)


def _of_the_script(obj: Any, module: str) -> bool:
    """Whether ``obj`` stands in the main module's file: not typed in, not exec'd there."""
    while hasattr(obj, "__wrapped__"):
        obj = obj.__wrapped__
    if not isinstance(obj, types.FunctionType):
        return True
    return obj.__code__.co_filename == getattr(sys.modules[module], "__file__", None)


def _importable(name: str) -> bool:
    """Whether another process that imports ``name`` would get the module this one has."""
    module = sys.modules[name]
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    parent, _, _ = name.rpartition(".")
    if parent:
        return parent in sys.modules and _importable(parent)
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, None)
        except Exception:  # noqa: BLE001  # a finder of somebody else's
            continue
        if found is not None:
            return bool(found.origin == spec.origin)
    return False
