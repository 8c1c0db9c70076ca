"""Seeds are added until comparisons are decided: which trials are run, when, and what is said. No Ray, no training."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dms_bench import tracking
from dms_bench.config import Suite, Trial, families, parse_suite, resolve
from dms_bench.decisions import Rule
from dms_bench.deploy import logged
from dms_bench.runtime import nodes, schedule, session
from dms_bench.runtime.deciding import course
from dms_bench.runtime.driver import Driver
from dms_bench.runtime.hooks import Observer
from dms_bench.tracking import TrialResult, read_decided
from dms_bench.trial import publish as publishing
from dms_bench.trial.storage import SuiteFolder, write_atomic
from dms_bench.trial.work import Work
from tests.unit.decisions import naive

#: A method's value with a seed; None for a failure.
Values = Callable[[str, int], float | None]
#: Luck of eight seeds, of which `uniform` has its own.
LUCK = np.random.default_rng(2).normal(size=(3, 8))


def clear(kind: str, seed: int) -> float | None:
    """DMS is ahead of random from the first seeds on; between it and uniform luck decides."""
    base = {"dms": 2.0, "random": 0.0, "uniform": 2.0}[kind]
    own = {"dms": 0, "random": 1, "uniform": 2}[kind]
    return float(50 + base + 0.02 * LUCK[own, seed]) if kind != "uniform" else float(52 + LUCK[own, seed])


def make(store: str, folder: Path, **fields: Any) -> Suite:
    seeds = {"until": "decided", "at_least": 3, "at_most": 8, "margin": 0.3} | fields.pop("seeds", {})
    experiment = {
        "name": "toys",
        "task": "toy",
        "supernet": {"model": "mlp"},
        "budget": {"kind": "macs", "target": "50%"},
        "search": {"epochs": 1},
        "retrain": {"epochs": 1},
        "sweep": {"grid": {"method": ["dms", "random", "uniform"], "seed": seeds}},
        "compare": [["dms", "random"], ["dms", "uniform"]],
    }
    content = {"name": "toys", "storage": str(folder), "tracking": store}
    return parse_suite(content | {"experiments": [experiment | fields]})


class Machine:
    """Does a driver's work by writing down what it comes to."""

    def __init__(self, values: Values) -> None:
        self.values = values
        #: Method and seed of the trials of each call, and the supernets' seeds.
        self.calls: list[list[tuple[str, int]]] = []
        self.supernets: list[int] = []
        #: Work after which the user presses Ctrl-C.
        self.patience: int | None = None

    def run_all(self, works: Sequence[Work], scratch: Path, observer: Observer, most: int | None) -> None:
        done = [(work.trial.method.kind, work.trial.seed) for work in works if work.kind == "trial"]
        if done:
            self.calls.append(done)
        for work in works:
            if self.patience == 0:
                raise KeyboardInterrupt
            observer.started(work)
            self._do(work)
            observer.ended(work, died=False)
            self.patience = None if self.patience is None else self.patience - 1

    def _do(self, work: Work) -> None:
        if work.kind == "supernet":
            self.supernets.append(work.trial.seed)
            work.folder.stage("pretrain").finish((), [])
            return
        value = self.values(work.trial.method.kind, work.trial.seed)
        if value is None:
            work.folder.fail("on purpose")
            return
        work.folder.forget_failure()
        result = TrialResult(
            metric="accuracy", value=value, macs=1, params=1, supernet_macs=2, supernet_params=2, targets={}, seed=0
        )
        write_atomic(work.folder.result, result.model_dump_json())

    @property
    def trials(self) -> list[tuple[str, int]]:
        return [trial for call in self.calls for trial in call]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, Machine]]:
    """Return a function that runs a suite with the values that its trials come to; returns code, output, machine."""

    def run(suite: Suite, values: Values = clear, patience: int | None = None) -> tuple[int, str, Machine]:
        machine = Machine(values)
        machine.patience = patience
        monkeypatch.setattr(schedule, "run_all", machine.run_all)
        monkeypatch.setattr(session, "ray_session", contextlib.nullcontext)
        monkeypatch.setattr(nodes, "check_nodes", lambda *arguments: None)
        monkeypatch.setattr(publishing, "publish", lambda work: None)
        monkeypatch.setattr(logged, "publish_model", lambda folder, run: None)
        output = io.StringIO()
        folder = SuiteFolder.of(suite.storage, suite.name)
        driver = Driver(suite, folder, suite.tracking, resolve(suite), [], Console(file=output, width=200))
        return driver.run(), output.getvalue(), machine

    return run


def decisions(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("toys: ") and " at macs" in line]


def test_seeds_are_added_one_by_one_for_the_methods_that_need_them(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path
) -> None:
    code, output, machine = run(make(store, tmp_path))
    assert code == 0
    assert sorted(machine.calls[0]) == sorted(
        (kind, seed) for kind in ("dms", "random", "uniform") for seed in (0, 1, 2)
    )
    assert machine.calls[1:] == [[("dms", seed), ("uniform", seed)] for seed in range(3, 8)]
    first, second = decisions(output)
    rows = [[_less(kind, seed) for seed in range(8)] for kind in ("random", "uniform")]
    assert naive.decide(rows, Rule(3, 8, 0.3)) == [("different", 3), ("undecided", 8)]
    mean = np.mean(rows[0][:3])
    assert first.startswith(f"toys: dms - random at macs 50%: {mean:+.4f} [+1.")
    assert first.endswith("decided after 3 seeds")
    assert second.endswith("undecided after 8 seeds")
    assert output.index(first) < output.index("toys-uniform-macs50pct-s3"), "as it goes"
    assert "toys: 9 trials to run, more until comparisons are decided" in output
    assert "toys: 19 finished" in output
    view = "MLflow: http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=results&workflowType=machine_learning"
    assert output.splitlines()[-1].startswith(view)


def _less(kind: str, seed: int) -> float:
    ours, theirs = clear("dms", seed), clear(kind, seed)
    assert ours is not None
    assert theirs is not None
    return ours - theirs


def test_nothing_is_added_once_all_is_decided(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path
) -> None:
    alike: Values = lambda kind, seed: 50 + 0.01 * float(LUCK[0, seed] if kind == "dms" else LUCK[1, seed])  # noqa: E731
    suite = make(store, tmp_path)
    code, output, machine = run(suite, alike)
    assert code == 0
    assert len(machine.calls) == 1
    assert [line.partition("] ")[2] for line in decisions(output)] == ["equal within 0.3, decided after 3 seeds"] * 2
    code, output, machine = run(suite, alike)
    assert (code, machine.calls) == (0, [])
    assert "9 finished already" in output
    assert len(decisions(output)) == 2, "said again"


@pytest.mark.parametrize("patience", [1, 5, 9, 10, 11, 14])
def test_an_interrupted_run_comes_to_the_same_as_one_that_was_not(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path, patience: int
) -> None:
    suite = make(store, tmp_path / "one")
    code, output, first = run(suite, patience=patience)
    assert code == 1
    assert "interrupted after" in output
    code, output, second = run(suite)
    assert code == 0
    _, whole, machine = run(make(store, tmp_path / "other"))
    assert decisions(output) == decisions(whole)
    done = [*first.trials[:patience], *second.trials]
    already = {trial for call in first.calls for trial in call}
    assert sorted(set(done)) == sorted(set(machine.trials))
    assert len(second.trials) == len(machine.trials) - patience, f"nothing twice; begun before: {len(already)}"


def test_a_seed_with_a_failed_trial_does_not_count_and_is_said(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path
) -> None:
    fails: Values = lambda kind, seed: None if (kind, seed) == ("random", 1) else clear(kind, seed)  # noqa: E731
    suite = make(store, tmp_path)
    code, output, machine = run(suite, fails)
    assert code == 1
    assert "failed toys-random" in output
    assert machine.calls[1] == [("dms", 3), ("random", 3), ("uniform", 3)], "two pairs are no reason to stop"
    assert machine.calls[2] == [("dms", 4), ("uniform", 4)]
    assert decisions(output)[0].endswith("decided after 4 seeds (1 without a pair, as a trial failed)")
    assert machine.trials.count(("random", 1)) == 1, "not again by the same command"

    code, output, machine = run(suite)
    assert code == 0
    assert machine.trials == [("random", 1)], "it is tried again, and nothing else is wanted"
    assert decisions(output)[0].endswith("decided after 3 seeds")


def test_supernets_are_trained_for_the_seeds_that_are_added(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path
) -> None:
    suite = make(store, tmp_path, pipeline="DMSp", pretrain={"epochs": 1})
    _, _, machine = run(suite)
    assert machine.supernets == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_supernet_that_fails_ends_no_run_and_counts_for_nothing(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = Machine._do

    def fail(self: Machine, work: Work) -> None:
        if work.kind == "supernet" and work.trial.seed == 4:
            self.supernets.append(4)
            work.folder.fail("on purpose")
        else:
            do(self, work)

    monkeypatch.setattr(Machine, "_do", fail)
    code, output, machine = run(make(store, tmp_path, pipeline="DMSp", pretrain={"epochs": 1}))
    assert code == 1
    assert machine.supernets == [0, 1, 2, 3, 4, 5, 6, 7]
    assert not [trial for trial in machine.trials if trial[1] == 4]
    assert decisions(output)[1].endswith("undecided after 8 seeds (1 without a pair, as a trial failed)")


def test_values_of_trials_whose_folder_is_gone_are_those_of_the_store(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = make(store, tmp_path)
    (family,) = families(suite)
    values = {trial.hash: clear(trial.method.kind, trial.seed) for trial in family.trials if trial.seed < 3}
    for known in ("statuses", "finished"):
        monkeypatch.setattr(f"dms_bench.runtime.driver.{known}", lambda uri, name: dict.fromkeys(values, "finished"))
    monkeypatch.setattr("dms_bench.runtime.driver.values_of", lambda uri, name: values)
    _, output, machine = run(suite)
    assert machine.calls == [[("dms", seed), ("uniform", seed)] for seed in range(3, 8)]
    assert decisions(output)[0].endswith("decided after 3 seeds")


def test_what_was_decided_is_kept_with_the_run(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path
) -> None:
    suite = make(store, tmp_path)
    assert read_decided(store, suite.name) == []
    _, output, _ = run(suite)
    (family,) = read_decided(store, suite.name)
    assert [family.line(pair) for pair in family.pairs] == decisions(output)
    assert [pair.outcome for pair in family.pairs] == ["different", "undecided"]
    assert (family.margin, family.at_most, family.alpha) == (0.3, 8, 0.05)


def test_an_interrupted_run_keeps_what_it_got_to(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path
) -> None:
    suite = make(store, tmp_path)
    _, output, _ = run(suite, patience=11)
    assert len(decisions(output)) == 1
    (family,) = read_decided(store, suite.name)
    assert [pair.outcome for pair in family.pairs] == ["different", "open"]
    assert family.line(family.pairs[1]).endswith("not decided yet, after 4 seeds")


def test_a_fresh_run_forgets_all_seeds(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dms_bench.runtime.run import run_suite

    suite = make(store, tmp_path)
    folder = SuiteFolder.of(suite.storage, suite.name)
    (family,) = families(suite)
    for hash_ in (*(trial.hash for trial in family.trials), "another"):
        write_atomic(folder.trial(hash_).result, "{}")
    forgotten: list[set[str]] = []
    monkeypatch.setattr(Driver, "run", lambda self: 0)
    monkeypatch.setattr(tracking, "forget", lambda uri, name, trials: forgotten.append(set(trials)))
    monkeypatch.setattr("dms_bench.runtime.run.check", lambda trials: None)
    assert run_suite(suite, fresh=True, console=Console(file=io.StringIO())) == 0
    assert {path.name for path in (folder.path / "trials").iterdir()} == {"another"}
    assert forgotten == [{trial.hash for trial in family.trials}]
    assert len(family.trials) == 24


def test_methods_that_nothing_compares_have_the_first_seeds(store: str, tmp_path: Path) -> None:
    (family,) = families(make(store, tmp_path, compare=[["dms", "random"]]))
    done: set[str] = set()

    def wanted() -> list[tuple[str, int]]:
        state = course(family, lambda trial: trial.hash in done, _value)
        done.update(trial.hash for trial in state.wanted)
        return [(trial.method.kind, trial.seed) for trial in state.wanted]

    def _value(trial: Trial) -> float | None:
        return float(LUCK[int(trial.method.kind == "dms"), trial.seed])

    assert sorted({kind for kind, _ in wanted()}) == ["dms", "random", "uniform"]
    assert wanted() == [("dms", 3), ("random", 3)]


def test_two_budgets_are_decided_by_themselves(
    run: Callable[..., tuple[int, str, Machine]], store: str, tmp_path: Path
) -> None:
    seeds = {"until": "decided", "at_least": 3, "at_most": 4, "margin": 0.3}
    budgets = [{"kind": "macs", "target": target} for target in ("30%", "50%")]
    grid = {"method": ["dms", "random"], "budget": budgets, "seed": seeds}
    _, output, machine = run(make(store, tmp_path, sweep={"grid": grid}, compare=[["dms", "random"]]))
    assert [line.partition(":")[2].partition(":")[0] for line in decisions(output)] == [
        " dms - random at macs 30%",
        " dms - random at macs 50%",
    ]
    assert len(machine.trials) == 12
