"""A layer's arithmetic held against the same in double precision: forward pass and both gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dms_bench.kernels.cases import Case

#: Largest relative error (of norms) of a right kernel. Measured over `cut_layers` on an AVX-512 processor: 6e-7 in
#: single precision (Winograd's transforms, of which others make use, lose two digits more), 8e-3 in bfloat16, whose
#: results have 8 bits; with TF32, which NVIDIA's convolutions use unless told otherwise, factors have 11. The known
#: faults start at 0.1.
TOLERANCE = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 3e-2}
PARTS = ("output", "input gradient", "weight gradient")


def tolerance(case: Case) -> float:
    """Return the largest relative error that a right kernel may have."""
    tf32 = case.device == "cuda" and case.dtype == "float32" and torch.backends.cudnn.allow_tf32
    return TOLERANCE["tf32" if tf32 else case.dtype]


def wrong(case: Case, spoil: str | None = None) -> dict[str, float]:
    """Return the relative errors that are too large, by what is wrong: output, input gradient, weight gradient.

    Args:
        case: the layer.
        spoil: one of those, to be made wrong: what a test of the check itself wants.
    """
    relative_errors = errors(case, spoil)
    return {name: error for name, error in relative_errors.items() if not error <= tolerance(case)}  # NaN is wrong, too


def errors(case: Case, spoil: str | None = None) -> dict[str, float]:
    """Return the relative errors (of norms) of output, input gradient and weight gradient."""
    dtype = getattr(torch, case.dtype)
    generator = torch.Generator().manual_seed(0)  # not the process's own, which a trial's results depend on

    def random(*shape: int) -> Tensor:  # as exact as the type, so that only arithmetic differs
        return torch.randn(shape, generator=generator).to(dtype)

    data, weight = random(case.batch, case.inputs, *case.size), random(*_weight_shape(case))
    with torch.enable_grad():
        exact = _run(case, data.double(), weight.double(), None)
        pull = random(*exact[0].shape)
        expected = _run(case, data.double(), weight.double(), pull.double())
        computed = _run(case, *(_placed(case, tensor) for tensor in (data, weight, pull)))
    result = {}
    for name, right, ours in zip(PARTS, expected, computed, strict=True):
        ours, right = ours.detach().cpu().double(), right.detach()
        if name == spoil:
            ours = ours * 1.5
        result[name] = float((ours - right).norm() / right.norm().clamp_min(1e-30))
    return result


def _weight_shape(case: Case) -> tuple[int, ...]:
    if case.transposed:
        return (case.inputs, case.outputs // case.groups, *case.kernel)
    return (case.outputs, case.inputs // case.groups, *case.kernel)


def _placed(case: Case, tensor: Tensor) -> Tensor:
    """Return a tensor on the case's device, in its layout: of a sequence, too, for which PyTorch has no name."""
    tensor = tensor.to(case.device)
    if case.layout == "contiguous" or not case.kernel:
        return tensor
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def _run(case: Case, data: Tensor, weight: Tensor, pull: Tensor | None) -> tuple[Tensor, ...]:
    """Return the output and, given the output's gradient, the gradients of data and weight."""
    data, weight = data.detach().requires_grad_(), weight.detach().requires_grad_()
    if not case.kernel:
        out = functional.linear(data, weight)
    else:
        out = torch.convolution(
            data, weight, None, case.stride, case.padding, case.dilation,
            case.transposed, [0] * len(case.kernel), case.groups,
        )  # fmt: skip
    return (out, *(torch.autograd.grad(out, (data, weight), pull) if pull is not None else ()))
