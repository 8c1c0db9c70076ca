"""Trials whose latency budget names a runtime: in a runtime made by hand, and in the real ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dms_bench.config import Resources, Trial
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.inference import runtimes
from dms_bench.inference.opened import _traced, opened
from dms_bench.runtime.run import check
from dms_bench.tasks import make_task
from dms_bench.trial import latency_model, recut, run
from dms_bench.trial.beside import Beside
from dms_bench.trial.group import alone
from dms_bench.trial.latency_model import shared_latency_model
from dms_bench.trial.run import run_trial
from dms_bench.trial.spaces import space_of
from dms_bench.trial.storage import WorkFolder

TOY = {"kind": "toy", "width": 64}
MACS = 8 * 64 + 64 * 64 + 4 * 64


#: The files that `dms-bench export` writes of the cut network and of the whole one, in turns, on a clock of the test's.
AGAIN = """
import json, sys, time
from pathlib import Path
from statistics import median

import openvino, torch
from dms_bench import load
from dms_bench.config.supernet import parse_supernet
from dms_bench.inference.onnx import export_onnx
from dms_bench.inference.runtimes import onnx_runtime, openvino_runtime
from dms_bench.trial.record import task_of

folder, runtime = Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
(folder / "weights.safetensors").write_bytes((folder / "retrain" / "weights.safetensors").read_bytes())
task = task_of(folder)
supernet = parse_supernet(json.loads((folder / "architecture.json").read_text())["supernet"])
example = task.example_input(1)
files = []
for name, network in (("cut", load(folder)), ("whole", task.build(supernet).eval())):
    export_onnx(network, example, folder / f"{name}.onnx")
    path = folder / f"{name}.onnx"
    files.append(onnx_runtime(path) if runtime == "onnxruntime" else openvino_runtime(path, example.shape))
spent = [], []
for turn in range(400):
    for index in (0, 1) if turn % 2 else (1, 0):
        files[index](example)
        begun = time.process_time()
        files[index](example)
        spent[index].append(time.process_time() - begun)
print(min(spent[0]) / min(spent[1]), median(spent[0]) / median(spent[1]))
"""


def budget(runtime: str = "onnxruntime", target: str = "60%") -> dict[str, str]:
    return {"kind": "latency", "target": target, "runtime": runtime}


GLYPHS = {
    "experiment": "again",
    "task": {
        "kind": "classification",
        "image_size": 96,
        "data": {"name": "glyphs", "train": 100, "val": 50, "test": 50},
    },
    "supernet": {"model": "resnet18", "args": {"channels": [32, 64, 64, 128]}, "space": {"round_to": 16}},
    "method": "random",
    "retrain": {"epochs": 1, "lr": 0.1},
}


class Clock:
    """Stands for `Beside`: 2 ms for the whole network, half of it for its products.

    Attributes:
        slower: how many times as long a cut network takes that is timed for long, against what the model learns.
        last: the same of the last measurement, of the network that was trained.
    """

    slower, last = 1.0, None

    def __init__(self, task: Any, supernet: Any, runtime: str) -> None:
        assert runtime == "onnxruntime"

    def times(self, network: nn.Module, seconds: float | None = None) -> tuple[float, float]:
        macs = sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Linear))
        factor = 1.0 if seconds == latency_model.BRIEFLY or macs == MACS else type(self).slower
        if seconds is None and type(self).last is not None:  # in the end
            factor = type(self).last
        return factor * (1 + macs / MACS), 2.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    class Own(Clock):
        pass

    for module in (latency_model, recut, run):
        monkeypatch.setattr(module, "Beside", Own)
    return Own


@pytest.mark.parametrize("method", ["dms", "uniform", "l1", "random"])
def test_a_network_that_the_runtime_is_slower_with_is_cut_again(toy_trial, group, tmp_path, clock, method):
    clock.slower = 1.2
    trial = toy_trial(task=TOY, method=method, budget=budget())
    result = run_trial(trial, WorkFolder(tmp_path / "trial"), group, latency=tmp_path / "latency")
    assert result.latency_runtime == "onnxruntime"
    assert result.targets == {"latency": pytest.approx(1.2)}
    assert result.supernet_latency_ms == 2.0
    assert result.latency_ms == pytest.approx(1.2, rel=0.03)
    assert result.latency_predicted_ms == pytest.approx(1.0, rel=0.03)
    assert result.macs < 0.1 * MACS
    assert result.latency_error is not None
    assert not result.budget_missed
    (path,) = (tmp_path / "latency").glob("*.json")
    assert json.loads(path.read_text())["whole_ms"] == 2.0


@pytest.mark.parametrize(("last", "missed"), [(1.08, False), (1.15, True), (0.93, False), (0.85, True)])
def test_a_target_counts_as_missed_by_more_than_a_tenth_as_measured_in_the_end(
    toy_trial, group, folder, clock, last, missed
):
    clock.last = last
    result = run_trial(toy_trial(task=TOY, method="uniform", budget=budget()), folder, group)
    assert result.latency_ms == pytest.approx(last * 1.2, rel=0.02)
    assert result.budget_missed is missed


def test_a_duration_is_compared_at_the_pace_at_which_the_model_was_made(toy_trial, group, folder, clock):
    result = run_trial(toy_trial(task=TOY, method="uniform", budget=budget(target="1.2ms")), folder, group)
    assert result.latency_ms == pytest.approx(1.2, rel=0.03)
    assert not result.budget_missed


def test_each_budget_of_one_search_is_cut_again(toy_trial, group, tmp_path, clock):
    clock.slower = 1.2
    both = [budget(target="60%"), budget(target="70%")]
    method = {"kind": "dms", "budgets_in_one": both}
    for number, one in enumerate(both):
        trial = toy_trial(task=TOY, method=method, budget=one)
        searched = WorkFolder(tmp_path / "search")
        run.search_in_one(trial, searched, group, supernet=None, latency=tmp_path)
        result = run_trial(trial, WorkFolder(tmp_path / str(number)), group, searched=searched, latency=tmp_path)
        assert result.latency_ms == pytest.approx(2 * (0.6, 0.7)[number], rel=0.03)


def test_budgets_of_one_search_are_timed_in_one_runtime(toy_trial):
    both = [budget(), budget("openvino", "50%")]
    with pytest.raises(ValueError, match="let all of them bound the same costs"):
        toy_trial(task=TOY, method={"kind": "dms", "budgets_in_one": both}, budget=both[0])


def test_a_model_is_of_one_runtime(toy_trial, group, tmp_path, clock):
    def ask(one: dict[str, str]) -> int:
        trial = toy_trial(task=TOY, budget=one)
        shared_latency_model(trial, make_task(trial.task, 0), space_of(trial.task, trial.supernet), group, tmp_path)
        return len(list(tmp_path.glob("*.json")))

    assert [ask(budget()), ask(budget(target="50%")), ask({"kind": "latency", "target": "50%"})] == [1, 1, 2]


@pytest.mark.parametrize(
    ("runtime", "missing", "text"),
    [
        ("onnxruntime", "onnxruntime", r"ONNX Runtime needs onnxruntime: install dms-bench\[onnx\]"),
        ("openvino", "openvino", r"OpenVINO needs openvino: install dms-bench\[openvino\]"),
    ],
)
def test_a_runtime_that_is_not_installed_is_refused_at_check(toy_trial, monkeypatch, runtime, missing, text):
    real = runtimes.find_spec
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == missing else real(name))
    check([toy_trial(task=TOY, budget={"kind": "latency", "target": "60%"})])
    with pytest.raises(UserError, match=rf"^experiment 'toy': budget latency 60% {runtime}: {text}$"):
        check([toy_trial(task=TOY, budget=budget(runtime)), toy_trial(task=TOY, budget=budget(runtime), seed=1)])


def test_a_network_that_the_runtime_cannot_take_is_refused_at_check(toy_trial, monkeypatch, capfd):
    class Odd(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + torch.linalg.eig(x.T @ x)[0].real.sum()  # which ONNX has no operator for

    trial = toy_trial(task=TOY, budget=budget())
    toy = trial.task.load_implementation()
    built = toy.build
    space_of(trial.task, trial.supernet)  # of the network without it
    monkeypatch.setattr(toy, "build", lambda self, supernet: Odd(*built(self, supernet)))
    monkeypatch.setattr("dms_bench.inference.opened.export_onnx", _traced)  # the other way takes long to fail as well
    with pytest.raises(UserError) as caught:
        check([trial])
    assert capfd.readouterr().out == ""
    (line,) = str(caught.value).splitlines()
    assert line.startswith("experiment 'toy': budget latency 60% onnxruntime: ONNX Runtime cannot run this network: ")


def test_a_network_that_computes_something_else_there_is_refused(monkeypatch):
    monkeypatch.setattr("dms_bench.inference.opened.onnx_runtime", lambda path: lambda inputs: inputs[:, :4] + 1)
    monkeypatch.setattr("dms_bench.inference.opened.export_onnx", lambda model, example, path: None)
    with pytest.raises(UserError, match="cannot run this network: its outputs differ from the network's own by"):
        opened(nn.Linear(8, 4).eval(), torch.ones(1, 8), "onnxruntime")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_real_runtime_computes_the_network_and_takes_less_for_less(runtime):
    task = Trial.model_validate({**GLYPHS, "budget": budget(runtime)}).task
    made = make_task(task, 0)
    whole = Beside(made, SupernetSpec(model="resnet18", args={"channels": [32, 64, 128, 256]}), runtime)
    thin = made.build(SupernetSpec(model="resnet18", args={"channels": [16, 16, 16, 16]}))
    own, reference = whole.times(thin.train(), 0.1)
    assert 0 < own < reference
    assert thin.training


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_budget_is_met_as_measured_again_in_a_process_of_its_own(tmp_path: Path, runtime: str) -> None:
    for seed in range(3):
        met(tmp_path, runtime, seed)


def met(tmp_path: Path, runtime: str, seed: int) -> None:
    trial = Trial.model_validate({**GLYPHS, "budget": budget(runtime), "seed": seed})
    result = run_trial(trial, WorkFolder(tmp_path / str(seed)), alone(Resources()), latency=tmp_path / "latency")
    assert not result.budget_missed
    again = subprocess.run(
        [sys.executable, "-c", AGAIN, str(tmp_path / str(seed)), runtime], capture_output=True, text=True, timeout=600
    )
    assert again.returncode == 0, again.stderr[-2000:]
    measured, by_medians = map(float, again.stdout.split())
    first = result.latency_ms / result.supernet_latency_ms
    print(f"{runtime} seed {seed}: {first:.3f}, again {measured:.3f}, by medians {by_medians:.3f}")
    assert measured == pytest.approx(0.6, rel=0.1)
