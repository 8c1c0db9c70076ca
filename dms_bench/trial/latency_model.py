"""The latency model of a supernet on a device: measured by the first trial that needs it, read by all others.

A second measurement would differ, and with it what a budget means; so trials of a suite, resumed ones
and all workers of a group take the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from dms_bench.config.budget import latency_of
from dms_bench.config.trial import Trial
from dms_bench.errors import TrialFailure
from dms_bench.inference.opened import BRIEFLY
from dms_bench.scaling import SearchSpace
from dms_bench.scaling.latency.model import LatencyModel, measure_latency
from dms_bench.scaling.latency.whole import WholeLatency, measure_whole
from dms_bench.tasks import Task
from dms_bench.tracking.environment import cpu_name
from dms_bench.trial.beside import Beside
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.spaces import untrained
from dms_bench.trial.storage import locked, write_atomic


def shared_latency_model(
    trial: Trial, task: Task, space: SearchSpace, group: WorkerGroup, folder: Path
) -> LatencyModel | WholeLatency:
    """Return the model of the supernet's latency where the budget says, measuring it where nobody has.

    Args:
        trial: names the supernet and what runs it.
        task: builds it.
        space: its search space.
        group: every worker calls this; the leading one measures.
        folder: where the trials of a suite share their models.

    Raises:
        TrialFailure: the file is damaged.
        UserError: the budget's runtime is not installed, or cannot run the network.
    """
    path = folder / f"{_key(trial, group)}.json"
    if group.leads:
        with locked(path.with_suffix(".lock"), math.inf):
            if not path.exists():
                write_atomic(path, _measured(trial, task, space, group).to_json())
    group.barrier()
    try:
        text = path.read_text()
        return LatencyModel.from_json(text) if runtime_of(trial) == "eager" else WholeLatency.from_json(text, space)
    except (ValueError, KeyError, TypeError) as error:
        raise TrialFailure(f"{path} is damaged; delete it to measure the latency again") from error


def _measured(trial: Trial, task: Task, space: SearchSpace, group: WorkerGroup) -> LatencyModel | WholeLatency:
    model, example, runtime = task.build(untrained(trial.supernet)), task.example_input(1), runtime_of(trial)
    if runtime == "eager":
        return measure_latency(model, space, example, group.device)
    beside = Beside(task, trial.supernet, runtime)
    return measure_whole(model, space, lambda network: beside.times(network, BRIEFLY))


def runtime_of(trial: Trial) -> str:
    """Return where the networks of a trial are timed."""
    bound = latency_of(trial.budget)
    return bound.runtime if bound is not None else "eager"


def _key(trial: Trial, group: WorkerGroup) -> str:
    """Everything that the latency depends on."""
    content = {
        "task": trial.task.content_hash(),
        "supernet": untrained(trial.supernet).content_hash(),
        "device": group.hardware().device,
        "cpus": trial.resources.cpus,
    }
    if (runtime := runtime_of(trial)) != "eager":
        content |= {"runtime": runtime, "device": cpu_name()}
    if "supernet.model" in trial.content:  # of a file, which may come to say something else
        content["model"] = trial.content["supernet.model"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
