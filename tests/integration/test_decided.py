"""A suite that runs until its comparisons are decided, trained in this process, and the board that says so."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dms_bench.cli import app
from dms_bench.config import Suite, parse_suite, plugins
from dms_bench.runtime import nodes, schedule, session
from dms_bench.runtime.hooks import Observer
from dms_bench.runtime.run import run_suite
from dms_bench.runtime.worker import carry_out
from dms_bench.trial.work import Work

PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Have work done in this process; the names of the trials that were."""
    done: list[str] = []

    def run_all(works: Sequence[Work], scratch: Path, observer: Observer, most: int | None) -> None:
        for work in works:
            done.append(work.name)
            observer.started(work)
            carry_out(work, lambda metrics: None)
            observer.ended(work, died=False)

    monkeypatch.syspath_prepend(PLUGIN)
    plugins.discovered.cache_clear()
    monkeypatch.setattr(schedule, "run_all", run_all)
    monkeypatch.setattr(session, "ray_session", contextlib.nullcontext)
    monkeypatch.setattr(nodes, "check_nodes", lambda *arguments: None)
    monkeypatch.chdir(tmp_path)
    yield done
    plugins.discovered.cache_clear()


def suite(at_most: int) -> Suite:
    seeds = {"until": "decided", "at_least": 3, "at_most": at_most, "margin": 0.001}
    experiment: dict[str, Any] = {
        "name": "mlp",
        "task": "toy",
        "supernet": {"model": "mlp"},
        "budget": {"kind": "macs", "target": "50%"},
        "search": {"epochs": 1},
        "retrain": {"epochs": 2},
        "compare": [["half", "random"]],
        "sweep": {"grid": {"method": ["half", "random", "uniform"], "seed": seeds}},
    }
    return parse_suite({"name": "toys", "experiments": [experiment]})


def test_seeds_are_added_trained_published_and_shown(trained: list[str]) -> None:
    assert _run(suite(4))[0] == 0
    seeds = sorted((name.split("-")[1], name.split("-")[3]) for name in trained)
    assert seeds == sorted(
        [(method, f"s{seed}") for method in ("half", "random") for seed in range(4)]
        + [("uniform", f"s{seed}") for seed in range(3)]
    )
    said = _run(suite(4))[1]
    assert "toys: all 11 trials are finished already" in said
    assert len(trained) == 11
    line = next(line for line in said.splitlines() if line.startswith("mlp: half - random at macs 50%: "))
    assert line.endswith("undecided after 4 seeds")
    for form in ("table", "markdown", "html"):
        board = CliRunner().invoke(app, ["leaderboard", "--suite", "toys", "--format", form]).stdout
        flat = " ".join(board.split())
        assert line in flat, form
        assert "any false difference among 1 comparison together is at most 5%" in flat, form
    board = CliRunner().invoke(app, ["leaderboard", "--suite", "toys", "--format", "csv"]).stdout
    assert "undecided" not in board

    assert _run(suite(5))[0] == 0, "more seeds go on from there"
    assert sorted(name.split("-")[1] for name in trained[11:]) == ["half", "random"]
    board = CliRunner().invoke(app, ["leaderboard", "--suite", "toys", "--format", "markdown"]).stdout
    assert "undecided after 5 seeds" in board
    assert "after 4 seeds" not in board


def _run(suite: Suite) -> tuple[int, str]:
    output = io.StringIO()
    return run_suite(suite, console=Console(file=output, width=200)), output.getvalue()
