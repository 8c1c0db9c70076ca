"""Trials as rows of a table that other stores take up: all of a run but its curves and its files.

A column is an identity (`trial`, `seed`, `method_label`, ...: tags of the run), `environment/NAME`, `param/NAME` or
`metric/NAME`; cells without a value are empty. Identities and parameters are text, metrics numbers.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dms_bench.errors import UserError, nearest
from dms_bench.tracking import names
from dms_bench.tracking.reading import Record

Row = dict[str, str | float]

#: Of every row; the first ones of a file.
IDENTITIES = (
    *("suite", "version", "experiment", "trial", "name", "start", "status", "seed", "task", "model", "pipeline"),
    *("budget", "budget_order", "method", "method_label", "uses", "metric", "higher_is_better", "units"),
    *("device", "device_kind", "costs", "resources", "error"),
)
#: What may be missing from a row: an older store has no such tag, or the trial did not get so far.
_OPTIONAL = ("version", "uses", "units", "device", "device_kind", "costs", "resources", "error", "name", "start")
_ENVIRONMENT, _PARAM, _METRIC = "environment/", "param/", "metric/"
_OURS = "dms."


def row_of(record: Record) -> Row:
    """Return what a record says, by column."""
    row: Row = {"suite": record.suite, "name": record.name, "start": _written(record.start)}
    for tag, text in record.tags.items():
        if tag.startswith(_OURS) and tag not in (names.ENVIRONMENT, names.SUITE):
            row[tag.removeprefix(_OURS)] = text
    row |= {_ENVIRONMENT + name: text for name, text in record.environment.items()}
    row |= {_PARAM + name: text for name, text in record.params.items()}
    return row | {_METRIC + name: value for name, value in record.metrics.items()}


def record_of(row: Row, place: str) -> Record:
    """Return the record that a row describes, of a run that does not exist yet.

    Args:
        row: its cells; empty ones left out.
        place: of the row, for messages.

    Raises:
        UserError: an identity is missing, or no such thing; a metric is no number.
    """
    missing = [name for name in IDENTITIES if name not in row and name not in _OPTIONAL]
    if missing:
        raise UserError(f"{place}: no {missing[0]!r}")
    tags, params, metrics, environment = {}, {}, {}, {}
    for column, cell in row.items():
        kind, _, name = column.partition("/")
        if column in IDENTITIES:
            tags[_OURS + column] = str(cell)
        elif f"{kind}/" == _ENVIRONMENT:
            environment[name] = str(cell)
        elif f"{kind}/" == _PARAM:
            params[name] = str(cell)
        elif f"{kind}/" == _METRIC:
            metrics[name] = _number(cell, f"{place}, {column}")
        else:
            known = (*IDENTITIES, *(f"{prefix}NAME" for prefix in (_ENVIRONMENT, _PARAM, _METRIC)))
            raise UserError(f"{place}: no column is called {column!r}; {nearest(column, known)}")
    if environment:
        tags[names.ENVIRONMENT] = json.dumps(environment)
    for name in ("name", "start", "suite"):
        tags.pop(_OURS + name, None)
    record = Record(
        "", str(row.get("name", row["trial"])), str(row["suite"]), _start(row, place), "", tags, params, metrics
    )
    _check(record, place)
    return record


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV or Parquet, as the file's name ends.

    Raises:
        UserError: it ends otherwise, or cannot be written.
    """
    found = {column for row in rows for column in row}
    columns = [*(name for name in IDENTITIES if name in found), *sorted(found - set(IDENTITIES))]
    try:
        if _format(path) == ".parquet":
            import pyarrow
            from pyarrow import parquet

            table = {
                column: pyarrow.array(
                    [row.get(column) for row in rows],
                    pyarrow.float64() if column.startswith(_METRIC) else pyarrow.string(),
                )
                for column in columns
            }
            parquet.write_table(pyarrow.table(table), path)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {column: repr(cell) if isinstance(cell, float) else cell for column, cell in row.items()} for row in rows
        )
        path.write_text(text.getvalue())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a CSV or Parquet file, without their empty cells.

    Raises:
        UserError: the file cannot be read, or is no such table.
    """
    try:
        if _format(path) == ".parquet":
            from pyarrow import ArrowException, parquet

            try:
                table: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
            except ArrowException as error:
                raise UserError(f"{path}: no Parquet file: {' '.join(str(error).split())[:200]}") from None
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, strict=True)
                table = list(reader)
                if any(None in row or None in row.values() for row in table):
                    raise UserError(f"{path}: a row has more or fewer cells than the head has columns")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no CSV file: {error}") from None
    return [{column: cell for column, cell in row.items() if cell is not None and cell != ""} for row in table]


def records_in(path: Path) -> list[Record]:
    """Read the trials of a file.

    Raises:
        UserError: it cannot be read, or one of its rows is no trial's; with a line for each, but no more than ten.
    """
    # In CSV the first row stands in line 2, and a Parquet file counts as if it had a head.
    rows, records, problems = read_rows(path), [], []
    for number, row in enumerate(rows, 2):
        try:
            records.append(record_of(row, f"{path}, row {number}"))
        except UserError as error:
            problems.append(str(error))
    if problems:
        more = len(problems) - 10
        raise UserError("\n".join(problems[:10]) + (f"\n{path}: {more} more rows are no trials" if more > 0 else ""))
    if not records:
        raise UserError(f"{path}: no trials in it")
    return records


def _check(record: Record, place: str) -> None:
    tags = record.tags
    if record.status not in names.MLFLOW_STATUS or record.status == names.RUNNING:
        raise UserError(f"{place}: status {record.status!r} is none of finished, failed, stopped")
    if not tags[names.SEED].isdecimal():
        raise UserError(f"{place}: seed {tags[names.SEED]!r} is no whole number")
    if tags[names.HIGHER_IS_BETTER] not in ("true", "false"):
        raise UserError(f"{place}: higher_is_better {tags[names.HIGHER_IS_BETTER]!r} is neither true nor false")
    if record.status == names.FINISHED and (record.value is None or not math.isfinite(record.value)):
        raise UserError(f"{place}: finished, without a number in {_METRIC}{names.measured(tags[names.METRIC])}")
    _number(tags[names.BUDGET_ORDER], f"{place}, budget_order")
    for name in (names.UNITS, names.COSTS, names.RESOURCES):
        try:
            json.loads(tags.get(name, "{}"))
        except ValueError:
            raise UserError(f"{place}: {name.removeprefix(_OURS)} is no JSON") from None


def _number(cell: str | float, place: str) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise UserError(f"{place}: {str(cell)[:50]!r} is no number") from None


def _format(path: Path) -> str:
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"{path}: results are read and written as .csv or .parquet")
    return path.suffix


def _written(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _start(row: Row, place: str) -> int:
    text = str(row.get("start", "1970-01-01T00:00:00+00:00"))
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UserError(f"{place}: start {text[:50]!r} is no time such as 2026-11-28T21:00:00+00:00") from None
