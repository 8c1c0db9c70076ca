"""The loss: the next token's cross entropy, and the distance to a teacher's predictions.

Shape legend:
    B: sequences
    T: tokens of a sequence
    V: vocabulary
    P: positions that have to predict something
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dms_bench_tasks.language.data import IGNORED
from dms_bench_tasks.language.spec import LanguageDistillation


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy of [B, T, V] against [B, T] in nats, a scalar; zero where nothing is asked."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return losses / (targets != IGNORED).sum().clamp_min(1)


def distillation(logits: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the mean KL divergence of predictions [B, T, V] from a teacher's, softened, times temperature squared."""
    counted = targets.flatten() != IGNORED
    log_student = F.log_softmax(logits.flatten(0, 1)[counted].float() / temperature, dim=-1)  # [P, V]
    log_teacher = F.log_softmax(teacher.flatten(0, 1)[counted].float() / temperature, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def combined(logits: Tensor, targets: Tensor, teacher: Tensor | None, spec: LanguageDistillation | None) -> Tensor:
    """Return a stage's loss, a scalar."""
    loss = cross_entropy(logits, targets)
    if spec is None or teacher is None:
        return loss
    share = torch.as_tensor(spec.weight, device=loss.device)
    return torch.lerp(loss, distillation(logits, teacher, targets, spec.temperature), share)
