"""Training of language models: data, loss and optimiser of the loop that all stages share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.tasks import Loop, StructureHook
from dms_bench_tasks.common.loop import TrainingLoop, frozen
from dms_bench_tasks.common.sharding import derive_seed
from dms_bench_tasks.language.adapters import adapted
from dms_bench_tasks.language.data import Sequences, Text
from dms_bench_tasks.language.model import network
from dms_bench_tasks.language.objective import combined
from dms_bench_tasks.language.perplexity import validation_loss
from dms_bench_tasks.language.spec import LanguageRecipe


def fit(
    model: nn.Module,
    text: Text,
    recipe: LanguageRecipe,
    loop: Loop,
    structure: StructureHook | None,
    teacher: nn.Module | None,
    seed: int,
) -> nn.Module:
    """Train `model` from where the stage was left, and return it, adapters merged.

    Raises:
        TrialFailure: the loss is not finite, or the stage's checkpoint does not fit.
        UserError: the recipe cannot be used with these data, workers or weights.
    """
    if any(weight.is_meta for weight in model.parameters()):
        raise UserError("a random network of this size is only planned with: give 'supernet.pretrained'")
    model.to(loop.device)
    if teacher is not None:
        teacher.to(loop.device)
    trains_weights = structure is None or structure.trains_weights
    kept = [] if trains_weights else list(_named_weights(model).values())
    with (
        frozen(kept),
        adapted(model, recipe.lora, seed),
        _checkpointed(model, recipe.gradient_checkpointing),
    ):
        model.to(loop.device)
        LanguageTraining(model, text, recipe, loop, structure, teacher, seed).run()
    return model


class LanguageTraining(TrainingLoop[Sequences, LanguageRecipe]):
    """One stage of a language model."""

    def __init__(
        self,
        model: nn.Module,
        text: Text,
        recipe: LanguageRecipe,
        loop: Loop,
        structure: StructureHook | None,
        teacher: nn.Module | None,
        seed: int,
    ) -> None:
        from transformers import get_scheduler

        super().__init__(model, recipe, loop, structure, seed)
        self.text, self.teacher = text, teacher
        self.steps = text.steps(recipe)
        self.weights = {name: weight for name, weight in _named_weights(model).items() if weight.requires_grad}
        self.untrained = {
            name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad
        }
        self.optimizer = _adamw(self.weights, recipe) if self.weights else None
        self.scheduler: Any = None
        if self.optimizer is not None:
            total = self.steps * recipe.epochs
            self.scheduler = get_scheduler(recipe.lr_scheduler_type, self.optimizer, recipe.warmup_steps, total)
        # Gradients and what is sent of them share their memory: of a large network a copy is too much.
        self.distribute(gradient_as_bucket_view=True)

    def batches(self) -> Iterator[Sequences]:
        """Seed what is random in an epoch and return its sequences."""
        torch.manual_seed(derive_seed(self.seed, self.epoch, self.loop.rank))
        self.replica.train()
        if self.teacher is not None and not self._teacher_is_student:
            self.teacher.eval()
        return self.text.epoch(self.recipe, self.shard, derive_seed(self.seed, self.epoch))

    def loss(self, batch: Sequences) -> Tensor:
        """Return the loss of the next tokens, and of the teacher's predictions if there is one."""
        tokens, targets = batch.tokens.to(self.loop.device), batch.targets.to(self.loop.device)
        with self.autocast():
            taught = None
            if self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher(tokens)
            logits = self.replica(tokens)
        return combined(logits, targets, taught, self.recipe.distil)

    def clip(self) -> None:
        """Bound the norm of the gradients."""
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(list(self.weights.values()), self.recipe.clip_grad)

    def advance(self, done: int) -> None:
        """Advance the learning rate."""
        if self.scheduler is not None:
            self.scheduler.step()

    def validate(self) -> dict[str, float]:
        """Measure loss and perplexity on the validation text."""
        loss = validation_loss(self.model, self.text, self.loop.device, self.shard, self.loop.tick)
        return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0))}

    def parts(self) -> dict[str, Any]:
        """Return what else a checkpoint holds."""
        return super().parts() | {"scheduler": self.scheduler}

    def model_state(self) -> dict[str, Any]:
        """Return the trained weights' state: the others are what the stage began with."""
        return {name: value for name, value in self.model.state_dict().items() if name not in self.untrained}

    def load_model(self, state: dict[str, Any]) -> None:
        """Take up trained weights. Raises KeyError where one is missing or too many."""
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        odd = [*(set(missing) - self.untrained), *unexpected]
        if odd:
            raise KeyError(odd[0])

    @property
    def _teacher_is_student(self) -> bool:
        return any(module is self.teacher for module in self.model.modules())


def _named_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the network's weights without the structure of a search."""
    return dict(getattr(model, "named_weights", model.named_parameters)())


def _adamw(weights: dict[str, nn.Parameter], recipe: LanguageRecipe) -> torch.optim.AdamW:
    """Make the optimiser; vectors (norms, biases) go without weight decay."""
    matrices = [weight for weight in weights.values() if weight.dim() > 1]
    vectors = [weight for weight in weights.values() if weight.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.lr, betas=recipe.betas)


@contextmanager
def _checkpointed(model: nn.Module, checkpointed: bool) -> Iterator[None]:
    """Let blocks compute again in the backward pass what they would have kept."""
    if not checkpointed:
        yield
        return
    lm: Any = network(model)
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        lm.gradient_checkpointing_disable()
