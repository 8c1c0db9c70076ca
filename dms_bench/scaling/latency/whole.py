"""Latency where a network can be timed as a whole only: in an engine that fuses layers and lets nobody look inside.

Randomly cut networks are timed in turns with the supernet. What they take is fitted by what is known of any network:
the multiply-accumulates of every kind of layer, the parameters that are read, and a constant for the network and for
each removable block, all with coefficients of at least zero. Coefficients of one kind are drawn to a common one, a pace
at which the engine computes or reads, which is all that a few dozen measurements can tell of layers that hardly vary.

Shape legend:
    G: width groups
    B: removable blocks of all stages
    T: terms: products of kept sizes, each with milliseconds of its own
    K: cut networks that are timed
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.cut.surgery import cut
from dms_bench.scaling.latency.model import Fidelity, random_masks
from dms_bench.scaling.space.space import SearchSpace

#: Randomly cut networks that the model is fitted to, and further ones that it is judged by.
FITTED, HELD_OUT = 32, 8
#: How strongly coefficients are drawn to the common one of their kind, against the errors of the networks.
_DRAWN = 0.003

#: Milliseconds of a network and of the supernet, which took turns.
Timed = Callable[[nn.Module], tuple[float, float]]


class WholeLatency:
    """Milliseconds of a forward pass; a `Cost`, differentiable in what is kept.

    Attributes:
        ms: what each of `Parts` takes, [T].
        whole_ms: what the supernet took, as measured.
        fidelity: how good it is on networks it has not seen; None for one made by hand.
    """

    def __init__(
        self, space: SearchSpace, ms: Sequence[float], whole_ms: float, fidelity: Fidelity | None = None
    ) -> None:
        self.ms, self.whole_ms, self.fidelity = tuple(ms), whole_ms, fidelity
        self._parts = Parts(space)
        self._ms = torch.tensor(self.ms, dtype=torch.float64)

    def __call__(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return the latency in milliseconds, [...].

        Args:
            kept: kept elements of each group, [..., G].
            blocks: 1 for blocks that stay, 0 for those that go (soft masks in between), [B].
        """
        return (self._parts(kept, blocks) * self._ms).sum(-1)

    def to(self, device: torch.device) -> WholeLatency:
        """Return the model on a device."""
        moved = copy.copy(self)
        moved._parts, moved._ms = self._parts.to(device), self._ms.to(device)
        return moved

    def to_json(self) -> str:
        """Return the model as text."""
        fidelity = asdict(self.fidelity) if self.fidelity else None
        return json.dumps({"whole_ms": self.whole_ms, "ms": self.ms, "fidelity": fidelity}, indent=1)

    @classmethod
    def from_json(cls, text: str, space: SearchSpace) -> WholeLatency:
        """Return the model that `to_json` wrote, of the same space.

        Raises:
            ValueError, KeyError, TypeError: it is another text.
        """
        content: dict[str, Any] = json.loads(text)
        model = cls(space, content["ms"], content["whole_ms"], Fidelity.from_content(content["fidelity"]))
        if len(model.ms) != len(model._parts.kinds):
            raise ValueError(f"{len(model.ms)} terms, of which the space has {len(model._parts.kinds)}")
        return model


class Parts:
    """What a network computes, reads and consists of: its terms, [T].

    Multiply-accumulates and parameters of each kind of layer are shares of those of the whole supernet; then, for each
    block and for the network, whether it is there.

    Attributes:
        kinds: of each term, [T]: 0 multiply-accumulates, 1 parameters, 2 a block, 3 the network.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._costs = [space.macs_model, space.params_model]
        self._wholes = [max(1.0, float(space.macs)), max(1.0, float(space.params))]
        numbers = [len(cost.constant) for cost in self._costs]
        self.kinds = [0] * numbers[0] + [1] * numbers[1] + [2] * len(space.blocks) + [3]

    def __call__(self, kept: Tensor, blocks: Tensor) -> Tensor:
        """Return the terms, [..., T]; arguments as of a `Cost`."""
        computed = [cost.terms(kept, blocks) / whole for cost, whole in zip(self._costs, self._wholes, strict=True)]
        present = torch.cat([blocks.double(), blocks.new_ones(1, dtype=torch.float64)])
        return torch.cat([*computed, present.expand(*kept.shape[:-1], -1)], -1)

    def to(self, device: torch.device) -> Parts:
        """Return the same on a device."""
        moved = copy.copy(self)
        moved._costs = [cost.to(device) for cost in self._costs]
        return moved


def measure_whole(model: nn.Module, space: SearchSpace, timed: Timed) -> WholeLatency:
    """Time randomly cut networks beside the supernet and fit a model of the latency to them.

    Args:
        model: the supernet; left as it is.
        space: its search space.
        timed: measures a network, in eval mode on the CPU, and the supernet.
    """
    masks = [space.full(), *random_masks(space, FITTED + HELD_OUT - 1)]
    spent = [timed(cut(model, space, space.architecture(mask)).eval()) for mask in masks]
    whole_ms = median(whole for _, whole in spent)
    # At the pace of the supernet in the same turns: what else the machine does meets both.
    ms = torch.tensor([own / whole * whole_ms for own, whole in spent], dtype=torch.float64)
    parts, groups = Parts(space), len(space.groups)
    shares = torch.stack(
        [
            parts(space.kept_elements(mask, torch.float64)[:groups], mask[space.width_elements :].double())
            for mask in masks
        ]
    )  # [K, T]
    coefficients = fitted(shares[:FITTED], ms[:FITTED], parts.kinds)
    predicted = (shares[FITTED:] * torch.tensor(coefficients, dtype=torch.float64)).sum(1).tolist()
    return WholeLatency(space, coefficients, whole_ms, Fidelity.of(predicted, ms[FITTED:].tolist()))


def fitted(shares: Tensor, ms: Tensor, kinds: Sequence[int]) -> list[float]:
    """Return the milliseconds of each term, [T], by nonnegative least squares of relative errors.

    Args:
        shares: the terms of each network, [K, T].
        ms: what each network takes, [K].
        kinds: of each term; to each kind belongs a coefficient that those of its terms are drawn to, [T].
    """
    from scipy.optimize import nnls

    networks, terms = shares.shape
    common = nn.functional.one_hot(torch.tensor(kinds)).double()  # of each term, which kind it is
    errors = torch.cat([shares / ms[:, None], torch.zeros(networks, common.shape[1], dtype=torch.float64)], 1)
    # A term weighs as much as it adds to the time of a network, at the coefficient of its kind.
    weights = shares.square().mean(0).sqrt() / ms.mean() * math.sqrt(_DRAWN * networks)
    drawn = torch.cat([torch.eye(terms, dtype=torch.float64), -common], 1) * weights[:, None]
    goal = torch.cat([torch.ones(networks, dtype=torch.float64), torch.zeros(terms, dtype=torch.float64)])
    found, _ = nnls(torch.cat([errors, drawn]).numpy(), goal.numpy())
    return [float(value) for value in found[:terms]]
