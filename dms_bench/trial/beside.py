"""Cut networks timed in a runtime in turns with their supernet: what another program does meets both."""

from __future__ import annotations

import copy

from torch import nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.inference.opened import LONG, opened, times
from dms_bench.inference.runtimes import Predict
from dms_bench.tasks import Deployed, Task
from dms_bench.trial.spaces import untrained


class Beside:
    """A supernet that is open in a runtime.

    Args:
        task: whose networks are timed, in the form in which they leave dms_bench.
        supernet: its specification; weights do not matter.
        runtime: one of `RUNTIMES`.

    Raises:
        UserError: the runtime is not installed, or cannot run the supernet.
    """

    def __init__(self, task: Task, supernet: SupernetSpec, runtime: str) -> None:
        self._task, self._runtime = task, runtime
        self._example = task.example_input(1)
        self._whole = self._open(task.build(untrained(supernet)))

    def times(self, network: nn.Module, seconds: float = LONG) -> tuple[float, float]:
        """Return the milliseconds of a cut network and of the supernet (`inference.opened.times`).

        Args:
            network: on the CPU; left as it is.
            seconds: how long the two take turns.

        Raises:
            UserError: the runtime cannot run the network.
        """
        return times(self._open(network), self._whole, self._example, seconds)

    def _open(self, network: nn.Module) -> Predict:
        training = network.training
        try:
            task = self._task
            form = task.deployed(copy.deepcopy(network)) if isinstance(task, Deployed) else network
            return opened(form.eval(), self._example, self._runtime)
        finally:
            network.train(training)
