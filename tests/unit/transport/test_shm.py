"""Shared memory of a participant: leases begin and end with what is made of the memory."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from types import FrameType
from typing import Any

import numpy as np
import pytest

from dflow.errors import BufferLost
from dflow.transport.segments import is_supported
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import Buffer, Place

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs memfd and locks of Linux")

KB64 = 64 * 1024
MB = 1 << 20


def address(view: Any) -> int:
    """Return where the memory of a view begins."""
    return int(np.frombuffer(view, "u1").__array_interface__["data"][0])


def shown(memory: SharedMemory, view: Any) -> Buffer:
    """Return a view as its owner describes it to others."""
    buffer = memory.place_of(address(view), len(view))
    assert buffer is not None
    assert buffer.place is not None
    return buffer


def place_of(memory: SharedMemory, view: Any) -> Place:
    place = shown(memory, view).place
    assert place is not None
    return place


def filled(memory: SharedMemory, size: int, value: int) -> memoryview:
    view = memory.allocate(size)
    assert view is not None
    view[:] = bytes([value]) * size
    return view


def lent(owner: SharedMemory, reader: SharedMemory, value: int, size: int = KB64) -> memoryview:
    """Return what a reader borrowed of an owner who keeps nothing."""
    view = filled(owner, size, value)
    return reader.borrow(place_of(owner, view))


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture(autouse=True, scope="module")
def others_objects_aside() -> Iterator[None]:
    """Keep what other tests have left alive out of each `gc.collect`: it would take a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def make(warned: list[str]) -> Iterator[Callable[[int], SharedMemory]]:
    """Make participants, and see that nothing of them is left in the end."""
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd")), maps()
    made: list[SharedMemory] = []

    def participant(limit_bytes: int = 16 * MB) -> SharedMemory:
        made.append(SharedMemory(limit_bytes, warned.append))
        return made[-1]

    yield participant
    for memory in made:
        memory.close()
    gc.collect()
    assert (sorted(os.listdir("/proc/self/fd")), maps()) == before


def maps() -> int:
    with open("/proc/self/maps") as file:
        return sum("/memfd:dflow" in line for line in file)


@pytest.fixture
def owner(make: Callable[..., SharedMemory]) -> SharedMemory:
    return make()


@pytest.fixture
def reader(make: Callable[..., SharedMemory]) -> SharedMemory:
    return make(0)


def test_it_makes_nothing_until_it_is_used() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    SharedMemory(MB, print)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_reader_sees_what_was_written_and_may_not_change_it(
    owner: SharedMemory, reader: SharedMemory
) -> None:
    view = filled(owner, 100_000, 7)
    assert (view.format, view.readonly, len(view)) == ("B", False, 100_000)
    borrowed = reader.borrow(place_of(owner, view))
    assert (borrowed.format, borrowed.readonly, len(borrowed)) == ("B", True, 100_000)
    assert borrowed == view
    with pytest.raises(TypeError):
        borrowed[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        np.frombuffer(borrowed, "u1").flags.writeable = True


def test_part_of_a_block_has_a_place(owner: SharedMemory, reader: SharedMemory) -> None:
    view = filled(owner, 100_000, 1)
    view[500:600] = b"x" * 100
    buffer = shown(owner, view[500:600])
    assert bytes(buffer.view) == b"x" * 100
    assert buffer.view.readonly
    assert buffer.place is not None
    assert bytes(reader.borrow(buffer.place)) == b"x" * 100


def test_what_is_not_shared_has_no_place(owner: SharedMemory) -> None:
    view = filled(owner, 100_000, 1)
    end = address(view) + 128 * 1024
    assert owner.place_of(address(bytearray(10)), 10) is None
    assert owner.place_of(address(view) - 1, 10) is None  # the header
    assert owner.place_of(end - 5, 10) is None  # beyond its block
    assert owner.place_of(end, 10) is None  # a block nobody has
    assert owner.place_of(0, 0) is None


@pytest.mark.parametrize("derive", ["view", "slice", "cast", "array", "array of array", "released"])
def test_memory_is_kept_while_anything_made_of_it_lives(
    owner: SharedMemory, reader: SharedMemory, derive: str
) -> None:
    view = filled(owner, KB64, 1)
    borrowed = reader.borrow(place_of(owner, view))
    del view
    made: Any = borrowed
    if derive == "slice":
        made = borrowed[100:]
    elif derive == "cast":
        made = borrowed.cast("I")
    elif derive == "array":
        made = np.frombuffer(borrowed, "u1")
    elif derive == "array of array":
        made = np.frombuffer(borrowed, "u1").reshape(64, -1)[3:, ::2].T
    elif derive == "released":
        made = memoryview(borrowed)
        borrowed.release()
    del borrowed
    assert owner.stats.in_use_bytes == KB64
    others = [filled(owner, KB64, 2) for _ in range(10)]
    assert np.asarray(made).reshape(-1)[0] in (1, 0x01010101)
    del made, others
    owner.sweep()
    assert owner.stats.in_use_bytes == 0


def test_memory_is_used_again_when_the_last_reader_lets_go(
    owner: SharedMemory, reader: SharedMemory, make: Callable[..., SharedMemory]
) -> None:
    view = filled(owner, KB64, 1)
    place, where = place_of(owner, view), address(view)
    one, two = reader.borrow(place), make(0).borrow(place)
    del view
    kept = [filled(owner, KB64, 2)]
    assert address(kept[0]) != where
    del one
    kept.append(filled(owner, KB64, 2))
    assert address(kept[1]) != where
    del two
    assert address(filled(owner, KB64, 2)) == where


def test_a_place_of_an_earlier_use_is_lost(owner: SharedMemory, reader: SharedMemory) -> None:
    place = place_of(owner, filled(owner, KB64, 1))
    again = filled(owner, KB64, 2)
    assert place_of(owner, again).block == place.block
    for memory in (reader, owner):
        with pytest.raises(BufferLost):
            memory.borrow(place)
    del again
    with pytest.raises(BufferLost):
        reader.borrow(place)


def test_a_lost_place_keeps_no_lock(owner: SharedMemory, reader: SharedMemory) -> None:
    view = filled(owner, KB64, 1)
    place = place_of(owner, view)
    del view
    again = filled(owner, KB64, 2)
    with pytest.raises(BufferLost):
        reader.borrow(place)
    where = address(again)
    shown(owner, again)
    del again
    assert address(filled(owner, KB64, 3)) == where


@pytest.mark.parametrize(
    "other",
    [{"block": -1}, {"block": 1 << 40}, {"offset": -1}, {"offset": KB64}, {"size": -1},
     {"size": KB64 + 1}, {"block_bytes": KB64 // 2}, {"generation": 0}, {"generation": 1 << 70}],
    ids=str,
)  # fmt: skip
def test_a_place_that_cannot_be_is_lost(
    owner: SharedMemory, reader: SharedMemory, other: dict[str, int]
) -> None:
    view = filled(owner, KB64, 1)
    place = place_of(owner, view)
    kept = reader.borrow(place)
    for memory in (reader, owner):
        with pytest.raises(BufferLost):
            memory.borrow(place._replace(**other))
    assert kept == view


def test_a_forwarder_lends_on_what_it_borrowed_even_when_the_owner_is_gone(
    make: Callable[..., SharedMemory],
) -> None:
    owner, forwarder, reader = make(), make(0), make(0)
    borrowed = lent(owner, forwarder, 5)
    owner.close()
    buffer = shown(forwarder, borrowed[10:20])
    assert buffer.place is not None
    got = reader.borrow(buffer.place)
    del borrowed, buffer
    forwarder.close()
    assert bytes(got) == b"\5" * 10


def test_an_owner_gets_its_own_memory_back_from_a_forwarder(
    owner: SharedMemory, reader: SharedMemory
) -> None:
    view = filled(owner, KB64, 5)
    where = address(view)
    borrowed = reader.borrow(place_of(owner, view))
    del view
    back = owner.borrow(place_of(reader, borrowed))
    del borrowed
    assert address(back) == where
    assert back.readonly
    filled(owner, KB64, 6)
    assert bytes(back) == b"\5" * KB64
    del back
    assert address(filled(owner, KB64, 7)) == where


def test_no_room_is_none_and_is_warned_of_once(
    make: Callable[..., SharedMemory], warned: list[str]
) -> None:
    owner = make(MB)
    views = [owner.allocate(200_000) for _ in range(10)]
    assert views.count(None) > 2
    assert owner.stats.copied == 0  # until it is sent
    assert owner.room_for(200_000) is None
    assert owner.stats.copied == 1
    assert len(warned) == 1
    assert "200,000 bytes (a block of 229,376)" in warned[0]
    assert "Raise shm_bytes" in warned[0]
    del views
    assert owner.allocate(200_000) is not None
    assert owner.stats.peak_bytes > owner.stats.in_use_bytes


def test_a_limit_of_zero_never_has_room_and_does_not_warn(
    make: Callable[..., SharedMemory], warned: list[str]
) -> None:
    assert make(0).allocate(100) is None
    assert warned == []


def test_memory_of_one_size_makes_room_for_another(
    make: Callable[..., SharedMemory], reader: SharedMemory
) -> None:
    owner = make(2 * MB)
    small = [filled(owner, KB64, 1) for _ in range(20)]
    kept = reader.borrow(place_of(owner, small[-1]))
    del small[:]
    large = owner.allocate(MB)
    assert large is not None
    large = None
    assert owner.stats.allocated_bytes <= 2 * MB
    assert bytes(kept) == b"\1" * KB64


def test_a_reader_unmaps_what_is_idle(owner: SharedMemory, reader: SharedMemory) -> None:
    view = filled(owner, KB64, 1)
    borrowed = reader.borrow(place_of(owner, view))
    reader.sweep()
    reader.sweep()
    assert maps() == 2
    del borrowed
    reader.sweep()
    reader.sweep()
    assert maps() == 1
    assert reader.borrow(place_of(owner, view)) == view


def test_a_reader_unmaps_what_is_retired_at_once(
    make: Callable[..., SharedMemory], reader: SharedMemory
) -> None:
    owner = make(MB + KB64)
    for size in (KB64, MB, KB64, MB):
        view = lent(owner, reader, 1, size)
        del view
    assert maps() == 2  # the owner's and the reader's last
    assert owner.stats.allocated_bytes <= MB + KB64


def test_views_stay_readable_after_close(make: Callable[..., SharedMemory]) -> None:
    owner, reader = make(), make(0)
    view = filled(owner, KB64, 1)
    borrowed = reader.borrow(place_of(owner, view))
    for memory in (owner, reader):
        memory.close()
        memory.close()
        memory.sweep()
        assert memory.allocate(KB64) is None
        with pytest.raises(BufferLost):
            memory.borrow(Place(0, 0, 0, 0, 0, 0, 0, 0, 0))
    assert view == borrowed == b"\1" * KB64
    assert maps() == 2
    del view
    assert maps() == 1
    assert bytes(borrowed) == b"\1" * KB64


def test_a_participant_that_is_forgotten_keeps_what_it_lent() -> None:
    memory = SharedMemory(MB, print)
    view = filled(memory, KB64, 4)
    forgotten = [memory]
    del memory
    array = np.frombuffer(view, "u1")
    forgotten[0].close()
    del forgotten, view
    gc.collect()
    assert array.sum() == 4 * KB64
    del array
    assert maps() == 0


class Last:
    """Garbage that reads a view while it is collected, from within its own cycle."""

    def __init__(self, view: memoryview, at_end: Callable[[memoryview], None]) -> None:
        self.view, self.at_end, self.me = view, at_end, self

    def __del__(self) -> None:
        self.at_end(self.view)


@pytest.mark.parametrize("resurrected", [False, True])
def test_a_view_in_a_cycle_of_garbage_is_right_until_it_is_gone(
    owner: SharedMemory, reader: SharedMemory, resurrected: bool
) -> None:
    seen: list[bytes] = []
    kept: list[memoryview] = []

    def write_and_look(view: memoryview) -> None:
        for value in range(9, 12):
            filled(owner, KB64, value)
        seen.append(bytes(view[:4]))
        if resurrected:
            kept.append(view)

    Last(lent(owner, reader, 1), write_and_look)
    gc.collect()
    for value in range(20, 24):
        filled(owner, KB64, value)
    assert seen == [b"\1" * 4]
    assert [bytes(view) for view in kept] == [b"\1" * KB64] * resurrected


def test_a_finalizer_within_a_method_gets_no_memory_and_does_not_wait(
    owner: SharedMemory,
) -> None:
    got: list[Any] = []

    class Late:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            got.append(owner.allocate(KB64))
            owner.sweep()

    assert owner._enter()
    Late()
    gc.collect()
    owner._leave()
    assert got == [None]
    assert owner.allocate(KB64) is not None


def test_an_exception_of_a_signal_handler_that_minds_busy_tears_nothing(
    owner: SharedMemory, reader: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = 0

    class Interruption(Exception):
        pass

    def work(value: int) -> None:
        view = filled(owner, KB64, value)
        borrowed = reader.borrow(place_of(owner, view))
        assert borrowed[0] == borrowed[-1] == value

    def interrupt(_: int, frame: FrameType | None) -> None:
        nonlocal raised
        while frame is not None and frame.f_code is not work.__code__:
            frame = frame.f_back
        if frame is not None and not owner.busy and not reader.busy:
            raised += 1
            raise Interruption

    # one that is raised within the end of a lease is dropped there, as any exception would be
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)
    # not SIGALRM, which limits the time of a test; and untraced: coverage has a lock of its own,
    # which a handler that comes while it is held would wait for
    trace = sys.gettrace()
    sys.settrace(None)
    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
    try:
        for value in cycle(range(251)):
            with suppress(Interruption):
                work(value)
            if raised > 100:
                break
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        sys.settrace(trace)
    for memory in (owner, reader):
        assert not memory.busy
        memory.sweep()
    assert owner.stats.in_use_bytes == 0
    assert owner.stats.allocated_bytes < 4 * MB


def test_leases_that_end_within_a_method_end_with_it(
    owner: SharedMemory, reader: SharedMemory
) -> None:
    view = filled(owner, KB64, 1)
    borrowed = reader.borrow(place_of(owner, view))
    assert owner._enter()
    assert reader._enter()
    del view, borrowed
    assert owner.stats.in_use_bytes == KB64
    reader._leave()
    owner._leave()
    assert owner.stats.in_use_bytes == 0


def test_a_block_lent_again_before_its_end_was_seen_stays_lent(
    owner: SharedMemory, reader: SharedMemory
) -> None:
    view = filled(owner, KB64, 1)
    place = place_of(owner, view)
    borrowed = reader.borrow(place)
    assert reader._enter()
    del borrowed  # seen only when the lock is let go
    reader._lock.release()
    reader._holder = 0
    ends = list(reader._ended)
    reader._ended.clear()
    again = reader.borrow(place)
    reader._ended.extend(ends)
    reader.sweep()
    del view
    for value in range(3):
        filled(owner, KB64, 10 + value)
    assert bytes(again) == b"\1" * KB64


def test_leases_may_end_in_any_thread(owner: SharedMemory, reader: SharedMemory) -> None:
    wrong: list[int] = []

    def read(places: list[Place], begin: threading.Barrier) -> None:
        begin.wait(10)
        for number, place in enumerate(places):
            view = reader.borrow(place)
            if view[0] != number % 251 or view[-1] != number % 251:
                wrong.append(number)

    for _ in range(5):
        views = [filled(owner, KB64, number % 251) for number in range(40)]
        places = [place_of(owner, view) for view in views]
        begin = threading.Barrier(4)
        threads = [threading.Thread(target=read, args=(places, begin)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        del views
    assert wrong == []
    again = [filled(owner, KB64, 0) for _ in range(40)]
    assert owner.stats.in_use_bytes == len(again) * KB64


def test_a_forked_child_releases_nothing(owner: SharedMemory, reader: SharedMemory) -> None:
    view = filled(owner, KB64, 1)
    borrowed = reader.borrow(place_of(owner, view))
    kept = bytes(borrowed[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests left
        child = os.fork()
    if child == 0:
        same = bytes(borrowed[:4]) == kept and owner.allocate(10) is None
        del view, borrowed
        gc.collect()
        reader.close()
        owner.close()
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    del view
    for value in range(3):
        filled(owner, KB64, 10 + value)
    assert bytes(borrowed) == b"\1" * KB64


EXIT = """
import sys, threading, numpy as np
from dflow.transport.shm import SharedMemory
owner, reader = SharedMemory(1 << 24, print), SharedMemory(0, print)
view = owner.allocate(100_000)
view[:] = b"x" * 100_000
place = owner.place_of(np.frombuffer(view, "u1").__array_interface__["data"][0], 100_000).place
class Late:
    def __init__(self, view): self.view, self.me = view, self
    def __del__(self): assert bytes(self.view[:2]) == b"xx"
kept = [reader.borrow(place), np.frombuffer(reader.borrow(place), "u1"), Late(reader.borrow(place))]
sys.kept = kept, view
threading.Thread(target=lambda: reader.borrow(place)).start()
if "close" in sys.argv: reader.close(), owner.close()
"""


@pytest.mark.parametrize("closed", ["close", "open"])
def test_the_interpreter_exits_in_peace_with_live_views(closed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXIT, closed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_its_tokens_are_not_tracked_by_the_collector(owner: SharedMemory) -> None:
    view = filled(owner, KB64, 1)
    (end,) = owner._mapped[0].leases.values()
    assert not gc.is_tracked(end())
    del view


def test_a_sweep_finds_out_what_readers_let_go_of(
    owner: SharedMemory, reader: SharedMemory
) -> None:
    borrowed = lent(owner, reader, 1)
    owner.sweep()
    assert owner.stats.in_use_bytes == KB64
    del borrowed
    owner.sweep()
    assert owner.stats.in_use_bytes == 0


def test_off_linux_there_is_never_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dflow.transport.shm.is_supported", lambda: False)
    memory = SharedMemory(MB, print)
    assert memory.allocate(KB64) is None
    assert memory.place_of(address(ctypes.create_string_buffer(10)), 10) is None
    with pytest.raises(BufferLost):
        memory.borrow(Place(0, 0, 0, 0, 0, 0, 0, 0, 0))
    memory.sweep()
    memory.close()
