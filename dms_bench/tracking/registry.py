"""The best network of each budget under a name of its own in MLflow's registry: `models:/NAME@best`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from dms_bench.tracking import names
from dms_bench.tracking.reading import Record, read_trials
from dms_bench.tracking.store import connect, reason

BEST = "best"
_VERSIONS = "mlflow.modelVersions"
#: How far over its budget a network may be: as far as a leaderboard takes it for met.
_TOLERANCE = 1.01
#: Constraint of a budget -> metrics of what the network costs, of which the first that is there counts.
_COSTS = {
    "macs": ("macs",),
    "params": ("params",),
    "latency": ("latency_predicted_ms", "latency_ms"),
    "memory": ("memory_bytes",),
}


def register_best(uri: str, suite: str) -> list[str]:
    """Give the best network of each experiment and budget of a suite the alias `best`; return what is to be said.

    Best is the one with the best measure on the validation split, among those that meet their budget. The test split
    has no part in it. Nothing is done for those that are registered already.

    Args:
        uri: tracking URI.
        suite: the suite's name.

    Raises:
        UserError: the store does not answer.
    """
    client = connect(uri)
    trials = read_trials(uri, [suite])
    said = _without_model(trials)
    for name, records in _groups(trials).items():
        best = _best(records)
        try:
            said.append(_register(client, name, best, len(records)))
        except Exception as error:  # a store without a registry, or one that refuses
            return [*said, f"no model is registered: {reason(error, uri)}"]
    return [line for line in said if line]


def _without_model(records: Iterable[Record]) -> list[str]:
    reasons = [record.tags[names.NO_MODEL] for record in records if names.NO_MODEL in record.tags]
    if not reasons:
        return []
    several = "1 network is" if len(reasons) == 1 else f"{len(reasons)} networks are"
    return [f"{several} no model in MLflow: {reasons[0]}"]


def _groups(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the trials that compete, by the name of their registered model."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record.status == names.FINISHED and record.validation is not None and _meets_budget(record):
            tags = record.tags
            key = (record.edition, tags[names.EXPERIMENT], tags[names.TASK], tags[names.MODEL], tags[names.BUDGET])
            groups[key].append(record)
    networks: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for suite, experiment, task, model, _ in groups:
        networks[suite, experiment].add((task, model))
    found = {}
    for (suite, experiment, task, model, budget), members in groups.items():
        several = (task, model) if len(networks[suite, experiment]) > 1 else ()
        found[".".join(map(_plain, (suite, experiment, *several, budget)))] = members
    return found


def _meets_budget(record: Record) -> bool:
    """Tell whether a network was made for a budget and is within it; the whole supernet was not."""
    metrics = record.metrics
    if all(metrics.get(cost) == metrics.get(f"supernet_{cost}") for cost in ("macs", "params")):
        return False
    targets = {kind: metrics[names.target(kind)] for kind in _COSTS if names.target(kind) in metrics}
    return bool(targets) and all(_cost(metrics, kind) <= _TOLERANCE * target for kind, target in targets.items())


def _cost(metrics: Mapping[str, float], kind: str) -> float:
    return next((metrics[name] for name in _COSTS[kind] if name in metrics), float("inf"))


def _best(records: list[Record]) -> Record:
    sign = 1 if records[0].tags[names.HIGHER_IS_BETTER] == "true" else -1
    return max(records, key=lambda record: (sign * (record.validation or 0.0), record.hash))


def _plain(text: str) -> str:
    """Return a part of a name that needs no quotes in a shell or an address."""
    return re.sub(r"[^\w.-]+", "-", text.replace("%", "pct")).strip("-")


def _register(client: Any, name: str, best: Record, among: int) -> str:
    from mlflow.exceptions import MlflowException

    model_id = best.tags.get(names.LOGGED_MODEL)
    try:
        registered = client.get_registered_model(name)
    except MlflowException:  # there is none yet
        registered = None
    version = registered.aliases.get(BEST) if registered is not None else None
    if model_id is None:
        if version is not None:
            client.delete_registered_model_alias(name, BEST)
        why = best.tags.get(names.NO_MODEL, "it was not logged")
        return f"models:/{name}@{BEST} would be {best.name}, which is no model in MLflow: {why}"
    if version is not None and client.get_model_version(name, str(version)).tags.get(names.LOGGED_MODEL) == model_id:
        return ""
    if registered is None:
        client.create_registered_model(name, description=_about(best))
    model = client.get_logged_model(model_id)
    value = f"{best.tags[names.METRIC]} {best.validation:.6g} on the validation split, the best of {among}"
    made = client.create_model_version(
        name,
        # Not `models:/ID`, which MLflow looks for in whatever store is the process's own.
        source=model.artifact_location,
        run_id=best.run_id,
        tags={names.TRIAL: best.hash, names.LOGGED_MODEL: model_id},
        description=f"`{best.name}`: {value}",
        model_id=model_id,
    )
    client.set_registered_model_alias(name, BEST, made.version)
    # As MLflow's own `register_model` has it: the page of the model names its versions.
    versions = [*json.loads(model.tags.get(_VERSIONS, "[]")), {"name": name, "version": made.version}]
    client.set_logged_model_tags(model_id, {_VERSIONS: json.dumps(versions)})
    return f"models:/{name}@{BEST} is {best.name}: {value}"


def _about(record: Record) -> str:
    tags = record.tags
    return (
        f"`{tags[names.MODEL]}` cut to {tags[names.BUDGET]}, for {tags[names.TASK]} (suite {record.edition}, "
        f"experiment {tags[names.EXPERIMENT]}). `@{BEST}` is the network with the best {tags[names.METRIC]} on the "
        "validation split among those within the budget."
    )
