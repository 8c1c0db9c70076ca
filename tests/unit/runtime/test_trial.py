"""One trial from its specification to its result, interrupted or not, in this process."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dms_bench.config import Resources
from dms_bench.errors import TrialFailure, UserError
from dms_bench.scaling import count
from dms_bench.trial.group import alone
from dms_bench.trial.record import load
from dms_bench.trial.run import pretrain_supernet, run_trial
from dms_bench.trial.stage_loop import StageLoop
from dms_bench.trial.storage import WorkFolder


class Interrupted(BaseException):
    """Stands for the death of the process."""


class Journal:
    """What was published, and an end to the process at a place of one's choice."""

    def __init__(self, ends_after=None):
        self.epochs, self.ends_after = [], ends_after

    def __call__(self, stage, epoch, metrics):
        self.epochs.append((stage, epoch))
        if (stage, epoch) == self.ends_after:
            raise Interrupted


def _weights(folder):
    stage = "retrain" if (folder.path / "retrain").exists() else "recalibrate"
    return load_file(folder.path / stage / "weights.safetensors")


def _run(trial, folder, group, tmp_path, log=None):
    supernet = WorkFolder(tmp_path / "supernet") if trial.pretrain else None
    if supernet:
        pretrain_supernet(trial, supernet, group)
    return run_trial(trial, folder, group, supernet=supernet, log=log)


def test_a_result_holds_what_the_leaderboard_needs(toy_trial, folder, group, tmp_path):
    journal = Journal()
    result = _run(toy_trial(), folder, group, tmp_path, journal)
    assert journal.epochs == [("search", 1), ("search", 2), ("search", 3)] + [("retrain", e) for e in (1, 2, 3, 4)]
    assert result.metric == "accuracy"
    assert result.value == result.metrics["accuracy"]
    assert result.validation == folder.stage("retrain").history()[-1]["val_accuracy"]
    assert result.validation != result.value
    assert result.supernet_macs == 8 * 12 + 12 * 12 + 12 * 4
    assert result.targets["macs"] == result.supernet_macs / 2
    assert result.macs == 8 * 6 + 6 * 6 + 6 * 4
    assert result.budget_missed  # half of every group is less than half of the MACs
    assert result.latency_ms > 0
    assert result.supernet_latency_ms > 0
    assert [cost.stage for cost in result.costs] == ["build", "search", "retrain", "evaluate"]
    assert {cost.kind for cost in result.costs} == {"cpu"}
    assert json.loads(folder.result.read_text())["value"] == result.value


@pytest.mark.parametrize(
    ("pipeline", "place"),
    [
        ("DMSnp", ("search", 1)),
        ("DMSnp", ("retrain", 2)),
        ("DMSnp", ("retrain", 4)),
        ("DMSp", ("search", 3)),
        ("DMSp", ("retrain", 1)),
        ("DMSp-", ("search", 2)),
        ("DMSp-", ("recalibrate", 1)),
    ],
)
def test_an_interrupted_trial_ends_like_an_undisturbed_one(toy_trial, folder, group, tmp_path, pipeline, place):
    trial = toy_trial(pipeline=pipeline)
    expected = _run(trial, WorkFolder(tmp_path / "undisturbed"), group, tmp_path)
    with pytest.raises(Interrupted):
        _run(trial, folder, group, tmp_path, Journal(ends_after=place))
    journal = Journal()
    result = _run(trial, folder, group, tmp_path, journal)
    # Every epoch is published, those of the first attempt again, none twice.
    undisturbed = [("search", e) for e in (1, 2, 3)]
    undisturbed += [("recalibrate", 1)] if pipeline == "DMSp-" else [("retrain", e) for e in (1, 2, 3, 4)]
    assert journal.epochs == undisturbed
    assert (result.value, result.macs) == (expected.value, expected.macs)
    first, second = _weights(WorkFolder(tmp_path / "undisturbed")), _weights(folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert max(cost.attempts for cost in result.costs) == 2


def test_a_trial_that_is_run_again_trains_nothing(toy_trial, folder, group, tmp_path, monkeypatch):
    trial = toy_trial(pipeline="DMSp")
    expected = _run(trial, folder, group, tmp_path)
    task_class = trial.task.load_implementation()
    monkeypatch.setattr(task_class, "fit", lambda *_: pytest.fail("trained again"))
    assert _run(trial, folder, group, tmp_path).value == expected.value


def test_a_supernet_is_trained_once_and_its_cost_is_in_every_result(toy_trial, group, tmp_path):
    results = [
        _run(toy_trial(pipeline="DMSp", method=method), WorkFolder(tmp_path / method), group, tmp_path)
        for method in ("half", "uniform")
    ]
    shared = [[cost for cost in result.costs if cost.stage == "pretrain"] for result in results]
    assert shared[0] == shared[1]
    assert len(shared[0]) == 1
    assert shared[0][0].attempts == 1


def test_pipelines_start_the_retraining_from_where_they_say(toy_trial, group, tmp_path, monkeypatch):
    """DMSnp retrains fresh weights, DMSp the searched ones, DMSp- none."""
    task_class = toy_trial().task.load_implementation()
    fit, starts = task_class.fit, {}

    def spy(self, model, recipe, loop, structure=None):
        starts[loop._stage.name] = {name: value.clone() for name, value in model.state_dict().items()}
        return fit(self, model, recipe, loop, structure)

    monkeypatch.setattr(task_class, "fit", spy)
    for pipeline in ("DMSnp", "DMSp", "DMSp-"):
        starts.clear()
        folder = WorkFolder(tmp_path / pipeline)
        _run(toy_trial(pipeline=pipeline), folder, group, tmp_path)
        searched = folder.path / "search" / "weights.safetensors"
        if pipeline == "DMSnp":
            assert not searched.exists()
            bound = 1 / starts["retrain"]["2.weight"].shape[1] ** 0.5  # nn.Linear's own, at the cut width
            largest = starts["retrain"]["2.weight"].abs().max()
            assert 0.8 * bound < largest <= bound
        elif pipeline == "DMSp":
            expected = load_file(searched)
            assert all(torch.equal(expected[name], value) for name, value in starts["retrain"].items())
        else:
            assert "retrain" not in starts
            expected = load_file(searched)
            assert all(torch.equal(expected[name], value) for name, value in _weights(folder).items())


@pytest.mark.parametrize("method", ["dms", "uniform", "random", "supernet"])
def test_every_method_meets_the_budget_and_can_be_built_again(toy_trial, folder, group, tmp_path, method):
    trial = toy_trial(task={"kind": "toy", "width": 64}, method=method)
    result = _run(trial, folder, group, tmp_path)
    assert not result.budget_missed
    if method == "supernet":
        assert result.macs == result.supernet_macs
    else:
        assert abs(result.macs / result.targets["macs"] - 1) <= 0.01
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "architecture.json").write_bytes((folder.path / "architecture.json").read_bytes())
    (exported / "weights.safetensors").write_bytes((folder.path / "retrain" / "weights.safetensors").read_bytes())
    model = load(exported)
    assert count(model, torch.ones(1, 8)).macs == result.macs
    task = trial.task.load_implementation()(trial.task, 0)
    assert task.evaluate(model, "test", torch.device("cpu"))["accuracy"] == result.value


def test_same_seed_same_result_other_seed_other_result(toy_trial, group, tmp_path):
    values = [
        _weights_after(toy_trial(seed=seed), WorkFolder(tmp_path / str(number)), group, tmp_path)
        for number, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def _weights_after(trial, folder, group, tmp_path):
    _run(trial, folder, group, tmp_path)
    return _weights(folder)["0.weight"]


@pytest.mark.parametrize(("target", "reason"), [("1%", "out of reach"), (100_000, "out of reach")])
def test_a_budget_out_of_reach_is_refused_with_the_range(toy_trial, folder, group, tmp_path, target, reason):
    with pytest.raises(UserError, match=f"{reason} for mlp: its architectures have .* to .* macs") as error:
        _run(toy_trial(budget={"kind": "macs", "target": target}), folder, group, tmp_path)
    assert "\n" not in str(error.value)
    assert not (folder.path / "search").exists()


def test_a_failure_names_stage_and_epoch_and_is_charged(toy_trial, folder, group, tmp_path):
    with pytest.raises(TrialFailure, match="retrain, epoch 2"):
        _run(toy_trial(retrain={"epochs": 4, "fails_in": 2}), folder, group, tmp_path)
    assert not folder.result.exists()


def test_a_damaged_checkpoint_falls_back_and_two_are_a_failure(toy_trial, folder, group, tmp_path):
    expected = _run(toy_trial(), WorkFolder(tmp_path / "undisturbed"), group, tmp_path)
    with pytest.raises(Interrupted):
        _run(toy_trial(), folder, group, tmp_path, Journal(ends_after=("retrain", 3)))
    files = sorted((folder.path / "retrain").glob("checkpoint-*"))
    assert len(files) == 2
    files[1].write_bytes(b"damaged")
    assert _run(toy_trial(), folder, group, tmp_path).value == expected.value

    other = WorkFolder(tmp_path / "other")
    with pytest.raises(Interrupted):
        _run(toy_trial(), other, group, tmp_path, Journal(ends_after=("retrain", 3)))
    for path in (other.path / "retrain").glob("checkpoint-*"):
        path.write_bytes(b"damaged")
    with pytest.raises(TrialFailure, match=r"damaged checkpoint: .*retrain/checkpoint-00003"):
        _run(toy_trial(), other, group, tmp_path)


def test_a_fresh_process_is_set_to_the_trials_threads():
    alone(Resources(cpus=2))
    assert torch.get_num_threads() == 2
    alone(Resources())
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("pipeline", ["DMSnp", "DMSp"])
@pytest.mark.parametrize("calls", [2, 4, 6])
def test_halving_goes_on_where_it_was(toy_trial, folder, group, tmp_path, monkeypatch, pipeline, calls):
    """Killed in a proposal's search, in the first round of the choice, or in the second: the end is the same."""
    method = {"kind": "halving", "proposals": ["dms", "uniform", "random"], "eta": 2}
    trial = toy_trial(pipeline=pipeline, method=method)
    expected = _run(trial, WorkFolder(tmp_path / "undisturbed"), group, tmp_path)
    done, real = [], StageLoop.epoch_done

    def dies(self, epoch, metrics, state):
        real(self, epoch, metrics, state)
        done.append(epoch)
        if len(done) == calls and "search" in str(self.folder):
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, "epoch_done", dies)
        with pytest.raises(Interrupted):
            _run(trial, folder, group, tmp_path)
    result = _run(trial, folder, group, tmp_path)
    assert result.value == expected.value
    undisturbed = _weights(WorkFolder(tmp_path / "undisturbed"))
    assert all(torch.equal(weight, undisturbed[name]) for name, weight in _weights(folder).items())
    assert not list(folder.path.rglob("checkpoint-*.pt"))
    assert any(name.startswith("after_1/") for name in folder.stage("search").history()[0])
