"""Leaderboard, pages and plots. Results are read from MLflow only."""

from dms_bench.report.board import Row, leaderboard
from dms_bench.report.decided import decided_notes
from dms_bench.report.plots import plot_architecture
from dms_bench.report.render import render
from dms_bench.report.show import show

__all__ = ["Row", "decided_notes", "leaderboard", "plot_architecture", "render", "show"]
