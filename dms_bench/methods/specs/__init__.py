"""Specifications of the built-in search methods, a module per family. Torch-free: reading a suite never imports it."""

from dms_bench.methods.specs.controls import Designed, Random, Supernet, Uniform
from dms_bench.methods.specs.gradient import Dms, Get, GradientSpec, Mes, Sns, StructureOptimizer

__all__ = [
    "Designed",
    "Dms",
    "Get",
    "GradientSpec",
    "Mes",
    "Random",
    "Sns",
    "StructureOptimizer",
    "Supernet",
    "Uniform",
]
