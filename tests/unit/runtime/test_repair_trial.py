"""The repair as a stage of a trial: where it stands, what it leaves, and that it never does harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from dms_bench.config import Resources, Trial
from dms_bench.methods.calibration import mean_loss
from dms_bench.scaling import count, cut
from dms_bench.scaling.repair.fit import Fit
from dms_bench.testing.workers import in_two_processes
from dms_bench.tracking.content import cost_metrics, trial_tags
from dms_bench.trial import repair as repair_module
from dms_bench.trial.group import WorkerGroup, alone, set_up_process
from dms_bench.trial.record import load
from dms_bench.trial.repair import BATCHES, repair
from dms_bench.trial.repair_report import RepairReport, read_report
from dms_bench.trial.run import pretrain_supernet, run_trial
from dms_bench.trial.storage import WorkFolder
from tests.unit.classification import classification_helpers
from tests.unit.detection import detection_helpers
from tests.unit.language import language_helpers

CPU = torch.device("cpu")


class Interrupted(BaseException):
    """Stands for the death of the process."""


@pytest.fixture
def repaired_trial(toy_trial: Any) -> Any:
    """Return a function that makes a trial whose supernet is trained, and then loses what matters to it."""

    def make(**fields: Any) -> Trial:
        trained = {"task": {"kind": "toy", "width": 24}, "pretrain": {"epochs": 10}, "method": "random"}
        budget = {"kind": "macs", "target": "60%"}
        return toy_trial(**{"pipeline": "DMSp-", "repair": "least_squares", "budget": budget, **trained, **fields})

    return make


def ran(trial: Trial, folder: WorkFolder, group: WorkerGroup, log: Any = None) -> Any:
    supernet = WorkFolder(folder.path.parent / f"supernet-{trial.method.kind}")
    pretrain_supernet(trial, supernet, group)
    return run_trial(trial, folder, group, supernet=supernet, log=log)


def weights(folder: WorkFolder, stage: str) -> dict[str, Tensor]:
    return load_file(folder.path / stage / "weights.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["bias", "least_squares"])
def test_a_repaired_network_is_what_is_evaluated_recorded_and_loaded(
    repaired_trial: Any, folder: WorkFolder, group: WorkerGroup, kind: str
) -> None:
    trial = repaired_trial(repair=kind)
    logged: list[tuple[str, int, dict[str, float]]] = []
    result = ran(trial, folder, group, lambda *record: logged.append(record))
    assert [cost.stage for cost in result.costs] == [
        "pretrain", "build", "search", "repair", "recalibrate", "evaluate",
    ]  # fmt: skip
    assert cost_metrics(result.costs)["cost/repair_device_days"] > 0
    report = RepairReport.model_validate(json.loads((folder.path / "architecture.json").read_text())["repair"])
    assert (report.kind, report.batches, report.used) == (kind, BATCHES, True)
    assert list(report.layers) == ["2", "4"]
    assert report.loss_after < report.loss_before
    assert ("repair", 1, report.metrics()) in logged
    unrepaired = weights(folder, "search")
    assert not same(weights(folder, "repair"), unrepaired)
    assert same(weights(folder, "repair"), weights(folder, "recalibrate"))
    if kind == "bias":
        assert torch.equal(weights(folder, "repair")["2.weight"], unrepaired["2.weight"])

    exported = folder.path / "recalibrate"
    (exported / "architecture.json").write_bytes((folder.path / "architecture.json").read_bytes())
    network = load(exported)
    task = trial.task.load_implementation()(trial.task, 0)
    assert mean_loss(task, network, BATCHES, CPU) == report.loss_after
    assert task.evaluate(network, "test", CPU)["accuracy"] == result.value
    assert count(network, torch.ones(1, 8)).params == result.params


def test_a_repair_by_least_squares_learns_something(repaired_trial: Any, group: WorkerGroup, tmp_path: Path) -> None:
    plain = ran(repaired_trial(repair="none"), WorkFolder(tmp_path / "plain"), group)
    better = ran(repaired_trial(), WorkFolder(tmp_path / "repaired"), group)
    assert better.macs == plain.macs
    assert better.validation > plain.validation + 0.02


def test_where_the_loss_rises_the_network_stays_as_it_was(
    repaired_trial: Any, group: WorkerGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ran(repaired_trial(repair="none"), WorkFolder(tmp_path / "plain"), group)

    def spoilt(network: Any, whole: Any, consumers: Any, *_: Any) -> Iterator[Fit]:
        for consumer in consumers:
            layer = network.get_submodule(consumer.name)
            layer.weight.data.neg_()
            yield Fit(consumer.name, 0.5, 0.1)

    monkeypatch.setattr(repair_module, "fits", spoilt)
    folder = WorkFolder(tmp_path / "spoilt")
    result = ran(repaired_trial(), folder, group)
    report = read_report(folder.stage("repair"))
    assert report.loss_after > report.loss_before
    assert not report.used
    assert same(weights(folder, "repair"), weights(folder, "search"))
    assert result.metrics == expected.metrics


def test_a_loss_that_is_no_number_is_no_progress(
    repaired_trial: Any, group: WorkerGroup, folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(network: Any, whole: Any, consumers: Any, *_: Any) -> Iterator[Fit]:
        for consumer in consumers:
            network.get_submodule(consumer.name).weight.data.fill_(float("nan"))
            yield Fit(consumer.name, 0.5, 0.1)

    monkeypatch.setattr(repair_module, "fits", broken)
    ran(repaired_trial(), folder, group)
    report = read_report(folder.stage("repair"))
    assert (report.loss_after, report.used) == (None, False)
    assert same(weights(folder, "repair"), weights(folder, "search"))


def test_a_bias_that_a_layer_was_given_goes_through_the_whole_trial(
    repaired_trial: Any, folder: WorkFolder, group: WorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_class = repaired_trial().task.load_implementation()
    build = task_class.build

    def without_bias(self: Any, supernet: Any) -> Any:
        model = build(self, supernet)
        model[2].bias = None
        return model

    monkeypatch.setattr(task_class, "build", without_bias)
    trial = repaired_trial(repair="bias", pipeline="DMSp", supernet={"model": "mlp", "args": {"width": 20}})
    result = ran(trial, folder, group)
    assert read_report(folder.stage("repair")).biases == ("2",)
    assert "2.bias" in weights(folder, "retrain")
    folder.result.unlink()  # a later attempt finds every stage finished
    assert ran(trial, folder, group).value == result.value
    exported = folder.path / "retrain"
    (exported / "architecture.json").write_bytes((folder.path / "architecture.json").read_bytes())
    network = load(exported)
    assert network[2].bias.abs().sum() > 0
    assert count(network, torch.ones(1, 8)).params == result.params
    task = task_class(trial.task, 0)
    assert task.evaluate(network, "test", CPU)["accuracy"] == result.value


def test_a_repair_goes_by_the_weights_that_the_search_has_trained(
    repaired_trial: Any, folder: WorkFolder, group: WorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method `half` trains in its search: pretrained and searched weights differ."""
    seen = {}
    done = repair_module.repair

    def spy(network: Any, whole: Any, space: Any, architecture: Any, *rest: Any) -> None:
        seen["cut"] = cut(whole, space, architecture).state_dict()
        done(network, whole, space, architecture, *rest)

    monkeypatch.setattr("dms_bench.trial.run.repair", spy)
    ran(repaired_trial(method="half", pipeline="DMSp"), folder, group)
    assert same(seen["cut"], weights(folder, "search"))
    assert not torch.equal(
        seen["cut"]["0.weight"], weights(WorkFolder(folder.path.parent / "supernet-half"), "pretrain")["0.weight"][:12]
    )


@pytest.mark.parametrize("pipeline", ["DMSp", "DMSp-"])
def test_an_interrupted_repair_goes_on_and_ends_like_an_undisturbed_one(
    repaired_trial: Any, folder: WorkFolder, group: WorkerGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    pipeline: str,
) -> None:  # fmt: skip
    trial = repaired_trial(pipeline=pipeline, method="half" if pipeline == "DMSp" else "random")
    undisturbed = WorkFolder(tmp_path / "undisturbed")
    expected = ran(trial, undisturbed, group)
    monkeypatch.setattr(repair_module, "_KEEP_SECONDS", 0.0)
    fits, fitted = repair_module.fits, []

    def dying(*args: Any) -> Iterator[Fit]:
        for fit in fits(*args):
            if fit.name == "4" and not fitted.count("death"):
                fitted.append("death")
                raise Interrupted
            fitted.append(fit.name)
            yield fit

    monkeypatch.setattr(repair_module, "fits", dying)
    with pytest.raises(Interrupted):
        ran(trial, folder, group)
    assert list((folder.path / "repair").glob("checkpoint-*"))
    result = ran(trial, folder, group)
    assert fitted == ["2", "death", "4"]
    assert same(weights(folder, "repair"), weights(undisturbed, "repair"))
    assert read_report(folder.stage("repair")) == read_report(undisturbed.stage("repair"))
    assert result.metrics == expected.metrics
    assert not list((folder.path / "repair").glob("checkpoint-*"))
    assert {cost.stage: cost.attempts for cost in result.costs}["repair"] == 2


def test_a_finished_repair_is_not_done_again(
    repaired_trial: Any, folder: WorkFolder, group: WorkerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ran(repaired_trial(), folder, group)
    monkeypatch.setattr("dms_bench.trial.run.repair", lambda *_: pytest.fail("repaired again"))
    (folder.path / "recalibrate" / "done.json").unlink()
    assert ran(repaired_trial(), folder, group).metrics == expected.metrics


def test_a_network_that_is_not_cut_has_nothing_to_repair(
    repaired_trial: Any, folder: WorkFolder, group: WorkerGroup
) -> None:
    ran(repaired_trial(method="supernet"), folder, group)
    assert read_report(folder.stage("repair")) == RepairReport(kind="least_squares", batches=BATCHES)
    assert same(weights(folder, "repair"), weights(folder, "search"))


def test_random_weights_are_not_repaired_and_other_trials_keep_their_hash(toy_trial: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        toy_trial(pipeline="DMSnp", repair="bias")
    assert "'repair' 'bias'" in str(refusal.value)
    assert "leave 'repair' out, or take DMSp or DMSp-" in str(refusal.value)
    plain, named = toy_trial(pipeline="DMSp"), toy_trial(pipeline="DMSp", repair="none")
    assert plain.hash == named.hash
    assert "repair" not in plain.model_dump(mode="json")
    repaired = toy_trial(pipeline="DMSp", repair="bias")
    assert repaired.hash != plain.hash
    assert Trial.model_validate(repaired.model_dump(mode="json")).hash == repaired.hash


def test_trials_with_another_repair_are_in_another_block_of_the_leaderboard(toy_trial: Any) -> None:
    tags = [trial_tags(toy_trial(pipeline="DMSp", repair=kind))["dms.pipeline"] for kind in ("none", "least_squares")]
    assert tags == ["DMSp", "DMSp, repair least_squares"]


def _in_a_group(folder: Path, rank: int) -> dict[str, Tensor]:
    trial = Trial.model_validate(
        {
            "experiment": "together",
            "task": {"kind": "classification", "data": classification_helpers.GLYPHS | {"train": 256}},
            "supernet": {"model": "resnet18", "args": {"channels": [8, 8, 8, 8]}},
            "pipeline": "DMSp",
            "budget": {"kind": "macs", "target": "50%"},
            "method": "uniform",
            "repair": "least_squares",
            "pretrain": {"epochs": 4, "batch_size": 32, "lr": 0.05},
            "retrain": {"epochs": 1, "batch_size": 32, "lr": 0.05},
            "resources": {"workers": 2},
        }
    )
    set_up_process(trial.resources)  # without kernels that are known to be wrong
    group = WorkerGroup(CPU, trial.resources, rank)
    started: dict[str, Tensor] = {}
    task_class = trial.task.load_implementation()
    fit = task_class.fit

    def spy(self: Any, model: Any, recipe: Any, loop: Any, *rest: Any) -> Any:
        if loop._stage.name == "retrain":
            started.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return fit(self, model, recipe, loop, *rest)

    task_class.fit = spy
    supernet = WorkFolder(folder / "supernet")
    pretrain_supernet(trial, supernet, group)
    run_trial(trial, WorkFolder(folder / "trial"), group, supernet=supernet)
    return started


def test_two_workers_go_on_from_the_same_repaired_weights(tmp_path: Path) -> None:
    first, second = in_two_processes(_in_a_group, tmp_path, tmp_path)
    assert same(first, second)
    folder = WorkFolder(tmp_path / "trial")
    assert read_report(folder.stage("repair")).used
    assert all(torch.equal(tensor, first[name]) for name, tensor in weights(folder, "repair").items())


def _classifier(model: str, args: dict[str, Any]) -> tuple[Any, Any, Any]:
    task = classification_helpers.glyph_task(train=256)
    supernet = classification_helpers.SupernetSpec(model=model, args=args)
    fast = classification_helpers.recipe(epochs=3)
    return task, task.fit(task.build(supernet), fast, classification_helpers.MemoryLoop()), task.example_input()


def _language(**args: Any) -> tuple[Any, Any, Any]:
    task = language_helpers.task()
    supernet = language_helpers.SupernetSpec(model="llama", args={**language_helpers.SIZES, **args})
    fast = language_helpers.recipe(epochs=1, steps=40)
    return task, task.fit(task.build(supernet), fast, classification_helpers.MemoryLoop()), task.example_input()


def _detector() -> tuple[Any, Any, Any]:
    task = detection_helpers.task()
    model = detection_helpers.lively(task.build(detection_helpers.TINY))
    task.recalibrate(model, CPU)
    return task, model, task.example_input()


NETWORKS = {
    "resnet": lambda: _classifier("resnet18", {"channels": [8, 8, 16, 16]}),
    "efficientnet": lambda: _classifier("test_efficientnet", {}),
    "llama": lambda: _language(num_key_value_heads=2),
    "yolo": _detector,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_real_networks_come_closer_to_what_they_were(kind: str, folder: WorkFolder) -> None:
    from dms_bench.scaling import find_space
    from dms_bench.trial.meter import Meter

    task, whole, example = NETWORKS[kind]()
    whole.eval()
    space = find_space(whole, example)
    generator, mask = torch.Generator().manual_seed(0), space.full()
    for start, group in zip(space.units.starts, space.groups, strict=False):
        mask[start + torch.randperm(group.size, generator=generator)[: round(0.3 * group.size)]] = 0
    architecture = space.architecture(mask)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    group, stage = alone(Resources()), folder.stage("repair")
    with Meter(folder, group.hardware()) as meter, meter.stage("repair"):
        network = cut(whole, space, architecture)
        repair(network, whole, space, architecture, "least_squares", task, stage, group, meter)
    assert same(before, whole.state_dict())
    report = read_report(stage)
    assert len(report.layers) > 10
    assert not report.left_out
    assert all(errors is not None and errors[1] <= errors[0] for errors in report.layers.values())
    assert report.used or kind == "yolo"  # which was not trained, and has no loss worth keeping
