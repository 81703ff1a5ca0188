"""Nodes written as classes: ports, handlers, hooks, and how they travel."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle
import pytest

from dflow.errors import GraphError, OptionError, PortError
from dflow.graph import BoundInput, BoundOutput, Graph, Input, Node, Output
from tests.unit.graph_nodes import Camera, Context, Detector, Settings, keep, numbers, vision


def test_ports_are_found_in_order_of_declaration() -> None:
    assert list(Detector(0.5).inputs) == ["frames", "settings"]
    assert list(Detector(0.5).outputs) == ["boxes", "rejected"]
    assert [Camera().kind, Detector(0.5).kind] == ["source", "node"]


def test_reading_a_port_of_an_instance_binds_it() -> None:
    detector = Detector(0.5)
    assert isinstance(detector.frames, BoundInput)
    assert isinstance(detector.boxes, BoundOutput)
    assert detector.frames == detector.port("frames") != Detector(0.5).frames
    assert detector.frames.type is bytes
    assert isinstance(Detector.frames, Input)


def test_control_inputs_need_no_connection_others_do() -> None:
    assert [port.required for port in Detector(0.5).inputs.values()] == [True, False]


def test_default_names_are_in_snake_case() -> None:
    class HTTPReader2(Node): ...

    assert HTTPReader2().name == "http_reader2"
    assert Camera().options(name="eye").name == "eye"


def test_emit_outside_a_run_explains_itself() -> None:
    with pytest.raises(PortError, match=r"detector\.boxes\.emit: expected to be inside a run"):
        Detector(0.5).boxes.emit([])


def test_emit_inside_a_run_calls_the_emitter_directly() -> None:
    got: list[Any] = []
    detector = Detector(0.5).fresh()
    early = detector.boxes  # read before the run: still has to work inside it
    detector.attach({"boxes": got.append, "rejected": got.append})
    detector.bind("frames", None).call(b"f")
    early.emit(1)
    assert got == [[b"f", 0.5], 1]
    assert detector.boxes is detector.boxes
    assert detector.boxes.emit == got.append


def test_attaching_again_replaces_every_emitter() -> None:
    old: list[Any] = []
    new: list[Any] = []
    detector = Detector(0.5)
    detector.attach({"boxes": old.append, "rejected": old.append})
    detector.boxes.emit(1)
    detector.attach({"boxes": new.append, "rejected": new.append})
    detector.boxes.emit(2)
    assert (old, new) == ([1], [2])


def test_handlers_get_the_context_if_they_ask() -> None:
    ctx = Context()
    detector = Detector(0.5)
    plain, with_context = detector.bind("frames", ctx), detector.bind("settings", ctx)
    assert plain.call == detector.detect
    assert (plain.is_async, with_context.is_async) == (False, True)
    with pytest.raises(StopIteration) as ended:
        with_context.call(Settings(0.9)).send(None)
    assert ended.value.value is ctx
    assert detector.threshold == 0.9


def test_hooks_are_optional_and_may_take_the_context() -> None:
    detector = Detector(0.5)
    started, ended = detector.hook("on_start", "ctx"), detector.hook("on_end", "ctx")
    assert started is not None
    assert ended is not None
    assert (started(), ended()) == ("ctx", "ended")
    assert detector.hook("on_tick", "ctx") is None
    with pytest.raises(PortError, match="expected a hook, one of on_start"):
        detector.hook("on_strat", "ctx")


def test_produce_is_called_with_or_without_the_context() -> None:
    class Bare(Node):
        values = Output(int)

        def produce(self) -> Iterator[int]:
            yield 1

    assert list(Camera().bind_source("ctx")()) == [b"frame"]  # type: ignore[arg-type]  # not async
    assert list(Bare().bind_source("ctx")()) == [1]  # type: ignore[arg-type]
    with pytest.raises(PortError, match="expected a method produce"):
        Detector(0.5).bind_source("ctx")


def test_a_subclass_inherits_ports_and_may_override_handlers() -> None:
    class Careful(Detector):
        doubts = Output(str)

        def detect(self, frame: bytes) -> None:
            self.seen.append(frame)

    class Louder(Careful):
        @Detector.frames.handler
        def shout(self, frame: bytes) -> None:
            self.seen.append(frame.upper())

    careful, louder = Careful(0.1), Louder(0.1)
    careful.bind("frames", None).call(b"a")
    louder.bind("frames", None).call(b"b")
    assert (careful.seen, louder.seen) == ([b"a"], [b"B"])
    assert list(careful.outputs) == ["boxes", "rejected", "doubts"]
    assert Detector(0.5)._handlers["frames"] == "detect"


def test_one_method_may_handle_several_inputs() -> None:
    class Join(Node):
        left = Input(int)
        right = Input(int)

        def __init__(self) -> None:
            self.got: list[int] = []

        @left.handler
        @right.handler
        def take(self, value: int) -> None:
            self.got.append(value)

    join = Join()
    join.bind("left", None).call(1)
    join.bind("right", None).call(2)
    assert join.got == [1, 2]


def test_two_handlers_for_one_input_are_refused() -> None:
    with pytest.raises(GraphError, match=r"Twice\.values: expected one handler, got a and b"):

        class Twice(Node):
            values = Input(int)

            @values.handler
            def a(self, value: int) -> None: ...

            @values.handler
            def b(self, value: int) -> None: ...


def test_one_port_under_two_names_is_refused() -> None:
    with pytest.raises(GraphError, match=r"Shared\.b: expected a port of its own"):

        class Shared(Node):
            a = Input(int)
            b = a


def test_names_of_node_itself_cannot_be_redefined() -> None:
    with pytest.raises(GraphError, match=r"Clash\.options: expected another name"):

        class Clash(Node):
            options = Input(int)  # type: ignore[assignment]  # the point

    with pytest.raises(GraphError, match=r"set it with \.options\(name=\.\.\.\)"):
        Camera().name = "eye"


def test_a_misspelt_attribute_is_an_attribute_error_with_a_suggestion() -> None:
    with pytest.raises(AttributeError, match=r"'boxs'; did you mean 'boxes'\?"):
        _ = Detector(0.5).boxs  # type: ignore[attr-defined]
    with pytest.raises(PortError, match="'frame'; did you mean 'frames'"):
        Detector(0.5).port("frame")


def test_an_attribute_error_inside_a_property_keeps_its_message() -> None:
    class Odd(Node):
        values = Output(int)

        @property
        def size(self) -> int:
            return self.values.missing  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(AttributeError, match="missing"):
        _ = Odd().size


def test_wrong_port_arguments_are_refused() -> None:
    with pytest.raises(OptionError, match=r"expected a dflow\.Priority, got 3"):
        Input(int, priority=3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="required: expected True or False"):
        Output(int, required="yes")  # type: ignore[arg-type]


def test_type_given_as_text_is_evaluated_in_its_module() -> None:
    class Late(Node):
        settings = Input("Settings")
        nowhere = Output("Nowhere")

    assert Late().settings.type is Settings
    assert Late().nowhere.type is Any


def test_nodes_travel_as_recipe_not_as_state() -> None:
    class Locked(Node):
        values = Input(int)

        def __init__(self, size: int, *, label: str = "") -> None:
            self.size, self.label, self.lock = size, label, threading.Lock()
            self.port_kept = self.values

        @values.handler
        def take(self, value: int) -> None: ...

    travelled = cloudpickle.loads(cloudpickle.dumps(Locked(3, label="x").options(name="l")))
    fresh = travelled.fresh()
    assert "lock" not in vars(travelled)
    assert (fresh.size, fresh.label, fresh.name) == (3, "x", "l")
    assert fresh.bind("values", None).call == fresh.take


def test_bound_ports_pickle_with_their_node() -> None:
    detector = Detector(0.5)
    node, port, emitted = pickle.loads(pickle.dumps((detector, detector.frames, detector.boxes)))
    assert port == node.frames
    with pytest.raises(PortError, match="inside a run"):
        emitted.emit(1)


def test_a_node_may_be_a_dataclass() -> None:
    @dataclass
    class Scale(Node):
        values = Input(int)
        scaled = Output(int)
        factor: int = 2

        @values.handler
        def scale(self, value: int) -> int:
            return value * self.factor

    graph = Graph("g", numbers() >> Scale(3) >> Scale(3) >> keep())
    assert graph.problems() == ()
    assert list(graph.nodes) == ["numbers", "scale", "scale_2", "keep"]
    made = cloudpickle.loads(cloudpickle.dumps(graph)).nodes["scale_2"].fresh()
    assert made.bind("values", None).call(5) == 15


def test_identity_of_nodes_survives_pickling_a_graph() -> None:
    graph = pickle.loads(pickle.dumps(vision()))
    first, second = graph.connections
    assert first.receiver.node is second.sender.node is graph.nodes["detector"]
    assert graph.plan() == vision().plan()
