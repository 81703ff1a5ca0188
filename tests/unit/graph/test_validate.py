"""Validation: every problem at once, each with where, what and the next step."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dflow.errors import GraphError
from dflow.graph import Graph, Input, Node, Output, Problem, node, sink, source
from tests.unit.graph_nodes import (
    Camera,
    Context,
    Detector,
    check,
    keep,
    numbers,
    show,
    square,
    squares,
    vision,
)


def only(graph: Graph, **options: Any) -> Problem:
    problems = graph.problems(**options)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def test_good_graphs_have_no_problems() -> None:
    assert squares().problems() == ()
    assert vision().problems() == ()
    vision().validate()


def test_all_problems_are_reported_at_once() -> None:
    first, second = square(), square()
    graph = Graph("bad", first >> second >> first, Detector(0.5), numbers() >> show(), keep())
    with pytest.raises(GraphError) as raised:
        graph.validate()
    unfed, bare, cycle = map(str, raised.value.problems)
    assert unfed == (
        "detector.frames: nothing is connected to this required input; connect an output to it,"
        " or declare Input(..., required=False)"
    )
    assert bare == "keep.in: nothing is connected to this required input; connect an output to it"
    assert cycle == (
        "square -> square_2 -> square: these nodes form a cycle, so none of them would ever end;"
        " remove one of the edges between them"
    )
    assert str(raised.value).startswith("graph 'bad' has 3 problems:\n  1. detector.frames: ")


def test_an_empty_graph_is_a_problem() -> None:
    assert "expected at least one node" in only(Graph("g")).what


def test_planning_an_invalid_graph_raises_its_problems() -> None:
    with pytest.raises(GraphError, match=r"graph 'g' has 1 problem:\n  1\. show\.in"):
        Graph("g", show()).plan()


def test_a_required_output_may_be_read_as_a_result() -> None:
    class Strict(Node):
        values = Output(int, required=True)

        def produce(self) -> Iterator[int]:
            yield 1

    graph = Graph("g", strict := Strict())
    assert only(graph).where == "strict.values"
    assert graph.problems(results=[strict]) == ()


def test_one_pair_of_ports_connected_twice_is_a_problem() -> None:
    start, end = numbers(), show()
    problem = only(Graph("g", start >> end, start >> end, start >> end))
    assert problem.where == "numbers.out->show.in"
    assert problem.what == "connected 3 times"


def test_types_that_cannot_meet_are_a_problem() -> None:
    @node
    def text(x: int) -> str:
        return str(x)

    problem = only(Graph("g", numbers() >> text() >> show()))
    assert str(problem) == (
        "text.out->show.in: expected int at show.in, got str from text.out;"
        " change one of the annotations, or put a node between that converts"
    )


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (["same", "same"], "same"),
        (["run"], "run"),
        (["two words"], "two words"),
        (["a/b"], "a/b"),
        ([""], ""),
    ],
)
def test_names_given_twice_reserved_or_malformed_are_problems(names: list[str], where: str) -> None:
    graph = Graph("g", *(numbers().options(name=name) >> keep() for name in names))
    problem = only(graph)
    assert problem.where == where
    assert ".options(name=...)" in problem.next_step


def test_twins_in_a_chain_are_not_taken_for_a_cycle() -> None:
    start = numbers().options(name="x")
    assert only(Graph("g", start >> show().options(name="x"))).where == "x"


def test_each_cycle_is_named_once_by_its_shortest_way() -> None:
    a, b, c = check(), check(), check()
    graph = Graph("g", numbers() >> a >> b >> a, b >> c >> c)
    assert [p.where for p in graph.problems()] == [
        "check -> check_2 -> check",
        "check_3 -> check_3",
    ]


def test_an_input_without_handler_is_a_problem() -> None:
    class Deaf(Node):
        values = Input(int)

    problem = only(Graph("g", numbers() >> Deaf()))
    assert problem.where == "deaf.values"
    assert problem.next_step == "decorate a method of Deaf with @values.handler"


def test_a_handler_that_cannot_take_the_message_alone_is_a_problem() -> None:
    class Odd(Node):
        none = Input(int, required=False)
        two = Input(int, required=False)
        fine = Input(int, required=False)

        @none.handler
        def takes_none(self) -> None: ...

        @two.handler
        def takes_two(self, a: int, b: int) -> None: ...

        @fine.handler
        def takes_context(self, ctx: Context, a: int, b: int = 3) -> None: ...

    problems = Graph("g", Odd()).problems()
    assert [p.next_step.split(" (")[0] for p in problems] == [
        "write def takes_none(self, message)",
        "write def takes_two(self, message)",
    ]
    assert "got def takes_two(self, a: 'int', b: 'int')" in problems[1].what


def test_a_source_class_needs_produce_and_only_a_source_has_it() -> None:
    class Silent(Node):
        values = Output(int)

    class Both(Node):
        values = Input(int, required=False)

        @values.handler
        def take(self, value: int) -> None: ...

        def produce(self, ctx: Context) -> Iterator[int]:
            yield 1

    class Awaits(Node):
        values = Output(int)

        async def produce(self) -> None: ...

    class Greedy(Node):
        values = Output(int)

        def produce(self, ctx: Context, more: int) -> Iterator[int]:
            yield 1

    class Portless(Node): ...

    wheres = [
        (problem.where, problem.next_step)
        for made in (Silent(), Both(), Awaits(), Greedy(), Portless())
        for problem in Graph("g", made).problems()
    ]
    assert wheres == [
        ("silent", "write def produce(self, ctx) with yield, or declare an Input"),
        ("both.produce", "remove the inputs, or emit in a handler or on_tick"),
        ("awaits.produce", "use yield"),
        ("greedy", "write def produce(self, ctx) or without ctx"),
        ("portless", "declare one: numbers = Output(int)"),
    ]


def test_an_async_source_function_has_to_yield() -> None:
    @source
    async def wrong() -> int:
        return 1

    @source
    async def right() -> AsyncIterator[int]:
        yield 1

    assert "got no yield" in only(Graph("g", wrong())).what
    assert Graph("g", right()).problems() == ()


def test_misspelt_and_wrong_hooks_are_problems() -> None:
    class Hooked(Node):
        values = Input(int, required=False)

        @values.handler
        def on_value(self, value: int) -> None: ...

        def on_strat(self, ctx: Context) -> None: ...

        def on_stop(self, ctx: Context, why: str) -> None: ...

    first, second = Graph("g", Hooked()).problems()
    assert first.next_step == "write def on_stop(self, ctx) or without ctx"
    assert str(second).startswith("hooked.on_strat: no hook has this name; did you mean 'on_start'")


def test_options_without_effect_are_problems() -> None:
    class Ticking(Node):
        values = Output(int)

        def produce(self) -> Iterator[int]:
            yield 1

        def on_tick(self) -> None: ...

    problems = [
        *Graph("g", numbers().options(tick_s=2)).problems(),
        *Graph("g", Ticking()).problems(),
        *Graph("g", numbers() >> keep().options(concurrency=5)).problems(),
    ]
    assert [problem.what for problem in problems] == [
        "tick_s=2, but there is no on_tick",
        "on_tick is never called",
        "concurrency=5, but no handler is async",
    ]
    assert Graph("g", Ticking().options(tick_s=1)).problems() == ()


def test_attributes_that_hide_node_s_own_are_problems() -> None:
    class Hiding(Camera):
        def __init__(self) -> None:
            self.options = {"a": 1}  # type: ignore[assignment, method-assign]

    assert only(Graph("g", Hiding())).where == "hiding.options"


def test_code_that_can_be_shipped_is_no_problem() -> None:
    offset = 3

    @node
    def local(x: int) -> int:
        return x + offset

    assert Graph("g", numbers() >> local() >> node(lambda x: x)() >> show()).problems() == ()


def test_code_that_can_neither_be_imported_nor_shipped_is_a_problem() -> None:
    lock = threading.Lock()

    @sink
    def locked(x: int) -> None:
        with lock:
            pass

    problem = only(Graph("g", numbers() >> locked()))
    assert problem.where == "locked"
    assert "neither be imported nor sent" in problem.what
    assert "lock" in problem.what


def test_configuration_that_cannot_be_shipped_is_a_problem() -> None:
    @sink
    def write(x: int, *to: Any, mode: Any = None) -> None: ...

    lock = threading.Lock()
    problems = Graph("g", numbers() >> write("plain", lock, mode=[lock])).problems()
    assert [problem.where for problem in problems] == ["write(argument 2)", "write(mode)"]
    assert "open it in the worker" in problems[0].next_step


def test_a_key_that_cannot_be_shipped_is_a_problem() -> None:
    lock = threading.Lock()
    graph = Graph("g").connect(numbers(), show(), key=lambda x: (x, lock))
    assert only(graph).where == "numbers.out->show.in"


def test_only_what_cannot_be_imported_is_asked_about() -> None:
    asked: list[object] = []

    def refuse(part: object) -> str:
        asked.append(part)
        return "no"

    assert vision().problems(shippable=refuse) == ()
    assert Graph("g", numbers(3), show() if not asked else keep()).problems(shippable=refuse)
    assert asked == []
    local = sink(lambda x: None)
    assert only(Graph("g", numbers() >> local()), shippable=refuse).where == "lambda"
    assert asked == [local]


@pytest.mark.parametrize("modules", [("zmq", "loguru", "msgpack", "numpy", "cloudpickle")])
def test_describing_a_graph_imports_nothing_heavy(modules: tuple[str, ...]) -> None:
    code = (
        "import sys; from tests.unit.graph_nodes import squares; squares().plan();"
        f"print([m for m in {modules!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_problem_reads_as_one_line() -> None:
    problem = Problem("a.b", "expected x, got y", "do z")
    assert str(problem) == "a.b: expected x, got y; do z"
