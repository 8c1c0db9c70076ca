"""The checks let tasks pass that keep their promises, and name the promise that another breaks."""

from __future__ import annotations

import pytest
from dms_bench_waves.spec import WavesTask

from dms_bench.testing import check_task
from dms_bench_tasks.classification.spec import ClassificationTask
from tests.unit.classification.classification_helpers import GLYPHS, TINY
from tests.unit.runtime.conftest import PLUGIN
from tests.unit.testing.broken import BrokenTask

NET = {"model": "mlp", "args": {"width": 12}}

BROKEN = {
    "functions": r"its class tests\.unit\.testing\.broken\.BrokenWaves lacks export\(\)$",
    "seed": r"the same seed gives the same result to the bit: two trainings of seed 0 differ in '0\.weight', by up to",
    "resume": r"a training that was interrupted after epoch 1 has told the epochs \[1, 1, 2\]; fit\(\) starts from",
    "optimiser": r"a training that was interrupted after epoch 1 ends with another '0\.weight', by up to",
    "structure": r"a search that was interrupted after epoch 1: its structure hook has counted 4 steps in place of 8",
    "hook": r"a search calls begin_step, loss and end_step of its structure hook in every step: no step was ended",
    "split": r"the test split is not read before evaluate\(.*\): 500 of its 500 inputs were in fit before",
    "early": r"500 of its 500 inputs were in recalibrate before",
    "metric": r"training, epoch 1: task 'broken' must give 'val_accuracy' .* it gave 'lr', .* 'val_top1'$",
    "measure": r"evaluate\(\.\.\., 'val', \.\.\.\) returns the metric 'accuracy': it returned \['top1'\]$",
    "both": r"two workers see the data once between them: one worker alone sees 128 inputs in an epoch, two see 256",
    "lost": r"two workers see the data once between them: 64 of 128 inputs were seen by neither",
    "apart": r"two workers see .* and learn the same: the two have ended with another '0\.weight', by up to",
}


def test_our_own_classification_keeps_its_promises() -> None:
    options = {"epochs": 2, "batch_size": 32, "lr": 0.05, "drop": 0.1, "drop_path": 0.1, "model_ema_decay": 0.9}
    check_task(ClassificationTask(data=GLYPHS), options, TINY)


def test_the_toy_of_our_tests_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    from toy_spec import ToyTask

    check_task(ToyTask(width=12), {"epochs": 2}, "mlp")


@pytest.mark.parametrize("breaks", BROKEN)
def test_a_broken_promise_is_named(breaks: str) -> None:
    with pytest.raises(AssertionError, match=f"^task 'broken': .*{BROKEN[breaks]}"):
        check_task(BrokenTask(samples=128, breaks=breaks), {"epochs": 2, "batch_size": 32}, NET)


def test_an_interruption_needs_two_epochs() -> None:
    with pytest.raises(ValueError, match="at least two epochs"):
        check_task(WavesTask(), {"epochs": 1}, NET)
