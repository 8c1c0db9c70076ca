"""Latency of a network as a smooth function of what it keeps, measured on the device at hand.

After appendix A.1.2 of the paper: the measured latency of every segment of the network, times a smooth
function of the kept ratios. Randomly cut networks are timed segment by segment, and each gets a
quadratic with coefficients of at least zero in the kept ratios of the groups that touch it, so that
nothing becomes faster by keeping more.

Shape legend:
    G: width groups
    B: removable blocks of all stages
    T: terms of the quadratics of all segments
    K: cut networks that are timed
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.cut.surgery import cut
from dms_bench.scaling.example import AnyExample, Example
from dms_bench.scaling.latency.timing import REST, Segment, SegmentTimer, segments_of
from dms_bench.scaling.space.space import SearchSpace

#: Randomly cut networks that the model is fitted to, and further ones that it is judged by.
FITTED, HELD_OUT = 40, 10
#: Passes over all of these networks; timed forward passes of each in a pass, after one to warm up.
ROUNDS, REPEATS = 3, 3
#: The smallest share of a width group that is drawn.
_THINNEST = 0.1


@dataclass(frozen=True)
class Fidelity:
    """How well predictions agree with networks that the model was not fitted to.

    Attributes:
        r2: share of the variance of measured latencies that is explained.
        error: median of |predicted / measured - 1|.
        predicted: milliseconds, of each network.
        measured: milliseconds, likewise.
    """

    r2: float
    error: float
    predicted: tuple[float, ...]
    measured: tuple[float, ...]

    @classmethod
    def of(cls, predicted: list[float], measured: list[float]) -> Fidelity:
        """Compare predictions with measurements."""
        mean = math.fsum(measured) / len(measured)
        unexplained = math.fsum((guess - ms) ** 2 for guess, ms in zip(predicted, measured, strict=True))
        variance = math.fsum((ms - mean) ** 2 for ms in measured)
        error = median(abs(guess / ms - 1) for guess, ms in zip(predicted, measured, strict=True))
        return cls(1 - unexplained / variance, error, tuple(predicted), tuple(measured))

    @classmethod
    def from_content(cls, content: dict[str, Any] | None) -> Fidelity | None:
        """Return what `asdict` has made of one, read from JSON; None where there was none."""
        if not content:
            return None
        return cls(content["r2"], content["error"], tuple(content["predicted"]), tuple(content["measured"]))


@dataclass(frozen=True)
class LatencyTerm:
    """Milliseconds times at most two kept ratios, while a block stays; -1 stands for what always stays."""

    ms: float
    groups: tuple[int, int] = (-1, -1)
    block: int = -1


class LatencyModel:
    """Milliseconds of a forward pass; a `Cost`, differentiable in what is kept.

    Attributes:
        terms: of the quadratics of all segments.
        sizes: full size of each group, [G].
        fidelity: how good it is on networks it has not seen; None for one made by hand.
    """

    def __init__(self, terms: list[LatencyTerm], sizes: Tensor, fidelity: Fidelity | None = None) -> None:
        self.terms, self.fidelity = terms, fidelity
        self.sizes = sizes.double()
        self._ms = torch.tensor([term.ms for term in terms], dtype=torch.float64)
        self._groups = torch.tensor([term.groups for term in terms], dtype=torch.long).view(-1, 2)
        self._block = torch.tensor([term.block for term in terms], dtype=torch.long)

    def __call__(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return the latency in milliseconds, [...].

        Args:
            kept: kept elements of each group, [..., G].
            blocks: 1 for blocks that stay, 0 for those that go (soft masks in between), [B].
        """
        ratios = kept.double() / self.sizes
        ratios = torch.cat([ratios, ratios.new_ones(*ratios.shape[:-1], 1)], -1)  # index -1: always stays
        stays = torch.cat([blocks.double(), blocks.new_ones(1, dtype=torch.float64)])[self._block]  # [T]
        return (self._ms * ratios[..., self._groups].prod(-1) * stays).sum(-1)

    def to(self, device: torch.device) -> LatencyModel:
        """Return the model on a device."""
        moved = copy.copy(self)
        for name in ("sizes", "_ms", "_groups", "_block"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def to_json(self) -> str:
        """Return the model as text."""
        terms = [(term.ms, *term.groups, term.block) for term in self.terms]
        fidelity = asdict(self.fidelity) if self.fidelity else None
        return json.dumps({"sizes": self.sizes.tolist(), "fidelity": fidelity, "terms": terms}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> LatencyModel:
        """Return the model that `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        terms = [LatencyTerm(ms, (first, second), block) for ms, first, second, block in content["terms"]]
        return cls(terms, torch.tensor(content["sizes"]), Fidelity.from_content(content["fidelity"]))


def measure_latency(
    model: nn.Module, space: SearchSpace, example: AnyExample, device: torch.device | str
) -> LatencyModel:
    """Time randomly cut networks on a device and fit a model of the latency to them.

    The networks take turns, so that whatever else the machine does meets them alike; every figure is a
    median. It takes some 500 forward passes.

    Args:
        model: the supernet; left as it is.
        space: its search space.
        example: the input to time, [batch, ...], or its arguments (see `Example`).
        device: where to measure, with the number of threads that PyTorch is set to.
    """
    example, device = Example.of(example), torch.device(device)
    segments = segments_of(model, space, example)
    masks = [space.full(), *random_masks(space, FITTED + HELD_OUT - 1)]
    timings: list[dict[str, list[float]]] = [{} for _ in masks]
    for _ in range(ROUNDS):
        for mask, timed in zip(masks, timings, strict=True):
            network = cut(model, space, space.architecture(mask)).to(device).eval()
            timer = SegmentTimer(network, [segment.name for segment in segments], device)
            for name, spent in timer.run(example.to(device), REPEATS).items():
                timed.setdefault(name, []).extend(spent)
    medians = [{name: median(spent) for name, spent in timed.items()} for timed in timings]
    sizes = torch.tensor([float(group.size) for group in space.groups], dtype=torch.float64)
    groups = len(space.groups)
    kept = torch.stack([space.kept_elements(mask, torch.float64)[:groups] for mask in masks])  # [K, G]
    stays = torch.stack([mask[space.width_elements :] for mask in masks])  # [K, B]
    terms = [
        term
        for segment in [*segments, Segment(REST, ())]
        for term in _fitted(
            segment, kept[:FITTED] / sizes, stays[:FITTED], [times.get(segment.name, 0.0) for times in medians]
        )
    ]
    fitted = LatencyModel(terms, sizes)
    predicted = [float(fitted(kept[row], stays[row])) for row in range(FITTED, len(masks))]
    measured = [math.fsum(times.values()) for times in medians[FITTED:]]
    return LatencyModel(terms, sizes, Fidelity.of(predicted, measured))


def random_masks(space: SearchSpace, number: int) -> list[Tensor]:
    """Draw binary masks [E]: a share of every group, a number of blocks of every stage, each by itself."""
    generator = torch.Generator().manual_seed(0)
    units = space.units
    masks = []
    for _ in range(number):
        mask = torch.zeros(units.total)
        for unit, (start, size, low) in enumerate(zip(units.starts, units.sizes, units.minimum, strict=True)):
            drawn = float(torch.rand((), generator=generator))
            least = max(low, math.ceil(_THINNEST * size)) if unit < len(space.groups) else low
            count = least + round(drawn * (size - least))
            multiple = units.multiple[unit]
            count = min(max(low, round(count / multiple) * multiple), units.maximum[unit])
            mask[start + torch.randperm(size, generator=generator)[:count]] = 1
        masks.append(mask)
    return masks


def _fitted(segment: Segment, ratios: Tensor, stays: Tensor, ms: list[float]) -> list[LatencyTerm]:
    """Fit one segment's quadratic to its times by nonnegative least squares, of relative errors.

    Args:
        segment: what was timed.
        ratios: kept ratios of the networks, [K, G].
        stays: which blocks they keep, [K, B].
        ms: the segment's time in each of them, and in others that are not used here.
    """
    from scipy.optimize import nnls

    rows = torch.arange(len(ratios))
    if segment.block >= 0:
        rows = rows[stays[:, segment.block] > 0]
    groups = [-1, *segment.groups]
    pairs = [(first, second) for index, first in enumerate(groups) for second in groups[index:]]
    extended = torch.cat([ratios, ratios.new_ones(len(ratios), 1)], 1)[rows]
    features = torch.stack([extended[:, first] * extended[:, second] for first, second in pairs], 1)
    times = torch.tensor(ms, dtype=torch.float64)[rows].clamp(min=1e-6)
    weights = times.mean() / times
    coefficients, _ = nnls((features * weights[:, None]).numpy(), (times * weights).numpy())
    return [
        LatencyTerm(float(value), pair, segment.block)
        for value, pair in zip(coefficients, pairs, strict=True)
        if value > 0
    ]
