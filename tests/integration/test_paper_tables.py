"""The published setting of every table, shrunk to a few steps on generated images of its size, from suite to table."""

from pathlib import Path

import pytest

from dms_bench.cli import _main
from dms_bench.config import load_suite

PAPER = Path(__file__).parents[2] / "benchmarks" / "paper"
SUITES = sorted(PAPER.glob("table*.yaml"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_published_setting_runs_small(path, tmp_path, capsys):
    where = ["--storage", str(tmp_path / "runs"), "--tracking", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    assert _main(["run", str(path), "--profile", "full", "--smoke", *where]) == 0
    suite = load_suite(path, profile="full", smoke=True)
    capsys.readouterr()
    assert _main(["leaderboard", "--suite", suite.name, "--format", "csv", where[2], where[3]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_proxy_s_smoke_run_fills_its_table(tmp_path, capsys):
    """The smoke variant has a name of its own; here its trials are run as the suite that the table reads."""
    import yaml

    document = yaml.safe_load((PAPER / "table11.yaml").read_text())
    document["defaults"]["task"]["data"] |= {"train": 600, "val": 100, "test": 100}
    for stage in ("pretrain", "search"):
        document["defaults"][stage] |= {"epochs": 1}
    document["defaults"]["sweep"]["grid"]["seed"] = [0, 1]
    path = tmp_path / "table11.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in document.items() if name != "profiles"}))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert _main(["run", str(path), "--storage", str(tmp_path / "runs"), "--tracking", uri]) == 0
    capsys.readouterr()
    options = ["--published", str(PAPER / "published.yaml"), "--tracking", uri]
    assert _main(["table", "11", *options]) == 0
    out = capsys.readouterr().out
    assert "missing" not in out
    assert "Verdict on glyphs 32px (proxy)" in out
    page = tmp_path / "report.html"
    assert _main(["report", "--suite", "table11", "--output", str(page), *options]) == 0
    assert "Table 11" in page.read_text()
