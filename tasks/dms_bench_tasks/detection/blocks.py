"""Cross-stage blocks (C2f, C3k2, C2PSA) in a form whose halves and inner blocks' outputs can be cut.

Ultralytics' own code makes both halves by one convolution and splits its output in the middle, which
halves of different widths do not survive. Here each half has a convolution of its own; the output is
the same to the bit of its sums. `portable.py` writes a cut block as layers of Ultralytics' own.

Shape legend:
    B, H, W: batch and positions
    C: channels
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import C2PSA, PSA, Attention, C2f
from ultralytics.nn.modules.conv import Conv

#: Blocks that run on one half, whose outputs are all concatenated; and those of which only the last one is.
COLLECTING, CHAINING = C2f, C2PSA


class CrossStage(nn.Module):
    """cv2(cat(first(x), second(x), m[0](second(x)), m[1](m[0](...)), ...)); of a chain the last output alone.

    Attributes:
        collects: whether the outputs of all inner blocks are concatenated, as C2f does.
        drops_repeats: tells the search space that an inner block that hands its input on is left out of
            the concatenation.
    """

    drops_repeats = True

    def __init__(self, first: Conv, second: Conv, inner: nn.ModuleList, cv2: Conv, *, collects: bool) -> None:
        super().__init__()
        self.first, self.second, self.m, self.cv2 = first, second, inner, cv2
        self.collects = collects

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H, W]."""
        parts = [self.first(x), self.second(x)]
        for block in self.m:
            out = block(parts[-1])
            if not self.collects:
                parts[-1] = out
            elif out is not parts[-1]:  # a removed block hands its input on: there is no output of it
                parts.append(out)
        return self.cv2(torch.cat(parts, 1))  # type: ignore[no-any-return]


def split_blocks(layers: nn.Sequential) -> None:
    """Put `CrossStage` in the place of all cross-stage blocks of an Ultralytics network, with their weights.

    Attention keeps its sizes: its own code takes the width of its input for that of its values. So does YOLOv10's block
    around it, which splits in the middle.
    """
    for module in layers.modules():
        if isinstance(module, Attention | PSA):  # not a parameter, buffer or module: past `nn.Module`'s own code
            module.__dict__["keeps_sizes"] = True
    for index, layer in enumerate(layers):
        known = type(layer).forward in (COLLECTING.forward, CHAINING.forward)  # others may do something of their own
        if not (isinstance(layer, COLLECTING | CHAINING) and known):
            continue
        block = CrossStage(
            _rows(layer.cv1, slice(None, layer.c)),
            _rows(layer.cv1, slice(layer.c, None)),
            nn.ModuleList(layer.m),
            layer.cv2,
            collects=isinstance(layer, COLLECTING),
        )
        # Ultralytics runs its layers by these numbers.
        vars(block).update({name: getattr(layer, name) for name in ("i", "f", "type", "np")})
        layers[index] = block


def _rows(conv: Conv, rows: slice) -> Conv:
    """Return a convolution that makes some of the output channels of another."""
    weight = conv.conv.weight[rows].detach()
    part = Conv(weight.shape[1], weight.shape[0], 1, act=conv.act)
    part.bn.eps, part.bn.momentum = conv.bn.eps, conv.bn.momentum
    with torch.no_grad():
        part.conv.weight.copy_(weight)
        for name, tensor in conv.bn.state_dict().items():
            if tensor.dim():
                part.bn.state_dict()[name].copy_(tensor[rows])
    return part
