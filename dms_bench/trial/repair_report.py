"""What a repair came to, as it stands in the trial's folder and in the description of its network."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dms_bench.trial.storage import StageFolder

REPORT = "repair.json"


class RepairReport(BaseModel):
    """What a repair came to; a part of the description of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    #: Of training data.
    batches: int
    #: Mean loss on them, None where it is no number or nothing was there to repair.
    loss_before: float | None = None
    loss_after: float | None = None
    #: Whether the repaired weights went on; if not, the network is as the search left it.
    used: bool = False
    #: By layer, for least squares: what its outputs were off the whole network's, as a share of their sum of squares,
    #: with the weights that the cut left and with new ones. For biases: nothing.
    layers: dict[str, tuple[float, float] | None] = {}
    #: Layers that read a cut width and were left as they were, and why.
    left_out: dict[str, str] = {}
    #: Layers that have been given a bias.
    biases: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the report."""
        losses = {"loss_before": self.loss_before, "loss_after": self.loss_after}
        counts = {"layers": len(self.layers), "left_out": len(self.left_out), "used": self.used}
        return {name: float(value) for name, value in {**losses, **counts}.items() if value is not None}


def read_report(stage: StageFolder) -> RepairReport:
    """Return the report of a finished repair."""
    return RepairReport.model_validate_json((stage.path / REPORT).read_bytes())
