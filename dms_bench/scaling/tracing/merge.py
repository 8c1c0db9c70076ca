"""Two traces of one forward pass, one that follows heads and one that follows their sizes, put together.

A row of a layer that makes queries belongs to a head and is a feature inside of it: it stays where both do, and
carries the product of both masks. Labels follow one of the two at a time. The network is traced once for each, and as
labels are numbered alike in both traces, so are operators, what they saw is matched here.

Shape legend:
    L: labels
    2: the outer and the inner element that an index goes with, one from each trace; -1: none
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from dms_bench.scaling.space.elements import NormSite, ShapeCall
from dms_bench.scaling.tracing.records import Contraction, Seen, Trace

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ElementPairs:
    """Turns what one or two traces saw of labels into the outer and inner elements of indices.

    Args:
        traces: of the same forward pass.
        elements: of every label, by trace, [L] each; -1 for what always stays.
    """

    def __init__(self, traces: Sequence[Trace], elements: Sequence[Tensor]) -> None:
        self.traces, self.elements = traces, elements

    def pair(self, labels: Sequence[Tensor | None]) -> Tensor:
        """Return the elements of each index from its labels in each trace, where there are any, [2, size]."""
        size = next(len(seen) for seen in labels if seen is not None)
        rows = [
            torch.full((size,), -1) if seen is None else elements[seen]
            for seen, elements in zip(labels, self.elements, strict=True)
        ]
        return torch.stack([*rows, torch.full((size,), -1)][:2])

    def matched(self, by_trace: Sequence[dict[Key, Tensor]]) -> dict[Key, Tensor]:
        """Return the elements of all that some trace has labels for, [2, size] each.

        Args:
            by_trace: labels by what they belong to, of each trace.
        """
        keys = dict.fromkeys(key for labels in by_trace for key in labels)
        return {key: self.pair([labels.get(key) for labels in by_trace]) for key in keys}

    def contractions(self) -> list[tuple[Contraction, dict[int | str, Tensor]]]:
        """Return every contraction with the elements along its factors."""
        by_trace = [
            dict(_numbered((contraction.at, contraction) for contraction in trace.contractions))
            for trace in self.traces
        ]
        first = {key: contraction for numbered in reversed(by_trace) for key, contraction in numbered.items()}
        return [
            (contraction, self.matched([numbered[key].factors if key in numbered else {} for numbered in by_trace]))
            for key, contraction in first.items()
        ]

    def norms(self) -> tuple[NormSite, ...]:
        """Return the norms whose statistics run over elements."""
        by_trace = [
            dict(_numbered(((norm.at, norm.module, norm.dim, norm.kind), norm.labels) for norm in trace.norms))
            for trace in self.traces
        ]
        sites = [
            NormSite(module, dim, elements, kind)
            for ((_, module, dim, kind), _), elements in self.matched(by_trace).items()
        ]
        return tuple(site for site in sites if bool((site.elements >= 0).any()))

    def seen(self, by_trace: Sequence[dict[str, list[Seen]]]) -> dict[str, list[tuple[int, Tensor]]]:
        """Return, by module, the sizes that concern elements, with those.

        Args:
            by_trace: sizes that modules saw, of each trace.
        """
        labels = [
            dict(_numbered(((module, *size.at), size.labels) for module, sizes in seen.items() for size in sizes))
            for seen in by_trace
        ]
        result: dict[str, list[tuple[int, Tensor]]] = {}
        for ((module, *_), _), elements in self.matched(labels).items():
            if bool((elements >= 0).any()):
                result.setdefault(module, []).append((elements.size(1), elements))
        return result

    def shape_calls(self) -> dict[str, list[ShapeCall]]:
        """Return, by module, the calls that hold sizes."""
        by_trace = [
            {(module, call.call): call for module, calls in trace.shape_calls.items() for call in calls}
            for trace in self.traces
        ]
        result: dict[str, list[ShapeCall]] = {}
        for key in dict.fromkeys(key for calls in by_trace for key in calls):
            result.setdefault(key[0], []).append(self._shape_call([calls.get(key) for calls in by_trace]))
        return result

    def _shape_call(self, calls: Sequence[ShapeCall | None]) -> ShapeCall:
        first = next(call for call in calls if call is not None)
        # Of a call that took different forms, which no cut can patch, one is as good as the other.
        alike = [call if call is not None and call.kind == first.kind else None for call in calls]
        sizes: list[Tensor | list[int] | None] = []
        for index in range(len(first.sizes)):
            by_trace = [None if call is None else call.sizes[index] for call in alike]
            labels = [size if isinstance(size, Tensor) else None for size in by_trace]
            sizes.append(first.sizes[index] if labels.count(None) == len(labels) else self.pair(labels))
        return replace(first, sizes=tuple(sizes))


def _numbered(items: Iterable[tuple[Key, Value]]) -> Iterator[tuple[tuple[Key, int], Value]]:
    """Number the items of each key."""
    counts: dict[Key, int] = {}
    for key, item in items:
        counts[key] = counts.get(key, -1) + 1
        yield (key, counts[key]), item
