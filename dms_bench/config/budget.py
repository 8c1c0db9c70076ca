"""What a searched network may cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from dms_bench.config.base import Spec
from dms_bench.config.problems import problems_of
from dms_bench.config.units import Amount, Latency, Size, parse_latency
from dms_bench.errors import UserError


class MacsBudget(Spec):
    """Multiply-accumulates of one forward pass of one sample."""

    kind: Literal["macs"] = "macs"
    """`macs`: the target counts multiply-accumulates."""
    target: Amount
    """Multiply-accumulates of one forward pass of one sample: a count such as `450M`, or a share of the supernet's such
    as `30%` (a number of at most 1 is a share)."""

    def label(self) -> str:
        """Return the budget as the leaderboard prints it."""
        return f"macs {format_amount(self.target)}"

    def order(self) -> float:
        """Return a number by which budgets of a kind are ordered."""
        return self.target


class ParamsBudget(Spec):
    """Number of parameters."""

    kind: Literal["params"] = "params"
    """`params`: the target counts parameters."""
    target: Amount
    """Parameters of the network: a count such as `5M`, or a share of the supernet's such as `30%` (a number of at most
    1 is a share)."""

    def label(self) -> str:
        """Return the budget as the leaderboard prints it."""
        return f"params {format_amount(self.target)}"

    def order(self) -> float:
        """Return a number by which budgets of a kind are ordered."""
        return self.target


#: What networks are timed in: PyTorch as it is, or an engine that opens them as files.
Runtime = Literal["eager", "onnxruntime", "openvino"]


class LatencyBudget(Spec):
    """Time of one forward pass of one sample: in PyTorch on the trial's device, or in another runtime."""

    kind: Literal["latency"] = "latency"
    """`latency`: the target is a time, by a model of latency that is measured where the trial runs."""
    target: Latency
    """Time of one forward pass of one sample: a duration such as `3ms`, or a share of the supernet's such as `60%`."""
    # Not part of a content where it is the usual one: trials from before there was a choice keep their hashes.
    runtime: Annotated[Runtime, Field(exclude_if=lambda value: value == "eager")] = "eager"
    """What runs the network. eager: PyTorch, on the trial's device, with its `cpus`. onnxruntime, openvino: these, in
    single precision on one thread of a processor, also where the trial trains on a GPU; they come with the extra of
    their name, `onnx` or `openvino`. The network that is cut is timed there in turns with the supernet, and cut again
    where it misses the target. Times are the least that the processor took in many turns."""

    @property
    def share(self) -> float | None:
        """The target as a share of the supernet's latency, None for a duration."""
        return parse_latency(self.target)[0]

    @property
    def seconds(self) -> float | None:
        """The target as a duration, None for a share."""
        return parse_latency(self.target)[1]

    def label(self) -> str:
        """Return the budget as the leaderboard prints it."""
        return f"latency {self.target}" if self.runtime == "eager" else f"latency {self.target} {self.runtime}"

    def order(self) -> float:
        """Return a number by which budgets of a kind are ordered; durations come after shares."""
        share, seconds = parse_latency(self.target)
        return share if share is not None else 1 + 1e6 * (seconds or 0.0)


class MemoryBudget(Spec):
    """Bytes of a language model at inference: its weights, and the keys and values that it keeps."""

    kind: Literal["memory"] = "memory"
    """`memory`: the target counts bytes of weights and of the cache; for language models."""
    target: Size
    """Bytes of weights and cache together: a size such as `8GB`, or a share of the supernet's such as `60%` (a number
    of at most 1 is a share)."""
    context: Annotated[int, Field(ge=1, le=10**9)]
    """Tokens of each sequence whose keys and values are kept; a sliding window is not taken off."""
    batch: Annotated[int, Field(ge=1, le=10**9)] = 1
    """Sequences at once."""
    bytes_per_weight: Annotated[float, Field(gt=0, le=16)] = 2
    """Bytes of a weight where the network is used: 2 for bf16, 0.5 for 4 bits."""
    bytes_per_cached: Annotated[float, Field(gt=0, le=16)] = 2
    """Bytes of a number in the cache."""

    def label(self) -> str:
        """Return the budget as the leaderboard prints it."""
        sequences = f"{self.batch}x" if self.batch > 1 else ""
        widths = (
            ""
            if (self.bytes_per_weight, self.bytes_per_cached) == (2, 2)
            else (f" of {self.bytes_per_weight:g}B weights {self.bytes_per_cached:g}B cache")
        )
        unit = "B" if self.target > 1 else ""
        return f"memory {format_amount(self.target)}{unit} at {sequences}{self.context} tokens{widths}"

    def order(self) -> float:
        """Return a number by which budgets of a kind are ordered."""
        return self.target


ConstraintSpec = Annotated[MacsBudget | ParamsBudget | LatencyBudget | MemoryBudget, Field(discriminator="kind")]


def _distinct(constraints: tuple[ConstraintSpec, ...]) -> tuple[ConstraintSpec, ...]:
    kinds = [constraint.kind for constraint in constraints]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ValueError(f"{kind!r} occurs {kinds.count(kind)} times; at most one constraint of a kind")
    if len(kinds) < 2:
        raise ValueError("needs at least two constraints; write a single one without 'all'")
    # Their order means nothing, and must not change the hash.
    return tuple(
        sorted(constraints, key=lambda constraint: ("macs", "params", "latency", "memory").index(constraint.kind))
    )


class JointBudget(Spec):
    """Several constraints that all have to hold."""

    kind: Literal["all"] = "all"
    """`all`: several constraints at once."""
    of: Annotated[
        tuple[ConstraintSpec, ...], AfterValidator(_distinct), Field(json_schema_extra={"minItems": 2, "maxItems": 4})
    ]
    """Two to four constraints of different kinds, all of which have to hold; their order means nothing."""

    def label(self) -> str:
        """Return the budget as the leaderboard prints it."""
        return " + ".join(constraint.label() for constraint in self.of)

    def order(self) -> float:
        """Return a number by which budgets are ordered: that of the first constraint."""
        return self.of[0].order()


BudgetSpec = Annotated[
    MacsBudget | ParamsBudget | LatencyBudget | MemoryBudget | JointBudget, Field(discriminator="kind")
]


def constraints_of(budget: BudgetSpec) -> tuple[ConstraintSpec, ...]:
    """Return the constraints of a budget, one or more."""
    return budget.of if isinstance(budget, JointBudget) else (budget,)


#: Why one search cannot be for some budgets.
NO_ORDER = "goes through budgets from large to small: let all of them bound the same costs"


def in_order(budgets: Iterable[BudgetSpec]) -> tuple[BudgetSpec, ...]:
    """Return the different budgets, from large to small within a kind."""
    different = {budget.content_hash(): budget for budget in budgets}
    return tuple(sorted(different.values(), key=lambda budget: (budget.kind, -budget.order(), budget.content_hash())))


_ANY: TypeAdapter[BudgetSpec] = TypeAdapter(BudgetSpec)


def parse_budget(targets: Mapping[str, str]) -> tuple[BudgetSpec, dict[str, Any]]:
    """Read a budget that stands by itself, outside of a suite.

    Args:
        targets: what may be spent, as text, by kind (`macs`, `params`, `latency`); several hold together.

    Returns:
        The budget, and how a suite writes it.

    Raises:
        UserError: a target is no amount; the first that is none is named as an option.
    """
    parts = [{"kind": kind, "target": target} for kind, target in targets.items()]
    for part in parts:
        try:
            _ANY.validate_python(part)
        except ValidationError as error:
            text = problems_of(error, part)[0][1]
            raise UserError(f"--{part['kind']}: {text}") from None
    written: dict[str, Any] = {**parts[0]} if len(parts) == 1 else {"kind": "all", "of": parts}
    return _ANY.validate_python(written), written


def bound_the_same(budgets: Iterable[BudgetSpec]) -> bool:
    """Tell whether all of them bound the same costs, so that one can be smaller than another."""
    return len({tuple(sorted(map(_bounded, constraints_of(budget)))) for budget in budgets}) <= 1


def _bounded(constraint: ConstraintSpec) -> str:
    return f"{constraint.kind} {constraint.runtime}" if isinstance(constraint, LatencyBudget) else constraint.kind


def latency_of(budget: BudgetSpec) -> LatencyBudget | None:
    """Return the constraint of a budget that bounds the latency, if one does."""
    return next((bound for bound in constraints_of(budget) if isinstance(bound, LatencyBudget)), None)


def format_amount(amount: float) -> str:
    """Write an amount shortly, yet so that different amounts differ: `30%` for a fraction, `450M` for a count."""
    if amount <= 1:
        return f"{amount * 100:.12g}%"
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= scale:
            return f"{amount / scale:.12g}{letter}"
    return f"{amount:.12g}"
