"""The task that the runtime sees: data, networks, training and measure."""

from collections.abc import Iterator
from pathlib import Path

import torch
from dms_bench_waves.spec import WavesRecipe, WavesTask
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling import reinitialise
from dms_bench.tasks import Loop, Split, StructureHook
from dms_bench_tasks.common.loop import TrainingLoop
from dms_bench_tasks.common.sharding import derive_seed

POINTS, CLASSES, HELD_OUT, PROBE_BATCH = 32, 4, 500, 64
Batch = tuple[Tensor, Tensor]


def waves(spec: WavesTask, split: str) -> Batch:
    """Return the waves of a split, [samples, POINTS], and which frequency each has, [samples]."""
    generator = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
    number = spec.samples if split == "train" else HELD_OUT
    labels = torch.randint(CLASSES, (number,), generator=generator)
    phases = torch.rand(number, 1, generator=generator)
    turns = (labels[:, None] + 1) * torch.linspace(0, 1, POINTS) + phases
    noise = torch.randn(number, POINTS, generator=generator)
    return torch.sin(2 * torch.pi * turns) + spec.noise * noise, labels


class Waves:
    """Implements `dms_bench.tasks.Task`, whose docstrings say what each function promises."""

    def __init__(self, spec: WavesTask, seed: int) -> None:
        self.spec, self.seed = spec, seed

    def build(self, supernet: SupernetSpec) -> nn.Module:
        if supernet.model != "mlp":
            raise UserError(f"unknown model {supernet.model!r}: waves has 'mlp'")
        if supernet.pretrained or supernet.checkpoint:
            raise UserError("waves has no trained weights to load: give a 'pretrain' recipe")
        width = supernet.args.get("width", 64)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return nn.Sequential(
                nn.Linear(POINTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
            )

    def example_input(self, batch: int = 2) -> Tensor:
        return torch.ones(batch, POINTS)

    def prepare(self) -> None:
        """There is nothing to prepare: the data is drawn when it is needed."""

    def check_recipe(self, recipe: WavesRecipe) -> None:
        if recipe.batch_size > self.spec.samples:
            raise UserError(f"batch_size {recipe.batch_size} is more than the {self.spec.samples} samples of waves")

    def train_samples(self) -> int:
        return self.spec.samples

    def initialise(self, model: nn.Module) -> None:
        reinitialise(model, self.seed)

    def fit(
        self,
        model: nn.Module,
        recipe: WavesRecipe,
        loop: Loop,
        structure: StructureHook | None = None,
        teacher: nn.Module | None = None,
    ) -> nn.Module:
        model.to(loop.device).train()
        Training(self, model, recipe, loop, structure).run()
        return model

    def losses(self, model: nn.Module, batches: int, device: torch.device) -> Iterator[Tensor]:
        x, y = (part[: batches * PROBE_BATCH].to(device) for part in waves(self.spec, "train"))
        for inputs, labels in zip(x.split(PROBE_BATCH), y.split(PROBE_BATCH), strict=True):
            yield functional.cross_entropy(model(inputs), labels)

    def recalibrate(self, model: nn.Module, device: torch.device, samples: int | None = None) -> None:
        """There is nothing to estimate anew: these networks have no batch norm."""

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, device: torch.device) -> dict[str, float]:
        x, y = (part.to(device) for part in waves(self.spec, split))
        training = model.training
        right = model.to(device).eval()(x).argmax(1) == y
        model.train(training)
        return {"accuracy": 100 * right.float().mean().item()}

    def export(self, model: nn.Module, folder: Path) -> list[Path]:
        return []


class Training(TrainingLoop[Batch, WavesRecipe]):
    """One stage. The loop of dms_bench calls the hook, saves every epoch, resumes, and shares gradients."""

    def __init__(
        self, task: Waves, model: nn.Module, recipe: WavesRecipe, loop: Loop, structure: StructureHook | None
    ) -> None:
        super().__init__(model, recipe, loop, structure, task.seed)
        self.task, self.data = task, waves(task.spec, "train")
        self.steps = task.spec.samples // recipe.batch_size
        weights = getattr(model, "named_weights", model.named_parameters)
        frozen = structure is not None and not structure.trains_weights
        self.optimizer = None if frozen else torch.optim.SGD([w for _, w in weights()], lr=recipe.lr, momentum=0.9)
        self.distribute()

    def batches(self) -> Iterator[Batch]:
        """Yield this worker's part of every batch; the order depends on the seed and the epoch alone."""
        x, y = (part.to(self.loop.device) for part in self.data)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(len(x), generator=generator)[: self.steps * self.recipe.batch_size]
        for batch in order.split(self.recipe.batch_size):
            own = batch[self.shard.rank :: self.shard.count]
            for part in own.tensor_split(self.recipe.grad_accum_steps):
                yield x[part], y[part]

    def loss(self, batch: Batch) -> Tensor:
        inputs, labels = batch
        with self.autocast():
            return functional.cross_entropy(self.replica(inputs), labels)

    def clip(self) -> None:
        """Gradients stay as they are."""

    def advance(self, done: int) -> None:
        """The learning rate stays as it is."""

    def validate(self) -> dict[str, float]:
        return {"val_accuracy": self.task.evaluate(self.model, "val", self.loop.device)["accuracy"]}
