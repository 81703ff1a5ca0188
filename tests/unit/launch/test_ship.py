"""What travels by name, what by value, and what is said of what cannot."""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dflow.errors import GraphError, StartError
from dflow.graph.function import node
from dflow.launch import preload
from dflow.launch.ship import dumps, from_main, from_module, loads, ship


def top_level(x: int) -> int:
    return x + 1


@node
def decorated(x: int) -> int:
    return x * 2


@functools.cache
def cached(x: int) -> int:
    return x


@dataclass
class Point:
    x: int


@pytest.mark.parametrize("thing", [top_level, Point, decorated, cached, len, dict.get])
def test_importable_things_travel_by_name(thing: Any) -> None:
    back = loads(dumps(thing))
    assert back is thing or back == thing
    assert len(dumps(thing)) < 300


def test_function_behind_its_decorator_travels_by_name() -> None:
    assert loads(dumps(decorated.function)) is decorated.function
    assert loads(dumps(cached.__wrapped__)) is cached.__wrapped__


def test_lambda_and_local_function_travel_by_value() -> None:
    offset = 10

    def local(x: int) -> int:
        return top_level(x) + offset

    assert loads(dumps(local))(1) == 12
    assert loads(dumps(lambda x: x * offset))(2) == 20


def test_node_of_a_local_function_travels_by_value() -> None:
    @node
    def local(x: int) -> int:
        return x * 3

    back = loads(dumps(local()))
    assert back.factory.function(2) == 6


@pytest.fixture
def made_up() -> Iterator[types.ModuleType]:
    module = types.ModuleType("made_up_for_a_test")
    sys.modules[module.__name__] = module
    code = "from dflow import node\nWORD = 'made up'\ndef say(): return WORD\n"
    exec(code + "@node\ndef twice(x: int) -> int: return 2 * x\n", module.__dict__)
    yield module
    sys.modules.pop(module.__name__, None)


def test_module_that_cannot_be_imported_elsewhere_travels_by_value(
    made_up: types.ModuleType,
) -> None:
    say, twice = dumps(made_up.say), dumps(made_up.twice)
    del sys.modules[made_up.__name__]
    assert loads(say)() == "made up"
    assert loads(twice).function(4) == 8


def test_only_code_that_names_the_main_module_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = __file__
    exec(compile("def f(): return 'of main'\nclass C: pass\n", __file__, "exec"), main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert not ship([top_level, lambda: 1]).uses_main
    for thing in (main.f, main.C, main.C()):
        assert ship([thing]).uses_main
    monkeypatch.setitem(sys.modules, preload.MAIN, main)
    assert from_main("f") is main.f


def test_name_that_leads_nowhere_is_explained() -> None:
    with pytest.raises(StartError, match="'nowhere' is in the graph but not in the main script"):
        from_main("nowhere")
    with pytest.raises(StartError, match=r"dflow\.errors\.Nothing: expected to find it"):
        from_module("dflow.errors", "Nothing")


def test_module_that_is_missing_in_the_agent_is_explained() -> None:
    code = dumps(top_level).replace(__name__.encode(), b"x" * len(__name__))
    with pytest.raises(StartError, match=r"ModuleNotFoundError.*importable"):
        loads(code)


class Holder:
    """Keeps something in attribute, slot-free."""

    def __init__(self, inner: object) -> None:
        self.inner = inner


def uses_a_global_by_value() -> Any:
    namespace: dict[str, Any] = {"__name__": "nowhere", "guard": threading.Lock()}
    exec("def f(): return guard", namespace)
    return namespace["f"]


def closes_over(thing: object) -> Any:
    return lambda: thing


def has_default() -> Any:
    lock = threading.Lock()

    def f(x: Any = lock) -> Any:
        return x

    return f


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (Holder({"a": [1, threading.Lock()]}), r"^inner\['a'\]\[1\]: "),
        (closes_over(Holder(threading.Lock())), r"closes over 'thing'\.inner: "),
        (uses_a_global_by_value(), r"f\(\) uses global 'guard': "),
        (has_default(), r"f\(\) default 0: "),
        (threading.Lock(), r"^lock: "),
    ],
    ids=["attribute", "closure", "global", "default", "itself"],
)
def test_what_cannot_travel_is_named_with_the_way_to_it(obj: object, path: str) -> None:
    with pytest.raises(GraphError, match=path) as caught:
        dumps(obj)
    assert "_thread.lock" in str(caught.value)
    assert "on_start" in str(caught.value)


def test_node_that_cannot_travel_is_named() -> None:
    graph = types.SimpleNamespace(nodes={"good": Holder(1), "bad": Holder(threading.Lock())})
    with pytest.raises(GraphError, match=r"node 'bad'\.inner: .*lock"):
        dumps(graph)


def test_object_that_holds_itself_does_not_confuse_the_search() -> None:
    holder = Holder(threading.Lock())
    holder.me = holder  # type: ignore[attr-defined]  # a cycle
    with pytest.raises(GraphError, match="lock"):
        dumps(holder)
