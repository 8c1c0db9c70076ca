"""How masks act on a network while it runs: by hooks on the modules that need them.

conv(x * m, W) = conv(x, W * m): a mask scales the contracted dimension of a weight or, where that has
fewer elements, the input. Blocks are x + m f(x): m scales the layers in which f ends, or the block's
output is blended with its input, x + m (block(x) - x); of blocks that are f alone, which others add, m scales the
output. Statistics of LayerNorms run over kept features, and
the mask of the layers that read them is folded into their scale and shift (`folded_masks`).
The hooks are objects that share one state with their owner, so that a deep copy of the network
(an average of weights, say) has hooks of its own that read the copy's state.

Shape legend:
    E: elements of all searched units
    C: size of a masked dimension
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.scaling.masks.norms import (
    masked_group_norm,
    masked_layer_norm,
    masked_response_norm,
    masked_rms_norm,
    masked_simple_norm,
)
from dms_bench.scaling.masks.standardised import masked_standardised
from dms_bench.scaling.modules.attention import may_fuse, unfused
from dms_bench.scaling.modules.blocks import argument_of, entry_of, features_of, with_entry, with_features
from dms_bench.scaling.modules.norm_kinds import UNIT, eps_of
from dms_bench.scaling.space.elements import Site
from dms_bench.scaling.space.space import SearchSpace

#: Forward methods that contract their first argument as it is with their weight.
_PLAIN = {
    nn.Linear.forward: 0,
    nn.Conv1d.forward: 1,
    nn.Conv2d.forward: 2,
    nn.Conv3d.forward: 3,
}


class MaskState:
    """The masks of the last forward pass: one vector [C] per scaled parameter and norm, a number per block.

    They apply while it runs, and while its backward pass computes some of it again (activation
    checkpointing). Copies start without masks.
    """

    def __init__(self) -> None:
        self.vectors: tuple[Tensor, ...] = ()
        self.blocks: Tensor | None = None
        self.running = False

    @property
    def active(self) -> bool:
        """Whether the masks apply to what runs now."""
        return self.running or (self.blocks is not None and _in_backward_pass())

    def forget(self) -> None:
        """Let go of the last masks."""
        self.vectors, self.blocks = (), None

    def __reduce__(self) -> tuple[type[MaskState], tuple[()]]:
        return MaskState, ()


class MaskHook:
    """Base of the hooks that this module puts on a network."""

    def __init__(self, state: MaskState, index: int) -> None:
        self.state, self.index = state, index


class ScaleWeight(MaskHook):
    """Scales a parameter along one dimension for the time of a module's forward pass.

    Args:
        state: gives the masks.
        index: which of its vectors.
        holder: the module that owns the parameter.
        leaf: the parameter's name there.
        dim: the scaled dimension.
        input_dim: the dimension of the module's input that may be scaled instead, if any.
    """

    def __init__(
        self, state: MaskState, index: int, holder: nn.Module, leaf: str, dim: int, input_dim: int | None = None
    ) -> None:
        super().__init__(state, index)
        self.holder, self.leaf, self.dim, self.input_dim = holder, leaf, dim, input_dim
        self.original: nn.Parameter | None = None

    def __call__(self, module: nn.Module, args: Any) -> tuple[Any, ...] | None:
        """Before the forward pass."""
        if not self.state.active or self.original is not None:
            return None
        weight = self.holder._parameters[self.leaf]
        assert weight is not None
        vector = self.state.vectors[self.index]
        # A frozen weight stays the only copy of itself, and no gradient of its size is computed for the mask's sake.
        if self.input_dim is not None and args and (args[0].numel() < weight.numel() or not weight.requires_grad):
            return (_scaled(args[0], vector, self.input_dim), *args[1:])
        self.original = weight
        self.put(self.scaled(weight, vector))
        return None

    def put(self, weight: Tensor) -> None:
        """Let the module see a weight in the place of its parameter."""
        self.holder._parameters[self.leaf] = weight  # type: ignore[assignment]
        if isinstance(self.holder, nn.RNNBase):  # reads its weights from a list of its own
            self.holder._flat_weights[self.holder._flat_weights_names.index(self.leaf)] = weight  # type: ignore[call-overload]

    def scaled(self, weight: Tensor, vector: Tensor) -> Tensor:
        """Return the parameter as the module shall see it."""
        return _scaled(weight, vector, self.dim)


class ScaleStandardised(ScaleWeight):
    """Gives a convolution that standardises its weight one whose standardised form is the masked one."""

    def scaled(self, weight: Tensor, vector: Tensor) -> Tensor:
        """Return the parameter as the module shall see it."""
        return masked_standardised(weight, vector, self.dim, float(getattr(self.holder, "eps")))  # noqa: B009


class ScaleInput(MaskHook):
    """Scales the input of a layer that computes its weight from other tensors (weight norm), in its weight's place."""

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the forward pass."""
        entry = entry_of(args, kwargs)
        if not self.state.active or entry is None:
            return None
        vector = self.state.vectors[self.index]
        if isinstance(module, nn.Linear):
            return with_entry(args, kwargs, _scaled(entry, vector, -1))
        assert isinstance(module, nn.modules.conv._ConvNd)
        repeats = module.in_channels // len(vector)  # groups whose inputs have the same masks
        channels = -1 - len(module.kernel_size)
        return with_entry(args, kwargs, _scaled(entry, vector.repeat(repeats), channels))


class RestoreWeight(MaskHook):
    """Puts the parameter back after the forward pass, also after one that failed."""

    def __init__(self, scale: ScaleWeight) -> None:
        super().__init__(scale.state, scale.index)
        self.scale = scale

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the forward pass."""
        if self.scale.original is not None:
            self.scale.put(self.scale.original)
            self.scale.original = None


class MaskedNorm(MaskHook):
    """Stands for the `forward` of a norm whose statistics run over features: those of kept ones.

    Args:
        state: gives the masks.
        index: which of its vectors.
        module: the norm.
        dim: the normalised dimension of its input.
        kind: what it computes, where it is one of `recognised`.
        folds: the result is masked as well, for the layers that read it.
    """

    def __init__(self, state: MaskState, index: int, module: nn.Module, dim: int, kind: str, folds: bool) -> None:
        super().__init__(state, index)
        self.module, self.dim, self.kind, self.folds = module, dim, kind, folds

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise."""
        norm = self.module
        if not self.state.active:
            unmasked: Tensor = type(norm).forward(norm, x)
            return unmasked
        mask = self.state.vectors[self.index]
        scale: Tensor | None = norm._parameters.get("weight")
        shift: Tensor | None = norm._parameters.get("bias")
        if scale is not None and self.kind.endswith(UNIT):
            scale = scale + 1
        if self.folds:
            scale = mask if scale is None else scale * mask
            shift = None if shift is None else shift * mask
        kind = self.kind.removesuffix(UNIT)
        if isinstance(norm, nn.LayerNorm) or kind == "layer":
            result = masked_layer_norm(x, mask, self.dim, scale, shift, eps_of(norm, x))
        elif isinstance(norm, nn.GroupNorm):
            result = masked_group_norm(x, mask, scale, shift, norm.eps)
        elif kind == "response":
            assert scale is not None
            assert shift is not None
            result = masked_response_norm(x, mask, self.dim, scale, shift, eps_of(norm, x))
        else:
            masked = {"rms": masked_rms_norm, "simple": masked_simple_norm}[kind]
            result = masked(x, mask, self.dim, scale, eps_of(norm, x))
        for name in ("drop", "act"):  # of norms that bring their activation along
            following = getattr(norm, name, None)
            result = following(result) if isinstance(following, nn.Module) else result
        return result


class BlendBlock(MaskHook):
    """Blends what a residual block returns with what it was given; exact at 0 and at 1.

    Args:
        state: gives the masks.
        index: of the block.
        answers: what the block, removed, answers for each entry of the tuple that it returns, if it returns one.
    """

    def __init__(self, state: MaskState, index: int, answers: Sequence[str]) -> None:
        super().__init__(state, index)
        self.answers = answers

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """After the forward pass."""
        if not self.state.active:
            return None
        if type(output) is not tuple:
            return self._blended(entry_of(args, kwargs), output)
        entries = zip(output, self.answers, strict=True)
        return tuple(self._blended(argument_of(args, kwargs, answer), value) for value, answer in entries)

    def _blended(self, entry: Any, features: Any) -> Any:
        if not isinstance(entry, Tensor) or not isinstance(features, Tensor) or features is entry:
            return features
        assert self.state.blocks is not None
        kind = torch.promote_types(entry.dtype, features.dtype)
        blended = torch.lerp(entry.to(kind), features.to(kind), self.state.blocks[self.index].to(kind))
        return blended.to(features.dtype)


class ScaleBranch(MaskHook):
    """Scales the output of a block that the code around it adds to its input."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """After the forward pass."""
        features = features_of(output)
        if not self.state.active or features is None:
            return None
        assert self.state.blocks is not None
        return with_features(output, features * self.state.blocks[self.index].to(features.dtype))


class MaskedForward:
    """Puts hooks on a network that apply the mask given to `using`, and none outside it."""

    def __init__(self, model: nn.Module, space: SearchSpace) -> None:
        self.state = MaskState()
        self._named = dict(model.named_modules())
        #: Fused operators of torch would pass over all hooks, and the masks with them.
        self._may_fuse = may_fuse(model)
        #: Of every vector: the outer and inner element that each number of it is made of, and the block whose branch
        #: it ends, or -1.
        self._vectors: list[Tensor] = []
        self._first_block = space.width_elements
        blocks = space.blocks
        ends = {tail: self._first_block + i for i, block in enumerate(blocks) for tail in space.tails.get(block, ())}
        folded = {norm: self._folded(space, norm, ends) for norm in space.folded_masks}
        unmasked = {layer for layers in folded.values() for layer in layers}
        scaled, dims = set(), space.cut_dims()
        directions = {normed.direction for normed in space.normed}
        held = {site: self._holder(site) for site in space.sites if site.parameter not in directions}
        for site in space.sites:
            if site.parameter in directions:
                scale = ScaleInput(self.state, len(self._vectors))
                self._named[site.module].register_forward_pre_hook(scale, with_kwargs=True)
                outer, inner = dims[site.parameter, site.dim]
                self._vectors.append(torch.stack([outer, inner, torch.full_like(inner, -1)]))
        for site, (holder, leaf) in held.items():
            if site.module in unmasked or self._inside(site, held):
                continue
            end = ends.get(site.module, -1) if site.module == holder else -1
            scaled.add((holder, leaf) if end >= 0 else None)
            outer, inner = dims[site.parameter, site.dim]
            vector = torch.stack([outer, inner, torch.full_like(inner, end)])
            self._scale(vector, site.module, holder, leaf, site.dim, site.standardised)
        for row in space.rows:
            self._scale(_alone(row.elements), row.module, row.module, row.parameter.rpartition(".")[2], 0)
        for tail, end in ends.items():
            for leaf, parameter in self._named[tail]._parameters.items():
                if parameter is not None and (tail, leaf) not in scaled:
                    self._scale(_alone(torch.tensor([end])), tail, tail, leaf, 0)
        for norm in space.norms:
            module = self._named[norm.module]
            # Not a hook: a hook would have the library's own norm run first, for nothing.
            module.__dict__["forward"] = MaskedNorm(
                self.state, len(self._vectors), module, norm.dim, norm.kind, bool(folded.get(norm.module))
            )
            self._vectors.append(torch.cat([norm.elements, torch.full_like(norm.elements[:1], -1)]))
        for index, block in enumerate(blocks):
            if block in space.added:
                self._named[block].register_forward_hook(ScaleBranch(self.state, index))
            elif block not in space.tails:
                blend = BlendBlock(self.state, index, space.answers.get(block, ()))
                self._named[block].register_forward_hook(blend, with_kwargs=True)
        # One gather makes all vectors of a step; they are views of its result.
        self._indices = torch.cat([*self._vectors, torch.empty(3, 0, dtype=torch.long)], dim=1)
        self._lengths = [vector.size(1) for vector in self._vectors]

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
        layers = space.folded_masks[norm]
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


def strip_hooks(model: nn.Module) -> None:
    """Take the hooks of `MaskedForward` off a network."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, MaskHook)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_pre_hooks_with_kwargs.pop(key, None)
        if isinstance(module.__dict__.get("forward"), MaskHook):
            del module.__dict__["forward"]


def _alone(elements: Tensor) -> Tensor:
    """Return the vector of indices [3, C] that go with one element each."""
    return torch.stack([elements, *torch.full((2, len(elements)), -1)])


def _scaled(tensor: Tensor, vector: Tensor, dim: int) -> Tensor:
    """Multiply a tensor by a vector along one dimension, in the tensor's precision."""
    shape = [1] * tensor.dim()
    shape[dim] = -1
    return tensor * vector.to(tensor.dtype).view(shape)


def _input_dim(module: nn.Module, dim: int) -> int | None:
    """Return the dimension of a module's input that dimension `dim` of its weight contracts, or None."""
    spatial = _PLAIN.get(type(module).forward)
    if spatial is None or dim != 1 or getattr(module, "groups", 1) != 1:
        return None
    return -1 - spatial


def _in_backward_pass() -> bool:
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
