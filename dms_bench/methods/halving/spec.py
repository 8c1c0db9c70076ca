"""Specification of successive halving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema, field_validator

from dms_bench.config.method import USES, MethodSpec, Use
from dms_bench.config.plugins import METHODS, parse_plugin

if TYPE_CHECKING:
    from dms_bench.scaling import SearchSpace
    from dms_bench.tasks import Task

_Proposal = Annotated[
    SerializeAsAny[MethodSpec],
    BeforeValidator(lambda value: parse_plugin(METHODS, value)),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "required": ["kind"]}]}),
]


class Halving(MethodSpec):
    """Train what other methods propose for a short while, keep the best part of it, and train that longer."""

    implementation: ClassVar[str] = "dms_bench.methods.halving.search:HalvingSearch"
    trains_in_search: ClassVar[bool] = True
    example: ClassVar[dict[str, Any]] = {
        "method": {"kind": "halving", "proposals": ["dms", "taylor", "uniform"], "epochs": 1}
    }

    kind: Literal["halving"] = "halving"
    proposals: Annotated[tuple[_Proposal, ...], Field(max_length=81, json_schema_extra={"minItems": 2})]
    """Methods whose architectures compete, each with its own search; their order decides between equals."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Epochs, by the search recipe, for which each proposal is trained before the first are given up; `eta` times as
    many before the next."""
    eta: Annotated[int, Field(ge=2, le=81)] = 3
    """One in so many proposals is kept, and trained for so many times as long (Hyperband's rule)."""

    @field_validator("proposals")
    @classmethod
    def _proposals_cut(cls, proposals: tuple[MethodSpec, ...]) -> tuple[MethodSpec, ...]:
        for proposal in proposals:
            cuts = proposal.uses_budget and not proposal.shrinks_pictures
            cuts = cuts and type(proposal).network is MethodSpec.network
            if not cuts or isinstance(proposal, cls):
                raise ValueError(f"{proposal.label()!r} proposes no architecture of the space: leave it out")
            if proposal.for_budgets([]) is not proposal or proposal.searched_budgets:
                raise ValueError(f"{proposal.label()!r} proposes one architecture here: leave budgets_in_one out")
        if len(proposals) < 2:  # here, as pydantic counts those alone that are right
            raise ValueError("needs at least two proposals")
        if len({proposal.canonical().content_hash() for proposal in proposals}) < len(proposals):
            raise ValueError("a proposal occurs twice; options that change nothing make no other")
        return proposals

    def label(self) -> str:
        """Return what competes: other proposals are another method."""
        return f"halving ({', '.join(proposal.label() for proposal in self.proposals)})"

    @property
    def uses(self) -> tuple[Use, ...]:
        """What the proposals use, and what it takes to choose among them."""
        used = {use for proposal in self.proposals for use in proposal.uses or ()}
        return tuple(use for use in USES if use in used | {"data", "gradients", "training", "validation"})

    @property
    def judges_weights(self) -> bool:
        """Whether a proposal's search measures the supernet's own weights."""
        return any(proposal.judges_weights for proposal in self.proposals)

    def trained_epochs(self, epochs: int) -> tuple[int, int]:
        """Return what all proposals' searches train, and what is trained to choose among them."""
        supernet = sum(proposal.trained_epochs(epochs)[0] for proposal in self.proposals)
        networks = sum(proposal.trained_epochs(epochs)[1] for proposal in self.proposals)
        left, rung = len(self.proposals), self.epochs
        while left > 1:
            networks += left * rung
            left, rung = max(1, left // self.eta), rung * self.eta
        return supernet, networks

    def check(self, space: SearchSpace, task: Task) -> None:
        """Refuse what one of the proposals cannot search."""
        for proposal in self.proposals:
            proposal.check(space, task)

    def canonical(self) -> Self:
        """Return the method with its proposals as each of them is canonical."""
        return self.model_copy(update={"proposals": tuple(proposal.canonical() for proposal in self.proposals)})
