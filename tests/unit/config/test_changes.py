"""What `--set` makes of a suite, against the suite that somebody would have written."""

import json

import pytest

from dms_bench.config import load_suite, parse_suite, read_request, resolve
from dms_bench.config.changes import read_change
from dms_bench.errors import UserError


def trials(document, *texts, **options):
    return resolve(parse_suite(document, changes=[read_change(text) for text in texts], **options))


@pytest.fixture
def two(document, experiment):
    """A suite of two experiments, the second of which has epochs of its own."""
    document["defaults"] = {"search": {"epochs": 4}}
    del experiment["search"]
    document["experiments"].append(experiment | {"name": "own", "search": {"epochs": 6}})
    return document


def test_a_value_is_over_defaults_and_every_experiments_own(two):
    assert [trial.search.epochs for trial in trials(two)] == [4, 6]
    assert [trial.search.epochs for trial in trials(two, "search.epochs=9")] == [9, 9]


def test_it_is_the_trial_that_a_suite_with_this_value_has(two):
    written = {**two, "experiments": [entry | {"search": {"epochs": 9}} for entry in two["experiments"]]}
    assert [trial.hash for trial in trials(two, "search.epochs=9")] == [trial.hash for trial in trials(written)]
    assert [trial.hash for trial in trials(two, "search.epochs=9")] != [trial.hash for trial in trials(two)]


@pytest.mark.parametrize("name", ["own", "o*"])
def test_one_experiment(two, name):
    assert [trial.search.epochs for trial in trials(two, f"{name}:search.epochs=9")] == [4, 9]


def test_the_last_of_two_counts(two):
    assert [trial.search.epochs for trial in trials(two, "search.epochs=9", "own:search.epochs=1")] == [9, 1]
    assert [trial.search.epochs for trial in trials(two, "own:search.epochs=1", "search.epochs=9")] == [9, 9]


def test_it_is_over_profile_and_smoke_variant(two):
    two["profiles"] = {"large": {"defaults": {"search": {"epochs": 100}}}}
    two["smoke"] = {"search": {"epochs": 1}}
    laid = trials(two, "search.lr=0.5", "own:search.epochs=9", profile="large", smoke=True)
    assert [(trial.search.epochs, trial.search.lr) for trial in laid] == [(1, 0.5), (9, 0.5)]


def test_values_are_yaml(document):
    (trial,) = trials(document, "supernet.args={width: [4, 4]}", "retrain.amp=true", "method={kind: random}")
    assert (trial.supernet.args, trial.retrain.amp, trial.method.kind) == ({"width": [4, 4]}, True, "random")


def test_the_name_of_a_kind_gets_fields(document):
    (trial,) = trials(document, "method.temperature=3")
    assert trial.method.temperature == 3


def test_a_swept_field_has_the_one_value(document, experiment):
    experiment["sweep"] = {"grid": {"seed": [0, 1, 2], "search.epochs": [1, 2], "method": ["dms", "random"]}}
    fixed = trials(document, "seed=5", "search.epochs=3", "method=dms")
    assert [(trial.seed, trial.search.epochs, trial.method.kind) for trial in fixed] == [(5, 3, "dms")]


def test_of_a_swept_mapping_every_value_has_the_field(document, experiment):
    experiment["sweep"] = {"grid": {"search": [{"epochs": 1}, {"epochs": 2, "lr": 0.3}], "method": ["dms"]}}
    every = trials(document, "search.lr=0.7", "method.temperature=3")
    assert [(trial.search.epochs, trial.search.lr, trial.method.temperature) for trial in every] == [
        (1, 0.7, 3),
        (2, 0.7, 3),
    ]


def test_what_is_drawn_may_be_fixed(document, experiment):
    space = {"search.lr": {"low": 0.1, "high": 1.0}}
    experiment["sweep"] = {"sample": {"samples": 3, "space": space}}
    assert trials(document) == [], "drawn later"
    (trial,) = trials(document, "search.lr=0.5")
    assert trial.search.lr == 0.5


def test_the_sweep_itself(document):
    assert [trial.seed for trial in trials(document, "sweep.grid.seed=[3, 4]")] == [3, 4]
    assert [trial.search.epochs for trial in trials(document, "sweep.grid.search.epochs=[1, 2]")] == [1, 2]


def test_an_experiment_without_a_recipe_gets_no_half_of_one(document, experiment):
    other = experiment | {"name": "other", "pipeline": "DMSp", "pretrain": {"epochs": 3}}
    document["experiments"].append(other)
    first, second = trials(document, "pretrain.lr=0.5")  # without its epochs, which have no default
    assert (first.pretrain, second.pretrain.epochs, second.pretrain.lr) == (None, 3, 0.5)


def test_where_all_lack_it_all_get_it(document):
    assert [trial.resources.gpus for trial in trials(document, "resources.gpus=1")] == [1]


WRONG = [
    ("serach.epochs=2", "--set serach.epochs=2: no field 'serach' of an experiment; did you mean 'search'?"),
    ("name=x", "--set name=x: no field 'name' of an experiment; "),
    ("search.epohcs=2", "--set search.epohcs=2: unknown field; did you mean 'epochs'?"),
    ("search.epochs=two", "--set search.epochs=two: 'two' is not a whole number"),
    ("search={epochs: two}", "--set search={epochs: two}: epochs: 'two' is not a whole number"),
    ("method=dsm", "--set method=dsm: unknown method 'dsm'; did you mean 'dms'?"),
    ("tyos:seed=1", "--set tyos:seed=1: no experiment 'tyos'; did you mean 'toys'?"),
    ("seed", "--set seed: write PATH=VALUE, such as search.epochs=2 or EXPERIMENT:search.epochs=2"),
    ("search..epochs=2", "--set search..epochs=2: write PATH=VALUE"),
    ("search.epochs=[", "--set search.epochs=[: line 1, column 2: "),
    ("seed.value=1", "--set seed.value=1: {'value': 1} is not a whole number"),
    ("supernet.model.size=1", "--set supernet.model.size=1: 'model' is 'net', which has no fields"),
]


@pytest.mark.parametrize(("text", "line"), WRONG)
def test_what_is_wrong_is_one_line_with_the_path(document, text, line):
    with pytest.raises(UserError) as caught:
        trials(document, text)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_methods_that_refuse_a_field_in_their_own_words_are_one_line(document, experiment):
    experiment["sweep"] = {"grid": {"method": ["dms", "random"]}}
    with pytest.raises(UserError) as caught:
        trials(document, "method.temprature=1")
    assert str(caught.value).startswith("--set method.temprature=1: unknown field; did you mean 'temperature'")
    assert "\n" not in str(caught.value)


def test_what_is_wrong_in_the_file_is_not_blamed_on_a_change(document, experiment):
    experiment["retrain"]["epochs"] = "ten"
    with pytest.raises(UserError) as caught:
        trials(document, "search.epochs=3")
    assert str(caught.value) == "experiments[0].retrain.epochs: 'ten' is not a whole number"


def test_a_suite_that_decides_may_be_given_its_seeds(document, experiment):
    document["compare"] = [["dms", "random"]]
    experiment["sweep"] = {"grid": {"method": ["dms", "random"], "seed": {"until": "decided", "margin": 1.0}}}
    assert [trial.seed for trial in trials(document, "seed=1")] == [1, 1]


def test_a_request_is_handed_on_as_words():
    request = read_request(["search.epochs=2", "a:seed=1"], ["method=dms", "seed=0,1", "seed=2"])
    assert request.words == [
        *("--set", "search.epochs=2", "--set", "a:seed=1"),
        *("--only", "method=dms", "--only", "seed=0,1,2"),
    ]
    texts = request.words[1::2]
    assert read_request(texts[:2], texts[2:]) == request


def test_a_file_is_not_changed(document, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps(document))
    before = path.read_bytes()
    suite = load_suite(path, request=read_request(["search.epochs=9"]))
    assert [trial.search.epochs for trial in resolve(suite)] == [9]
    assert path.read_bytes() == before
