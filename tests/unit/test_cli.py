import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dms_bench import cli
from dms_bench.config.request import NOTHING
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
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
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
    words = {line.split()[1] for line in out.splitlines() if line.startswith("│") and len(line.split()) > 2}
    commands = "validate plan run submit ls schema leaderboard show export space doctor"
    assert set(commands.split()) <= words


def test_validate(dms_bench, suite):
    assert dms_bench("validate", suite) == (0, f"{suite}: valid, 2 trials in 1 experiment\n", "")


def test_validate_takes_settings(dms_bench, suite):
    suite.write_text(SUITE + "profiles: {full: {defaults: {sweep: {grid: {seed: [0, 1, 2]}}}}}\n")
    assert dms_bench("validate", suite)[1] == f"{suite}: valid, 2 trials in 1 experiment; profile full: 6\n"
    assert dms_bench("validate", suite, "--profile", "full")[1] == f"{suite}: valid, 6 trials in 1 experiment\n"
    chosen = ("--profile", "full", "--only", "method=dms", "--only", "seed=0,2")
    assert dms_bench("validate", suite, *chosen)[1] == f"{suite}: valid, 2 trials in 1 experiment\n"
    code, out, err = dms_bench("validate", suite, "--set", "search.epohcs=3")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {suite}: --set search.epohcs=3: unknown field; did you mean 'epochs'")
    assert err.count("\n") == 1


def test_the_plan_is_that_of_the_settings(dms_bench, suite):
    code, out, err = dms_bench("plan", suite, "--set", "search.epochs=7", "--only", "method=dms")
    assert (code, err) == (0, "")
    assert "search 7 x" in out
    assert "random" not in out
    assert out.splitlines()[-1].startswith("1 trial, ")


def test_a_site_file_is_used_and_named(dms_bench, suite, monkeypatch):
    from dms_bench.runtime import run

    calls = []
    monkeypatch.setattr(run, "run_suite", lambda suite, *, fresh: calls.append(suite) or 0)
    own, given = Path("config/dms_bench/site.yaml"), Path("site.yaml")
    own.parent.mkdir(parents=True)
    own.write_text("{storage: /own, tracking: 'http://own:5000'}")
    given.write_text("resources: {cpus: 3}")
    code, out, err = dms_bench("plan", suite)
    assert (code, out.splitlines()[0], err) == (0, f"site: {own.absolute()}", "")
    assert dms_bench("run", suite, "--tracking", "http://other:5000")[1] == f"site: {own.absolute()}\n"
    assert dms_bench("run", suite, "--site", given)[1] == "site: site.yaml\n"
    own.unlink()
    assert dms_bench("run", suite)[1] == ""
    assert [(made.storage, made.tracking) for made in calls] == [
        ("/own", "http://other:5000"),
        *[("runs", "sqlite:///mlflow.db")] * 2,
    ]
    assert dms_bench("plan", suite, "--site", "stie.yaml")[2].startswith("error: stie.yaml: no such file; did you mean")


def test_the_store_of_the_environment_is_that_of_every_command(dms_bench, suite, monkeypatch):
    from dms_bench.runtime import run

    calls = []
    monkeypatch.setattr(run, "run_suite", lambda suite, *, fresh: calls.append(suite.tracking) or 0)
    server = "http://ann:s3cret@127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    said = "tracking: http://***@127.0.0.1:5000, by MLFLOW_TRACKING_URI\n"
    assert dms_bench("run", suite) == (0, said, "")
    suite.write_text(f"{SUITE}tracking: http://suites:5000\n")
    Path("site.yaml").write_text("tracking: http://sites:5000")
    assert dms_bench("run", suite, "--site", "site.yaml")[1].endswith(said)
    assert dms_bench("run", suite, "--tracking", "http://asked:5000") == (0, "", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert dms_bench("run", suite) == (0, "", "")
    assert calls == [server, server, "http://asked:5000", "http://suites:5000"]


def test_a_suite_that_decides_has_a_range_of_trials(dms_bench, suite):
    seeds = "{until: decided, at_least: 3, at_most: 20, margin: 0.3}"
    suite.write_text(SUITE.replace("method: [dms, random]", f"method: [dms, random], seed: {seeds}"))
    assert dms_bench("validate", suite) == (0, f"{suite}: valid, 6 to 40 trials in 1 experiment\n", "")
    assert "6 to 40" in dms_bench("ls", "suites")[1]
    code, out, err = dms_bench("plan", suite, "--effect", 3, "--deviation", 0.2)
    assert (code, err) == (0, "")
    assert out.count("search 2 x") == 3, "a row for each trial that is run in any case"
    least, most, prospects = out.splitlines()[-3:]
    first, last = (float(re.search(r"([0-9.]+e\+[0-9]+) MACs", line)[1]) for line in (least, most))
    assert least.startswith("6 trials, about ")
    assert most.startswith("that is the least; at most 40 trials and ")
    assert last == pytest.approx(first * 20 / 3, rel=0.01)
    assert prospects == (
        "toys at macs 30%, 1 comparison, paired differences with a deviation of 0.2: one of 3 is found with "
        "probability 1.00 (half of them within 3 seeds); none at all is found equal within 0.3 with 0.98 (8 seeds)"
    )


def test_power_is_of_suites_that_decide(dms_bench, suite):
    code, _, err = dms_bench("plan", suite, "--effect", 3)
    assert (code, err) == (2, "error: --effect and --deviation are for suites whose seed is {until: decided}\n")


def test_validate_goes_on_after_a_suite_that_is_not_valid(dms_bench, suite):
    bad = suite.with_name("bad.yaml")
    bad.write_text(SUITE.replace("name: tiny", "nam: tiny"))
    code, out, err = dms_bench("validate", bad, suite)
    assert code == 2
    assert out.startswith(f"{suite}: valid")
    assert err.splitlines() == [f"error: {bad}: nam: unknown field; did you mean 'name'?"]
    bad.write_text(SUITE.replace("epochs: 1}", "epochs: one}"))
    assert dms_bench("validate", bad)[2] == f"error: {bad}: smoke.retrain.epochs: 'one' is not a whole number\n"


def test_columns_are_as_wide_as_their_widest_cell():
    from dms_bench.cli.output import columns

    assert columns(("a", "bb"), [("ccc", "d"), ("e", "")]) == "a    bb\n───  ──\nccc  d\ne"


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


def test_ls_where_there_are_no_suites_says_so(dms_bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dms_bench("ls", "suites")[:2] == (0, "There are no suites in benchmarks/ of this folder.\n")


@pytest.mark.parametrize("columns", [50, 60, 71, 72, 80])
def test_ls_cuts_no_word_in_a_narrow_terminal(dms_bench, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (["ls", "methods"], ["ls", "method", "dms"]):
        code, out, _ = dms_bench(*arguments)
        assert code == 0
        assert "…" not in out
        assert max(map(len, out.splitlines())) <= columns


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
    monkeypatch.setattr(
        run, "run_suite", lambda suite, fresh: calls.append((suite.name, suite.storage, suite.tracking, fresh)) or 1
    )
    assert dms_bench("run", suite)[0] == 1
    assert dms_bench("run", suite, "--smoke", "--fresh")[0] == 1
    assert dms_bench("run", suite, "--storage", "/shared/runs", "--tracking", "http://127.0.0.1:5000")[0] == 1
    here = ("runs", "sqlite:///mlflow.db")
    assert calls == [
        ("tiny", *here, False),
        ("tiny-smoke", *here, True),
        ("tiny", "/shared/runs", "http://127.0.0.1:5000", False),
    ]


def test_submit_hands_over_the_suite_and_returns_the_jobs_exit_code(dms_bench, suite, monkeypatch):
    from dms_bench.runtime import submit

    calls = []
    monkeypatch.setattr(submit, "submit", lambda *given, **options: calls.append((*given, options)) or 1)
    assert dms_bench("submit", suite)[0] == 1
    there = ("--address", "http://ray.example:8265", "--patience", "0.5")
    nothing = {"profile": None, "request": NOTHING}
    assert dms_bench("submit", suite, *there, "--smoke", "--fresh")[0] == 1
    assert calls == [
        (suite, "http://127.0.0.1:8265", nothing | {"smoke": False, "fresh": False, "patience": 600.0}),
        (suite, "http://ray.example:8265", nothing | {"smoke": True, "fresh": True, "patience": 30.0}),
    ]


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a disk without room")
@pytest.mark.parametrize("command", ["ls", "schema"])
def test_output_that_finds_no_room_is_one_line(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dms_bench", command], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "error: No space left on device: what was to be written is not complete\n"


def test_only_files_beside_the_missing_one_and_ours_are_looked_at(dms_bench, suite):
    Path("elsewhere").mkdir()
    Path("elsewhere/tinny.yaml").write_text("")
    for missing in ("tinny.yaml", "../tinny.yaml"):
        assert dms_bench("run", missing)[2] == f"error: {missing}: no such file; did you mean 'benchmarks/tiny.yaml'?\n"
    assert "did you mean 'elsewhere/tinny.yaml'" in dms_bench("run", "elsewhere/tinnny.yaml")[2]


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
    monkeypatch.setattr(
        report, "leaderboard", lambda uri, suite, *, tuned, only: asked.append((uri, suite, tuned, str(only))) or []
    )
    formats = {"table": Text("a table"), "csv": "task,mean\n", "html": "<html></html>"}
    monkeypatch.setattr(report, "render", lambda rows, format, title, *, costs, decided: formats[format])
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
    assert dms_bench("leaderboard", "--tuned", "--only", "method=dms", "--only", "seed=0,1")[0] == 0
    here = "sqlite:///mlflow.db"
    asked = [(here, None), (here, "quick"), (server, None), (server, None)]
    assert board == [*((*each, False, "") for each in asked), (server, None, True, "--only method=dms --only seed=0,1")]


def test_show_and_export_name_a_trial(dms_bench, store, tmp_path):
    nothing = f"error: tracking {store}: there are no trials yet\n"
    assert dms_bench("show", "x", "--tracking", store) == (2, "", nothing)
    exported = tmp_path / "exported"
    assert dms_bench("export", "x", "--output", exported, "--tracking", store) == (2, "", nothing)
    assert not exported.exists()
    assert dms_bench("export", "x") == (2, "", "error: Missing option '--output' / '-o'.\n")


def test_export_says_what_it_wrote_and_keeps_a_comparison_apart(dms_bench, monkeypatch, tmp_path):
    from dms_bench.deploy import export as exporting
    from dms_bench.deploy.card import Written
    from dms_bench.deploy.compare import Comparison, Row

    asked = []
    comparison = Comparison((Row("fp32", "PyTorch", 81.25, 1.5, 1.0, 100),), 360, 256, 20, "a processor")

    def export(uri, trial, output, suite, *, forms):
        asked.append((trial, str(output), suite, forms))
        files = [Written(tmp_path / "model.onnx"), Written(tmp_path / "model.int8.onnx", "top-1 80.0 %")]
        return exporting.Exported(files, ["no model.pt2: why"], comparison if forms.compare else None)

    monkeypatch.setattr(exporting, "export", export)
    code, out, err = dms_bench("export", "x", "-o", tmp_path, "--onnx", "--int8", "--suite", "quick")
    wrote = f"wrote {tmp_path}/model.onnx\nwrote {tmp_path}/model.int8.onnx (top-1 80.0 %)\n"
    assert (code, out, err) == (0, wrote, "no model.pt2: why\n")
    assert asked == [("x", str(tmp_path), "quick", exporting.Forms(onnx=True, int8=True))]

    code, out, err = dms_bench("export", "x", "-o", tmp_path, "--compare", "--format", "csv")
    assert (code, err) == (0, "no model.pt2: why\n" + wrote)
    assert out.splitlines()[1] == "fp32,PyTorch,81.25,1.5,1.0,100,,360,256,20"

    code, out, err = dms_bench("export", "x", "--compare", "--format", "markdown")
    assert (code, err) == (0, "no model.pt2: why\n")  # the files go with their folder
    assert "| fp32 | PyTorch | 81.2 |" in out
    assert not Path(asked[-1][1]).exists()
    assert asked[-1][3] == exporting.Forms(compare=True)


def test_space_as_json(dms_bench):
    code, out, err = dms_bench("space", "test_vit", "--image-size", "32", "--channels", "1", "--format", "json")
    assert (code, err) == (0, "")
    space = json.loads(out)
    assert (space["model"], space["input"]) == ("test_vit", [1, 32, 32])
    assert {"name": "blocks.0.mlp.fc1", "size": 192, "heads": False} in space["groups"]
    heads = [group["size"] for group in space["groups"] if group["heads"]]
    assert heads == [2] * 6
    (stage,) = space["stages"]
    assert (stage["name"], stage["size"]) == ("blocks", 6)
    smallest, whole = space["reachable"]["macs"]
    assert space["macs"] == whole
    assert space["searchable_macs_fraction"] == 1 - smallest / whole > 0.6
    assert 0 <= space["proof_error"] < 1e-7
    assert space["excluded"] == {"head": "output of the network"}
    assert space["params"] > 0 < space["seconds"]


def test_space_as_a_table_with_arguments_and_exclusions(dms_bench, tmp_path):
    options = ("--image-size", 32, "--arg", "channels=[8, 8, 16, 16]", "--exclude", "layer1*", "--exclude", "conv1")
    code, out, err = dms_bench("space", "resnet18", *options)
    assert (code, err) == (0, "")
    searched, _, left_out = out.partition("not searched because")
    rows = [line.split() for line in searched.splitlines()]
    assert ["layer4.stream", "width", "16"] in rows
    assert ["layer2", "blocks", "1"] in rows
    assert not any(row[0].startswith("layer1") or row[0] == "conv1" for row in rows if row)
    assert re.search(r"excluded by the specification +5 ", left_out)
    assert "resnet18 at 3 x 32 x 32: 9 groups with 120 elements, 3 stages with 3 removable blocks" in left_out
    assert re.search(r"MACs: .* searchable", left_out)
    file = tmp_path / "space.txt"
    assert dms_bench("space", "resnet18", *options, "--output", file)[:2] == (0, f"wrote {file}\n")
    assert file.read_text().partition("(found")[0] == out.partition("(found")[0]


def test_space_of_a_network_of_ones_own_on_an_example(dms_bench, tmp_path, monkeypatch):
    (tmp_path / "tagger_of_mine.py").write_text(TAGGER)
    monkeypatch.chdir(tmp_path)
    example = "{words: {shape: [2, 6], below: 20}}"
    options = ("--arg", "hidden=12", "--example", example, "--format", "json")
    code, out, err = dms_bench("space", "tagger_of_mine:tagger", *options)
    assert (code, err) == (0, "")
    space = json.loads(out)
    assert space["input"] == "words=int64[2, 6]"
    assert {"name": "hidden", "size": 12, "heads": False} in space["groups"]
    code, out, err = dms_bench("space", "tagger_of_mine:tagger", "--example", example, "--exclude", "hidden")
    assert "tagger_of_mine:tagger on words=int64[2, 6]: 1 group with 8 elements, 0 stages" in out


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet18", ("--example", "[1, 3, 64, 64]"), "an example needs a network of your own"),
        ("resnet18", ("--example", "[1, 3"), "--example '[1, 3'"),
        ("timm:create_model", ("--example", "{shape: 3}"), "3 is no shape"),
        ("timm:create_model", ("--example", "[1, 3, 64, 64]"), "timm:create_model: TypeError"),
        ("timm:create_modle", (), "did you mean 'create_model'"),
        ("resnet18", ("--example", "[1, 3, 64, 64]", "--image-size", "64"), "leave --image-size and --channels out"),
    ],
)
def test_space_of_what_is_not_there_ends_in_one_line(dms_bench, model, options, message):
    code, out, err = dms_bench("space", model, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


TAGGER = """
from torch import nn


class Tagger(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.words, self.hidden, self.tags = nn.Embedding(20, 8), nn.Linear(8, hidden), nn.Linear(hidden, 5)

    def forward(self, words):
        return {"tags": self.tags(self.hidden(self.words(words)).relu())}


def tagger(hidden=10):
    return Tagger(hidden)
"""


def test_space_takes_the_fields_of_a_suites_supernet(dms_bench):
    fields = ("space.coarse=[{groups: '*.fc1', step: 24, min: 96}, {stages: blocks, max: 4}]", "space.exclude=[stream]")
    options = ("--image-size", 32, *(word for field in fields for word in ("--set", field)))
    code, out, err = dms_bench("space", "test_vit", *options, "--format", "json")
    assert (code, err) == (0, "")
    space = json.loads(out)
    coarse = {"step": 24, "minimum": 96, "maximum": 192}
    assert {"name": "blocks.0.mlp.fc1", "size": 192, "heads": False, **coarse} in space["groups"]
    assert [(stage["size"], stage["minimum"], stage["maximum"]) for stage in space["stages"]] == [(6, 1, 4)]
    assert space["excluded"]["stream"] == "excluded by the specification"
    assert space["reachable"]["macs"][1] < space["macs"]
    out = dms_bench("space", "test_vit", *options)[1]
    rows = [line.split() for line in out.splitlines()]
    assert ["blocks.5.mlp.fc1", "width", "96", "to", "192", "of", "192", "by", "24"] in rows
    assert ["blocks", "blocks", "1", "to", "4", "of", "6"] in rows
    assert "12 groups with 60 elements" in out


def test_space_of_a_wider_network_with_rounded_cuts(dms_bench):
    fields = ("width=1.5", "space.round_to=8")
    options = ("test_efficientnet", "--image-size", 32, *(word for field in fields for word in ("--set", field)))
    code, out, err = dms_bench("space", *options)
    assert (code, err) == (0, "")
    assert "cuts keep multiples of 8 channels" in out
    assert "test_efficientnet x1.5 wide at 3 x 32 x 32" in out
    assert "cache" not in out
    again = dms_bench("space", *options)[1]
    assert again.replace(", read from the cache", "") == out != again
    assert json.loads(dms_bench("space", *options, "--format", "json")[1])["cached"] is True


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["resnet81"], "timm has no model 'resnet81'; did you mean 'resnet18' or 'resnet61q' or 'resnet51q'?"),
        (
            ["resnet18", "--format", "yaml"],
            "Invalid value for '--format' / '-f': 'yaml' is not one of 'table', 'json'.",
        ),
        (["resnet18", "--arg", "depth"], "--arg 'depth': write it as key=value, for example drop_rate=0.1"),
        (["resnet18", "--arg", "a=[1"], "--arg 'a=[1': write it as key=value, for example drop_rate=0.1"),
        (["resnet18", "--arg", "num_classes=3"], "supernet.args.num_classes is decided by data: leave it out"),
        (["resnet18", "--set", "space"], "--set 'space': write it as key=value, for example space.depth=false"),
        (["resnet18", "--set", "model.a=1"], "--set 'model.a=1': model has no fields"),
        (["resnet18", "--set", "space.wide=1"], "supernet.space.wide: unknown field; did you mean 'width'?"),
        (
            ["test_vit", "--set", "space.coarse=[{groups: '*.fc1', step: 7}]"],
            "supernet.space.coarse: groups '*.fc1': 192 elements of blocks.0.mlp.fc1 in runs of 7; try 6 or 8",
        ),
        (
            ["resnet18", "--image-size", "0"],
            "Invalid value for '--image-size': Input should be greater than or equal to 1",
        ),
    ],
)
def test_a_space_that_cannot_be_found_is_one_line(dms_bench, options, line):
    assert dms_bench("space", *options) == (2, "", f"error: {line}\n")


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
