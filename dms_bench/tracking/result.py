"""What a finished trial comes to: its measure, its size, its speed and what it cost."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

_SECONDS_PER_DAY = 86400.0


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageCost(_Record):
    """Devices x wall time of one stage, all its attempts together."""

    stage: str
    #: The device's name, for example `NVIDIA H200` or `AMD EPYC 9654`.
    device: str
    #: `cpu`, `gpu`, ...: time on one kind is never called time on another.
    kind: str
    devices: Annotated[float, Field(gt=0)]
    #: Wall time in seconds, failed and stopped attempts included.
    seconds: Annotated[float, Field(ge=0)]
    attempts: Annotated[int, Field(ge=1)] = 1
    #: Samples that networks were run on, and the MACs of that, those of backward passes included; over all workers.
    #: None in results from before they were counted.
    samples: Annotated[int, Field(ge=0)] | None = None
    macs: Annotated[float, Field(ge=0)] | None = None
    #: Seconds that processors worked for the leading worker's process, whoever else used the machine; None in results
    #: from before it was measured.
    processor_seconds: Annotated[float, Field(ge=0)] | None = None

    @property
    def device_days(self) -> float:
        """Devices x days."""
        return self.devices * self.seconds / _SECONDS_PER_DAY

    def times(self, share: float) -> Self:
        """Return a share of the cost, of what several trials have paid together."""
        samples = None if self.samples is None else round(share * self.samples)
        macs, worked = (None if amount is None else share * amount for amount in (self.macs, self.processor_seconds))
        return self.model_copy(
            update={"seconds": share * self.seconds, "samples": samples, "macs": macs, "processor_seconds": worked}
        )


class TrialResult(_Record):
    """The outcome of a trial, as written to `result.json` and published in MLflow."""

    #: The measure that the leaderboard ranks by, and its value on the test split.
    metric: str
    value: float
    #: The same measure of the same network on the validation split: what settings are chosen by.
    validation: float | None = None
    #: Everything measured on the test split, the metric included.
    metrics: dict[str, float] = Field(default_factory=dict)
    #: Multiply-accumulates of one forward pass of one sample.
    macs: int
    params: int
    supernet_macs: int
    supernet_params: int
    #: Median time of a forward pass in milliseconds, and the supernet's, which takes turns with it; in a runtime that a
    #: budget names, the least time of the processor.
    latency_ms: float | None = None
    supernet_latency_ms: float | None = None
    #: The runtime that both were timed in, where the budget names another than PyTorch: `onnxruntime`, `openvino`.
    latency_runtime: str | None = None
    #: What the model that the latency budget is judged by says of the cut network; None without such a budget.
    latency_predicted_ms: float | None = None
    #: Bytes of weights and cache at inference, where the budget bounds them.
    memory_bytes: float | None = None
    #: How good that model is on networks that it has not seen: median relative error, and R^2.
    latency_error: float | None = None
    latency_r2: float | None = None
    #: The budget in absolute numbers, by what it bounds: `macs`, `params`, `latency` (milliseconds), `memory` (bytes).
    targets: dict[str, float]
    #: The cut network's cost is more than 1 % off the target (10 % where it is a latency, measured in a runtime); of
    #: several constraints, off the one that binds most.
    budget_missed: bool = False
    costs: list[StageCost] = Field(default_factory=list)
    #: Hash of the files that the supernet's weights came from; None where they came from none.
    weights: str | None = None
    seed: int
