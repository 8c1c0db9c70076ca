"""Which trials `--only` leaves, against a filter that is written out over the trials' own fields."""

import json

import pytest

from dms_bench.config import families, load_suite, most_trials, read_request, resolve, sampled, trial_count
from dms_bench.errors import UserError


@pytest.fixture
def load(document, experiment, tmp_path):
    """Load the suite with patterns."""
    grid = {
        "method": ["dms", "random", "whole"],
        "seed": [0, 1, 2, 10],
        "budget": [{"kind": "macs", "target": target} for target in ("30%", "60%")],
    }
    experiment["sweep"] = {"grid": grid}
    document["experiments"].append(experiment | {"name": "other-toys"})

    def load(*only):
        path = tmp_path / "suite.yaml"
        path.write_text(json.dumps(document))
        return load_suite(path, request=read_request(only=only))

    return load


CHOSEN = {
    ("experiment=toys",): lambda trial: trial.experiment == "toys",
    ("experiment=*toys",): lambda trial: True,
    ("method=dms",): lambda trial: trial.method.kind == "dms",
    ("method=dms", "method=rand*"): lambda trial: trial.method.kind in ("dms", "random"),
    ("seed=0,1",): lambda trial: trial.seed in (0, 1),
    ("seed=1",): lambda trial: trial.seed == 1,  # and not 10
    ("budget=30%",): lambda trial: trial.budget.target == 0.3 or trial.method.kind == "whole",
    ("budget=macs 30%", "method=random"): lambda trial: trial.budget.target == 0.3 and trial.method.kind == "random",
    ("experiment=toys", "method=dms,random", "seed=?"): lambda trial: (
        trial.experiment == "toys" and trial.method.kind != "whole" and trial.seed < 10
    ),
}


@pytest.mark.parametrize("only", CHOSEN, ids=" ".join)
def test_what_fits_is_left_and_keeps_its_hash(load, only):
    everything = resolve(load())
    expected = [trial.hash for trial in everything if CHOSEN[only](trial)]
    suite = load(*only)
    assert [trial.hash for trial in resolve(suite)] == expected
    assert 0 < trial_count(suite) == len(expected)
    assert len(everything) == 40, "the whole supernet is not cut: once for both budgets"


WRONG = [
    (("method=dsm",), "--only method=dsm: there is none; did you mean 'dms'?"),
    (("seed=7",), "--only seed=7: there is none; choose from '0', '1', '10', '2'"),
    (("experiment=toy", "seed=0"), "--only experiment=toy: there is none; did you mean 'toys'?"),
    (("method=dms,dsm",), "--only method=dsm: there is none; did you mean 'dms'?"),
    (("sede=1",), "--only sede=1: trials are not chosen by 'sede'; did you mean 'seed'?"),
    (("seed",), "--only seed: write KEY=PATTERN, such as method=dms or seed=0,1"),
    (("budget=99%",), "--only budget=99%: there is none; choose from 'macs 30%', 'macs 60%'"),
    (("seed=0,",), "--only seed=0,: write KEY=PATTERN"),
]


@pytest.mark.parametrize(("only", "line"), WRONG)
def test_what_fits_nothing_is_one_line_with_what_there_is(load, only, line):
    with pytest.raises(UserError) as caught:
        load(*only)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_patterns_that_fit_something_each_and_nothing_together(load, document):
    document["experiments"][1]["method"] = "random"
    document["experiments"][1]["sweep"] = {}
    with pytest.raises(UserError, match=r"^--only experiment=other-toys --only seed=2: .* nothing fits all of them$"):
        load("experiment=other-toys", "seed=2")


def test_samples_are_chosen_by_what_they_have_in_common(load, document):
    drawn = {"sample": {"samples": 4, "space": {"retrain.lr": {"low": 0.1, "high": 1.0}}}, "grid": {"seed": [0, 1]}}
    document["experiments"][1]["sweep"] = drawn
    assert trial_count(load("experiment=other-toys")) == 8
    suite = load("experiment=other-toys", "seed=1")
    assert trial_count(suite) == 4
    assert [point for _, point, _ in sampled(suite)] == [{"seed": 1}]


def test_of_methods_that_are_compared_some_may_be_run(load, document):
    seeds = {"until": "decided", "at_least": 3, "at_most": 5, "margin": 1.0}
    document["experiments"][0]["sweep"] = {"grid": {"method": ["dms", "random", "whole"], "seed": seeds}}
    del document["experiments"][1]
    assert (trial_count(load()), most_trials(load())) == (9, 15)
    (family,) = families(load("method=dms,random"))
    assert [arm.kind for arm in family.arms] == ["dms", "random"]
    assert [tuple(family.arms[index].kind for index in pair) for pair in family.pairs] == [("dms", "random")]
    (alone,) = families(load("method=dms"))
    assert (len(alone.arms), alone.pairs) == (1, ())
    with pytest.raises(UserError, match=r"--only seed=0: experiment 'toys' adds seeds .* --set seed=0"):
        load("seed=0")
