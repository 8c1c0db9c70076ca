"""Trials as a file: nothing of a run is lost on the way to another store, and nothing wrong gets into it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dms_bench.cli import _main, app
from dms_bench.errors import UserError
from dms_bench.report import leaderboard
from dms_bench.tracking import names
from dms_bench.tracking.importing import take_up
from dms_bench.tracking.reading import Record, read_trials
from dms_bench.tracking.rows import read_rows, record_of, records_in, row_of, write_rows
from dms_bench.tracking.suite_run import finished

ENVIRONMENT = '{"git_commit": "abc", "torch": "2.9"}'


def record(seed: int = 0, value: float = 0.1 + 0.2, method: str = "dms", **tags: str) -> Record:
    return Record(
        "run", f"e-{method}-s{seed}", "s", 1_700_000_000_123, "",
        {
            names.TRIAL: f"{method}{seed}", names.EXPERIMENT: "e", names.TASK: 'glyphs, "of" 12',
            names.MODEL: "resnet18", names.BUDGET: "macs 30%",
            names.BUDGET_ORDER: "0.3", names.METHOD: method, names.METHOD_LABEL: method,
            names.USES: "weights", names.PIPELINE: "DMSp", names.SEED: str(seed), names.METRIC: "top1",
            names.HIGHER_IS_BETTER: "true", names.UNITS: '{"top1": ["%", 1]}', names.RESOURCES: "{}",
            names.STATUS: "finished", names.ENVIRONMENT: ENVIRONMENT, names.COSTS: "[]", names.DEVICE: "CPU",
            names.DEVICE_KIND: "cpu", names.VERSION: "1", **tags,
        },
        {"method.kind": method, "search.lr": "0.1", "task.data.name": "a\nb"},
        {"test/top1": value, "val/top1": 1e-17, "macs": 123456789.0, "search_device_days": 1 / 3},
    )  # fmt: skip


def like(one: Record, other: Record) -> bool:
    ignored = {names.SUITE, names.PARENT_RUN}
    tags = [{k: v for k, v in r.tags.items() if k not in ignored and k.startswith("dms.")} for r in (one, other)]
    return (one.name, one.suite, one.start, one.params, one.metrics) == (
        other.name,
        other.suite,
        other.start,
        other.params,
        other.metrics,
    ) and tags[0] == tags[1]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_trial_comes_back_from_a_file_as_it_was(tmp_path: Path, ending: str) -> None:
    sent = [record(seed) for seed in range(3)]
    sent.append(record(3, **{names.STATUS: "failed", names.ERROR: "its process died"}))
    write_rows([row_of(each) for each in sent], tmp_path / f"rows.{ending}")
    came = records_in(tmp_path / f"rows.{ending}")
    assert all(like(a, b) for a, b in zip(sent, came, strict=True))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_board_of_two_machines(tmp_path: Path, ending: str) -> None:
    here, there = (f"sqlite:///{tmp_path / name}.db" for name in ("here", "there"))
    take_up(here, [record(0, 80.0), record(0, 70.0, "random")], "x")
    take_up(there, [record(1, 82.0), record(1, 71.0, "random")], "x")
    file = str(tmp_path / f"there.{ending}")
    assert _main(["results", "export", file, "--tracking", there]) == 0
    shown = CliRunner().invoke(app, ["results", "import", file, "--tracking", here]).output
    assert "suite s: 2 trials taken up" in shown
    rows = {row.method: row for row in leaderboard(here)}
    assert (rows["dms"].n, rows["dms"].mean) == (2, 81.0)
    assert rows["dms"].delta_random == pytest.approx(10.5)
    assert set(finished(here, "s")) == {"dms0", "dms1", "random0", "random1"}
    assert all(like(a, b) for a, b in zip(
        sorted(read_trials(here, ["s"]), key=lambda r: r.hash),
        [record(0, 80.0), record(1, 82.0), record(0, 70.0, "random"), record(1, 71.0, "random")],
        strict=True,
    ))  # fmt: skip


def test_what_a_store_has_stays(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'a.db'}"
    failed = record(1, **{names.STATUS: "failed", names.ERROR: "e"})
    take_up(uri, [record(0, 80.0), failed], "x")
    done = take_up(uri, [record(0, 80.0), record(0, 81.0), record(1, 90.0), record(1, 90.0)], "y")
    assert (done.taken, done.known, done.differing) == ({"s": 1}, 2, ("e-dms-s0",))
    assert {(row.n, row.mean) for row in leaderboard(uri)} == {(2, 85.0)}
    again = take_up(uri, [failed], "z")
    assert again.taken == {}
    assert finished(uri, "s") == {"dms0": "finished", "dms1": "finished"}


def test_what_is_not_finished_is_left_out_and_counted(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'a.db'}"
    take_up(uri, [record(0)], "x")
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("s").experiment_id
    client.create_run(experiment, tags=record(1).tags | {names.STATUS: "running", names.SUITE: "s"})
    shown = CliRunner().invoke(app, ["results", "export", str(tmp_path / "a.csv"), "--tracking", uri]).output
    assert "1 trials; 1 not finished are left out" in " ".join(shown.split())
    assert len(read_rows(tmp_path / "a.csv")) == 1


def changed(tmp_path: Path, **cells: Any) -> Path:
    row = row_of(record()) | cells
    path = tmp_path / "changed.csv"
    write_rows([{column: cell for column, cell in row.items() if cell is not None}], path)
    return path


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"seed": None}, "row 2: no 'seed'"),
        ({"seed": "-1"}, "seed '-1' is no whole number"),
        ({"status": "running"}, "status 'running' is none of finished, failed, stopped"),
        ({"metric/test/top1": "high"}, "metric/test/top1: 'high' is no number"),
        ({"metric/test/top1": "nan"}, "finished, without a number in metric/test/top1"),
        ({"metric/test/top1": None}, "finished, without a number in metric/test/top1"),
        ({"methd": "x"}, "no column is called 'methd'; did you mean 'method' or"),
        ({"start": "yesterday"}, "start 'yesterday' is no time"),
        ({"budget_order": "low"}, "budget_order: 'low' is no number"),
        ({"costs": "["}, "costs is no JSON"),
        ({"higher_is_better": "yes"}, "is neither true nor false"),
    ],
)
def test_a_row_that_is_no_trial_is_named(tmp_path: Path, cells: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        records_in(changed(tmp_path, **cells))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", ".csv or .parquet"),
        ("a.csv", b"", "no trials in it"),
        ("a.csv", b"suite,trial\n", "no trials in it"),
        ("a.csv", b"suite,trial\na\n", "more or fewer cells"),
        ("a.csv", b"suite,trial\na,b,c\n", "more or fewer cells"),
        ("a.csv", b"\xff\xfe\x00", "no CSV file"),
        ("a.parquet", b"PAR1", "no Parquet file"),
        ("missing.csv", None, "No such file"),
    ],
)
def test_a_file_that_is_no_table_is_a_line(
    tmp_path: Path, name: str, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert _main(["results", "import", str(path), "--tracking", f"sqlite:///{tmp_path / 'a.db'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "a.db").exists()


def test_more_than_ten_wrong_rows_are_counted(tmp_path: Path) -> None:
    rows = [row_of(record(seed)) | {"status": "odd"} for seed in range(14)]
    write_rows(rows, tmp_path / "a.csv")
    with pytest.raises(UserError, match="4 more rows are no trials"):
        records_in(tmp_path / "a.csv")


def test_a_spreadsheets_mark_at_the_beginning_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = changed(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert records_in(path)[0].suite == "s"
    with path.open(newline="", encoding="utf-8-sig") as file:
        assert next(csv.reader(file))[:4] == ["suite", "version", "experiment", "trial"]


def test_a_row_without_what_older_stores_lack_is_taken() -> None:
    row = row_of(record())
    for name in ("version", "uses", "units", "start", "name"):
        del row[name]
    taken = record_of(row, "here")
    assert (taken.version, taken.name, taken.start) == (1, "dms0", 0)


def test_a_network_that_stayed_elsewhere_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path / 'a.db'}"
    take_up(uri, [record()], "x")
    assert _main(["export", "dms0", "-o", str(tmp_path / "out"), "--tracking", uri]) == 2
    error = capsys.readouterr().err
    assert "trial e-dms-s0: no architecture.json in" in error
    assert "imported" in error
    assert len(error.splitlines()) == 1


def test_versions_of_a_suite_are_never_on_one_board(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'a.db'}"
    newer = [record(seed, 90.0, **{names.VERSION: "2", names.TRIAL: f"new{seed}"}) for seed in (0, 1)]
    take_up(uri, [record(0, 80.0), *newer], "x")
    assert [(row.suite, row.n, row.mean) for row in leaderboard(uri)] == [("s", 1, 80.0), ("s v2", 2, 90.0)]
    shown = CliRunner().invoke(app, ["leaderboard", "--tracking", uri]).output
    assert "s v2/e" in shown
