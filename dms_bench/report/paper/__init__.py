"""A paper's tables and figures beside our own trials."""

from dms_bench.report.paper.compare import Comparison, ComparisonLine, compare
from dms_bench.report.paper.write import render_comparisons

__all__ = ["Comparison", "ComparisonLine", "compare", "render_comparisons"]
