"""The check itself: it passes right kernels, and sees wrong ones and dying ones."""

import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from dms_bench.kernels import probe as probe_module
from dms_bench.kernels.cases import Case, cut_layers
from dms_bench.kernels.check import PARTS, errors, tolerance, wrong
from dms_bench.kernels.probe import ProbeGroup, probe

LAYER = Case(2, (6, 6), 5, 7, (3, 3), (2, 2), (1, 1), (1, 1))
LINEAR = Case(4, (), 5, 7)


@pytest.mark.parametrize(
    "case",
    [
        LAYER,
        LINEAR,
        replace(LAYER, layout="channels-last"),
        replace(LAYER, dtype="bfloat16"),
        replace(LAYER, outputs=5, groups=5),
        replace(LAYER, transposed=True),
        Case(2, (9,), 4, 6, (3,), (1,), (0,), (2,), groups=2, layout="channels-last"),
        Case(2, (4, 5, 6), 3, 2, (1, 3, 1), (1, 2, 1), (0, 1, 0), (1, 1, 1)),
    ],
    ids=str,
)
def test_right_kernels_are_right_and_exact_enough_to_tell(case):
    assert not wrong(case)
    assert 0 < max(errors(case).values()) < tolerance(case)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", [LAYER, LINEAR])
def test_a_spoilt_result_is_seen(case, part):
    found = wrong(case, part)
    assert list(found) == [part]
    assert found[part] == pytest.approx(0.5, rel=1e-3)


def test_what_is_no_number_is_wrong(monkeypatch):
    monkeypatch.setattr(torch, "convolution", lambda *a: nn.functional.conv2d(*a[:6]) * torch.nan)
    assert wrong(LAYER)


def test_the_check_leaves_the_process_s_own_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    errors(LAYER)
    assert torch.equal(torch.rand(3), expected)


def test_the_layers_of_cuts_have_all_kinds():
    cases = list(cut_layers())
    assert len(set(cases)) == len(cases) > 700
    assert {case.kernel[0] for case in cases if case.kernel} == {1, 3, 5, 7}
    assert set(range(1, 34, 2)) <= {case.inputs for case in cases}
    kinds = {case.kind for case in cases}
    assert {
        "linear",
        "strided 1x1 convolution",
        "strided depthwise 3x3 convolution",
        "grouped 1x1 convolution",
    } <= kinds


def test_a_probe_tells_right_from_wrong_and_goes_on_after_a_death():
    dying = replace(LAYER, groups=2)  # 5 channels in 2 groups: PyTorch refuses, and the process ends
    fine, spoilt, broken = probe(
        [
            ProbeGroup((LAYER, LINEAR), 1, True),
            ProbeGroup((LAYER, LINEAR), 1, True, spoil="output"),
            ProbeGroup((LAYER, dying, LINEAR), 1, True),
        ]
    )
    assert (fine.wrong, fine.deaths, fine.tried) == ([], [], 2)
    assert [(case, list(found)) for case, found in spoilt.wrong] == [(LAYER, ["output"])]
    assert [(case, name) for case, name, _ in broken.deaths] == [(dying, "exit code 1")]
    assert broken.tried == 3


def test_a_process_that_gets_nowhere_is_ended(monkeypatch, tmp_path):
    """A ruined heap may leave a process waiting for a lock: it must not outlive whoever asks."""
    monkeypatch.setattr(probe_module, "_SECONDS_OF_A_CASE", 0.3)
    with (tmp_path / "report").open("w") as report:
        child = os.fork()
        if child == 0:
            signal.pause()
        assert probe_module._ended(child, report.fileno()) is None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
