"""Pretraining with shared weights, and what searches by them: through a whole trial."""

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from dms_bench.tracking.content import cost_metrics
from dms_bench.trial import run as trial_module
from dms_bench.trial.run import pretrain_supernet, run_trial
from dms_bench.trial.stage_loop import StageLoop
from dms_bench.trial.storage import WorkFolder
from dms_bench.trial.weight_sharing import PathSampling
from dms_bench.trial.work import supernet_hash

SHARING = {"model": "mlp", "weight_sharing": True}
SHARED = {"kind": "random_search", "score": "shared", "candidates": 6}


def _pretrained(trial, folder, group):
    pretrain_supernet(trial, folder, group)
    return load_file(folder.path / "pretrain" / "weights.safetensors")


def test_sharing_trains_other_weights_and_the_draws_are_the_seeds(toy_trial, group, tmp_path):
    def weights(name, **fields):
        return _pretrained(toy_trial(pipeline="DMSp", **fields), WorkFolder(tmp_path / name), group)

    first, again = weights("first", supernet=SHARING), weights("again", supernet=SHARING)
    assert first.keys() == weights("whole").keys()  # a plain network's, without a trace of the wrapper
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["2.weight"], weights("whole")["2.weight"])


def test_an_interrupted_sharing_goes_on_to_the_bit(toy_trial, group, tmp_path, monkeypatch):
    trial = toy_trial(pipeline="DMSp", supernet=SHARING, pretrain={"epochs": 4})
    expected = _pretrained(trial, WorkFolder(tmp_path / "undisturbed"), group)

    class Interrupted(BaseException):
        pass

    done = StageLoop.epoch_done

    def dies(self, epoch, metrics, state):
        done(self, epoch, metrics, state)
        if epoch == 2:
            raise Interrupted

    folder = WorkFolder(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, "epoch_done", dies)
        with pytest.raises(Interrupted):
            _pretrained(trial, folder, group)
    found = _pretrained(trial, folder, group)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_trials_share_the_training_unless_they_share_weights_differently(toy_trial):
    whole, sharing = (toy_trial(pipeline="DMSp", supernet=s) for s in ({"model": "mlp"}, SHARING))
    assert supernet_hash(whole) != supernet_hash(sharing)
    assert supernet_hash(sharing) == supernet_hash(toy_trial(pipeline="DMSp", supernet=SHARING, method="uniform"))
    # Without pretraining nothing is shared, and it is one trial.
    assert toy_trial(supernet=SHARING).hash == toy_trial().hash


@pytest.mark.parametrize("score", ["shared", "predictor"])
def test_scores_of_weights_need_trained_ones(toy_trial, score):
    with pytest.raises(
        ValidationError, match="is asked to measure the supernet's weights, which pipeline 'DMSnp' leaves"
    ):
        toy_trial(method={"kind": "evolution", "score": score})
    toy_trial(method={"kind": "evolution", "score": score}, pipeline="DMSp-")


@pytest.mark.parametrize("pipeline", ["DMSp", "DMSp-"])
def test_a_search_by_shared_weights_keeps_leading_elements_and_is_metered(
    toy_trial, folder, group, tmp_path, pipeline, monkeypatch
):
    trial = toy_trial(pipeline=pipeline, supernet=SHARING, method=SHARED, task={"kind": "toy", "width": 64})
    task_class = trial.task.load_implementation()
    splits, evaluate = [], task_class.evaluate

    def watched(self, model, split, device):
        splits.append(split)
        return evaluate(self, model, split, device)

    supernet = WorkFolder(tmp_path / "supernet")
    pretrain_supernet(trial, supernet, group)
    monkeypatch.setattr(task_class, "evaluate", watched)
    result = run_trial(trial, folder, group, supernet=supernet)
    assert not result.budget_missed
    assert splits[:6] == ["val"] * 6
    assert splits.count("test") == 1
    assert splits[-1] == "test"
    kept = trial_module.Architecture.from_json((folder.path / "search" / "architecture.json").read_text())
    assert all(indices == tuple(range(len(indices))) for indices in kept.groups.values())
    costs = {cost.stage: cost for cost in result.costs}
    assert costs["pretrain"].seconds > 0
    assert costs["search"].seconds > 0
    assert "predictor" not in costs


def test_the_predictor_is_a_public_stage_and_its_correlation_a_metric(toy_trial, folder, group, tmp_path):
    method = {"kind": "evolution", "score": "predictor", "candidates": 6, "samples": 20}
    trial = toy_trial(pipeline="DMSp", supernet=SHARING, method=method, pretrain={"epochs": 9})
    supernet = WorkFolder(tmp_path / "supernet")
    pretrain_supernet(trial, supernet, group)
    logged = []
    result = run_trial(trial, folder, group, supernet=supernet, log=lambda *epoch: logged.append(epoch))
    ((stage, epoch, metrics),) = [entry for entry in logged if entry[0] == "search"]
    assert (stage, epoch, metrics["predictor_samples"]) == ("search", 1, 20)
    assert -1 <= metrics["predictor_kendall"] <= 1
    costs = {cost.stage: cost.device_days for cost in result.costs}
    assert costs["predictor"] > 0
    published = cost_metrics(result.costs)
    assert published["public_device_days"] == pytest.approx(costs["pretrain"] + costs["predictor"])
    assert published["search_device_days"] == costs["search"]
    assert published["cost/predictor_device_days"] == costs["predictor"]


def test_the_hook_adds_nothing_to_the_loss():
    class Updates:
        count = 0

        def update(self):
            self.count += 1

    supernet = Updates()
    hook = PathSampling(supernet)
    hook.begin_step(0.5)
    assert supernet.count == 0
    assert float(hook.loss()) == 0
    hook.end_step()
    assert supernet.count == 1
    assert hook.trains_weights
    assert hook.metrics() == hook.state_dict() == {}
