"""Every row that our trials are to answer selects trials of its suite, in both profiles, one for each seed."""

from pathlib import Path

import pytest

from dms_bench.config import load_suite, profile_names, resolve
from dms_bench.config.published import load_published
from dms_bench.report.paper.measured import select
from dms_bench.report.records import Record
from dms_bench.tracking import names
from dms_bench.tracking.content import flat_params, trial_tags

PAPER = Path(__file__).parents[3] / "benchmarks" / "paper"
TABLES = {table.number: table for table in load_published(PAPER / "published.yaml").tables}
ANSWERED = [number for number, table in TABLES.items() if any(row.ours for row in table.rows)]


def records(path, profile):
    return [
        Record(
            trial.hash, trial.name, path.stem, 0, "", {**trial_tags(trial), names.STATUS: names.FINISHED},
            flat_params(trial),
        )
        for trial in resolve(load_suite(path, profile=profile))
    ]  # fmt: skip


@pytest.mark.parametrize("profile", [None, "full"])
@pytest.mark.parametrize("number", ANSWERED)
def test_rows_select_trials(number, profile):
    table = TABLES[number]
    path = PAPER / f"{table.suite}.yaml"
    trials = records(path, profile)
    for row in table.rows:
        if row.ours is not None and not (row.full_only and profile is None):
            seeds = {record.seed for record in select(trials, row.ours, row.id).records}
            assert len(seeds) >= (1 if path.stem == "table10" and profile else 3), row.id  # Llama-7B: one seed


@pytest.mark.parametrize("path", sorted(PAPER.glob("table*.yaml")), ids=lambda path: path.stem)
def test_a_table_has_a_proxy_and_the_published_setting(path):
    assert load_suite(path).name == path.stem
    assert profile_names(path) == ("full",)
    assert all(trial.resources.gpus >= 1 for trial in resolve(load_suite(path, profile="full")))


@pytest.mark.parametrize("path", sorted(PAPER.glob("table*.yaml")), ids=lambda path: path.stem)
def test_the_published_setting_shrinks_to_what_any_machine_can_train(path):
    """A slow test runs these; here, what would be refused before anything runs."""
    for trial in resolve(load_suite(path, profile="full", smoke=True)):
        task = trial.task.load_implementation()(trial.task, trial.seed)
        for recipe in filter(None, (trial.pretrain, trial.search, trial.retrain)):
            task.check_recipe(recipe)
            assert recipe.epochs == 1
        assert not trial.budget.label().endswith("ms"), "milliseconds are those of one device"


def test_every_trial_of_a_suite_is_shown_in_its_table():
    """What no row shows was run for nothing."""
    for number in ANSWERED:
        suite = TABLES[number].suite
        rows = [row for table in TABLES.values() if table.suite == suite for row in table.rows if row.ours]
        for profile in (None, "full"):
            trials = records(PAPER / f"{suite}.yaml", profile)
            shown = {record.hash for row in rows for record in select(trials, row.ours, row.id).records}
            assert {record.name for record in trials if record.hash not in shown} == set(), suite


@pytest.mark.parametrize("profile", [None, "full"])
@pytest.mark.parametrize("number", [5, 10])
def test_what_is_trained_as_long_has_the_epochs_of_search_and_retraining(number, profile):
    def length(recipe):
        return recipe.epochs * (getattr(recipe, "steps", None) or 1)

    trials = resolve(load_suite(PAPER / f"table{number:02}.yaml", profile=profile))
    ours = {length(t.search) + length(t.retrain) for t in trials if t.method.kind == "dms" and t.pipeline == "DMSp"}
    longer = {length(t.retrain) for t in trials if t.experiment == "longer"}
    assert longer == ours
    assert len(longer) == 1
