"""What a suite says about image classification: the data, the input, and how a network is trained.

Reading it imports neither torch nor timm. Options carry timm's names and mean what they mean there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.config.units import WholeCount
from dms_bench_tasks.common.recipe import SteppedRecipe

Share = Annotated[float, Field(ge=0, lt=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]


class GlyphsData(Spec):
    """Rendered characters under distortion and clutter, drawn as many and as hard as asked."""

    name: Literal["glyphs"] = "glyphs"
    #: Images of each split; a larger split begins with the images of a smaller one.
    train: WholeCount = 4000
    val: WholeCount = 1000
    test: WholeCount = 2000
    #: How many of the 36 characters are told apart.
    classes: Annotated[int, Field(ge=2, le=36)] = 36
    #: 0: upright, clean and centred; 1: strongly distorted, cluttered, noisy and faint.
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5
    #: Seed of the images. It is not the trial's: all trials of a suite see the same images.
    seed: Annotated[int, Field(ge=0)] = 0

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class DigitsData(Spec):
    """The 1,797 real handwritten digits of scikit-learn, scaled up to `image_size`."""

    name: Literal["digits"] = "digits"
    #: Shares of the set held out, the same of every class.
    val_fraction: OpenShare = 0.2
    test_fraction: OpenShare = 0.2
    #: Seed of the split.
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing to train on")
        return self

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class Splits(Spec):
    """The data set's own names for its splits (or its sub-folders)."""

    train: str = "train"
    #: Where the set has no split to spare: None holds out `val_fraction` of `train`.
    val: str | None = None
    test: str = "validation"

    @model_validator(mode="after")
    def _test_is_separate(self) -> Self:
        if len({self.train, self.val, self.test}) < 3:
            raise ValueError(f"train {self.train!r}, val {self.val!r} and test {self.test!r} must be different splits")
        return self


class TimmData(Spec):
    """Any data set that `timm.data.create_dataset` opens."""

    name: Literal["timm"] = "timm"
    #: timm's name: "" for a folder of images, torch/cifar10, hfds/<repository>, wds/<name>, ...
    dataset: str = ""
    root: str | None = None
    splits: Splits = Splits()
    classes: Annotated[int, Field(ge=2)]
    #: Share of `train` that is held out for selection where `splits.val` is not given.
    val_fraction: OpenShare = 0.1
    #: Seed of what is held out.
    seed: Annotated[int, Field(ge=0)] = 0
    #: Images of `splits.train`, where a suite is planned on a machine that does not have them; checked where they are.
    train_images: WholeCount | None = None
    #: File that maps folder names to class numbers.
    class_map: str | None = None
    download: bool = False
    #: Processes that decode and augment, per worker of the trial.
    workers: Annotated[int, Field(ge=0)] = 2
    #: None: what the model's configuration in timm says.
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _a_folder_needs_a_root(self) -> Self:
        if not self.dataset and self.root is None:
            raise ValueError("give 'root' (a folder of images) or 'dataset' (a data set that timm knows)")
        return self

    def label(self) -> str:
        """Return the set's short name."""
        name = self.dataset or str(self.root)
        return name.rstrip("/").rpartition("/")[2]


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Data = Annotated[
    Annotated[GlyphsData | DigitsData | TimmData, Field(discriminator="name")], BeforeValidator(_name_alone)
]


class Teacher(Spec):
    """A network of timm that has learnt the task already."""

    model: str
    #: timm's own weights, where there is no checkpoint.
    pretrained: bool = True
    #: Path of a safetensors or weights-only file.
    checkpoint: str | None = None
    #: Height and width of the images that it is shown, scaled from the student's; None: the student's.
    image_size: Annotated[int, Field(ge=8)] | None = None


class Distillation(Spec):
    """Learn from a teacher's predictions, too: loss = the recipe's own + weight x distance from them."""

    #: kl: divergence of softened predictions; dist: correlation between and within classes (Huang et al. 2022).
    loss: Literal["kl", "dist"] = "kl"
    weight: Annotated[float, Field(gt=0)] = 1.0
    #: Both predictions are softened by it; the distance is multiplied by its square.
    temperature: Annotated[float, Field(gt=0)] = 1.0
    #: None: the pretrained supernet, as it was before the search.
    teacher: Teacher | None = None


class ClassificationRecipe(SteppedRecipe):
    """One training stage. `batch_size` is the number of images per optimiser step, over all workers."""

    #: Optimiser steps of an epoch, where it is to end before all images were seen; for searches of some hundred steps.
    epoch_steps: Annotated[int, Field(ge=1)] | None = None
    #: Optimiser: any name that timm knows (sgd, adamw, rmsproptf, lamb, ...).
    opt: str = "sgd"
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 2e-5
    momentum: Share = 0.9
    #: Further arguments of the optimiser, such as `{eps: 0.001}`.
    opt_kwargs: dict[str, Any] = Field(default_factory=dict)
    clip_grad: Annotated[float, Field(gt=0)] | None = None
    clip_mode: Literal["norm", "value", "agc"] = "norm"

    #: Schedule, advanced on every optimiser step; times are in epochs.
    sched: Literal["cosine", "step", "multistep", "poly", "constant"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    warmup_lr: Annotated[float, Field(ge=0)] = 1e-5
    min_lr: Annotated[float, Field(ge=0)] = 0
    #: Interval of `step`.
    decay_epochs: Annotated[float, Field(gt=0)] = 30
    #: Times of `multistep`.
    decay_milestones: tuple[Annotated[int, Field(gt=0)], ...] = (30, 60)
    #: Factor of `step` and `multistep`, power of `poly`.
    decay_rate: Annotated[float, Field(gt=0)] = 0.1

    smoothing: Share = 0.0
    #: Binary cross entropy per class instead of cross entropy.
    bce_loss: bool = False
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    mixup_prob: Annotated[float, Field(ge=0, le=1)] = 1.0
    mixup_switch_prob: Annotated[float, Field(ge=0, le=1)] = 0.5
    #: Epoch after which mixup and cutmix stop; 0: never.
    mixup_off_epoch: Annotated[int, Field(ge=0)] = 0
    #: Dropout before the classifier (besides what the model's own arguments give) and stochastic depth of
    #: the last block, growing linearly from 0 in the first. None: as the model was built.
    drop: Share | None = None
    drop_path: Share | None = None
    #: Moving average of the weights, which is validated and returned. In a search the structure is
    #: not averaged.
    model_ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    model_ema_warmup: bool = False

    #: Random erasing: probability and filling.
    reprob: Annotated[float, Field(ge=0, le=1)] = 0.0
    remode: Literal["const", "rand", "pixel"] = "pixel"
    #: Embedded sets only: random translation by up to this many pixels.
    shift: Annotated[int, Field(ge=0)] = 0
    #: timm's data sets only: automatic augmentation, such as rand-m9-mstd0.5, and the random crop.
    aa: str | None = None
    color_jitter: Annotated[float, Field(ge=0)] = 0.4
    hflip: Annotated[float, Field(ge=0, le=1)] = 0.5
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    train_interpolation: Literal["random", "bilinear", "bicubic"] = "random"

    #: In no hash of a trial without it.
    distil: Annotated[Distillation | None, Field(exclude_if=lambda distil: distil is None)] = None

    @field_validator("distil", mode="before")
    @classmethod
    def _true_is_the_defaults(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} must be less than epochs {self.epochs}")
        return self

    def samples_per_epoch(self, available: int) -> int:
        """Return how many of the training images an epoch takes."""
        return available if self.epoch_steps is None else min(available, self.epoch_steps * self.batch_size)

    def needs_teacher(self) -> bool:
        """Whether the pretrained supernet teaches the stage."""
        return self.distil is not None and self.distil.teacher is None

    def teacher(self, task: TaskSpec, supernet: SupernetSpec) -> tuple[TaskSpec, SupernetSpec] | None:
        """Return the supernet, or a teacher of its own at the size that it is shown."""
        own = self.distil.teacher if self.distil else None
        if own is None:
            return super().teacher(task, supernet)
        shown = {"image_size": own.image_size} if own.image_size else {}
        return task.model_copy(update=shown), SupernetSpec(model=own.model)

    def weight_files(self) -> list[Path]:
        """Return the file with the weights of a teacher of its own."""
        teacher = self.distil.teacher if self.distil else None
        return [Path(teacher.checkpoint)] if teacher and teacher.checkpoint else []

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0


class ClassificationTask(TaskSpec):
    """Classify images with any network of timm; measured as top-1 accuracy in percent."""

    implementation: ClassVar[str] = "dms_bench_tasks.classification.task:Classification"
    recipe_class: ClassVar[type[Recipe]] = ClassificationRecipe
    metric: ClassVar[str] = "top1"
    libraries: ClassVar[tuple[str, ...]] = ("timm",)
    multiplies: ClassVar[bool] = True

    kind: Literal["classification"] = "classification"
    data: Data
    #: Height and width of the input; 32 for the embedded sets and 224 for timm's, unless given.
    image_size: Annotated[int, Field(ge=8)]
    #: 1 (grey; embedded sets unless given) or 3 (colour; timm's sets unless given).
    channels: Literal[1, 3]

    @model_validator(mode="before")
    @classmethod
    def _input_of_the_data(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        data = _name_alone(value.get("data"))
        name = data.get("name") if isinstance(data, dict) else getattr(data, "name", None)
        size, channels = (224, 3) if name == "timm" else (32, 1)
        return {"image_size": size, "channels": channels, **value}

    @model_validator(mode="after")
    def _statistics_fit(self) -> Self:
        for field in ("mean", "std"):
            values = getattr(self.data, field, None)
            if values is not None and len(values) != self.channels:
                raise ValueError(f"data.{field} has {len(values)} values for {self.channels} channels")
        return self

    def label(self) -> str:
        """Return the task as the leaderboard prints it, for example `glyphs 32px`."""
        return f"{self.data.label()} {self.image_size}px"
