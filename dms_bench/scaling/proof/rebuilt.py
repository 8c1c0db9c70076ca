"""A cut network as its file is opened: another copy of the supernet, given the structure and the saved weights."""

from __future__ import annotations

import copy

from torch import nn

from dms_bench.scaling.cut.surgery import Surgery, apply_structure


class CannotLoadError(Exception):
    """A cut network that does not read its own weights."""


def rebuilt(model: nn.Module, surgery: Surgery, small: nn.Module) -> nn.Module | None:
    """Return the cut network, built again; None where not even the whole network reads what it saves.

    Args:
        model: the supernet; may hold what it computed from its weights when it ran. Left as it is.
        surgery: what was cut.
        small: the cut network.

    Raises:
        CannotLoadError: the whole network reads its weights, the cut one does not.
    """
    again = copy.deepcopy(model)
    apply_structure(again, surgery)
    if _loads(again, small):
        return again
    if _loads(copy.deepcopy(model), model):
        raise CannotLoadError
    return None


def _loads(model: nn.Module, source: nn.Module) -> bool:
    try:
        model.load_state_dict(source.state_dict())
    except Exception:  # whatever its code makes of them
        return False
    return True
