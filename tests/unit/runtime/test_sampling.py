"""Sampled sweeps go on where they stopped, with the same samples."""

import hashlib
import json

import pytest

from dms_bench.config import parse_suite
from dms_bench.runtime.sampling import Sampler, sampled_sweeps


def _suite(algorithm="random", samples=6, seed=0, space=None):
    return parse_suite(
        {
            "name": "sampled",
            "experiments": [
                {
                    "name": "toy",
                    "task": {"kind": "toy"},
                    "supernet": {"model": "mlp"},
                    "budget": {"kind": "macs", "target": "50%"},
                    "method": "half",
                    "search": {"epochs": 1},
                    "retrain": {"epochs": 1},
                    "sweep": {
                        "grid": {"seed": [0, 1]},
                        "sample": {
                            "algorithm": algorithm,
                            "samples": samples,
                            "seed": seed,
                            "space": space
                            or {
                                "retrain.lr": {"low": 0.001, "high": 1.0, "log": True},
                                "retrain.steps": [2, 4],
                            },
                        },
                    },
                }
            ],
        }
    )


def _sweep(folder, **options):
    return next(iter(sampled_sweeps(_suite(**options), folder)))


def _drain(sampler, ends_after=None):
    trials = []
    while len(trials) != ends_after and (trial := sampler.next()) is not None:
        trials.append(trial)
        sampler.tell(trial.hash, trial.retrain.lr)
    return trials


def test_there_is_a_sweep_per_point_of_the_grid(tmp_path):
    sweeps = list(sampled_sweeps(_suite(), tmp_path))
    assert [sweep.example.seed for sweep in sweeps] == [0, 1]
    assert len({sweep._path for sweep in sweeps}) == 2


def _pictures(folder, **data):
    """A sweep over a task whose data may lie anywhere."""
    experiment = {
        "name": "pictures",
        "task": {"kind": "classification", "data": {"name": "timm", "classes": 5, **data}},
        "supernet": {"model": "resnet18"},
        "budget": {"kind": "macs", "target": "50%"},
        "method": "l1",
        "pipeline": "DMSp",
        "pretrain": {"epochs": 1, "lr": 0.1},
        "retrain": {"epochs": 1, "lr": 0.1},
        "sweep": {"sample": {"samples": 3, "space": {"retrain.lr": {"low": 0.1, "high": 1.0}}}},
    }
    suite = parse_suite({"name": "sampled", "experiments": [experiment]})
    return next(iter(sampled_sweeps(suite, folder)))


def test_samples_are_the_same_wherever_the_data_lie(tmp_path):
    _pictures(tmp_path, root="/a/cars").note({"retrain.lr": 0.5})
    assert _pictures(tmp_path, root="/b/cars", workers=9).drawn == [{"retrain.lr": 0.5}]
    assert _pictures(tmp_path, root="/a/birds").drawn == []


def test_samples_of_a_version_before_are_found(tmp_path):
    """Their list was named after all of the experiment, but for the number of samples and the grid."""
    experiment = _pictures(tmp_path, root="/a/cars").experiment.model_dump(mode="json")
    del experiment["sweep"]["sample"]["samples"], experiment["sweep"]["grid"]
    text = json.dumps([experiment, {}], sort_keys=True)
    path = tmp_path / "samples" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    path.parent.mkdir()
    path.write_text('[{"retrain.lr": 0.25}]')
    assert _pictures(tmp_path, root="/a/cars").drawn == [{"retrain.lr": 0.25}]


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_samples_lie_in_the_space_and_differ(tmp_path, algorithm):
    trials = _drain(Sampler(_sweep(tmp_path, algorithm=algorithm), {}, True))
    assert len({trial.hash for trial in trials}) == 6
    assert all(0.001 <= trial.retrain.lr <= 1 and trial.retrain.steps in (2, 4) for trial in trials)
    assert [trial.hash for trial in _sweep(tmp_path, algorithm=algorithm).trials] == [trial.hash for trial in trials]


def test_random_samples_are_the_same_whether_interrupted_or_not(tmp_path):
    whole = _drain(Sampler(_sweep(tmp_path / "whole"), {}, True))
    first = _drain(Sampler(_sweep(tmp_path / "parts"), {}, True), ends_after=3)
    # The third was under way when the driver died: it comes first, then what had not been drawn.
    finished = {trial.hash: 0.5 for trial in first[:2]}
    sampler = Sampler(_sweep(tmp_path / "parts"), finished, True)
    assert sampler.left == 4
    rest = _drain(sampler)
    assert rest[0] == first[2]
    assert [trial.hash for trial in [*first, *rest[1:]]] == [trial.hash for trial in whole]


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_values_that_are_not_valid_together_are_drawn_again(tmp_path, algorithm):
    """Each of these is valid beside the other's first."""
    space = {"pipeline": ["DMSnp", "DMSp"], "pretrain": [{"epochs": 1}, None], "retrain.lr": {"low": 0.1, "high": 1.0}}
    trials = _drain(Sampler(_sweep(tmp_path, space=space, samples=20, algorithm=algorithm), {}, True))
    assert len(trials) == 20
    assert {(trial.pipeline, trial.pretrain is None) for trial in trials} == {("DMSnp", True), ("DMSp", False)}
    assert _sweep(tmp_path, space=space, samples=20, algorithm=algorithm).trials == trials


def test_all_that_was_drawn_is_known_when_fewer_are_wanted(tmp_path):
    trials = _drain(Sampler(_sweep(tmp_path), {}, True))
    fewer = _sweep(tmp_path, samples=2)
    assert (fewer.trials, fewer.all_drawn) == (trials[:2], trials)


def test_a_sweep_that_is_forgotten_is_drawn_anew(tmp_path):
    sweep = _sweep(tmp_path)
    first = _drain(Sampler(sweep, {}, True))
    sweep.forget()
    assert sweep.trials == _sweep(tmp_path).trials == []
    assert _drain(Sampler(sweep, {}, True)) == first
    assert _sweep(tmp_path).trials == first


def test_more_samples_go_on_from_those_there_are_another_space_does_not(tmp_path):
    first = _drain(Sampler(_sweep(tmp_path, samples=3), {}, True))
    more = _sweep(tmp_path, samples=5)
    assert more.trials == first
    assert _sweep(tmp_path, seed=1).trials == []


def test_optuna_learns_from_what_an_earlier_run_found(tmp_path):
    """With finished samples that favour large rates, the next ones are larger than drawn at random."""
    sweep = _sweep(tmp_path, algorithm="optuna", samples=40, space={"retrain.lr": {"low": 0.0, "high": 1.0}})
    known = {}
    for number in range(20):
        parameters = {"retrain.lr": number / 20}
        sweep.note(parameters)
        known[sweep.trial(parameters).hash] = number / 20
    fresh = _drain(
        Sampler(
            _sweep(tmp_path, algorithm="optuna", samples=40, space={"retrain.lr": {"low": 0.0, "high": 1.0}}),
            known,
            True,
        )
    )
    assert len(fresh) == 20
    assert sum(trial.retrain.lr for trial in fresh) / 20 > 0.7


def test_a_space_smaller_than_the_number_of_samples_is_drawn_once(tmp_path):
    sweep = _sweep(tmp_path, samples=50, space={"retrain.steps": [1, 2, 4], "retrain.lr": [0.1, 0.2]})
    assert len(_drain(Sampler(sweep, {}, True))) == 6
