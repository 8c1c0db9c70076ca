"""timm's optimisers and schedules for the weights, and only the weights, of a network."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.optim import Optimizer

from dms_bench.errors import UserError, nearest
from dms_bench_tasks.classification.model import network
from dms_bench_tasks.classification.recipe import ClassificationRecipe


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are weights, by name.

    A search's wrapper tells its weights from its structure parameters by a method `named_weights`.
    """
    named_weights = getattr(model, "named_weights", model.named_parameters)
    return dict(named_weights())


def check_optimizer(recipe: ClassificationRecipe) -> None:
    """Raise UserError for an optimiser that timm does not know, or arguments that it does not take."""
    make_optimizer(nn.Linear(2, 2), recipe)


def make_optimizer(model: nn.Module, recipe: ClassificationRecipe) -> Optimizer:
    """Make the optimiser; biases, norms and what the network names go without weight decay.

    Raises:
        UserError: unknown optimiser or unusable arguments.
    """
    name = recipe.opt.lower().rpartition("_")[2]
    if name not in (known := list_optimizers()):
        raise UserError(f"opt: timm has no optimiser {recipe.opt!r}; {nearest(name, known)}")
    view = _Weights(model)
    groups = param_groups_weight_decay(view, recipe.weight_decay, no_weight_decay_list=view.no_weight_decay())
    try:
        optimizer: Optimizer = create_optimizer_v2(
            groups, opt=recipe.opt, lr=recipe.lr, momentum=recipe.momentum, **recipe.opt_kwargs
        )
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"optimiser {recipe.opt!r} with {recipe.opt_kwargs}: {reason}") from error
    return optimizer


def make_scheduler(optimizer: Optimizer, recipe: ClassificationRecipe, steps_per_epoch: int) -> Any:
    """Make timm's schedule, advanced by `step_update(finished steps)`; it keeps no state of its own."""
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=recipe.sched,
        num_epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        warmup_lr=recipe.warmup_lr,
        min_lr=recipe.min_lr,
        decay_epochs=recipe.decay_epochs,
        decay_milestones=recipe.decay_milestones,
        decay_rate=recipe.decay_rate,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    scheduler.step_update(0)
    return scheduler


class _Weights(nn.Module):
    """What `param_groups_weight_decay` sees of a model: its weights, under the network's own names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._core = [network(model)]  # in a list, so as not to register it
        weights = weights_of(model)
        names = {id(parameter): name for name, parameter in self._core[0].named_parameters()}
        self._named = {names.get(id(weight), name): weight for name, weight in weights.items()}

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return iter(self._named.items())

    def no_weight_decay(self) -> set[str]:
        return set(getattr(self._core[0], "no_weight_decay", set)())
