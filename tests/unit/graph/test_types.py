"""Which types may be connected, and how they are shown."""

from __future__ import annotations

import collections.abc as abc
import typing
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Protocol,
    TypedDict,
    TypeVar,
)

import numpy as np
import numpy.typing as npt
import pytest

from dflow.graph.types import classes_in, compatible, type_name

T = TypeVar("T")
UserId = NewType("UserId", int)


class Base: ...


class Derived(Base): ...


class Box(Generic[T]): ...


class Sized(Protocol):
    size: int


class Row(TypedDict):
    box: Box[int]


class Pair(NamedTuple):
    left: int
    right: Row


GOOD = [
    (int, int),
    (int, float),
    (bool, int),
    (Any, int),
    (int, Any),
    (int, object),
    (int, T),
    (Derived, Base),
    (int, int | str),
    (int | str, str | int | None),
    (None, int | None),
    (UserId, int),
    (Annotated[int, "metres"], int),
    (Literal[1, 2], int),
    (Literal[1], Literal[1, 2]),
    (int, Literal[1, 2]),
    (list, list[int]),
    (list[int], list),
    (list[int], list[float]),
    (list[int], abc.Sequence[int]),
    (dict[str, int], abc.Mapping[str, float]),
    (dict[str, int], abc.Iterable[str]),
    (tuple[int, int], tuple[int, ...]),
    (tuple[int, ...], tuple[int, int]),
    (list[Any], list[int]),
    (Row, dict),
    (dict[str, int], Row),
    (Base, Sized),
    (Box[int], Box[int]),
    (typing.List[int], list[int]),  # noqa: UP006 - the old spelling is the point
    (abc.Callable[[int], int], abc.Callable[[str], str]),
    (npt.NDArray[np.float64], np.ndarray),
    (np.ndarray, npt.NDArray[np.float64]),
    (npt.NDArray[np.float64], npt.NDArray[np.float64]),
    (np.float64, float),
]
BAD = [
    (int, str),
    (str, int),
    (float, int),
    (str, bytes),
    (Base, Derived),
    (int | str, int),
    (int | None, int),
    (None, int),
    (str, int | bytes),
    (UserId, str),
    (Annotated[int, "metres"], str),
    (Literal["a"], int),
    (Literal[1], Literal[2]),
    (str, Literal[1, 2]),
    (list[int], list[str]),
    (list[int], set[int]),
    (list[str], abc.Sequence[int]),
    (dict[str, int], dict[str, str]),
    (tuple[int, int], tuple[int, int, int]),
    (tuple[int, str], tuple[int, ...]),
    (Row, list),
    (Box[int], Box[str]),
    (npt.NDArray[np.float64], npt.NDArray[np.int32]),
    (np.ndarray, list),
]


@pytest.mark.parametrize(("produced", "accepted"), GOOD, ids=str)
def test_types_that_may_meet_are_compatible(produced: Any, accepted: Any) -> None:
    assert compatible(produced, accepted)


@pytest.mark.parametrize(("produced", "accepted"), BAD, ids=str)
def test_types_that_never_meet_are_not(produced: Any, accepted: Any) -> None:
    assert not compatible(produced, accepted)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "int"),
        (None, "None"),
        (type(None), "None"),
        (Any, "Any"),
        (list[Pair], "list[Pair]"),
        (dict[str, int | None], "dict[str, int | None]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal[1, "a"], "Literal[1, 'a']"),
        (Annotated[int, "x"], "int"),
        (typing.Optional[Base], "Base | None"),  # noqa: UP045 - the old spelling is the point
    ],
)
def test_types_are_shown_as_one_would_write_them(hint: Any, text: str) -> None:
    assert type_name(hint) == text


def test_classes_are_found_through_aliases_and_fields() -> None:
    hint = dict[str, Annotated[list[Pair | None], "x"]]
    assert classes_in([hint]) == {Pair}
    assert classes_in([int, Any, T, UserId, Literal[1]]) == set()
