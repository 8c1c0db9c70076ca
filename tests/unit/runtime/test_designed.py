"""A network that a method brings: trained, resumed, recorded and rebuilt like one that was cut."""

import pytest
import torch
from safetensors.torch import load_file

from dms_bench.errors import UserError
from dms_bench.runtime.run import check
from dms_bench.scaling import count
from dms_bench.trial.record import load
from dms_bench.trial.run import pretrain_supernet, run_trial
from dms_bench.trial.storage import WorkFolder
from dms_bench.trial.work import supernet_hash


def macs(width):
    return 8 * width + width * width + 4 * width


class Interrupted(BaseException):
    """Stands for the death of the process."""


def designed(toy_trial, width, **fields):
    method = {"kind": "designed", "model": "mlp", "args": {"width": width}}
    return toy_trial(task={"kind": "toy", "width": 16}, method=method, **fields)


def run(trial, folder, group, tmp_path, log=None):
    supernet = WorkFolder(tmp_path / "supernets" / (supernet_hash(trial) or "none")) if trial.pretrain else None
    if supernet:
        pretrain_supernet(trial, supernet, group)
    return run_trial(trial, folder, group, supernet=supernet, log=log)


@pytest.mark.parametrize("pipeline", ["DMSnp", "DMSp", "DMSp-"])
@pytest.mark.parametrize(("width", "target", "missed"), [(9, macs(9), False), (9, "50%", True), (24, "50%", True)])
def test_it_is_judged_by_the_supernets_budget(toy_trial, folder, group, tmp_path, pipeline, width, target, missed):
    """It may even be larger than the supernet."""
    trial = designed(toy_trial, width, pipeline=pipeline, budget={"kind": "macs", "target": target})
    result = run(trial, folder, group, tmp_path)
    assert (result.macs, result.supernet_macs) == (macs(width), macs(16))
    assert result.targets["macs"] == (macs(16) / 2 if target == "50%" else target)
    assert result.budget_missed is missed
    model = exported(folder, tmp_path)
    assert count(model, torch.ones(1, 8)).macs == result.macs
    task = trial.task.load_implementation()(trial.task, 0)
    assert task.evaluate(model, "test", torch.device("cpu"))["accuracy"] == result.value
    assert task.evaluate(model, "val", torch.device("cpu"))["accuracy"] == result.validation


def exported(folder, tmp_path):
    target = tmp_path / "exported"
    target.mkdir()
    stage = "retrain" if (folder.path / "retrain").exists() else "recalibrate"
    for path in (folder.path / "architecture.json", folder.path / stage / "weights.safetensors"):
        (target / path.name).write_bytes(path.read_bytes())
    return load(target)


@pytest.mark.parametrize(("pipeline", "place"), [("DMSnp", ("retrain", 2)), ("DMSp", ("retrain", 1))])
def test_an_interrupted_one_ends_like_an_undisturbed_one(toy_trial, folder, group, tmp_path, pipeline, place):
    trial = designed(toy_trial, 9, pipeline=pipeline)
    expected = run(trial, WorkFolder(tmp_path / "undisturbed"), group, tmp_path)

    def ends(stage, epoch, metrics):
        if (stage, epoch) == place:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(trial, folder, group, tmp_path, ends)
    result = run(trial, folder, group, tmp_path)
    assert (result.value, result.validation) == (expected.value, expected.validation)
    first, second = (
        load_file(one.path / "retrain" / "weights.safetensors")
        for one in (WorkFolder(tmp_path / "undisturbed"), folder)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_its_pretraining_is_its_own(toy_trial):
    uniform, random = (toy_trial(pipeline="DMSp", method=method) for method in ("uniform", "random"))
    assert supernet_hash(uniform) == supernet_hash(random)
    own = [supernet_hash(designed(toy_trial, width, pipeline="DMSp")) for width in (8, 9)]
    assert len({supernet_hash(uniform), *own}) == 3
    other_budget = designed(toy_trial, 9, pipeline="DMSp", budget={"kind": "macs", "target": "30%"})
    assert supernet_hash(other_budget) == own[1]


@pytest.mark.parametrize("pipeline", ["DMSnp", "DMSp"])
def test_an_unknown_network_is_refused_before_anything_runs(toy_trial, pipeline):
    trial = toy_trial(method={"kind": "designed", "model": "mpl"}, pipeline=pipeline)
    with pytest.raises(UserError, match=r"^experiment '.*': method: unknown model 'mpl'; did you mean 'mlp'"):
        check([toy_trial(pipeline=pipeline, method="uniform"), trial])


def test_an_unknown_supernet_beside_it_is_said_as_well(toy_trial):
    trial = toy_trial(method={"kind": "designed", "model": "mpl"}, supernet={"model": "mlq"})
    with pytest.raises(UserError) as refused:
        check([trial])
    assert [line.partition("': ")[2] for line in str(refused.value).splitlines()] == [
        "method: unknown model 'mpl'; did you mean 'mlp'?",
        "supernet: unknown model 'mlq'; did you mean 'mlp'?",
    ]


def test_pretrained_weights_of_the_supernet_are_not_its_own(toy_trial):
    fields = {"supernet": {"model": "mlp", "pretrained": True}, "pipeline": "DMSp", "pretrain": None}
    assert toy_trial(method="uniform", **fields).pretrain is None
    with pytest.raises(ValueError, match="starts from a trained supernet"):
        designed(toy_trial, 9, **fields)


def test_a_latency_budget_is_judged_by_its_measured_latency(toy_trial, folder, group, tmp_path, monkeypatch):
    """The latency model is the supernet's: it knows nothing of another network."""
    trial = designed(toy_trial, 9, budget={"kind": "latency", "target": "100%"})
    judged = []
    monkeypatch.setattr(
        "dms_bench.trial.run.missed", lambda found, budget, **_: judged.append(found["latency"]) or True
    )
    result = run(trial, folder, group, tmp_path)
    assert result.latency_predicted_ms is None
    assert result.latency_error is None
    assert judged == [result.latency_ms]
    assert result.budget_missed
