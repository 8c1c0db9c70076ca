"""What a site file is laid over, and what is laid over it."""

import json

import pytest

from dms_bench.config import load_suite, read_request, resolve
from dms_bench.config.site import own_site_file, read_site
from dms_bench.errors import UserError


@pytest.fixture
def load(document, tmp_path):
    """Load the suite with a site file and changes."""

    def load(site, *changes, **options):
        (tmp_path / "suite.yaml").write_text(json.dumps(document))
        (tmp_path / "site.yaml").write_text(site)
        request = read_request(changes, site=tmp_path / "site.yaml")
        return load_suite(tmp_path / "suite.yaml", request=request, **options)

    return load


def test_it_says_where_trials_run_and_results_go(load, document, experiment):
    document |= {"storage": "here", "resources": {"gpus": 2, "cpus": 3}}
    experiment["resources"] = {"workers": 4}
    suite = load("storage: /shared/runs\ntracking: http://mlflow:5000\nresources: {gpus: 1, workers: 2}\n")
    assert (suite.storage, suite.tracking) == ("/shared/runs", "http://mlflow:5000")
    (trial,) = resolve(suite)
    assert (trial.resources.workers, trial.resources.gpus, trial.resources.cpus) == (2, 1, 3)


def test_changes_are_laid_over_it(load):
    (trial,) = resolve(load("resources: {gpus: 1, cpus: 8}\n", "resources.gpus=0.5"))
    assert (trial.resources.gpus, trial.resources.cpus) == (0.5, 8)


def test_it_changes_no_hash(load):
    (plain,), (placed,) = resolve(load("")), resolve(load("{storage: /x, resources: {gpus: 1, workers: 2}}"))
    assert plain.hash == placed.hash


WRONG = [
    ("{storge: x}", "storge: unknown field; did you mean 'storage'?"),
    ("{resources: {gpus: many}}", "resources.gpus: 'many' is not a number"),
    ("{data: {roots: [x]}}", "data.roots: ['x'] is not a mapping"),
    ("{data: {workers: -1}}", "data.workers: -1 must be at least 0"),
    ("[x]", "a site file is a mapping with some of data, resources, storage, tracking"),
]


@pytest.mark.parametrize(("text", "line"), WRONG)
def test_what_is_wrong_is_a_line(tmp_path, text, line):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_site(path)
    assert str(caught.value) == f"{path}: {line}"


def test_each_mistake_has_a_line(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("{storge: x, data: {wokers: 3}}")
    with pytest.raises(UserError) as caught:
        read_site(path)
    assert len(str(caught.value).splitlines()) == 2


def test_what_does_not_go_with_the_suite_names_the_site_file(load, tmp_path):
    with pytest.raises(UserError, match=r"gpus 0.5 is a fraction, which needs workers: 1 .*\(with .*site\.yaml\)$"):
        load("resources: {workers: 2, gpus: 0.5}")


def test_the_users_own_is_taken_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert own_site_file() is None
    own = tmp_path / "config" / "dms_bench" / "site.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("storage: /own")
    assert own_site_file() == own
    assert read_request(here=True).site.storage == "/own"
    assert read_request().site.storage is None
    other = tmp_path / "other.yaml"
    other.write_text("storage: /other")
    assert read_request(site=other, here=True).site.storage == "/other"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_site_file() is None
    (tmp_path / "config").rename(tmp_path / ".config")
    assert own_site_file() == tmp_path / ".config" / "dms_bench" / "site.yaml"
