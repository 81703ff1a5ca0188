"""Loading the user's main module where it is not the main module."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dflow.errors import StartError
from dflow.launch import preload
from dflow.launch.preload import MainModule, check_not_preloading, describe_main, load_main

Load = Callable[[str], tuple[types.ModuleType, str | None]]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(preload._Preloading, "loaded", None)
    yield
    sys.modules.pop(preload.MAIN, None)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(source: str) -> tuple[types.ModuleType, str | None]:
        script = tmp_path / "script.py"
        script.write_text(f"from dflow.launch.preload import check_not_preloading\n{source}")
        return load_main(MainModule(path=str(script)))

    return load


def test_the_guard_is_false_and_the_module_is_registered(load: Load) -> None:
    module, hint = load("seen = (__name__, __file__)\nif __name__ == '__main__':\n  1 / 0")
    assert module.seen[0] == "__dflow_main__"
    assert module.seen[1].endswith("script.py")
    assert sys.modules["__dflow_main__"] is module
    assert sys.modules["__main__"] is not module
    assert hint is None


def test_loading_stops_where_a_run_is_started_and_keeps_what_stands_above(load: Load) -> None:
    module, hint = load(
        "above = 1\ntry:\n  check_not_preloading()\nexcept Exception:\n  pass\nbelow = 2"
    )
    assert module.above == 1
    assert not hasattr(module, "below")
    assert hint is not None
    assert hint.startswith("script.py starts a run when it is imported")


def test_what_goes_wrong_after_the_run_was_reached_does_not_matter(load: Load) -> None:
    _, hint = load("try:\n  check_not_preloading()\nexcept BaseException:\n  1 / 0")
    assert hint is not None


def test_script_that_exits_is_kept_so_far(load: Load) -> None:
    module, hint = load("x = 1\nimport sys; sys.exit(3)")
    assert module.x == 1
    assert hint is None


def test_script_that_raises_shows_the_users_traceback_only(load: Load) -> None:
    with pytest.raises(StartError, match=r"script\.py: .* raised ZeroDivisionError") as caught:
        load("def f():\n  return 1 / 0\nf()")
    assert "return 1 / 0" in str(caught.value)
    assert "preload.py" not in str(caught.value)


def test_outside_of_loading_nothing_is_checked(load: Load) -> None:
    load("x = 1")
    check_not_preloading()


@pytest.mark.parametrize(
    ("main", "text"),
    [
        (MainModule(path="/nowhere/script.py"), "expected a Python script"),
        (MainModule(module="dflow"), None),
        (MainModule(module="dflow.nowhere"), "expected to find its code"),
    ],
    ids=["no file", "a module", "no module"],
)
def test_main_that_is_not_there_is_a_start_error(main: MainModule, text: str | None) -> None:
    if text is None:
        assert load_main(main)[0].__package__ == "dflow"
        return
    with pytest.raises(StartError, match=text):
        load_main(main)


def test_broken_syntax_is_a_start_error(load: Load) -> None:
    with pytest.raises(StartError, match=r"expected a Python script, got .*line 2"):
        load("def :")


def test_loading_the_same_again_does_nothing(load: Load) -> None:
    first, _ = load("import itertools; n = itertools.count()")
    assert next(first.n) == 0
    again, _ = load("import itertools; n = itertools.count()")
    assert again is first


def fake_main(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    main = types.ModuleType("__main__")
    main.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)


def test_main_is_described_by_what_python_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_main(monkeypatch)
    assert describe_main() is None  # -c, REPL, notebook
    fake_main(monkeypatch, __file__=__file__)
    assert describe_main() == MainModule(path=__file__)
    fake_main(monkeypatch, __file__="<stdin>")
    assert describe_main() is None
    spec = types.SimpleNamespace(name="shop.till")
    fake_main(monkeypatch, __file__=__file__, __spec__=spec)
    assert describe_main() == MainModule(module="shop.till")


def test_a_script_loaded_here_is_the_main_module_of_its_runs(load: Load) -> None:
    module, _ = load("x = 1")
    assert describe_main() == MainModule(path=module.__file__)
