"""The numerical proof of a search space: masking elements must equal cutting them out."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from dms_bench.scaling.counter import count
from dms_bench.scaling.masking import MaskedForward
from dms_bench.scaling.space import SearchSpace
from dms_bench.scaling.surgery import cut

#: Share of elements that a random architecture of the proof keeps.
KEPT_SHARE = 0.6
#: In double precision a right cut agrees to about 1e-15, a wrong one differs by 1e-3 and more.
TOLERANCE = 1e-7


def prove(model: nn.Module, example: Tensor, space: SearchSpace, seed: int = 0) -> SearchSpace:
    """Return the space without what could not be proven.

    Args:
        model: the supernet, in eval mode; left as it is.
        example: its input, [1, ...].
        space: what the labels found.
        seed: of the random weights and masks.
    """
    trial = _Proof(model, example, space, torch.Generator().manual_seed(seed))
    good = trial.provable(list(space.names))
    bad = [name for name in space.names if name not in set(good)]
    if bad:
        space = space.without(bad, "the cut network does not equal the masked one")
    return replace(space, proof_error=trial.error(space.names) if space.names else 0.0)


class _Proof:
    def __init__(self, model: nn.Module, example: Tensor, space: SearchSpace, generator: torch.Generator) -> None:
        self.space, self.generator = space, generator
        self.model = copy.deepcopy(model).double().eval()
        _randomise(self.model, generator)
        self.example = example.double() if example.is_floating_point() else example

    def provable(self, names: list[str]) -> list[str]:
        """Return the units that can be cut; failing sets are halved until single units fail."""
        if not names or self.error(names) <= TOLERANCE:
            return names
        if len(names) == 1:
            return []
        half = len(names) // 2
        good = self.provable(names[:half]) + self.provable(names[half:])
        # Units that are fine alone may fail together; then the later ones go.
        while good and self.error(good) > TOLERANCE:
            good.pop()
        return good

    def error(self, names: list[str] | tuple[str, ...]) -> float:
        """Relative difference when random elements of some units go; infinite if the cut fails."""
        mask = self.space.full()
        units = self.space.units
        for name, start, size, low in zip(self.space.names, units.starts, units.sizes, units.minimum, strict=True):
            if name in names:
                keeps = max(low, min(size - 1, round(KEPT_SHARE * size)))
                order = torch.randperm(size, generator=self.generator)
                mask[start + order[keeps:]] = 0
        architecture = self.space.architecture(mask)
        masked = copy.deepcopy(self.model)
        with torch.no_grad(), MaskedForward(masked, self.space).using(mask.double()):
            expected = masked(self.example)
        try:
            small = cut(self.model, self.space, architecture)
            with torch.no_grad():
                found = small(self.example)
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError):
            return float("inf")  # integers in the model's code that the cut did not mend
        if found.shape != expected.shape:
            return float("inf")
        counted = count(small, self.example)
        if (counted.macs, counted.params) != (architecture.macs, architecture.params):
            return float("inf")
        return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Give every tensor values under which no branch is silent (zero-initialised norms, layer scales)."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith(("weight", "gamma"))):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.uniform_(-0.5, 0.5, generator=generator)
