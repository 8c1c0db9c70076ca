"""Budgets as they are written."""

import pytest
from pydantic import TypeAdapter, ValidationError

from dms_bench.config.budget import (
    BudgetSpec,
    JointBudget,
    LatencyBudget,
    bound_the_same,
    constraints_of,
    latency_of,
)

READ = TypeAdapter(BudgetSpec).validate_python
MACS, PARAMS = {"kind": "macs", "target": "30%"}, {"kind": "params", "target": "4M"}


@pytest.mark.parametrize(
    ("written", "kept", "share", "seconds"),
    [
        ("60%", "60%", 0.6, None),
        (0.6, "60%", 0.6, None),
        ("0.6", "60%", 0.6, None),
        ("3ms", "3ms", None, 0.003),
        ("3000us", "3ms", None, 0.003),
        ("0.5 ms", "0.5ms", None, 0.0005),
        ("2s", "2000ms", None, 2.0),
    ],
)
def test_a_latency_is_a_share_or_a_duration_and_hashes_by_its_value(written, kept, share, seconds):
    budget = LatencyBudget(target=written)
    assert budget.target == kept
    assert (budget.share, budget.seconds) == (share, pytest.approx(seconds))
    assert budget.label() == f"latency {kept}"
    assert budget.content_hash() == LatencyBudget(target=kept).content_hash()


def test_a_latency_is_that_of_a_runtime_and_of_pytorch_where_none_is_named():
    eager, named = LatencyBudget(target="60%"), LatencyBudget(target="60%", runtime="onnxruntime")
    assert READ({"kind": "latency", "target": "60%", "runtime": "eager"}) == eager
    assert eager.model_dump() == {"kind": "latency", "target": "60%"}  # as before there was a choice: hashes stay
    assert named.content_hash() != eager.content_hash()
    assert named.label() == "latency 60% onnxruntime"
    assert READ({"kind": "all", "of": [MACS, named.model_dump()]}).label() == "macs 30% + latency 60% onnxruntime"
    assert latency_of(READ({"kind": "all", "of": [MACS, named.model_dump()]})) == named
    assert latency_of(READ(MACS)) is None
    assert bound_the_same([named, LatencyBudget(target="3ms", runtime="onnxruntime")])
    assert not bound_the_same([named, eager])
    with pytest.raises(ValidationError, match="'eager', 'onnxruntime' or 'openvino'"):
        LatencyBudget(target="60%", runtime="tflite")


@pytest.mark.parametrize("written", [3, "3", "0ms", "101%", "fast", True, None, "3 lightyears"])
def test_what_is_no_latency_is_refused(written):
    with pytest.raises(ValidationError):
        LatencyBudget(target=written)


def test_a_joint_budget_holds_its_constraints_in_one_order():
    latency = {"kind": "latency", "target": "60%"}
    one, other = READ({"kind": "all", "of": [latency, MACS]}), READ({"kind": "all", "of": [MACS, latency]})
    assert isinstance(one, JointBudget)
    assert one.label() == "macs 30% + latency 60%"
    assert one.content_hash() == other.content_hash()
    assert [constraint.kind for constraint in constraints_of(one)] == ["macs", "latency"]
    assert [constraint.kind for constraint in constraints_of(READ(MACS))] == ["macs"]


@pytest.mark.parametrize(
    ("of", "text"),
    [([MACS, MACS, PARAMS], "'macs' occurs 2 times; at most one"), ([MACS], "at least two"), ([], "at least two")],
)
def test_a_joint_budget_needs_constraints_of_several_kinds(of, text):
    with pytest.raises(ValidationError, match=text):
        READ({"kind": "all", "of": of})
