"""Norms over searched features: masked and cut networks agree, and masked statistics are those of kept features."""

from __future__ import annotations

import pytest
import torch
from timm.layers import GroupNorm1, RmsNorm, RmsNorm2d
from torch import Tensor, nn

from dms_bench.scaling import find_space
from dms_bench.scaling.norms import masked_group_norm, masked_rms_norm
from dms_bench.scaling.rms import find_rms_norms


class OwnRms(nn.Module):
    """As many repositories write it."""

    def __init__(self, width: int, subtract: bool = False) -> None:
        super().__init__()
        self.weight, self.eps, self.subtract = nn.Parameter(torch.ones(width)), 1e-6, subtract

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True) if self.subtract else x
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


@pytest.mark.parametrize(
    ("norm", "spatial"),
    [
        (nn.GroupNorm(1, 12), True),
        (GroupNorm1(12), True),
        (RmsNorm2d(12), True),
        (nn.RMSNorm(12), False),
        (RmsNorm(12), False),
        (OwnRms(12), False),
    ],
    ids=["group", "timm group", "timm rms 2d", "torch rms", "timm rms", "own rms"],
)
def test_features_under_a_norm_are_searched_and_proven(norm, spatial):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3), norm, nn.ReLU(), nn.Conv2d(12, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 4)]
    if not spatial:
        layers = [nn.Linear(6, 12), norm, nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)]
    space = find_space(nn.Sequential(*layers), torch.randn((2, 3, 8, 8) if spatial else (2, 6)))
    assert {group.name: group.size for group in space.groups} == {"0": 12, "3": 8}
    assert [site.module for site in space.norms] == ["1"]
    assert space.proof_error < 1e-12


def test_rms_norms_are_known_by_what_they_compute():
    model = nn.Sequential(OwnRms(8), OwnRms(8, subtract=True), nn.LayerNorm(8, bias=False), RmsNorm2d(4), nn.PReLU(8))
    assert find_rms_norms(model) == {"0": -1, "3": 1}


def test_masked_norms_of_hard_masks_are_the_norms_of_what_is_kept():
    torch.manual_seed(0)
    mask = torch.tensor([1.0, 0, 1, 1, 0, 1]).double()
    kept, weight, bias = mask.bool(), torch.rand(6).double() + 0.5, torch.randn(6).double()
    x = torch.randn(2, 6, 3, 3).double()
    found = masked_group_norm(x, mask, weight, bias, 1e-5)[:, kept]
    torch.testing.assert_close(found, nn.functional.group_norm(x[:, kept], 1, weight[kept], bias[kept], 1e-5))
    rows = torch.randn(5, 6).double()
    found = masked_rms_norm(rows, mask, -1, weight, 1e-6)[:, kept]
    torch.testing.assert_close(found, nn.functional.rms_norm(rows[:, kept], (4,), weight[kept], 1e-6))


def test_masked_norms_under_a_mask_of_ones_are_the_librarys_own():
    x, weight, bias, ones = torch.randn(2, 6, 3, 3), torch.rand(6), torch.randn(6), torch.ones(6)
    torch.testing.assert_close(
        masked_group_norm(x, ones, weight, bias, 1e-5), nn.functional.group_norm(x, 1, weight, bias)
    )
    own = masked_rms_norm(x, ones, 1, weight, 1e-6)
    torch.testing.assert_close(own.movedim(1, -1), nn.functional.rms_norm(x.movedim(1, -1), (6,), weight, 1e-6))


def test_a_norm_that_adds_a_second_input_is_left_to_its_operators():
    class Adding(OwnRms):
        def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
            return super().forward(x if residual is None else x + residual)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Linear(6, 12), Adding(12), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(self.norm(x, x.relu()))

    space = find_space(Network(), torch.randn(2, 6))
    assert space.groups == ()
    assert "mean" in space.excluded["stem"]
