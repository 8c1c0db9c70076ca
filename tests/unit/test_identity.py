"""What a trial's hash depends on: not where data lie and who loads them, but what the files say that a trial names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dms_bench.config import Trial, content, parse_suite, resolve
from dms_bench.config.changes import read_change
from dms_bench.config.site import Site, SiteData
from dms_bench.trial.work import search_hash, supernet_hash

CLASSIFICATION: dict[str, Any] = {
    "name": "pictures",
    "task": {"kind": "classification", "data": {"name": "timm", "root": "/data/cars", "classes": 5}},
    "supernet": {"model": "resnet18"},
    "pretrain": {"epochs": 1, "lr": 0.1},
    "retrain": {"epochs": 1, "lr": 0.1},
    "pipeline": "DMSp",
    "method": "l1",
    "budget": {"kind": "macs", "target": "50%"},
    "resources": {},
    "seed": 0,
}
DETECTION = CLASSIFICATION | {
    "task": {"kind": "detection", "data": {"name": "yolo", "path": "coco.yaml", "train_images": 10}, "image_size": 64},
    "supernet": {"model": "yolov8n.yaml"},
    "pretrain": {"epochs": 1},
    "retrain": {"epochs": 1},
}
LANGUAGE = CLASSIFICATION | {
    "task": {"kind": "language", "data": {"name": "text", "root": "/data/brown"}},
    "supernet": {"model": "llama"},
}


def trial_of(experiment: dict[str, Any], data: SiteData | None = None, **fields: Any) -> Trial:
    """Return an experiment's trial with other fields of its data, or others."""
    task = experiment["task"]
    of_data = {name: fields.pop(name) for name in list(fields) if name not in experiment}
    experiment = experiment | {"task": task | {"data": task["data"] | of_data}} | fields
    content.forget()
    (trial,) = resolve(parse_suite({"name": "suite", "experiments": [experiment]}).placed(data or SiteData()))
    return trial


def hashes(trial: Trial) -> tuple[str, str | None]:
    return trial.hash, supernet_hash(trial)


FASHION = CLASSIFICATION | {"task": {"kind": "classification", "data": {"name": "fashion_mnist"}}}


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (CLASSIFICATION, {"root": "/scratch/cars"}),
    (CLASSIFICATION, {"root": "cars/"}),
    (CLASSIFICATION, {"root": "/scratch/cars-2026", "called": "cars"}),
    (CLASSIFICATION, {"workers": 7}),
    (CLASSIFICATION, {"download": True}),
    (CLASSIFICATION, {"resources": {"gpus": 1, "cpus": 8, "placement": "spread"}}),
    (FASHION, {"root": "/scratch/fashion"}),  # of which the part that comes along is a part
    (DETECTION, {"root": "/scratch/pictures"}),
    (DETECTION, {"workers": 0}),
    (LANGUAGE, {"root": "real-data/brown"}),
]
OTHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (CLASSIFICATION, {"root": "/data/birds"}),
    (CLASSIFICATION, {"called": "birds"}),
    (CLASSIFICATION, {"classes": 6}),
    (CLASSIFICATION, {"dataset": "torch/cifar10"}),
    (FASHION, {"train": 5000}),
    (DETECTION, {"path": "voc.yaml"}),
    (DETECTION, {"cache": "ram"}),  # with which Ultralytics draws other pictures into its mosaics
    (LANGUAGE, {"root": "/data/gutenberg"}),
]


@pytest.mark.parametrize(("experiment", "fields"), SAME)
def test_a_place_changes_no_hash(experiment: dict[str, Any], fields: dict[str, Any]) -> None:
    assert hashes(trial_of(experiment, **fields)) == hashes(trial_of(experiment))


@pytest.mark.parametrize(("experiment", "fields"), OTHER)
def test_other_data_do(experiment: dict[str, Any], fields: dict[str, Any]) -> None:
    for one, other in zip(hashes(trial_of(experiment, **fields)), hashes(trial_of(experiment)), strict=True):
        assert one != other


def test_a_set_that_is_known_by_name_has_it_anywhere() -> None:
    here, there = (trial_of(CLASSIFICATION, dataset="torch/cifar10", root=root) for root in ("/a/x", "/b/y"))
    assert here.hash == there.hash
    folders = [trial_of(CLASSIFICATION, dataset="torch/image_folder", root=root).hash for root in ("/a/x", "/b/y")]
    assert folders[0] != folders[1]


def test_a_site_has_data_elsewhere_and_they_keep_their_name() -> None:
    site = SiteData(roots={"cars": "/scratch/1234"}, workers=16)
    placed, plain = trial_of(CLASSIFICATION, site), trial_of(CLASSIFICATION)
    assert placed.task.model_dump()["data"]["root"] == "/scratch/1234"
    assert placed.task.model_dump()["data"]["workers"] == 16
    assert placed.task.label() == plain.task.label() == "cars 224px"
    assert placed.hash == plain.hash
    assert trial_of(DETECTION, SiteData(roots={"coco": "/x"})).task.model_dump()["data"]["root"] == "/x"
    assert trial_of(FASHION).task.placed({"fashion_mnist": "/y"}, None).model_dump()["data"]["root"] == "/y"


@pytest.mark.parametrize(
    ("change", "placed"),
    [
        ("seed=1", {"root": "/scratch/1234", "workers": 16}),
        ("task.data.root=/mine/cars", {"root": "/mine/cars", "workers": 16}),
        ("task.data.workers=3", {"root": "/scratch/1234", "workers": 3}),
        ("task.data={name: timm, root: /mine/cars, classes: 5}", {"root": "/mine/cars", "workers": 2}),
    ],
)
def test_what_is_set_is_laid_over_the_site(change: str, placed: dict[str, Any]) -> None:
    site = Site(data=SiteData(roots={"cars": "/scratch/1234"}, workers=16))
    document = {"name": "suite", "experiments": [CLASSIFICATION]}
    (trial,) = resolve(parse_suite(document, changes=[read_change("seed=0"), read_change(change)], site=site))
    data = trial.task.model_dump()["data"]
    assert {field: data[field] for field in placed} == placed


def test_the_former_hash_is_that_of_the_whole_content() -> None:
    """As it was computed before, written out: of all fields but what it runs on, which have their defaults."""
    trial = trial_of(CLASSIFICATION, root="/scratch/cars", workers=7, resources={"gpus": 1})
    fields = trial.model_dump(mode="json") | {"resources": {"workers": 1, "cpus": 1.0, "gpus": 0.0}}
    assert fields["task"]["data"]["root"] == "/scratch/cars"
    before = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
    assert trial.former_hash == before
    assert trial.hash != before
    supernet = {name: fields[name] for name in ("task", "pretrain", "seed", "supernet")}
    text = json.dumps(supernet, sort_keys=True)
    assert supernet_hash(trial, former=True) == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_at_a_site_it_is_that_of_the_suite() -> None:
    site = SiteData(roots={"cars": "/scratch/1234"}, workers=16)
    plain, placed = trial_of(CLASSIFICATION, seed=3), trial_of(CLASSIFICATION, site).model_copy(update={"seed": 3})
    assert placed.former_hash == plain.former_hash is not None
    assert supernet_hash(placed, former=True) == supernet_hash(plain, former=True)
    assert placed.task != plain.task


def test_trials_at_the_usual_places_have_the_hash_that_they_had() -> None:
    for trial in (
        trial_of(CLASSIFICATION, root="data/cars"),
        trial_of(DETECTION, root="data/coco"),
        trial_of(LANGUAGE, root="real-data/brown"),
        trial_of(CLASSIFICATION, dataset="torch/cifar10", root=None),
    ):
        assert trial.former_hash is None


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(make: Callable[[], Trial], path: Path, text: str) -> tuple[Trial, Trial]:
    """Return a trial before and after a file has another content, and make sure that it goes back with it."""
    before = make()
    old = path.read_text()
    path.write_text(text)
    after = make()
    path.write_text(old)
    assert hashes(make()) == hashes(before)
    return before, after


def test_another_model_yaml_is_another_trial(inside: Path) -> None:
    plain = trial_of(DETECTION)
    (inside / "own.yaml").write_text("nc: 3")
    before, after = edited(lambda: trial_of(DETECTION, supernet={"model": "own.yaml"}), inside / "own.yaml", "nc: 4")
    assert before.hash != after.hash
    assert supernet_hash(before) != supernet_hash(after)
    assert before.content.keys() == {"supernet.model"}
    assert before.former_hash is None, "nobody knows what the file said then"
    assert plain.content == {}


def test_the_yaml_of_all_sizes_counts_where_ultralytics_reads_it(inside: Path) -> None:
    (inside / "own8.yaml").write_text("scales: 1")
    make = lambda: trial_of(DETECTION, supernet={"model": "own8n.yaml"})  # noqa: E731
    before, after = edited(make, inside / "own8.yaml", "scales: 2")
    assert before.hash != after.hash


def test_of_a_data_yaml_all_counts_but_where_the_data_lie(inside: Path) -> None:
    file = inside / "own.yaml"
    file.write_text("{path: /a, train: images, names: [cat]}")
    make = lambda: trial_of(DETECTION, path="own.yaml")  # noqa: E731
    before, moved = edited(make, file, "{path: /b, train: images, names: [cat]}")
    assert before.hash == moved.hash
    before, after = edited(make, file, "{path: /a, train: images, names: [dog]}")
    assert before.hash != after.hash
    before, after = edited(make, file, "[no mapping")
    assert before.hash != after.hash


def test_another_checkpoint_is_another_trial(inside: Path) -> None:
    (inside / "weights").write_text("1")
    supernet = {"model": "resnet18", "checkpoint": "weights"}
    before, after = edited(lambda: trial_of(CLASSIFICATION, supernet=supernet), inside / "weights", "2")
    assert before.hash != after.hash
    assert supernet_hash(before) != supernet_hash(after)


def test_a_teachers_weights_count_for_the_stage_that_it_teaches(inside: Path) -> None:
    (inside / "teacher").write_text("1")
    distil = {"teacher": {"model": "resnet34", "checkpoint": "teacher"}}
    retrain = CLASSIFICATION["retrain"] | {"distil": distil}
    before, after = edited(lambda: trial_of(CLASSIFICATION, retrain=retrain), inside / "teacher", "2")
    assert before.hash != after.hash
    assert supernet_hash(before) == supernet_hash(after), "which is pretrained without a teacher"


@pytest.mark.parametrize("named", ["task.tokenizer", "task.data", "task.corpora.held", "supernet.model"])
def test_what_a_language_model_is_made_of(inside: Path, named: str) -> None:
    folder = inside / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (inside / "held.txt").write_text("word")
    task, file = LANGUAGE["task"], folder / "config.json"
    match named:
        case "task.tokenizer":
            task = task | {"tokenizer": "folder"}
        case "task.data":
            task = task | {"data": {"name": "text", "root": "folder"}}
        case "task.corpora.held":
            task, file = task | {"corpora": [{"name": "held", "path": "held.txt"}]}, inside / "held.txt"
    supernet = {"model": "folder" if named == "supernet.model" else "llama"}
    before, after = edited(lambda: trial_of(LANGUAGE, task=task, supernet=supernet), file, "other")
    assert before.content.keys() == after.content.keys() == {named}
    assert before.hash != after.hash


def test_weights_of_a_folder_count_where_they_are_read(inside: Path) -> None:
    folder = inside / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("1")
    for experiment in (CLASSIFICATION, LANGUAGE):
        for pretrained in (False, True):
            supernet = {"model": "folder", "pretrained": pretrained}
            before, after = edited(
                lambda experiment=experiment, supernet=supernet: trial_of(experiment, supernet=supernet),
                folder / "model.safetensors",
                "2",
            )
            assert (before.hash != after.hash) == pretrained


def test_a_trial_that_is_read_back_keeps_what_it_was_made_of(inside: Path) -> None:
    (inside / "own.yaml").write_text("nc: 3")
    trial = trial_of(DETECTION, supernet={"model": "own.yaml"})
    text = trial.model_dump_json()
    (inside / "own.yaml").unlink()
    content.forget()
    assert Trial.model_validate_json(text).hash == trial.hash


def test_one_search_for_several_budgets_lies_nowhere_either() -> None:
    budgets = [{"kind": "macs", "target": target} for target in ("30%", "60%")]
    fields = {
        "method": {"kind": "dms", "budgets_in_one": True},
        "search": {"epochs": 1, "lr": 0.1},
        "sweep": {"grid": {"task.data.root": ["/a/cars", "/b/cars"], "budget": budgets}},
    }
    suite = parse_suite({"name": "suite", "experiments": [CLASSIFICATION | fields]})
    assert len(resolve(suite)) == 2, "two places, and two budgets"
    (shared,) = {search_hash(trial) for trial in resolve(suite)}
    (former,) = {search_hash(trial, former=True) for trial in resolve(suite)}
    assert None not in (shared, former)
    assert shared != former
