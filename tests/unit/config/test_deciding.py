"""Sweeps whose seeds are added until comparisons are decided: what is compared, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from dms_bench.config import families, most_trials, parse_suite, resolve, trial_count
from tests.unit.config.test_load import problems

SEEDS = {"until": "decided", "at_most": 6, "at_least": 2, "margin": 0.3}
#: By their own temperature, two settings of DMS.
COOL, WARM = {"kind": "dms", "temperature": 1}, {"kind": "dms", "temperature": 2}


@pytest.fixture
def deciding(document: dict[str, Any], experiment: dict[str, Any]) -> dict[str, Any]:
    """A suite with such a sweep over three methods, of which one is not cut."""
    experiment["sweep"] = {"grid": {"method": ["random", "dms", "whole"], "seed": dict(SEEDS)}}
    return document


def compared(document: dict[str, Any]) -> list[list[str]]:
    return [[family.name(pair) for pair in family.pairs] for family in families(parse_suite(document))]


def test_the_first_seeds_are_known_beforehand_and_the_others_not(deciding: dict[str, Any]) -> None:
    suite = parse_suite(deciding)
    assert [(trial.method.kind, trial.seed) for trial in resolve(suite)] == [
        (method, seed) for method in ("random", "dms", "whole") for seed in (0, 1)
    ]
    assert (trial_count(suite), most_trials(suite)) == (6, 18)


def test_trials_are_the_same_as_with_a_list_of_seeds(deciding: dict[str, Any], experiment: dict[str, Any]) -> None:
    (family,) = families(parse_suite(deciding))
    added = {trial.hash for trial in family.trials}
    experiment["sweep"]["grid"]["seed"] = list(range(6))
    listed = parse_suite(deciding)
    assert {trial.hash for trial in resolve(listed)} == added
    assert families(listed) == []


def test_every_method_is_compared_with_dms_and_with_random(deciding: dict[str, Any]) -> None:
    assert compared(deciding) == [["dms - random at macs 30%", "dms - whole at macs 30%", "whole - random at macs 30%"]]


def test_each_budget_is_a_family(deciding: dict[str, Any], experiment: dict[str, Any]) -> None:
    budgets = [{"kind": "macs", "target": target} for target in ("30%", "50%")]
    experiment["sweep"]["grid"] |= {"budget": budgets, "retrain.lr": [0.1, 0.2]}
    experiment["compare"] = [["dms", "random"]]
    assert compared(deciding) == [
        [f"dms - random at macs {target}, retrain.lr={rate}"] for target in ("30%", "50%") for rate in (0.1, 0.2)
    ]


def test_the_settings_of_a_method_are_no_families(deciding: dict[str, Any], experiment: dict[str, Any]) -> None:
    experiment["sweep"]["grid"] |= {"method": [COOL, WARM, "random"], "search.epochs": [1, 2]}
    experiment["compare"] = [["dms", "random"]]
    settings = [f"temperature={degree}, search.epochs={epochs}" for degree in ("1.0", "2.0") for epochs in (1, 2)]
    assert compared(deciding) == [[f"dms ({each}) - random at macs 30%" for each in settings]]
    experiment["compare"] = [[f"dms ({settings[0]})", f"dms ({settings[3]})"]]
    assert compared(deciding) == [[f"dms ({settings[0]}) - dms ({settings[3]}) at macs 30%"]]


def test_of_several_settings_of_dms_none_is_chosen(deciding: dict[str, Any], experiment: dict[str, Any]) -> None:
    experiment["sweep"]["grid"]["method"] = [COOL, WARM, "random"]
    assert compared(deciding) == [
        [f"dms (temperature={degree}) - random at macs 30%" for degree in ("1.0", "2.0")],
    ]


def test_the_suite_names_comparisons_and_an_experiment_its_own(
    deciding: dict[str, Any], experiment: dict[str, Any]
) -> None:
    deciding["compare"] = [["whole", "dms"]]
    assert compared(deciding) == [["whole - dms at macs 30%"]]
    experiment["compare"] = [["random", "whole"], ["whole", "random"]]
    assert compared(deciding) == [["random - whole at macs 30%"]], "each once"


def test_a_smoke_variant_may_give_the_seeds_or_fewer(deciding: dict[str, Any]) -> None:
    deciding["compare"] = [["dms", "random"]]
    deciding["smoke"] = {"sweep": {"grid": {"seed": [0]}}}
    assert families(parse_suite(deciding, smoke=True)) == []
    deciding["smoke"] = {"sweep": {"grid": {"seed": {"at_most": 3}}}}
    (family,) = families(parse_suite(deciding, smoke=True))
    assert (family.seeds.at_most, family.seeds.margin) == (3, 0.3)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"at_most": 1}, "seed.at_most: 1 must be at least 2"),
        ({"at_most": 51}, "seed.at_most: 51 must be at most 50"),
        ({"at_least": 7}, "seed: at_most 6 must not be below at_least 7"),
        ({"at_least": 1}, "seed.at_least: 1 must be at least 2"),
        ({"at_most": 2.5}, "seed.at_most: 2.5 is not a whole number"),
        ({"margin": -0.3}, "seed.margin: -0.3 must be above 0"),
        ({"margin": 0}, "seed.margin: 0 must be above 0"),
        ({"margin": "wide"}, "seed.margin: 'wide' is not a number"),
        ({"until": "known"}, "seed.until: 'known' is not a choice; choose from 'decided'"),
        ({"margn": 3}, "seed.margn: unknown field; did you mean 'margin'?"),
    ],
)
def test_a_mistake_in_the_seeds_is_a_line(
    deciding: dict[str, Any], experiment: dict[str, Any], change: dict[str, Any], line: str
) -> None:
    experiment["sweep"]["grid"]["seed"] |= change
    assert problems(deciding) == [f"experiments[0].sweep.grid.{line}"]


@pytest.mark.parametrize("field", ["until", "margin"])
def test_what_is_missing_is_named(deciding: dict[str, Any], experiment: dict[str, Any], field: str) -> None:
    del experiment["sweep"]["grid"]["seed"][field]
    assert problems(deciding) == [f"experiments[0].sweep.grid.seed.{field}: missing"]


def test_only_seeds_are_added(deciding: dict[str, Any], experiment: dict[str, Any]) -> None:
    experiment["sweep"]["grid"] |= {"retrain.lr": dict(SEEDS), "seed": [0]}
    assert problems(deciding) == [
        "experiments[0].sweep.grid.retrain.lr: only the values of 'seed' are added until something is decided: a list"
    ]


@pytest.mark.parametrize(
    ("compare", "line"),
    [
        ([["dms", "rando"]], "compare[0][1]: no method 'rando' in experiment 'toys'; did you mean 'random'?"),
        ([["dms", "dms"]], "compare[0]: 'dms' and 'dms' are one method"),
        ([["dms"]], "compare[0]: ['dms'] must have at least 2 entries"),
        ([["dms", "random", "whole"]], "compare[0]: ['dms', 'random', 'whole'] must have at most 2 entries"),
        ([], "compare: must not be empty"),
        ("dms", "compare: 'dms' is not a list"),
    ],
)
@pytest.mark.parametrize("of_the_suite", [True, False])
def test_a_mistake_in_the_comparisons_is_a_line(
    deciding: dict[str, Any], experiment: dict[str, Any], of_the_suite: bool, compare: Any, line: str
) -> None:
    (deciding if of_the_suite else experiment)["compare"] = compare
    assert problems(deciding) == [line if of_the_suite else f"experiments[0].{line}"]


def test_where_seeds_are_given_comparisons_decide_nothing(deciding: dict[str, Any], experiment: dict[str, Any]) -> None:
    experiment["sweep"]["grid"]["seed"] = [0, 1]
    deciding["compare"] = experiment["compare"] = [["dms", "random"]]
    text = "needs sweep.grid.seed to be {until: decided, margin: ...}; here the seeds are given"
    assert problems(deciding) == [f"experiments[0].compare: {text}", f"compare: {text}"]


def test_one_method_is_nothing_to_decide(deciding: dict[str, Any], experiment: dict[str, Any]) -> None:
    experiment["sweep"]["grid"]["method"] = ["whole"]
    assert problems(deciding) == [
        "experiments[0].sweep.grid.seed: there is nothing to decide: no two methods to compare; name them in 'compare'"
    ]


@pytest.mark.parametrize("scheduler", [None, {"kind": "asha"}])
def test_samples_are_not_compared(deciding: dict[str, Any], experiment: dict[str, Any], scheduler: Any) -> None:
    experiment["sweep"]["sample"] = {"samples": 2, "space": {"retrain.lr": [0.1, 0.2]}, "scheduler": scheduler}
    assert problems(deciding) == [
        "experiments[0].sweep.sample: samples have no pairs to decide: give the grid's 'seed' as a list, or sample in "
        "another experiment"
    ]


def test_more_combinations_than_are_run_are_counted_with_all_seeds(
    deciding: dict[str, Any], experiment: dict[str, Any]
) -> None:
    experiment["sweep"]["grid"] |= {"seed": SEEDS | {"at_most": 50}, "retrain.lr": [1 + each for each in range(200)]}
    (line,) = problems(deciding)
    assert line == "experiments[0].sweep.grid: 30000 combinations; at most 20000 are run"
