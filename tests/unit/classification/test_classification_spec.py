from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.classification.spec import ClassificationTask


def task(**fields: Any) -> ClassificationTask:
    return ClassificationTask.model_validate(fields)


def test_reading_a_specification_imports_no_torch() -> None:
    code = "import sys, dms_bench_tasks.classification.spec; print(*{'torch', 'timm', 'sklearn'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == ""


def test_the_input_follows_the_data_unless_given() -> None:
    assert (task(data="glyphs").image_size, task(data="glyphs").channels) == (32, 1)
    timm = {"name": "timm", "root": "images", "classes": 10}
    assert (task(data=timm).image_size, task(data=timm).channels) == (224, 3)
    assert (task(data="digits", image_size=16, channels=3).image_size) == 16
    spelled = task(data={"name": "glyphs"}, image_size=32, channels=1)
    assert spelled.content_hash() == task(data="glyphs").content_hash()


def test_labels() -> None:
    assert task(data="glyphs").label() == "glyphs 32px"
    assert task(data={"name": "timm", "root": "/data/imagenet/", "classes": 10}).label() == "imagenet 224px"
    cifar = task(data={"name": "timm", "dataset": "torch/cifar10", "classes": 10}, image_size=32)
    assert cifar.label() == "cifar10 32px"


def test_counts_have_units() -> None:
    assert task(data={"name": "glyphs", "train": "4k"}).data.train == 4000  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": "glyph"}, "glyph"),
        ({"data": {"name": "glyphs", "dificulty": 1}}, "dificulty"),
        ({"data": {"name": "glyphs", "difficulty": 2}}, "less than or equal to 1"),
        ({"data": {"name": "timm", "classes": 2}}, "give 'root'"),
        ({"data": {"name": "timm", "classes": 2, "root": "x", "splits": {"test": "train"}}}, "different splits"),
        ({"data": {"name": "timm", "classes": 2, "root": "x", "mean": [0.5]}}, "1 values for 3 channels"),
        ({"data": {"name": "digits", "val_fraction": 0.6, "test_fraction": 0.5}}, "nothing to train on"),
    ],
)
def test_wrong_tasks_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        task(**fields)


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"epochs": 2, "warmup_epochs": 2}, {"amp": "fp16"}, {"droppath": 0.1}])
def test_wrong_recipes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClassificationRecipe.model_validate({"epochs": 5, "lr": 0.1} | wrong)
