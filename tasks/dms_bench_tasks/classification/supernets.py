"""Supernets that timm has the blocks for but no name, built by its own builders.

A name here is used in a suite like one of timm's, and takes the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models import MobileNetV3
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, resolve_act_layer, resolve_bn_args, round_channels
from torch import nn

#: Activation and squeeze-and-excitation of the five searched stages: (width, stride, relu instead of h-swish, SE).
_STAGES = (
    (24, 2, True, False),
    (40, 2, True, True),
    (80, 2, False, False),
    (112, 1, False, True),
    (160, 2, False, True),
)
_BLOCKS, _EXPANSION = 4, 6


def ofa_mobilenetv3(kernel: int, **kwargs: Any) -> nn.Module:
    """Build the largest subnet of once-for-all MobileNetV3 (width 1.0) with one kernel size.

    Five stages of four blocks, widths 16, 16, 24, 40, 80, 112, 160, 960, 1280, expansion 6 (Cai et al. 2020). There
    the kernel (3, 5, 7) is chosen per block and the resolution (128 to 224) per network; here both are fixed.
    `pretrained` is refused: there are no weights for it.

    Args:
        kernel: of every depthwise convolution of the five stages.
        **kwargs: of timm's `MobileNetV3`.

    Raises:
        ValueError: pretrained weights are asked for.
    """
    if kwargs.pop("pretrained", False):
        raise ValueError("no pretrained weights are published in this form; give a checkpoint")
    definition = [["ds_r1_k3_s1_e1_c16_nre"]]
    for width, stride, relu, excites in _STAGES:
        tail = f"_c{width}" + ("_se0.25" if excites else "") + ("_nre" if relu else "")
        definition.append(
            [f"ir_r{count}_k{kernel}_s{step}_e{_EXPANSION}{tail}" for count, step in ((1, stride), (_BLOCKS - 1, 1))]
        )
    definition.append(["cn_r1_k1_s1_c960"])
    model: nn.Module = MobileNetV3(
        decode_arch_def(definition),
        num_features=1280,
        stem_size=16,
        fix_stem=True,
        act_layer=resolve_act_layer(kwargs, "hard_swish"),
        norm_layer=partial(nn.BatchNorm2d, **resolve_bn_args(kwargs)),
        se_layer=partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU, rd_round_fn=round_channels),
        **kwargs,
    )
    return model


#: Name in a suite -> builder; the name says the kernel size.
SUPERNETS: dict[str, Callable[..., nn.Module]] = {
    f"ofa_mobilenetv3_k{kernel}": partial(ofa_mobilenetv3, kernel) for kernel in (3, 5, 7)
}
