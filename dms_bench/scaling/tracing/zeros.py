"""What is zero where weights are: features that add nothing to a sum which no weight takes part in.

`F.normalize(x)`, `(x * x).sum(1)`, `queries @ keys.T`: no weight there could carry a mask. But where the layer that
makes a feature has its row zero, and its bias, the feature is zero, also behind activations, products, pools and views,
and adds nothing to the sum, just as if it were gone. So it is written down, of every tensor, which parameters have to
have zeros for its features to be zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dms_bench.scaling.modules.reparametrised import layer_of
from dms_bench.scaling.tracing.labels import FIXED
from dms_bench.scaling.tracing.operators import MOVES, SPLITS


class Maker(NamedTuple):
    """A parameter whose zeros along a dimension make features zero.

    Attributes:
        module: the module that was running when it was read.
        parameter: its name.
        dim: the dimension.
    """

    module: str
    parameter: str
    dim: int


Makers = frozenset[Maker]

#: Operators that make zero of a zero in their first operand, whatever the others are.
_THROUGH = {
    *("relu", "gelu", "silu", "tanh", "hardswish", "leaky_relu", "elu", "celu", "selu", "mish", "_prelu_kernel", "abs"),
    *("neg", "sqrt", "sign", "sin", "square", "erf", "log1p", "relu6", "softshrink", "hardshrink", "div", "dropout"),
    *("native_dropout", "_to_copy", "sum", "mean", "amax", "amin", "var", "std", "linalg_vector_norm"),
    *("cumsum", "gather", "index_select", "index", "real", "imag", "_conj", "view_as_real", "view_as_complex"),
    *("_fft_r2c", "_fft_c2r", "_fft_c2c", "max_pool2d_with_indices", "max_pool3d_with_indices", "_adaptive_avg_pool2d"),
    *("_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool2d", "avg_pool3d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d"),
    *("upsample_bicubic2d", "upsample_trilinear3d", "tril", "triu", "embedding"),
}
#: Operators whose result is zero where all of their operands are.
_ALL = {"add", "sub", "maximum", "minimum", "max", "min", "cat", "stack"}
_PRODUCTS = {"mm", "bmm", "matmul"}
_FILLED = {"zeros", "new_zeros", "zeros_like"}
#: Position of the weight among the arguments, that of the bias, and the dimension of the result that both lie along.
_SCALED = {
    "native_layer_norm": (2, 3, -1),
    "native_group_norm": (1, 2, 1),
    "native_batch_norm": (1, 2, 1),
    "_native_batch_norm_legit_no_training": (1, 2, 1),
}


class Zeros:
    """Follows, through the operators of a forward pass, which parameters' zeros make features zero.

    Args:
        along: labels along a dimension of a tensor, or None.
        names: of the parameters, by id.
    """

    def __init__(self, along: Callable[[Tensor, int], Tensor | None], names: dict[int, str]) -> None:
        self._along, self._names = along, names
        #: What ran since somebody asked, which in most networks nobody does.
        self._waiting: list[Callable[[], None]] = []
        #: By id of a tensor, and dimension.
        self._makers: dict[int, dict[int, Makers]] = {}
        #: Tensors by the memory that they lie in; and memory that holds nothing but zeros.
        self._in_memory: dict[int, set[int]] = {}
        self._blank: set[int] = set()

    def makers(self, tensor: Tensor, dim: int, module: str) -> Makers | None:
        """Return the parameters that have to be zero for a tensor's features along a dimension to be zero.

        Args:
            tensor: it.
            dim: the dimension; it has labels.
            module: the running module.
        """
        waiting, self._waiting = self._waiting, []
        for step in waiting:
            step()
        return self._known(tensor, dim, module)

    def _known(self, tensor: Tensor, dim: int, module: str) -> Makers | None:
        dim %= tensor.dim()
        name = self._names.get(id(tensor))
        if name is not None:
            # A parametrization's parameter is read on the way to the layer, which has to see the weight masked.
            return frozenset([Maker(layer_of(name) if ".parametrizations." in name else module, name, dim)])
        if self._is_blank(tensor):
            return frozenset()
        return self._makers.get(id(tensor), {}).get(dim)

    def filled(self, operator: str, out: Tensor) -> None:
        """A tensor of one number everywhere was made."""
        if operator in _FILLED:
            self._waiting.append(lambda: self._blank.add(_memory(out)))

    def follow(self, name: str, args: Sequence[Any], operands: list[Tensor], out: Any, module: str) -> None:
        """An operator ran; the labels of its results are known."""
        self._waiting.append(lambda: self._follow(name, args, operands, out, module))

    def _follow(self, name: str, args: Sequence[Any], operands: list[Tensor], out: Any, module: str) -> None:
        operator = name.rstrip("_")
        outs = [value for value in (out if isinstance(out, list | tuple) else [out]) if isinstance(value, Tensor)]
        found = [self._made(operator, args, operands, tensor, module) for tensor in outs]
        for tensor, makers in zip(outs, found, strict=True):
            memory = _memory(tensor)
            if name.endswith("_") and any(tensor is operand for operand in operands):  # in place
                self._blank.discard(memory)
                for other in self._in_memory.pop(memory, ()):
                    self._makers.pop(other, None)
            if operator == "zeros_like":
                self._blank.add(memory)
            if makers:
                self._makers[id(tensor)] = makers
                self._in_memory.setdefault(memory, set()).add(id(tensor))

    def normed(self, scale: Tensor | None, shift: Tensor | None, out: Tensor, dim: int, module: str) -> None:
        """A module that is a norm ran, of features along `dim`: its result is zero where scale and shift are."""
        if scale is not None:
            self._waiting.append(lambda: self._norm(scale, shift, out, dim, module))

    def _norm(self, scale: Tensor, shift: Tensor | None, out: Tensor, dim: int, module: str) -> None:
        parts = [
            Maker(module, self._names[id(part)], next(at for at, size in enumerate(part.shape) if size > 1))
            for part in (scale, shift)
            if part is not None and part.numel() > 1
        ]
        self._makers[id(out)] = {dim % out.dim(): frozenset(parts)}

    def _made(
        self, operator: str, args: Sequence[Any], operands: list[Tensor], out: Tensor, module: str
    ) -> dict[int, Makers]:
        result: dict[int, Makers] = {}
        if not any(map(self._is_known, operands)):
            return result
        for dim in range(out.dim()):
            labels = self._along(out, dim)
            if labels is None:
                continue
            makers = self._along_dim(operator, args, operands, out, dim, labels, module)
            if makers is not None:
                result[dim] = makers
        return result

    def _along_dim(
        self,
        operator: str,
        args: Sequence[Any],
        operands: list[Tensor],
        out: Tensor,
        dim: int,
        labels: Tensor,
        module: str,
    ) -> Makers | None:
        """Return the parameters whose zeros make the features along one dimension of a result zero, if it is known."""

        def of(operand: Tensor) -> Makers | None:
            return self._carried(operand, labels, module)

        if operator == "mul":
            return next((makers for makers in map(of, operands) if makers is not None), None)
        if operator in _ALL and not (operator in ("max", "min") and len(operands) == 1):
            number = next((arg for arg in args[:2] if isinstance(arg, int | float)), 0)
            if len(operands) < 2 and number != 0 and operator not in ("cat", "stack"):
                return None
            if operator == "cat":
                return self._joined(operands, out, dim, module)
            return _union(self._aligned(operand, out, dim, operator == "stack", module) for operand in operands)
        if operator in MOVES | SPLITS | _THROUGH | {"max", "min"} or _keeps_zero(operator, args):
            return of(operands[0])
        if operator in _PRODUCTS:
            return self._product(args[0], args[1], out, dim, module)
        if operator == "mv":
            return self._known(args[0], 0, module)
        if operator in ("addmm", "baddbmm"):
            product = self._product(args[1], args[2], out, dim, module)
            return _union([product, self._aligned(args[0], out, dim, False, module)])
        if operator in ("linear", "convolution", "_convolution"):
            return self._layer(operator, args, out, dim, module)
        if operator in _SCALED:
            weight, bias, at = _SCALED[operator]
            if at % out.dim() != dim or not isinstance(args[weight], Tensor):
                return None
            return _union(self._known(part, 0, module) for part in (args[weight], args[bias]) if part is not None)
        if operator in ("scatter_add", "index_add"):
            return _union([self._aligned(args[0], out, dim, False, module), of(args[3])])
        return None

    def _layer(self, operator: str, args: Sequence[Any], out: Tensor, dim: int, module: str) -> Makers | None:
        weight, bias = args[1], args[2] if len(args) > 2 else None
        if dim != (out.dim() - 1 if operator == "linear" else 1):  # each by itself, zero where nothing is added
            return self._aligned(args[0], out, dim, False, module) if bias is None else None
        rows = 1 if operator != "linear" and args[6] else 0
        if rows == 1 and args[8] > 1:
            return None
        parts = [self._known(weight, rows, module)] if self._along(weight, rows) is not None else [None]
        return _union([*parts, *([self._known(bias, 0, module)] if isinstance(bias, Tensor) else [])])

    def _product(self, left: Tensor, right: Tensor, out: Tensor, dim: int, module: str) -> Makers | None:
        """A product of matrices has a zero row for every one of the left, and a column for every one of the right."""
        behind = dim - out.dim()
        sides = [left] if behind != -1 else []
        sides += [right] if behind != -2 else []
        found = (
            self._known(side, behind, module)
            for side in sides
            if side.dim() >= -behind and self._along(side, behind) is not None
        )
        return next((makers for makers in found if makers is not None), None)

    def _joined(self, operands: list[Tensor], out: Tensor, dim: int, module: str) -> Makers | None:
        """Of pieces that lie side by side those that have labels count; what has none always stays."""
        pieces = [operand for operand in operands if operand.dim() == out.dim()]
        beside = any(piece.size(dim) != out.size(dim) for piece in pieces)
        if beside:
            pieces = [piece for piece in pieces if self._along(piece, dim) is not None]
        return _union(self._aligned(piece, out, dim, False, module) for piece in pieces)

    def _aligned(self, operand: Tensor, out: Tensor, dim: int, stacked: bool, module: str) -> Makers | None:
        """Return what makes an operand zero along the dimension that becomes `dim` of a result."""
        if self._is_blank(operand):
            return frozenset()
        at = dim - (out.dim() - operand.dim())
        if stacked:  # the new dimension is the one that differs
            at = next((each for each in (dim, dim - 1) if self._along_at(operand, each)), -1)
        if at < 0 or self._along(operand, at) is None:
            return None
        return self._known(operand, at, module)

    def _along_at(self, operand: Tensor, dim: int) -> bool:
        return 0 <= dim < operand.dim() and self._along(operand, dim) is not None

    def _carried(self, operand: Tensor, labels: Tensor, module: str) -> Makers | None:
        """Return what makes an operand zero along the dimension that has some labels, whichever it is."""
        if self._is_blank(operand):
            return frozenset()
        for dim in self._makers.get(id(operand), range(operand.dim()) if id(operand) in self._names else ()):
            own = self._along(operand, dim)
            if own is not None and _among(labels, own):
                return self._known(operand, dim, module)
        return None

    def _is_known(self, tensor: Tensor) -> bool:
        return id(tensor) in self._makers or id(tensor) in self._names or self._is_blank(tensor)

    def _is_blank(self, tensor: Tensor) -> bool:
        return bool(self._blank) and _memory(tensor) in self._blank


def _among(labels: Tensor, others: Tensor) -> bool:
    """Whether all labels but the fixed one are among others; as a rule they are the same memory."""
    same = labels.data_ptr() == others.data_ptr() and labels.stride() == others.stride()
    return (same and len(labels) <= len(others)) or bool(torch.isin(labels[labels != FIXED], others).all())


def _keeps_zero(operator: str, args: Sequence[Any]) -> bool:
    """Whether an operator with numbers among its arguments makes zero of zero."""
    numbers = [arg for arg in args[1:] if isinstance(arg, int | float) or arg is None]
    if operator == "pow":
        return len(numbers) == 1 and numbers[0] is not None and numbers[0] > 0
    if operator in ("clamp", "hardtanh"):
        low, high = [*numbers, None, None][:2]
        return (low is None or low <= 0) and (high is None or high >= 0)
    if operator in ("clamp_min", "clamp_max"):
        return len(numbers) == 1 and (numbers[0] or 0) * (1 if operator == "clamp_min" else -1) <= 0
    if operator in ("masked_fill", "constant_pad_nd"):
        return all(number == 0 for number in numbers if number is not None)
    return False


def _union(parts: Iterable[Makers | None]) -> Makers | None:
    """Return all makers, of parts that all have to be zero; None where one is not known."""
    result: Makers = frozenset()
    for part in parts:
        if part is None:
            return None
        result |= part
    return result


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)
