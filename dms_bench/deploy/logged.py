"""A finished trial's network as a model in MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from dms_bench.deploy.program import write_program
from dms_bench.errors import UserError
from dms_bench.inference.runtimes import eager
from dms_bench.inference.same import pair_of
from dms_bench.tasks import Deployed
from dms_bench.tracking import Ends, TrialRun
from dms_bench.trial.publish import weights_of
from dms_bench.trial.record import ARCHITECTURE, build, load_weights, task_of
from dms_bench.trial.storage import WorkFolder

#: Bytes of weights above which a network is not kept in MLflow a second time.
LARGEST = 256 * 2**20


def publish_model(folder: WorkFolder, run: TrialRun) -> None:
    """Log the network of a finished trial, whose result is published; what stands against it is noted with its run."""
    run.log_model(lambda path: _write(folder, path))


def _write(folder: WorkFolder, path: Path) -> Ends:
    weights = weights_of(folder)
    if weights.stat().st_size > LARGEST:
        raise UserError(
            f"its weights are {weights.stat().st_size / 2**20:.0f} MiB, and models of up to {LARGEST / 2**20:.0f} MiB "
            "are logged"
        )
    # Tracing must not draw from, nor advance, what a later trial in this process draws from.
    with torch.random.fork_rng(devices=[]):
        model = build(json.loads((folder.path / ARCHITECTURE).read_text()))
        load_weights(model, weights)
        task = task_of(folder.path)
        model = (task.deployed(model) if isinstance(task, Deployed) else model).eval()
        example = task.example_input(1)
        batch = write_program(model, example, path)
        pair = pair_of(example)
        return Ends(pair, eager(model)(pair), batch)
