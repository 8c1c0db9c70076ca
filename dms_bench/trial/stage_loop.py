"""The runtime's side of one training stage: resume, record and save each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dms_bench.config.task import TaskSpec
from dms_bench.trial.checkpoint import Checkpoints
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.meter import Meter
from dms_bench.trial.outcome import require_measure
from dms_bench.trial.storage import StageFolder

#: Publishes an epoch's metrics: (stage, epoch, metrics). Told an epoch again, it must ignore it.
Log = Callable[[str, int, dict[str, float]], None]
#: Tells a scheduler about an epoch, in every worker; may end the trial.
Report = Callable[[dict[str, float]], None]


class StageLoop:
    """A `dms_bench.tasks.Loop` that keeps its checkpoints in a stage's folder."""

    def __init__(
        self,
        stage: StageFolder,
        group: WorkerGroup,
        meter: Meter,
        log: Log | None = None,
        report: Report | None = None,
        *,
        measures: TaskSpec | None = None,
    ) -> None:
        """Begin or go on with a stage.

        Args:
            stage: its folder.
            group: this process's place among the workers.
            meter: what the stage's cost is charged to.
            log: publishes epochs.
            report: tells a scheduler about them.
            measures: the task that trains, whose metric every epoch must have; None where a method may record its own.
        """
        self.rank = group.rank
        self.world_size = group.world_size
        self.device: torch.device = group.device
        self.folder = stage.path
        #: Metrics of all epochs so far, those of earlier attempts included.
        self.history: list[dict[str, Any]] = []
        self._stage, self._group, self._meter, self._log, self._report = stage, group, meter, log, report
        self._measures = measures
        self._checkpoints = Checkpoints(stage.path)

    def resume(self) -> dict[str, Any] | None:
        """Return the state last saved in this stage, or None at its beginning.

        Raises:
            TrialFailure: all of its checkpoints are damaged.
        """
        saved = self._checkpoints.load()
        # The leader must not drop a file that another worker is about to read.
        self._group.barrier()
        if saved is None:
            return None
        self.history = saved["history"]
        if self._log is not None:
            replay(self._stage.name, self.history, self._log)
        if self.history:
            self._meter.epoch(int(self.history[-1]["epoch"]), {})
        state: dict[str, Any] = saved["state"]
        return state

    def epoch_done(self, epoch: int, metrics: dict[str, float], state: dict[str, Any]) -> None:
        """Record the epoch's metrics and save `state`; every worker calls it, the leader writes.

        Raises:
            TrialFailure: the task's metric on the validation split is not among the metrics.
        """
        # Always, though only schedulers and samplers compare epochs: a task that has run in plain suites for months
        # would otherwise fail, or be sampled blindly, in the first sweep that compares. Pretraining is checked for the
        # same reason: its first epoch comes long before the first of the retraining.
        if self._measures is not None:
            require_measure(self._measures, metrics, f"{self._stage.name}, epoch {epoch}")
        values = {name: float(value) for name, value in metrics.items()}
        self.history.append({"epoch": epoch, **values})
        if self._group.leads:
            self._checkpoints.save(epoch, {"history": self.history, "state": state})
            self._meter.epoch(epoch, values)
            if self._log is not None:
                self._log(self._stage.name, epoch, values)
        if self._report is not None:
            self._report({"epoch": epoch, **values})

    def tick(self) -> None:
        """Count a step."""
        self._meter.tick()

    def within(self, name: str) -> StageLoop:
        """Return a loop with checkpoints in a folder of its own, which publishes nothing; the stage's end drops them.

        Args:
            name: of the folder, unique in the stage.
        """
        return StageLoop(StageFolder(self.folder / name), self._group, self._meter)


def replay(stage: str, history: list[dict[str, Any]], log: Log) -> None:
    """Publish the epochs of a finished or resumed stage, some of which may not have got through."""
    for record in history:
        log(stage, int(record["epoch"]), {name: value for name, value in record.items() if name != "epoch"})
