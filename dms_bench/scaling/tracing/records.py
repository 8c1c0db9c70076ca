"""What is written down while a forward pass is watched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dms_bench.scaling.space.elements import NormedWeight, ShapeCall
from dms_bench.scaling.tracing.labels import Labels
from dms_bench.scaling.tracing.zeros import Makers

#: The factor of a contraction that is summed over, or of the size of heads in attention.
INNER = "inner"
#: Channels that a grouped product takes at a time: 16 bytes, in half precision.
RUN = 8


@dataclass(frozen=True)
class Contraction:
    """A convolution or matrix product, whose MACs fall with the kept sizes of `factors`."""

    module: str
    #: Of a sample, at full size.
    macs: float
    #: Labels along each dimension that may shrink, [size] each: by dimension of the result, or by what they are.
    factors: dict[int | str, Tensor]
    #: Labels along the contracted dimension of the second operand, when they vary; also one of the factors.
    contracted: Tensor | None
    #: Parameters whose zeros make the summands zero, where those are no weight's (`zeros`); None where not known.
    makers: Makers | None = None
    #: Id of the first operand, an activation as a rule.
    data: int = 0
    #: Number of the operator in the forward pass.
    at: int = 0


@dataclass(frozen=True)
class NormCall:
    """A normalisation whose statistics run over labelled features."""

    module: str
    labels: Tensor
    #: The dimension of the module's input along which the labels vary.
    dim: int
    #: What it computes, where it is one of `recognised`.
    kind: str = ""
    #: Number of the last operator before it ended.
    at: int = 0


@dataclass(frozen=True)
class Seen:
    """The size of a labelled dimension that a module's own operators saw."""

    size: int
    labels: Tensor
    #: Number of the operator, which of its results, and which dimension of that.
    at: tuple[int, int, int]


@dataclass(frozen=True)
class Product:
    """Queries and keys, multiplied along the labelled size of heads; no weight sums over it."""

    #: Labels along the head size, of the queries.
    labels: Tensor
    #: Rows of the layer that makes the queries: heads times head size.
    rows: int
    #: The attention divides by the square root of the size that it sees.
    scaled: bool
    #: Labels along the size of the values, if they vary.
    values: Tensor | None = None


@dataclass
class ModuleCall:
    """A module's call: its first tensor argument and, once it returned, its output."""

    name: str
    inputs: list[Tensor]
    output: Any = None
    #: The first argument, if it is a tensor.
    entry: Tensor | None = None
    #: Order in which calls began.
    order: int = 0
    #: Ids of the tensors that reach the output, or the first of several, through additions, activations and scaling
    #: alone; and of those that reach it through norms behind an addition as well. As it returned: code may add to its
    #: output in place later.
    residual_of: frozenset[int] = frozenset()
    normed_of: frozenset[int] = frozenset()
    #: Likewise for each entry of the tuple that it returned, if it did.
    entries: list[tuple[frozenset[int], frozenset[int]]] = field(default_factory=list)
    #: All arguments, by position or name.
    arguments: dict[str, Any] = field(default_factory=dict)
    #: Of a call that returns a tuple: the ids of what reaches each tensor among its arguments.
    made_of: dict[str, frozenset[int]] = field(default_factory=dict)
    #: Names of the modules that were running.
    within: tuple[str, ...] = ()
    #: Whether the output was added, outside of the module, to what its input was made of; and whether something else
    #: read it before that.
    joined: bool = False
    read_elsewhere: bool = False


@dataclass
class Trace:
    """What one forward pass showed."""

    labels: Labels
    #: Axes of every parameter and floating-point buffer by name: one per dimension, in order.
    state: dict[str, tuple[Tensor, ...]]
    contractions: list[Contraction] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    norms: list[NormCall] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)
    #: Sizes of labelled dimensions, by module.
    sizes: dict[str, list[Seen]] = field(default_factory=dict)
    #: Likewise, of what modules were given.
    given: dict[str, list[Seen]] = field(default_factory=dict)
    #: Likewise, of dimensions that a module split into heads.
    heads: dict[str, list[Seen]] = field(default_factory=dict)
    #: Labels along sizes of heads, where those and not heads are followed, and the number of heads: by first label.
    inside: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    #: Calls with sizes in a module's own code: module -> [call].
    shape_calls: dict[str, list[ShapeCall]] = field(default_factory=dict)
    #: Convolutions that standardise their weight over its inputs.
    standardised: set[str] = field(default_factory=set)
    #: Weights under weight norm, by the name of their direction.
    normed: dict[str, NormedWeight] = field(default_factory=dict)
    #: Labels along dimensions whose size has to stay a multiple of `RUN`.
    in_runs: list[Tensor] = field(default_factory=list)
    #: Concatenations in modules that leave out what occurs twice in a row: id of the result -> result, operands.
    joins: dict[int, tuple[Tensor, list[Tensor]]] = field(default_factory=dict)
    #: Whether some parameters were not read, as those that training alone reads.
    idle: bool = False
