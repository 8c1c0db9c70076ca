import pytest

from dms_bench.config import Range, Trial, grid_points, parse_suite, resolve, resolve_sample, sample_space
from dms_bench.config.suite import TRIAL_FIELDS
from dms_bench.errors import UserError


@pytest.fixture
def trials(document, experiment):
    """Resolve the suite with this sweep, or with these changes of its experiment."""

    def trials(**grid):
        experiment["sweep"] = {"grid": {field.replace("__", "."): values for field, values in grid.items()}}
        return resolve(parse_suite(document))

    return trials


def test_an_experiment_has_the_fields_of_a_trial():
    of_suite, filled_in = {"experiment", "version"}, {"content"}
    assert set(TRIAL_FIELDS) == set(Trial.model_fields) - of_suite - filled_in


def test_every_combination_once_in_the_order_of_the_file(trials):
    found = trials(method=["dms", "random"], budget=[{"kind": "macs", "target": "30%"}], seed=[2, 0, 2])
    assert [(trial.method.kind, trial.seed) for trial in found] == [
        ("dms", 2),
        ("dms", 0),
        ("random", 2),
        ("random", 0),
    ]


def test_a_dotted_field_is_set_after_its_parent(trials):
    found = trials(method__temperature=[1, 2], method=["dms", {"kind": "dms", "importance": "snip"}])
    assert [(trial.method.temperature, trial.method.importance) for trial in found] == [
        (1, "taylor"),
        (1, "snip"),
        (2, "taylor"),
        (2, "snip"),
    ]


def test_a_dotted_field_leaves_its_neighbours(trials, document):
    found = trials(supernet__args__depth=[1, 2], retrain__lr=["1e-3"])
    assert [trial.supernet.args for trial in found] == [{"width": [8, 8], "depth": depth} for depth in (1, 2)]
    assert {(trial.retrain.epochs, trial.retrain.lr) for trial in found} == {(10, 0.001)}
    assert document["experiments"][0]["supernet"]["args"] == {"width": [8, 8]}


def test_what_cannot_matter_makes_no_second_trial(trials, experiment):
    budgets = [{"kind": "macs", "target": "30%"}, {"kind": "params", "target": "50%"}]
    (whole,) = trials(method=["whole"], budget=budgets)
    assert (whole.budget.kind, whole.budget.target) == ("macs", 1.0)
    assert len(trials(method=["random"], search__epochs=[1, 2])) == 1
    assert len(trials(method=["dms"], search__epochs=[1, 2])) == 2
    experiment["pretrain"] = {"epochs": 1}
    assert len(trials(pretrain__epochs=[1, 2])) == 1
    assert len(trials(pretrain__epochs=[1, 2], pipeline=["DMSp"])) == 2
    assert len(trials(retrain__epochs=[1, 2], pipeline=["DMSp-"])) == 1


def test_where_a_trial_runs_is_not_in_its_hash(trials, document, experiment):
    (one,) = trials()
    document["resources"] = {"workers": 2, "cpus": 3}
    experiment["resources"] = {"cpus": 4}
    (other,) = trials()
    assert (other.resources.workers, other.resources.cpus) == (2, 4)
    assert one.hash == other.hash


def test_whatever_decides_the_result_is_in_the_hash(trials, experiment):
    (one,) = trials()
    hashes = {one.hash}
    experiment["pretrain"] = {"epochs": 3}  # DMSnp has no use for it
    for field, value in {
        "name": "other",
        "task": {"kind": "toy", "data": {"name": "lines"}},
        "supernet": {"model": "other"},
        "pipeline": "DMSp",
        "pretrain": {"epochs": 4},
        "budget": {"kind": "params", "target": "30%"},
        "search": {"epochs": 3},
        "retrain": {"epochs": 11},
        "seed": 1,
        "method": "random",
    }.items():
        experiment[field] = value
        (trial,) = trials()
        assert trial.hash not in hashes, field
        hashes.add(trial.hash)


def test_a_changed_copy_has_a_hash_of_its_own(trials):
    (one,) = trials()
    known = one.hash
    assert one.model_copy(update={"seed": 1}).hash != known
    assert one.model_copy().hash == one.hash == known


def test_the_order_of_fields_is_not_in_the_hash(trials, document, experiment):
    (one,) = trials()
    document["experiments"] = [dict(reversed(experiment.items()))]
    (other,) = resolve(parse_suite(document))
    assert one.hash == other.hash


def test_a_name_ends_in_the_hash_and_is_a_file_name(trials):
    (trial,) = trials()
    assert trial.name == f"toys-dms-macs30pct-s0-{trial.hash}"


@pytest.fixture
def sampled(document, experiment):
    experiment["sweep"] = {
        "grid": {"seed": [0, 1]},
        "sample": {
            "samples": 5,
            "algorithm": "optuna",
            "scheduler": {"grace_epochs": 2},
            "space": {
                "method.temperature": {"low": 0.5, "high": 4, "log": True},
                "retrain.epochs": {"low": 5, "high": 10},
                "method.importance": ["taylor", "snip"],
            },
        },
    }
    return parse_suite(document)


def test_a_sampled_experiment_is_resolved_sample_by_sample(sampled):
    (experiment,) = sampled.experiments
    assert resolve(sampled) == []
    assert grid_points(experiment) == [{"seed": 0}, {"seed": 1}]
    space = sample_space(experiment)
    assert space["method.importance"] == ["taylor", "snip"]
    assert space["method.temperature"] == Range(low=0.5, high=4, log=True)
    assert (space["method.temperature"].whole, space["retrain.epochs"].whole) == (False, True)
    values = {"method.temperature": 1.25, "retrain.epochs": 7, "method.importance": "snip"}
    trial = resolve_sample(sampled, experiment, {"seed": 1}, values)
    assert (trial.seed, trial.retrain.epochs) == (1, 7)
    assert (trial.method.temperature, trial.method.importance) == (1.25, "snip")


def test_a_sample_that_is_not_valid_is_a_clear_error(sampled):
    with pytest.raises(UserError, match=r"^experiments\[0\]\.sweep\.retrain\.epochs: 'x' is not a whole number$"):
        resolve_sample(sampled, sampled.experiments[0], {}, {"retrain.epochs": "x"})


def test_an_experiment_without_sampling_has_no_space(document):
    assert sample_space(parse_suite(document).experiments[0]) == {}


def test_large_grids(trials):
    assert len(trials(seed=list(range(1000)), method=["dms", "random"])) == 2000
