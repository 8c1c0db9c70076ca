"""Kernels of PyTorch that compute wrong on some machines: how this project keeps away from them."""

from dms_bench.kernels.guard import guard

__all__ = ["guard"]
