"""The network that Ultralytics' trainer trains in a search: a masked supernet with the attributes of its own.

Import after `offline.set_up`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench_tasks.detection.model import detector_of


class SearchLoss:
    """What a search adds to the loss of a batch; copies of a network (the average of its weights) have none."""

    def __init__(self, loss: Callable[[], Tensor] | None) -> None:
        self.loss = loss

    def __deepcopy__(self, memo: Any) -> SearchLoss:
        return SearchLoss(None)


class Searched(nn.Module):
    """A masked supernet that has the attributes of the Ultralytics network inside.

    Args:
        supernet: runs the network under the present masks.
        term: what the search adds to the loss.
    """

    def __init__(self, supernet: nn.Module, term: SearchLoss) -> None:
        super().__init__()
        self.supernet, self.term = supernet, term

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return losses of a batch, the search's own among them, or predictions for images."""
        if not isinstance(x, dict):
            return self.supernet(x, *args, **kwargs)
        losses, parts = self.supernet(x)
        if self.term.loss is not None and torch.is_grad_enabled():
            # Ultralytics' losses are sums over the images of a batch: so this one counts once per image.
            losses = torch.cat([losses.view(-1), len(x["img"]) * self.term.loss().view(1)])
        return losses, parts

    def loss(self, batch: dict[str, Tensor], preds: Any = None) -> Any:
        """Return Ultralytics' losses of predictions."""
        return detector_of(self).loss(batch, preds)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "supernet" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(detector_of(self), name)

    @property
    def end2end(self) -> bool:
        """Which of two heads predicts, where there are two."""
        return bool(detector_of(self).end2end)

    @end2end.setter
    def end2end(self, value: bool) -> None:
        detector_of(self).end2end = value


def share_structure(live: Any, average: Any) -> None:
    """Give the averaged supernet the structure of the live one: an average of masks would be neither's."""
    for phase in ("observing", "depth_first"):
        setattr(average.relaxation, phase, getattr(live.relaxation, phase))
    average.relaxation.load_state_dict(live.relaxation.state_dict())
    plain = {name: value for name, value in vars(live.relaxation).items() if isinstance(value, float)}
    vars(average.relaxation).update(plain)
