"""What a paper published, as data: figures, sources, which of our trials answer them, how the claim is judged."""

from dms_bench.config.published.paper import Figure, Paper, Published, ScatterFigure, WidthsFigure, load_published
from dms_bench.config.published.rows import Figures, Measure, PublishedRow, Selector, Tolerance
from dms_bench.config.published.rules import Better, Cheaper, Equal, Misses, Reaches, Rule
from dms_bench.config.published.tables import PublishedTable

__all__ = [
    "Better",
    "Cheaper",
    "Equal",
    "Figure",
    "Figures",
    "Measure",
    "Misses",
    "Paper",
    "Published",
    "PublishedRow",
    "PublishedTable",
    "Reaches",
    "Rule",
    "ScatterFigure",
    "Selector",
    "Tolerance",
    "WidthsFigure",
    "load_published",
]
