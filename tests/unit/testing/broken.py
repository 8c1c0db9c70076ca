"""A task and a method that break one promise each."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, Literal

import torch
from dms_bench_waves.spec import WavesRecipe, WavesTask
from dms_bench_waves.task import Training, Waves

from dms_bench.config.method import MethodSpec
from dms_bench.scaling import fit_to_budget


class BrokenTask(WavesTask):
    implementation: ClassVar[str] = "tests.unit.testing.broken:BrokenWaves"

    kind: Literal["broken"] = "broken"
    breaks: str = ""


class BrokenWaves(Waves):
    def __init__(self, spec: BrokenTask, seed: int) -> None:
        super().__init__(spec, seed)
        self.breaks = spec.breaks
        if self.breaks == "functions":
            self.export = None

    def build(self, supernet: Any) -> Any:
        model = super().build(supernet)
        if self.breaks == "seed":
            torch.nn.init.normal_(model[0].bias)
        return model

    def fit(self, model: Any, recipe: WavesRecipe, loop: Any, structure: Any = None, teacher: Any = None) -> Any:
        if self.breaks == "hook":
            structure = None
        model.to(loop.device).train()
        BrokenTraining(self, model, recipe, loop, structure).run()
        return model

    def evaluate(self, model: Any, split: Any, device: torch.device) -> dict[str, float]:
        found = super().evaluate(model, split, device)
        return {"top1": found["accuracy"]} if self.breaks == "measure" else found

    def recalibrate(self, model: Any, device: torch.device, samples: int | None = None) -> None:
        if self.breaks == "early":
            super().evaluate(model, "test", device)


class BrokenTraining(Training):
    def resume(self, state: dict[str, Any] | None) -> None:
        super().resume(None if self.task.breaks == "resume" else state)

    def parts(self) -> dict[str, Any]:
        lost = {"optimiser": "optimizer", "structure": "structure"}.get(self.task.breaks)
        return {name: part for name, part in super().parts().items() if name != lost}

    def batches(self) -> Any:
        if self.task.breaks == "both":  # every worker sees all of the data
            self.shard = type(self.shard)(0, 1)
        batches = super().batches()
        return itertools.islice(batches, 2) if self.task.breaks == "lost" and self.shard.count > 1 else batches

    def distribute(self, **options: Any) -> None:
        if self.task.breaks != "apart":
            super().distribute(**options)

    def validate(self) -> dict[str, float]:
        split = "test" if self.task.breaks == "split" else "val"
        name = "val_top1" if self.task.breaks == "metric" else "val_accuracy"
        return {name: Waves.evaluate(self.task, self.model, split, self.loop.device)["accuracy"]}


class BrokenMethod(MethodSpec):
    implementation: ClassVar[str] = "tests.unit.testing.broken:BrokenSearch"

    kind: Literal["broken"] = "broken"
    breaks: str = ""


class BrokenSearch:
    asked = 0

    def __init__(self, spec: BrokenMethod) -> None:
        self.breaks = spec.breaks

    def search(self, context: Any) -> Any:
        type(self).asked += 1
        space, seed = context.space, context.trial.seed
        generator = context.generator()
        if self.breaks == "generator":
            generator = None
        elif self.breaks == "twice":
            generator.manual_seed(self.asked)
        elif self.breaks == "workers":
            generator.manual_seed(seed + context.loop.rank)
        elif self.breaks == "weights":
            torch.nn.init.zeros_(context.model[0].bias)
        elif self.breaks == "mode":
            context.model.eval()
        elif self.breaks == "hooks":
            context.model[0].register_forward_hook(print)
        importance = torch.rand(space.units.total, generator=generator)
        proposed = torch.tensor(space.units.sizes, dtype=torch.float32)
        mask = fit_to_budget(space, proposed, importance, context.budget)
        return space.architecture(torch.ones_like(mask) if self.breaks == "budget" else mask)
