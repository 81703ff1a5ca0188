"""What to do next, by what is known to be behind each kind of failure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dflow.bundle.folder import INDEX, Bundle
from dflow.bundle.words import plain

if TYPE_CHECKING:
    from dflow.bundle.doctor import FullEdge, Process

__all__ = ["advice"]

_CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL")


def advice(
    bundle: Bundle,
    cause: Mapping[str, Any],
    seats: Sequence[Mapping[str, Any]],
    processes: Sequence[Process],
    full: Sequence[FullEdge],
    waits: Sequence[str],
) -> list[str]:
    """Return what a user can do, the most likely to help first."""
    return list(_advice(bundle, cause, seats, processes, full, waits))


def _advice(
    bundle: Bundle,
    cause: Mapping[str, Any],
    seats: Sequence[Mapping[str, Any]],
    processes: Sequence[Process],
    full: Sequence[FullEdge],
    waits: Sequence[str],
) -> Iterator[str]:
    folders = {str(seat.get("name")): str(seat.get("directory")) for seat in seats}
    match cause.get("kind"):
        case "worker_died":
            dead = [p for p in processes if p.state.startswith("died")]
            dead.sort(key=lambda process: process.name != cause.get("worker"))
            yield from _of_death(dead[0] if dead else None, bundle, folders)
        case "hook_failed":
            yield (
                "Your code raised: the traceback is in what ended the run. To go on after an"
                " exception in a handler, give the node options(on_error='skip')."
            )
        case "start_failed":
            yield (
                "The run never started. Who did not get ready is named above; look at where it was"
                " (under PROCESSES), or give start_timeout_s more if loading takes that long."
            )
        case "drain_timeout":
            yield (
                "Look at where those were that were still busy (under PROCESSES)"
                + (", and at the chain of who waited for whom." if waits else ".")
                + " If they only need longer, give drain_timeout_s more."
            )
        case "process_died":
            yield (
                "The coordinator or the agent died, and with it all workers. Was it killed (the"
                " kernel's log: dmesg), or is there a traceback on stderr? Then it is a bug: report"
                " it with this bundle."
            )
        case _:
            yield from _of_nothing(bundle)
    for process in processes:
        if process.state.startswith("did not answer"):
            stacks = f"processes/{folders.get(process.name, '')}/stacks.txt"
            seen = stacks in bundle.files
            where = f"its stacks, seen from outside, are in {plain(stacks, 150)}; " if seen else ""
            yield (
                f"{process.name} did not answer: {where}a library that holds Python's lock, a"
                " debugger or SIGSTOP does that."
            )
            break
    if full and cause.get("kind") in ("drain_timeout", None):
        edge = full[0]  # what is furthest down
        receiver = edge.id.partition("->")[2].rpartition(".")[0]
        yield (
            f"{edge.id} was full: {receiver} is slower than what feeds it. More replicas, a faster"
            " handler, or a policy that may lose messages."
        )


def _of_death(dead: Process | None, bundle: Bundle, folders: Mapping[str, str]) -> Iterator[str]:
    if dead is None:
        yield "A worker died; nobody knows how."
        return
    folder = f"processes/{plain(folders.get(dead.name, ''), 100)}"
    if dead.state.endswith("reached"):
        yield (
            f"{dead.name} was not heard of any more: its process ended, or its host or the network"
            " went away. Look at its stderr, and at the log of its host."
        )
    elif any(name in dead.state for name in _CRASHES):
        where = f" It crashed {dead.at}." if dead.at else ""
        yield (
            f"{dead.name} crashed in native code.{where} The stacks it left are in"
            f" {folder}/stacks.txt. Try that call alone, and look for a newer library."
        )
    elif "SIGKILL" in dead.state:
        memory = bundle.data("environment.json").get("memory")
        free = memory.get("MemAvailable") if isinstance(memory, dict) else None
        yield (
            f"{dead.name} was killed by SIGKILL, and not by dflow. Most often that is the kernel,"
            " short of memory: look for 'Out of memory' in dmesg, and at the container's limit."
            + (f" When the bundle was made {_gigabytes(free)} were free." if free else "")
        )
    elif "exit code 70" in dead.state:
        yield f"{dead.name} failed in dflow's own code; its traceback is on stderr. Report it."
    else:
        yield (
            f"{dead.name} ended by itself ({dead.state.removeprefix('died: ')}): its code, or"
            " a library, called sys.exit or os._exit. Look at its last words, and at stderr."
        )


def _gigabytes(kilobytes: Any) -> str:
    """Return ``"23.2 GB"`` for ``"22670000 kB"``."""
    number, _, unit = str(kilobytes)[:40].partition(" ")
    known = number.isascii() and number.isdigit() and unit == "kB"
    return f"{int(number) * 1024 / 1e9:.1f} GB" if known else plain(str(kilobytes), 40)


def _of_nothing(bundle: Bundle) -> Iterator[str]:
    if not bundle.data(INDEX):
        yield (
            f"{INDEX}, which says what ended the run, cannot be read. Look at the logs and stories"
            " of the processes, or make another bundle."
        )
        return
    report = bundle.data("report.json") if "report.json" in bundle.files else {}
    if report and report.get("balances") is False:
        yield (
            "The books do not balance (report.txt says how): that is a bug of dflow. Report it with"
            " this bundle."
        )
    else:
        yield "Nothing had failed: somebody asked for this bundle."
