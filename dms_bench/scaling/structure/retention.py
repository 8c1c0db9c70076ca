"""Deterministic gates, and apart from them a score of what is kept: deterministic differentiable pruning.

Huang et al. 2026 (arXiv 2603.08065), equations 11 to 15, at the constants of the authors' code: the network runs under
m = ReLU(z), which may exceed 1, while what is paid for is

    s = clamp(sigmoid(2.4 (z - mu) / mu) (r - l) + l, 0, 1),   l = -0.1, r = 1.1,

a surrogate of the number of gates above zero that sharpens as mu falls from 0.5 to 0.1 with the root of the
search's progress. Gradients pass ReLU and clamp as if they were not there.

The paper gates heads and inner channels, whose gates its cut multiplies into the weights; so does `fold`. Where more
than the next layer's weight sees a mask (statistics of norms, residual streams with them, blocks, shared weights), that
would change the function, and gates end at 1 here.

Shape legend:
    E: elements of all units
    G: width groups
    B: removable blocks
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.relaxation import Relaxation

#: Factor in the sigmoid, and the interval to which it is stretched: s is 0 at z = 0, and 1 at z = 2 mu.
SHARPNESS, LOW, HIGH = 2.4, -0.1, 1.1
#: mu at the beginning and at the end of the search.
SOFT, SHARP = 0.5, 0.1


class RetentionGates(Relaxation):
    """A gate per element; `gates` are z, [E].

    Args:
        model: the network, whose shared weights cannot take up a gate.
        space: its search space.
    """

    def __init__(self, model: nn.Module, space: SearchSpace) -> None:
        super().__init__(space)
        self.gates = nn.Parameter(torch.ones(space.units.total))
        self.sharpness = SOFT
        # In the state, as what is paid for depends on it: a search may go on after its last step.
        self.register_buffer("_progress", torch.zeros((), dtype=torch.float64))
        self._progress: Tensor
        self.register_buffer("_foldable", foldable(model, space), persistent=False)
        self._foldable: Tensor

    def anneal(self, progress: float) -> None:
        """Sharpen the score of what is kept."""
        self._progress.fill_(progress)
        self.sharpness = SOFT - (SOFT - SHARP) * progress**0.5

    def refresh(self) -> None:
        """Take up how far the search is."""
        self.anneal(float(self._progress))

    def soft_mask(self) -> Tensor:
        """Return the gates m, [E]."""
        mask = self.gates.clamp_min(0)
        mask = torch.where(self._foldable, mask, mask.clamp_max(1))
        return self.gates + (mask - self.gates).detach()

    def retention(self) -> Tensor:
        """Return the scores s, [E]."""
        gates = self.gates + (self.gates.clamp_min(0) - self.gates).detach()
        stretched = torch.sigmoid(SHARPNESS * (gates / self.sharpness - 1)) * (HIGH - LOW) + LOW
        return stretched + (stretched.clamp(0, 1) - stretched).detach()

    def indecision(self) -> Tensor:
        """Return the mean of s (1 - s): 0 where every element is kept or gone, a scalar."""
        scores = self.retention()
        return (scores * (1 - scores)).mean()

    def hard_mask(self) -> Tensor:
        """Keep what scores at least a half, [E]."""
        scores = self.retention().detach()
        return (scores >= 0.5).to(scores.dtype)

    def soft_size(self) -> tuple[Tensor, Tensor]:
        """Return the sums of scores of each group, [G], and the scores of blocks, [B]."""
        scores = self.retention()
        return self._counts(scores)[: self.groups], scores[self.width_elements :]

    @property
    def reach(self) -> float:
        """Beyond it every element stays, or goes."""
        return 2 * SOFT + float(self.gates.detach().abs().max())

    def shrinking(self, *, depth: bool = True) -> Tensor:
        """Return what lowers every gate that is not decided, [E]."""
        direction = -torch.ones_like(self.gates)
        if self.depth_frozen or not depth:
            direction[self.width_elements :] = 0
        return direction

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Return the sums of scores, [U], and the gates, which order elements."""
        with torch.no_grad():
            return self._counts(self.retention()).cpu(), self.gates.detach().cpu()

    @torch.no_grad()
    def fold(self, model: nn.Module, space: SearchSpace, kept: Tensor) -> None:
        """Multiply the gates of kept elements into the weights that they scale.

        Args:
            model: the network, changed in place.
            space: its search space.
            kept: the mask of what a cut keeps, [E]; other elements' weights stay as they are.
        """
        folds = self._foldable.cpu() & kept.cpu().bool()
        factors = torch.where(folds, self.soft_mask().cpu(), torch.ones(len(folds)))
        extended = torch.cat([factors, torch.ones(1)])  # index -1: always stays
        for parameter, dim in {(site.parameter, site.dim) for site in space.sites}:
            outer, inner = space.cut_dims()[parameter, dim]
            weight = model.get_parameter(parameter)
            shape = [-1 if at == dim else 1 for at in range(weight.dim())]
            weight.mul_((extended[outer] * extended[inner]).to(weight).view(shape))


def foldable(model: nn.Module, space: SearchSpace) -> Tensor:
    """Return which elements' masks scale nothing but weights that are no one else's, [E]."""
    dims, total = space.cut_dims(), space.units.total
    seen, spoilt = torch.zeros(total + 1, dtype=torch.bool), torch.zeros(total + 1, dtype=torch.bool)
    for norm in space.norms:
        spoilt[norm.elements.flatten()] = True
    for row in space.rows:
        spoilt[torch.cat(dims[row.parameter, 0])] = True
    for site in space.zeroed:
        spoilt[torch.cat(dims[site.parameter, site.dim])] = True
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    owners = [id(model.get_parameter(name)) for name in names]
    shared = {name for name, owner in zip(names, owners, strict=True) if owners.count(owner) > 1}
    computed = {normed.direction for normed in space.normed}
    for site in space.sites:
        elements = torch.cat(dims[site.parameter, site.dim])
        at_home = site.parameter.rpartition(".")[0] == site.module
        own = at_home and site.parameter not in shared | computed and not site.standardised
        (seen if own else spoilt)[elements] = True
    possible = (seen & ~spoilt)[:-1]
    possible[space.width_elements :] = False
    return possible
