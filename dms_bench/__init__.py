"""Differentiable Model Scaling, benchmarked: searches, controls and leaderboards."""

__version__ = "0.1.0"
