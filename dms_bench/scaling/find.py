"""From traces to a search space: classes of labels become elements, elements become groups."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from dms_bench.scaling.cost.counter import count, countable
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench.scaling.proof.proof import prove
from dms_bench.scaling.space.coarse import NO_CHOICE, Coarse, bounded, check_rules, check_ties, coarsened
from dms_bench.scaling.space.elements import Group, Stage
from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.tracing.branches import find_tails
from dms_bench.scaling.tracing.folded import find_carriers
from dms_bench.scaling.tracing.joins import slots_of
from dms_bench.scaling.tracing.labels import FIXED
from dms_bench.scaling.tracing.merge import Pairs
from dms_bench.scaling.tracing.reading import Members, Reading
from dms_bench.scaling.tracing.records import Trace
from dms_bench.scaling.tracing.rules import RULES
from dms_bench.scaling.tracing.stages import find_stages
from dms_bench.scaling.tracing.terms import Terms
from dms_bench.scaling.tracing.tracer import Tracer

Attention = Literal["heads", "dims", "both"]


def find_space(
    model: nn.Module,
    example: Tensor,
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
        example: an input of the network, [batch, ...].
        width: search width groups.
        depth: search the blocks of stages.
        exclude: shell-style patterns of names that are not searched.
        coarse: which groups and stages are searched coarsely.
        round_to: cuts keep multiples of this number of channels.
        attention: search the number of heads, the sizes that the heads of a layer have in common (of queries and keys,
            and of values), or both.

    Returns:
        The space, in which every group and stage was proven: networks with random elements masked
        equal the networks with those elements cut out. What failed stands in `excluded`. Of a network on the meta
        device, which has no numbers to prove it with, the space is as traced (`proof_error` is not a number).

    Raises:
        CoarseError: a coarse rule fits nothing, or its runs do not fit.
        ValueError: the network is compiled to TorchScript, which hides its operators.
    """
    scripted = next(
        (name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)), None
    )
    if scripted is not None:
        raise ValueError(f"{scripted or 'the network'} is TorchScript: search the network that it was made from")
    begin = time.perf_counter()
    outline = any(parameter.is_meta for parameter in model.parameters())
    example = example.to("meta") if outline else example
    with modes_kept(model):
        model.train()  # lets modules drop what they keep in eval mode, such as biases looked up once
        # Two different samples, so that what depends on the batch cannot be taken for something fixed.
        for inputs in (torch.cat([example[:1], example[:1].flip(-1)]), example[:1]):
            if attention == "both":
                with torch.no_grad():
                    model.eval()(inputs)  # some networks make buffers on the way, which both traces must find
            traces = [
                Tracer(model.eval(), RULES, whole_heads=kind == "heads", apart=attention != "heads").run(inputs)
                for kind in (("heads", "dims") if attention == "both" else (attention,))
            ]
            space = _Builder(model, traces).build(width, depth, coarse)
            if space.macs == count(model, example[:1]).macs:
                break  # else samples depend on each other, and cost more together
        blocks = [block for stage in space.stages for block in stage.blocks]
        with countable(model):
            tails = {} if outline else find_tails(model, inputs, blocks)
        linear = {block: own for block, own in tails.items() if not traces[0].standardised & set(own)}
        # The output of a response norm holds its input as it is: no vector of its own can carry a mask.
        norms = [norm.module for norm in space.norms if norm.kind != "response"]
        layers = [site.module for site in space.sites]
        with countable(model):
            carriers = find_carriers(model, inputs, norms, list(dict.fromkeys(layers)))
        # A norm that ends a block hands on nothing when that is gone: what reads it elsewhere needs masks of its own.
        within = {
            norm: readers
            for norm, readers in carriers.items()
            if block_of(norm, blocks) < 0 or {block_of(norm, blocks)} == {block_of(layer, blocks) for layer in readers}
        }
        space = replace(space, tails=linear, carriers=within)
        chosen = {name for name in space.names for pattern in exclude if fnmatch.fnmatch(name, pattern)}
        if chosen:
            space = space.without(chosen, "excluded by the specification")
        idle = _idle(model, traces[0])
        space = replace(space if outline else prove(model, inputs, space, idle=idle), round_to=round_to)
    object.__setattr__(space, "seconds", time.perf_counter() - begin)
    return space


def _idle(model: nn.Module, trace: Trace) -> bool:
    """Whether some layers with parameters were not called, as those that run in training alone."""
    called = {call.name for call in trace.calls}
    return any(
        name not in called and any(True for _ in module.parameters(recurse=False))
        for name, module in model.named_modules()
    )


class _Builder:
    """Puts a space together from a trace, or from one of heads and one of their sizes."""

    def __init__(self, model: nn.Module, traces: Sequence[Trace]) -> None:
        self.model, self.traces = model, traces
        self.readings = [Reading(model, trace) for trace in traces]
        #: For what does not depend on what is followed inside of attention.
        self.first = self.readings[0]

    def build(self, width: bool, depth: bool, coarse: Sequence[Coarse]) -> SearchSpace:
        stages, bound = self._stages() if depth else ((), {})
        for reading in self.readings:
            if not width:
                reading.freeze_all("width is not searched")
            reading.resolve()
        members = self._members()
        check_rules(coarse, [one.group.name for _, one in members], [stage.name for stage in stages])
        stages = tuple(bounded(stage, coarse) for stage in stages)
        no_choice = {stage.name: NO_CHOICE for stage in stages if stage.minimum == stage.size}
        stages = tuple(stage for stage in stages if stage.name not in no_choice)
        groups: list[Group] = []
        classes = [torch.full((len(reading.roots),), -1) for reading in self.readings]
        next_element = 0
        for index, one in members:
            group = coarsened(one.group, coarse)
            if group.minimum == group.size:
                no_choice[group.name] = NO_CHOICE
                continue
            classes[index][list(one.roots)] = next_element + torch.arange(len(one.roots)) // group.step
            next_element += group.size
            groups.append(group)
        check_ties(groups)
        owner = torch.repeat_interleave(
            torch.arange(len(groups)), torch.tensor([group.size for group in groups], dtype=torch.long)
        )
        labelled = [own[reading.roots] for own, reading in zip(classes, self.readings, strict=True)]
        pairs = Pairs(self.traces, labelled)

        own = self._elements(pairs)
        slices = {key: torch.where(pair[0] >= 0, pair[0], pair[1]) for key, pair in own.items()}
        inner = {key: torch.where(pair[0] >= 0, pair[1], -1) for key, pair in own.items()}
        blocks = tuple(block for stage in stages for block in stage.blocks)
        of_blocks = self._slots(blocks)
        slots = {key: torch.where(owners >= 0, owners + next_element, owners) for key, owners in of_blocks.items()}
        slots |= {key: elements for key, elements in inner.items() if bool((elements >= 0).any())}
        cost = Terms(owner, len(groups), blocks, of_blocks)
        last = self.readings[-1]
        rows = [replace(row, elements=labelled[-1][row.elements]) for row in last.rows]
        heads = [trace.heads for trace in self.traces]
        return SearchSpace(
            groups=tuple(groups),
            stages=stages,
            slices=slices,
            sites=tuple(
                site for site in self.first.sites if {(site.parameter, site.dim)} & (slices.keys() | slots.keys())
            ),
            norms=pairs.norms(),
            sizes=pairs.seen([trace.sizes for trace in self.traces]),
            heads=pairs.seen(heads),
            macs_model=cost.of_operators(pairs, self.first),
            params_model=cost.of_parameters(self.first.parameters, own),
            excluded=(self._excluded(own) if width else {}) | no_choice | bound,
            rows=tuple(row for row in rows if bool((row.elements >= 0).any())),
            views=pairs.views(),
            slots=slots,
        )

    def _members(self) -> list[tuple[int, Members]]:
        """Return the groups with the index of the reading that they are from, in the order of the network.

        Features that are no part of heads are the same in both readings, and those of the first count.
        """
        names: set[str] = set()
        found = [(0, one) for one in self.first.members(names)]
        for index, reading in enumerate(self.readings[1:], start=1):
            same = _same_classes(self.first.roots, reading.roots)
            for one in reading.members(names, same):
                found.append((index, one))
        return sorted(found, key=lambda pair: pair[1].signature)

    def _elements(self, pairs: Pairs) -> dict[tuple[str, int], Tensor]:
        """Return the elements of every index along (tensor, dimension), [2, size]."""
        found = {}
        for first, name, dim in self.first.births:
            labels = torch.arange(first, first + self.first.size(name, dim))
            pair = pairs.pair([labels] * len(self.readings))
            if bool((pair >= 0).any()):
                found[name, dim] = pair
        return found

    def _excluded(self, own: dict[tuple[str, int], Tensor]) -> dict[str, str]:
        """Return the outputs of layers that are not searched; of those that make heads, also their sizes."""
        excluded = self.first.frozen(own)
        for reading in self.readings[1:]:
            for first, name, dim in reading.births:
                if reading.makes(name, dim) and (name, dim) in own:
                    labels = torch.arange(first, first + reading.size(name, dim))
                    missing = self.first.of_heads(labels) & (own[name, dim][1] < 0)
                    heads = own[name, dim][0][missing]
                    if len(heads) > len(torch.unique(heads)):  # features of heads, not one for each head
                        excluded[f"{name.rpartition('.')[0]}.dims"] = reading.reason(labels[missing].tolist())
        return excluded

    def _stages(self) -> tuple[tuple[Stage, ...], dict[str, str]]:
        """Return the runs of removable blocks; all of a run may go where what they fill is not all that is joined.

        Beside them stand the blocks that have to stay, with the reason.
        """
        stages, bound = find_stages(self.model, self.traces[0])
        blocks = tuple(block for stage in stages for block in stage.blocks)
        filling = {index for owners in self._slots(blocks).values() for index in owners.tolist()}
        free = (
            replace(stage, minimum=0) if {blocks.index(block) for block in stage.blocks} <= filling else stage
            for stage in stages
        )
        return tuple(free), bound

    def _slots(self, blocks: tuple[str, ...]) -> dict[tuple[str, int], Tensor]:
        """Return the block that each index along (weight, dimension) belongs to, or -1."""
        masked = {(site.parameter, site.dim) for site in self.first.sites}
        slots = {}
        for contraction in self.traces[0].contractions:
            place, owners = self.first.contracted(contraction), slots_of(contraction, self.traces[0], blocks)
            if place in masked and owners is not None:
                slots[place] = owners
        return slots


def _same_classes(roots: Tensor, others: Tensor) -> set[int]:
    """Return the classes of `others` that are classes of `roots` as well, as both have them by label, [labels] each."""
    pairs = torch.unique(torch.stack([roots, others]), dim=1)
    one, other = (torch.bincount(row) for row in pairs)
    alike = (one[pairs[0]] == 1) & (other[pairs[1]] == 1) & (pairs != FIXED).all(0)
    return set(pairs[1, alike].tolist())
