"""Looking on at a run from any process of the same user, or of whoever has its token.

An observer is a guest of the coordinator: it may ask how the run stands, and nobody waits for
it.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from types import TracebackType
from typing import Self

from dflow.errors import ProtocolError, RunError
from dflow.report import RunReport, RunStatus
from dflow.transport.endpoint import connect_control, wait
from dflow.wire import control as c

__all__ = ["ANSWER_S", "Observer"]

ANSWER_S = 3.0
"""How long a coordinator may take to answer before it is taken to be gone."""

BUNDLE_S = 15.0
"""What gathering a bundle may take: the silent are waited for, and looked at from outside."""


class Observer:
    """A connection to the coordinator at ``endpoint``; close it, or use it in a ``with``.

    ``report`` is how the run ended, once it has.
    """

    def __init__(self, endpoint: str, token: str) -> None:
        self.report: RunReport | None = None
        self._endpoint = endpoint
        self._number = 0
        self._hello = c.Hello("observer", token, os.getpid(), socket.gethostname())
        self._dealer = connect_control(endpoint, f"observer-{secrets.token_hex(8)}".encode())

    def status(self, timeout_s: float | None = None) -> RunStatus | None:
        """Return the run as it is known now, or None once it is over (see ``report``).

        Raises `RunError` if the coordinator sends this process away, or does not answer within
        ``timeout_s`` (default: `ANSWER_S`).
        """
        self._number += 1
        self._say(self._hello)  # each time: it may have forgotten us
        self._say(c.StatusRequest(self._number))
        timeout_s = ANSWER_S if timeout_s is None else timeout_s
        by = time.monotonic() + timeout_s
        while self.report is None:
            message = self._hear(by - time.monotonic())
            match message:
                case c.StatusReply(request, status) if request == self._number:
                    return RunStatus.from_dict(status)
                case c.Finished(report):
                    self.report = RunReport.from_dict(report)
                case c.Refused(reason):
                    raise RunError(f"{self._endpoint}: sent away: {reason}")
                case None:
                    raise RunError(
                        f"{self._endpoint}: no answer within {timeout_s:g} s; the run has ended,"
                        f" or its coordinator does not respond"
                    )
        return None

    def bundle(self, timeout_s: float = BUNDLE_S) -> dict[str, str] | None:
        """Return the files of a failure bundle of the run as it is; None once it is over.

        Raises `RunError` as `status` does.
        """
        self._number += 1
        self._say(self._hello)
        self._say(c.DumpRequest(self._number))
        by = time.monotonic() + timeout_s
        files: dict[str, str] = {}
        while self.report is None:
            message = self._hear(by - time.monotonic())
            match message:
                case c.Bundled(request, "") if request == self._number:
                    return files
                case c.Bundled(request, name, text) if request == self._number:
                    files[name] = text
                case c.Finished(report):
                    self.report = RunReport.from_dict(report)
                case c.Refused(reason):
                    raise RunError(f"{self._endpoint}: sent away: {reason}")
                case None:
                    raise RunError(f"{self._endpoint}: no bundle within {timeout_s:g} s")
        return None

    def _say(self, message: c.Control) -> None:
        self._dealer.send(c.encode(message))

    def _hear(self, timeout_s: float) -> c.Control | None:
        """Return the next word, None if there was none in time."""
        if not wait([self._dealer], max(0.0, timeout_s)):
            return None
        try:
            return c.decode(self._dealer.recv())
        except ProtocolError as error:
            raise RunError(f"{self._endpoint}: expected a coordinator: {error}") from None

    def close(self) -> None:
        """Leave; safe to repeat."""
        self._dealer.close(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
