"""From a trace to a search space: classes of labels become elements, elements become groups."""

from __future__ import annotations

import fnmatch
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from dms_bench.scaling.branches import find_tails
from dms_bench.scaling.carriers import find_carriers
from dms_bench.scaling.coarse import NO_CHOICE, Coarse, bounded, check_rules, coarsened
from dms_bench.scaling.counter import count
from dms_bench.scaling.depth import Stage, find_stages
from dms_bench.scaling.labels import FIXED, along, varying_dims
from dms_bench.scaling.modes import modes_kept
from dms_bench.scaling.proof import prove
from dms_bench.scaling.rules import RULES
from dms_bench.scaling.slots import slots_of
from dms_bench.scaling.space import Group, NormSite, RowSite, SearchSpace, Site
from dms_bench.scaling.terms import Terms
from dms_bench.scaling.trace import Contraction, Trace, Tracer


def find_space(
    model: nn.Module,
    example: Tensor,
    *,
    width: bool = True,
    depth: bool = True,
    exclude: Sequence[str] = (),
    coarse: Sequence[Coarse] = (),
    round_to: int = 1,
    attention: Literal["heads", "dims"] = "heads",
) -> SearchSpace:
    """Find and prove the search space of a network.

    Args:
        model: the supernet; left as it is.
        example: an input of the network, [batch, ...].
        width: search width groups.
        depth: search the blocks of stages.
        exclude: shell-style patterns of names that are not searched.
        coarse: which groups and stages are searched coarsely.
        round_to: cuts keep multiples of this number of channels.
        attention: search the number of heads, or the size that the heads of a layer have in common.

    Returns:
        The space, in which every group and stage was proven: networks with random elements masked
        equal the networks with those elements cut out. What failed stands in `excluded`. Of a network on the meta
        device, which has no numbers to prove it with, the space is as traced (`proof_error` is not a number).

    Raises:
        CoarseError: a coarse rule fits nothing, or its runs do not fit.
    """
    begin = time.perf_counter()
    outline = any(parameter.is_meta for parameter in model.parameters())
    example = example.to("meta") if outline else example
    with modes_kept(model):
        model.train()  # lets modules drop what they keep in eval mode, such as biases looked up once
        # Two different samples, so that what depends on the batch cannot be taken for something fixed.
        for inputs in (torch.cat([example[:1], example[:1].flip(-1)]), example[:1]):
            trace = Tracer(model.eval(), RULES, whole_heads=attention == "heads").run(inputs)
            space = _Builder(model, trace).build(width, depth, coarse)
            if space.macs == count(model, example[:1]).macs:
                break  # else samples depend on each other, and cost more together
        blocks = [block for stage in space.stages for block in stage.blocks]
        tails = {} if outline else find_tails(model, inputs, blocks)
        linear = {block: own for block, own in tails.items() if not trace.standardised & set(own)}
        # The output of a response norm holds its input as it is: no vector of its own can carry a mask.
        norms = [norm.module for norm in space.norms if norm.kind != "response"]
        layers = [site.module for site in space.sites]
        space = replace(space, tails=linear, carriers=find_carriers(model, inputs, norms, list(dict.fromkeys(layers))))
        chosen = {name for name in space.names for pattern in exclude if fnmatch.fnmatch(name, pattern)}
        if chosen:
            space = space.without(chosen, "excluded by the specification")
        space = replace(space if outline else prove(model, inputs, space), round_to=round_to)
    object.__setattr__(space, "seconds", time.perf_counter() - begin)
    return space


class _Builder:
    """Reads a trace once; `build` puts the space together."""

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.model, self.trace = model, trace
        self.parameters = dict(model.named_parameters())
        # Where labels were born: first label -> (tensor, dimension).
        self.births: list[tuple[int, str, int]] = []
        for name, axes in trace.state.items():
            for axis in axes:
                (dim,) = varying_dims(axis)
                self.births.append((int(along(axis, dim)[0]), name, dim))
        self.reasons: dict[int, str] = {}
        self.first_labels = [first for first, _, _ in self.births]

    def build(self, width: bool, depth: bool, coarse: Sequence[Coarse]) -> SearchSpace:
        sites, rows = self._sites(), self._rows()
        stages = self._stages(sites) if depth else ()
        labels = self.trace.labels
        if not width:
            for axes in self.trace.state.values():
                for axis in axes:
                    labels.freeze(axis, "width is not searched")
        roots, self.reasons = labels.resolve()
        members = self._members(roots, {(site.parameter, site.dim) for site in sites}, rows)
        element_of = torch.full((len(roots),), -1, dtype=torch.long)
        check_rules(coarse, [group.name for group, _ in members], [stage.name for stage in stages])
        stages = tuple(bounded(stage, coarse) for stage in stages)
        no_choice = {stage.name: NO_CHOICE for stage in stages if stage.minimum == stage.size}
        stages = tuple(stage for stage in stages if stage.name not in no_choice)
        groups, next_element = [], 0
        for group, group_roots in members:
            group = coarsened(group, coarse)
            if group.minimum == group.size:
                no_choice[group.name] = NO_CHOICE
                continue
            for place, root in enumerate(group_roots):
                element_of[root] = next_element + place // group.step
            next_element += group.size
            groups.append(group)
        owner = torch.repeat_interleave(
            torch.arange(len(groups)), torch.tensor([g.size for g in groups], dtype=torch.long)
        )
        elements = element_of[roots]  # of every label

        slices = {}
        for first, name, dim in self.births:
            size = self._tensor(name).size(dim)
            own = elements[first : first + size]
            if bool((own >= 0).any()):
                slices[name, dim] = own
        blocks = tuple(block for stage in stages for block in stage.blocks)
        slots = self._slots(sites, blocks)
        cost = Terms(elements, owner, len(groups), blocks, slots)
        return SearchSpace(
            groups=tuple(groups),
            stages=stages,
            slices=slices,
            sites=tuple(
                site for site in sites if (site.parameter, site.dim) in slices or (site.parameter, site.dim) in slots
            ),
            norms=tuple(
                NormSite(norm.module, norm.dim, elements[norm.labels], norm.kind)
                for norm in self.trace.norms
                if bool((elements[norm.labels] >= 0).any())
            ),
            sizes=_seen(self.trace.sizes, elements),
            heads=_seen(self.trace.heads, elements),
            macs_model=cost.of_operators(self.trace, self._contracted),
            params_model=cost.of_parameters(self.parameters, slices),
            excluded=(self._frozen(roots, slices) if width else {}) | no_choice,
            rows=tuple(row for row in rows if (row.parameter, 0) in slices),
            views={name: [view.relabelled(elements) for view in views] for name, views in self.trace.views.items()},
            slots={key: torch.where(owners >= 0, owners + next_element, owners) for key, owners in slots.items()},
        )

    def _contracted(self, contraction: Contraction) -> tuple[str, int] | None:
        """Return the weight, and the dimension of it, that a contraction sums over."""
        if contraction.contracted is None:
            return None
        _, name, dim = self._birth(int(contraction.contracted[0]))
        return name, dim

    def _stages(self, sites: list[Site]) -> tuple[Stage, ...]:
        """Return the runs of removable blocks; all of a run may go where what they fill is not all that is joined."""
        stages = find_stages(self.model, self.trace)
        blocks = tuple(block for stage in stages for block in stage.blocks)
        filling = {index for owners in self._slots(sites, blocks).values() for index in owners.tolist()}
        return tuple(
            replace(stage, minimum=0) if {blocks.index(block) for block in stage.blocks} <= filling else stage
            for stage in stages
        )

    def _slots(self, sites: list[Site], blocks: tuple[str, ...]) -> dict[tuple[str, int], Tensor]:
        """Return the block that each index along (weight, dimension) belongs to, or -1."""
        masked = {(site.parameter, site.dim) for site in sites}
        slots = {}
        for contraction in self.trace.contractions:
            place, owners = self._contracted(contraction), slots_of(contraction, self.trace, blocks)
            if place in masked and owners is not None:
                slots[place] = owners
        return slots

    def _tensor(self, name: str) -> Tensor:
        return self.parameters[name] if name in self.parameters else self.model.get_buffer(name)

    def _birth(self, label: int) -> tuple[int, str, int]:
        return self.births[bisect_right(self.first_labels, label) - 1]

    def _sites(self) -> list[Site]:
        """Weights that contractions sum over; what is summed over without a weight is frozen."""
        sites: dict[tuple[str, int], Site] = {}
        for contraction in self.trace.contractions:
            labels = contraction.contracted
            if labels is None:
                continue
            first, name, dim = self._birth(int(labels[0]))
            size = self._tensor(name).size(dim) if name else 0
            whole = name in self.parameters and len(labels) == size and int(labels[-1]) == first + size - 1
            if whole:
                sites.setdefault((name, dim), self._site(contraction.module, name, dim))
            else:
                self.trace.labels.freeze(labels, "summed over without a weight of its own")
        return list(sites.values())

    def _site(self, module: str, name: str, dim: int) -> Site:
        return Site(module, name, dim, standardised=module in self.trace.standardised)

    def _rows(self) -> list[RowSite]:
        """Rows of layers that make queries; queries of another make are frozen."""
        rows = []
        for product in self.trace.products:
            first, name, dim = self._birth(int(product.labels[0]))
            module, _, leaf = name.rpartition(".")
            start = int(product.labels[0]) - first
            if dim != 0 or leaf != "weight" or start + product.rows > self._tensor(name).size(0):
                self.trace.labels.freeze(product.labels, "queries that are no rows of a layer")
                continue
            for parameter in (name, f"{module}.bias"):
                if parameter in self.parameters:
                    rows.append(RowSite(module, parameter, start, start + product.rows, product.scaled))
        return rows

    def _members(
        self, roots: Tensor, masked: set[tuple[str, int]], rows: Sequence[RowSite]
    ) -> list[tuple[Group, list[int]]]:
        """Group the label classes that occur in the same dimensions of the same tensors."""
        queries = {(row.parameter, 0) for row in rows}
        occurrences: dict[int, list[tuple[int, int]]] = {}
        for place, (first, name, dim) in enumerate(self.births):
            for root in roots[first : first + self._tensor(name).size(dim)].tolist():
                if root != FIXED:
                    occurrences.setdefault(root, []).append((place, 0))
        by_signature: dict[tuple[int, ...], list[int]] = {}
        repeated: dict[tuple[int, ...], bool] = {}
        for root, found in occurrences.items():
            signature = tuple(sorted({place for place, _ in found}))
            places = [(self.births[place][1], self.births[place][2]) for place in signature]
            if not any(place in masked or place in queries for place in places):
                self.reasons.setdefault(root, "no weight sums over it")
                continue
            if not any(place not in masked and place[0] in self.parameters for place in places):
                self.reasons.setdefault(root, "features of a constant")
                continue
            by_signature.setdefault(signature, []).append(root)
            repeated[signature] = len(found) > len(signature)
        variances = [norm.labels for norm in self.trace.norms if norm.kind == "simple"]
        need_two = {root for labels in variances for root in roots[labels].tolist()}  # an unbiased variance
        head_roots = {root for seen in self.trace.heads.values() for _, ls in seen for root in roots[ls].tolist()}
        result = []
        names: set[str] = set()
        for signature in sorted(by_signature):
            group_roots = sorted(by_signature[signature])
            if len(group_roots) < 2:
                continue
            heads = group_roots[0] in head_roots
            dims = any((self.births[place][1], self.births[place][2]) in queries for place in signature)
            name = self._name(signature, masked, "heads" if heads else "dims" if dims else "")
            while name in names:
                name += "'"
            names.add(name)
            minimum = 2 if group_roots[0] in need_two else 1
            result.append((Group(name, len(group_roots), heads, minimum=minimum), group_roots))
        return result

    def _name(self, signature: tuple[int, ...], masked: set[tuple[str, int]], suffix: str) -> str:
        """Name a group after the layer that makes it, or after what its layers have in common."""
        makers = []
        for place in signature:
            _, name, dim = self.births[place]
            is_weight = name in self.parameters and self.parameters[name].dim() > 1
            if is_weight and (name, dim) not in masked:
                makers.append(name.rpartition(".")[0] or name)
        makers = list(dict.fromkeys(makers)) or [self.births[signature[0]][1]]
        name = makers[0]
        if len(makers) > 1:
            prefix = _common_path(makers)
            name = ".".join(prefix if suffix else [*prefix, "stream"])
        return f"{name}.{suffix}" if suffix else name

    def _frozen(self, roots: Tensor, slices: dict[tuple[str, int], Tensor]) -> dict[str, str]:
        """Name the output dimensions of weights that are not searched, with the reason."""
        reasons = self.reasons
        excluded = {}
        for first, name, dim in self.births:
            is_output = name in self.parameters and dim == 0 and self.parameters[name].dim() > 1
            if is_output and (name, 0) not in slices:
                size = self._tensor(name).size(dim)
                found = next((reasons[label] for label in range(first, first + size) if label in reasons), None)
                excluded[name.rpartition(".")[0] or name] = found or "coupled with something that is not searched"
        return excluded


def _common_path(names: Sequence[str]) -> list[str]:
    """Return the leading parts that dotted names share."""
    shared = []
    for parts in zip(*(name.split(".") for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _seen(book: dict[str, list[tuple[int, Tensor]]], elements: Tensor) -> dict[str, list[tuple[int, Tensor]]]:
    """Keep what concerns searched elements."""
    result: dict[str, list[tuple[int, Tensor]]] = {}
    for module, seen in book.items():
        own = [(size, elements[labels]) for size, labels in seen]
        own = [(size, found) for size, found in own if bool((found >= 0).any())]
        if own:
            result[module] = own
    return result
