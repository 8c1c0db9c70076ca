"""Two readings of one forward pass, heads and sizes of heads, put together.

A row of a layer that makes queries belongs to a head and is a feature inside of it: it stays where both do, and
carries the product of both masks. Labels follow one of the two at a time. The network is traced once for each, and as
labels are numbered alike in both traces, so are operators, what they saw is matched here.

Shape legend:
    L: labels
    2: the elements that an index goes with, those of one or two readings; -1: none
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dms_bench.scaling.space.elements import NormSite, View
from dms_bench.scaling.tracing.records import Contraction, Seen, Trace

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Pairs:
    """Turns what one or two traces saw of labels into elements.

    Args:
        traces: of the same forward pass.
        elements: of every label, by trace, [L] each; -1 for what always stays.
    """

    def __init__(self, traces: Sequence[Trace], elements: Sequence[Tensor]) -> None:
        self.traces, self.elements = traces, elements

    def pair(self, labels: Sequence[Tensor | None]) -> Tensor:
        """Return the elements of each index from its labels in each trace, where there are any, [2, size]."""
        size = next(len(own) for own in labels if own is not None)
        rows = [
            torch.full((size,), -1) if own is None else elements[own]
            for own, elements in zip(labels, self.elements, strict=True)
        ]
        return torch.stack([*rows, torch.full((size,), -1)][:2])

    def matched(self, books: Sequence[dict[Key, Tensor]]) -> dict[Key, Tensor]:
        """Return the elements of what each trace has labels for in its book."""
        keys = dict.fromkeys(key for book in books for key in book)
        return {key: self.pair([book.get(key) for book in books]) for key in keys}

    def contractions(self) -> list[tuple[Contraction, dict[int | str, Tensor]]]:
        """Return every contraction with the elements along its factors."""
        books = [dict(_numbered((one.at, one) for one in trace.contractions)) for trace in self.traces]
        first = {key: one for book in reversed(books) for key, one in book.items()}
        return [
            (one, self.matched([book[key].factors if key in book else {} for book in books]))
            for key, one in first.items()
        ]

    def norms(self) -> tuple[NormSite, ...]:
        """Return the norms whose statistics run over elements."""
        books = [
            dict(_numbered(((norm.at, norm.module, norm.dim, norm.kind), norm.labels) for norm in trace.norms))
            for trace in self.traces
        ]
        sites = [NormSite(module, dim, own, kind) for ((_, module, dim, kind), _), own in self.matched(books).items()]
        return tuple(site for site in sites if bool((site.elements >= 0).any()))

    def seen(self, books: Sequence[dict[str, list[Seen]]]) -> dict[str, list[tuple[int, Tensor]]]:
        """Return, by module, the sizes that concern elements, with those."""
        flat = [
            dict(_numbered(((module, *one.at), one.labels) for module, seen in book.items() for one in seen))
            for book in books
        ]
        result: dict[str, list[tuple[int, Tensor]]] = {}
        for ((module, *_), _), own in self.matched(flat).items():
            if bool((own >= 0).any()):
                result.setdefault(module, []).append((own.size(1), own))
        return result

    def views(self) -> dict[str, list[View]]:
        """Return, by module, the calls that hold sizes."""
        books = [
            {(module, view.call): view for module, views in trace.views.items() for view in views}
            for trace in self.traces
        ]
        result: dict[str, list[View]] = {}
        for key in dict.fromkeys(key for book in books for key in book):
            result.setdefault(key[0], []).append(self._view([book.get(key) for book in books]))
        return result

    def _view(self, views: Sequence[View | None]) -> View:
        shown = next(view for view in views if view is not None)
        # Of a call that took different forms, which no cut can mend, one is as good as the other.
        same = [view if view is not None and view.kind == shown.kind else None for view in views]
        sizes: list[Tensor | list[int] | None] = []
        for place in range(len(shown.sizes)):
            own = [None if view is None else view.sizes[place] for view in same]
            labels = [size if isinstance(size, Tensor) else None for size in own]
            sizes.append(shown.sizes[place] if labels.count(None) == len(labels) else self.pair(labels))
        return View(shown.call, shown.kind, shown.rank, shown.dim, tuple(sizes))


def _numbered(items: Iterable[tuple[Key, Value]]) -> Iterator[tuple[tuple[Key, int], Value]]:
    """Number the items of each key."""
    counts: dict[Key, int] = {}
    for key, item in items:
        counts[key] = counts.get(key, -1) + 1
        yield (key, counts[key]), item
