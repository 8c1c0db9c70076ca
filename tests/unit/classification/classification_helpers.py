"""What the tests of classification share."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.classification.task import Classification

CPU = torch.device("cpu")
TINY = SupernetSpec(model="resnet18", args={"channels": [8, 8, 8, 8]})
#: Without batch norm, a step does not depend on how its batch is divided.
NORMLESS = SupernetSpec(model="test_vit")
GLYPHS = {"name": "glyphs", "train": 96, "val": 40, "test": 40, "classes": 4, "difficulty": 0.2}


class MemoryLoop:
    """The runtime's side of a stage, kept in memory; states go through a weights-only file, as checkpoints do."""

    device = CPU

    def __init__(self, state: dict[str, Any] | None = None, rank: int = 0, world_size: int = 1, stop: int = 0) -> None:
        self.state, self.rank, self.world_size, self.stop = state, rank, world_size, stop
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self.ticks = 0

    def resume(self) -> dict[str, Any] | None:
        return self.state

    def epoch_done(self, epoch: int, metrics: dict[str, float], state: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        self.state = torch.load(file, weights_only=True)
        self.epochs.append((epoch, metrics))
        if epoch == self.stop:
            raise KeyboardInterrupt

    def tick(self) -> None:
        self.ticks += 1


class SearchWrapper(nn.Module):
    """A stand-in for a supernet: its weights, and one structure parameter that scales the scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.structure = nn.ParameterDict({"gate": nn.Parameter(torch.ones(()))})

    def named_weights(self) -> Any:
        return self.model.named_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.structure["gate"]


class RecordingHook:
    """A structure hook that writes down the order of its calls and what it saw."""

    def __init__(self, wrapper: SearchWrapper, trains_weights: bool = True) -> None:
        self.wrapper, self.trains_weights = wrapper, trains_weights
        self.calls: list[str] = []
        self.progress: list[float] = []
        self.norms_in_training: set[bool] = set()
        self.dropout_in_training: set[bool] = set()

    def begin_step(self, progress: float) -> None:
        self.calls.append("begin")
        self.progress.append(progress)
        self.norms_in_training |= {m.training for m in self.wrapper.modules() if isinstance(m, nn.BatchNorm2d)}
        self.dropout_in_training.add(self.wrapper.model.training)

    def loss(self) -> Tensor:
        self.calls.append("loss")
        return (self.wrapper.structure["gate"] - 0.5).square()

    def end_step(self) -> None:
        self.calls.append("end")
        gate = self.wrapper.structure["gate"]
        assert gate.grad is not None
        with torch.no_grad():
            gate -= 0.1 * gate.grad

    def metrics(self) -> dict[str, float]:
        return {"gate": self.wrapper.structure["gate"].item()}

    def state_dict(self) -> dict[str, Any]:
        return {"calls": len(self.calls)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = ["resumed"] * state["calls"]


def glyph_task(seed: int = 0, **data: Any) -> Classification:
    return Classification(ClassificationTask(data=GLYPHS | data), seed)


def recipe(**options: Any) -> ClassificationRecipe:
    return ClassificationRecipe(**({"epochs": 2, "batch_size": 32, "lr": 0.05} | options))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
