"""What masked and cut networks are compared on: other numbers of samples and other sizes than were traced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from dms_bench.scaling.example import Example
from dms_bench.scaling.modules.reparametrised import copy_of

#: Samples of the largest batch.
_MANY = 3


@dataclass(frozen=True)
class ProofInputs:
    """Examples of one network, each of which it runs on.

    Attributes:
        traced: what its operators were seen on.
        one: a single sample.
        many: more samples than were traced, where it takes batches.
        resized: a sample of another size (of an image, of a text), where it takes these.
    """

    traced: Example
    one: Example
    many: Example
    resized: Example

    @classmethod
    def of(cls, model: nn.Module, traced: Example, samples: int) -> ProofInputs:
        """Try what a network runs on.

        Args:
            model: the network, in eval mode.
            traced: an input of it.
            samples: how many that has.
        """
        model = copy_of(model)  # some keep tables of the size that they saw last
        one = traced.batch(1) if samples > 1 else traced
        batched = samples > 1 or (traced.alone and traced.rows == 1)
        many = next((bigger for bigger in (one.batch(_MANY),) if batched and _runs(model, bigger)), traced)
        resized = next((other for other in _resized(one) if _runs(model, other)), one)
        return cls(traced, one, many, resized)

    def in_precision(self, dtype: torch.dtype) -> ProofInputs:
        """Return them in another precision."""
        one = self.one.in_precision(dtype)
        resized = one if self.resized is self.one else self.resized.in_precision(dtype)
        return ProofInputs(self.traced.in_precision(dtype), one, self.many.in_precision(dtype), resized)

    def turn(self, number: int) -> Example:
        """Return what the comparison of a number is made on."""
        return (self.many, self.resized)[number] if number < 2 else self.one


def _resized(one: Example) -> Iterator[Example]:
    """Yield the example with one of its sizes grown by half or doubled, in all places where it occurs."""
    sizes = [size for tensor in one.tensors() for size in tensor.shape[1:] if size > 1]
    for size in sorted(set(sizes), reverse=True):
        for grown in (size + size // 2, 2 * size):
            yield one.mapped(partial(_grown, size=size, grown=grown))


def _grown(tensor: torch.Tensor, size: int, grown: int) -> torch.Tensor:
    """Repeat a tensor from its beginning along the dimensions of a size, but for the first, which is of samples."""
    for dim in range(1, tensor.dim()):
        if tensor.size(dim) == size:
            tensor = tensor.index_select(dim, torch.arange(grown, device=tensor.device) % size)
    return tensor


def _runs(model: nn.Module, example: Example) -> bool:
    try:
        with torch.no_grad():
            example(model)
    except Exception:  # whatever its code makes of such an input
        return False
    return True
