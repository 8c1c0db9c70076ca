"""The workers of a trial compare what they found."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import distributed

from dms_bench.config import Resources
from dms_bench.errors import TrialFailure
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.run import run_trial


def test_the_architecture_is_compared_before_it_is_cut(
    toy_trial: Any, folder: Any, group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: dict[str, str] = {}
    monkeypatch.setattr(type(group), "agree", lambda self, text, what: compared.setdefault(what, text))
    result = run_trial(toy_trial(), folder, group)
    assert json.loads(compared["the architecture found"])["macs"] == result.macs


def test_a_trial_whose_workers_found_different_architectures_fails(
    toy_trial: Any, folder: Any, group: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathered(self: Any, text: str) -> list[str]:
        return [text, text.replace("0", "1", 1)] if text.startswith("{") else [text]

    monkeypatch.setattr(type(group), "gathered", gathered)
    with pytest.raises(TrialFailure, match="workers disagree about the architecture found"):
        run_trial(toy_trial(), folder, group)


def test_what_every_worker_holds_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_two(texts: list[str], own: str) -> None:
        texts[:] = [own, "of the other"]

    monkeypatch.setattr(distributed, "all_gather_object", from_two)
    group = WorkerGroup(torch.device("cpu"), Resources(workers=2))
    assert group.gathered("own") == ["own", "of the other"]
    group.agree("of the other", "the weather")
    with pytest.raises(TrialFailure, match=r"^the 2 workers disagree about the weather$"):
        group.agree("own", "the weather")
