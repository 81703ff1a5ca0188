"""What ``check_types=True`` lets pass and what it does not."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Protocol, TypedDict

import pytest

from dflow.graph.checking import checker, fits


class Row(TypedDict):
    id: int


class Quacks(Protocol):
    def quack(self) -> None: ...


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (1, float),
        (1, complex),
        (None, None),
        (None, Optional[int]),  # noqa: UP045  # the old spelling is the point
        (3, int | str),
        ([1, 2], list[int]),
        ({"a": [1.5]}, dict[str, list[float]]),
        ((1, "a"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({1, 2}, set[int]),
        ("a", Literal["a", "b"]),
        ({"id": 1}, Row),
        (object(), Quacks),
        (1, Annotated[int, "unit: s"]),
        ([object()], list[Any]),
    ],
)
def test_fitting_value_passes(value: object, hint: object) -> None:
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1", int),
        (True, int),
        (True, float),
        (1.5, int),
        (1, None),
        ("x", int | None),
        ([1, "2"], list[int]),
        ((1,), list[int]),
        ({"a": 1}, dict[str, str]),
        ({1: "a"}, dict[str, str]),
        ((1, 2), tuple[int, str]),
        ((1,), tuple[int, str]),
        ("c", Literal["a", "b"]),
        (1, Literal[True]),
        ([], Row),
    ],
)
def test_unfitting_value_is_found(value: object, hint: object) -> None:
    assert not fits(value, hint)


def test_error_says_expected_got_and_where() -> None:
    check = checker(list[int], "parse.out")
    assert check is not None
    check([1])
    with pytest.raises(TypeError, match=r"parse\.out: expected list\[int\], got str"):
        check("a")


def test_anything_needs_no_checker() -> None:
    assert checker(Any, "a.out") is None
