"""The protocol that every task implements, and what the runtime hands to it.

A task owns data, model construction, the training loop and the measure. It knows nothing of Ray,
MLflow or of how an architecture was found: a search differs from plain training by the
`StructureHook` that its training loop calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.errors import UserError

Split = Literal["val", "test"]


class StructureHook(Protocol):
    """What a gradient search adds to a training loop. Called in this order on every step.

    The hook's own parameters are not in `model.parameters()` of the weights' optimiser.
    """

    #: Update the weights as well as the structure; False for DMSp-, where weights are frozen.
    trains_weights: bool

    def begin_step(self, progress: float) -> None:
        """Before the forward pass; `progress` in [0, 1) is the finished share of the search."""

    def loss(self) -> Tensor:
        """After the forward pass: the term to add to the task's loss (a scalar)."""

    def end_step(self) -> None:
        """After backward, before gradients are cleared: update importance and structure."""

    def metrics(self) -> dict[str, float]:
        """Numbers worth a curve: kept ratios, soft and hard MACs, target, temperature."""

    def state_dict(self) -> dict[str, Any]:
        """State beyond the model's own, of tensors and plain values, to resume from."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned."""


class Loop(Protocol):
    """The runtime's side of one training stage (pretrain, search, retrain)."""

    #: Process of this stage's worker group; 0 logs and saves.
    rank: int
    world_size: int
    device: torch.device
    #: The stage's folder, on storage that all workers share, for a library that must write files of its own.
    folder: Path

    def resume(self) -> dict[str, Any] | None:
        """Return the state last saved in this stage, or None at its beginning."""

    def epoch_done(self, epoch: int, metrics: dict[str, float], state: dict[str, Any]) -> None:
        """Record the epoch's metrics and save `state` (tensors and plain values only).

        Every rank calls it equally often. Epochs count from 1. May not return: a scheduler stops
        trials here.

        What a task's `fit` gives as `metrics` must contain `val_<metric>`: the task's metric on the validation split.
        Schedulers and samplers compare trials by it.

        Raises:
            TrialFailure: it does not.
        """

    def tick(self) -> None:
        """Call on every step: keeps the cost meter and the fault detection alive; cheap."""

    def within(self, name: str) -> Loop:
        """Return a loop of the same stage with checkpoints of its own, for a search that trains several networks."""


class Task(Protocol):
    """A task. `make_task(spec, seed)` makes it from its specification: the class is called with these two.

    A class whose networks return, when `losses` runs them, the logits of one softmax may say along which axis its
    classes lie, `class_axis: ClassVar[int] = -1`: methods can then compare the predictions of two networks.
    """

    def build(self, supernet: SupernetSpec) -> nn.Module:
        """Build the supernet on the CPU, from the seed; load its weights where asked.

        Raises:
            UserError: unknown model (with the nearest name) or unusable arguments or checkpoint.
        """

    def example_input(self, batch: int = 2) -> Tensor:
        """Return inputs of the task's shape for tracing, MACs and latency; shape [batch, ...]."""

    def prepare(self) -> None:
        """Make or check the data once, in the driver, before workers start.

        Raises:
            UserError: a missing folder or an unknown data set.
        """

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse, before anything runs, a recipe that cannot be used with this task's data.

        Raises:
            UserError: it cannot, and why.
        """

    def train_samples(self) -> int:
        """Return the number of training samples, by which `dms-bench plan` estimates the cost; cheap.

        Raises:
            UserError: the data is not there, and the specification does not say.
        """

    def initialise(self, model: nn.Module) -> None:
        """Draw fresh weights for a network that was cut, from the seed, as if built at its present size."""

    def fit(
        self,
        model: nn.Module,
        recipe: Recipe,
        loop: Loop,
        structure: StructureHook | None = None,
        teacher: nn.Module | None = None,
    ) -> nn.Module:
        """Train `model` and return it (with its averaged weights, where the recipe averages).

        After every epoch it calls `loop.epoch_done`, whose metrics must contain `val_<metric>`.

        Args:
            model: the network, in a search within a wrapper that masks it.
            recipe: how.
            loop: the runtime's side.
            structure: what a search adds.
            teacher: the pretrained supernet, for recipes that ask for it (`Recipe.needs_teacher`) and no others. It is
                not to be trained; where a search trains no weights, it is the searched network itself without masks.

        Raises:
            TrialFailure: the loss is not finite.
        """

    def losses(self, model: nn.Module, batches: int, device: torch.device) -> Iterator[Tensor]:
        """Yield the model's loss on each of a few training batches, always the same, with its graph."""

    def recalibrate(self, model: nn.Module, device: torch.device, samples: int | None = None) -> None:
        """Re-estimate statistics that a cut network must learn anew (batch norm) on training data.

        Args:
            model: the network, changed in place.
            device: where to do it.
            samples: how many training samples to look at; the task's own number where it is not given.
        """

    def evaluate(self, model: nn.Module, split: Split, device: torch.device) -> dict[str, float]:
        """Measure `model`; the dict holds the task's metric by its name. Test is used once, at the end."""

    def export(self, model: nn.Module, folder: Path) -> list[Path]:
        """Write a cut network into `folder` in the form that the task's own library opens, where it has one.

        Returns:
            The files or folders written; none where dms_bench's own two files are all there is.
        """


class Caches(Protocol):
    """What a task has besides, whose specification says `caches`."""

    def cached_rows(self, model: nn.Module) -> dict[str, Tensor]:
        """Return, by the name of a weight, which of its outputs are kept of every token, bool [outputs].

        Args:
            model: a whole network as `build` returns it; its weights may be on the meta device.

        Raises:
            UserError: that cannot be told.
        """


@runtime_checkable
class Labelled(Protocol):
    """What a task has besides, whose networks classify: exports in eight bits are calibrated and compared by it."""

    def labelled(
        self, model: nn.Module, split: Literal["train", "val", "test"], most: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs [batch, ...] and labels [batch] on the CPU: at most so many samples, always the same.

        Args:
            model: the network, whose own normalisation inputs may have.
            split: of the data; what is calibrated is so by `train` alone.
            most: samples, drawn at random where the split has more; none is augmented.
        """


@runtime_checkable
class Deployed(Protocol):
    """What a task has besides, whose networks give other runtimes something else than what is traced."""

    def deployed(self, model: nn.Module) -> nn.Module:
        """Return a cut network as it leaves dms_bench: from one tensor of inputs to one of results, in eval mode."""


@runtime_checkable
class Described(Protocol):
    """What a task has besides, for the cards of its networks."""

    def inputs_and_outputs(self, model: nn.Module) -> tuple[str, str]:
        """Say what a network (as `deployed`, where there is that) takes, and what it gives, a line each."""


#: What a task must have.
_FUNCTIONS = tuple(name for name, value in vars(Task).items() if callable(value) and not name.startswith("_"))


def make_task(spec: TaskSpec, seed: int) -> Task:
    """Make the task that a specification describes.

    Args:
        spec: the task.
        seed: the trial's seed.

    Raises:
        UserError: its class lacks functions of the protocol, or has only inherited their declarations.
    """
    task: Task = spec.load_implementation()(spec, seed)
    declared = {name: vars(Task)[name] for name in _FUNCTIONS}
    missing = [
        f"{name}()"
        for name, declaration in declared.items()
        if not callable(getattr(task, name, None)) or getattr(type(task), name, None) is declaration
    ]
    if missing:
        task_class = type(task)
        lacks = f"{', '.join(missing[:-1])} and {missing[-1]}" if len(missing) > 1 else missing[0]
        raise UserError(
            f"task {spec.kind!r}: its class {task_class.__module__}.{task_class.__qualname__} lacks {lacks}"
        )
    return task
