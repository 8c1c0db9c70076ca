"""The latency model of a supernet on a device: measured by the first trial that needs it, read by all others.

A second measurement would differ, and with it what a budget means; so trials of a suite, resumed ones
and all workers of a group take the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from dms_bench.config.trial import Trial
from dms_bench.errors import TrialFailure
from dms_bench.scaling import SearchSpace
from dms_bench.scaling.latency.model import LatencyModel, measure_latency
from dms_bench.tasks import Task
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.spaces import untrained
from dms_bench.trial.storage import locked, write_atomic


def shared_latency_model(
    trial: Trial, task: Task, space: SearchSpace, group: WorkerGroup, folder: Path
) -> LatencyModel:
    """Return the model of the supernet's latency on the group's device, measuring it where nobody has.

    Args:
        trial: names the supernet and what runs it.
        task: builds it.
        space: its search space.
        group: every worker calls this; the leading one measures.
        folder: where the trials of a suite share their models.

    Raises:
        TrialFailure: the file is damaged.
    """
    path = folder / f"{_key(trial, group)}.json"
    if group.leads:
        with locked(path.with_suffix(".lock"), math.inf):
            if not path.exists():
                model = task.build(untrained(trial.supernet))
                measured = measure_latency(model, space, task.example_input(1), group.device)
                write_atomic(path, measured.to_json())
    group.barrier()
    try:
        return LatencyModel.from_json(path.read_text())
    except (ValueError, KeyError, TypeError) as error:
        raise TrialFailure(f"{path} is damaged; delete it to measure the latency again") from error


def _key(trial: Trial, group: WorkerGroup) -> str:
    """Everything that the latency depends on."""
    content = {
        "task": trial.task.content_hash(),
        "supernet": untrained(trial.supernet).content_hash(),
        "device": group.hardware().device,
        "cpus": trial.resources.cpus,
    }
    if "supernet.model" in trial.content:  # of a file, which may come to say something else
        content["model"] = trial.content["supernet.model"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
