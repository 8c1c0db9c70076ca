"""The one training loop: pretraining, searching and finetuning differ by hook, teacher and adapters alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dms_bench.errors import TrialFailure, UserError
from dms_bench.tasks import Loop, StructureHook
from tasks.language.adapters import adapted
from tasks.language.data import Sequences, Shard, Text, derive_seed
from tasks.language.model import network
from tasks.language.objective import combined
from tasks.language.perplexity import validation_loss
from tasks.language.spec import LanguageRecipe

#: A finite loss is asked for on every step on a CPU; elsewhere asking waits for the device.
_STEPS_BETWEEN_CHECKS = 50


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
    if recipe.lora is not None and structure is not None:
        raise UserError("search.lora: masks do not reach adapters; leave it to the retrain recipe")
    model.to(loop.device)
    if teacher is not None:
        teacher.to(loop.device)
    trains_weights = structure is None or structure.trains_weights
    with (
        _frozen(model, not trains_weights),
        adapted(model, recipe.lora, seed),
        _checkpointed(model, recipe.gradient_checkpointing),
    ):
        model.to(loop.device)
        training = Training(model, text, recipe, loop, structure, teacher, seed)
        training.resume(loop.resume())
        while training.epoch < recipe.epochs:
            metrics = training.run_epoch()
            loop.epoch_done(training.epoch, metrics, training.state())
    return model


class Training:
    """One stage between two of its epochs: all that a checkpoint must hold."""

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

        self.model, self.text, self.recipe, self.loop = model, text, recipe, loop
        self.structure, self.teacher, self.seed, self.epoch = structure, teacher, seed, 0
        self.shard = Shard(loop.rank, loop.world_size)
        self.steps = text.steps(recipe)
        named = dict(getattr(model, "named_weights", model.named_parameters)())
        self.weights = {name: weight for name, weight in named.items() if weight.requires_grad}
        self.frozen = {
            name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad
        }
        self.optimizer = _adamw(self.weights, recipe) if self.weights else None
        self.scheduler: Any = None
        if self.optimizer is not None:
            total = self.steps * recipe.epochs
            self.scheduler = get_scheduler(recipe.lr_scheduler_type, self.optimizer, recipe.warmup_steps, total)
        self.replica: nn.Module = model
        if loop.world_size > 1:
            devices = [loop.device] if loop.device.type == "cuda" else None
            # Gradients and what is sent of them share their memory: of a large network a copy is too much.
            self.replica = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch, validate, and return what is worth a curve."""
        # Nothing random outlives an epoch, so that a resumed run repeats an undisturbed one.
        torch.manual_seed(derive_seed(self.seed, self.epoch, self.loop.rank))
        self.replica.train()
        if self.teacher is not None and not self._teacher_is_student:
            self.teacher.eval()
        started = time.perf_counter()
        batches = self.text.epoch(self.recipe, self.shard, derive_seed(self.seed, self.epoch))
        total = torch.zeros((), device=self.loop.device)
        for step in range(self.steps):
            total += self._step(step, list(islice(batches, self.recipe.grad_accum_steps)))
            if self.loop.device.type == "cpu" or step % _STEPS_BETWEEN_CHECKS == 0 or step + 1 == self.steps:
                self._check(total, step + 1)
            self.loop.tick()
        seconds = time.perf_counter() - started
        self.epoch += 1
        metrics = {
            "train_loss": self._mean(total / self.steps),
            "samples_per_s": self.steps * self.recipe.batch_size / seconds,
        }
        if self.optimizer is not None:
            metrics["lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        loss = validation_loss(self.model, self.text, self.loop.device, self.shard, self.loop.tick)
        metrics |= {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0))}
        metrics["seconds"] = time.perf_counter() - started
        return metrics | (self.structure.metrics() if self.structure else {})

    @property
    def _teacher_is_student(self) -> bool:
        return any(module is self.teacher for module in self.model.modules())

    def _step(self, step: int, micro_batches: list[Sequences]) -> Tensor:
        """Take one optimiser step and return the stage's loss without the hook's, which is added in the last pass."""
        if self.structure is not None:
            self.structure.begin_step((self.epoch * self.steps + step) / (self.recipe.epochs * self.steps))
        loss = torch.zeros((), device=self.loop.device)
        for number, batch in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            tokens, targets = batch.tokens.to(self.loop.device), batch.targets.to(self.loop.device)
            with self._local(not last):
                with torch.autocast(self.loop.device.type, torch.bfloat16, enabled=self.recipe.amp == "bf16"):
                    taught = None
                    if self.teacher is not None:
                        with torch.no_grad():
                            taught = self.teacher(tokens)
                    logits = self.replica(tokens)
                part = combined(logits, targets, taught, self.recipe.distil) / len(micro_batches)
                loss += part.detach()
                if self.structure is not None and last:
                    part = part + self.structure.loss()
                torch.autograd.backward(part)
        if self.optimizer is not None:
            if self.recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(list(self.weights.values()), self.recipe.clip_grad)
            self.optimizer.step()
            self.scheduler.step()
        if self.structure is not None:
            self.structure.end_step()
        self.model.zero_grad(set_to_none=True)
        return loss

    def _local(self, local: bool) -> AbstractContextManager[None]:
        if local and isinstance(self.replica, DistributedDataParallel):
            return self.replica.no_sync()
        return nullcontext()

    def _check(self, total: Tensor, steps: int) -> None:
        if not math.isfinite(value := float(total)):
            stage = "search" if self.structure else "training"
            raise TrialFailure(f"{stage}: the loss is {value} in epoch {self.epoch + 1}, step {steps}: try a lower lr")

    def _mean(self, value: Tensor) -> float:
        if self.loop.world_size > 1:
            dist.all_reduce(value)
        return float(value / self.loop.world_size)

    def state(self) -> dict[str, Any]:
        """Return the state at the end of an epoch; data order and dropout follow from `epoch`.

        Weights that the stage does not train are not part of it: they are what the stage began with.
        """
        trained = {name: value for name, value in self.model.state_dict().items() if name not in self.frozen}
        state: dict[str, Any] = {"epoch": self.epoch, "model": trained}
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def resume(self, state: dict[str, Any] | None) -> None:
        """Take up a state that `state` returned; None starts afresh."""
        if state is None:
            return
        try:
            missing, unexpected = self.model.load_state_dict(state["model"], strict=False)
            odd = [*(set(missing) - self.frozen), *unexpected]
            if odd:
                raise KeyError(odd[0])
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrialFailure(f"the checkpoint of this stage is damaged or of another network: {reason}") from error

    def _parts(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "structure": self.structure}
        return {name: part for name, part in parts.items() if part is not None}


def _adamw(weights: dict[str, nn.Parameter], recipe: LanguageRecipe) -> torch.optim.AdamW:
    """Make the optimiser; vectors (norms, biases) go without weight decay."""
    matrices = [weight for weight in weights.values() if weight.dim() > 1]
    vectors = [weight for weight in weights.values() if weight.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.lr, betas=recipe.betas)


@contextmanager
def _frozen(model: nn.Module, frozen: bool) -> Iterator[None]:
    """Take the network's weights out of training for a while."""
    named = dict(getattr(model, "named_weights", model.named_parameters)())
    weights = [weight for weight in named.values() if frozen and weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


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
