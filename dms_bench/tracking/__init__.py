"""What is written to MLflow: a parent run per suite invocation, a run per trial.

Importing this package does not import MLflow; the functions do.
"""

from dms_bench.tracking.decided import DecidedFamily, DecidedPair, read_decided, write_decided
from dms_bench.tracking.environment import environment
from dms_bench.tracking.find_run import Remembered
from dms_bench.tracking.logged_model import Ends
from dms_bench.tracking.reading import values_of
from dms_bench.tracking.registry import register_best
from dms_bench.tracking.result import StageCost, TrialResult
from dms_bench.tracking.secrets import redact, shown
from dms_bench.tracking.store import check, connect, resolve_uri
from dms_bench.tracking.suite_run import SuiteRun, finished, forget, open_suite, rename, statuses
from dms_bench.tracking.system_metrics import system_metrics
from dms_bench.tracking.trial_run import TrackingLost, TrialRun

__all__ = [
    "DecidedFamily",
    "DecidedPair",
    "Ends",
    "Remembered",
    "StageCost",
    "SuiteRun",
    "TrackingLost",
    "TrialResult",
    "TrialRun",
    "check",
    "connect",
    "environment",
    "finished",
    "forget",
    "open_suite",
    "read_decided",
    "redact",
    "register_best",
    "rename",
    "resolve_uri",
    "shown",
    "statuses",
    "system_metrics",
    "values_of",
    "write_decided",
]
