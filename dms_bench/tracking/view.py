"""How MLflow's pages show a suite: a view, saved with the experiment, of its results as columns and charts.

Without one they list the runs by name and time alone. A view is a tag of the experiment; its form is that of MLflow's
own pages, where *Save view* writes it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from dms_bench.tracking import names
from dms_bench.tracking.secrets import shown

#: Names the view in addresses.
KEY = "results"
_TAG = f"mlflow.sharedViewState.{KEY}"
#: What identifies a trial, and what it came to beside its measure: MACs, parameters, latency, what its search computed.
_IDENTITY = (names.BUDGET, names.METHOD_LABEL, names.SEED)
_RESULTS = ("macs", "params", "latency_ms", "search_training_macs")
#: The first column, which holds the groups.
_NAME = "attributes.`Run Name`"
#: Pixels of that one and of the identity.
_WIDTHS = (260, 95, 130, 80)


def view_tag(measures: Mapping[str, bool], created: int) -> tuple[str, str]:
    """Return name and value of the tag that saves the view of an experiment.

    Args:
        measures: what its trials are ranked by, and whether more of it is better.
        created: when the experiment was, in milliseconds since 1970.
    """
    values = [names.measured(measure) for measure in measures]
    columns = [
        *(f"tags.`{name}`" for name in _IDENTITY),
        *(f"metrics.`{name}`" for name in (*values, *_RESULTS)),
    ]
    state = {
        "searchFilter": f"tags.`{names.TRIAL}` != ''",
        "orderByKey": f"metrics.`{values[0]}`" if values else "attributes.start_time",
        "orderByAsc": not next(iter(measures.values()), True),
        "selectedColumns": columns,
        # Otherwise metrics stand before tags, by the alphabet.
        "columnOrder": [_NAME, "runDateAndNestInfo", *columns],
        "columnWidths": dict(zip((_NAME, *columns), _WIDTHS, strict=False)),
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": name} for name in _IDENTITY[:2]],
        },
        "compareRunSections": [{"uuid": "results", "name": "Results", "display": True, "isReordered": True}],
        "compareRunCharts": [chart for value in values for chart in _charts(value)],
        "isAccordionReordered": True,
    }
    envelope = {"name": "Results", "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return _TAG, json.dumps(envelope)


def _charts(value: str) -> list[dict[str, Any]]:
    """Return charts of a measure against what the network costs."""
    return [
        {
            "uuid": f"{value}-{cost}",
            "type": "SCATTER",
            "xaxis": {"key": cost, "type": "METRIC"},
            "yaxis": {"key": value, "type": "METRIC"},
            "runsCountToCompare": 100,
            "metricSectionId": "results",
            "deleted": False,
            "isGenerated": False,
        }
        for cost in ("macs", "params", "latency_ms")
    ]


def address(uri: str, experiment_id: str) -> str:
    """Return where the view is seen: on a store's own server, or on the one that `mlflow ui` starts."""
    # The pages open for generative AI unless the address, or a browser's memory, says otherwise.
    path = f"/#/experiments/{experiment_id}/runs?viewStateShareKey={KEY}&workflowType=machine_learning"
    if uri.startswith(("http://", "https://")):
        return shown(uri) + path
    return f"http://127.0.0.1:5000{path} (while `mlflow ui --backend-store-uri {shlex.quote(shown(uri))}` runs)"
