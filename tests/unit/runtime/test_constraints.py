"""Trials with a latency budget and with two constraints."""

import pytest

from dms_bench.errors import TrialFailure, UserError
from dms_bench.scaling import Budget, Constraint, LatencyModel
from dms_bench.scaling.latency.model import Fidelity, LatencyTerm
from dms_bench.tasks import make_task
from dms_bench.trial import latency_model
from dms_bench.trial.budget import check_counted, missed
from dms_bench.trial.latency_model import shared_latency_model
from dms_bench.trial.run import run_trial
from dms_bench.trial.spaces import space_of
from dms_bench.trial.storage import WorkFolder

TOY = {"kind": "toy", "width": 64}
LATENCY = {"kind": "latency", "target": "60%"}


@pytest.fixture
def measured(monkeypatch):
    """Count measurements, and let each take 1 ms plus 1 ms times both kept ratios."""
    calls = []

    def measure(model, space, example, device):
        calls.append(tuple(example.shape))
        sizes = space._group_sizes()
        return LatencyModel([LatencyTerm(1.0), LatencyTerm(1.0, (0, 1))], sizes, Fidelity(0.9, 0.05, (1.0,), (1.0,)))

    monkeypatch.setattr(latency_model, "measure_latency", measure)
    return calls


@pytest.mark.parametrize("method", ["dms", "uniform"])
def test_a_latency_budget_is_met_by_prediction_and_measured_once(toy_trial, group, tmp_path, measured, method):
    for seed in (0, 1):
        trial = toy_trial(task=TOY, method=method, budget=LATENCY, seed=seed)
        result = run_trial(trial, WorkFolder(tmp_path / str(seed)), group, latency=tmp_path / "latency")
        assert result.targets == {"latency": pytest.approx(1.2)}
        assert result.latency_predicted_ms == pytest.approx(1.2, rel=0.01)
        assert (result.latency_error, result.latency_r2) == (0.05, 0.9)
        assert not result.budget_missed
    assert measured == [(1, 8)]


def test_whatever_the_latency_depends_on_is_measured_by_itself(toy_trial, group, tmp_path, measured, monkeypatch):
    def ask(**fields):
        trial = toy_trial(**{"task": TOY, "budget": LATENCY, **fields})
        shared_latency_model(trial, make_task(trial.task, 0), space_of(trial.task, trial.supernet), group, tmp_path)
        return len(measured)

    assert [ask(), ask(seed=1), ask(method="uniform")] == [1, 1, 1]
    assert ask(pipeline="DMSp", supernet={"model": "mlp", "pretrained": True}) == 1
    assert ask(task={"kind": "toy", "width": 32}) == 2
    assert ask(supernet={"model": "mlp", "args": {"width": 32}}) == 3
    assert ask(resources={"cpus": 2}) == 4
    monkeypatch.setattr("dms_bench.trial.group.cpu_name", lambda: "another machine")
    assert ask() == 5


def test_a_latency_is_measured_on_the_real_clock(toy_trial, group, folder):
    wide = {"kind": "toy", "width": 1024}  # of which the layers take longer than calling them
    result = run_trial(
        toy_trial(task=wide, method="uniform", budget={"kind": "latency", "target": "99%"}), folder, group
    )
    (target,) = result.targets.values()
    assert 0.5 * target < result.latency_predicted_ms <= 1.01 * target
    again = 0.99 * result.supernet_latency_ms
    assert again / 4 < target < 4 * again  # two measurements of one network, perhaps beside other work
    assert 0 < result.latency_error < 1


def test_two_constraints_hold_together(toy_trial, group, folder):
    budget = {"kind": "all", "of": [{"kind": "macs", "target": "50%"}, {"kind": "params", "target": "30%"}]}
    result = run_trial(toy_trial(task=TOY, method="dms", budget=budget), folder, group)
    assert result.params / result.targets["params"] == pytest.approx(1, abs=0.01)
    assert result.macs < result.targets["macs"]
    assert not result.budget_missed


def test_a_budget_is_missed_by_the_constraint_that_binds_most():
    budget = Budget((Constraint("macs", None, 100.0, 200.0), Constraint("latency", None, 2.0, 4.0)))
    assert not missed({"macs": 100.0, "latency": 1.0}, budget)
    assert not missed({"macs": 10.0, "latency": 2.01}, budget)
    assert not missed({"macs": 99.5, "latency": 1.0}, budget)
    assert missed({"macs": 100.0, "latency": 2.03}, budget)
    assert missed({"macs": 98.5, "latency": 1.9}, budget)


def test_a_latency_out_of_reach_is_refused_where_it_is_known(toy_trial, folder, group, measured):
    trial = toy_trial(task=TOY, budget={"kind": "latency", "target": "0.5ms"})
    check_counted(trial, space_of(trial.task, trial.supernet))
    with pytest.raises(UserError, match=r"latency 0.5ms is out of reach for mlp: .* 1 to 2 ms latency"):
        run_trial(trial, folder, group)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_model_is_named(toy_trial, folder, group, tmp_path, measured, text):
    trial = toy_trial(task=TOY, budget=LATENCY, method="uniform")
    run_trial(trial, folder, group, latency=tmp_path / "latency")
    (path,) = (tmp_path / "latency").glob("*.json")
    path.write_text(text)
    with pytest.raises(TrialFailure, match="is damaged; delete it"):
        run_trial(trial, WorkFolder(tmp_path / "other"), group, latency=tmp_path / "latency")
