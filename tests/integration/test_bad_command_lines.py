"""Whatever is wrong with a command line, it ends in lines that begin with `error: `, and never in a traceback."""

import contextlib
import copy
import io
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_bench import cli

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing answers there
SUITE = {
    "name": "tiny",
    "experiments": [
        {
            "name": "toys",
            "task": {"kind": "classification", "data": {"name": "digits"}, "image_size": 16},
            "supernet": {"model": "resnet18", "args": {"channels": [8, 8, 8, 8]}},
            "budget": {"kind": "macs", "target": "30%"},
            "method": "random",
            "retrain": {"epochs": 1, "lr": 0.1},
        }
    ],
}
DATA = {"name": "timm", "root": "no/such/folder", "classes": 3}

#: File name -> changes to the only experiment.
SUITES = {
    "good": {},
    "unknown-model": {"supernet": {"model": "resnet81"}},
    "unknown-argument": {"supernet": {"model": "resnet18", "args": {"chanels": 3}}},
    "greedy": {"budget": {"kind": "macs", "target": "0.001%"}},
    "vast": {"budget": {"kind": "params", "target": "900G"}},
    "no-data": {"task": {"kind": "classification", "data": DATA}},
    "no-checkpoint": {"pipeline": "DMSp", "supernet": {"model": "resnet18", "checkpoint": "none.safetensors"}},
    "huge-batch": {"retrain": {"epochs": 1, "lr": 0.1, "batch_size": 10**6}},
    "unknown-optimizer": {"retrain": {"epochs": 1, "lr": 0.1, "opt": "sdg"}},
    "unknown-method": {"method": "dsm"},
}

#: Command line -> what the message names. `{}.yaml` are the suites above.
WRONG = {
    "rn good.yaml": "No such command 'rn'. Did you mean 'run'?",
    "run good.yaml --smok": "--smok",
    "run good.yaml good.yaml": "unexpected extra argument",
    "run good.yaml --smoke": "smoke: missing",
    "run .": "directory",
    "run binary": "binary",
    "run broken.yaml": "broken.yaml",
    "run empty.yaml": "is empty",
    "run god.yaml": "did you mean 'good.yaml'",
    "run unknown-model.yaml": "no model 'resnet81'; did you mean 'resnet18'",
    "run unknown-argument.yaml": "chanels",
    "run unknown-method.yaml": "unknown method 'dsm'; did you mean 'dms'?",
    "run greedy.yaml": "out of reach",
    "run vast.yaml": "out of reach",
    "run no-data.yaml": "no/such/folder",
    "run no-checkpoint.yaml": "none.safetensors",
    f"run good.yaml --tracking {NOBODY}": NOBODY,
    "run good.yaml --tracking ftp://127.0.0.1/": "ftp",
    "run huge-batch.yaml": "batch_size 1000000 is more than the 1",
    "run unknown-optimizer.yaml": "'sdg'",
    "run good.yaml --storage binary": "binary",
    "plan unknown-model.yaml": "resnet81",
    "plan unknown-optimizer.yaml": "retrain: opt: timm has no optimiser 'sdg'",
    "plan vast.yaml": "more than the whole",
    "plan no-data.yaml": "no/such/folder",
    "validate good.yaml unknown-method.yaml nothing.yaml": "nothing.yaml: no such file",
    "table 6": "benchmarks/paper/published.yaml: no such file; run this in a clone of dms_bench",
    "ls tusks": "did you mean 'tasks'?",
    "schema --output no/folder/schema.json": "No such file or directory",
    "schema --output .": "Is a directory",
    "leaderboard --format pdf": "'pdf' is not one of 'table', 'markdown', 'csv', 'html'",
    "leaderboard --tracking sqlite:///none.db": "none.db",
    f"leaderboard --tracking {NOBODY}": NOBODY,
    "show x --tracking sqlite:///binary": "binary",
    "show": "Missing argument 'TRIAL'",
    "export x": "Missing option '--output'",
    "export x --output out --tracking sqlite:///none.db": "none.db",
    "submit good.yaml --address 127.0.0.1": "http://127.0.0.1:8265",
    f"submit good.yaml --address {NOBODY}": "no Ray cluster answers",
    "submit /etc/hostname": "",
    "space resnet81": "did you mean 'resnet18'",
    "space resnet18 --image-size 1 --arg output_stride=7": "resnet18",
    "space test_vit --arg img_size=3": "img_size",
    "space vit_tiny_patch16_224 --image-size 8": "cannot take images of 3 x 8 x 8",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, changes in SUITES.items():
        experiment = SUITE["experiments"][0] | changes
        Path(f"{name}.yaml").write_text(yaml.safe_dump({**SUITE, "experiments": [experiment]}))
    Path("binary").write_bytes(bytes(range(256)))
    Path("broken.yaml").write_text("name: [tiny\n\texperiments: }")
    Path("empty.yaml").write_text("")
    return tmp_path


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_named_without_a_traceback(folder, capfd, line):
    code = cli._main(line.split())
    out, err = capfd.readouterr()
    assert code == 2, out + err
    assert WRONG[line] in err
    assert all(text.startswith("error: ") for text in err.splitlines()), err
    assert "Traceback" not in out + err
    assert not Path("runs/tiny/trials").exists()


VOCABULARY = r"""
validate ls leaderboard show export submit run plan space schema -h --help --version --smoke --fresh --suite --format
--output --tracking --address --arg --exclude --image-size = x= -- - 0 -1 nan json csv methods tasks {} % $HOME
none.yaml ../x /dev/null sqlite:// sqlite:///none.db http://
"""
WORDS = st.sampled_from([*VOCABULARY.split(), "", " ", "\u0000", "\u200b"])


#: How many cases are tried: some always, many among the slow tests.
CASES = pytest.mark.parametrize("cases", [150, pytest.param(1000, marks=pytest.mark.slow)])


@CASES
def test_no_sequence_of_words_ends_in_a_traceback(tmp_path_factory, cases):
    @given(st.lists(WORDS, max_size=6))
    @settings(max_examples=cases, deadline=None)
    def check(words):
        out, err = io.StringIO(), io.StringIO()
        folder = contextlib.chdir(tmp_path_factory.mktemp("words"))
        with folder, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli._main(words)
        assert code in (0, 2)
        assert bool(err.getvalue()) == (code == 2)

    check()


def _places(node, path=()):
    """Yield the path of every value in a document."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from _places(child, (*path, key))


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["", "30%"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@CASES
def test_no_value_in_a_suite_ends_in_a_traceback(tmp_path_factory, cases):
    @given(st.sampled_from([place for place in _places(SUITE) if place]), VALUES)
    @settings(max_examples=cases, deadline=None)
    def check(place, value):
        suite = copy.deepcopy(SUITE)
        node = suite
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value
        path = tmp_path_factory.mktemp("suite") / "suite.yaml"
        path.write_text(yaml.safe_dump(suite))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli._main(["validate", str(path)])
        assert code in (0, 2)
        assert all(line.startswith("error: ") for line in err.getvalue().splitlines())

    check()
