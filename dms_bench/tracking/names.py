"""The tags and metrics of a run, shared by those who write them and the report that reads them."""

from __future__ import annotations

import re

#: Prefix of everything that dms_bench tags; a run with the tag `TRIAL` is a trial's.
TRIAL = "dms.trial"
#: The hash by which a version before knew it.
FORMER = "dms.trial_before"
SUITE = "dms.suite"
#: Of the suite; runs from before there were others have none, which is the first.
VERSION = "dms.version"
EXPERIMENT = "dms.experiment"
TASK = "dms.task"
MODEL = "dms.model"
BUDGET = "dms.budget"
#: A number by which budgets are ordered.
BUDGET_ORDER = "dms.budget_order"
METHOD = "dms.method"
METHOD_LABEL = "dms.method_label"
#: What the method's search uses, comma-separated: weights, data, gradients, training, validation.
USES = "dms.uses"
#: With the repair, where there is one.
PIPELINE = "dms.pipeline"
SEED = "dms.seed"
METRIC = "dms.metric"
HIGHER_IS_BETTER = "dms.higher_is_better"
#: Unit and digits of the task's measures, as JSON; of runs from before tasks said it, `KNOWN_UNITS` does.
UNITS = "dms.units"
KNOWN_UNITS = dict.fromkeys(("top1", "top5", "map50_95", "map50"), ("%", 1))
STATUS = "dms.status"
ERROR = "dms.error"
DEVICE = "dms.device"
DEVICE_KIND = "dms.device_kind"
#: The cost of each stage in full, as JSON.
COSTS = "dms.costs"
#: The runtime that latencies were measured in, where it is not PyTorch.
LATENCY_RUNTIME = "dms.latency_runtime"
RESOURCES = "dms.resources"
#: Id of the trial's network among MLflow's models, or why it is not there.
LOGGED_MODEL, NO_MODEL = "dms.logged_model", "dms.no_model"
#: Beginning of the tags of a parent run that say what its comparisons came to, as JSON in parts.
DECIDED = "dms.decided"
#: What `environment()` found, as JSON: one tag, as reading a store costs time for every tag of every run.
ENVIRONMENT = "dms.environment"
#: Its entry with the hash of the files that the supernet's weights came from, where they came from files.
WEIGHTS = "weights"

#: Fields of trials, as params name them, that say where data lie and who loads them: no settings of an experiment.
PLACES = tuple(f"task.data.{field}" for field in ("root", "called", "workers", "download"))

#: MLflow's own tag that makes a run a child of another.
PARENT_RUN = "mlflow.parentRunId"
#: MLflow's own tag whose Markdown its pages show above everything else.
NOTE = "mlflow.note.content"

RUNNING, FINISHED, FAILED, STOPPED = "running", "finished", "failed", "stopped"
#: How each status reads as MLflow's own.
MLFLOW_STATUS = {RUNNING: "RUNNING", FINISHED: "FINISHED", FAILED: "FAILED", STOPPED: "KILLED"}

#: Stages that every searched model pays for itself, and that are paid once for all (public cost, in the paper).
PRIVATE_STAGES, PUBLIC_STAGES = ("search",), ("pretrain", "predictor")


def measured(name: str) -> str:
    """Name of a measure taken on the test split, at the end."""
    return f"test/{name}"


def validated(name: str) -> str:
    """Name of a measure of the final network on the validation split."""
    return f"val/{name}"


def searched(name: str) -> str:
    """Name of a measure of the network that a search left, under its masks, on the validation split."""
    return f"search/val_{name}"


def target(constraint: str) -> str:
    """Name of the absolute target of `macs`, `params`, `latency` (milliseconds) or `memory` (bytes)."""
    return f"target_{constraint}"


def cost_metric(stage: str) -> str:
    """Name of the cost of a stage, in devices x days."""
    return f"cost/{stage}_device_days"


def plain(name: str) -> str:
    """Name that MLflow takes for a metric: what it refuses, such as the prime of a second group, becomes `_`."""
    return re.sub(r"[^\w .:/-]", "_", name, flags=re.ASCII)
