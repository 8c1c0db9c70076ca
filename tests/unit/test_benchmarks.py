"""Every suite that we ship is valid, as it stands, as its profiles and as their smoke variants."""

import csv
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from dms_bench.config import load_suite, profile_names, resolve, suite_schema
from dms_bench.config.document import read_document

ROOT = Path(__file__).parents[2]
SUITES = [path for path in sorted((ROOT / "benchmarks").rglob("*.yaml")) if "experiments" in read_document(path)]
NAMES = [str(path.relative_to(ROOT)) for path in SUITES]


def test_there_are_suites():
    assert "benchmarks/quick.yaml" in NAMES


@pytest.mark.parametrize("path", SUITES, ids=NAMES)
def test_a_suite_is_valid_and_says_what_it_is(path):
    suite = load_suite(path)
    assert suite.description
    assert resolve(suite) or any(experiment.sweep.sample for experiment in suite.experiments)
    assert suite.tracking == "sqlite:///mlflow.db"
    assert suite.storage == "runs"


@pytest.mark.parametrize("path", SUITES, ids=NAMES)
def test_a_suite_has_a_smoke_variant_that_is_less_work(path):
    for profile in (None, *profile_names(path)):
        whole, smoke = load_suite(path, profile=profile), load_suite(path, profile=profile, smoke=True)
        assert smoke.name == f"{whole.name}-smoke"
        size = len if all(_has_weights(trial) for trial in resolve(whole)) else _epochs_of
        assert size(resolve(smoke)) < size(resolve(whole))


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(suite_schema())


@pytest.mark.parametrize("path", SUITES, ids=NAMES)
def test_the_json_schema_takes_a_suite_as_it_stands(path, validator):
    validator.validate(read_document(path))


def test_suites_do_not_share_a_name():
    names = [load_suite(path).name for path in SUITES]
    assert len(set(names)) == len(names)


def _has_weights(trial):
    """Whether a trial comes with weights, in whose place its smoke variant trains for an epoch."""
    return trial.supernet.pretrained or trial.supernet.checkpoint is not None


def _epochs_of(trials):
    return sum(map(_epochs, trials))


def _epochs(trial):
    return sum(recipe.epochs for recipe in (trial.pretrain, trial.search, trial.retrain) if recipe)


@pytest.mark.slow
def test_the_measurements_for_a_gpu_run_without_one(tmp_path):
    command = [
        "--csv",
        str(tmp_path / "gpu.csv"),
        "--device",
        "cpu",
        "--smoke",
        "--part",
        "agreement",
        "--part",
        "steps",
    ]
    subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu" / "measure.py", *command], check=True, cwd=ROOT)
    with (tmp_path / "gpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    differences = [float(row["value"]) for row in rows if row["measure"].startswith("relative difference")]
    assert len(differences) == 4
    assert max(differences) < 1e-5
    ratios = {row["measure"]: float(row["value"]) for row in rows if row["measure"].endswith("/ plain step")}
    assert len(ratios) == 3
    assert all(ratio > 0 for ratio in ratios.values())
