"""A trial whose layers come out wrong has no result; what is right is looked at once."""

import time

import pytest
import torch
from torch import nn

from dms_bench.errors import TrialFailure
from dms_bench.kernels import check
from dms_bench.trial import checked
from dms_bench.trial.checked import require_right
from dms_bench.trial.run import run_trial


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dms_bench" / "kernels"


@pytest.fixture
def spoilt(monkeypatch):
    """Linear layers of 6 outputs have a wrong gradient."""
    monkeypatch.setattr(
        checked, "wrong", lambda case: check.wrong(case, "input gradient" if case.outputs == 6 else None)
    )


def test_a_trial_with_a_wrong_layer_fails_before_it_is_retrained(toy_trial, folder, group, spoilt):
    expected = (
        r"^this machine computes layers wrong: layer 0 \(linear 8 -> 6, 2 rows, float32\): input gradient off by 0\.5"
    )
    with pytest.raises(TrialFailure, match=expected) as error:
        run_trial(toy_trial(pretrain=None), folder, group)
    assert "; layer 2 (" in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("see `dms-bench doctor`")
    assert not folder.result.exists()
    assert not folder.stage("retrain").history()


def test_a_wrong_layer_is_not_remembered_as_right(group, spoilt, monkeypatch):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 6))
    with pytest.raises(TrialFailure):
        require_right(model, torch.ones(2, 3), group)
    with pytest.raises(TrialFailure):
        require_right(model, torch.ones(2, 3), group)
    monkeypatch.setattr(checked, "wrong", check.wrong)
    require_right(model, torch.ones(2, 3), group)


def test_the_second_look_runs_nothing_and_takes_milliseconds(group, monkeypatch):
    from timm import create_model

    model, example = create_model("resnet18"), torch.randn(2, 3, 64, 64)
    require_right(model, example, group)
    monkeypatch.setattr(checked, "layers_of", None)
    monkeypatch.setattr(checked, "wrong", None)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        require_right(model, example, group)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.05


def test_layers_of_another_network_are_known_too_but_not_under_other_threads(group, own_cache, monkeypatch):
    tried = []
    monkeypatch.setattr(checked, "wrong", lambda case: tried.append(case) or {})
    require_right(nn.Sequential(nn.Linear(3, 4)), torch.ones(2, 3), group)
    require_right(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)), torch.ones(2, 3), group)
    assert [(case.inputs, case.outputs) for case in tried] == [(3, 4), (4, 5)]
    require_right(nn.Sequential(nn.Linear(3, 4)), torch.ones(2, 3), group, bf16=True)
    assert [case.dtype for case in tried[2:]] == ["bfloat16"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    require_right(nn.Sequential(nn.Linear(3, 4)), torch.ones(2, 3), group)
    assert len(tried) == 4
    assert len(list(own_cache.iterdir())) == 2


def test_a_damaged_cache_and_one_that_cannot_be_written_are_none(group, own_cache, monkeypatch):
    require_right(nn.Linear(3, 4), torch.ones(2, 3), group)
    (path,) = own_cache.iterdir()
    path.write_bytes(b"\xff\xfe damaged")
    require_right(nn.Linear(3, 4), torch.ones(2, 3), group)
    own_cache.parent.joinpath("file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache.parent / "file"))
    require_right(nn.Linear(3, 4), torch.ones(2, 3), group)
