"""How masks act on a network while it runs: by hooks on the modules that need them.

conv(x * m, W) = conv(x, W * m): a mask scales the contracted dimension of a weight or, where that has
fewer elements, the input. Blocks are x + m f(x): m scales the layers in which f ends, or the block's
output is blended with its input, x + m (block(x) - x); of blocks that are f alone, which others add, m scales the
output. Statistics of LayerNorms run over kept features, and the mask of the layers that read them is folded into their
scale and shift (`folded_masks`).
The hooks are objects that share one state with their owner, so that a deep copy of the network
(an average of weights, say) has hooks of its own that read the copy's state.

Shape legend:
    E: elements of all searched units
    C: size of a masked dimension
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from dms_bench.scaling.masks.blocks import BlendBlock, ScaleBranch
from dms_bench.scaling.masks.norm_hook import MaskedNorm
from dms_bench.scaling.masks.state import MaskState
from dms_bench.scaling.masks.weights import RestoreWeight, ScaleInput, ScaleStandardised, ScaleWeight
from dms_bench.scaling.modules.attention import may_fuse, unfused
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.space.elements import Site
from dms_bench.scaling.space.space import SearchSpace

#: Forward methods that contract their first argument as it is with their weight.
_PLAIN = {
    nn.Linear.forward: 0,
    nn.Conv1d.forward: 1,
    nn.Conv2d.forward: 2,
    nn.Conv3d.forward: 3,
}


class MaskedForward:
    """Puts hooks on a network that apply the mask given to `using`, and none outside it.

    Args:
        model: the network.
        space: its search space.
        left: whether the network has each element, [E], where some were cut off; masks still have all. All by default.
    """

    def __init__(self, model: nn.Module, space: SearchSpace, left: Tensor | None = None) -> None:
        self.state = MaskState()
        left = torch.ones(space.units.total, dtype=torch.bool) if left is None else left
        self._left = torch.cat([left, torch.tensor([True])])  # index -1: always stays
        self._named = dict(model.named_modules())
        #: Fused operators of torch would pass over all hooks, and the masks with them.
        self._may_fuse = may_fuse(model)
        #: Of every vector: the outer and inner element that each number of it is made of, and the block whose branch
        #: it ends, or -1.
        self._vectors: list[Tensor] = []
        self._first_block = space.width_elements
        blocks = space.blocks
        #: Blocks that were cut off, with all that is in them.
        self._gone = [block for block, stays in zip(blocks, left[self._first_block :], strict=True) if not stays]
        ends = {tail: self._first_block + i for i, block in enumerate(blocks) for tail in space.tails.get(block, ())}
        ends = {tail: end for tail, end in ends.items() if self._runs(tail)}
        folded = {norm: self._folded(space, norm, ends) for norm in space.folded_masks if self._runs(norm)}
        unmasked = {layer for layers in folded.values() for layer in layers}
        scaled, dims = set(), space.cut_dims()
        directions = {normed.direction for normed in space.normed}
        sites = [site for site in space.sites if self._runs(site.module)]
        held = {site: self._holder(site) for site in sites if site.parameter not in directions}
        for site in sites:
            if site.parameter in directions:
                scale = ScaleInput(self.state, len(self._vectors))
                self._named[site.module].register_forward_pre_hook(scale, with_kwargs=True)
                self._vectors.append(self._vector(dims[site.parameter, site.dim]))
        for site, (holder, leaf) in held.items():
            if site.module in unmasked or self._inside(site, held):
                continue
            end = ends.get(site.module, -1) if site.module == holder else -1
            scaled.add((holder, leaf) if end >= 0 else None)
            vector = self._vector(dims[site.parameter, site.dim], end)
            self._scale(vector, site.module, holder, leaf, site.dim, site.standardised)
        for row in (row for row in space.rows if self._runs(row.module)):
            outer, inner = dims[row.parameter, 0]
            rows = _alone(row.elements[self._left[outer] & self._left[inner]])
            self._scale(rows, row.module, row.module, row.parameter.rpartition(".")[2], 0)
        for site in (site for site in space.zeroed if self._runs(site.module)):
            self._scale(self._vector(dims[site.parameter, site.dim]), site.module, *self._holder(site), site.dim)
        for tail, end in ends.items():
            for leaf, parameter in self._named[tail]._parameters.items():
                if parameter is not None and (tail, leaf) not in scaled:
                    self._scale(_alone(torch.tensor([end])), tail, tail, leaf, 0)
        for norm in (norm for norm in space.norms if self._runs(norm.module)):
            module = self._named[norm.module]
            # Not a hook: a hook would have the library's own norm run first, for nothing.
            module.__dict__["forward"] = MaskedNorm(
                self.state, len(self._vectors), module, norm.dim, norm.kind, bool(folded.get(norm.module))
            )
            outer, inner = norm.elements
            self._vectors.append(self._vector((outer, inner)))
        for index, block in enumerate(blocks):
            if block in self._gone:
                continue
            if block in space.added:
                self._named[block].register_forward_hook(ScaleBranch(self.state, index))
            elif block not in space.tails:
                blend = BlendBlock(self.state, index, space.answers.get(block, ()))
                self._named[block].register_forward_hook(blend, with_kwargs=True)
        # One gather makes all vectors of a step; they are views of its result.
        self._indices = torch.cat([*self._vectors, torch.empty(3, 0, dtype=torch.long)], dim=1)
        self._lengths = [vector.size(1) for vector in self._vectors]

    def _runs(self, module: str) -> bool:
        return block_of(module, self._gone) < 0

    def _vector(self, elements: tuple[Tensor, Tensor], end: int = -1) -> Tensor:
        """Return the vector of indices [3, C] that go with outer and inner elements, as far as they are left."""
        outer, inner = elements
        stays = self._left[outer] & self._left[inner]
        return torch.stack([outer, inner, torch.full_like(inner, end)])[:, stays]

    def _holder(self, site: Site) -> tuple[str, str]:
        """Return the module, and the name there, through which a site's operator sees its weight."""
        holder, _, leaf = site.parameter.rpartition(".")
        weight = self._named[holder]._parameters.get(leaf)
        tied = (name for name, parameter in self._named[site.module]._parameters.items() if parameter is weight)
        name = next(tied, None)  # of weights that modules share, each has the name of one alone
        return (holder, leaf) if name is None else (site.module, name)

    def _inside(self, site: Site, held: dict[Site, tuple[str, str]]) -> bool:
        """Whether a module around a site's scales the same weight already, for all of its own forward pass."""
        return any(
            holder == held[site]
            and around.dim == site.dim
            and site.module != around.module
            and (not around.module or site.module.startswith(around.module + "."))
            for around, holder in held.items()
        )

    def _folded(self, space: SearchSpace, norm: str, ends: dict[str, int]) -> tuple[str, ...]:
        """Return the layers whose masks are folded into a norm: all that read it, or none."""
        elements, dims = next((site.elements for site in space.norms if site.module == norm), None), space.cut_dims()
        layers = tuple(layer for layer in space.folded_masks[norm] if self._runs(layer))
        sites = {site.module: site for site in space.sites if site.module in layers}
        fit = elements is not None and all(
            layer in sites
            and layer not in ends
            and sites[layer].parameter == f"{layer}.weight"
            and not sites[layer].standardised
            and _input_dim(self._named[layer], sites[layer].dim) is not None
            and torch.equal(torch.stack(dims[sites[layer].parameter, sites[layer].dim]), elements)
            for layer in layers
        )
        return layers if fit else ()

    def _scale(self, vector: Tensor, module: str, holder: str, leaf: str, dim: int, standardised: bool = False) -> None:
        running = self._named[module]
        input_dim = _input_dim(running, dim) if module == holder and leaf == "weight" else None
        input_dim = None if vector.size(1) == 1 else input_dim
        kind = ScaleStandardised if standardised else ScaleWeight
        scale = kind(self.state, len(self._vectors), self._named[holder], leaf, dim, input_dim)
        self._vectors.append(vector)
        running.register_forward_pre_hook(scale)
        # Last scaled, first restored.
        running.register_forward_hook(RestoreWeight(scale), prepend=True, always_call=True)

    @contextmanager
    def using(self, mask: Tensor) -> Iterator[None]:
        """Apply a mask [E] to forward passes inside."""
        self._indices = self._indices.to(mask.device)
        extended = torch.cat([mask, mask.new_ones(1)])  # index -1: always stays
        outer, inner, ends = extended[self._indices]
        self.state.vectors = torch.split(outer * inner * ends, self._lengths)
        self.state.blocks = mask[self._first_block :]
        self.state.running = True
        try:
            with unfused() if self._may_fuse else nullcontext():
                yield
        finally:
            self.state.running = False


def _alone(elements: Tensor) -> Tensor:
    """Return the vector of indices [3, C] that go with one element each."""
    return torch.stack([elements, *torch.full((2, len(elements)), -1)])


def _input_dim(module: nn.Module, dim: int) -> int | None:
    """Return the dimension of a module's input that dimension `dim` of its weight contracts, or None."""
    spatial = _PLAIN.get(type(module).forward)
    if spatial is None or dim != 1 or getattr(module, "groups", 1) != 1:
        return None
    return -1 - spatial
