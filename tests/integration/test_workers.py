"""More than one worker, through Ray Train; sampled sweeps with early stopping, through Ray Tune."""

import json

import pytest
import torch
from safetensors.torch import load_file


@pytest.mark.slow
def test_two_workers_train_together_and_survive_the_death_of_one(command):
    experiment = {
        "search": {"epochs": 2},
        "retrain": {"epochs": 3},
        "method": "dms",
        "task": {"kind": "toy", "width": 32},
    }
    command.write("pair", experiment | {"resources": {"workers": 2}})
    code, output = command.run("pair", TOY_KILL="retrain 2 1")
    assert code == 0, output
    (result,) = command.results("pair").values()
    assert {cost.devices for cost in result.costs} == {2.0}
    assert max(cost.attempts for cost in result.costs) == 2
    ((key, folder),) = command.trials("pair").items()
    pair = outcome(folder)
    # Both ranks trained every epoch; only the one under way when rank 1 died was trained again.
    epochs = command.entries()
    for epoch in {(key, "search", "1"), (key, "search", "2"), (key, "retrain", "1"), (key, "retrain", "3")}:
        assert epochs.count(epoch) == 2
    assert folder.failure() is None

    command.write("single", experiment)
    code, output = command.run("single")
    assert code == 0, output
    # Half of each batch on two workers is the whole batch on one: the same network, but for the order of sums.
    (single,) = map(outcome, command.trials("single").values())
    assert pair[0] == single[0]
    for name, weight in single[1].items():
        torch.testing.assert_close(pair[1][name], weight, rtol=1e-4, atol=1e-6)


def outcome(folder):
    """Return the searched architecture of a trial, and the weights that its retraining ended with."""
    (weights,) = folder.path.rglob("weights.safetensors")
    return json.loads((folder.path / "architecture.json").read_text()), load_file(weights)


@pytest.mark.slow
def test_a_group_that_fails_says_why(command):
    command.write("pair", {"resources": {"workers": 2}, "retrain": {"epochs": 3, "fails_in": 2}})
    code, output = command.run("pair")
    assert code == 1
    assert "retrain, epoch 2: the loss is inf" in output


def test_a_sampled_sweep_stops_bad_samples_early_and_is_not_run_twice(command):
    sample = {
        "algorithm": "optuna",
        "samples": 6,
        "space": {"retrain.lr": {"low": 0.0001, "high": 1.0, "log": True}},
        "scheduler": {"kind": "asha", "grace_epochs": 1, "reduction_factor": 3},
    }
    command.write("sampled", {"retrain": {"epochs": 9, "pause": 0.01}, "sweep": {"sample": sample}})
    code, output = command.run("sampled")
    assert code == 0, output
    folders = command.trials("sampled").values()
    stopped = [folder for folder in folders if folder.stopped() is not None]
    finished = [folder for folder in folders if folder.result.exists()]
    assert stopped
    assert finished
    assert len(stopped) + len(finished) == 6
    assert len(command.entries()) < 6 * (9 + 2)
    epochs = command.entries()
    code, output = command.run("sampled")
    assert code == 0
    assert "all 6 trials are finished already" in output
    assert command.entries() == epochs
