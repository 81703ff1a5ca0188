"""What is in a bundle, and what never is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dflow.bundle.contents import names_of
from dflow.bundle.environment import TOLD_VARIABLES, environment, process_facts
from dflow.telemetry.recent import Recent
from dflow.wire.control import Log
from tests.unit.broker_pair import TOKEN
from tests.unit.bundle.made import bundle_of, failed, files, said

SECRETS = {
    "DFLOW_TOKEN": "token-of-the-environment",
    "AWS_SECRET_ACCESS_KEY": "aws-key",
    "DATABASE_URL": "postgres://me:hunter2@db",
    "PYTHONSTARTUP_SECRET": "startup",
}


def test_everything_the_index_speaks_of_is_there() -> None:
    found = files(failed())
    assert {
        "README.md", "bundle.json", "plan.json", "graph.mmd", "status.json", "counters.json",
        "run_queue.json", "environment.json", "report.json", "report.txt",
        "processes/coordinator/story.txt", "processes/a[0]/story.txt", "processes/a[0]/log.txt",
        "processes/a[0]/stacks.txt", "processes/a[0]/state.json", "processes/b[0]/log.txt",
    } <= set(found)  # fmt: skip
    index = json.loads(found["bundle.json"])
    assert index["cause"]["kind"] == "worker_died"
    assert [row["name"] for row in index["processes"]] == ["a[0]", "b[0]", "c[0]", "run[0]"]


def test_a_killed_worker_is_there_by_what_was_heard_of_it() -> None:
    found = files(failed())
    assert "no disk" in found["processes/b[0]/log.txt"]
    assert "b[0] exited: killed by SIGKILL" in found["processes/coordinator/story.txt"]
    assert json.loads(found["counters.json"])["b[0]"]["node"]["handled"] == 0


def test_times_of_all_are_on_one_clock_and_begin_their_lines() -> None:
    found = files(failed())
    assert found["processes/a[0]/story.txt"].splitlines() == [
        "1970-01-01T00:15:01.000000Z on_start raised: starting -> failed",
        "1970-01-01T00:15:02.000000Z Abort (3 times, until 1970-01-01T00:15:04.000000Z)",
    ]
    assert found["processes/a[0]/log.txt"] == (
        "1970-01-01T00:16:40.500000Z INFO     flows:3 three\n    is odd\n"
    )


def test_the_tokens_of_the_run_are_in_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    case = failed()
    case = replace(case, words=dict(case.words) | {"c[0]": said(f"a line with {TOKEN}")})
    text = "".join(files(case, environment=environment()).values())
    assert TOKEN not in text
    assert "a line with (the run's token)" in text
    assert not [value for value in SECRETS.values() if value in text]


def test_only_named_variables_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("MY_PASSWORD", "hunter2")
    told = environment()
    assert told["variables"]["PYTHONHASHSEED"] == "7"
    assert set(told["variables"]) <= set(TOLD_VARIABLES)
    assert "hunter2" not in json.dumps(told, default=str)
    assert "DFLOW_TOKEN" not in TOLD_VARIABLES


def test_the_environment_says_what_one_asks_first() -> None:
    told = environment()
    assert told["packages"]["pyzmq"]
    assert told["python"][0].isdigit()
    assert process_facts()["rss_kb"] > 1000


NONSENSE = [
    "", "{", "[1]", '"x"', "[" * 5000, '{"stacks": 7}', '{"standing": [], "clock_s": "x"}',
    '{"standing": {"story": [1, [2], ["x", 1, "y", 2]]}}',
]  # fmt: skip


@pytest.mark.parametrize("words", NONSENSE)
def test_a_process_that_says_nonsense_spoils_nothing(words: str) -> None:
    case = failed()
    found = files(replace(case, words={"a[0]": words, "c[0]": said()}))
    assert "processes/c[0]/stacks.txt" in found
    json.loads(found["bundle.json"])


def test_a_story_cannot_make_lines_of_its_own() -> None:
    row = [1.0, "words\n2020-01-01T00:00:00.000000Z forged raised", 1, 1.0]
    case = failed()
    found = files(replace(case, words={"a[0]": said(standing={"story": [row]})}))
    assert len(found["processes/a[0]/story.txt"].splitlines()) == 1


def test_a_file_is_cut_off_where_it_gets_too_long() -> None:
    case = failed()
    found = files(replace(case, words={"a[0]": said("x" * 5_000_000)}))
    assert len(found["processes/a[0]/stacks.txt"]) < 2_200_000
    assert found["processes/a[0]/stacks.txt"].endswith("… cut off\n")


def test_no_two_processes_share_a_directory_even_where_case_does_not_count() -> None:
    places = names_of(["a/b[0]", "a_b[0]", "A_B[0]", "..", "."])
    assert len({place.lower() for place in places.values()}) == 5
    assert all("/" not in place and not place.startswith(".") for place in places.values())


def test_the_readme_names_who_did_not_answer() -> None:
    assert "No answer came from b[0]." in files(failed())["README.md"]


def test_stacks_seen_from_outside_stand_beside_the_others() -> None:
    bundle = bundle_of(failed(), outside={"b[0]": "the kernel:\nState:\tT (stopped)"})
    assert "T (stopped)" in bundle.text("processes/b[0]/stacks.txt")


# --- the last log records -----------------------------------------------------------------


def _log(text: str) -> Log:
    return Log("INFO", 1.0, text, "flows", 3, {})


def test_the_last_thousand_records_of_each_process_are_remembered() -> None:
    recent = Recent()
    for n in range(1500):
        recent.note(_log(str(n)), "a[0]")
    recent.note(_log("other"), "b[0]")
    assert [r.text for r in recent.records("a[0]")] == [str(n) for n in range(500, 1500)]
    assert (recent.lost("a[0]"), recent.lost("b[0]"), recent.lost("c[0]")) == (500, 0, 0)
    assert list(recent) == ["a[0]", "b[0]"]


def test_many_processes_share_the_room_and_long_records_are_cut() -> None:
    recent = Recent()
    for worker in range(1000):
        recent.note(_log("x"), f"w[{worker}]")
    for _ in range(1000):
        recent.note(_log("short"), "w[0]")
    recent.note(_log("y" * 10_000), "w[0]")
    records = recent.records("w[0]")
    assert len(records) == 100
    assert records[-1].text.endswith("… (10000 characters)")


def test_long_records_of_many_processes_stay_within_a_bound() -> None:
    recent = Recent()
    for worker in range(600):
        for _ in range(40):
            recent.note(_log("y" * 4000), f"w[{worker}]")
    kept = sum(len(r.text) for name in recent for r in recent.records(name))
    assert kept < 100_000_000
    assert len(recent.records("w[599]")) >= 16
    assert recent.lost("w[599]") == 40 - len(recent.records("w[599]"))


def test_another_run_begins_with_nothing() -> None:
    recent = Recent()
    recent.note(_log("x"), "a[0]")
    recent.clear()
    assert (list(recent), recent.records("a[0]")) == ([], [])
