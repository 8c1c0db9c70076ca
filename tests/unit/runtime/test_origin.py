"""The hash of the weights that a trial starts from."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from dms_bench.config.trial import Trial
from dms_bench.tracking import open_suite
from dms_bench.tracking.reading import read_trials
from dms_bench.trial.origin import weights_hash
from dms_bench.trial.publish import publish
from dms_bench.trial.run import run_trial
from dms_bench.trial.work import Work


def _expected(*contents):
    digests = "\n".join(hashlib.sha256(content).hexdigest() for content in contents)
    return hashlib.sha256(digests.encode()).hexdigest()[:12]


def _starts_from(toy_trial, path, pipeline="DMSp"):
    return toy_trial(pipeline=pipeline, supernet={"model": "mlp", "checkpoint": str(path)})


def test_the_hash_is_of_the_content_not_of_the_name(toy_trial, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in (first, second):
        path.write_bytes(b"weights")
    assert weights_hash(_starts_from(toy_trial, first)) == _expected(b"weights")
    assert weights_hash(_starts_from(toy_trial, second)) == _expected(b"weights")
    second.write_bytes(b"others!")
    assert weights_hash(_starts_from(toy_trial, second)) == _expected(b"others!")


def test_without_files_there_is_no_hash(toy_trial, tmp_path):
    path = tmp_path / "weights.safetensors"
    assert weights_hash(toy_trial(pipeline="DMSp")) is None  # pretrained here: the recipe is in the trial
    assert weights_hash(_starts_from(toy_trial, path)) is None  # whoever loads it says that it is missing
    path.write_bytes(b"weights")
    with pytest.raises(ValueError, match="starts from random weights"):
        _starts_from(toy_trial, path, "DMSnp")


def test_a_language_model_is_known_by_the_files_that_transformers_loads(tmp_path):
    def trial(**supernet):
        recipe = {"epochs": 1, "batch_size": 8, "lr": 1e-3}
        return Trial.model_validate(
            {
                "experiment": "words", "task": {"kind": "language"}, "pipeline": "DMSp", "method": "uniform",
                "budget": {"kind": "params", "target": "50%"}, "retrain": recipe,
                "supernet": {"model": str(tmp_path), "pretrained": True, **supernet},
            }
        )  # fmt: skip

    assert weights_hash(trial()) is None  # an empty folder
    (tmp_path / "pytorch_model.bin").write_bytes(b"old")
    assert weights_hash(trial()) == _expected(b"old")
    for number, content in ((2, b"second"), (1, b"first")):
        (tmp_path / f"model-0000{number}-of-00002.safetensors").write_bytes(content)
    (tmp_path / "consolidated.safetensors").write_bytes(b"not what transformers loads")
    assert weights_hash(trial()) == _expected(b"first", b"second")
    save_file({"weight": torch.ones(1)}, tmp_path / "tuned.safetensors")
    tuned = (tmp_path / "tuned.safetensors").read_bytes()
    assert weights_hash(trial(checkpoint=str(tmp_path / "tuned.safetensors"))) == _expected(b"first", b"second", tuned)


def test_result_and_run_hold_the_hash(toy_trial, group, tmp_path, store, make_suite):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"weights")
    trial = _starts_from(toy_trial, path)
    suite = open_suite(store, make_suite("toys"), {})
    work = Work(
        kind="trial", trial=trial.model_copy(update={"pretrain": None}), suite_folder=tmp_path, uri=store,
        experiment_id=suite.experiment_id, parent_id=suite.parent_id, environment={"torch": "2"},
    )  # fmt: skip
    assert run_trial(work.trial, work.folder, group).weights == _expected(b"weights")
    publish(work)
    (record,) = read_trials(store, ["toys"])
    assert record.weights == _expected(b"weights")
    assert record.environment["torch"] == "2"
