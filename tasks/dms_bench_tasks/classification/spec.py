"""What a suite says about image classification: the data, the input, and how a network is trained.

Reading it imports neither torch nor timm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, model_validator

from dms_bench.config.content import digest_of_path
from dms_bench.config.proposal import Brought
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import PERCENT, TaskSpec, Unit
from dms_bench_tasks.classification.data_spec import EMBEDDED, PICTURES, Data, FashionData, TimmData, name_alone
from dms_bench_tasks.classification.recipe import ClassificationRecipe, ImageSize
from dms_bench_tasks.common.place import placed


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
        data = name_alone(value.get("data"))
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
