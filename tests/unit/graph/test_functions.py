"""Nodes written as functions: configuration, ports, and what a worker calls."""

from __future__ import annotations

import functools
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from dflow.errors import GraphError, OptionError, PortError
from dflow.graph import FunctionNode, NodeFactory, node, sink, source
from tests.unit.graph_nodes import Context, check, keep, numbers, show, square


def call(made: FunctionNode, message: Any, ctx: Any = None) -> Any:
    return made.bind("in", ctx).call(message)


def test_a_node_without_configuration_is_called_through_the_function_itself() -> None:
    assert square().bind("in", None).call is square.function


def test_configuration_is_bound_before_the_first_message() -> None:
    assert call(check(limit=5), 4) == 4
    assert call(check(3), 4) is None


def test_a_source_is_called_with_its_configuration() -> None:
    assert list(numbers(3).bind_source(None)()) == [0, 1, 2]  # type: ignore[arg-type]  # not async


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a, b=2, *rest, c=3, **more: (x, a, b, rest, c, more),
        lambda x, /, a, b=2, *rest, c=3, **more: (x, a, b, rest, c, more),
        lambda x, a, b=2, /, *rest, c=3, **more: (x, a, b, rest, c, more),
    ],
)
def test_every_kind_of_parameter_can_be_configuration(function: Callable[..., Any]) -> None:
    made = node(function)
    assert call(made(1), "m") == ("m", 1, 2, (), 3, {})
    assert call(made(1, 5, 6, 7, c=8, d=9), "m") == ("m", 1, 5, (6, 7), 8, {"d": 9})


def test_a_context_parameter_is_passed_wherever_it_stands() -> None:
    ctx = Context()

    @node
    def last(x: int, a: int, ctx: Context) -> Any:
        return x, a, ctx

    @node
    def first(ctx: Context, x: int, a: int) -> Any:
        return x, a, ctx

    @node
    def middle(x: int, ctx: Context, /, *rest: int) -> Any:
        return x, *rest, ctx

    @node
    def by_name(x: int, *, ctx: Context | None = None, a: int) -> Any:
        return x, a, ctx

    for made in (last(2), first(2), middle(2), by_name(a=2)):
        assert call(made, 1, ctx) == (1, 2, ctx)


def test_a_context_known_only_to_type_checkers_is_recognised() -> None:
    @source
    def ticks(n: int, ctx: dflow.Context) -> Iterator[Any]:  # type: ignore[name-defined]  # noqa: F821 - the point
        yield n, ctx

    @node
    def relay(x: Any, ctx: Context | None) -> Any:
        return ctx

    assert list(ticks(1).bind_source("ctx")()) == [(1, "ctx")]  # type: ignore[arg-type]
    assert call(relay(), 1, "ctx") == "ctx"


def test_another_class_called_context_is_configuration() -> None:
    import decimal

    @node
    def scaled(x: int, ctx: decimal.Context) -> decimal.Context:
        return ctx

    own = decimal.Context()
    assert call(scaled(own), 1, "the worker's") is own


def test_handlers_say_how_they_are_to_be_called() -> None:
    @node
    async def waits(x: int) -> int:
        return x

    @node
    def many(x: int, times: int) -> Iterator[int]:
        yield from [x] * times

    @node
    async def both(x: int) -> AsyncIterator[int]:
        yield x

    kinds = [
        (handler.is_async, handler.is_generator)
        for handler in (made.bind("in", None) for made in (square(), waits(), many(2), both()))
    ]
    assert kinds == [(False, False), (True, False), (False, True), (True, True)]


def test_ports_are_named_in_and_out_and_as_declared() -> None:
    made = check()
    assert (str(made.in_), str(made.out), str(made.rejected)) == (
        "check.in",
        "check.out",
        "check.rejected",
    )
    assert made.port("in") == made.in_
    assert [numbers().kind, square().kind, show().kind] == ["source", "node", "sink"]
    assert not numbers().inputs
    assert not show().outputs


def test_port_types_come_from_annotations() -> None:
    @node
    async def parsed(line: str) -> dict[str, int] | None: ...

    @source
    async def pages() -> AsyncIterator[bytes]:
        yield b""

    @source
    def listed() -> list[str]:
        return []

    assert (numbers().out.type, square().in_.type, square().out.type) == (int, int, int)
    assert check().out.type is int  # None emits nothing
    assert check().rejected.type is str
    assert parsed().out.type == dict[str, int]
    assert (pages().out.type, listed().out.type) == (bytes, str)
    assert keep().in_.type is Any


def test_types_that_cannot_be_evaluated_count_as_any() -> None:
    @node
    def odd(x: Missing) -> list[Missing]:  # type: ignore[name-defined]  # noqa: F821 - the point
        return []

    assert (odd().in_.type, odd().out.type) == (Any, Any)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: node(lambda x, n: x)(), "missing a required argument: 'n'"),
        (lambda: check(limt=3), r"did you mean 'limit'\? expected check\(limit=3\)"),
        (lambda: square(3), r"its parameter 'x' is the message.*square\.function"),
        (lambda: check(x=3), "'x' is the message and comes from the graph"),
        (lambda: numbers(1, 2), r"too many positional arguments; expected numbers\(n=10\)"),
    ],
)
def test_wrong_configuration_says_what_was_expected(
    wrong: Callable[[], object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        wrong()


def test_a_function_without_a_message_is_refused_where_it_is_decorated() -> None:
    with pytest.raises(GraphError, match=r"silent\(\).*expected a first parameter for the message"):

        @node
        def silent() -> None: ...


def test_a_factory_where_a_node_is_expected_says_to_call_it() -> None:
    mistakes: list[Callable[[], object]] = [
        lambda: numbers(10) >> square,
        lambda: square >> show(),
        lambda: [numbers] >> square(),
    ]
    for wrong in mistakes:
        with pytest.raises(GraphError, match=r"write (square|numbers)\(\)"):
            wrong()


def test_an_unknown_port_is_an_attribute_error_with_a_suggestion() -> None:
    with pytest.raises(PortError, match=r"'rejectd'; did you mean 'rejected'\? \(its ports are in"):
        _ = check().rejectd
    with pytest.raises(AttributeError, match="show: no port or attribute 'out'"):
        _ = show().out
    assert not hasattr(square(), "nothing")


@pytest.mark.parametrize("name", ["in", "out", "options", "not a name", ""])
def test_extra_outputs_need_names_of_their_own(name: str) -> None:
    with pytest.raises(GraphError, match="choose another name"):
        node(outputs={name: int})(lambda x: x)


def test_decorator_arguments_are_defaults_that_options_override() -> None:
    @sink(name="printer", replicas=3)
    def out(x: int) -> None: ...

    assert out().name == "printer"
    assert out().node_options.replicas == 3
    assert out().options(replicas=1).node_options.replicas == 1


def test_a_wrong_option_names_the_node_and_the_nearest_option() -> None:
    with pytest.raises(OptionError, match=r"square: .*'replicsa'; did you mean 'replicas'\?"):
        square().options(replicsa=2)
    with pytest.raises(OptionError, match=r"square: .*replicas: expected a whole .* got 0"):
        square().options(replicas=0)


def test_lambdas_partials_and_callable_objects_can_be_nodes() -> None:
    class Doubler:
        def __call__(self, x: int) -> int:
            return 2 * x

    def add(a: int, x: int) -> int:
        return a + x

    made = [node(lambda x: x)(), node(functools.partial(add, 1))(), node(Doubler())()]
    assert [one.name for one in made] == ["lambda", "partial", "doubler"]
    assert [call(one, 3) for one in made] == [3, 4, 6]


def test_decorating_what_is_no_function_is_refused() -> None:
    with pytest.raises(GraphError, match="expected a function, got 3"):
        node(3)  # type: ignore[call-overload]
    with pytest.raises(GraphError, match="expected a function, got <@node square>"):
        node(square)


def test_a_factory_still_looks_like_its_function() -> None:
    assert (square.__name__, square.__doc__) == ("square", "Square.")
    assert square.function(3) == 9
    assert isinstance(square, NodeFactory)


def test_functions_have_no_hooks() -> None:
    assert square().hook("on_start", None) is None


def test_importable_factories_pickle_by_name_and_keep_identity() -> None:
    made = pickle.loads(pickle.dumps(check(limit=7).options(name="checked", replicas=2)))
    assert made.factory is check
    assert made.config == ((), {"limit": 7})
    assert (made.name, made.node_options.replicas) == ("checked", 2)


def test_local_factories_travel_by_value() -> None:
    offset = 5

    @node(outputs={"odd": int})
    def shifted(x: int, times: int) -> int:
        return x * times + offset

    made = cloudpickle.loads(cloudpickle.dumps(shifted(2)))
    assert call(made, 10) == 25
    assert list(made.outputs) == ["out", "odd"]


def test_fresh_nodes_are_equal_but_not_the_same() -> None:
    first = check(limit=9).options(name="c", concurrency=3)
    second = first.fresh()
    assert second is not first
    assert second.config == first.config
    assert (second.name, second.node_options) == (first.name, first.node_options)
