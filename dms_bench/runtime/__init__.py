"""From a suite to results: Ray Tune over trials, stages within a trial, checkpoints, costs.

Importing this package imports neither torch nor Ray; running something does.
"""

from dms_bench.runtime.run import run_suite

__all__ = ["run_suite"]
