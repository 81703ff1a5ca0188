"""What the codec and the frames cost beside bare msgpack; run with pytest-benchmark.

    pytest benchmarks/micro/test_codec.py --benchmark-columns=min,median --benchmark-sort=name

"bare" is msgpack on the nearest value it can carry (a list for a tuple), the floor. Decoding
is of a BATCH of 512, as under load; divide by 512 for one message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgpack
import pytest

from dflow.wire import frames
from dflow.wire.codec import Codec

COUNT = 512


class Benchmark(Protocol):
    """The part of pytest-benchmark's fixture used here."""

    group: str

    def pedantic(
        self, function: Callable[..., Any], args: Any, *, rounds: int, iterations: int
    ) -> Any:
        """Measure ``function(*args)`` and return its result."""
        ...


def measure(benchmark: Benchmark, group: str, function: Callable[..., Any], *args: Any) -> Any:
    """Measure with rounds long enough for the clock, so that nanoseconds mean something."""
    benchmark.group = group
    iterations = 50 if "decode" in group else 5000
    return benchmark.pedantic(function, args, rounds=30, iterations=iterations)


@dataclass
class Reading:
    """A typical message of a user's own class."""

    sensor: int
    value: float
    unit: str


# name -> (what dflow carries, the nearest thing bare msgpack can)
VALUES: dict[str, tuple[Any, Any]] = {
    "int": (7, 7),
    "small dict": ({"id": 5, "name": "alice", "ok": True},) * 2,
    "dict of floats": ({"x": 0.1, "y": 2.7182818},) * 2,
    "50 floats": ([0.1 * n for n in range(50)],) * 2,
    "100 bytes": (b"x" * 100,) * 2,
    "tuple": (("word", 1), ["word", 1]),
    "tuple in a dict": ({"w": ("word", 1), "n": 5}, {"w": ["word", 1], "n": 5}),
    "set": ({1, 2, 3}, [1, 2, 3]),
    "dataclass": (Reading(1, 2.5, "C"), [1, 2.5, "C"]),
}
CODEC = Codec([Reading])
BARE_PACK = msgpack.Packer(strict_types=True).pack
BARE_UNPACK = partial(msgpack.unpackb, strict_map_key=False)


@pytest.mark.parametrize("who", ["bare", "dflow"])
@pytest.mark.parametrize("name", VALUES)
def test_encode(benchmark: Benchmark, name: str, who: str) -> None:
    value, plain = VALUES[name]
    encode, given = (BARE_PACK, plain) if who == "bare" else (CODEC.encode, value)
    measure(benchmark, f"encode {name}", encode, given)


@pytest.mark.parametrize("who", ["bare", "dflow"])
@pytest.mark.parametrize("name", VALUES)
def test_decode_a_batch(benchmark: Benchmark, name: str, who: str) -> None:
    group = f"decode {COUNT} x {name}"
    value, plain = VALUES[name]
    if who == "bare":
        packed = BARE_PACK([plain] * COUNT)
        assert measure(benchmark, group, BARE_UNPACK, packed) == [plain] * COUNT
        return
    frame = frames.parse(frames.pack_batch(1, 1, 0, [CODEC.encode(value)] * COUNT, 0))
    assert measure(benchmark, group, CODEC.decode_batch, frame.body, COUNT) == [value] * COUNT


@pytest.mark.parametrize("count", [1, COUNT])
def test_pack_and_parse_a_frame(benchmark: Benchmark, count: int) -> None:
    payloads = [CODEC.encode(VALUES["small dict"][0])] * count

    def there_and_back() -> frames.Frame:
        return frames.parse(frames.pack_batch(1, 1, 0, payloads, 1))

    frame = measure(benchmark, "frames", there_and_back)
    assert frame.count == count
