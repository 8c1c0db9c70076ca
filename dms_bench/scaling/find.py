"""From traces to a search space: classes of labels become elements, elements become groups."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dms_bench.scaling.cost.counter import countable, sample_of
from dms_bench.scaling.example import AnyExample, Example
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench.scaling.proof.failures import FAILURES
from dms_bench.scaling.proof.inputs import ProofInputs
from dms_bench.scaling.proof.proof import prove
from dms_bench.scaling.space.coarse import NO_CHOICE, Coarse, bounded, check_rules, check_ties, coarsened
from dms_bench.scaling.space.elements import Group, blocks_of
from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.tracing.branches import find_tails
from dms_bench.scaling.tracing.folded import find_folded_masks
from dms_bench.scaling.tracing.joins import columns_of_blocks
from dms_bench.scaling.tracing.labels import FIXED
from dms_bench.scaling.tracing.merge import ElementPairs
from dms_bench.scaling.tracing.records import Trace
from dms_bench.scaling.tracing.resolved import Members, ResolvedTrace
from dms_bench.scaling.tracing.rules import RULES
from dms_bench.scaling.tracing.stages import Depth, find_stages
from dms_bench.scaling.tracing.terms import Terms
from dms_bench.scaling.tracing.tracer import Tracer

Attention = Literal["heads", "dims", "both"]


def find_space(
    model: nn.Module,
    example: AnyExample,
    *,
    width: bool = True,
    depth: bool = True,
    exclude: Sequence[str] = (),
    coarse: Sequence[Coarse] = (),
    round_to: int = 1,
    attention: Attention = "heads",
) -> SearchSpace:
    """Find and prove the search space of a network.

    Args:
        model: the supernet; left as it is.
        example: an input of the network, [batch, ...], or the arguments of its `forward`: a tuple of positional ones, a
            mapping of keyword ones, or an `Example` of both; tensors in any nesting, and constants.
        width: search width groups.
        depth: search the blocks of stages.
        exclude: shell-style patterns of names that are not searched.
        coarse: which groups and stages are searched coarsely.
        round_to: cuts keep multiples of this number of channels, where a group has as many.
        attention: search the number of heads, the sizes that the heads of a layer have in common (of queries and keys,
            and of values), or both.

    Returns:
        The space, in which every group and stage was proven: networks with random elements masked
        equal the networks with those elements cut out. What failed stands in `excluded`. Of a network on the meta
        device, which has no numbers to prove it with, the space is as traced (`proof_error` is not a number).

    Raises:
        CoarseError: a coarse rule fits nothing, or its runs do not fit.
        TypeError: the example holds nothing that a network reads.
        ValueError: an option has no meaning, the network is compiled, which hides its operators, or it returns nothing
            that could be compared.
    """
    if isinstance(exclude, str):
        raise ValueError(f"exclude is a list of patterns: [{exclude!r}]")
    if round_to < 1:
        raise ValueError(f"round_to must be at least 1: {round_to}")
    if attention not in get_args(Attention):
        raise ValueError(f"attention is one of {', '.join(get_args(Attention))}: {attention!r}")
    _check_open(model)
    begin = time.perf_counter()
    example = Example.of(example)
    outline = any(parameter.is_meta for parameter in model.parameters())
    example = example.to("meta") if outline else example
    with modes_kept(model):
        one, macs = sample_of(model, example)
        # Two different samples, so that what depends on the batch cannot be taken for something fixed.
        for inputs, samples in _batches(model, one):
            model.train()  # lets modules drop what they keep in eval mode, such as biases looked up once
            if attention == "both":
                with torch.no_grad():
                    inputs(model.eval())  # some networks make buffers on the way, which both traces must find
            traces = [
                _trace(model, inputs, samples, whole_heads=kind == "heads", pack_qkv=attention != "heads")
                for kind in (("heads", "dims") if attention == "both" else (attention,))
            ]
            space = _Builder(model, traces).build(width, depth, coarse)
            if space.macs == macs:
                break  # else samples depend on each other, and cost more together
        with countable(model):
            residual = [block for block in space.blocks if block not in space.added]
            tails = {} if outline else _tails(model, inputs, residual, space.answers)
        linear = {block: ends for block, ends in tails.items() if not traces[0].standardised & set(ends)}
        # The output of a response norm holds its input as it is: no vector of its own can carry a mask.
        norms = [norm.module for norm in space.norms if norm.kind != "response"]
        layers = [site.module for site in space.sites]
        with countable(model):
            folded_masks = find_folded_masks(model, inputs, norms, list(dict.fromkeys(layers)))
        # A norm that ends a block hands on nothing when that is gone: what reads it elsewhere needs masks of its own.
        within = {
            norm: readers
            for norm, readers in folded_masks.items()
            if block_of(norm, space.blocks) < 0
            or {block_of(norm, space.blocks)} == {block_of(layer, space.blocks) for layer in readers}
        }
        space = replace(space, tails=linear, folded_masks=within)
        if space.macs != macs:  # depends on numbers (found objects, say), or hides from the trace
            space = space.without(space.names, f"{space.macs} MACs were seen where {macs} are counted")
        chosen = {name for name in space.names for pattern in exclude if fnmatch.fnmatch(name, pattern)}
        if chosen:
            space = space.without(chosen, "excluded by the specification")
        proof_inputs = ProofInputs.of(model, inputs, samples)
        space = space if outline else prove(model, proof_inputs, space, idle=traces[0].idle)
        space = replace(space, round_to=round_to)
        model.train()  # lets modules drop what they kept of these runs; then every module gets its mode back
    return replace(space, seconds=time.perf_counter() - begin)


def _tails(
    model: nn.Module, inputs: Example, blocks: Sequence[str], answers: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return the layers in which branches end; none where the network does not run under other weights."""
    try:
        return find_tails(model, inputs, blocks, answers)
    except FAILURES:
        return {}


def _check_open(model: nn.Module) -> None:
    """Raise ValueError for a network whose operators cannot be seen."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"{name or 'the network'} is TorchScript: search the network that it was made from")
        if hasattr(module, "_orig_mod"):
            raise ValueError(f"{name or 'the network'} is compiled: search its `_orig_mod`, and compile what is cut")
        if hasattr(module.forward, "_torchdynamo_orig_callable"):
            raise ValueError(f"the forward of {name or 'the network'} is compiled: compile what is cut instead")


def _batches(model: nn.Module, one: Example) -> list[tuple[Example, int]]:
    """Return the inputs to trace, the better first, with their numbers of samples.

    Args:
        model: the network.
        one: a sample, or a whole example that has none.
    """
    if one.rows > 1:
        return [(one, 1)]
    two = one.batch(2)
    try:
        with torch.no_grad():
            two(model.eval())
    except Exception:  # it takes no batches
        return [(one, 1)]
    return [(two, 2), (one, 1)] if sample_of(model, two)[0].rows == 1 else [(one, 1)]


def _trace(model: nn.Module, inputs: Example, samples: int, *, whole_heads: bool, pack_qkv: bool) -> Trace:
    tracer = Tracer(model.eval(), RULES, whole_heads=whole_heads, pack_qkv=pack_qkv)
    trace = tracer.run(inputs, samples)
    if trace.idle:
        tracer.follow_training(inputs, samples)
    return trace


class _Builder:
    """Puts a space together from a trace, or from one of heads and one of their sizes."""

    def __init__(self, model: nn.Module, traces: Sequence[Trace]) -> None:
        self.model, self.traces = model, traces
        self.resolved = [ResolvedTrace(model, trace) for trace in traces]
        #: For what does not depend on what is followed inside of attention.
        self.first = self.resolved[0]

    def build(self, width: bool, depth: bool, coarse: Sequence[Coarse]) -> SearchSpace:
        removable = self._depth() if depth else Depth()
        stages = removable.stages
        for trace in self.resolved:
            if not width:
                trace.freeze_all("width is not searched")
            trace.resolve()
        members = self._members()
        check_rules(coarse, [member.group.name for _, member in members], [stage.name for stage in stages])
        stages = tuple(bounded(stage, coarse) for stage in stages)
        no_choice = {stage.name: NO_CHOICE for stage in stages if stage.minimum == stage.size}
        stages = tuple(stage for stage in stages if stage.name not in no_choice)
        groups: list[Group] = []
        classes = [torch.full((len(trace.roots),), -1) for trace in self.resolved]
        next_element = 0
        for index, member in members:
            group = coarsened(member.group, coarse)
            if group.minimum == group.size:
                no_choice[group.name] = NO_CHOICE
                continue
            classes[index][list(member.roots)] = next_element + torch.arange(len(member.roots)) // group.step
            next_element += group.size
            groups.append(group)
        check_ties(groups)
        owner = torch.repeat_interleave(
            torch.arange(len(groups)), torch.tensor([group.size for group in groups], dtype=torch.long)
        )
        of_labels = [elements[trace.roots] for elements, trace in zip(classes, self.resolved, strict=True)]
        pairs = ElementPairs(self.traces, of_labels)

        elements = self._elements(pairs)
        outer = {key: torch.where(pair[0] >= 0, pair[0], pair[1]) for key, pair in elements.items()}
        inside = {key: torch.where(pair[0] >= 0, pair[1], -1) for key, pair in elements.items()}
        blocks = blocks_of(stages)
        columns = self._block_columns(blocks)
        inner = {key: torch.where(owners >= 0, owners + next_element, owners) for key, owners in columns.items()}
        inner |= {key: of_heads for key, of_heads in inside.items() if bool((of_heads >= 0).any())}
        cost = Terms(owner, len(groups), blocks, columns)
        last = self.resolved[-1]
        rows = [replace(row, elements=of_labels[-1][row.elements]) for row in last.rows]
        return SearchSpace(
            groups=tuple(groups),
            stages=stages,
            outer_elements=outer,
            sites=tuple(
                site for site in self.first.sites if {(site.parameter, site.dim)} & (outer.keys() | inner.keys())
            ),
            zeroed=tuple(
                dict.fromkeys(
                    site
                    for trace in self.resolved
                    for site in trace.zeroed
                    if (site.parameter, site.dim) in outer.keys() | inner.keys()
                )
            ),
            norms=pairs.norms(),
            sizes=pairs.seen([trace.sizes for trace in self.traces]),
            given=pairs.seen([trace.given for trace in self.traces]),
            heads=pairs.seen([trace.heads for trace in self.traces]),
            macs_model=cost.of_operators(pairs, self.first),
            params_model=cost.of_parameters(self.first.parameters, elements),
            excluded=(self._excluded(elements) if width else {}) | no_choice | removable.bound,
            rows=tuple(row for row in rows if bool((row.elements >= 0).any())),
            shape_calls=pairs.shape_calls(),
            inner_elements=inner,
            answers=removable.answers,
            added=removable.added,
            normed=tuple(self.traces[0].normed.values()),
        )

    def _members(self) -> list[tuple[int, Members]]:
        """Return the groups with the index of the trace that they are from, in the order of the network.

        Features that are no part of heads are the same in both traces, and those of the first count.
        """
        names: set[str] = set()
        members = [(0, member) for member in self.first.members(names)]
        for index, trace in enumerate(self.resolved[1:], start=1):
            same = _same_classes(self.first.roots, trace.roots)
            for member in trace.members(names, same):
                members.append((index, member))
        return sorted(members, key=lambda pair: pair[1].signature)

    def _elements(self, pairs: ElementPairs) -> dict[tuple[str, int], Tensor]:
        """Return the elements of every index along (tensor, dimension), [2, size]."""
        elements = {}
        for first, name, dim in self.first.origins:
            labels = torch.arange(first, first + self.first.size(name, dim))
            pair = pairs.pair([labels] * len(self.resolved))
            if bool((pair >= 0).any()):
                elements[name, dim] = pair
        return elements

    def _excluded(self, elements: dict[tuple[str, int], Tensor]) -> dict[str, str]:
        """Return the outputs of layers that are not searched; of those that make heads, also their sizes."""
        excluded = self.first.frozen(elements)
        for trace in self.resolved[1:]:
            for first, name, dim in trace.origins:
                if trace.makes(name, dim) and (name, dim) in elements:
                    labels = torch.arange(first, first + trace.size(name, dim))
                    outer, inner = elements[name, dim]
                    missing = self.first.of_heads(labels) & (inner < 0)
                    heads = outer[missing]
                    if len(heads) > len(torch.unique(heads)):  # features of heads, not one for each head
                        excluded[f"{name.rpartition('.')[0]}.dims"] = trace.reason(labels[missing].tolist())
        return excluded

    def _depth(self) -> Depth:
        """Return the runs of removable blocks; all of a run may go where what they fill is not all that is joined."""
        depth = find_stages(self.model, self.traces[0])
        stages, blocks = depth.stages, blocks_of(depth.stages)
        filling = {index for columns in self._block_columns(blocks).values() for index in columns.tolist()}
        free = (
            replace(stage, minimum=0) if {blocks.index(block) for block in stage.blocks} <= filling else stage
            for stage in stages
        )
        return replace(depth, stages=tuple(free))

    def _block_columns(self, blocks: tuple[str, ...]) -> dict[tuple[str, int], Tensor]:
        """Return the block that each index along (weight, dimension) belongs to, or -1."""
        masked = {(site.parameter, site.dim) for site in self.first.sites}
        columns = {}
        for contraction in self.traces[0].contractions:
            weight, owners = self.first.contracted(contraction), columns_of_blocks(contraction, self.traces[0], blocks)
            if weight in masked and owners is not None:
                columns[weight] = owners
        return columns


def _same_classes(roots: Tensor, others: Tensor) -> set[int]:
    """Return the classes of `others` that are classes of `roots` as well, as both have them by label, [labels] each."""
    pairs = torch.unique(torch.stack([roots, others]), dim=1)
    partners, partners_of_others = (torch.bincount(row) for row in pairs)
    alike = (partners[pairs[0]] == 1) & (partners_of_others[pairs[1]] == 1) & (pairs != FIXED).all(0)
    return set(pairs[1, alike].tolist())
