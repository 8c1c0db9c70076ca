"""A trial on a machine that does not have what it asks for: one of its workers, with that worker's part of a batch."""

from __future__ import annotations

from typing import Any

from dms_bench.config import Resources, Trial


def one_worker(trial: Trial, cpus: float, gpus: float) -> Trial:
    """Return the part of a trial that one of its workers does.

    Args:
        trial: what was asked for.
        cpus: processors that there are.
        gpus: GPUs that there are.
    """
    asked = trial.resources
    resources = Resources(cpus=min(asked.cpus, cpus), gpus=min(asked.gpus, gpus))
    changed: dict[str, Any] = {"resources": resources}
    for stage in ("pretrain", "search", "retrain"):
        recipe = getattr(trial, stage)
        if recipe is not None:
            size = max(1, recipe.batch_size // asked.workers)
            changed[stage] = recipe.model_copy(update={"batch_size": size})
    return trial.model_copy(update=changed)
