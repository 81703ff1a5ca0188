"""The ``dflow`` command: a thin surface over what Python can do as well.

Each verb is a file: `run`, `simulate`, `status`, `inspect` (validate and graph), `cluster`
(coordinator and worker).
`exits` decides exit codes, `output` what is printed where: results on stdout, everything
about them on stderr, and with ``--json`` one JSON object a line on stdout.

This module imports nothing: every process of a run imports the launching script, which is this
command when the run was started by it, and need not pay for a command line parser.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    from dflow.cli.app import cli

    cli(prog_name="dflow")
