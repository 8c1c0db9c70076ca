"""Suites rehearsed as a user rehearses them: what is measured, what is found, and what `plan` makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dms_bench.cli import _main
from dms_bench.trial.rehearsal.record import Rehearsal, Rehearsed

RECIPE = {"epochs": 3, "lr": 0.05, "batch_size": 32}
CLASSIFIER = {
    "name": "glyphs",
    "task": {"kind": "classification", "data": {"name": "glyphs", "train": 320, "val": 600, "test": 600}},
    "supernet": {"model": "resnet18", "args": {"channels": [8, 8, 16, 16]}},
    "pipeline": "DMSp",
    "pretrain": RECIPE,
    "search": RECIPE,
    "retrain": RECIPE | {"distil": True, "grad_accum_steps": 2},
    "sweep": {
        "grid": {
            "method": ["dms", {"kind": "evolution", "score": "shared", "candidates": 8, "population": 4}],
            "budget": [{"kind": "macs", "target": "40%"}, {"kind": "macs", "target": "60%"}],
            "seed": [0, 1],
        }
    },
}
LANGUAGE = {
    "name": "words",
    "task": {
        "kind": "language",
        "data": {"name": "pystdlib", "train": "60k", "val": "8k", "test": "8k"},
        "context": 32,
        "windows": [32],
        "zero_shot": ["next_line"],
        "zero_shot_limit": 60,
    },
    "supernet": {
        "model": "llama",
        "args": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4},
        "space": {"exclude": ["lm.model.stream"]},
    },
    "budget": {"kind": "params", "target": "60%"},
    "search": {"epochs": 2, "batch_size": 8, "lr": 1e-3},
    "retrain": {"epochs": 5, "batch_size": 8, "lr": 1e-3, "lora": True},
    "pipeline": "DMSp",
    "pretrain": {"epochs": 1, "batch_size": 8, "lr": 1e-3},
    "method": "dms",
}
DETECTOR = {
    "name": "boxes",
    "task": {
        "kind": "detection",
        "image_size": 64,
        "data": {"name": "glyph-scenes", "train": 64, "val": 8, "test": 8, "classes": 3, "objects": 3},
    },
    "supernet": {"model": "yolov8.yaml", "args": {"depth_multiple": 0.34, "width_multiple": 0.125}},
    "search": {"epochs": 12, "batch_size": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.002, "momentum": 0.9},
    "retrain": {"epochs": 14, "batch_size": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.002, "momentum": 0.9},
    "method": "dms",
    "budget": {"kind": "macs", "target": "60%"},
}


@pytest.fixture
def rehearsed(tmp_path, monkeypatch, capsys, here):
    """Rehearse a suite in this process, and return the exit code, the record and what was printed."""
    monkeypatch.chdir(tmp_path)

    def rehearse(experiment: dict[str, Any], *options: str) -> tuple[int, list[Rehearsed], str]:
        Path("suite.yaml").write_text(yaml.safe_dump({"name": "suite", "experiments": [experiment]}))
        code = _main(["rehearse", "suite.yaml", *options])
        captured = capsys.readouterr()
        return code, read(tmp_path).kinds, captured.out + captured.err

    return rehearse


def read(folder: Path, name: str = "suite") -> Rehearsal:
    (path,) = (folder / "runs" / name / "rehearsals").glob("*.json")
    return Rehearsal.model_validate_json(path.read_bytes())


def epochs(kind: Rehearsed) -> dict[tuple[str, str], int]:
    return {
        (stage.part, stage.name): call.epochs
        for stage in kind.stages
        for call in stage.calls
        if call.epochs is not None
    }


def test_classification_is_rehearsed_in_all_its_stages(rehearsed, tmp_path, capsys):
    code, (dms, evolution), output = rehearsed(CLASSIFIER)
    assert code == 0, output
    assert "8 trials of 2 kinds to rehearse" in output
    assert "projected: " in output
    assert "Traceback" not in output
    assert epochs(dms) == {("supernet", "pretrain"): 3, ("trial", "search"): 3, ("trial", "retrain"): 3}
    retrain = next(stage for stage in dms.stages if stage.name == "retrain")
    training, validation = retrain.calls[0].passes
    # 320 images in steps of 32, of two micro-batches each; 600 for validation in batches of 256.
    assert (training.samples, training.whole, len(training.steps)) == (32, 10, 3)
    assert (validation.samples, validation.whole, len(validation.steps)) == (256, 3, 3)
    assert training.compute > 0
    assert retrain.checkpoint_bytes > 1000
    assert retrain.host_bytes > 2**20
    assert dms.kept_bytes["supernet"] > 1000
    assert dms.kept_bytes["trial"] > 1000

    search = next(stage for stage in evolution.stages if stage.part == "trial" and stage.name == "search")
    assert search.times == 4  # two candidates of eight
    assert [call.purpose for call in search.calls] == ["recalibration", "evaluation on val"] * 2
    # Nothing of it is a result, nor is left behind.
    assert sorted(path.name for path in (tmp_path / "runs" / "suite").iterdir()) == ["rehearsal", "rehearsals"]
    assert [path.name for path in (tmp_path / "runs" / "suite" / "rehearsal").iterdir()] == ["lock"]

    assert _main(["plan", "suite.yaml"]) == 0
    planned = capsys.readouterr().out
    assert planned.count("measured ") == 8 + 1
    assert "estimated" not in planned
    assert _main(["plan", "suite.yaml", "--set", "retrain.batch_size=64"]) == 0
    assert "measured" not in capsys.readouterr().out  # steps of another kind


def test_language_models_are_rehearsed_in_all_their_stages(rehearsed):
    code, (kind,), output = rehearsed(LANGUAGE, "--steps", "1")
    assert code == 0, output
    assert epochs(kind) == {("supernet", "pretrain"): 1, ("trial", "search"): 2, ("trial", "retrain"): 5}
    (test,) = (call for stage in kind.stages for call in stage.calls if call.purpose == "evaluation on test")
    windows, items = test.passes
    assert len(windows.steps) <= 2
    assert items.whole == 60
    assert len(items.steps) == 32


@pytest.mark.slow
def test_detectors_are_rehearsed_in_all_their_stages(rehearsed, tmp_path, monkeypatch):
    pytest.importorskip("ultralytics")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, (kind,), output = rehearsed(DETECTOR)
    assert code == 0, output
    assert epochs(kind) == {("trial", "search"): 12, ("trial", "retrain"): 14}
    training = next(stage for stage in kind.stages if stage.name == "retrain").training
    assert training is not None
    assert (training.samples, training.whole, len(training.steps)) == (8, 8, 3)


def test_what_is_missing_is_said_before_anything_is_trained(rehearsed, tmp_path):
    data = {"name": "timm", "root": "/nowhere/imagenet", "classes": 1000, "train_images": 1000}
    code, kinds, output = rehearsed(CLASSIFIER | {"task": {"kind": "classification", "data": data}})
    assert code == 2
    assert kinds == []
    (line,) = (line for line in output.split("missing: ")[1:])
    assert line.startswith(
        "experiment 'glyphs', task.data: data folder '/nowhere/imagenet' does not exist; put the data"
    )
    assert "Traceback" not in output


def test_a_loss_that_is_no_number_is_found(rehearsed):
    one = {"method": "dms", "budget": {"kind": "macs", "target": "40%"}, "sweep": {}}
    code, kinds, output = rehearsed(CLASSIFIER | one | {"pretrain": RECIPE | {"lr": 1e30}})
    assert code == 2
    assert [kind.at for kind in kinds] == ["pretrain"]
    assert "fails: experiment 'glyphs', pretrain: training: the loss is" in output
    assert "a lower learning rate" in output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "A100"], "error: --device 'A100': did you mean"),
        (["--steps", "0"], "error: Invalid value for '--steps'"),
        (["--profile", "ful"], "error: suite.yaml: "),
    ],
)
def test_bad_options_are_a_line(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("suite.yaml").write_text(yaml.safe_dump({"name": "suite", "experiments": [CLASSIFIER]}))
    assert _main(["rehearse", "suite.yaml", *options]) == 2
    assert capsys.readouterr().err.startswith(said)


def test_each_kind_has_a_process_of_its_own_whose_death_is_a_finding(command, tmp_path):
    fields = {"retrain.dies_by": ["kill", "abort"]}
    command.write("mixed", {"retrain": {"epochs": 3, "dies_in": 1}, "sweep": {"grid": fields}})
    suite = yaml.safe_load((tmp_path / "mixed.yaml").read_text())
    suite["experiments"].append({**suite["experiments"][0], "name": "fine", "retrain": {"epochs": 3}, "sweep": {}})
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(suite))
    code, printed = command.run("mixed", verb="rehearse")
    assert code == 2, printed
    assert "Traceback" not in printed
    killed, aborted, fine = read(tmp_path, "mixed").kinds
    assert "SIGKILL" in str(killed.failure)
    assert "SIGABRT, 'double free or corruption (out)'" in str(aborted.failure)
    assert (killed.at, aborted.at, fine.failure) == ("retrain", "retrain", None)
    assert "does not fit: experiment 'mlp', retrain: its process died: ended without a word, as by SIGKILL" in printed
    assert "fails: experiment 'mlp', retrain: its process died: SIGABRT" in printed
    assert "not in it: 2 trials" in printed
    fits = [line for line in command.journal.read_text().splitlines() if " fit " in line]
    assert len({line.split()[0] for line in fits}) == 3  # and none of them again
    assert len(fits) == 3 * 2


@pytest.mark.slow
def test_several_workers_rehearse_together(command, tmp_path):
    command.write("pair", {"resources": {"workers": 2, "cpus": 0.5}})
    code, printed = command.run("pair", verb="rehearse")
    assert code == 0, printed
    (kind,) = read(tmp_path, "pair").kinds
    assert (kind.devices, kind.workers_for_one) == (1.0, 1)
    collectives = [call.collective for stage in kind.stages for call in stage.calls if call.epochs]
    assert len(collectives) == 2
    assert all(seconds is not None and seconds > 0 for seconds in collectives)
    assert "all-reduce" in printed
