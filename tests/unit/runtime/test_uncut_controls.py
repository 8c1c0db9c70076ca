"""Networks that are not cut: on smaller pictures that cost as little, and trained for longer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from dms_bench.config import Trial, parse_suite
from dms_bench.errors import UserError
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.pictures import smaller_pictures
from dms_bench.trial.plan import plan
from dms_bench.trial.preflight import Preflight
from dms_bench.trial.record import load
from dms_bench.trial.run import pretrain_supernet, run_trial
from dms_bench.trial.storage import WorkFolder

CHANNELS = [8, 8, 8, 8]


def trial_of(**fields: Any) -> Trial:
    recipe = {"epochs": 1, "batch_size": 32, "lr": 0.1}
    content = {
        "experiment": "small",
        "task": {"kind": "classification", "data": {"name": "glyphs", "train": 64, "val": 32, "test": 32}},
        "supernet": {"model": "resnet18", "args": {"channels": CHANNELS}},
        "budget": {"kind": "macs", "target": "30%"},
        "method": "resolution",
        "pretrain": recipe,
        "search": {**recipe, "epochs": 2},
        "retrain": recipe,
    }
    return Trial.model_validate(content | fields).canonical()


def macs(model: str, size: int, **arguments: Any) -> float:
    """Count what torch's own counter counts: two operations for each multiply-accumulate."""
    network = timm.create_model(model, num_classes=20, in_chans=1, **arguments).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, size, size))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3, 0.15])
def test_the_pictures_are_the_largest_that_meet_the_budget(share: float) -> None:
    task = smaller_pictures(trial_of(budget={"kind": "macs", "target": share}))
    size = getattr(task, "image_size")  # noqa: B009
    cost = {pixels: macs("resnet18", pixels, channels=CHANNELS) for pixels in range(size, 33)}
    assert cost[size] <= share * cost[32]
    assert all(cost[larger] > share * cost[32] for larger in cost if larger > size)


def test_a_plan_counts_the_pictures_that_are_trained_on() -> None:
    content = trial_of().model_dump(mode="json", exclude_unset=True) | {"sweep": {"grid": {"method": ["resolution"]}}}
    experiment = {
        key: value for key, value in content.items() if key not in ("experiment", "method", "seed", "pretrain")
    }
    (planned,) = plan(parse_suite({"name": "small", "experiments": [experiment | {"name": "small"}]}))
    (stage,) = planned.stages
    size = getattr(smaller_pictures(trial_of()), "image_size")  # noqa: B009
    assert stage.macs == pytest.approx(macs("resnet18", size, channels=CHANNELS), rel=0.01)


def test_a_count_is_met_as_a_share_is() -> None:
    whole = macs("resnet18", 32, channels=CHANNELS)
    counted = smaller_pictures(trial_of(budget={"kind": "macs", "target": round(0.4 * whole)}))
    shared = smaller_pictures(trial_of(budget={"kind": "macs", "target": "40%"}))
    assert counted == shared != trial_of().task


@pytest.mark.parametrize("pipeline", ["DMSnp", "DMSp", "DMSp-"])
def test_the_network_is_trained_and_measured_on_them_and_left_whole(
    pipeline: str, tmp_path: Path, group: WorkerGroup
) -> None:
    trial = trial_of(pipeline=pipeline)
    folder, supernet = WorkFolder(tmp_path / "trial"), WorkFolder(tmp_path / "supernet")
    if trial.needs_pretrained:
        pretrain_supernet(trial, supernet, group)
    result = run_trial(trial, folder, group, supernet=supernet if trial.needs_pretrained else None)
    assert result is not None
    described = json.loads((folder.path / "architecture.json").read_text())
    size = described["task"]["image_size"]
    assert result.macs == pytest.approx(macs("resnet18", size, channels=CHANNELS), rel=0.01)
    assert result.supernet_macs == pytest.approx(macs("resnet18", 32, channels=CHANNELS), rel=0.01)
    assert result.params == result.supernet_params
    assert not result.budget_missed
    assert described["trial"] == trial.hash
    stage = "recalibrate" if pipeline == "DMSp-" else "retrain"
    (tmp_path / "taken").mkdir()
    for path in (folder.path / "architecture.json", folder.path / stage / "weights.safetensors"):
        (tmp_path / "taken" / path.name).write_bytes(path.read_bytes())
    network = load(tmp_path / "taken")
    # What it was measured on are the smaller pictures: on them, and not on the whole ones, its measure comes out again.
    task = smaller_pictures(trial)
    again = task.load_implementation()(task, trial.seed).evaluate(network, "test", torch.device("cpu"))
    assert again["top1"] == result.value


def test_longer_trains_for_both(tmp_path: Path, group: WorkerGroup) -> None:
    longer, plain = trial_of(method="longer", pipeline="DMSp"), trial_of(method="supernet", pipeline="DMSp")
    assert longer.retraining is not None
    assert plain.retraining is not None
    assert (longer.retraining.epochs, plain.retraining.epochs) == (3, 1)
    assert longer.hash != plain.hash
    assert longer.canonical().hash == longer.hash
    supernet, epochs = WorkFolder(tmp_path / "supernet"), []

    def log(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        epochs.append((stage, epoch))

    pretrain_supernet(longer, supernet, group)
    result = run_trial(longer, WorkFolder(tmp_path / "trial"), group, supernet=supernet, log=log)
    assert result is not None
    assert result.macs == result.supernet_macs
    assert not result.budget_missed
    assert epochs == [("retrain", 1), ("retrain", 2), ("retrain", 3)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"budget": {"kind": "params", "target": "30%"}}, "bound macs instead of params 30%"),
        ({"budget": {"kind": "latency", "target": "30%"}}, "bound macs instead of latency 30%"),
        ({"method": "longer", "search": None}, "method 'longer' also trains for a search's epochs: give a 'search'"),
        (
            {"method": "longer", "search": {"epochs": 1, "lr": 0.1, "epoch_steps": 3}},
            "adds the epochs of 'search' to those of 'retrain', which are of another length",
        ),
        ({"method": "longer", "pipeline": "DMSp-"}, "pipeline 'DMSp-' retrains nothing, which method 'longer' does"),
        (
            {"method": {"kind": "halving", "proposals": ["uniform", "resolution"]}, "pipeline": "DMSp"},
            "'resolution' proposes no architecture of the space",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        trial_of(**fields)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"budget": {"kind": "macs", "target": 10}}, "runs on no pictures that are small enough for macs 10"),
        (
            {"supernet": {"model": "test_vit", "args": {"patch_size": 4}}, "pipeline": "DMSp"},
            "depend on the size of pictures, so that those of 32 px cannot go on with smaller ones",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(fields: dict[str, Any], reason: str) -> None:
    preflight = Preflight()
    preflight.check_networks(trial_of(**fields))
    with pytest.raises(UserError, match=reason):
        preflight.refusals.check()


def test_a_network_whose_weights_are_new_may_depend_on_the_size() -> None:
    task = smaller_pictures(trial_of(supernet={"model": "test_vit", "args": {"patch_size": 4}}))
    size = getattr(task, "image_size")  # noqa: B009
    cost = {pixels: macs("test_vit", pixels, img_size=pixels, patch_size=4) for pixels in (size, size + 4, 32)}
    assert cost[size] <= 0.3 * cost[32] < cost[size + 4]
    assert size % 4 == 0, "patches leave out what does not fill them"
