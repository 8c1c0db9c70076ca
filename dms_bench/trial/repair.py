"""The repair of a cut network, as a stage of a trial: by the whole network, without training (`scaling.repair`).

What is measured, before and after, is the loss on the batches that the repair itself looks at, with batch norm's
statistics estimated anew as they are for the final evaluation of DMSp-. Repaired weights go on only where it has
fallen; a repaired network keeps these statistics.

An attempt that is killed goes on behind the last layer that it kept; it keeps them every minute.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import torch
from torch import nn

from dms_bench.config.trial import Repair
from dms_bench.methods.calibration import mean_loss
from dms_bench.scaling import Architecture, SearchSpace, cut
from dms_bench.scaling.repair.biases import shift_biases
from dms_bench.scaling.repair.calls import order_of, recorded
from dms_bench.scaling.repair.consumers import consumers_of
from dms_bench.scaling.repair.fit import Fit, fits
from dms_bench.tasks import Task
from dms_bench.trial.checkpoint import Checkpoints
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.meter import Meter
from dms_bench.trial.record import WEIGHTS, save_weights
from dms_bench.trial.repair_report import REPORT, RepairReport
from dms_bench.trial.storage import StageFolder, write_atomic

#: Batches of training data, as many as FLAP takes by default.
BATCHES = 8
#: Seconds after which repaired layers are kept, for the case that the attempt is killed.
_KEEP_SECONDS = 60.0


def repair(
    network: nn.Module,
    whole: nn.Module,
    space: SearchSpace,
    architecture: Architecture,
    kind: Repair,
    task: Task,
    stage: StageFolder,
    group: WorkerGroup,
    meter: Meter,
) -> None:
    """Repair a cut network and finish the stage; every worker calls this, and all compute the same.

    Args:
        network: as the search left it; measured, and no more to be used.
        whole: the network before the cut, as it is to be imitated.
        space: its search space.
        architecture: what is kept of it.
        kind: how.
        task: the trial's.
        stage: the repair's folder.
        group: this process's place among the workers.
        meter: told of every pass.
    """
    original = copy.deepcopy(network.state_dict())
    work = _Work(whole, space, architecture, kind, task, stage, group, meter)
    repaired, report = work.done(network)
    if not report.used:
        network.load_state_dict(original)
    if group.leads:
        save_weights((repaired if report.used else network).cpu(), stage.output(WEIGHTS))
        write_atomic(stage.output(REPORT), report.model_dump_json(indent=1))
        stage.finish((WEIGHTS, REPORT), [{"epoch": 1, **report.metrics()}])
    group.barrier()


class _Work:
    """One repair."""

    def __init__(
        self,
        whole: nn.Module,
        space: SearchSpace,
        architecture: Architecture,
        kind: Repair,
        task: Task,
        stage: StageFolder,
        group: WorkerGroup,
        meter: Meter,
    ) -> None:
        self._network = cut(whole, space, architecture)
        self._whole, self._kind, self._task, self._group, self._meter = whole, kind, task, group, meter
        self._consumers, self._left_out = consumers_of(whole, space, architecture)
        self._checkpoints = Checkpoints(stage.path)
        self._fits: list[Fit] = []

    def done(self, before: nn.Module) -> tuple[nn.Module, RepairReport]:
        """Return the repaired network, and the report, in which it is compared with the cut network as it was."""
        device = self._group.device
        if self._consumers:
            network, whole = self._network.to(device), self._whole.to(device)
            self._repair(network, whole, device)
        fitted = [fit for fit in self._fits if not fit.left_out]
        report = RepairReport(
            kind=self._kind,
            batches=BATCHES,
            layers={fit.name: (fit.before, fit.after) if self._kind == "least_squares" else None for fit in fitted},
            left_out=self._left_out | {fit.name: fit.left_out for fit in self._fits if fit.left_out},
        )
        if not fitted:
            return before, report
        self._whole.cpu()
        losses = [self._loss(each) for each in (before, self._network)]
        used = losses[1] < losses[0] or (math.isfinite(losses[1]) and not math.isfinite(losses[0]))
        known = [loss if math.isfinite(loss) else None for loss in losses]
        changes: dict[str, Any] = {"loss_before": known[0], "loss_after": known[1], "used": used}
        if used:
            changes["biases"] = tuple(fit.name for fit in fitted if fit.gave_bias)
        return self._network, report.model_copy(update=changes)

    def _repair(self, network: nn.Module, whole: nn.Module, device: torch.device) -> None:
        calls = recorded(whole, lambda: mean_loss(self._task, whole, BATCHES, device, self._meter.tick))
        times = order_of(network, self._consumers, calls[0], device)
        called = [self._consumers[name] for name in times]
        silent = self._consumers.keys() - times.keys()
        self._left_out |= dict.fromkeys(sorted(silent), "never called by itself")
        if self._kind == "bias":
            self._fits = shift_biases(network, whole, called, calls, device, self._meter.tick)
            return
        self._resume(network)
        kept = time.monotonic()
        left = called[len(self._fits) :]
        for fit in fits(network, whole, left, times, calls, device, self._meter.tick):
            self._fits.append(fit)
            if self._group.leads and time.monotonic() - kept >= _KEEP_SECONDS:
                self._keep(network)
                kept = time.monotonic()

    def _loss(self, network: nn.Module) -> float:
        device = self._group.device
        network.to(device)
        self._task.recalibrate(network, device)
        return mean_loss(self._task, network, BATCHES, device, self._meter.tick)

    def _keep(self, network: nn.Module) -> None:
        changed = [fit.name for fit in self._fits if not fit.left_out]
        weights = {name: network.get_submodule(name).state_dict() for name in changed}
        fitted = [[fit.name, fit.before, fit.after, fit.left_out] for fit in self._fits]
        self._checkpoints.save(len(self._fits), {"fits": fitted, "weights": weights})

    def _resume(self, network: nn.Module) -> None:
        state = self._checkpoints.load()
        self._group.barrier()  # the leader must not drop a file that another worker is about to read
        if state is None:
            return
        for name, weights in state["weights"].items():
            network.get_submodule(name).load_state_dict(weights)
        self._fits = [Fit(*fitted) for fitted in state["fits"]]
