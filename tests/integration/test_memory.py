"""Large messages through real runs: the same values, in place, shared, and given back."""

from __future__ import annotations

import array
import asyncio
import ctypes
import os
import signal
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dflow import Context, Graph, Input, Node, Output, edge, latest, node, sink, source
from dflow.errors import RunError
from tests.integration.flows import Inlet, await_file, collect, ended_by, run_checked
from tests.support import eventually

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.timeout(60)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")

SIZE = 1 << 17
WAYS: list[dict[str, Any]] = [{}, {"shm_bytes": 0}, {"transport": "tcp"}]
Where = tuple[int, int]


def where(value: Any) -> Where | None:
    """Return the inode and the offset of the file that the memory of an array is; None for none."""
    array = np.frombuffer(value, "u1") if not isinstance(value, np.ndarray) else value
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, offset, _, inode, *_ = line.split()
            low, high = (int(part, 16) for part in span.split("-"))
            if low <= address < high:
                at = int(inode), int(offset, 16) + address - low
                return at if at[0] and "memfd" in line else None
    return None


def frame(number: int, size: int = SIZE) -> Any:
    """Return an array that tells its number everywhere."""
    return np.full(size, number % 251, "u1")


# --- values --------------------------------------------------------------------------------------


@dataclass
class Parts:
    data: bytes
    more: bytearray
    any: Any
    rest: dict[str, Any] = field(default_factory=dict)


def values() -> list[Any]:
    """Return messages with large parts of many kinds."""
    raw = bytes(range(256)) * 1024
    grid = np.frombuffer(raw, "f4").reshape(256, 256)
    rows = np.zeros(9000, [("a", "i4"), ("b", "f8", (2,)), ("c", "U3")])
    rows["a"], rows["c"] = np.arange(9000), "xyz"
    return [
        raw,
        bytearray(raw),
        memoryview(raw)[1000:],
        memoryview(grid.view("i4")),
        array.array("d", range(20_000)),
        (ctypes.c_int16 * 50_000)(*range(0, 30_000, 3)),
        grid.view("i4"),
        np.asfortranarray(grid.view("i4")),
        grid.view("i4")[::2, ::-1],
        rows,
        np.arange(20_000, dtype=">i8"),
        np.full((30, 40, 70), 1 + 2j),
        {"nested": [(rows, {"deep": deque([raw])}), "text", bytearray(b"small")], "raw": raw},
        [raw, raw[:10], grid.view("i4"), grid[0].view("i4")],
        Parts(raw, bytearray(raw), raw, {"array": rows}),
    ]


@source
def various() -> Iterator[Any]:
    yield from values()


@node
def again(x: Any) -> Any:
    """Emit the same value once more, as it came."""
    return x


def same(sent: Any, got: Any) -> bool:
    """Whether ``got`` is what is to arrive of ``sent``."""
    if isinstance(sent, np.ndarray):
        alike = sent.dtype == got.dtype and sent.shape == got.shape
        return alike and sent.tobytes() == got.tobytes() and not got.flags.writeable
    if isinstance(sent, (bytes, bytearray)) and len(sent) < 65536:
        return type(got) is bytes and got == sent
    if isinstance(sent, dict):
        return list(sent) == list(got) and all(same(sent[key], got[key]) for key in sent)
    if isinstance(sent, (list, tuple, deque)):
        pairs = list(zip(sent, got, strict=True))
        return type(sent) is type(got) and all(same(*pair) for pair in pairs)
    if isinstance(sent, Parts):
        exact = (type(got.data), type(got.more)) == (bytes, bytearray)
        exact = exact and got.data == sent.data and got.more == sent.more
        return exact and same(sent.any, got.any) and same(sent.rest, got.rest)
    if isinstance(sent, str):
        return bool(sent == got)
    view = memoryview(sent)
    return (
        type(got) is memoryview
        and got.readonly
        and (got.shape, got.itemsize) == (view.shape, view.itemsize)
        and got.tobytes() == view.tobytes()
    )


class Typed(Node):
    """Its annotation lets classes travel."""

    given = Input(Parts, required=False)

    @given.handler
    def nothing(self, x: Parts) -> None: ...


@pytest.mark.parametrize("options", [*WAYS, {"start_method": "spawn"}], ids=str)
def test_large_values_of_many_kinds_arrive_the_same_on_every_transport(
    options: dict[str, Any],
) -> None:
    onward = again()
    graph = Graph("values", various() >> onward)
    graph.add(Typed())
    with graph.start(results=[onward], **options) as run:
        run.drain("typed")
        got = list(run.results())
        report = run.wait(30)
    assert report.balances, report.imbalances
    assert [same(*pair) for pair in zip(values(), got, strict=True)] == [True] * len(got)
    assert report.node("various").errors == report.node("again").errors == 0


@source
def pages() -> Iterator[bytes]:
    for number in range(5):
        yield bytes([number]) * (10 if number % 2 else SIZE)


@node
def decoded(page: bytes) -> bytes:
    assert type(page) is bytes
    return page.replace(b"\x00", b"0")


@node
def measured(page: Any) -> str:
    return type(page).__name__


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_an_annotation_says_whether_large_bytes_arrive_as_bytes(options: dict[str, Any]) -> None:
    typed, untyped = decoded(), measured()
    feed = pages()
    graph = Graph("pages", feed >> [typed, untyped])
    with graph.start(results=[typed, untyped], **options) as run:
        assert [type(page) for page in run.results(typed)] == [bytes] * 5
        kinds = list(run.results(untyped))
        report = run.wait(30)
    assert kinds == ["memoryview", "bytes"] * 2 + ["memoryview"]
    assert report.balances


@source
def buffers() -> Iterator[Any]:
    for size in (40, SIZE):
        yield bytearray(size)
        yield array.array("i", bytes(size))


@dataclass
class Record:
    fixed: bytes
    page: bytearray
    kept: memoryview


@node
def filled(page: bytearray) -> Record:
    page[0] = 7
    return Record(page, page, page)  # type: ignore[arg-type]  # made right on the way


@sink
def written(record: Record, ctx: Context) -> None:
    kinds = [type(part) for part in (record.fixed, record.page, record.kept)]
    record.page[1] = 8
    ctx.metrics.count("right", kinds == [bytes, bytearray, memoryview] and record.fixed[0] == 7)


@node
def as_bytes(page: bytes) -> str:
    return type(page).__name__


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_an_annotation_holds_for_bytes_of_any_size(options: dict[str, Any]) -> None:
    feed, change, typed, end = buffers(), filled(), as_bytes(), written()
    graph = Graph("buffers", feed >> [change >> end, typed])
    with graph.start(results=[change, typed], **options) as run:
        assert [record.page[0] for record in run.results(change)] == [7] * 4
        assert list(run.results(typed)) == ["bytes"] * 4
        report = run.wait(30)
    assert report.balances
    assert report.node("written").metrics["right"] == 4


# --- in place ------------------------------------------------------------------------------------


@source
def placed(count: int, allocate: bool, ctx: Context) -> Iterator[Any]:
    """Yield frames, with where they are if they are in shared memory already."""
    for number in range(count):
        made = ctx.allocate((2, SIZE // 2)) if allocate else frame(number)
        made[...] = number % 251
        yield {"number": number, "frame": made, "at": where(made) if allocate else None}


@node
def passed(x: Any) -> Any:
    return {**x, "passed": where(x["frame"]), "frame": x["frame"][..., 4096:]}


@node
def located(x: Any) -> Any:
    got = x["frame"]
    good = bool((got == x["number"] % 251).all()) and not got.flags.writeable
    return {"number": x["number"], "at": x["at"], "here": where(got), "good": good,
            "passed": x.get("passed")}  # fmt: skip


@on_linux
@pytest.mark.parametrize("fused", [False, True])
def test_what_was_allocated_is_read_where_it_was_written(fused: bool) -> None:
    camera, between, reader = placed(20, True), again(), located()
    graph = Graph("placed", camera >> between >> reader)
    if fused:
        graph.fuse(camera, between)
    found, _ = collect(graph, reader)
    assert [one["number"] for one in found] == list(range(20))
    assert all(one["good"] and one["here"] == one["at"] is not None for one in found)


@on_linux
def test_fan_out_shares_one_copy_and_forwarding_makes_none() -> None:
    camera, middle = placed(20, False), passed()
    one, other, behind = (located().options(name=name) for name in ("one", "other", "behind"))
    graph = Graph("fan", camera >> [one, other, middle >> behind])
    with graph.start(results=[one, other, behind]) as run:
        found = [list(run.results(each)) for each in (one, other, behind)]
        report = run.wait(30)
    assert report.balances
    assert all(each["good"] and each["here"] for some in found for each in some)
    for first, second, last in zip(*found, strict=True):
        assert first["here"] == second["here"] == last["passed"]
        inode, offset = first["here"]
        assert last["here"] == (inode, offset + 4096)
    assert report.node("passed").metrics == {}  # made no shared memory of its own


@on_linux
def test_the_launching_process_reads_in_place_and_keeps_what_it_wants() -> None:
    camera = placed(12, True)
    with Graph("results", camera).start(results=[camera]) as run:
        kept = list(run.results())
        run.wait(30)
    assert [where(one["frame"]) for one in kept] == [one["at"] for one in kept]
    assert all((one["frame"] == number).all() for number, one in enumerate(kept))


# --- keeping -------------------------------------------------------------------------------------


class Window(Node):
    """Keeps the last ``size`` frames, and looks at all of them whenever one comes."""

    frames = Input()

    def __init__(self, size: int) -> None:
        self.kept: deque[tuple[int, Any]] = deque(maxlen=size)
        self.wrong = 0

    @frames.handler
    def keep(self, x: Any, ctx: Context) -> None:
        self.kept.append((x["number"] % 251, x["frame"]))
        self.wrong += sum(not (kept[0] == kept[-1] == number) for number, kept in self.kept)
        ctx.metrics.gauge("wrong", self.wrong)
        ctx.metrics.count("seen")


@source
def numbered(count: int, size: int, ctx: Context) -> Iterator[Any]:
    for number in range(count):
        made = ctx.allocate(size) if number % 2 else np.empty(size, "u1")
        made[:] = number % 251
        yield {"number": number, "frame": made}


@on_linux
def test_a_window_of_a_hundred_frames_stays_right_while_memory_goes_round() -> None:
    report = run_checked(Graph("window", numbered(600, SIZE) >> Window(100)), shm_bytes="64MB")
    metrics = report.node("window").metrics
    assert (metrics["seen"], metrics["wrong"]) == (600, 0)
    writer = report.node("numbered").metrics
    assert "dflow.copied_buffers" not in writer
    assert 100 * SIZE <= writer["dflow.shm_peak_bytes"] <= 64_000_000


@on_linux
def test_without_room_frames_are_copied_right_and_it_is_said_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    report = run_checked(Graph("small", numbered(300, SIZE) >> Window(100)), shm_bytes="4MB")
    metrics = report.node("window").metrics
    assert (metrics["seen"], metrics["wrong"]) == (300, 0)
    assert 0 < report.node("numbered").metrics["dflow.copied_buffers"] <= 300  # each once
    assert capfd.readouterr().err.count("Raise shm_bytes") == 1


# --- every kind of edge --------------------------------------------------------------------------


@node
def checked(x: Any, ctx: Context) -> Any:
    if not (x["frame"] == x["number"] % 251).all():
        ctx.metrics.count("wrong")
    return x


@sink
def audited(x: Any, ctx: Context) -> None:
    right = (x["frame"] == x["number"] % 251).all()
    ctx.metrics.count("right" if right else "wrong")


def shapes() -> dict[str, Graph]:
    """Return graphs whose edges are of every kind, each with 60 messages."""
    by_number = {"key": lambda x: x["number"] % 5}
    return {
        "replicas": Graph("g", numbered(60, SIZE) >> checked().options(replicas=2) >> audited()),
        "ordered": Graph(
            "g", numbered(60, SIZE) >> checked().options(replicas=2, ordered=True) >> audited()
        ),
        "keyed": Graph(
            "g", numbered(60, SIZE) >> edge(**by_number) >> checked().options(replicas=2)
            >> audited()
        ),
        "limited": Graph(
            "g", numbered(60, SIZE) >> edge(**by_number)
            >> checked().options(replicas=2, max_in_flight_per_key=1) >> audited()
        ),
        "cancellable": Graph("g", numbered(60, SIZE) >> edge(cancellable=True) >> audited()),
        "ttl": Graph("g", numbered(60, SIZE) >> edge(ttl_s=60) >> audited()),
        "narrow": Graph("g", numbered(60, SIZE) >> edge(capacity=1, max_bytes=1) >> audited()),
    }  # fmt: skip


@pytest.mark.parametrize("shape", list(shapes()))
@pytest.mark.parametrize("options", [{}, {"transport": "tcp"}], ids=str)
def test_large_messages_pass_every_kind_of_edge(shape: str, options: dict[str, Any]) -> None:
    report = run_checked(shapes()[shape], **options)
    assert report.node("audited").metrics["right"] == 60
    assert sum(each.errors for each in report.nodes) == 0


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_policies_drop_large_messages_and_the_books_balance(options: dict[str, Any]) -> None:
    report = run_checked(
        Graph("latest", numbered(200, SIZE) >> edge(policy=latest()) >> audited()), **options
    )
    (link,) = report.edges
    assert link.sent == link.delivered + link.dropped == 200
    assert report.node("audited").metrics["right"] == link.delivered > 0
    assert report.node("audited").errors == 0


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_large_messages_are_sent_from_outside(options: dict[str, Any]) -> None:
    inlet = Inlet()
    with Graph("outside", inlet >> audited()).start(results=[inlet], **options) as run:
        for number in range(5):
            run.send(inlet.data, {"number": number, "frame": frame(number)})
        results = run.results()
        got = [next(results) for _ in range(5)]
        run.send(inlet.data, got[3])
        assert (next(results)["frame"] == 3).all()
        run.stop()
        report = run.wait(30)
    assert report.balances
    assert report.node("audited").metrics["right"] == 6


# --- deaths --------------------------------------------------------------------------------------


@source
def forever(ctx: Context) -> Iterator[Any]:
    number = 0
    while True:
        made = ctx.allocate(SIZE)
        made[:] = number % 251
        yield {"number": number, "frame": made}
        number += 1


@on_linux
@pytest.mark.parametrize("victim", ["forever[0]", "checked[0]", "audited[0]"])
def test_a_killed_worker_leaves_no_memory_behind_and_nothing_wrong(victim: str) -> None:
    graph = Graph("killed", forever() >> checked() >> audited())
    run = graph.start()
    eventually(lambda: run.status().edges[1].delivered > 50)
    pids = run.pids
    os.kill(pids[victim], signal.SIGKILL)
    with pytest.raises(RunError) as caught:
        run.wait(30)
    report = ended_by(caught.value)
    assert not any("wrong" in each.metrics for each in report.nodes)
    # what the victim alone held may be lost on its way, and is counted then
    assert sum(each.errors for each in report.nodes) == sum(e.malformed for e in report.edges)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()))


# --- no longer than needed -----------------------------------------------------------------------


class Alternating(Node):
    """Emits a frame, then asks whether it is gone, in turn."""

    frames = Output(dict)
    questions = Output(int)

    def produce(self) -> Iterator[None]:
        for number in range(5):
            self.frames.emit({"number": number, "frame": frame(number)})
            yield
            await_file(Path(self.folder, str(number)))
            self.questions.emit(number)
            yield

    def __init__(self, folder: str) -> None:
        self.folder = folder


class Watched(Node):
    """Remembers the last frame weakly; ``way`` says how its handler ends."""

    frames = Input(dict)
    questions = Input(int)
    answers = Output()

    def __init__(self, folder: str, way: str) -> None:
        self.folder, self.way = folder, way
        self.last: Any = None

    @frames.handler
    def look(self, x: dict[str, Any]) -> Any:
        self.last = weakref.ref(x["frame"])
        Path(self.folder, str(x["number"])).touch()
        if self.way == "raises":
            raise ValueError(x["number"])
        return None if self.way == "returns nothing" else x["frame"]

    @questions.handler
    def answer(self, number: int) -> None:
        self.answers.emit(("gone", self.last() is None))


class WatchedLater(Watched):
    """The same with a coroutine."""

    frames = Input(dict)

    @frames.handler
    async def look(self, x: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        return Watched.look(self, x)


@pytest.mark.parametrize("kind", [Watched, WatchedLater])
@pytest.mark.parametrize("way", ["returns nothing", "returns it", "raises"])
@pytest.mark.parametrize("options", [{"ordered": True}, {}], ids=str)
def test_a_frame_is_let_go_of_when_its_handler_has_ended(
    kind: Any, way: str, options: dict[str, Any], tmp_path: Path
) -> None:
    feed, reader = Alternating(str(tmp_path)), kind(str(tmp_path), way).options(**options)
    graph = Graph("let-go")
    graph.connect(feed.frames, reader.frames)
    graph.connect(feed.questions, reader.questions)
    found, report = collect(graph, reader)
    assert [one for one in found if isinstance(one, tuple)] == [("gone", True)] * 5
    assert report.node(reader.name).errors == (5 if way == "raises" else 0)
