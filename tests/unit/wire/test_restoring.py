"""Bytes become what an annotation says, of any size; other annotations cost nothing."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Optional, Union

import pytest

from dflow.wire.codec import Codec
from dflow.wire.restoring import restored, restorer
from dflow.wire.types import class_codec
from tests.unit.wire.test_large import Frame

RAW = b"abc"
VIEW = memoryview(RAW)

NATIVE: list[tuple[Any, type, type]] = [  # annotation, what bytes become, and what views become
    (bytes, bytes, bytes),
    (bytearray, bytearray, bytearray),
    (memoryview, memoryview, memoryview),
    (Annotated[bytearray, "page"], bytearray, bytearray),
    (bytes | None, bytes, bytes),
    (Optional[bytearray], bytearray, bytearray),  # noqa: UP045  # as users write it
    (Union[int, Annotated[bytearray, "page"]], bytearray, bytearray),  # noqa: UP007
    (bytes | bytearray, bytes, bytes),
    (bytearray | bytes, bytes, bytearray),
    (bytes | memoryview, bytes, memoryview),
    (bytearray | memoryview, bytearray, memoryview),
    (bytearray | list[bytes], bytearray, bytearray),
]


@pytest.mark.parametrize(("hint", "of_bytes", "of_view"), NATIVE, ids=str)
def test_small_and_large_bytes_become_what_the_annotation_says(
    hint: Any, of_bytes: type, of_view: type
) -> None:
    restore = restorer(hint)
    assert restore is not None
    for value, kind in ((RAW, of_bytes), (VIEW, of_view)):
        for wanted in (restore, restorer(hint | dict[str, int])):
            assert wanted is not None
            got = wanted(value)
            assert (type(got), bytes(got)) == (kind, RAW)
    for other in (None, 3, "text", [RAW]):
        assert restore(other) == other
    assert [type(got) for got in restored(restore, [RAW, VIEW, RAW])] == [
        of_bytes, of_view, of_bytes
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (list[bytearray], [RAW, VIEW]),
        (Sequence[bytearray], (RAW, VIEW)),
        (deque[bytearray], deque([VIEW, RAW], 5)),
        (tuple[int, bytearray], (1, RAW)),
        (tuple[bytearray, ...], (RAW, RAW, VIEW)),
        (dict[str, bytearray], {"a": RAW}),
        (Mapping[str, list[bytearray]], OrderedDict(a=[VIEW])),
        (list[bytearray] | None, [RAW]),
    ],
    ids=str,
)
def test_bytes_inside_containers_do_too(hint: Any, value: Any) -> None:
    restore = restorer(hint)
    assert restore is not None
    got = restore(value)
    assert type(got) is type(value)
    assert "memory" not in repr(got)
    assert repr(got).count("b'") == repr(got).count("bytearray(b'") > 0


class Odd:
    """An annotation that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise TypeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "hint", [None, Any, object, int, str | None, list[int], dict[bytes, int], Odd(), bytes | Any]
)
def test_other_annotations_leave_messages_alone(hint: Any) -> None:
    assert restorer(hint) is None
    values: list[Any] = [RAW, VIEW]
    assert restored(None, values) is values


def test_a_batch_without_views_is_not_touched_for_bytes() -> None:
    values: list[Any] = [RAW, b"", b"more"]
    assert restored(restorer(bytes), values) is values


def test_fields_that_name_none_cost_nothing() -> None:
    assert class_codec(Frame).restore is None
    assert Codec([Frame]).decode(Codec([Frame]).encode(Frame(RAW, {}))) == Frame(RAW, {})
