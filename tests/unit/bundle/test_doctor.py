"""What the doctor says of each kind of failure, and of bundles that are damaged or forged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.bundle.doctor import Diagnosis, diagnose
from dflow.bundle.places import place_of
from dflow.cli.doctor import screen_lines
from dflow.report import EdgeStatus, NodeStatus, ReplicaStatus
from tests.unit.bundle.made import STACKS, bundle_of, failed, files, opened, said


def screen(found: Diagnosis, width: int = 80) -> str:
    return "\n".join(screen_lines(found, width))


def test_what_failed_first_is_first_by_time_whoever_wrote_it() -> None:
    found = diagnose(bundle_of(failed()))
    assert [(t.who, t.what.partition(":")[0]) for t in found.troubles] == [
        ("a[0]", "on_start raised"),
        ("c[0]", "on_start raised"),
        ("run[0]", "on_start raised"),
        ("coordinator", "b[0] exited"),
        ("b[0]", "logged"),
    ]
    assert [t.at_s for t in found.troubles] == sorted(t.at_s for t in found.troubles)
    assert found.troubles[4].before_s == pytest.approx(-0.2)


def test_the_dead_are_named_with_how_they_died_and_what_they_said_last() -> None:
    found = diagnose(bundle_of(failed()))
    b = next(p for p in found.processes if p.name == "b[0]")
    assert (b.state, b.last, b.bad) == (
        "died: killed by SIGKILL (pid 100)", "WARNING last words", True,
    )  # fmt: skip
    a = next(p for p in found.processes if p.name == "a[0]")
    assert (a.state, a.at, a.bad) == ("answered", "at flows.py:19 in stuck", False)


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ("SIGKILL", "short of memory"),
        ("SIGSEGV", "crashed in native code"),
        (None, "on_error='skip'"),
    ],
)
def test_each_kind_of_failure_has_its_own_next_step(signal: str | None, words: str) -> None:
    assert words in diagnose(bundle_of(failed(signal=signal))).advice[0]


@pytest.mark.parametrize("kind", ["start_failed", "drain_timeout", "process_died", "?", None, 7])
def test_every_cause_has_an_advice(kind: Any) -> None:
    case = failed()
    found = diagnose(bundle_of(replace(case, cause=dict(case.cause) | {"kind": kind})))
    assert found.advice


def test_a_full_edge_is_named_and_its_slow_receiver() -> None:
    case = failed()
    edges = (
        EdgeStatus("a.out->b.in", depth=64, capacity=64, oldest_s=12.0),
        EdgeStatus("b.out->c.in", depth=61, capacity=64, oldest_s=11.0),
        EdgeStatus("x.out->y.in", depth=10, capacity=64),
        EdgeStatus("y.out->z.in", depth=0, capacity=0),
    )
    case = replace(
        case, status=replace(case.status, edges=edges),
        cause={"kind": "drain_timeout", "text": "late", "busy": ["c[0]"]},
    )  # fmt: skip
    found = diagnose(bundle_of(case))
    assert [(e.id, e.depth) for e in found.full] == [("b.out->c.in", 61), ("a.out->b.in", 64)]
    assert "c is slower than what feeds it" in found.advice[-1]
    assert found.busy == ["c[0]"]
    assert "still busy: c[0]" in screen(found)


def test_an_edge_that_a_chain_calls_full_is_among_those_that_were_full() -> None:
    case = failed()
    busy = ReplicaStatus("b[0]", step="running", what="handler", for_s=12.0)
    blocked = ReplicaStatus(
        "a[0]", step="running", what="credit", for_s=11.0, edges=("a.out->b.in",)
    )
    nodes = (
        NodeStatus("a", "source", 1, doing=(blocked,)),
        NodeStatus("b", "sink", 1, doing=(busy,)),
    )
    for depth in range(65):
        edges = (EdgeStatus("a.out->b.in", depth=depth, capacity=64),)
        status = replace(case.status, phase="running", nodes=nodes, edges=edges)
        found = diagnose(bundle_of(replace(case, status=status)))
        told = [line for line in found.waits if "edge a.out->b.in is full" in line]
        assert len(told) == len(found.full) == (depth >= 55)


def test_one_that_did_not_answer_is_told_apart_from_one_that_died() -> None:
    case = failed()
    quiet = {"answered": False, "exit": "", "step": "running"}
    seats = [dict(seat) | quiet for seat in case.seats]
    found = diagnose(bundle_of(replace(case, seats=tuple(seats), words={})))
    assert {p.state for p in found.processes} == {"did not answer"}
    assert "a[0] did not answer: a library" in " ".join(found.advice)
    seen = bundle_of(
        replace(case, seats=tuple(seats), words={}), outside={"a[0]": "the kernel:\nState: S"}
    )
    assert "a[0] did not answer: its stacks, seen from outside" in " ".join(diagnose(seen).advice)


def test_a_worker_of_another_host_that_fell_silent_is_lost() -> None:
    case = failed()
    seats = [dict(seat) | {"answered": False, "exit": "", "step": "gone"} for seat in case.seats]
    found = diagnose(bundle_of(replace(case, seats=tuple(seats), words={})))
    assert found.processes[1].state == "died, or cannot be reached"
    assert "b[0] was not heard of any more" in " ".join(found.advice)


def test_one_the_run_had_killed_did_not_die_first() -> None:
    case = failed()
    seats = [
        dict(seat) | {"answered": False, "exit": "killed by SIGKILL (pid 1)", "killed_by_run": True}
        for seat in case.seats
    ]
    found = diagnose(bundle_of(replace(case, seats=tuple(seats))))
    assert found.processes[0].state == "did not answer; then killed by SIGKILL (pid 1)"


def test_what_the_run_itself_killed_is_no_trouble() -> None:
    case = failed()
    seats = [dict(seat) | {"killed_by_run": seat["name"] == "b[0]"} for seat in case.seats]
    found = diagnose(bundle_of(replace(case, seats=tuple(seats))))
    assert not [trouble for trouble in found.troubles if "b[0] exited" in trouble.what]


def test_books_that_do_not_balance_are_called_a_bug() -> None:
    contents = files(replace(failed(), cause={}))
    report = json.loads(contents["report.json"]) | {"balances": False}
    found = diagnose(opened(contents | {"report.json": json.dumps(report)}))
    assert "bug of dflow" in found.advice[0]


def test_a_live_run_has_nothing_that_ended_it() -> None:
    found = diagnose(bundle_of(replace(failed(), cause={}, report=None)))
    assert "nothing: the run was looked at while it went on" in screen(found)
    assert "Nothing had failed" in found.advice[0]


@pytest.mark.parametrize("index", [None, "{", "[1]", "[" * 100_000])
def test_without_its_index_a_bundle_does_not_claim_that_nothing_had_failed(
    index: str | None,
) -> None:
    contents = {name: text for name, text in files(failed()).items() if name != "bundle.json"}
    found = diagnose(opened(contents | ({} if index is None else {"bundle.json": index})))
    shown = screen(found)
    assert "nobody knows: the file that says it cannot be read" in shown
    assert "the run was looked at while it went on" not in shown
    assert "bundle made nobody knows when\n" in shown
    assert found.advice[0].startswith("bundle.json, which says what ended the run, cannot be read")


def test_clocks_of_several_hosts_are_not_trusted_silently() -> None:
    case = failed()
    seats = tuple(dict(seat) | {"host": f"h{n}"} for n, seat in enumerate(case.seats))
    found = diagnose(bundle_of(replace(case, seats=seats)))
    assert "the clocks of 4 hosts are compared; they may differ by what NTP leaves" in found.missing


def test_what_fits_on_a_terminal_is_not_wider() -> None:
    for width in (80, 60):
        assert max(map(len, screen(diagnose(bundle_of(failed())), width).splitlines())) <= width


def test_a_terminal_is_not_obeyed() -> None:
    case = failed()
    words = dict(case.words) | {"a[0]": said(STACKS.replace("stuck", "st\x1b[2Juck"))}
    cause = dict(case.cause) | {"text": "\x1b]0;owned\x07", "busy": ["\x1b[1m"]}
    found = diagnose(bundle_of(replace(case, words=words, cause=cause)))
    assert "\x1b" not in screen(found)
    assert "\x1b" not in json.dumps(found.to_dict(), ensure_ascii=False)


def test_a_log_line_cannot_forge_others() -> None:
    contents = files(failed())
    forged = (
        "2020-01-01T00:00:00.000000Z INFO x:1 a\r2019-01-01T00:00:00.000000Z ERROR x:1 forged\n"
    )
    found = diagnose(opened(contents | {"processes/a[0]/log.txt": forged}))
    assert "forged" not in " ".join(trouble.what for trouble in found.troubles)


# --- damaged, incomplete, hostile ---------------------------------------------------------


def test_whatever_is_missing_is_said_and_the_rest_is_told() -> None:
    contents = files(failed())
    for name in list(contents):
        left = {kept: text for kept, text in contents.items() if kept != name}
        found = diagnose(opened(left))
        assert found.advice
        assert screen(found)
    found = diagnose(opened({"bundle.json": "{}"}))
    assert "status.json is missing" in found.missing
    assert "the coordinator's story is missing" in found.missing
    assert "plan.json is missing" in screen(found)


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "cause", "processes", "kind", "text", "directory", "edges", "id",
                         "depth", "capacity", "nodes", "made", "lasted_s", "notes", "busy",
                         "coordinator", "exit", "keys", "workers", "memory", "MemAvailable"]),
        inner, max_size=6),
    max_leaves=12,
)  # fmt: skip
_GOOD = files(failed())


@settings(max_examples=75)
@given(st.dictionaries(st.sampled_from(sorted(_GOOD)), _junk.map(json.dumps) | st.text()))
def test_a_bundle_of_nonsense_raises_nothing_and_prints_nothing_harmful(
    changed: dict[str, str],
) -> None:
    text = screen(diagnose(opened(_GOOD | changed)))
    assert "\x1b" not in text


@settings(max_examples=50)
@given(_junk)
def test_an_index_of_the_wrong_shape_raises_nothing(index: Any) -> None:
    bad = {"processes": [index, {"name": "a", "directory": index}], "cause": index, "notes": index}
    assert screen(diagnose(opened(_GOOD | {"bundle.json": json.dumps(bad)})))


# --- where a process was ------------------------------------------------------------------

CRASHED = """left when it crashed (faulthandler):
Fatal Python error: Segmentation fault

Thread 0x00007fd7cb01d6c0 (most recent call first):
  File "/x/dflow/transport/poller.py", line 109 in wait

Current thread 0x00007fd7ce1c0b80 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/me/flows.py", line 15 in segv
  File "/x/dflow/worker/emitting.py", line 69 in call_each
"""
ASKED = CRASHED.replace("Current thread 0x00007fd7ce1c0b80", "Thread 0x00007fd7ce1c0b80").replace(
    "Fatal Python error: Segmentation fault", ""
)
TASKS = """
task Task-3, most recent last:
  File "/x/dflow/worker/aio.py", line 120, in _handle
  File "/home/me/flows.py", line 7, in fetch
    await asyncio.sleep(10)
  File "/usr/lib/python3.11/asyncio/tasks.py", line 639, in sleep

task Task-4, most recent last:
  File "/home/me/flows.py", line 99, in other
"""
SPIED = """asked by a signal (faulthandler): no answer

py-spy dump:
Process 26171: python
Python v3.11.7 (/usr/bin/python3.11)

Thread 26171 (idle): "MainThread"
    recv (/usr/lib/python3.11/socket.py:705)
    stopped (/home/me/flows.py:25)
    call_each (/x/dflow/worker/emitting.py:69)
Thread 26182 (idle): "dflow-pulse"
    wait (/x/dflow/transport/poller.py:109)
"""
IDLE = """thread MainThread, most recent last:
  File "/x/dflow/worker/loop.py", line 76, in run
  File "/x/dflow/transport/poller.py", line 109, in wait
"""


@pytest.mark.parametrize(
    ("stacks", "place"),
    [
        (STACKS, "at flows.py:19 in stuck"),
        (CRASHED, "at flows.py:15 in segv"),
        (ASKED, "at flows.py:15 in segv"),
        (IDLE, "waiting for messages"),
        (IDLE + TASKS, "at flows.py:7 in fetch"),
        ("the kernel:\nState:\tT (stopped)\nVmRSS: 1", "in state T (stopped)"),
        (SPIED, "at flows.py:25 in stopped"),
        ("", ""),
        ("nonsense", ""),
        ('thread MainThread\n  File "x", line 99999999999999, in f', "at x:999999999 in f"),
    ],
)
def test_a_place_is_the_innermost_line_of_the_users_own(stacks: str, place: str) -> None:
    assert place_of(stacks) == place
