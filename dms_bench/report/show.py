"""One trial's record, as MLflow holds it."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dms_bench.errors import UserError, nearest
from dms_bench.report import format as fmt
from dms_bench.report.records import Record, read_records
from dms_bench.tracking import connect, names, shown

_SHORTEST = 4
#: What the targets of budgets count, where that is not their kind.
_UNITS = {"memory": "bytes of memory"}
_log = logging.getLogger(__name__)


def show(uri: str, name_or_hash: str, suite: str | None = None) -> RenderableType:
    """Return a trial's identity, result, cost per stage, specification and artifacts (or its error).

    Args:
        uri: tracking URI.
        name_or_hash: the trial's name or hash, or the beginning of one.
        suite: look among the trials of this suite only.

    Raises:
        UserError: no such store or trial, or several trials begin like that.
    """
    record = find(read_records(uri, suite), name_or_hash)
    parts: list[RenderableType] = [_identity(record)]
    if record.tags.get(names.ERROR):
        parts.append(Text(f"{record.status}: {record.tags[names.ERROR]}", style="red"))
    if record.status == names.FINISHED:
        parts.append(_result(record))
    if names.COSTS in record.tags:
        parts.append(_costs(record))
    parts += [_curves(record), _table("specification", record.params)]
    parts.append(_artifacts(connect(uri), record))
    return Group(*[piece for part in parts for piece in (part, Text())])


def find(records: list[Record], name_or_hash: str) -> Record:
    """Return the trial with this name or hash, or the only one whose name or hash begins like this.

    Raises:
        UserError: none, or several.
    """
    exact = [record for record in records if name_or_hash in (record.name, record.hash)]
    begins = [record for record in records if any(text.startswith(name_or_hash) for text in (record.hash, record.name))]
    matches = exact or (begins if len(name_or_hash) >= _SHORTEST else [])
    if not matches:
        raise UserError(f"no trial {name_or_hash!r}; {nearest(name_or_hash, [record.name for record in records])}")
    if len(matches) > 1:
        several = ", ".join(f"{record.name} (suite {record.suite})" for record in matches[:5])
        raise UserError(f"{name_or_hash!r} is not one trial but {len(matches)}: {several}")
    return matches[0]


def _identity(record: Record) -> Table:
    tags = record.tags
    entries = {
        "suite": record.suite,
        "hash": record.hash,
        "status": record.status,
        "task": tags[names.TASK],
        "model": tags[names.MODEL],
        "method": tags.get(names.METHOD_LABEL, tags[names.METHOD]),
        "pipeline": tags[names.PIPELINE],
        "budget": tags[names.BUDGET],
        "seed": tags[names.SEED],
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.start / 1000)),
        "run": record.run_id,
        **dict(sorted(record.environment.items())),
    }
    return _table(record.name, entries)


def _result(record: Record) -> Table:
    metrics = record.metrics
    entries = {
        fmt.heading(measure, record.unit(measure).symbol): fmt.measure(value, None, record.unit(measure).decimals)
        for name, value in sorted(metrics.items())
        if (measure := name.removeprefix("test/")) != name
    }
    if record.validation is not None:
        metric = record.tags[names.METRIC]
        unit = record.unit(metric)
        text = fmt.measure(record.validation, None, unit.decimals)
        entries[f"{fmt.heading(metric, unit.symbol)}, validation"] = text
    for name in ("macs", "params"):
        if name in metrics and f"supernet_{name}" in metrics:
            share = metrics[name] / metrics[f"supernet_{name}"]
            entries[name] = f"{fmt.count(metrics[name])} of {fmt.count(metrics[f'supernet_{name}'])} ({share:.1%})"
    if "latency_ms" in metrics:
        runtime = record.tags.get(names.LATENCY_RUNTIME)
        entries["latency"] = (
            f"{fmt.milliseconds(metrics['latency_ms'])}, supernet "
            f"{fmt.milliseconds(metrics.get('supernet_latency_ms'))}"
        ) + (f", in {runtime}" if runtime else "")
    if "latency_predicted_ms" in metrics:
        error = f"median error {metrics['latency_error']:.1%} on other networks"
        entries["latency predicted"] = f"{fmt.milliseconds(metrics['latency_predicted_ms'])}, {error}"
    if "memory_bytes" in metrics:
        entries["memory"] = f"{fmt.count(metrics['memory_bytes'])}B of weights and cache"
    targets = [
        f"{fmt.milliseconds(metrics[name]) if kind == 'latency' else fmt.count(metrics[name])} {_UNITS.get(kind, kind)}"
        for kind in ("macs", "params", "latency", "memory")
        if (name := names.target(kind)) in metrics
    ]
    if targets:
        most = "10 % as measured" if names.LATENCY_RUNTIME in record.tags else "1 %"
        missed = f", missed by more than {most}" if metrics.get("budget_missed") else ""
        entries["budget"] = " + ".join(targets) + missed
    return _table("result", entries)


def _costs(record: Record) -> Table:
    table = Table(title="cost", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("stage", "cost", "wall time", "devices", "device", "attempts"):
        table.add_column(column)
    for cost in json.loads(record.tags[names.COSTS]):
        days = cost["devices"] * cost["seconds"] / 86400
        devices, attempts = f"{cost['devices']:g}", str(cost["attempts"])
        spent = fmt.cost(days, cost["kind"])
        table.add_row(cost["stage"], spent, f"{cost['seconds']:.1f} s", devices, cost["device"], attempts)
    return table


def _curves(record: Record) -> Table:
    """Return the last value of everything that was logged per epoch."""
    reserved = ("test/", "val/", "cost/")
    last = {
        name: fmt.three_digits(value)
        for name, value in sorted(record.metrics.items())
        if "/" in name and not name.startswith(reserved)
    }
    return _table("last epoch of each stage", last)


def _artifacts(client: Any, record: Record) -> Text:
    try:
        files = [f"{item.path} ({item.file_size or 0} bytes)" for item in client.list_artifacts(record.run_id)]
    except (
        Exception
    ) as error:  # the store of artifacts is another one than that of runs; the rest is still worth showing
        _log.debug("artifacts of %s", record.run_id, exc_info=error)
        files = ["cannot be listed"]
    return Text(f"artifacts in {shown(record.artifacts)}: {', '.join(files) or 'none'}")


def _table(title: str, entries: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in sorted(entries.items()) if title == "specification" else entries.items():
        table.add_row(Text(name), Text(value))
    return table
