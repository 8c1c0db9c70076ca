"""What a trial and its result are called in MLflow: tags, params and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from dms_bench.config.content import digest_of_text
from dms_bench.config.trial import Trial
from dms_bench.tracking import names
from dms_bench.tracking.result import StageCost, TrialResult
from dms_bench.tracking.secrets import redacted, shown

#: MLflow's limits for a param.
_KEY_LENGTH, _VALUE_LENGTH = 250, 6000
#: Characters of a dataset's digest.
_DIGEST = 12
#: Of one value, so that the whole environment fits into a tag (8000).
_ENVIRONMENT_LENGTH = 400


def trial_tags(trial: Trial) -> dict[str, str]:
    """Return what identifies a trial, as the leaderboard groups by it."""
    return {
        names.TRIAL: trial.hash,
        names.EXPERIMENT: trial.experiment,
        names.VERSION: str(trial.version),
        names.TASK: shown(trial.task.label()),
        names.MODEL: shown(trial.supernet.label()),
        names.BUDGET: trial.budget.label(),
        names.BUDGET_ORDER: repr(trial.budget.order()),
        names.METHOD: trial.method.kind,
        names.METHOD_LABEL: trial.method.label(),
        names.USES: _uses(trial),
        names.PIPELINE: trial.course,
        names.SEED: str(trial.seed),
        names.METRIC: trial.task.metric,
        names.HIGHER_IS_BETTER: str(trial.task.higher_is_better).lower(),
        names.UNITS: json.dumps(dict(trial.task.units)),
        names.RESOURCES: trial.resources.model_dump_json(),
    }


def _uses(trial: Trial) -> str:
    """Return what the search uses; empty where the method does not say. DMSp- trains no weights of the supernet."""
    uses = trial.method.uses
    if uses is None:
        return ""
    trains = trial.pipeline != "DMSp-" or trial.method.trained_epochs(1)[1] > 0
    return ", ".join(use for use in uses if use != "training" or trains) or "nothing"


def flat_params(trial: Trial, uri: str = "") -> dict[str, str]:
    """Return the resolved trial as dotted names and values, within MLflow's limits, without secrets (of `uri` also).

    Without `resources`, which may change between attempts of the same trial: MLflow's params may not.
    """
    return dict(_flatten(redacted(trial.model_dump(mode="json", exclude={"resources"}), uri), ""))


def _flatten(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    elif value is not None:
        key = "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)[:_KEY_LENGTH]
        text = value if isinstance(value, str) else json.dumps(value)
        yield key, text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 1] + "…"


def dataset_input(trial: Trial, uri: str = "") -> Any:
    """Return the trial's data as MLflow lists them, without secrets (of `uri` also).

    The digest is of what decides their content as far as it is known before they are read: their settings, and the
    files that the settings name. Where known data lie is no part of it, and how pictures are loaded none either.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    content = {name: digest for name, digest in trial.content.items() if name.startswith("task.")}
    written = redacted(trial.task.model_dump(mode="json"), uri)
    known = trial.task.identity().model_dump(mode="json")
    digest = digest_of_text(json.dumps([known.get("data", known), content], sort_keys=True))
    dataset = Dataset(
        name=shown(trial.task.label()),
        digest=digest[:_DIGEST],
        source_type="external",
        source=json.dumps(written.get("data", written) | ({"content": content} if content else {})),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "train, val, test")])


def environment_tags(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment as one tag, with commit and command where MLflow's own pages show them."""
    short = {key: value[:_ENVIRONMENT_LENGTH] for key, value in environment.items()}
    mlflow_tags = {"mlflow.source.git.commit": "git_commit", "mlflow.source.name": "command"}
    shown = {tag: short[key] for tag, key in mlflow_tags.items() if key in short}
    return {names.ENVIRONMENT: json.dumps(short), **shown}


def result_metrics(result: TrialResult) -> dict[str, float]:
    """Return the numbers of a result by their MLflow names."""
    values: dict[str, float | None] = {
        **{names.measured(name): value for name, value in result.metrics.items()},
        names.measured(result.metric): result.value,
        names.validated(result.metric): result.validation,
        "macs": result.macs,
        "params": result.params,
        "supernet_macs": result.supernet_macs,
        "supernet_params": result.supernet_params,
        "latency_ms": result.latency_ms,
        "supernet_latency_ms": result.supernet_latency_ms,
        "latency_predicted_ms": result.latency_predicted_ms,
        "memory_bytes": result.memory_bytes,
        "latency_error": result.latency_error,
        "latency_r2": result.latency_r2,
        **{names.target(name): value for name, value in result.targets.items()},
        "budget_missed": result.budget_missed,
        **cost_metrics(result.costs),
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def result_tags(result: TrialResult) -> dict[str, str]:
    """Return what of a result is no number: what the cost was paid on, and where latencies were measured."""
    timed = {names.LATENCY_RUNTIME: result.latency_runtime} if result.latency_runtime else {}
    return {**cost_tags(result.costs), **timed}


def cost_metrics(costs: Sequence[StageCost]) -> dict[str, float]:
    """Return the cost of each stage, and what is paid per model and once for all (0 for no such stage)."""
    days: dict[str, float] = dict.fromkeys(("search", "pretrain"), 0.0)
    for cost in costs:
        days[cost.stage] = days.get(cost.stage, 0.0) + cost.device_days
    return {
        "search_device_days": sum(days.get(stage, 0.0) for stage in names.PRIVATE_STAGES),
        "public_device_days": sum(days.get(stage, 0.0) for stage in names.PUBLIC_STAGES),
        **{names.cost_metric(stage): value for stage, value in days.items()},
        **_computed(costs),
    }


def _computed(costs: Sequence[StageCost]) -> dict[str, float]:
    """Return samples, MACs and processor time of each search, and of what is done once for all, where counted."""
    if not costs or any(cost.macs is None for cost in costs):
        return {}
    values = {}
    for name, stages in (("search", names.PRIVATE_STAGES), ("public", names.PUBLIC_STAGES)):
        of_stages = [cost for cost in costs if cost.stage in stages]
        values[f"{name}_samples"] = float(sum(cost.samples or 0 for cost in of_stages))
        values[f"{name}_training_macs"] = sum(cost.macs or 0.0 for cost in of_stages)
        if all(cost.processor_seconds is not None for cost in costs):
            values[f"{name}_processor_seconds"] = sum(cost.processor_seconds or 0.0 for cost in of_stages)
    return values


def cost_tags(costs: Sequence[StageCost]) -> dict[str, str]:
    """Return the devices that the cost was paid on, and the attempts of each stage."""
    return {
        names.DEVICE: " + ".join(dict.fromkeys(cost.device for cost in costs)),
        names.DEVICE_KIND: "+".join(dict.fromkeys(cost.kind for cost in costs)),
        names.COSTS: json.dumps([cost.model_dump() for cost in costs]),
    }
