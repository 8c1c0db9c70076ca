"""What a suite says about image classification: the data, the input, and how a network is trained.

Reading it imports neither torch nor timm. Options carry timm's names and mean what they mean there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.content import digest_of_path
from dms_bench.config.own_network import NetworkName
from dms_bench.config.proposal import Brought
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import PERCENT, TaskSpec, Unit
from dms_bench.config.units import WholeCount, also_boolean
from dms_bench_tasks.common.place import folder_name, placed
from dms_bench_tasks.common.recipe import SteppedRecipe

Share = Annotated[float, Field(ge=0, lt=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
#: In pixels; more is a mistake.
ImageSize = Annotated[int, Field(ge=8, le=8192)]
#: Sets that need no files, by name.
EMBEDDED = ("glyphs", "digits", "fashion_mnist")
#: Endings of images' names; timm reads some of them.
PICTURES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
#: They are drawn, and held in memory.
RenderedImages = Annotated[WholeCount, Field(le=1_000_000)]


class GlyphsData(Spec):
    """Rendered characters under distortion and clutter, drawn as many and as hard as asked."""

    name: Literal["glyphs"] = "glyphs"
    """`glyphs`: rendered characters, which need no files."""
    train: RenderedImages = 4000
    """Images of the training split; a larger split begins with the images of a smaller one."""
    val: RenderedImages = 1000
    """Images of the validation split."""
    test: RenderedImages = 2000
    """Images of the test split."""
    classes: Annotated[int, Field(ge=2, le=36)] = 36
    """How many of the 36 characters are told apart."""
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5
    """0: upright, clean and centred; 1: strongly distorted, cluttered, noisy and faint."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the images. It is not the trial's: all trials of a suite see the same images."""

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class DigitsData(Spec):
    """The 1,797 real handwritten digits of scikit-learn, scaled up to `image_size`."""

    name: Literal["digits"] = "digits"
    """`digits`: scikit-learn's handwritten digits, which come with it."""
    val_fraction: OpenShare = 0.2
    """Share of the set held out for validation, the same of every class."""
    test_fraction: OpenShare = 0.2
    """Share of the set held out for the test, the same of every class."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split."""

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


class FashionData(Spec):
    """Fashion-MNIST: real pictures of ten kinds of clothes, 28 x 28, scaled to `image_size`; a part is embedded."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    """`fashion_mnist`: pictures of clothes, of which 22,000 come with the package."""
    train: Annotated[WholeCount, Field(le=60_000)] = 10_000
    """Pictures of the training split, of each class alike; a larger split begins with those of a smaller one."""
    val: Annotated[WholeCount, Field(le=60_000)] = 2_000
    """Pictures of the validation split, which the original has for training, too."""
    test: Annotated[WholeCount, Field(le=10_000)] = 10_000
    """Pictures of the test split, of the original's 10,000."""
    root: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """Folder of the original's four files, for more than 10,000 pictures to train on or 2,000 to validate: the one that
    `dms-bench data get fashion_mnist` makes, that of Debian's package `dataset-fashion-mnist`, or torchvision's."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 10

    @model_validator(mode="after")
    def _are_there(self) -> Self:
        if self.root is None and (self.train > 10_000 or self.val > 2_000):
            raise ValueError(
                f"train {self.train} and val {self.val}: 10000 and 2000 pictures come with the package; give 'root', "
                "the folder of the original, for more"
            )
        if self.train + self.val > 60_000:
            raise ValueError(f"train {self.train} and val {self.val} share the original's 60000 pictures")
        return self

    def label(self) -> str:
        """Return the set's short name."""
        return self.name

    def identity(self) -> Self:
        """Return the data as they are known wherever the original lies; the part that comes along is the original's."""
        return self.model_copy(update={"root": None})


class Splits(Spec):
    """The data set's own names for its splits (or its sub-folders)."""

    train: str = "train"
    """Name of the training split, or its sub-folder."""
    val: str | None = None
    """Name of the split for validation. null: hold out `val_fraction` of `train`, for sets without a split to spare."""
    test: str | None = "validation"
    """Name of the split that is measured once, at the end. null: hold out `test_fraction` of `train`, for a folder of
    classes without splits (whose `train` is `.`, the folder itself)."""

    @model_validator(mode="after")
    def _test_is_separate(self) -> Self:
        named = [name for name in (self.train, self.val, self.test) if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"train {self.train!r}, val {self.val!r} and test {self.test!r} must be different splits")
        return self


#: Data sets of timm's that are whatever lies in `root`.
_FOLDERS = ("torch/image_folder", "torch/folder", "wds/")


class TimmData(Spec):
    """Any data set that `timm.data.create_dataset` opens."""

    name: Literal["timm"] = "timm"
    """`timm`: a data set that timm opens."""
    dataset: str = ""
    """timm's name of the set: empty for a folder of images, torch/cifar10, hfds/<repository>, wds/<name>, ..."""
    root: str | None = None
    """Folder of the data; needed for a folder of images."""
    called: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """Name of the data on boards, where it is not the folder's or the set's. null: that."""
    splits: Splits = Splits()
    """The data set's own names for its splits."""
    classes: Annotated[int, Field(ge=2)]
    """Number of classes."""
    val_fraction: OpenShare = 0.1
    """Share of `train` that is held out for validation where `splits.val` is not given."""
    # In no hash of a trial without it.
    test_fraction: Annotated[OpenShare | None, Field(exclude_if=lambda value: value is None)] = None
    """Share of `train` that is held out for the test, where `splits.test` is null."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of what is held out."""
    train_images: WholeCount | None = None
    """Images of `splits.train`, to plan a suite on a machine that does not have them; checked where they are."""
    class_map: str | None = None
    """timm's option: file that maps folder names to class numbers."""
    download: bool = False
    """timm's option: let the data set be downloaded, where its source allows that."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that decode and augment, per worker of the trial."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel that images are normalised by, in [0, 1]. null: what the model's configuration in timm
    says."""
    std: tuple[float, ...] | None = None
    """Deviation of each channel that images are normalised by. null: what the model's configuration in timm says."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How images are resized for validation and test. null: what the model's configuration in timm says."""
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the resized image that the central crop keeps in validation and test. null: what the model's
    configuration in timm says."""

    @model_validator(mode="after")
    def _a_folder_needs_a_root(self) -> Self:
        if not self.dataset and self.root is None:
            raise ValueError("give 'root' (a folder of images) or 'dataset' (a data set that timm knows)")
        return self

    @model_validator(mode="after")
    def _a_test_is_held_out_or_there(self) -> Self:
        if (self.splits.test is None) != (self.test_fraction is not None):
            raise ValueError("give 'test_fraction' where splits.test is null, and only there")
        if self.splits.test is None and self.splits.val is not None:
            raise ValueError("splits.val names a split, but splits.test is null: name both, or let both be held out")
        if self.test_fraction is not None and self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing to train on")
        return self

    @property
    def folder(self) -> str | None:
        """The folder of the data, `~` written out."""
        return None if self.root is None else os.path.expanduser(self.root)

    def label(self) -> str:
        """Return the set's short name."""
        name = self.called or self.dataset or str(self.root)
        return name.rstrip("/").rpartition("/")[2]

    def identity(self) -> Self:
        """Return the data as they are known wherever they lie: a folder of images by its name."""
        by_folder = not self.dataset or self.dataset.lower().startswith(_FOLDERS)
        root = f"data/{self.called or folder_name(str(self.root))}" if by_folder else None
        return self.model_copy(update={"root": root, "called": None, "workers": 2, "download": False})


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Data = Annotated[
    Annotated[GlyphsData | DigitsData | FashionData | TimmData, Field(discriminator="name")],
    BeforeValidator(_name_alone),
]


class Teacher(Spec):
    """A network of timm that has learnt the task already."""

    model: NetworkName
    """Name of the teacher in timm."""
    pretrained: bool = True
    """Take timm's own weights, where there is no checkpoint."""
    checkpoint: str | None = None
    """Path of a safetensors or weights-only file with the teacher's weights."""
    image_size: ImageSize | None = None
    """Height and width, in pixels, of the images that the teacher is shown, scaled from the student's. null: the
    student's."""


class ClassificationDistillation(Spec):
    """Learn from a teacher's predictions, too: loss = the recipe's own + weight x distance from them."""

    loss: Literal["kl", "dist"] = "kl"
    """Distance from the teacher's predictions. kl: KL divergence of softened predictions; dist: correlation between and
    within classes (Huang et al. 2022)."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the distance, which is added to the recipe's own loss."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Both predictions are softened by it; the distance is multiplied by its square."""
    teacher: Teacher | None = None
    """The teacher. null: the pretrained supernet, as it was before the search."""


class ClassificationRecipe(SteppedRecipe):
    """One training stage. `batch_size` is the number of images per optimiser step, over all workers."""

    epoch_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps of an epoch, where it is to end before all images were seen; for searches of some hundred steps.
    null: all images."""
    opt: str = "sgd"
    """Optimiser: any name that timm knows (sgd, adamw, rmsproptf, lamb, ...)."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate after the warm-up; the highest one. It is not scaled with the batch."""
    weight_decay: Annotated[float, Field(ge=0)] = 2e-5
    """Weight decay; as in timm, biases and norms go without it."""
    momentum: Share = 0.9
    """Momentum, for optimisers that have one."""
    opt_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the optimiser, such as `{eps: 0.001}`."""
    clip_grad: Annotated[float, Field(gt=0)] | None = None
    """Bound on the gradients in each step, in the sense of `clip_mode`. null: not clipped."""
    clip_mode: Literal["norm", "value", "agc"] = "norm"
    """timm's option. norm: bound the norm of all gradients; value: bound each value; agc: adaptive, relative to the
    norm of the weights."""

    sched: Literal["cosine", "step", "multistep", "poly", "constant"] = "cosine"
    """timm's schedule of the learning rate, advanced on every optimiser step; its times are in epochs."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0
    """Epochs, fractions too, in which the learning rate rises from `warmup_lr` to `lr`; the schedule's own time runs
    meanwhile."""
    warmup_lr: Annotated[float, Field(ge=0)] = 1e-5
    """Learning rate at the beginning of the warm-up."""
    min_lr: Annotated[float, Field(ge=0)] = 0
    """Learning rate at the end of the cosine and poly schedules."""
    decay_epochs: Annotated[float, Field(gt=0)] = 30
    """Epochs between two steps of the schedule `step`."""
    decay_milestones: tuple[Annotated[int, Field(gt=0)], ...] = (30, 60)
    """Epochs at which the schedule `multistep` lowers the learning rate."""
    decay_rate: Annotated[float, Field(gt=0)] = 0.1
    """Factor on the learning rate at each step of `step` and `multistep`; power of `poly`."""

    smoothing: Share = 0.0
    """Label smoothing: share of the target that is spread over all classes."""
    bce_loss: bool = False
    """Binary cross entropy per class instead of cross entropy."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """timm's mixup: parameter alpha of the beta distribution of shares; 0: off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """timm's cutmix: parameter alpha of the beta distribution of shares; 0: off."""
    mixup_prob: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Chance that a batch is mixed at all, where mixup or cutmix is on."""
    mixup_switch_prob: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance of cutmix instead of mixup, where both are on."""
    mixup_off_epoch: Annotated[int, Field(ge=0)] = 0
    """Epochs after which mixup and cutmix stop; 0: never."""
    drop: Share | None = None
    """Dropout before the classifier, besides what the model's own arguments give. null: as the model was built."""
    drop_path: Share | None = None
    """Stochastic depth of the last block, growing linearly from 0 in the first. null: as the model was built."""
    model_ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay, per optimiser step, of a moving average of the weights, which is what is validated and returned; a search
    validates its present network. null: no average."""
    model_ema_warmup: bool = False
    """timm's option: let the average's decay rise from 0 over the first steps."""

    reprob: Annotated[float, Field(ge=0, le=1)] = 0.0
    """timm's random erasing: chance that part of an image is erased."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    """What an erased part is filled with. const: zeros; rand: one random colour; pixel: a random colour for each
    pixel."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Random translation by up to this many pixels. For the embedded sets only."""
    aa: str | None = None
    """timm's automatic augmentation, such as `rand-m9-mstd0.5`; null: off. For timm's data sets only."""
    color_jitter: Annotated[float, Field(ge=0)] = 0.4
    """timm's random change of brightness, contrast and saturation, by up to this share; as in timm, off where `aa` is
    given (but for its 3a policies). For timm's data sets only."""
    hflip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance of a horizontal flip. For timm's data sets only."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of an image's area that the random crop takes. For timm's data sets only."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest aspect ratio of the random crop. For timm's data sets only."""
    train_interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    """How the random crop is resized; random: by either, drawn for each image. For timm's data sets only."""

    # In no hash of a trial without it.
    distil: Annotated[
        ClassificationDistillation | None,
        Field(exclude_if=lambda distil: distil is None, json_schema_extra=also_boolean),
    ] = None
    """Learn from a teacher's predictions, too; `true` takes the defaults: the pretrained supernet teaches. null: no
    teacher."""

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
        teacher_spec = self.distil.teacher if self.distil else None
        if teacher_spec is None:
            return super().teacher(task, supernet)
        shown = {"image_size": teacher_spec.image_size} if teacher_spec.image_size else {}
        return task.model_copy(update=shown), SupernetSpec(model=teacher_spec.model)

    def weight_files(self) -> list[Path]:
        """Return the file with the weights of a teacher of its own."""
        teacher = self.distil.teacher if self.distil else None
        return [Path(teacher.checkpoint).expanduser()] if teacher and teacher.checkpoint else []

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0


def _input_may_follow(schema: dict[str, Any]) -> None:
    """Tell readers of the JSON Schema that the size of the input follows from the data."""
    schema["required"] = [name for name in schema["required"] if name not in ("image_size", "channels")]


class ClassificationTask(TaskSpec):
    """Classify images with any network of timm, and others; measured as top-1 accuracy in percent."""

    model_config = ConfigDict(json_schema_extra=_input_may_follow)

    implementation: ClassVar[str] = "dms_bench_tasks.classification.task:Classification"
    recipe_class: ClassVar[type[Recipe]] = ClassificationRecipe
    metric: ClassVar[str] = "top1"
    units: ClassVar[Mapping[str, Unit]] = {"top1": PERCENT, "top5": PERCENT}
    libraries: ClassVar[tuple[str, ...]] = ("timm",)
    has_head: ClassVar[bool] = True
    picture_size: ClassVar[str | None] = "image_size"
    proposal: ClassVar[str] = "dms_bench_tasks.classification.proposal:propose"
    multiplies: ClassVar[bool] = True
    example: ClassVar[dict[str, Any]] = {
        "task": {"kind": "classification", "data": {"name": "glyphs", "train": 4000}, "image_size": 32},
        "supernet": {"model": "resnet18", "args": {"channels": [16, 32, 64, 128]}},
        "search": {"epochs": 4, "lr": 0.05},
        "retrain": {"epochs": 8, "lr": 0.1, "warmup_epochs": 1, "smoothing": 0.1},
    }

    kind: Literal["classification"] = "classification"
    data: Data
    """The images: a mapping, or the name of an embedded set alone (glyphs, digits, fashion_mnist)."""
    image_size: ImageSize
    """Height and width of the input in pixels; 32 for the embedded sets and 224 for timm's, unless given."""
    channels: Literal[1, 3]
    """1 (grey; embedded sets unless given) or 3 (colour; timm's sets unless given)."""

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

    def identity(self) -> Self:
        """Return the task with its data as they are known wherever they lie."""
        if isinstance(self.data, TimmData | FashionData):
            return self.model_copy(update={"data": self.data.identity()})
        return self

    def placed(self, roots: Mapping[str, str], workers: int | None) -> Self:
        """Return the task with its data where a site has them."""
        return self.model_copy(update={"data": placed(self.data, self.data.label(), roots, workers)})

    def local_content(self, supernet: SupernetSpec) -> dict[str, str]:
        """Return digests of weights, of a folder of transformers and of a map of classes."""
        class_map = self.data.class_map if isinstance(self.data, TimmData) else None
        digest = digest_of_path(class_map) if class_map is not None else None
        return super().local_content(supernet) | ({"task.data.class_map": digest} if digest is not None else {})

    def local_model(self, supernet: SupernetSpec) -> str | None:
        """Return a digest of a folder of transformers, with its weights where they are read."""
        if not Path(supernet.model, "config.json").expanduser().is_file():
            return None
        weights = (".safetensors", ".bin") if supernet.pretrained else ()
        return digest_of_path(supernet.model, (".json", ".py", *weights))

    @classmethod
    def takes(cls, brought: Brought) -> bool:
        """Whether the data is an embedded set, or a folder with pictures."""
        return brought.data in EMBEDDED or (brought.path.is_dir() and brought.holds(PICTURES))

    def weight_files(self, supernet: SupernetSpec) -> list[Path]:
        """Return the files that weights are read from, those of a folder of transformers among them."""
        files = super().weight_files(supernet)
        folder = Path(supernet.model).expanduser()
        if supernet.pretrained and folder.is_dir():
            patterns = ("model*.safetensors", "pytorch_model*.bin")  # the first kind is what transformers loads
            files += next((paths for paths in (sorted(folder.glob(pattern)) for pattern in patterns) if paths), [])
        return files

    def label(self) -> str:
        """Return the task as the leaderboard prints it, for example `glyphs 32px`."""
        return f"{self.data.label()} {self.image_size}px"
