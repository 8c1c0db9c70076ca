"""Cutting a network down to an architecture.

Weights are selected along labelled dimensions, removed blocks become `Skip` or `Zero`, and the integers that
modules keep about their own sizes (`num_features`, `num_heads`, ...) are corrected. What was done is
recorded as data, so that the cut network can be rebuilt by name without tracing and without pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dms_bench.scaling.architecture import Architecture
from dms_bench.scaling.cut.calls import ShapePatch, attach, patch_of
from dms_bench.scaling.cut.magnitudes import cut_weight_norm
from dms_bench.scaling.cut.stand_ins import Skip, stand_in
from dms_bench.scaling.masks.state import strip_hooks
from dms_bench.scaling.modules.attention import fits_torch, open_attention, openable
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench.scaling.modules.reparametrised import copy_of, listed_weight
from dms_bench.scaling.modules.tied import Owner, first_names, owners_of
from dms_bench.scaling.space.elements import NormedWeight, RowSite
from dms_bench.scaling.space.space import SearchSpace

#: Integers of modules that are no sizes, whatever they are equal to: positions, and ratios of two numbers of heads.
_NO_SIZE = ("idx", "index", "ndims", "num_key_value_groups")


@dataclass(frozen=True)
class Surgery:
    """What turns a supernet into a cut network, as data.

    Attributes:
        skipped: paths of removed blocks.
        answers: of those that return a tuple: path -> what stands for each entry (`blocks`).
        added: those of them that are branches, added to their input by the code around them.
        biases: linear layers that have got a bias since, which the supernet's have not (`scaling.repair`).
        shapes: new shape of every tensor that shrank.
        attributes: new integers of modules: module -> {attribute: value}.
        patches: new sizes of calls in modules' code: module -> calls.
    """

    skipped: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    attributes: dict[str, dict[str, int]] = field(default_factory=dict)
    patches: dict[str, tuple[ShapePatch, ...]] = field(default_factory=dict)
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()


def cut(model: nn.Module, space: SearchSpace, architecture: Architecture) -> nn.Module:
    """Return a cut copy of a network, with the weights of what stays.

    Raises:
        ValueError: the space is of another network.
    """
    mask = space.mask(architecture)
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    space.check_fits(tensors)
    dims = space.cut_dims()
    kept = torch.cat([mask.bool(), torch.tensor([True])])  # index -1: always stays
    renormed = {name: tensor for normed in space.normed for name, tensor in _renormed(normed, tensors, space, kept)}
    cut_names = {name for name, _ in dims} | set(renormed)
    small = copy_of(model, {id(tensors[name]): tensors[name] for name in cut_names})  # these are replaced
    strip_hooks(small)
    sharers = owners_of(small)
    with torch.no_grad():
        for name in cut_names:
            tensor = tensors[name].detach()
            for dim in range(tensor.dim()):
                if (name, dim) in dims:
                    outer, inner = dims[name, dim]
                    stays = kept[outer] & kept[inner]
                    tensor = tensor.index_select(dim, stays.nonzero().flatten().to(tensor.device))
            _replace(small, name, renormed.get(name, tensor), sharers)
        for row in {row.parameter: row for row in space.rows}.values():  # layers may share their weight
            _rescale(small, row, space, kept)
    apply_structure(small, plan_surgery(model, space, architecture))
    return small


def _renormed(
    normed: NormedWeight, tensors: dict[str, Tensor], space: SearchSpace, kept: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield, by name, the tensors of a weight under weight norm after a cut that leaves what is left of it as it is."""
    dims = space.cut_dims()
    g, v = (tensors[name].detach() for name in (normed.magnitude, normed.direction))
    pairs = {dim: dims[normed.direction, dim] for dim in range(v.dim()) if (normed.direction, dim) in dims}
    stays = {dim: kept[outer] & kept[inner] for dim, (outer, inner) in pairs.items()}
    if stays:
        yield from zip((normed.magnitude, normed.direction), cut_weight_norm(g, v, normed.dim, stays), strict=True)


def _rescale(small: nn.Module, row: RowSite, space: SearchSpace, kept: Tensor) -> None:
    """Scale queries so that an attention that divides by the square root of its head size divides by the old one."""
    if not row.scaled:
        return
    rows, factor = query_rows(row, space, kept)
    small.get_parameter(row.parameter)[rows.to(small.get_parameter(row.parameter).device)] *= factor


def query_rows(row: RowSite, space: SearchSpace, kept: Tensor) -> tuple[Tensor, float]:
    """Return which of the rows that stay are queries, bool [rows], and what a cut multiplies these with.

    Args:
        row: the rows, of an attention that divides by the square root of its head size.
        space: its search space.
        kept: which elements stay, and last whether what belongs to none does, bool [E + 1].
    """
    outer, inner = space.cut_dims()[row.parameter, 0]
    queries = row.elements >= 0
    share = float(kept[row.elements[queries]].double().mean())
    return queries[kept[outer] & kept[inner]], share**0.5


def _forget(model: nn.Module) -> None:
    """Let modules drop what they computed from the old weights (attention biases kept in eval mode)."""
    with modes_kept(model):
        model.train()


def plan_surgery(model: nn.Module, space: SearchSpace, architecture: Architecture) -> Surgery:
    """Return what `cut` changes, as data."""
    mask = space.mask(architecture)
    kept = torch.cat([mask.bool(), torch.tensor([True])])
    skipped = tuple(block for block, stays in zip(space.blocks, mask[space.width_elements :], strict=True) if not stays)
    shapes: dict[str, tuple[int, ...]] = {}
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for (name, dim), (outer, inner) in space.cut_dims().items():
        shape = list(shapes.get(name, tuple(tensors[name].shape)))
        shape[dim] = int((kept[outer] & kept[inner]).sum())
        shapes[name] = tuple(shape)
    attributes: dict[str, dict[str, int]] = {}
    first = first_names(model)
    for name, module in model.named_modules():
        changed = _changed_integers(name, module, space, kept, shapes, first)
        if changed:
            attributes[name] = changed
    patches = {
        name: tuple(
            patch_of(call, lambda elements: _number(elements, kept))
            for call in space.shape_calls[name]
            # The first T rows and columns of a causal mask are sliced as the code says, whatever T is.
            if call.searched or call.kind != "slice"
        )
        for name in sorted(space.patched & space.shape_calls.keys())
    }
    answers = {name: space.answers[name] for name in skipped if name in space.answers}
    added = tuple(name for name in skipped if name in space.added)
    return Surgery(skipped, shapes, attributes, patches, answers, added)


def apply_structure(model: nn.Module, surgery: Surgery) -> None:
    """Change a supernet's structure in place; tensors whose shape is still the old one are emptied.

    Args:
        model: the supernet by name, as its library builds it.
        surgery: what to change.
    """
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    owners = owners_of(model)
    for name, shape in surgery.shapes.items():
        if tuple(tensors[name].shape) != tuple(shape):
            _replace(model, name, tensors[name].detach().new_zeros(shape), owners)
        parent, _, leaf = name.rpartition(".")
        # What the library computes for the supernet's size must be saved with the weights from now on.
        model.get_submodule(parent)._non_persistent_buffers_set.discard(leaf)
    for name, values in surgery.attributes.items():
        module = model.get_submodule(name)
        for attribute, value in values.items():
            old = getattr(module, attribute)
            setattr(module, attribute, (value,) if isinstance(old, tuple) else value)
    opened = not all(fits_torch(module) for module in openable(model).values())
    if opened:
        open_attention(model)
    for name, patches in surgery.patches.items():
        attach(model.get_submodule(name), patches)
    for name in surgery.skipped:
        parent, _, child = name.rpartition(".")
        gone = stand_in(model.get_submodule(name), surgery.answers.get(name, ()), added=name in surgery.added)
        setattr(model.get_submodule(parent), child, gone)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and (
            opened or any(isinstance(layer, Skip) for layer in module.layers)
        ):
            module.use_nested_tensor = False  # which not every layer could read any more
    give_biases(model, surgery.biases)
    _forget(model)


def give_biases(model: nn.Module, layers: Iterable[str]) -> None:
    """Give linear layers that have no bias one of zeros, in place."""
    for name in layers:
        layer = model.get_submodule(name)
        weight = layer.get_parameter("weight")
        layer.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=weight.requires_grad)


def _replace(model: nn.Module, name: str, tensor: Tensor, owners: dict[int, list[Owner]]) -> None:
    """Give a parameter, in all modules that share it, or a buffer another value."""
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if leaf in module._parameters:
        old = module._parameters[leaf]
        assert old is not None
        new = nn.Parameter(tensor, requires_grad=old.requires_grad)
        for owner, attribute in owners[id(old)]:
            setattr(owner, attribute, new)
    else:
        module._buffers[leaf] = tensor


def _changed_integers(
    name: str,
    module: nn.Module,
    space: SearchSpace,
    kept: Tensor,
    shapes: dict[str, tuple[int, ...]],
    first: dict[str, str],
) -> dict[str, int]:
    """Return the integers of one module that the cut changes; `first` has the names that weights are listed under."""
    prefix = name + "." if name else ""
    listed = listed_weight(prefix, first)
    weight = shapes.get(listed)
    values: dict[str, int] = {}
    if isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        groups = module.groups
        if groups > 1:
            rows, others = ("in_channels", "out_channels") if module.transposed else ("out_channels", "in_channels")
            if (listed, 1) not in space.outer_elements:  # whole groups go, with their outputs
                groups = weight[0] * groups // int(getattr(module, rows))
            values = {rows: weight[0], others: weight[1] * groups, "groups": groups}
        elif module.transposed:
            values = {"in_channels": weight[0], "out_channels": weight[1]}
        else:
            values = {"out_channels": weight[0], "in_channels": weight[1]}
    elif isinstance(module, nn.Linear) and weight is not None:
        values = {"out_features": weight[0], "in_features": weight[1]}
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        suffix = "_l0" if isinstance(module, nn.RNNBase) else ""
        inputs, hidden = (shapes.get(first.get(f"{prefix}weight_{kind}{suffix}", "")) for kind in ("ih", "hh"))
        values = {} if inputs is None else {"input_size": inputs[1]}
        size = "proj_size" if getattr(module, "proj_size", 0) else "hidden_size"
        values |= {} if hidden is None else {size: hidden[1]}
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        running = shapes.get(prefix + "running_mean", weight)
        values = {} if running is None else {"num_features": running[0]}
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        groups = 1 if module.num_groups == 1 else weight[0] * module.num_groups // module.num_channels
        values = {"num_groups": groups, "num_channels": weight[0]}
    elif isinstance(module, nn.MultiheadAttention):
        by_size = _integers_by_size(name, module, space, kept)
        values = {"num_heads": by_size["num_heads"]} if "num_heads" in by_size else {}
        shape = shapes.get(first.get(prefix + "in_proj_weight", ""))
        values |= {} if shape is None else dict.fromkeys(("embed_dim", "kdim", "vdim"), shape[1])
        for size, leaf in (("embed_dim", "q_proj_weight"), ("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
            separate = shapes.get(first.get(prefix + leaf, ""))
            values |= {} if separate is None else {size: separate[1]}
    elif isinstance(module, nn.Transformer):
        shape = shapes.get(first.get(prefix + "encoder.layers.0.linear1.weight", ""))
        values = {} if shape is None else {"d_model": shape[1]}
    elif isinstance(getattr(module, "normalized_shape", None), tuple) and weight is not None and len(weight) == 1:
        values = {"normalized_shape": weight[0]}
    elif isinstance(getattr(module, "normalized_shape", None), tuple) and getattr(module, "weight", None) is None:
        normalised = [site.elements for site in space.norms if site.module == name]
        values = {"normalized_shape": _number(normalised[0], kept)} if normalised else {}
    else:
        values = _integers_by_size(name, module, space, kept)
    return {key: value for key, value in values.items() if _current(module, key) != value}


def _number(elements: Tensor, kept: Tensor) -> int:
    """Return how many indices stay, of those that go with `elements` [2, size]."""
    return int(kept[elements].all(0).sum())


def _outcomes(seen: Iterable[tuple[int, Tensor]], kept: Tensor) -> dict[int, dict[bytes, int]]:
    """Return how many indices stay, by size, of each of the different elements that sizes were seen of."""
    outcomes: dict[int, dict[bytes, int]] = {}
    for size, elements in seen:
        which = elements[:, elements[1].argsort(stable=True)]
        which = which[:, which[0].argsort(stable=True)]
        outcomes.setdefault(size, {})[which.numpy().tobytes()] = _number(elements, kept)
    return outcomes


def _current(module: nn.Module, attribute: str) -> int:
    value = getattr(module, attribute)
    return int(value[0] if isinstance(value, tuple) else value)


def _integers_by_size(name: str, module: nn.Module, space: SearchSpace, kept: Tensor) -> dict[str, int]:
    """Return integers that change, told by comparison with the labelled sizes that the module's own code saw.

    An attribute that equals such a size is taken to be it. One that equals sizes of different elements is left alone
    (and the proof will tell), also by cuts that keep as many of both: what was proven must not depend on that. Numbers
    of heads go by their name as well, and alone where the code's own sizes are patched.
    """
    heads = {size: _number(elements, kept) for size, elements in space.heads.get(name, [])}
    outcomes = _outcomes(space.sizes.get(name, []) if name not in space.patched else (), kept)
    if name in space.checking:
        outcomes |= _outcomes(space.given.get(name, ()), kept)
    values = {}
    for attribute, value in vars(module).items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 2 or attribute.endswith(_NO_SIZE):
            continue
        is_head_count = "head" in attribute and "dim" not in attribute
        if is_head_count and value in heads:
            values[attribute] = heads[value]
        elif not is_head_count and len(outcomes.get(value, ())) == 1 and "head_dim" not in attribute:
            values[attribute] = next(iter(outcomes[value].values()))
    return values
