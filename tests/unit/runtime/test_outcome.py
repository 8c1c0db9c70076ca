"""A result is numbers, or the trial has failed and says so."""

import json
import math

import pytest

from dms_bench.errors import TrialFailure, UserError
from dms_bench.runtime.run import check
from dms_bench.trial import run as trial_module
from dms_bench.trial.outcome import require_numbers, result_of
from dms_bench.trial.run import pretrain_supernet, run_trial
from dms_bench.trial.storage import WorkFolder


def test_numbers_pass_and_what_was_not_measured_is_left_out():
    require_numbers({"top1": 0.0, "latency": None}, "on the test split")


@pytest.mark.parametrize(("split", "value"), [("val", math.nan), ("test", math.inf)])
def test_what_is_not_a_number_is_a_failure_that_names_it(toy_trial, folder, group, monkeypatch, split, value):
    toy = toy_trial().task.load_implementation()
    evaluate = toy.evaluate

    def measured(self, model, asked, device):
        number = evaluate(self, model, asked, device)["accuracy"]
        retrained = (folder.path / "retrain" / "done.json").exists()
        return {"accuracy": value if retrained and asked == split else number}

    monkeypatch.setattr(toy, "evaluate", measured)
    where = {"val": "validation", "test": "test"}[split]
    with pytest.raises(TrialFailure, match=f"^evaluation: accuracy is {value} on the {where} split$"):
        run_trial(toy_trial(pretrain=None), folder, group)
    assert not folder.result.exists()


def test_a_latency_that_is_no_number_is_a_failure(toy_trial, folder, group, monkeypatch):
    monkeypatch.setattr(trial_module, "latencies", lambda *_: [1.0, math.nan])
    with pytest.raises(TrialFailure, match=r"^evaluation: the supernet's latency is nan on cpu$"):
        run_trial(toy_trial(pretrain=None), folder, group)


def test_a_result_of_nothing_is_none_and_is_written_anew(toy_trial, folder, group):
    """Versions before wrote `null` for NaN, and read it with a traceback for ever."""
    result = run_trial(toy_trial(pretrain=None), folder, group)
    assert result_of(folder) == result
    folder.result.write_text(json.dumps(json.loads(folder.result.read_text()) | {"value": None}))
    assert result_of(folder) is None
    assert run_trial(toy_trial(pretrain=None), folder, group).value == result.value
    assert result_of(folder) is not None
    folder.result.unlink()
    assert result_of(folder) is None


@pytest.mark.parametrize("stage", ["pretrain", "retrain"])
def test_an_epoch_without_what_trials_are_compared_by_is_a_failure(
    toy_trial, folder, group, tmp_path, monkeypatch, stage
):
    trial = toy_trial(pipeline="DMSp" if stage == "pretrain" else "DMSnp")
    monkeypatch.setattr(type(trial.task), "metric", "recall")
    message = (
        f"^{stage}, epoch 1: task 'toy' must give 'val_recall' to loop.epoch_done, as its metric is 'recall'; "
        "it gave 'train_loss', 'val_accuracy'$"
    )
    with pytest.raises(TrialFailure, match=message):  # noqa: PT012 - the supernet comes first, where there is one
        if stage == "pretrain":
            pretrain_supernet(trial, WorkFolder(tmp_path / "supernet"), group)
        run_trial(trial, folder, group)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("sleb", "method 'sleb' drops blocks, and of this supernet's at most one may go"),
        ("llm_pruner", "method 'llm_pruner' leaves the first 1 and the last 1 blocks alone, and of 2 none is left"),
    ],
)
def test_a_method_that_cannot_search_the_space_is_refused_before_anything_runs(toy_trial, method, reason):
    with pytest.raises(UserError, match=f"^experiment '.*': {reason}"):
        check([toy_trial(), toy_trial(method=method)])


def test_a_trial_by_itself_refuses_such_a_space_before_its_search(toy_trial, folder, group):
    with pytest.raises(UserError, match=r"^method 'sleb' drops blocks"):
        run_trial(toy_trial(method="sleb", pretrain=None), folder, group)
    assert not (folder.path / "search").exists()


def test_what_fits_no_name_of_the_space_and_widths_that_are_not_there_are_refused(toy_trial):
    supernet = {"model": "mlp", "space": {"exclude": ["2", "nope*"]}}
    with pytest.raises(UserError, match=r"^experiment 'toy': supernet.space.exclude: 'nope\*' fits no group"):
        check([toy_trial(supernet=supernet)])
    narrow = {"model": "mlp", "space": {"width": False}}
    bare = toy_trial(method="uniform", supernet=narrow, budget={"kind": "macs", "target": "100%"})
    with pytest.raises(UserError, match=r"^experiment 'toy': method 'uniform' cuts widths, and this space has none"):
        check([bare])


def test_a_task_that_lacks_a_function_is_refused_before_anything_runs(toy_trial, monkeypatch):
    monkeypatch.delattr(toy_trial().task.load_implementation(), "recalibrate")
    with pytest.raises(
        UserError, match=r"^experiment '.*': task 'toy': its class toy_task\.Toy lacks recalibrate\(\)$"
    ):
        check([toy_trial()])


def test_a_network_that_no_budget_is_asked_of_is_built_before_anything_runs(toy_trial):
    with pytest.raises(UserError, match=r"unknown model 'mpl'; did you mean 'mlp'\?"):
        check([toy_trial(method="supernet", supernet={"model": "mpl"})])
