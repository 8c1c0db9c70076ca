"""The numerical proof of a search space: masking elements must equal cutting them out."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from dms_bench.scaling.cost.counter import countable, operations
from dms_bench.scaling.cut.surgery import Surgery, cut, plan_surgery
from dms_bench.scaling.example import Example
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.modules.generic import generic_copy
from dms_bench.scaling.modules.precision import in_precision
from dms_bench.scaling.proof.failures import FAILURES, code_of, culprit_of, owner_of
from dms_bench.scaling.proof.inputs import ProofInputs
from dms_bench.scaling.proof.masks import gaps, proof_masks
from dms_bench.scaling.proof.outputs import IncomparableError, InDouble, Shapes, Work, difference_of, run
from dms_bench.scaling.proof.rebuilt import CannotLoadError, rebuilt
from dms_bench.scaling.space.space import SearchSpace

#: In double precision a right cut agrees to about 1e-15, a wrong one differs by 1e-3 and more.
TOLERANCE = 1e-7
#: In single precision, in which culprits are looked for (convolutions are many times faster).
ROUGH_TOLERANCE = 5e-5
#: A group of so few channels may fit numbers in a network's code by chance: then twice as many masks are tried.
FEW = 12
#: Trials spent on finding culprits one by one; then what is left in doubt goes as a whole.
MAX_TRIALS = 60

DIFFERS = "the cut network does not equal the masked one"


def prove(
    model: nn.Module, inputs: ProofInputs, space: SearchSpace, seed: int = 0, *, idle: bool = False
) -> SearchSpace:
    """Return the space without what could not be proven.

    Args:
        model: the supernet, in eval mode; left as it is.
        inputs: what masked and cut networks are compared on.
        space: what the labels found.
        seed: of the random weights and masks.
        idle: some parameters were not read in eval mode: cut networks must run in training mode, too.

    Raises:
        ValueError: the network's output is no number that could be compared, or another one every time.
    """
    names = list(space.names)
    space = replace(space, patched=_takes_few_apart(space))
    try:
        proof = _Proof(model, inputs, space, seed, torch.double, idle)
        error = proof.error(names)
    except _NoDoubleError:
        proof = _Proof(model, inputs, space, seed, torch.float, idle)
        error = proof.error(names)
    proof.doubtful = False
    reasons: dict[str, str] = {}
    if not error <= proof.tolerance:
        rough = _Proof(model, inputs, space, seed + 1, torch.float, idle)
        # Single precision is quicker, and where it says no, double is asked as well.
        if not rough.passes([]) and not proof.passes([]):  # what it computes depends on more than its input's build
            reasons = dict.fromkeys(names, f"of the whole network: {proof.failure}")
            names = []
        # So it is for culprits: under other masks first, then under those of the proof.
        for other in (seed + 1, seed):
            if names and not error <= proof.tolerance:
                rough = rough if other == rough.seed else _Proof(model, inputs, proof.space, other, torch.float, idle)
                rough.patch(names)
                names = rough.provable(names)
                proof.space = rough.space
                reasons |= rough.reasons
                error = proof.error(names)
        if names and not error <= proof.tolerance:
            proof.patch(names)
            names = proof.provable(names)
            error = proof.error(names)
    excused = proof.excused
    proof.tried = slice(-1, None)
    error = max(error, proof.error(names))
    excused |= proof.excused
    if names and not error <= proof.tolerance:
        proof.space, proof.tried = _wider(proof.space), slice(None)
        if not proof.passes(names):
            names = proof.provable(names)
        error, excused = proof.error(names), proof.excused
        if not error <= proof.tolerance:  # not even the network is equal to itself
            names = []
    space = proof.space
    for name in [name for name in space.names if name not in set(names)]:
        space = space.without([name], proof.reasons.get(name) or reasons.get(name) or DIFFERS)
    return replace(
        space,
        proof_error=error,
        gaps=untried(space, masks_of(space, seed)),
        macs_vary=excused and bool(names),
    )


def _takes_few_apart(space: SearchSpace) -> frozenset[str]:
    """Return the modules whose code takes a few channels apart at a number, which most masks fit by chance."""
    owner, sizes = space.units.owner, space.units.sizes
    modules = set()
    for module, calls in space.shape_calls.items():
        for call in calls:
            pieces = [size[0] for size in call.sizes if isinstance(size, Tensor)]
            elements = torch.cat(pieces) if pieces and call.kind in ("split", "slice") else torch.empty(0)
            units = torch.unique(owner[elements[elements >= 0].long()]).tolist()
            few = any(sizes[unit] <= FEW for unit in units)
            if few and not all(torch.equal(piece, pieces[0]) for piece in pieces):
                modules.add(module)
    return frozenset(modules)


def _wider(space: SearchSpace) -> SearchSpace:
    """Return the space with two channels of each group at least, where a network of one is computed otherwise.

    Weights that are standardised over one number, products that torch simplifies, variances of one feature.
    """
    groups = tuple(
        group if group.heads or group.step > 1 or group.size < 3 else replace(group, minimum=max(group.minimum, 2))
        for group in space.groups
    )
    return replace(space, groups=groups)


def masks_of(space: SearchSpace, seed: int = 0) -> Tensor:
    """Return the masks under which a space is proven, [masks, E]."""
    # What bounds the depth is a user's choice but for the last block: more may go in a proof.
    stages = [(stage.size, min(stage.minimum, 1)) for stage in space.stages]
    widths = len(space.groups)
    few = any(group.size <= FEW and not group.heads and group.step == 1 for group in space.groups)
    units = list(zip(space.units.sizes, space.units.minimum, strict=True))[:widths]
    return proof_masks(units, stages, seed, least=4 if few else 2)


def untried(space: SearchSpace, masks: Tensor) -> dict[str, str]:
    """Name the groups and stages that some masks [masks, E] do not try wholly, and what is missing."""
    layers: set[tuple[int, int]] = set()
    for (tensor, _), elements in space.occurrences():
        units = torch.unique(space.units.owner[elements[elements >= 0]]).tolist()
        layers.update((unit, block_of(tensor, space.blocks)) for unit in units)
    sizes = [stage.size for stage in space.stages]
    missed = gaps(masks, [group.size for group in space.groups], sizes, sorted(layers))
    return {space.names[unit]: missing for unit, missing in sorted(missed.items())}


class _NoDoubleError(Exception):
    """The network's own code makes numbers in single precision, so that it does not run in double."""


class _Proof:
    """Compares masked and cut networks in one precision."""

    def __init__(
        self, model: nn.Module, inputs: ProofInputs, space: SearchSpace, seed: int, dtype: torch.dtype, idle: bool
    ) -> None:
        self.space, self.seed, self.dtype = space, seed, dtype
        self.tolerance = TOLERANCE if dtype == torch.double else ROUGH_TOLERANCE
        self.trials = 0
        #: Whether the network may not run in double precision at all.
        self.doubtful = dtype == torch.double
        #: Whether counted MACs were let differ from predicted ones, as they vary.
        self.excused = False
        #: Why the last trial failed; and by unit, why it was dropped.
        self.failure = ""
        #: The module in whose code it failed, where that is known.
        self.culprit = ""
        #: The innermost module in whose code it failed, where that is the network's own.
        self.owner = ""
        #: Classes of modules of which `_checks_more` was asked.
        self.checked: set[type[nn.Module]] = set()
        self.reasons: dict[str, str] = {}
        self.model = generic_copy(model, dtype, seed)
        # Shares the weights; its hooks are not copied by a cut.
        self.masked = copy.deepcopy(self.model, {id(tensor): tensor for tensor in self.model.parameters()})
        self.forward = MaskedForward(self.masked, space)
        #: Which of the masks are tried: not that of the fewest elements, where what fails is helped otherwise.
        self.tried = slice(None, -1)
        #: What was tried last, and the error that it had: a search for what is provable ends with what it tried last.
        self.last: tuple[SearchSpace, slice, frozenset[str]] | None = None
        self.last_error = float("inf")
        #: Numbers of the masks that something failed at. They are tried first: what fails, fails there as a rule.
        self.failed_at: set[int] = set()
        self.inputs = inputs.in_precision(dtype)
        self.original, self.given = model, inputs
        if dtype == torch.double:
            try:
                with torch.no_grad(), self.unrounded():
                    run(self.model, self.inputs.one)
            except FAILURES as error:
                raise _NoDoubleError from error
        self.trains = idle and self._runs_in_training(copy.deepcopy(self.model))

    def unrounded(self) -> AbstractContextManager[None]:
        """Leave in double precision, where that is tried, what a model's code rounds to single."""
        return InDouble() if self.dtype == torch.double else nullcontext()  # type: ignore[no-untyped-call]

    def _runs_in_training(self, model: nn.Module) -> bool:
        """Whether a network, which this changes, runs in training mode; its failure is noted.

        Nothing is compared, so that it runs in single precision, as networks train and as is quickest.
        """
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self.given.traced.in_precision(torch.float)(in_precision(model, torch.float).train())
        except FAILURES as error:
            self.failure = f"the cut network fails in training mode in {code_of(error)}"
            self.culprit = culprit_of(error, model, self.space.shape_calls)
            return False
        return True

    def patch(self, names: Sequence[str]) -> None:
        """Let cuts patch the sizes in the code of those classes of modules that fail, until none is left."""
        calls = self.space.shape_calls
        runs: frozenset[str] | None = None
        while not self.passes(names):
            if self._checks_more(names):
                continue
            if not self.culprit and runs is None:
                runs = self.space.patched
            kind = type(self.model.get_submodule(self.culprit)) if self.culprit else None
            modules = {name for name in calls if kind in (None, type(self.model.get_submodule(name)))}
            if modules <= self.space.patched:
                modules = set(calls)  # more of this class does not help; other classes may be waiting behind it
            if modules <= self.space.patched:
                if self._leaves_integers(names):
                    break
                if runs is not None:  # what more patches do not mend, they may still break at other sizes
                    self.space = replace(self.space, patched=runs)
                break
            self.space = replace(self.space, patched=self.space.patched | modules)

    def _leaves_integers(self, names: Sequence[str]) -> bool:
        """Leave the integers of modules as they are; False if it does not help.

        Some are no sizes, though they equal one (a stride), or are wanted as they were (`embedding_dim ** 0.5`).
        """
        before = self.space
        self.space = replace(before, patched=before.patched | before.sizes.keys())
        if self.passes(names):
            return True
        self.space = before
        return False

    def _checks_more(self, names: Sequence[str]) -> bool:
        """Let integers of modules like the one that failed be sizes of what those are given; False if it does not help.

        They are compared with those by code that makes no operator see them (`assert x.size(1) == self.channels`).
        """
        kind = type(self.model.get_submodule(self.owner)) if self.owner in self.space.given else None
        if kind is None or kind in self.checked:
            return False
        self.checked.add(kind)
        before = self.space
        like = {name for name in before.given if type(self.model.get_submodule(name)) is kind}
        self.space = replace(before, checking=before.checking | like)
        if self.passes(names) or self.owner not in like:
            return True
        self.space = before
        return False

    def provable(self, names: Sequence[str]) -> list[str]:
        """Return the units that can be cut: without the kinds, and then single units, that fail.

        Culprits are looked for under the masks that something failed at, of which there are few as a rule. What is left
        is tried under all masks, and what fails there, in turn.
        """
        names = list(names)
        while names and not self.passes(names):
            left = self._without_culprits(names)
            if set(left) == set(names):  # not the same every time
                self.reasons.update(dict.fromkeys(names, self.failure))
                return []
            names = left
        return names

    def _without_culprits(self, names: Sequence[str]) -> list[str]:
        """Return the units that can be cut under the masks that something failed at."""
        kinds: dict[str, list[str]] = {}
        for name in names:
            kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
        good = self._beside([], list(kinds.values()), fails=True)
        # What fails as a kind is tried unit by unit, beside what is known to be good.
        for kind in kinds.values():
            if len(kind) > 1 and not set(kind) <= set(good):
                good += self._beside(good, [[name] for name in kind], fails=True)
        return good

    def _beside(self, good: Sequence[str], sets: list[list[str]], *, fails: bool = False) -> list[str]:
        """Return the union of the sets that can be cut together with what is good, the first first.

        Unions that fail are halved, so that the number of trials grows with that of the culprits.

        Args:
            good: units that can be cut.
            sets: units to add, those of a set together.
            fails: the union is known to fail: a set alone is tried again all the same, for the reason.
        """
        names = [name for units in sets for name in units]
        if not names or (not (fails and len(sets) > 1) and self._survives([*good, *names])):
            return names
        if len(sets) == 1 or self.trials > MAX_TRIALS:
            failure = self.failure
            together = good and len(sets) == 1 and self._survives(names)  # fine alone
            reason = f"cannot be cut together with others: {failure}" if together else failure
            self.reasons.update(dict.fromkeys(names, reason))
            return []
        half = len(sets) // 2
        first = self._beside(good, sets[:half])
        whole = len(first) == sum(len(units) for units in sets[:half])  # then it is the other half that fails
        return first + self._beside([*good, *first], sets[half:], fails=whole)

    def passes(self, names: Sequence[str]) -> bool:
        """Whether random elements of some units can be cut."""
        self.trials += 1
        return self.error(names) <= self.tolerance

    def _survives(self, names: Sequence[str]) -> bool:
        """Whether elements of some units can be cut under the masks that something failed at."""
        self.trials += 1
        return self._worst(names, self.failed_at) <= self.tolerance

    def error(self, names: Sequence[str]) -> float:
        """Largest relative difference over the masks when elements of some units go; infinite if a cut fails.

        What was tried last is not tried again: nothing but these three decides what happens.
        """
        trial = (self.space, self.tried, frozenset(names))
        if self.last is None or self.last[0] is not self.space or self.last[1:] != trial[1:]:
            self.last_error = self._worst(names)
            self.last = trial
        return self.last_error

    def _worst(self, names: Sequence[str], among: Collection[int] | None = None) -> float:
        """Largest relative difference over the masks, or over some by number; the first failure is the last trial."""
        self.excused, self.last = False, None
        chosen = torch.tensor([name in set(names) for name in self.space.names], dtype=torch.bool)
        owner = self.space.units.owner
        masks = torch.where(chosen[owner], masks_of(self.space, self.seed)[self.tried], 1.0)
        cutting = masks.lt(1).any(1).nonzero().flatten().tolist()  # where nothing goes there is nothing to compare
        worst = 0.0
        for turn, number in sorted(enumerate(cutting or [0]), key=lambda pair: pair[1] not in self.failed_at):
            if among is not None and number not in among:
                continue
            # Of more samples once, and of another size once, so that numbers which hold for what was traced are found.
            error = self._error(masks[number], self.inputs.turn(turn), opened=turn == 0)
            if not error <= self.tolerance:
                self.failed_at.add(number)
                return error
            worst = max(worst, error)
        return worst

    def _error(self, mask: Tensor, example: Example, opened: bool) -> float:
        """Largest relative difference of the masked and the cut network's outputs on an example.

        Args:
            mask: what is cut.
            example: what both run on.
            opened: whether the cut network is built again from its structure and weights, too.
        """
        architecture = self.space.architecture(mask)
        try:
            with torch.no_grad(), self.forward.using(mask.to(self.dtype)), self.unrounded():
                expected = run(self.masked, example)
        except IncomparableError:
            raise
        except FAILURES as error:
            if self.doubtful:
                raise _NoDoubleError from error
            self.failure, self.culprit, self.owner = f"the masked network fails in {code_of(error)}", "", ""
            return float("inf")
        small = cut(self.model, self.space, architecture)
        try:
            with torch.no_grad(), countable(small), self.unrounded(), operations() as counter:
                result = run(small, self.inputs.one)
            if example is not self.inputs.one:
                with torch.no_grad(), self.unrounded():
                    result = run(small, example)
        except FAILURES as error:
            # Integers in the model's code that the cut did not correct.
            self.failure = f"the cut network fails in {code_of(error)}"
            self.culprit = culprit_of(error, small, self.space.shape_calls)
            self.owner = owner_of(error, small)
            return float("inf")
        self.failure, self.culprit, self.owner = DIFFERS, "", ""
        counted = {
            "MACs": (counter.get_total_flops() // 2, architecture.macs),
            "parameters": (sum(parameter.numel() for parameter in small.parameters()), architecture.params),
        }
        wrong = [what for what, (real, predicted) in counted.items() if real != predicted]
        if wrong == ["MACs"] and self.varies:
            self.excused, wrong = True, []
        if wrong:
            self.failure = f"the predicted {' and '.join(wrong)} are not the counted ones"
            return float("inf")
        difference = difference_of(result, expected)
        if opened and difference <= self.tolerance:
            surgery = plan_surgery(self.model, self.space, architecture)
            difference = max(difference, self._rebuilding(small, surgery, example, result))
        # The last thing: training changes statistics of batch norms.
        if self.trains and not self._runs_in_training(small):
            return float("inf")
        return difference

    @cached_property
    def varies(self) -> bool:
        """Whether masks change how much the network computes, by its numbers: frames, proposals, tokens per expert.

        The masked network has the size of the whole one, so that nothing else can change its operators.
        """
        masks = masks_of(self.space, self.seed)
        whole = self._work(torch.ones_like(masks[0]))
        with torch.no_grad(), Work() as work:  # MACs were traced under the network's own weights
            self.given.one(self.original)
        return work.shapes != whole or any(self._work(mask) != whole for mask in masks)

    def _work(self, mask: Tensor) -> list[Shapes] | None:
        """Return the shapes that operators are given under a mask; None where the network does not come to its end."""
        try:
            with torch.no_grad(), self.forward.using(mask.to(self.dtype)), self.unrounded(), Work() as work:
                run(self.masked, self.inputs.one)
        except FAILURES:  # an expert that no token comes to, say
            return None
        shapes: list[Shapes] = work.shapes
        return shapes

    def _rebuilding(self, small: nn.Module, surgery: Surgery, example: Example, result: list[Tensor]) -> float:
        """Largest relative difference of a cut network and the same one, built again from its structure."""
        self.culprit = ""
        try:
            again = rebuilt(self.model, surgery, small)
            with torch.no_grad(), self.unrounded():
                outputs = result if again is None else run(again, example)
        except CannotLoadError:
            self.failure = "the cut network does not read its own weights"
            return float("inf")
        except FAILURES as error:
            self.failure = f"the cut network, built again, fails in {code_of(error)}"
            return float("inf")
        difference = difference_of(outputs, result)
        self.failure = DIFFERS if difference <= self.tolerance else "the cut network, built again, is another one"
        return difference
