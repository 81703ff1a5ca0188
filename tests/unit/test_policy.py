"""Policies: a name and a call mean the same; what means nothing is refused with the way out."""

from __future__ import annotations

import operator
import pickle
from typing import Any

import pytest

import dflow
from dflow import policy
from dflow.errors import OptionError
from dflow.options import EdgeOptions
from dflow.policy import NAMES, Policy, as_policy, coalesce


@pytest.mark.parametrize("name", [name for name in NAMES if name != "coalesce"])
def test_a_policy_may_be_named_or_called(name: str) -> None:
    called: Policy = getattr(policy, name)()
    assert as_policy(name) == as_policy(called) == called == Policy(name)
    assert str(called) == name
    assert EdgeOptions(policy=name) == EdgeOptions(policy=called)
    assert getattr(dflow, name) is getattr(policy, name)


def test_coalesce_carries_its_function() -> None:
    merged = coalesce(operator.add)
    assert (merged.name, merged.merge) == ("coalesce", operator.add)
    assert as_policy(merged) is merged
    assert EdgeOptions(policy=merged).overflow is merged


@pytest.mark.parametrize("wrong", [None, 3, "add"])
def test_coalesce_wants_something_to_call(wrong: Any) -> None:
    with pytest.raises(OptionError, match="coalesce: expected a function of two messages, got"):
        coalesce(wrong)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("coalesce", r"'coalesce' needs a function; write policy=coalesce\(fn\)"),
        (policy.latest, r"expected a policy, got the function latest; write latest\(\)"),
        (policy.coalesce, r"got the function coalesce; write coalesce\(fn\)"),
        ("latst", "got 'latst'; did you mean 'latest'"),
        ("", "expected one of 'block', 'drop', 'drop_oldest', 'latest', 'coalesce', 'reject'"),
        (None, "got None"),
        (3, "got 3"),
        (len, "got <built-in function len>"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_way_out(value: object, says: str) -> None:
    with pytest.raises(OptionError, match=f"^policy: .*{says}"):
        as_policy(value)
    with pytest.raises(OptionError, match=f"^edge\\(\\): policy: .*{says}"):
        EdgeOptions().updated({"policy": value})


def test_policies_travel_with_the_graph() -> None:
    for made in (policy.block(), policy.latest(), coalesce(operator.add)):
        assert pickle.loads(pickle.dumps(made)) == made
