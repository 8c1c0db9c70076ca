"""The segments of a network that are timed one by one, and the clock that does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dms_bench.scaling.example import Example
from dms_bench.scaling.modules.blocks import block_of
from dms_bench.scaling.modules.hooked import hooked
from dms_bench.scaling.space.space import SearchSpace

#: Name of what lies outside of all segments.
REST = "(rest)"
#: A module that more groups touch is timed by its children, unless it is a removable block.
_MOST_GROUPS = 4


@dataclass(frozen=True)
class Segment:
    """A module that is timed as one.

    Attributes:
        name: the module's path.
        groups: indices of the width groups that the sizes of its tensors depend on.
        block: index of the removable block that it is or lies in, or -1.
    """

    name: str
    groups: tuple[int, ...]
    block: int = -1


def segments_of(model: nn.Module, space: SearchSpace, example: Example) -> list[Segment]:
    """Split a network into segments: removable blocks, and outside of them the largest modules that few groups touch.

    Args:
        model: the supernet.
        space: its search space.
        example: its input; tells which modules are called, as lists of modules are not.
    """
    blocks = space.blocks
    called = _called(model, example)
    segments: list[Segment] = []

    def visit(name: str, module: nn.Module) -> None:
        prefix = name + "." if name else ""
        groups = _touching(prefix, space)
        # A segment leaves or stays as a whole.
        whole = not any(block.startswith(prefix) and block != name for block in blocks)
        children = list(module.named_children())
        if name in called and whole and (name in blocks or len(groups) <= _MOST_GROUPS or not children):
            if any(True for _ in module.parameters()):
                segments.append(Segment(name, groups, block_of(name, blocks)))
            return
        for child, inner in children:
            visit(prefix + child, inner)

    visit("", model)
    return segments


def _touching(prefix: str, space: SearchSpace) -> tuple[int, ...]:
    owner = space.units.owner
    elements = [indices for (tensor, _), indices in space.occurrences() if tensor.startswith(prefix)]
    searched = torch.cat([*elements, torch.empty(0, dtype=torch.long)])
    searched = searched[searched >= 0]
    return tuple(sorted(set(owner[searched].tolist())))


def _called(model: nn.Module, example: Example) -> set[str]:
    names: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: names.add(name))
        for name, module in model.named_modules()
    ]
    training = model.training
    with hooked(handles):
        try:
            with torch.no_grad():
                example(model.eval())
        finally:
            model.train(training)
    return names


class SegmentTimer:
    """Times the forward pass of a network by segments; on a GPU by events on the stream, elsewhere by the clock."""

    def __init__(self, network: nn.Module, segments: Sequence[str], device: torch.device) -> None:
        self.network, self.device = network, device
        modules = dict(network.named_modules())
        self._segments = {name: modules[name] for name in segments if name in modules}
        self._marks: list[tuple[str, Any, Any]] = []

    def run(self, example: Example, repeats: int) -> dict[str, list[float]]:
        """Return milliseconds of every segment and the rest, for each of some forward passes after one to warm up."""
        spent: dict[str, list[float]] = {}
        handles = [handle for name, module in self._segments.items() for handle in self._hooks(name, module)]
        with hooked(handles), torch.inference_mode():
            for turn in range(1 + repeats):
                self._marks.clear()
                self._synchronise()
                started = self._now()
                example(self.network)
                ended = self._now()
                self._synchronise()
                if turn == 0:
                    continue
                times = dict.fromkeys(self._segments, 0.0)
                for name, begin, end in self._marks:
                    times[name] += self._ms(begin, end)
                times[REST] = self._ms(started, ended) - sum(times.values())
                for name, value in times.items():
                    spent.setdefault(name, []).append(value)
        return spent

    def _hooks(self, name: str, module: nn.Module) -> tuple[Any, Any]:
        begun: list[Any] = []

        def begin(*_: Any) -> None:
            begun.append(self._now())

        def end(*_: Any) -> None:
            self._marks.append((name, begun.pop(), self._now()))

        return module.register_forward_pre_hook(begin), module.register_forward_hook(end)

    @property
    def _now(self) -> Callable[[], Any]:
        return _event if self.device.type == "cuda" else time.perf_counter

    def _ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) if self.device.type == "cuda" else 1e3 * (end - begin)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
