from __future__ import annotations

import io
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console

from dms_bench.config import read_selection
from dms_bench.config.budget import LatencyBudget, ParamsBudget
from dms_bench.config.suite import Suite
from dms_bench.config.task import PERCENT, Unit
from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.methods.rankings.spec import L1
from dms_bench.report import Row, leaderboard, render, show
from dms_bench.report.board import rows as rows_of
from dms_bench.report.layout import blocks, footnotes
from dms_bench.report.records import read_records
from dms_bench.report.statistics import estimate
from dms_bench.tracking import names, open_suite
from tests.unit.conftest import PaperTask
from tests.unit.report.published import CEILING, ENVIRONMENT, VALUES, Publish, publisher


@pytest.fixture(scope="module")
def board(board_uri: str) -> list[Row]:
    return leaderboard(board_uri, "quick")


def pick(rows: list[Row], method: str, budget: str) -> Row:
    return next(row for row in rows if (row.method, row.budget) == (method, budget))


def test_rows_are_ceiling_first_then_budgets_with_the_best_first(board: list[Row]) -> None:
    assert [(row.budget, row.method) for row in board] == [
        ("-", "supernet"),
        ("macs 30%", "dms"),
        ("macs 30%", "uniform"),
        ("macs 30%", "random"),
        ("macs 50%", "dms"),
        ("macs 50%", "random"),
    ]


def test_means_and_intervals_are_over_seeds(board: list[Row]) -> None:
    values = list(VALUES["dms", "30%"].values())
    row = pick(board, "dms", "macs 30%")
    assert (row.mean, row.ci95, row.n) == estimate(values)
    assert row.mean == pytest.approx(statistics.mean(values))
    assert (row.task, row.model, row.metric, row.device, row.device_kind) == (
        "paper",
        "resnet18",
        "top1",
        "EPYC",
        "cpu",
    )
    assert (row.macs, row.params, row.latency_ms, row.supernet_macs) == (1.5e6, 240_000, 0.834, 5e6)
    assert row.search_device_days == pytest.approx(2 * 43.2 / 86400)
    assert row.environment["torch"] == ("2.15.0",)


def test_latencies_are_compared_trial_by_trial(store: str, publish: Publish, make_trial: Callable[..., Trial]) -> None:
    """The mean of three ratios, with Student's interval, is not the ratio of two means."""
    for seed, (own, whole) in enumerate([(1.0, 2.0), (9.0, 10.0), (1.0, 4.0)]):
        publish(make_trial("dms", seed), 70.0, latency_ms=own, supernet_latency_ms=whole)
    (row,) = leaderboard(store)
    ratios = [0.5, 0.9, 0.25]
    half = 4.302652729911275 * statistics.stdev(ratios) / 3**0.5  # t of 2 degrees of freedom at 97.5 %
    assert (row.latency_ratio, row.latency_ratio_ci95) == pytest.approx((statistics.mean(ratios), half))


def test_the_runtime_that_latencies_were_measured_in_is_said(
    store: str, publish: Publish, make_trial: Callable[..., Trial]
) -> None:
    budget = LatencyBudget(target="60%", runtime="openvino")
    for seed in range(2):
        measured = {"macs": 3_000_000, "params": 500_000, "latency_ms": 1.2, "latency_runtime": "openvino"}
        trial = make_trial("dms", seed, budget=budget)
        name = publish(trial, 70.0, targets={"latency": 1.1}, budget_missed=seed == 1, **measured)
    (row,) = leaderboard(store)
    assert (row.budget, row.latency_runtime, row.latency_ratio) == ("latency 60% openvino", "openvino", 0.6)
    text = render([row], "markdown")
    assert "latency: of one sample, in the runtime that the budget names, as a multiple" in text
    assert "cost more than 1 % (10 %, measured, in a runtime) more or less" in text
    console = Console(file=io.StringIO(), width=120)
    console.print(show(store, name))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"latency\s+1\.20 ms, supernet 2\.00 ms, in openvino", shown)
    assert re.search(r"budget\s+1\.10 ms latency, missed by more than 10 % as measured", shown)


def test_differences_are_paired_by_seed(board: list[Row]) -> None:
    row = pick(board, "dms", "macs 30%")
    pairs = [VALUES["dms", "30%"][seed] - VALUES["random", "30%"][seed] for seed in range(3)]
    assert (row.delta_random, row.delta_random_ci95, row.delta_n) == pytest.approx(estimate(pairs))
    other = pick(board, "dms", "macs 50%")
    assert other.delta_random == pytest.approx(10.0)
    assert (other.delta_random_ci95, other.delta_n) == (None, 1)
    assert pick(board, "random", "macs 30%").delta_random is None
    assert pick(board, "supernet", "-").delta_random is None


def test_the_supernet_is_one_row_and_a_seed_counts_once(board: list[Row]) -> None:
    row = pick(board, "supernet", "-")
    assert (row.mean, row.ci95, row.n) == pytest.approx(estimate(list(CEILING.values())))


def test_failures_missed_budgets_and_unfinished_trials_are_counted(board: list[Row]) -> None:
    row = pick(board, "random", "macs 50%")
    assert (row.n, row.failed, row.unfinished, row.stopped) == (1, 1, 1, 0)
    assert len(row.failed_trials) == 1
    assert row.failed_trials[0].startswith("cnn-random")
    assert pick(board, "uniform", "macs 30%").budget_missed == 1
    assert pick(board, "dms", "macs 30%").budget_missed == 0


def test_a_method_that_only_failed_is_a_row(publish: Publish, make_trial: Callable[..., Trial], store: str) -> None:
    publish(make_trial("dms", 0), None)
    publish(make_trial("uniform", 0), 0.5)
    rows = leaderboard(store)
    assert [(row.method, row.mean, row.n, row.failed) for row in rows] == [("uniform", 0.5, 1, 0), ("dms", None, 0, 1)]


def test_settings_that_differ_are_rows_of_their_own(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    for temperature, epochs, value in ((1.0, 3, 0.7), (2.0, 3, 0.8), (1.0, 9, 0.9)):
        options = {"temperature": temperature}
        for seed in (0, 1):
            publish(make_trial("dms", seed, options=options, retrain={"epochs": epochs}), value + 0.01 * seed)
    for epochs, value in ((3, 0.6), (9, 0.65)):
        for seed in (0, 1):
            publish(make_trial("random", seed, retrain={"epochs": epochs}), value)
    rows = {row.method: row for row in leaderboard(store)}
    assert set(rows) == {
        "dms (temperature=1.0, retrain.epochs=3)",
        "dms (temperature=2.0, retrain.epochs=3)",
        "dms (temperature=1.0, retrain.epochs=9)",
        "random (retrain.epochs=3)",
        "random (retrain.epochs=9)",
    }
    # Each is compared with the random networks that were trained as long.
    assert rows["dms (temperature=2.0, retrain.epochs=3)"].delta_random == pytest.approx(0.805 - 0.6)
    assert rows["dms (temperature=1.0, retrain.epochs=9)"].delta_random == pytest.approx(0.905 - 0.65)
    assert all(row.n == 2 for row in rows.values())


def test_budgets_and_pipelines_are_not_mixed(publish: Publish, make_trial: Callable[..., Trial], store: str) -> None:
    pretrained = {"pipeline": "DMSp", "pretrain": {"epochs": 1}}
    publish(make_trial("dms", 0), 0.7)
    publish(make_trial("dms", 0, **pretrained), 0.9)
    publish(make_trial("random", 0, **pretrained), 0.8)
    publish(make_trial("random", 0, budget=ParamsBudget(target="30%")), 0.1)
    rows = leaderboard(store)
    deltas = {(row.pipeline, row.method, row.budget): row.delta_random for row in rows}
    assert deltas == {
        ("DMSnp", "dms", "macs 30%"): None,
        ("DMSnp", "random", "params 30%"): None,
        ("DMSp", "dms", "macs 30%"): pytest.approx(0.1),
        ("DMSp", "random", "macs 30%"): None,
    }


def test_missing_stores_and_suites_are_named(board_uri: str, store: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results there"):
        leaderboard(f"sqlite:///{tmp_path / 'nothing.db'}")
    with pytest.raises(UserError, match="did you mean 'quick'"):
        leaderboard(board_uri, "quik")
    with pytest.raises(UserError, match="no suite has been run"):
        leaderboard(store, "quick")
    with pytest.raises(UserError, match="no trials yet"):
        leaderboard(store)


def test_a_suite_without_trials(store: str, make_suite: Callable[..., Suite]) -> None:
    open_suite(store, make_suite("empty"), {})
    with pytest.raises(UserError, match="'empty' has no trials yet"):
        leaderboard(store, "empty")


def test_experiments_of_others_in_the_store_do_not_matter(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    client.create_run(client.create_experiment("somebody else's"))
    publish(make_trial("dms", 0), 0.5)
    assert [row.suite for row in leaderboard(store)] == ["paper"]


def test_differences_to_dms_are_paired_by_seed(board: list[Row]) -> None:
    row = pick(board, "uniform", "macs 30%")
    pairs = [VALUES["uniform", "30%"][seed] - VALUES["dms", "30%"][seed] for seed in range(3)]
    assert (row.delta_dms, row.delta_dms_ci95, row.delta_dms_n) == pytest.approx(estimate(pairs))
    row = pick(board, "random", "macs 50%")
    assert (row.delta_dms, row.delta_dms_ci95, row.delta_dms_n) == (pytest.approx(-10.0), None, 1)
    for method, budget in (("dms", "macs 30%"), ("supernet", "-")):
        assert pick(board, method, budget).delta_dms is None


def tune(publish: Publish, make_trial: Callable[..., Trial]) -> None:
    """DMS with four settings, of which validation and test prefer different ones; uniform with one."""
    settings = {0.01: (0.70, 0.90), 0.1: (0.80, 0.60), 1.0: (0.75, 0.95)}
    for lr, (validation, value) in settings.items():
        for seed in (0, 1):
            trial = make_trial("dms", seed, options={"structure": {"lr": lr}})
            publish(trial, value + 0.01 * seed, validation=validation + 0.01 * seed)
    # One seed of a setting that would be the best by far, and a setting that only failed.
    publish(make_trial("dms", 0, options={"structure": {"lr": 2.0}}), 0.99, validation=0.99)
    publish(make_trial("dms", 0, options={"structure": {"lr": 9.0}}), None)
    for seed in (0, 1):
        publish(make_trial("uniform", seed), 0.5, validation=0.5)
        publish(make_trial("random", seed), 0.4, validation=0.4)


def test_settings_are_chosen_on_the_validation_split(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    tune(publish, make_trial)
    rows = {row.kind: row for row in leaderboard(store, tuned=True)}
    assert len(leaderboard(store, tuned=True)) == 3
    dms = rows["dms"]
    assert (dms.method, dms.settings_tried, dms.n) == ("dms (structure.lr=0.1)", 5, 2)
    assert (dms.mean, dms.validation) == (pytest.approx(0.605), pytest.approx(0.805))
    assert dms.delta_random == pytest.approx(0.205)
    assert (rows["uniform"].settings_tried, rows["uniform"].delta_dms) == (1, pytest.approx(-0.105))


def test_a_lower_validation_value_is_chosen_where_lower_is_better(
    publish: Publish, make_trial: Callable[..., Trial], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial()
    monkeypatch.setattr(type(trial.task), "higher_is_better", False)
    tune(publish, make_trial)
    (dms,) = (row for row in leaderboard(store, tuned=True) if row.kind == "dms")
    assert dms.method == "dms (structure.lr=0.01)"


def test_without_a_choice_all_settings_are_shown_and_none_is_compared_with(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    tune(publish, make_trial)
    rows = leaderboard(store)
    assert [row.kind for row in rows].count("dms") == 5
    assert all(row.settings_tried == 1 for row in rows)
    assert all(row.delta_dms is None for row in rows)


def test_recipes_are_not_tuned_but_compared(publish: Publish, make_trial: Callable[..., Trial], store: str) -> None:
    for epochs in (3, 9):
        for temperature in (1.0, 2.0):
            trial = make_trial("dms", 0, options={"temperature": temperature}, retrain={"epochs": epochs})
            publish(trial, 0.5, validation=temperature / epochs)
        publish(make_trial("uniform", 0, retrain={"epochs": epochs}), 0.1 * epochs, validation=0.1)
    rows = {row.method: row for row in leaderboard(store, tuned=True)}
    assert set(rows) == {
        "dms (temperature=2.0, retrain.epochs=3)",
        "dms (temperature=2.0, retrain.epochs=9)",
        "uniform (retrain.epochs=3)",
        "uniform (retrain.epochs=9)",
    }
    assert rows["uniform (retrain.epochs=9)"].delta_dms == pytest.approx(0.9 - 0.5)


def test_a_search_that_ends_above_its_target_is_marked(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    reached = {"hard_macs": 1.04, "target_macs": 1.0, "hard_params": 10.0, "target_params": 20.0}
    for seed in (0, 1):
        publish(make_trial("dms", seed), 0.5, searched=reached)
        publish(make_trial("get", seed), 0.5, searched=reached | {"hard_params": 50.0 + 10 * seed})
    publish(make_trial("random", 0), 0.5)
    rows = {row.kind: row for row in leaderboard(store)}
    assert rows["dms"].search_load == pytest.approx(1.04)
    assert rows["get"].search_load == pytest.approx(2.75)
    assert rows["random"].search_load is None
    shown = {line.row.kind: line.cells[1] for block in blocks(list(rows.values())) for line in block.lines}
    assert shown == {"dms": "dms", "get": "get ▲ 2.8", "random": "random"}
    assert any(note.startswith("▲ x") for note in footnotes(list(rows.values())))
    assert not any("▲" in note for note in footnotes([rows["dms"], rows["random"]]))


def test_settings_cannot_be_chosen_without_validation_values(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    for temperature in (1.0, 2.0):
        publish(make_trial("dms", 0, options={"temperature": temperature}), 0.5)
    message = "^dms at macs 30% was run with 2 settings, and none has a finished trial with a value on the validation"
    with pytest.raises(UserError, match=message):
        leaderboard(store, tuned=True)
    assert len(leaderboard(store)) == 2


def test_methods_of_one_kind_but_another_label_are_never_mixed(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    for scope, value in (("local", 0.5), ("global", 0.6)):
        trial = make_trial("dms", 0).model_copy(update={"method": L1(scope=scope)})
        publish(trial, value, validation=value)
    for rows in (leaderboard(store), leaderboard(store, tuned=True)):
        assert [(row.method, row.settings_tried) for row in rows] == [("l1 global", 1), ("l1 local", 1)]


def test_trials_that_start_from_other_weights_are_not_averaged(
    store: str, make_suite: Callable[..., Suite], make_trial: Callable[..., Trial]
) -> None:
    for seed, weights in enumerate(("", "aaaa", "aaaa", "bbbb")):
        environment = ENVIRONMENT | ({"weights": weights} if weights else {})
        publisher(open_suite(store, make_suite(), ENVIRONMENT), environment)(make_trial("dms", seed), 70.0 + seed)
    board = leaderboard(store)
    assert [(row.weights, row.mean, row.n) for row in board] == [("", 70.0, 1), ("aaaa", 71.5, 2), ("bbbb", 73.0, 1)]
    assert [block.title.partition("DMSnp")[2] for block in blocks(board)] == ["", ", weights aaaa", ", weights bbbb"]


class Positions(PaperTask):
    """A plug-in's task, measured as an error in millimetres."""

    metric: ClassVar[str] = "error"
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[Mapping[str, Unit]] = {"error": Unit("mm", 2)}


def test_a_measure_of_a_plug_in_has_its_own_unit_digits_and_direction(
    publish: Publish, make_trial: Callable[..., Trial], store: str
) -> None:
    values = {"uniform": 3.14159, "dms": 2.71828, "random": 4.0}
    shown = []
    for method, value in values.items():
        trial = make_trial(method, task=Positions())
        shown.append(publish(trial, value, metric="error", metrics={"error": value, "loss": 0.5}, validation=value))
    rows = leaderboard(store)
    assert [(row.method, row.mean, row.unit, row.decimals) for row in rows] == [
        ("dms", 2.71828, "mm", 2),
        ("uniform", 3.14159, "mm", 2),
        ("random", 4.0, "mm", 2),
    ]
    (block,) = blocks(rows)
    assert block.columns[2] == "error [mm]"
    assert [(line.cells[2], line.best) for line in block.lines] == [("2.72", True), ("3.14", False), ("4.00", False)]
    assert block.lines[0].cells[block.columns.index("Δ random")] == "-1.28"
    terminal = Console(file=io.StringIO(), width=160)
    terminal.print(render(rows))
    assert "error [mm]" in terminal.file.getvalue()  # type: ignore[attr-defined]
    csv = render(rows, "csv")
    assert isinstance(csv, str)
    assert ",unit,decimals," in csv.splitlines()[0]
    console = Console(file=io.StringIO(), width=100)
    console.print(show(store, shown[1]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"error \[mm\] +2\.72\b", text)
    assert re.search(r"error \[mm\], validation +2\.72\b", text)
    assert re.search(r"loss +0\.500\b", text)


def test_a_record_from_before_tasks_said_it_has_the_units_that_were_known(board_uri: str) -> None:
    record = read_records(board_uri, "quick")[0]
    assert record.tags[names.UNITS] == '{"top1": ["%", 1]}'
    old = replace(record, tags={name: value for name, value in record.tags.items() if name != names.UNITS})
    assert [old.unit(name) for name in ("top1", "map50_95", "perplexity")] == [PERCENT, PERCENT, Unit()]
    assert [record.unit(name) for name in ("top1", "map50_95")] == [PERCENT, Unit()]


def test_rows_are_chosen_and_stay_what_they_are(board_uri: str) -> None:
    everything = leaderboard(board_uri, "quick")
    chosen = leaderboard(board_uri, "quick", only=read_selection(["method=dms,supernet", "budget=30%"]))
    assert chosen == [
        row for row in everything if row.kind == "supernet" or (row.kind, row.budget) == ("dms", "macs 30%")
    ]
    assert {row.kind for row in chosen} == {"dms", "supernet"}


def test_of_chosen_seeds_the_means_are_taken(board_uri: str) -> None:
    (row,) = leaderboard(board_uri, "quick", only=read_selection(["method=dms", "budget=macs 30%", "seed=0,1"]))
    ours, random = VALUES["dms", "30%"], VALUES["random", "30%"]
    assert row.values == {seed: ours[seed] for seed in (0, 1)}
    assert row.mean == pytest.approx((ours[0] + ours[1]) / 2)
    assert row.delta_random == pytest.approx(sum(ours[seed] - random[seed] for seed in (0, 1)) / 2)


def test_what_no_trial_of_a_board_has_is_named(board_uri: str) -> None:
    with pytest.raises(UserError, match=r"^--only method=dsm: there is none; did you mean 'dms'"):
        leaderboard(board_uri, "quick", only=read_selection(["method=dsm"]))


def test_where_the_data_lay_is_no_setting(publish: Publish, make_trial: Callable[..., Trial], store: str) -> None:
    for seed in range(3):
        for method in ("dms", "random"):
            publish(make_trial(method, seed), 70.0 + seed)
    records = read_records(store, "paper")
    for record in records:
        record.params["task.data.root"] = f"/{'abc'[record.seed]}/cars"
        record.params["task.data.workers"] = str(record.seed)
    board = rows_of(records)
    assert [(row.method, row.n, row.delta_n) for row in board] == [("dms", 3, 3), ("random", 3, 0)]
