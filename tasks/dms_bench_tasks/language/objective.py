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
from dms_bench_tasks.language.spec import Distillation


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy of [B, T, V] against [B, T] in nats, a scalar; zero where nothing is asked."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return losses / (targets != IGNORED).sum().clamp_min(1)


def distillation(logits: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the mean KL divergence of predictions [B, T, V] from a teacher's, softened, times temperature squared."""
    asked = targets.flatten() != IGNORED
    own = F.log_softmax(logits.flatten(0, 1)[asked].float() / temperature, dim=-1)  # [P, V]
    its = F.log_softmax(teacher.flatten(0, 1)[asked].float() / temperature, dim=-1)
    return F.kl_div(own, its, reduction="batchmean", log_target=True) * temperature**2


def combined(logits: Tensor, targets: Tensor, teacher: Tensor | None, spec: Distillation | None) -> Tensor:
    """Return a stage's loss, a scalar."""
    own = cross_entropy(logits, targets)
    if spec is None or teacher is None:
        return own
    share = torch.as_tensor(spec.weight, device=own.device)
    return torch.lerp(own, distillation(logits, teacher, targets, spec.temperature), share)
