"""The search space of a network: width groups, stages, what they cost and where their masks act."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from dms_bench.scaling.architecture import Architecture
from dms_bench.scaling.cost.model import Cost, CostModel, Resource
from dms_bench.scaling.space.elements import Group, NormedWeight, NormSite, RowSite, ShapeCall, Site, Stage, blocks_of
from dms_bench.scaling.space.units import Units


@dataclass(frozen=True)
class SearchSpace:
    """What of a network is searched.

    Index legend: elements are numbered group after group, then block after block of the stages;
    -1 stands for whatever always stays.

    Attributes:
        groups: width groups.
        stages: runs of removable blocks.
        outer_elements: element that every index along (tensor name, dimension) goes with, [size]; of a feature of a
            head, that of the head.
        inner_elements: second element that it goes with, [size]: that of the size of heads, or of a block.
        sites: where masks scale weights.
        rows: where masks scale queries.
        zeroed: where masks scale what makes features that are summed up without a weight.
        norms: where masks enter statistics.
        sizes: labelled sizes that a module's own code made: module -> [(size, elements [2, size])].
        given: likewise, of what modules were given.
        checking: modules whose integers are rather sizes of what they are given than of what their code makes.
        heads: likewise, sizes that are numbers of heads.
        shape_calls: calls in modules' code that hold sizes: module -> [call], with elements for labels.
        patched: modules whose calls a cut has to patch, and whose integers it leaves.
        macs_model: MACs from kept counts.
        params_model: parameters from kept counts.
        excluded: what is not searched, and why.
        tails: layers in which the branches of removable blocks end: block -> layers; they carry its mask.
        folded_masks: norms into which the mask of all layers that read them can be folded: norm -> layers.
        round_to: cuts keep multiples of this number of channels, where a group has as many; heads are whole.
        gaps: what of groups and stages the proof could not try, as bounds forbid it.
        normed: weights under weight norm.
        answers: of removable blocks that return a tuple: block -> what stands for each entry (`modules.blocks`).
        added: removable blocks that are branches, which the code around them adds to their input: zero when gone.
    """

    groups: tuple[Group, ...]
    stages: tuple[Stage, ...]
    outer_elements: dict[tuple[str, int], Tensor]
    sites: tuple[Site, ...]
    norms: tuple[NormSite, ...]
    sizes: dict[str, list[tuple[int, Tensor]]]
    heads: dict[str, list[tuple[int, Tensor]]]
    macs_model: CostModel
    params_model: CostModel
    excluded: dict[str, str] = field(default_factory=dict)
    given: dict[str, list[tuple[int, Tensor]]] = field(default_factory=dict)
    checking: frozenset[str] = frozenset()
    shape_calls: dict[str, list[ShapeCall]] = field(default_factory=dict)
    patched: frozenset[str] = frozenset()
    tails: dict[str, tuple[str, ...]] = field(default_factory=dict)
    folded_masks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inner_elements: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    round_to: int = 1
    rows: tuple[RowSite, ...] = ()
    zeroed: tuple[Site, ...] = ()
    gaps: dict[str, str] = field(default_factory=dict)
    normed: tuple[NormedWeight, ...] = ()
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    added: frozenset[str] = frozenset()
    #: Whether the MACs depend on what the network computes (frames, proposals, tokens per expert): then they are those
    #: of the example, and were not compared with counted ones.
    macs_vary: bool = False
    #: Largest relative difference between masked and cut network seen in the proof.
    proof_error: float = float("nan")
    seconds: float = float("nan")

    @cached_property
    def units(self) -> Units:
        """Sizes of groups and stages as the top-k needs them."""
        every: tuple[Group | Stage, ...] = (*self.groups, *self.stages)
        multiples = (*self._multiples(), *(1 for _ in self.stages))
        bounds = [_bounds_of(unit, multiple) for unit, multiple in zip(every, multiples, strict=True)]
        return Units(
            sizes=tuple(unit.size for unit in every),
            minimum=tuple(low for low, _ in bounds),
            maximum=tuple(most for _, most in bounds),
            multiple=multiples,
            # The runs of a coarse group are few.
            steep=(*(group.heads or group.step > 1 for group in self.groups), *(True for _ in self.stages)),
        )

    def _multiples(self) -> tuple[int, ...]:
        """Elements in which each group's counts go, so that its channels are multiples of `round_to`."""
        channels = [0] * len(self.groups)  # of an element, in all dimensions that it occurs in
        if self.round_to == 1:
            return (1,) * len(self.groups)
        owner = torch.repeat_interleave(
            torch.arange(len(self.groups)), torch.tensor([group.size for group in self.groups], dtype=torch.long)
        )
        for _, elements in self.occurrences():
            for unit, number in zip(*torch.unique(owner[elements[elements >= 0]], return_counts=True), strict=True):
                channels[int(unit)] = math.gcd(channels[int(unit)], int(number) // self.groups[int(unit)].size)
        for elements in self.inner_elements.values():  # sizes of heads of which any number may stay
            for unit in torch.unique(owner[elements[(elements >= 0) & (elements < len(owner))]]).tolist():
                channels[unit] = self.groups[unit].step
        multiples = [self.round_to // math.gcd(self.round_to, number) for number in channels]
        return tuple(
            1 if group.heads or multiple > (group.maximum or group.size) else multiple
            for group, multiple in zip(self.groups, multiples, strict=True)
        )

    @cached_property
    def tied(self) -> Tensor:
        """The first of the units that keep as many elements as each; itself where it is free, [U]."""
        first: dict[str, int] = {}
        ties = [group.tie for group in self.groups] + ["" for _ in self.stages]
        return torch.tensor([first.setdefault(tie, unit) if tie else unit for unit, tie in enumerate(ties)])

    @property
    def width_elements(self) -> int:
        """Number of elements of all width groups; the stages' blocks are numbered from here."""
        return sum(group.size for group in self.groups)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of groups and stages."""
        return (*(group.name for group in self.groups), *(stage.name for stage in self.stages))

    @property
    def blocks(self) -> tuple[str, ...]:
        """Paths of the removable blocks of all stages."""
        return blocks_of(self.stages)

    def check_fits(self, state: Mapping[str, Tensor]) -> None:
        """Raise ValueError where parameters and buffers are not those of the network that the space was found of."""
        for (name, dim), (outer, _) in self.cut_dims().items():
            if name not in state:
                raise ValueError(f"the space is of another network: this one has no {name}")
            size = len(outer)
            if state[name].size(dim) != size:
                raise ValueError(
                    f"the space is of another network, or this one was cut: {name} has {state[name].size(dim)} "
                    f"instead of {size} in dimension {dim}"
                )

    def check_searchable(self) -> None:
        """Raise ValueError where nothing is searched, with the reasons, or where the proof failed."""
        if not self.names:
            reasons = list(dict.fromkeys(self.excluded.values()))
            listed = "".join(
                f"\n  {sum(1 for reason in self.excluded.values() if reason == why)} x {why}" for why in reasons
            )
            raise ValueError(f"nothing of the network can be searched{':' if reasons else ''}{listed}")
        if self.proof_error > 1e-3:
            raise ValueError(f"cut networks differ from masked ones by {self.proof_error:.1g}: not to be searched")

    @property
    def macs(self) -> int:
        """MACs of the whole supernet, per sample."""
        return self.hard_cost("macs", self.full())

    @property
    def params(self) -> int:
        """Parameters of the whole supernet."""
        return self.hard_cost("params", self.full())

    def full(self) -> Tensor:
        """The mask of the whole supernet, [E]."""
        return torch.ones(self.units.total)

    def hard_cost(self, resource: Resource, mask: Tensor) -> int:
        """Cost of the network that a binary mask [E] leaves."""
        return round(self.cost_of(self.macs_model if resource == "macs" else self.params_model, mask))

    def cost_of(self, cost: Cost, mask: Tensor) -> float:
        """Cost of the network that a binary mask [E] leaves."""
        kept = self.kept_elements(mask)[: len(self.groups)]
        return float(cost(kept, mask[self.width_elements :].cpu()))

    def kept_elements(self, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return how many elements of each unit a binary mask leaves, [U].

        Args:
            mask: of all elements, [E], or of those of the width groups alone.
            dtype: of the numbers.
        """
        kept = torch.zeros(len(self.units.sizes), dtype=dtype)
        return kept.index_add_(0, self.units.owner[: len(mask)], mask.cpu().to(dtype))

    def reachable(self, cost: Cost) -> tuple[float, float]:
        """Cost of the smallest and of the largest architecture of the space."""
        return self._extreme(cost, self.units.minimum), self._extreme(cost, self.units.maximum, dearest=True)

    def _extreme(self, cost: Cost, counts: Sequence[int], dearest: bool = False) -> float:
        """Cost with `counts` elements of every unit, the cheapest or the dearest blocks among them."""
        units = self.units
        mask = torch.zeros(units.total)
        for start, count in zip(units.starts[: len(self.groups)], counts, strict=False):
            mask[start : start + count] = 1
        for start, stage, count in zip(
            units.starts[len(self.groups) :], self.stages, counts[len(self.groups) :], strict=True
        ):
            # The cheapest block is the one whose presence adds least.
            costs = {block: self._with(mask, block, cost) for block in range(start, start + stage.size)}
            for block in sorted(costs, key=costs.__getitem__, reverse=dearest)[:count]:
                mask[block] = 1
        return self.cost_of(cost, mask)

    def _with(self, mask: Tensor, element: int, cost: Cost) -> float:
        mask = mask.clone()
        mask[element] = 1
        return self.cost_of(cost, mask)

    def architecture(self, mask: Tensor) -> Architecture:
        """Turn a binary mask [E] into an architecture."""
        by_unit = torch.split(mask.cpu().bool(), list(self.units.sizes))
        kept = [tuple(stays.nonzero().flatten().tolist()) for stays in by_unit]
        groups, stages = kept[: len(self.groups)], kept[len(self.groups) :]
        return Architecture(
            groups={group.name: indices for group, indices in zip(self.groups, groups, strict=True)},
            stages={stage.name: indices for stage, indices in zip(self.stages, stages, strict=True)},
            macs=self.hard_cost("macs", mask),
            params=self.hard_cost("params", mask),
        )

    def mask(self, architecture: Architecture) -> Tensor:
        """Turn an architecture into its binary mask, [E].

        Raises:
            ValueError: the architecture belongs to another space.
        """
        mask = torch.zeros(self.units.total)
        kept_of = {**architecture.groups, **architecture.stages}
        if set(kept_of) != set(self.names):
            differ = sorted(set(kept_of) ^ set(self.names))
            raise ValueError(f"the architecture belongs to another search space; groups that differ: {differ[:5]}")
        for name, start, size in zip(self.names, self.units.starts, self.units.sizes, strict=True):
            indices = torch.tensor(kept_of[name], dtype=torch.long)
            odd = indices[(indices < 0) | (indices >= size)].tolist()
            if odd:
                raise ValueError(f"group {name!r} has {size} elements, the architecture keeps number {odd[0]}")
            mask[start + indices] = 1
        return mask

    def cut_dims(self) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
        """Return the dimensions that shrink: (tensor, dimension) -> outer and inner element of every index, or -1."""
        return self._cut_dims

    @cached_property
    def _cut_dims(self) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
        either = {**self.inner_elements, **self.outer_elements}
        none = {key: torch.full_like(elements, -1) for key, elements in either.items()}
        return {
            key: (self.outer_elements.get(key, none[key]), self.inner_elements.get(key, none[key])) for key in either
        }

    def occurrences(self) -> Iterator[tuple[tuple[str, int], Tensor]]:
        """Yield where elements of widths occur: (tensor, dimension), and of every index its element or -1.

        A dimension along which heads lie whose own size is searched occurs twice.
        """
        for key in self.cut_dims():
            for elements in self.elements_of(*key):
                yield key, elements

    def elements_of(self, name: str, dim: int) -> list[Tensor]:
        """Return the elements of widths that the indices along one dimension of a tensor go with, [size] each."""
        inner = self.inner_elements.get((name, dim))
        of_widths = None if inner is None else torch.where(inner < self.width_elements, inner, -1)  # not of blocks
        both = (self.outer_elements.get((name, dim)), of_widths)
        return [elements for elements in both if elements is not None and bool((elements >= 0).any())]

    def sizes_of(self, architecture: Architecture) -> dict[str, tuple[int, int]]:
        """Kept and total number of channels, heads and blocks of every group and stage."""
        kept = {group.name: len(architecture.groups[group.name]) * group.step for group in self.groups}
        sizes = {group.name: (kept[group.name], group.members) for group in self.groups}
        return sizes | {stage.name: (len(architecture.stages[stage.name]), stage.size) for stage in self.stages}

    def without(self, names: Iterable[str], reason: str) -> SearchSpace:
        """Return the space with some groups and stages no longer searched."""
        gone = set(names)
        units = self.units
        keeps = torch.tensor([name not in gone for name in self.names], dtype=torch.bool)
        stays = keeps[units.owner]
        renumber = torch.where(stays, stays.long().cumsum(0) - 1, torch.full_like(units.owner, -1))
        renumber = torch.cat([renumber, torch.tensor([-1])])  # index -1 stays -1
        groups_kept = keeps[: len(self.groups)]
        blocks_kept = stays[self.width_elements :]
        outer = {key: renumber[elements] for key, elements in self.outer_elements.items()}
        outer = {key: elements for key, elements in outer.items() if bool((elements >= 0).any())}
        inner = {key: renumber[elements] for key, elements in self.inner_elements.items()}
        inner = {key: elements for key, elements in inner.items() if bool((elements >= 0).any())}
        norms = tuple(replace(norm, elements=renumber[norm.elements]) for norm in self.norms)
        cut = outer.keys() | inner.keys()
        rows = tuple(replace(row, elements=renumber[row.elements]) for row in self.rows)
        return replace(
            self,
            groups=tuple(group for group in self.groups if group.name not in gone),
            stages=tuple(stage for stage in self.stages if stage.name not in gone),
            outer_elements=outer,
            inner_elements=inner,
            sites=tuple(site for site in self.sites if (site.parameter, site.dim) in cut),
            zeroed=tuple(site for site in self.zeroed if (site.parameter, site.dim) in cut),
            norms=tuple(norm for norm in norms if bool((norm.elements >= 0).any())),
            rows=tuple(row for row in rows if bool((row.elements >= 0).any())),
            # Sizes that stay after all, too: an integer in a module's code may be theirs as well as another's.
            sizes=_renumber(self.sizes, renumber),
            given=_renumber(self.given, renumber),
            heads=_searched(_renumber(self.heads, renumber)),
            shape_calls={
                name: [call.renumbered(renumber) for call in calls] for name, calls in self.shape_calls.items()
            },
            macs_model=self.macs_model.restrict(groups_kept, self._group_sizes(), blocks_kept),
            params_model=self.params_model.restrict(groups_kept, self._group_sizes(), blocks_kept),
            excluded={**self.excluded, **{name: reason for name in self.names if name in gone}},
        )

    def _group_sizes(self) -> Tensor:
        return torch.tensor([float(group.size) for group in self.groups], dtype=torch.float64)


def _bounds_of(unit: Group | Stage, multiple: int) -> tuple[int, int]:
    """Return the fewest and most elements of a unit that may stay, in multiples; all of them are always allowed."""
    most = unit.size if unit.maximum is None else unit.maximum
    if most < unit.size:
        most -= most % multiple
    return min(-(-unit.minimum // multiple) * multiple, most), most


def _renumber(sizes: dict[str, list[tuple[int, Tensor]]], renumber: Tensor) -> dict[str, list[tuple[int, Tensor]]]:
    return {name: [(size, renumber[elements]) for size, elements in seen] for name, seen in sizes.items()}


def _searched(sizes: dict[str, list[tuple[int, Tensor]]]) -> dict[str, list[tuple[int, Tensor]]]:
    return {
        name: [(size, elements) for size, elements in seen if bool((elements >= 0).any())]
        for name, seen in sizes.items()
    }
