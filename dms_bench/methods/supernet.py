"""The ceiling: the supernet itself, whatever the budget."""

from __future__ import annotations

from dms_bench.methods.base import SearchContext
from dms_bench.methods.specs import Supernet
from dms_bench.scaling import Architecture


class KeepSupernet:
    """Keeps every element and every block."""

    def __init__(self, spec: Supernet) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the whole supernet as an architecture."""
        return context.space.architecture(context.space.full())
