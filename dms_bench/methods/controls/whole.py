"""Networks kept whole: the supernet as the ceiling, on smaller pictures, or one that people have designed."""

from __future__ import annotations

from dms_bench.methods.base import SearchContext
from dms_bench.methods.controls.spec import Designed, Longer, Resolution, WholeSupernet
from dms_bench.scaling import Architecture


class KeepSupernet:
    """Keeps every element and every block."""

    def __init__(self, spec: WholeSupernet | Longer | Resolution | Designed) -> None:
        self.spec = spec

    def search(self, context: SearchContext) -> Architecture:
        """Return the whole network as an architecture."""
        return context.space.architecture(context.space.full())
