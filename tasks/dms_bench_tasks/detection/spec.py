"""What a suite says about object detection: the data, the input, and how a network is trained.

Reading it imports neither torch nor Ultralytics. Options carry Ultralytics' names and mean what they mean there.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from dms_bench.config.base import Spec
from dms_bench.config.recipe import Recipe
from dms_bench.config.task import TaskSpec
from dms_bench.config.units import WholeCount

Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Gain = Annotated[float, Field(ge=0)]


class GlyphScenes(Spec):
    """Rendered characters and shapes on textured backgrounds, with boxes, drawn as many and as hard as asked."""

    name: Literal["glyph-scenes"] = "glyph-scenes"
    #: Images of each split; a larger split begins with the images of a smaller one.
    train: WholeCount = 1000
    val: WholeCount = 200
    test: WholeCount = 500
    #: How many of the 16 kinds of object are told apart.
    classes: Annotated[int, Field(ge=1, le=16)] = 12
    #: Most objects in an image; at least one.
    objects: Annotated[int, Field(ge=1, le=40)] = 8
    #: 0: large, upright, clean and apart; 1: small, turned, covered by one another, faint and noisy.
    difficulty: Share = 0.5
    #: Seed of the images. It is not the trial's: all trials of a suite see the same images.
    seed: Annotated[int, Field(ge=0)] = 0

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class YoloData(Spec):
    """Any data set that a data YAML of Ultralytics describes, COCO among them. Nothing is downloaded."""

    name: Literal["yolo"] = "yolo"
    #: Path of the data YAML, or the name of one that comes with Ultralytics, such as coco.yaml.
    path: str
    #: Folder of the data, in place of the YAML's own `path`.
    root: str | None = None
    #: The YAML's split that is looked at once, at the end. With `val`, selection gets `val_fraction` of `train`.
    test: Literal["val", "test"] = "val"
    val_fraction: OpenShare = 0.02
    #: Images of the YAML's `train`: with it a suite is planned where the data are not.
    train_images: WholeCount | None = None
    #: Seed of what is held out.
    seed: Annotated[int, Field(ge=0)] = 0
    #: Where decoded images are kept.
    cache: Literal["none", "ram", "disk"] = "none"
    #: Processes that decode and augment, per worker of the trial; none on a CPU.
    workers: Annotated[int, Field(ge=0)] = 8

    def label(self) -> str:
        """Return the set's short name."""
        return self.path.rstrip("/").rpartition("/")[2].removesuffix(".yaml").removesuffix(".yml")


def _by_name(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": "yolo", "path": value} if value.endswith((".yaml", ".yml")) else {"name": value}
    return value


Data = Annotated[Annotated[GlyphScenes | YoloData, Field(discriminator="name")], BeforeValidator(_by_name)]


class DetectionRecipe(Recipe):
    """One training stage. `batch_size` is the number of images of one forward pass, over all workers."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    optimizer: Literal["SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "MuSGD"] = "SGD"
    lr0: Annotated[float, Field(gt=0)] = 0.01
    #: The last learning rate, as a share of `lr0`.
    lrf: Annotated[float, Field(gt=0)] = 0.01
    momentum: Share = 0.937
    weight_decay: Gain = 5e-4
    cos_lr: bool = False
    warmup_epochs: Gain = 3.0
    warmup_momentum: Share = 0.8
    warmup_bias_lr: Gain = 0.1
    #: Images per optimiser step, where it is more than `batch_size`: gradients add up over several passes.
    nbs: Annotated[int, Field(ge=1)] = 64
    #: Autocast of the forward pass.
    amp: Literal["none", "bf16"] = "none"

    #: Weights of the three losses.
    box: Gain = 7.5
    cls: Gain = 0.5
    dfl: Gain = 1.5

    hsv_h: Share = 0.015
    hsv_s: Share = 0.7
    hsv_v: Share = 0.4
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Share = 0.1
    scale: Gain = 0.5
    shear: Annotated[float, Field(ge=0, le=180)] = 0.0
    perspective: Annotated[float, Field(ge=0, le=0.001)] = 0.0
    flipud: Share = 0.0
    fliplr: Share = 0.5
    mosaic: Share = 1.0
    mixup: Share = 0.0
    #: Last epochs without mosaic.
    close_mosaic: Annotated[int, Field(ge=0)] = 10
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0


class DetectionTask(TaskSpec):
    """Detect objects with any detection network of Ultralytics; measured as mAP50-95 in percent."""

    implementation: ClassVar[str] = "dms_bench_tasks.detection.task:Detection"
    recipe_class: ClassVar[type[Recipe]] = DetectionRecipe
    metric: ClassVar[str] = "map50_95"
    libraries: ClassVar[tuple[str, ...]] = ("ultralytics",)

    kind: Literal["detection"] = "detection"
    data: Data
    #: Height and width of the input, a multiple of 32.
    image_size: Annotated[int, Field(ge=32, multiple_of=32)] = 640

    def label(self) -> str:
        """Return the task as the leaderboard prints it, for example `glyph-scenes 160px`."""
        return f"{self.data.label()} {self.image_size}px"
