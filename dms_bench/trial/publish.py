"""From a trial's folder to the tracking store. May be repeated: what is there already is left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dms_bench.errors import TrialFailure
from dms_bench.report.description import PICTURE, describe_trial
from dms_bench.tracking import Remembered, TrialRun, names
from dms_bench.trial.meter import costs
from dms_bench.trial.origin import weights_hash
from dms_bench.trial.outcome import result_of
from dms_bench.trial.record import ARCHITECTURE, WEIGHTS
from dms_bench.trial.stage_loop import replay
from dms_bench.trial.storage import StageFolder, WorkFolder
from dms_bench.trial.work import Work

_STAGES = ("search", "repair", "retrain", "recalibrate")


def open_run(work: Work) -> TrialRun:
    """Find or create the trial's run."""
    weights = weights_hash(work.trial)
    origin = {names.WEIGHTS: weights} if weights else {}
    remembered = Remembered(work.folder.run_id, new=work.new)
    return TrialRun(work.uri, work.experiment_id, work.parent_id, work.trial, work.environment | origin, remembered)


def publish(work: Work) -> TrialRun:
    """Publish all of what the trial's folder holds: epochs, then how it ended; return its run.

    Raises:
        TrackingLost: the store did not take it.
    """
    run, folder = open_run(work), work.folder
    if work.supernet is not None:
        replay("pretrain", work.supernet.stage("pretrain").history(), run.log)
    for stage in _STAGES:
        replay(stage, folder.stage(stage).history(), run.log)
    if result_of(folder) is not None:
        publish_result(folder, run)
        return run
    failure, stopped = folder.failure(), folder.stopped()
    if stopped is not None:
        run.stop(stopped[0], costs(folder))
    elif failure is not None:
        run.fail(failure, costs(folder))
    return run


def publish_result(folder: WorkFolder, run: TrialRun) -> None:
    """Publish a finished trial's network and result, and close its run.

    Raises:
        TrialFailure: the folder has no result.
        TrackingLost: the store did not take it.
    """
    result = result_of(folder)
    if result is None:
        raise TrialFailure(f"{folder.result}: not a result")
    record = json.loads((folder.path / ARCHITECTURE).read_text())
    run.artifact(folder.path / ARCHITECTURE)
    run.artifact(weights_of(folder))
    run.artifact(_plot(folder, record))
    run.finish(result, partial(describe_trial, record=record))


def weights_of(folder: WorkFolder) -> Path:
    """Return the file with the final weights."""
    stages: list[StageFolder] = [folder.stage(name) for name in ("retrain", "recalibrate")]
    return next(path for path in (stage.path / WEIGHTS for stage in stages) if path.exists())


def _plot(folder: WorkFolder, record: Mapping[str, Any]) -> Path:
    """Draw widths and depths before and after the search; return the file."""
    from dms_bench.report.plots import plot_architecture

    path = folder.path / PICTURE
    if not path.exists():
        sizes = {name: (kept, size) for name, (kept, size) in record["sizes"].items()}
        plot_architecture(sizes, set(record["architecture"]["stages"]), path)
    return path
