"""Suites as data: YAML read by Pydantic, resolved into trials with content hashes. No torch here."""

from dms_bench.config.deciding import Arm, Family, families, most_trials
from dms_bench.config.load import load_suite, parse_suite, profile_names
from dms_bench.config.problems import InvalidSpecError, Problem
from dms_bench.config.request import Request, read_request
from dms_bench.config.resolve import grid_points, resolve, resolve_sample, sample_space, sampled, trial_count
from dms_bench.config.schema import suite_schema
from dms_bench.config.selection import Selection, read_selection
from dms_bench.config.suite import Experiment, Suite
from dms_bench.config.sweep import Range, Sampling, Sweep, UntilDecided
from dms_bench.config.trial import Resources, Trial

__all__ = [
    "Arm",
    "Experiment",
    "Family",
    "InvalidSpecError",
    "Problem",
    "Range",
    "Request",
    "Resources",
    "Sampling",
    "Selection",
    "Suite",
    "Sweep",
    "Trial",
    "UntilDecided",
    "families",
    "grid_points",
    "load_suite",
    "most_trials",
    "parse_suite",
    "profile_names",
    "read_request",
    "read_selection",
    "resolve",
    "resolve_sample",
    "sample_space",
    "sampled",
    "suite_schema",
    "trial_count",
]
