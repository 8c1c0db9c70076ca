"""What a suite says about object detection: the data, the input, and how a network is trained.

Reading it imports neither torch nor Ultralytics. Options carry Ultralytics' names and mean what they mean there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BeforeValidator, Field

from dms_bench.config.base import Spec
from dms_bench.config.content import digest_of_path, digest_of_text
from dms_bench.config.proposal import Brought
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import PERCENT, TaskSpec, Unit
from dms_bench.config.units import WholeCount
from dms_bench_tasks.common.place import placed

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Gain = Annotated[float, Field(ge=0)]
#: They are drawn, and held in memory.
RenderedImages = Annotated[WholeCount, Field(le=1_000_000)]


class GlyphScenes(Spec):
    """Rendered characters and shapes on textured backgrounds, with boxes, drawn as many and as hard as asked."""

    name: Literal["glyph-scenes"] = "glyph-scenes"
    """`glyph-scenes`: rendered scenes, which need no files."""
    train: RenderedImages = 1000
    """Images of the training split; a larger split begins with the images of a smaller one."""
    val: RenderedImages = 200
    """Images of the validation split."""
    test: RenderedImages = 500
    """Images of the test split."""
    classes: Annotated[int, Field(ge=1, le=16)] = 12
    """How many of the 16 kinds of object are told apart."""
    objects: Annotated[int, Field(ge=1, le=40)] = 8
    """The number of objects in an image is drawn between 1 and this; those that find no place are left out."""
    difficulty: Share = 0.5
    """0: large, upright, clean and apart; 1: small, turned, covered by one another, faint and noisy."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the images. It is not the trial's: all trials of a suite see the same images."""

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class YoloData(Spec):
    """Any data set that a data YAML of Ultralytics describes, COCO among them. Nothing is downloaded."""

    name: Literal["yolo"] = "yolo"
    """`yolo`: a data set that a data YAML of Ultralytics describes."""
    path: str
    """Path of the data YAML, or the name of one that comes with Ultralytics, such as `coco.yaml`."""
    root: str | None = None
    """Folder of the data, in place of the YAML's own `path`."""
    test: Literal["val", "test"] = "val"
    """The YAML's split that is measured once, at the end. val: validation gets `val_fraction` of `train` instead; test:
    validation gets the YAML's `val`."""
    val_fraction: OpenShare = 0.02
    """Share of `train` that is held out for validation, where `test` is val."""
    train_images: WholeCount | None = None
    """Images of the YAML's `train`: with it a suite is planned where the data are not."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of what is held out."""
    cache: Literal["none", "ram", "disk"] = "none"
    """Ultralytics' option: where decoded images are kept, in memory (ram), on disk, or nowhere."""
    workers: Annotated[int, Field(ge=0)] = 8
    """Ultralytics' option: processes that decode and augment, per worker of the trial; none on a CPU."""

    def label(self) -> str:
        """Return the set's short name."""
        return self.path.rstrip("/").rpartition("/")[2].removesuffix(".yaml").removesuffix(".yml")

    def identity(self) -> Self:
        """Return the data as they are known wherever they lie."""
        return self.model_copy(update={"root": f"data/{self.label()}", "workers": 8})


def _by_name(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": "yolo", "path": value} if value.endswith((".yaml", ".yml")) else {"name": value}
    return value


Data = Annotated[Annotated[GlyphScenes | YoloData, Field(discriminator="name")], BeforeValidator(_by_name)]


class DetectionRecipe(Recipe):
    """One training stage. `batch_size` is the number of images of one forward pass, over all workers."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images of one forward pass, over all workers of the trial."""
    optimizer: Literal["SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "MuSGD"] = "SGD"
    """Ultralytics' option: the optimiser, by the name that Ultralytics gives it."""
    lr0: Annotated[float, Field(gt=0)] = 0.01
    """Ultralytics' option: learning rate after the warm-up; the highest one."""
    lrf: Annotated[float, Field(gt=0)] = 0.01
    """Ultralytics' option: the last learning rate, as a share of `lr0`."""
    momentum: Share = 0.937
    """Ultralytics' option: momentum of SGD, or Adam's first beta."""
    weight_decay: Gain = 5e-4
    """Ultralytics' option: weight decay, of weights but not of biases and norms."""
    cos_lr: bool = False
    """Ultralytics' option: lower the learning rate by a cosine instead of linearly."""
    warmup_epochs: Gain = 3.0
    """Ultralytics' option: epochs of warm-up, fractions too; at most all but the last."""
    warmup_momentum: Share = 0.8
    """Ultralytics' option: momentum at the beginning of the warm-up."""
    warmup_bias_lr: Gain = 0.1
    """Ultralytics' option: learning rate of the biases at the beginning of the warm-up."""
    nbs: Annotated[int, Field(ge=1)] = 64
    """Ultralytics' option: images per optimiser step, where it is more than `batch_size`; gradients add up over several
    passes."""
    amp: Literal["none", "bf16"] = "none"
    """Precision of the forward pass: none (as the weights are), or bf16 (autocast)."""

    box: Gain = 7.5
    """Ultralytics' option: weight of the loss of the boxes' overlap."""
    cls: Gain = 0.5
    """Ultralytics' option: weight of the loss of the classes."""
    dfl: Gain = 1.5
    """Ultralytics' option: weight of the loss of the boxes' edges (distribution focal loss)."""

    hsv_h: Share = 0.015
    """Ultralytics' option: largest random change of hue, as a share of its range."""
    hsv_s: Share = 0.7
    """Ultralytics' option: largest random change of saturation, as a share."""
    hsv_v: Share = 0.4
    """Ultralytics' option: largest random change of brightness, as a share."""
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Ultralytics' option: largest random rotation to either side, in degrees."""
    translate: Share = 0.1
    """Ultralytics' option: largest random shift, as a share of the image's size."""
    scale: Gain = 0.5
    """Ultralytics' option: largest random change of size; 0.5 draws factors from 0.5 to 1.5."""
    shear: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Ultralytics' option: largest random shear to either side, in degrees."""
    perspective: Annotated[float, Field(ge=0, le=0.001)] = 0.0
    """Ultralytics' option: largest random perspective distortion; at most 0.001."""
    flipud: Share = 0.0
    """Ultralytics' option: chance of a vertical flip."""
    fliplr: Share = 0.5
    """Ultralytics' option: chance of a horizontal flip."""
    mosaic: Share = 1.0
    """Ultralytics' option: chance that an image is put together from several."""
    mixup: Share = 0.0
    """Ultralytics' option: chance that two images are blended."""
    close_mosaic: Annotated[int, Field(ge=0)] = 10
    """Last epochs without mosaic."""
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Ultralytics' option: largest random change of the whole batch's image size, as a share; 0: off."""


class DetectionTask(TaskSpec):
    """Detect objects with any detection network of Ultralytics; measured as mAP50-95 in percent."""

    implementation: ClassVar[str] = "dms_bench_tasks.detection.task:Detection"
    recipe_class: ClassVar[type[Recipe]] = DetectionRecipe
    metric: ClassVar[str] = "map50_95"
    units: ClassVar[Mapping[str, Unit]] = {"map50_95": PERCENT, "map50": PERCENT}
    libraries: ClassVar[tuple[str, ...]] = ("ultralytics",)
    has_head: ClassVar[bool] = True
    proposal: ClassVar[str] = "dms_bench_tasks.detection.proposal:propose"
    picture_size: ClassVar[str | None] = "image_size"
    picture_step: ClassVar[int] = 32
    example: ClassVar[dict[str, Any]] = {
        "task": {"kind": "detection", "data": {"name": "glyph-scenes", "train": 1000}, "image_size": 160},
        "supernet": {"model": "yolov8n.yaml"},
        "search": {"epochs": 10, "batch_size": 16},
        "retrain": {"epochs": 30, "batch_size": 16, "close_mosaic": 5},
    }

    kind: Literal["detection"] = "detection"
    data: Data
    """The images: a mapping, or the name of the embedded set (glyph-scenes), or the path of a data YAML alone."""
    image_size: Annotated[int, Field(ge=32, le=8192, multiple_of=32)] = 640
    """Height and width of the input in pixels, a multiple of 32."""

    def identity(self) -> Self:
        """Return the task with its data as they are known wherever they lie."""
        return self.model_copy(update={"data": self.data.identity()}) if isinstance(self.data, YoloData) else self

    def placed(self, roots: Mapping[str, str], workers: int | None) -> Self:
        """Return the task with its data where a site has them."""
        return self.model_copy(update={"data": placed(self.data, self.data.label(), roots, workers)})

    def local_content(self, supernet: SupernetSpec) -> dict[str, str]:
        """Return digests of weights, and of the YAMLs of model and data where they are none of Ultralytics' own."""
        data = _digest_of_data(self.data.path) if isinstance(self.data, YoloData) else None
        return super().local_content(supernet) | ({"task.data": data} if data is not None else {})

    def local_model(self, supernet: SupernetSpec) -> str | None:
        """Return a digest of the model's YAML, where it is none of Ultralytics' own."""
        # Ultralytics reads yolov8.yaml for yolov8n.yaml, where there is one.
        names = (re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", supernet.model), supernet.model)
        return next((digest_of_path(name) for name in names if os.path.isfile(name)), None)

    @classmethod
    def takes(cls, brought: Brought) -> bool:
        """Whether the data is a data YAML of Ultralytics, or the embedded set."""
        return brought.data == "glyph-scenes" or brought.data.endswith((".yaml", ".yml"))

    def label(self) -> str:
        """Return the task as the leaderboard prints it, for example `glyph-scenes 160px`."""
        return f"{self.data.label()} {self.image_size}px"


def _digest_of_data(path: str) -> str | None:
    """Return a digest of what a data YAML says, but for where the data lie; None where there is no such file."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
        kept = {field: value for field, value in content.items() if field not in ("path", "download")}
        return digest_of_text(json.dumps(kept, sort_keys=True, default=str))
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):  # which who reads it reports
        return digest_of_path(path)
