import json
import subprocess
import sys
from pathlib import Path

import pytest

from dms_bench import cli
from dms_bench.errors import TrialFailure, UserError

SUITE = """
name: tiny
description: Two trials.
smoke:
  retrain: {epochs: 1}
experiments:
  - name: toys
    task: {kind: classification, data: {name: digits}, image_size: 16, channels: 1}
    supernet: {model: resnet18, args: {channels: [8, 8, 8, 8]}}
    budget: {kind: macs, target: 30%}
    search: {epochs: 2, lr: 0.1}
    retrain: {epochs: 5, lr: 0.1}
    sweep: {grid: {method: [dms, random]}}
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("benchmarks/tiny.yaml")
    path.parent.mkdir()
    path.write_text(SUITE)
    return path


@pytest.fixture
def dms_bench(capsys):
    """Run the command line in this process: exit code, standard output, standard error."""

    def dms_bench(*arguments):
        code = cli._main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return dms_bench


def test_without_a_command_it_says_what_there_is(dms_bench):
    code, out, err = dms_bench()
    assert (code, err) == (0, "")
    for command in ("validate", "plan", "run", "ls", "schema", "leaderboard", "show"):
        assert command in out


def test_validate(dms_bench, suite):
    assert dms_bench("validate", suite) == (0, f"{suite}: valid, 2 trials in 1 experiments\n", "")


def test_validate_goes_on_after_a_suite_that_is_not_valid(dms_bench, suite):
    bad = suite.with_name("bad.yaml")
    bad.write_text(SUITE.replace("name: tiny", "nam: tiny"))
    code, out, err = dms_bench("validate", bad, suite)
    assert code == 2
    assert out.startswith(f"{suite}: valid")
    assert err.splitlines() == [f"error: {bad}: nam: unknown field; did you mean 'name'?"]
    bad.write_text(SUITE.replace("epochs: 1}", "epochs: one}"))
    assert dms_bench("validate", bad)[2] == f"error: {bad}: smoke.retrain.epochs: 'one' is not a whole number\n"


def test_plan(dms_bench, suite):
    code, out, err = dms_bench("plan", suite)
    assert (code, err) == (0, "")
    assert "2 trials" in out
    assert "search 2 x" in out
    assert "retrain 5 x" in out
    assert "retrain 1 x" in dms_bench("plan", suite, "--smoke")[1]


def test_ls(dms_bench, suite):
    suite.with_name("published.yaml").write_text("table: 2")
    suite.with_name("wrong.yaml").write_text("experiments: 3")
    code, out, _ = dms_bench("ls")
    assert code == 0
    for word in ("classification", "dms", "random", "benchmarks/tiny.yaml", "Two trials.", "not valid"):
        assert word in out
    assert "published" not in out
    assert "benchmarks" not in dms_bench("ls", "methods")[1]


def test_schema(dms_bench, tmp_path):
    code, out, _ = dms_bench("schema")
    assert code == 0
    assert "experiments" in json.loads(out)["properties"]
    file = tmp_path / "suite.json"
    assert dms_bench("schema", "--output", file) == (0, f"wrote {file}\n", "")
    assert file.read_text() == out


def test_run_hands_over_the_suite_and_returns_its_exit_code(dms_bench, suite, monkeypatch):
    from dms_bench.runtime import run

    calls = []
    monkeypatch.setattr(run, "run_suite", lambda suite, fresh: calls.append((suite.name, fresh)) or 1)
    assert dms_bench("run", suite)[0] == 1
    assert dms_bench("run", suite, "--smoke", "--fresh")[0] == 1
    assert calls == [("tiny", False), ("tiny-smoke", True)]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("one\ntwo"), 2, "error: one\nerror: two\n"),
        (TrialFailure("the disk is full"), 1, "error: the disk is full\n"),
        (KeyboardInterrupt(), 1, "error: interrupted\n"),
    ],
)
def test_known_ends_have_a_line_and_a_code(dms_bench, suite, monkeypatch, error, code, line):
    from dms_bench.runtime import run

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(run, "run_suite", fail)
    assert dms_bench("run", suite) == (code, "", line)


def test_a_mistake_of_ours_keeps_its_traceback(dms_bench, suite, monkeypatch):
    from dms_bench.runtime import run

    monkeypatch.setattr(run, "run_suite", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dms_bench("run", suite)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["rn"], "No such command 'rn'. Did you mean 'run'?"),
        (["run", "--smok", "x"], "No such option: --smok (Possible options: --smoke)"),
        (["run"], "Missing argument 'SUITE'."),
        (["run", "benchmarks/tinny.yaml"], "benchmarks/tinny.yaml: no such file; did you mean 'benchmarks/tiny.yaml'?"),
        (["ls", "tusks"], "there is nothing called 'tusks' to list; did you mean 'tasks'?"),
        (["schema", "--output", "no/folder/x.json"], "no/folder/x.json: No such file or directory"),
    ],
)
def test_bad_command_lines_are_one_line(dms_bench, suite, arguments, line):
    code, out, err = dms_bench(*arguments)
    assert (code, out, err) == (2, "", f"error: {line}\n")


@pytest.fixture
def board(monkeypatch):
    """A report that needs no results."""
    from rich.text import Text

    from dms_bench import report

    asked = []
    monkeypatch.setattr(report, "leaderboard", lambda uri, suite: asked.append((uri, suite)) or [])
    formats = {"table": Text("a table"), "csv": "task,mean\n", "html": "<html></html>"}
    monkeypatch.setattr(report, "render", lambda rows, format, title: formats[format])
    return asked


def test_leaderboard(dms_bench, board, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert dms_bench("leaderboard") == (0, "a table\n", "")
    assert dms_bench("leaderboard", "--format", "csv", "--suite", "quick")[1] == "task,mean\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    for format, content in (("html", "<html></html>\n"), ("table", "a table\n")):
        file = tmp_path / format
        assert dms_bench("leaderboard", "--format", format, "--output", file)[:2] == (0, f"wrote {file}\n")
        assert file.read_text() == content
    server = "http://127.0.0.1:5000"
    assert board == [("sqlite:///mlflow.db", None), ("sqlite:///mlflow.db", "quick"), (server, None), (server, None)]


def in_a_process(*arguments):
    command = [sys.executable, "-m", "dms_bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_exit_codes_of_the_process(suite):
    good = in_a_process("validate", suite)
    assert (good.returncode, good.stderr) == (0, "")
    bad = in_a_process("validate", "none.yaml")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: none.yaml: no such file")


def test_reading_suites_imports_nothing_heavy(suite):
    code = (
        "import sys; from dms_bench import cli; cli._main(['validate', sys.argv[1]]); cli._main(['schema']);"
        "print(sorted({'torch', 'ray', 'mlflow', 'timm', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(suite)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
