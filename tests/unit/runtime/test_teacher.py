"""The pretrained supernet as the teacher of a network that starts from random weights."""

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from dms_bench.config.trial import Trial
from dms_bench.trial.origin import weights_hash
from dms_bench.trial.run import pretrain_supernet, run_trial
from dms_bench.trial.storage import WorkFolder
from dms_bench.trial.work import supernet_hash
from dms_bench_tasks.classification.task import Classification

RECIPE = {"epochs": 1, "batch_size": 256, "lr": 0.1}


def _trial(distil, **fields):
    return Trial.model_validate(
        {
            "experiment": "taught",
            "task": {"kind": "classification", "data": "digits", "image_size": 16},
            "supernet": {"model": "resnet18", "args": {"channels": [8, 8, 8, 8]}},
            "budget": {"kind": "macs", "target": "50%"},
            "method": "uniform",
            "pretrain": RECIPE,
            "search": RECIPE,
            "retrain": {**RECIPE, "distil": distil},
            **fields,
        }
    ).canonical()


def test_the_teacher_is_pretrained_and_the_student_is_not(tmp_path, group, monkeypatch):
    trial = _trial(True)
    seen = []
    fit = Classification.fit

    def watched(self, model, recipe, loop, structure=None, teacher=None):
        if teacher is not None:
            seen.append((teacher.state_dict(), next(model.parameters()).detach().clone()))
        return fit(self, model, recipe, loop, structure, teacher)

    monkeypatch.setattr(Classification, "fit", watched)
    supernet, folder = WorkFolder(tmp_path / "supernet"), WorkFolder(tmp_path / "trial")
    pretrain_supernet(trial, supernet, group)
    result = run_trial(trial, folder, group, supernet=supernet)
    ((taught, student),) = seen
    weights = load_file(supernet.stage("pretrain").output("weights.safetensors"))
    assert all(torch.equal(taught[name], tensor) for name, tensor in weights.items())
    assert not torch.isin(student, weights["conv1.weight"]).any()
    assert "pretrain" in {cost.stage for cost in result.costs}


def test_what_is_trained_for_a_teacher_is_part_of_the_trial_where_there_is_one():
    plain, taught = _trial(None), _trial(True)
    assert plain.pretrain is None
    assert supernet_hash(plain) is None
    assert taught.pretrain is not None
    assert supernet_hash(taught) == supernet_hash(_trial(None, pipeline="DMSp"))
    named = _trial({"teacher": {"model": "resnet50"}})
    assert named.pretrain is None


def test_a_teacher_s_file_is_part_of_the_hash_of_the_weights(tmp_path):
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"one")
    trial = _trial({"teacher": {"model": "resnet50", "checkpoint": str(path)}})
    one = weights_hash(trial)
    path.write_bytes(b"other")
    assert one is not None
    assert weights_hash(trial) not in (one, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pretrain": None}, "pipeline 'DMSnp' is to distil from a trained supernet: give a 'pretrain' recipe"),
        ({"search": {**RECIPE, "distil": True}}, "only its 'retrain' can distil from one"),
        ({"pretrain": {**RECIPE, "distil": True}}, "but the supernet is the teacher"),
    ],
)
def test_without_a_trained_supernet_nothing_is_distilled_from_it(fields, message):
    with pytest.raises(ValidationError, match=message):
        _trial(True, **fields)
