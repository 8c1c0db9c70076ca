"""The processes that train one trial together, and what they run on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed

from dms_bench.config.trial import Resources
from dms_bench.errors import TrialFailure
from dms_bench.kernels import guard
from dms_bench.tracking.environment import cpu_name


@dataclass(frozen=True)
class Hardware:
    """What a trial occupies while it runs."""

    #: Name of the processor or accelerator.
    device: str
    #: `cpu`, `gpu` or another accelerator's type.
    kind: str
    #: Cores or accelerators in use, over all workers; a fraction of a shared accelerator.
    devices: float


@dataclass(frozen=True)
class WorkerGroup:
    """This process's place among the workers of a trial."""

    device: torch.device
    resources: Resources
    rank: int = 0

    @property
    def world_size(self) -> int:
        """Number of workers."""
        return self.resources.workers

    @property
    def leads(self) -> bool:
        """Whether this process writes files and records results for the group."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every worker is here."""
        if self.world_size > 1:
            distributed.barrier()

    def agree(self, text: str, what: str) -> None:
        """Make sure that all workers hold the same `text`.

        Raises:
            TrialFailure: they do not; `what` says what differs.
        """
        if len(set(self.gathered(text))) > 1:
            raise TrialFailure(f"the {self.world_size} workers disagree about {what}")

    def gathered(self, text: str) -> list[str]:
        """Return the `text` of every worker, in all of them."""
        if self.world_size == 1:
            return [text]
        texts = [""] * self.world_size
        distributed.all_gather_object(texts, text)
        return texts

    def hardware(self) -> Hardware:
        """Return what the whole group occupies."""
        if self.device.type == "cpu":
            return Hardware(cpu_name(), "cpu", self.resources.cpus * self.world_size)
        kind = "gpu" if self.device.type == "cuda" else self.device.type
        name = torch.cuda.get_device_name(self.device) if kind == "gpu" else kind
        return Hardware(name, kind, self.resources.gpus * self.world_size)


def alone(resources: Resources) -> WorkerGroup:
    """Return the group of a trial that has one worker: this process.

    Sets the number of threads that PyTorch uses.
    """
    device = torch.device("cuda" if resources.gpus > 0 else "cpu")
    set_up_process(resources)
    return WorkerGroup(device, resources)


def set_up_process(resources: Resources) -> None:
    """Let PyTorch use this worker's share of cores, and no kernel that is known to be wrong."""
    torch.set_num_threads(max(1, int(resources.cpus)))
    guard()
