"""The loss and the mixing of images, as timm has them."""

from __future__ import annotations

from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from dms_bench_tasks.classification.recipe import ClassificationRecipe


class Objective:
    """Mixup, cutmix, label smoothing and the loss that goes with them."""

    def __init__(self, recipe: ClassificationRecipe, classes: int) -> None:
        self._off_epoch = recipe.mixup_off_epoch
        self._mixup: Mixup | None = None
        if recipe.mixes:
            self._mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mixup_prob,
                switch_prob=recipe.mixup_switch_prob,
                label_smoothing=recipe.smoothing,
                num_classes=classes,
            )
        self._loss: nn.Module
        if recipe.bce_loss:
            self._loss = BinaryCrossEntropy(smoothing=0.0 if recipe.mixes else recipe.smoothing)
        elif recipe.mixes:
            self._loss = SoftTargetCrossEntropy()  # Mixup has smoothed the targets
        else:
            self._loss = LabelSmoothingCrossEntropy(recipe.smoothing)

    def start_epoch(self, epoch: int) -> None:
        """Switch mixing off after its last epoch; `epoch` counts finished ones."""
        if self._mixup is not None and self._off_epoch:
            self._mixup.mixup_enabled = epoch < self._off_epoch

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch with itself; the targets become distributions over classes."""
        if self._mixup is None:
            return images, labels
        mixed: tuple[Tensor, Tensor] = self._mixup(images, labels)
        return mixed

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        value: Tensor = self._loss(scores, targets)
        return value
