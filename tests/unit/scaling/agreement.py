"""An independent check of a search space: masked and cut networks, for single units and random choices of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dms_bench.scaling import count, cut, find_space
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench.scaling.masks.state import strip_hooks
from dms_bench.scaling.space.space import SearchSpace


def masks_to_try(space: SearchSpace, number: int = 12) -> list[Tensor]:
    """Return masks without each element of a stage, without the first of each group, and random ones."""
    units, generator = space.units, torch.Generator().manual_seed(5)
    masks = []
    for unit, (start, size, low) in enumerate(zip(units.starts, units.sizes, units.minimum, strict=True)):
        for element in range(start, start + size if unit >= len(space.groups) else start + 1):
            if low < size:
                masks.append(space.full())
                masks[-1][element] = 0
    for _ in range(number):
        mask = torch.zeros(units.total)
        for start, size, low in zip(units.starts, units.sizes, units.minimum, strict=True):
            keeps = int(torch.randint(low, size + 1, (1,), generator=generator))
            mask[start + torch.randperm(size, generator=generator)[:keeps]] = 1
        masks.append(mask)
    return masks


def make_generic(model: nn.Module) -> nn.Module:
    """Put a network into eval mode and double precision, with biases and scales that are not zero or one."""
    generator = torch.Generator().manual_seed(1)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.3, 1, generator=generator)
    return model


def assert_masked_is_cut(model: nn.Module, example: Tensor, generic: bool = True) -> SearchSpace:
    """Find the space and compare; return the space."""
    model = make_generic(model) if generic else model.double().eval()
    example = example.double() if example.is_floating_point() else example
    space = find_space(model, example)
    assert space.proof_error < 1e-12
    assert not space.gaps
    fused = torch.backends.mha.get_fastpath_enabled()
    forward = MaskedForward(model, space)
    for mask in masks_to_try(space):
        with torch.no_grad(), forward.using(mask.double()):
            expected = model(example)
        architecture = space.architecture(mask)
        small = cut(model, space, architecture).eval()
        with torch.no_grad():
            found = small(example)
        assert float((found - expected).norm()) <= 1e-12 * float(expected.norm()), architecture
        counted = count(small, example)
        assert (architecture.macs, architecture.params) == (counted.macs, counted.params), architecture
    strip_hooks(model)
    assert torch.backends.mha.get_fastpath_enabled() == fused
    return space
