"""Which share of its workers' time a suite spent in the stages of its trials, as the leaderboard's cost counts them.

dms-bench run benchmarks/quick.yaml
python benchmarks/speed/utilisation.py quick --workers 2

The rest is Ray's start, processes that import and end, artifacts, and workers without a trial at the end. For a suite
that ran in one go: the time is that of its run in MLflow, from before Ray starts to after its last trial.
"""

from __future__ import annotations

import argparse
import json

from dms_bench.tracking import StageCost, connect, names
from dms_bench.tracking.reading import Record, read_trials


def busy(trials: list[Record]) -> float:
    """Return the seconds of all stages; what several trials share counts once."""
    own, shared = 0.0, {}
    for trial in trials:
        for cost in map(StageCost.model_validate, json.loads(trial.tags[names.COSTS])):
            if cost.stage in names.PUBLIC_STAGES:
                shared[(cost.stage, trial.tags[names.EXPERIMENT], trial.seed, cost.seconds)] = cost.seconds
            else:
                own += cost.seconds
    return own + sum(shared.values())


def main() -> None:
    """Print the figures of a suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("--tracking", default="sqlite:///mlflow.db")
    parser.add_argument("--workers", type=int, required=True, help="trials that run at the same time")
    asked = parser.parse_args()
    client = connect(asked.tracking)
    experiment = client.get_experiment_by_name(asked.suite)
    of_suite = f"tags.`{names.STATUS}` = 'finished' and run_name = '{asked.suite}'"
    runs = client.search_runs([experiment.experiment_id], of_suite) if experiment else []
    if len(runs) != 1:
        parser.exit(2, f"error: {len(runs)} finished runs of suite {asked.suite!r}; it has to have run in one go\n")
    wall = (runs[0].info.end_time - runs[0].info.start_time) / 1000
    trials = read_trials(asked.tracking, [asked.suite])
    used = busy(trials)
    print(f"{asked.suite}: {len(trials)} trials, {wall:.0f} s x {asked.workers} workers, {used:.0f} s in stages: "
          f"{used / wall / asked.workers:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
