"""A smaller copy of a network that a search runs in the place of the whole, without what its masks make zero.

What has a mask of exactly zero adds nothing to what the network returns, and the importances that vanish with the mask
(Taylor, SNIP) learn nothing from it. So the search may run the network that the cut would leave of all other elements,
under their masks. It is exact: losses, gradients and the architecture are those of the masked whole, but for rounding
and for the random numbers of dropout, of which fewer are drawn. The running statistics of a batch norm stay as they
are in what does not run, and move on from there when it returns.

The whole network keeps the parameters, so that optimisers, averages, other workers and checkpoints see it alone: every
forward pass gathers what the twin needs, and its backward pass puts the gradients back, zeros elsewhere.

Shape legend:
    E: elements of all searched units
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.cut.surgery import cut
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench.scaling.modules.tied import first_names
from dms_bench.scaling.space.space import SearchSpace

#: Share of the MACs that a smaller twin has to save; building one takes some tenths of a second.
WORTH = 0.1
#: Steps for which an element that became zero stays in the twin: most that return do so at once.
PATIENCE = 20

#: Of the dimensions that shrink: which indices are left.
Indices = tuple[tuple[int, Tensor], ...]


def twins_are_exact(space: SearchSpace) -> bool:
    """Whether a network's twins compute what it does: where a weight's norm is part of it, they would not.

    With weight norm the gradients would differ; with spectral norm, which is among what is zeroed, its iteration.
    """
    return not space.normed and not space.zeroed


class Twins(nn.Module):
    """Builds a twin, and another one where elements return or enough of them have gone.

    Its buffers say what the present twin has, so that a search that goes on from a checkpoint runs the same.

    Args:
        space: of the network.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("alive", torch.ones(space.units.total, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        #: The step at which the mask of each element was last other than zero, [E].
        self.register_buffer("last", torch.zeros(space.units.total, dtype=torch.long))
        self.alive: Tensor
        self.steps: Tensor
        self.last: Tensor
        self._twin: Twin | None = None

    @torch.no_grad()
    def begin_step(self, alive: Tensor) -> None:
        """Decide what the step runs.

        Args:
            alive: whether each element has to run, [E].
        """
        self.steps += 1
        self.last[alive] = self.steps
        recent = self.last > self.steps - PATIENCE
        returns = bool((alive & ~self.alive).any())
        if returns or (int(self.steps) % PATIENCE == 0 and self._macs(recent) < (1 - WORTH) * self._macs(self.alive)):
            self.alive.copy_(recent)
            self._twin = None

    def of(self, model: nn.Module, mask: Tensor) -> Twin | None:
        """Return the twin of a network that runs a mask [E], or None where only the whole network does."""
        if bool(self.alive.all()) or bool(mask[~self.alive].any()):
            return None
        if self._twin is None:
            self._twin = Twin(model, self.space, self.alive)
        return self._twin

    def end_step(self) -> None:
        """Let go of what the step computed."""
        if self._twin is not None:
            self._twin.masked.state.forget()

    def _macs(self, alive: Tensor) -> float:
        return self.space.cost_of(self.space.macs_model, alive.cpu().float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Twins:
        self._twin = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._twin = None
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Place:
    """Where the twin has a tensor of the whole network."""

    whole: nn.Module
    small: nn.Module
    leaf: str
    indices: Indices
    #: What the gathered tensor is multiplied by, if by anything.
    scale: Tensor | None = None

    def gathered(self, weight: nn.Parameter) -> Tensor:
        """Return what the twin has of a weight."""
        if not self.indices:
            return weight
        scale = None if self.scale is None else self.scale.to(weight).view(-1, *[1] * (weight.dim() - 1))
        part: Tensor = _Gather.apply(weight, self.indices, scale)  # type: ignore[no-untyped-call]
        return part


class Twin:
    """What is left of a network without some elements, with the whole network's weights.

    Args:
        model: the whole network; it runs under masks.
        space: its search space.
        alive: whether the twin has each element, [E].
    """

    def __init__(self, model: nn.Module, space: SearchSpace, alive: Tensor) -> None:
        alive = alive.cpu()
        self.model = cut(model, space, space.architecture(alive.float()))
        self.masked = MaskedForward(self.model, space, alive)
        whole = dict(model.named_modules())
        self._pairs = [(whole[name], small) for name, small in self.model.named_modules() if name in whole]
        self._parameters, self._buffers = self._places(model, space, torch.cat([alive, torch.tensor([True])]))
        used = {id(place.whole._parameters[place.leaf]) for place in self._parameters}
        #: Parameters of blocks that do not run.
        self._gone = [parameter for parameter in model.parameters() if id(parameter) not in used]

    def _places(self, model: nn.Module, space: SearchSpace, alive: Tensor) -> tuple[list[_Place], list[_Place]]:
        """Return the places of parameters and of buffers."""
        whole, first, scales = dict(model.named_modules()), first_names(model), _scales(space, alive)

        def places(tensors_of: Callable[[nn.Module], dict[str, Any]]) -> Iterator[_Place]:
            for path, small in self.model.named_modules():
                for leaf in [leaf for leaf, tensor in tensors_of(small).items() if tensor is not None]:
                    tensor, name = tensors_of(whole[path])[leaf], f"{path}.{leaf}" if path else leaf
                    name = first.get(name, name)
                    yield _Place(whole[path], small, leaf, _indices(space, name, tensor, alive), scales.get(name))

        return list(places(lambda module: module._parameters)), list(places(lambda module: module._buffers))

    def __call__(self, mask: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network under a mask, [E]."""
        for whole, small in self._pairs:
            small.training = whole.training
        gathered: dict[int, Tensor] = {}  # of weights that modules share, once
        for place in self._parameters:
            weight = place.whole._parameters[place.leaf]
            assert weight is not None
            if id(weight) not in gathered:
                gathered[id(weight)] = place.gathered(weight)
            _put(place.small, place.leaf, gathered[id(weight)])
        for place in self._buffers:
            buffer = place.whole._buffers[place.leaf]
            assert buffer is not None
            place.small._buffers[place.leaf] = _selected(buffer, place.indices)
        if torch.is_grad_enabled() and self._gone:
            mask = mask + _NoGradient.apply(*self._gone)  # type: ignore[no-untyped-call]
        with self.masked.using(mask):
            result = self.model(*args, **kwargs)
        if self.model.training:
            self._keep_buffers()
        return result

    @torch.no_grad()
    def _keep_buffers(self) -> None:
        """Give the whole network the statistics that a forward pass left in the twin."""
        for place in self._buffers:
            small, whole = place.small._buffers[place.leaf], place.whole._buffers[place.leaf]
            assert small is not None
            assert whole is not None
            if not place.indices:
                place.whole._buffers[place.leaf] = small
            else:
                mesh = [torch.arange(size, device=whole.device) for size in whole.shape]
                for dim, index in place.indices:
                    mesh[dim] = index
                whole[torch.meshgrid(*mesh, indexing="ij")] = small

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """Copies of a network, averages of its weights say, build a twin of their own."""
        return _nothing, ()


def _nothing() -> None:
    return None


def _indices(space: SearchSpace, name: str, tensor: Tensor, alive: Tensor) -> Indices:
    """Return which indices of a whole tensor the twin has, for the dimensions in which it has not all."""
    dims, left = space.cut_dims(), []
    for dim in range(tensor.dim()):
        if (name, dim) in dims:
            outer, inner = dims[name, dim]
            stays = alive[outer] & alive[inner]
            if not bool(stays.all()):
                left.append((dim, stays.nonzero().flatten().to(tensor.device)))
    return tuple(left)


def _scales(space: SearchSpace, alive: Tensor) -> dict[str, Tensor]:
    """Return what rows of queries are multiplied by, as a cut does: their attention divides by its heads' size."""
    scales = {}
    for row in space.rows:
        if row.scaled:
            outer, inner = space.cut_dims()[row.parameter, 0]
            queries = row.elements >= 0
            share = alive[row.elements[queries]].double().mean()
            scale = torch.where(queries, share.sqrt(), 1.0)
            scales[row.parameter] = scale[alive[outer] & alive[inner]]
    return scales


def _put(module: nn.Module, leaf: str, weight: Tensor) -> None:
    """Let a module see a tensor in the place of its parameter."""
    module._parameters[leaf] = weight  # type: ignore[assignment]
    if isinstance(module, nn.RNNBase):  # reads its weights from a list of its own
        module._flat_weights[module._flat_weights_names.index(leaf)] = weight  # type: ignore[call-overload]


class _Gather(torch.autograd.Function):
    """Selects what the twin has of a weight; by copying, which costs half of what torch's own selection does."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Indices, scale: Tensor | None) -> Tensor:
        """Return the part of a whole weight."""
        ctx.shape, ctx.indices, ctx.scale = weight.shape, indices, scale
        part = _selected(weight, indices)
        return part if scale is None else part * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """Return the gradient of the whole weight."""
        gradient = gradient if ctx.scale is None else gradient * ctx.scale
        for dim, index in reversed(ctx.indices):
            shape = list(gradient.shape)
            shape[dim] = ctx.shape[dim]
            gradient = gradient.new_zeros(shape).index_copy_(dim, index, gradient)
        return gradient, None, None


class _NoGradient(torch.autograd.Function):
    """Gives parameters that do not run the gradient zero, which optimisers and other workers wait for."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        """Return zero."""
        ctx.save_for_backward(*parameters)
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return zeros."""
        return tuple(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


def _selected(tensor: Tensor, indices: Indices) -> Tensor:
    for dim, index in indices:
        tensor = tensor.index_select(dim, index)
    return tensor
