"""Differentiable model scaling in plain PyTorch; usable alone, in anybody's training loop.

`docs/pages/glossary.md` shows the words used here on one small network.
"""

from dms_bench.scaling.architecture import Architecture
from dms_bench.scaling.budget import Budget, Constraint, budget_of
from dms_bench.scaling.cost.counter import Count, count
from dms_bench.scaling.cut.initialise import reinitialise
from dms_bench.scaling.cut.surgery import Surgery, apply_structure, cut, plan_surgery
from dms_bench.scaling.example import Example
from dms_bench.scaling.find import find_space
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.latency.model import LatencyModel, measure_latency
from dms_bench.scaling.schedule import Schedule, falling_target
from dms_bench.scaling.space.coarse import Coarse, CoarseError
from dms_bench.scaling.space.space import SearchSpace
from dms_bench.scaling.structure.importance import weight_norms
from dms_bench.scaling.structure.relaxation import Relaxation, TopK
from dms_bench.scaling.supernet import Supernet

__all__ = [
    "Architecture",
    "Budget",
    "Coarse",
    "CoarseError",
    "Constraint",
    "Count",
    "Example",
    "LatencyModel",
    "Relaxation",
    "Schedule",
    "SearchSpace",
    "Supernet",
    "Surgery",
    "TopK",
    "apply_structure",
    "budget_of",
    "count",
    "cut",
    "falling_target",
    "find_space",
    "fit_to_budget",
    "measure_latency",
    "plan_surgery",
    "reinitialise",
    "weight_norms",
]
