"""``dflow doctor`` and the ``--bundle`` of ``dflow run``, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dflow.bundle.folder import write
from dflow.cli.app import cli
from dflow.cli.options import RunCommand
from tests.unit.bundle.made import failed, files


def dflow(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return write(files(failed()), str(tmp_path), "one")


def test_the_screen_goes_from_what_happened_to_what_to_do(bundle: str) -> None:
    result = dflow("doctor", bundle)
    assert result.exit_code == 0
    headings = [line for line in result.stdout.splitlines() if line.isupper()]
    assert headings == ["WHAT ENDED IT", "WHAT FAILED FIRST", "PROCESSES", "WHAT TO DO NEXT"]
    assert "worker_died: b[0]: worker died: killed by SIGKILL" in result.stdout
    assert "\x1b" not in result.stdout


def test_json_is_one_object(bundle: str) -> None:
    answer = json.loads(dflow("doctor", bundle, "--json").stdout)
    assert (answer["ok"], answer["exit_code"]) == (True, 0)
    assert answer["diagnosis"]["kind"] == "worker_died"
    assert answer["diagnosis"]["troubles"][0]["who"] == "a[0]"


def test_what_is_no_bundle_is_an_error(tmp_path: Path) -> None:
    result = dflow("doctor", str(tmp_path / "nothing"))
    assert result.exit_code == 1
    assert "expected the directory of a bundle, got No such file" in result.stderr


def test_an_incomplete_bundle_is_read_as_far_as_it_goes(bundle: str) -> None:
    (Path(bundle) / "status.json").unlink()
    (Path(bundle) / "plan.json").write_text("{")
    result = dflow("doctor", bundle)
    assert result.exit_code == 0
    assert "status.json is missing" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["flows.py:graph"], ("flows.py:graph", None)),
        (["--bundle", "flows.py:graph"], ("flows.py:graph", ".")),
        (["--bundle", "flows.py"], ("flows.py", ".")),
        (["flows.py:graph", "--bundle"], ("flows.py:graph", ".")),
        (["flows.py:graph", "--bundle", "there"], ("flows.py:graph", "there")),
        (["--bundle", "there", "package.flows:make"], ("package.flows:make", "there")),
        (["--bundle=a:b", "flows.py"], ("flows.py", "a:b")),
    ],
)
def test_a_bare_bundle_does_not_swallow_the_target(
    arguments: list[str], meant: tuple[str, str | None]
) -> None:
    @click.command(cls=RunCommand)
    @click.argument("target")
    @click.option("--bundle", is_flag=False, flag_value=".")
    def verb(target: str, bundle: str | None) -> None:
        click.echo(json.dumps([target, bundle]))

    assert json.loads(CliRunner().invoke(verb, arguments).stdout) == list(meant)


def test_a_bundle_of_no_run_says_what_to_do() -> None:
    result = dflow("bundle", "--join", "tcp://127.0.0.1:1")
    assert result.exit_code == 2
    assert "DFLOW_TOKEN" in result.stderr
