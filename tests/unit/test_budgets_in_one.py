"""`budgets_in_one`: which trials share a search, and what of it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dms_bench.config import load_suite, resolve
from dms_bench.config.problems import InvalidSpecError
from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.trial.work import search_hash

BUDGETS = [{"kind": "macs", "target": target} for target in ("30%", "60%", "45%")]


def trials(folder: Path, swept: Any, *, budgets: Any = BUDGETS, **changes: Any) -> list[Trial]:
    suite = {
        "name": "one",
        "experiments": [
            {
                "name": "e",
                "task": {"kind": "classification", "data": "glyphs"},
                "supernet": {"model": "resnet18"},
                "search": {"epochs": 1, "lr": 0.1, "batch_size": 8},
                "retrain": {"epochs": 1, "lr": 0.1, "batch_size": 8},
                "sweep": {"grid": {"budget": budgets, "method": swept, "seed": [0, 1]}},
                **changes,
            }
        ],
    }
    path = folder / "one.yaml"
    path.write_text(yaml.safe_dump(suite))
    return resolve(load_suite(path))


def targets(trial: Trial) -> list[float]:
    return [budget.target for budget in trial.method.searched_budgets]


def test_trials_of_a_sweep_share_a_search_that_differ_in_their_budgets_alone(tmp_path: Path) -> None:
    found = trials(tmp_path, [{"kind": "dms", "budgets_in_one": True}, "dms", {"kind": "l0", "budgets_in_one": True}])
    shared = [trial for trial in found if trial.method.searched_budgets]
    assert (len(found), len(shared)) == (18, 12)
    assert all(targets(trial) == [0.6, 0.45, 0.3] for trial in shared)
    by_search: dict[str | None, list[Trial]] = {}
    for trial in found:
        by_search.setdefault(search_hash(trial), []).append(trial)
    assert sorted((len(members), search is None) for search, members in by_search.items()) == [
        (3, False), (3, False), (3, False), (3, False), (6, True),
    ]  # fmt: skip
    for search, members in by_search.items():
        if search:
            assert len({(trial.method.kind, trial.seed) for trial in members}) == 1
    assert len({trial.hash for trial in found}) == 18


def test_another_set_of_budgets_is_another_search(tmp_path: Path) -> None:
    method = [{"kind": "dms", "budgets_in_one": True}]
    three, two = trials(tmp_path, method), trials(tmp_path, method, budgets=BUDGETS[:2])
    assert {search_hash(trial) for trial in three}.isdisjoint(search_hash(trial) for trial in two)
    reordered = trials(tmp_path, method, budgets=BUDGETS[::-1])
    assert {trial.hash for trial in three} == {trial.hash for trial in reordered}


def test_of_one_budget_it_is_the_search_that_it_is_without(tmp_path: Path) -> None:
    (one,) = {t.hash for t in trials(tmp_path, [{"kind": "dms", "budgets_in_one": True}], budgets=BUDGETS[:1])[:1]}
    (plain,) = {t.hash for t in trials(tmp_path, ["dms"], budgets=BUDGETS[:1])[:1]}
    assert one == plain


def test_what_it_retrains_and_repairs_by_is_not_the_searchs(tmp_path: Path) -> None:
    method = [{"kind": "dms", "budgets_in_one": True}]
    more = trials(tmp_path, method, retrain={"epochs": 2, "lr": 0.1, "batch_size": 8})
    assert {search_hash(trial) for trial in trials(tmp_path, method)} == {search_hash(trial) for trial in more}
    longer = trials(tmp_path, method, search={"epochs": 2, "lr": 0.1, "batch_size": 8})
    assert {search_hash(trial) for trial in more}.isdisjoint(search_hash(trial) for trial in longer)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (
            [{"kind": "dms", "budgets_in_one": BUDGETS[1:]}],
            {},
            "budget macs 30% is none that 'method.budgets_in_one' lists: macs 60%, macs 45%",
        ),
        (
            [{"kind": "dms", "budgets_in_one": True}],
            {"budgets": [*BUDGETS, {"kind": "params", "target": "50%"}]},
            "let all of them bound the same costs",
        ),
        ([{"kind": "dms", "budgets_in_one": "sometimes"}], {}, "budgets_in_one"),
        ([{"kind": "dms", "budgets_in_one": []}], {}, "budgets_in_one"),
        ([{"kind": "taylor", "budgets_in_one": True}], {}, "unknown field"),
        (
            [{"kind": "halving", "proposals": [{"kind": "dms", "budgets_in_one": True}, "uniform"]}],
            {},
            "proposes one architecture",
        ),
    ],
)
def test_mistakes_are_a_line(tmp_path: Path, method: Any, changes: Any, message: str) -> None:
    with pytest.raises((InvalidSpecError, UserError)) as caught:
        trials(tmp_path, method, **changes)
    lines = str(caught.value).splitlines()
    assert any(message in line for line in lines), lines
    assert all("experiment" in line or "'e'" in line for line in lines), lines


def test_a_sampled_sweep_has_no_list_of_budgets(tmp_path: Path) -> None:
    sweep = {
        "grid": {"budget": BUDGETS},
        "sample": {"samples": 2, "space": {"search.lr": {"low": 0.01, "high": 0.1}}},
    }
    method = {"kind": "dms", "budgets_in_one": True}
    with pytest.raises(UserError, match="draws trials one by one"):
        trials(tmp_path, None, sweep=sweep, method=method)
    listed = {"kind": "dms", "budgets_in_one": BUDGETS}
    assert trials(tmp_path, None, sweep=sweep, method=listed) == []
