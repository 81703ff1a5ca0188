"""Logs of dflow's own processes: one way in, one way out.

Every record, wherever it was made, becomes a `Log`: a worker sends its records to the
coordinator, the coordinator renders what arrives, and what it says itself, on its stderr in
the order of arrival. So there is one renderer a format and one process that writes.

Invariants. Logging never raises and never blocks on a peer beyond what ``send`` does: a record
that cannot be rendered is rendered as well as it can be, one that cannot be written is dropped.
A JSON line always parses. A message may contain anything, including braces, markup and
newlines. The launching process belongs to the user: nothing here touches its handlers.

Rejected: loguru's ``serialize=True`` (nests the text in a record of its own shape, writes NaN),
``diagnose=True`` (prints values of variables, which may be other people's payloads).
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

from dflow.telemetry.recent import RECENT
from dflow.wire.control import Log

if TYPE_CHECKING:
    import loguru

    from dflow.graph.plan import WorkerId

__all__ = [
    "configure_coordinator", "configure_worker", "emit_remote", "name_speakers", "record_sink",
    "say",
]  # fmt: skip

COORDINATOR = "coordinator"
_MAX_MESSAGE = 64 * 1024
_MAX_EXTRA = 1024
_MAX_NAME = 256
_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31", "SUCCESS": "32", "DEBUG": "2"}
_COLOURS["TRACE"] = "2"
_MAIN = {"__dflow_main__": "__main__"}  # the user's script, by the name its user knows
_CONTEXT = ("run_id", "node", "replica")
_LIFE = ("event", "phase")
_MOST_EXTRAS = 100

Send = Callable[[Log], None]
Render = Callable[[Log, str], str]


def configure_worker(send: Send, worker: WorkerId, run_id: str, level: str) -> None:
    """Make this process, a worker, hand every record of ``level`` and above to ``send``.

    Covers loguru and the standard library's `logging`. Handlers of the user's that write to
    files or elsewhere stay; those that write to the console go, for `send` replaces them.
    ``send`` must be safe to call from any thread.
    """
    context = {"run_id": run_id, "node": _Unbound(worker.node), "replica": worker.replica}
    _take_over(send, level, context, _console_handler_ids())


def name_speakers(speaking: Callable[[], str]) -> None:
    """Let records that name no node of their own carry the one that ``speaking`` returns.

    For a worker with several nodes; what was bound (``ctx.log``) stays as it is.
    """

    def patch(record: loguru.Record) -> None:
        if type(record["extra"].get("node")) is _Unbound:
            record["extra"]["node"] = speaking() or str(record["extra"]["node"])

    logger.configure(patcher=patch)


def say(log: loguru.Logger, level: str, text: str) -> None:
    """Log dflow's own ``text``, whatever the user's handlers do; never raises."""
    try:
        log.opt(depth=1).log(level, "{}", text)
    except Exception:  # noqa: BLE001  # a log record must never end a run
        return


class _Unbound(str):
    """The name of a worker's node, put into records that name none."""

    __slots__ = ()


def configure_coordinator(format: str, level: str, run_id: str = "") -> None:
    """Make this process, the coordinator, render records of ``level`` and above on stderr.

    ``format`` is ``"human"`` (coloured on a terminal) or ``"json"`` (one object a line). It
    holds for the coordinator's own records and for what `emit_remote` is given.
    """
    global _render
    RECENT.clear()
    colour = _is_coloured(sys.stderr)
    _render = _render_json if format == "json" else partial(_render_human, colour=colour)
    context = {"run_id": run_id} if run_id else {}
    _take_over(lambda record: emit_remote(record, COORDINATOR), level, context, None)


def emit_remote(record: Log, worker: str) -> None:
    """Write one record of ``worker`` (``"square[0]"``) to stderr; never raises."""
    try:
        RECENT.note(record, worker)
        line = _render(record, worker)
    except Exception as error:  # noqa: BLE001  # a log record must never end a run
        text = f"a log record could not be rendered: {type(error).__name__}"
        line = _render(Log("ERROR", 0.0, text, __name__, 0, {}), worker)
    _write(line)


# --- in: loguru and logging become Log ---------------------------------------------------


def record_sink(send: Send) -> Callable[[loguru.Message], None]:
    """Return a sink for loguru that hands each record to ``send``; it never raises."""

    def sink(message: loguru.Message) -> None:
        try:
            send(_to_log(message.record))
        except Exception:  # noqa: BLE001  # a log record must never end a run
            return

    return sink


def _take_over(send: Send, level: str, context: dict[str, Any], replaced: list[int] | None) -> None:
    """Send all records of this process to ``send``; None replaces all of loguru's handlers."""
    if replaced is None:
        logger.remove()
    else:
        for handler in replaced:
            logger.remove(handler)
    logger.configure(extra=context, patcher=lambda record: None)
    # The sink works on the record alone; this format keeps loguru from rendering it as well.
    logger.add(record_sink(send), level=level, format=lambda _: "", backtrace=False, diagnose=False)
    _intercept_stdlib(level)


def _console_handler_ids() -> list[int]:
    """Return the ids of loguru's handlers that write to the console.

    loguru has no public way to ask; without these internals, only its default handler counts.
    """
    handlers: Mapping[int, Any] = getattr(getattr(logger, "_core", None), "handlers", {})
    found = []
    for number, handler in handlers.items():
        stream = getattr(getattr(handler, "_sink", None), "_stream", None)
        if number == 0 or _is_console(stream):
            found.append(number)
    return found


def _is_console(stream: object) -> bool:
    return stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


class _Intercept(logging.Handler):
    """Hands records of the standard library's `logging` to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass ``record`` on with its own place, time and exception; never raises."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  # wrong %-arguments: show what there is
            text = _as_it_is(record)

        def patch(into: loguru.Record) -> None:
            into["name"], into["line"] = record.name, record.lineno
            into["time"] = datetime.fromtimestamp(record.created, UTC)

        try:
            known = logger.level(record.levelname).name
        except ValueError:
            known = _nearest_level(record.levelno)
        try:
            logger.patch(patch).opt(exception=record.exc_info).log(known, "{}", text)
        except Exception:  # noqa: BLE001  # a log record must never end a run
            return


def _as_it_is(record: logging.LogRecord) -> str:
    """Return what there is of a message that cannot be put together."""
    try:
        return f"{record.msg!r} % {record.args!r}"
    except Exception:  # noqa: BLE001  # the user's __repr__ may do anything, too
        return f"<{type(record.msg).__name__}> with arguments that cannot be shown"


def _nearest_level(number: int) -> str:
    steps = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"), (10, "DEBUG"))
    return next((name for least, name in steps if number >= least), "TRACE")


def _intercept_stdlib(level: str) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        ours = isinstance(handler, _Intercept)
        if ours or (type(handler) is logging.StreamHandler and _is_console(handler.stream)):
            root.removeHandler(handler)
    root.addHandler(_Intercept())
    root.setLevel(logger.level(level).no)


def _to_log(record: loguru.Record) -> Log:
    message = str(record["message"])
    if record["exception"] is not None:
        message = f"{message}\n{''.join(traceback.format_exception(*record['exception']))}".rstrip()
    return Log(
        level=_clip(record["level"].name, _MAX_NAME),
        time_s=record["time"].timestamp(),
        message=_clip(message, _MAX_MESSAGE),
        name=_clip(_MAIN.get(str(record["name"] or ""), str(record["name"] or "")), _MAX_NAME),
        line=record["line"] if type(record["line"]) is int and record["line"] >= 0 else 0,
        extra=_extra(record["extra"]),
    )


def _extra(extra: Mapping[Any, object]) -> dict[str, str | int | float | bool | None]:
    """Return what was bound to a record, as far as it can travel."""
    plain = {
        _clip(str(key), _MAX_NAME): _plain(value)
        for key, value in islice(extra.items(), _MOST_EXTRAS)
    }
    if len(extra) > _MOST_EXTRAS:
        plain["…"] = f"{len(extra) - _MOST_EXTRAS} more"
    return plain


def _clip(text: str, limit: int) -> str:
    # A lone surrogate (a file name read from disk) has no UTF-8, and so no way onto the wire.
    clean = text.encode(errors="backslashreplace").decode()
    return clean if len(clean) <= limit else f"{clean[:limit]}… ({len(clean)} characters)"


def _plain(value: object) -> str | int | float | bool | None:
    """Return ``value`` as something the wire and JSON can carry; text if nothing else."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and -(2**53) <= value <= 2**53:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  # the user's __str__ may do anything
        text = f"<{type(value).__name__}>"
    return _clip(text, _MAX_EXTRA)


# --- out: Log becomes a line on stderr ---------------------------------------------------


def _render_json(record: Log, worker: str) -> str:
    extra = _extra(record.extra)
    life = _LIFE if worker == COORDINATOR else ()
    line: dict[str, object] = {
        "time": _moment(record.time_s).isoformat(timespec="microseconds"),
        "level": record.level,
        "worker": worker,
        **{key: extra.pop(key) for key in (*life, *_CONTEXT) if key in extra},
        "message": record.message,
        "name": record.name,
        "line": record.line,
    }
    if extra:
        line["extra"] = extra
    return json.dumps(line, allow_nan=False) + "\n"


def _render_human(record: Log, worker: str, *, colour: bool = False) -> str:
    moment = _moment(record.time_s).astimezone()
    clock = moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    told = worker == COORDINATOR and "event" in record.extra  # the sentence says it all
    bound = {} if told else _extra(record.extra)
    extra = "".join(f" {key}={value}" for key, value in bound.items() if key not in _CONTEXT)
    message = record.message.replace("\n", "\n    ")
    level = f"{record.level:<8}"
    place = f"{record.name}:{record.line}"
    if colour:
        level = f"\x1b[{_COLOURS.get(record.level, '0')}m{level}\x1b[0m"
        worker, place = f"\x1b[36m{worker}\x1b[0m", f"\x1b[2m{place}\x1b[0m"
    return f"{clock} {level} {worker} {place} {message}{extra}\n"


def _moment(time_s: float) -> datetime:
    try:
        return datetime.fromtimestamp(time_s, UTC)
    except (ValueError, OverflowError, OSError):  # a peer's clock may say anything
        return datetime.fromtimestamp(0, UTC)


def _is_coloured(stream: TextIO | None) -> bool:
    if stream is None or stream.closed:
        return False
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def _write(line: str) -> None:
    """Write a whole line at once, so that lines of several processes do not mix."""
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError, RuntimeError):  # gone, closed, None, or busy
        return


_render: Render = _render_human
