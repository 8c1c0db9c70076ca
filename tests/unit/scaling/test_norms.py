"""Norms over searched features: masked and cut networks agree, and masked statistics are those of kept features."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import GroupNorm1, RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from timm.layers.fast_norm import simple_norm
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from dms_bench.scaling import cut, find_space
from dms_bench.scaling.masks.norms import masked_group_norm, masked_response_norm, masked_rms_norm, masked_simple_norm
from dms_bench.scaling.modules.norm_kinds import recognise_norms


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
        (SimpleNorm(12), False),
        (SimpleNorm2d(12), True),
        (GlobalResponseNorm(12, channels_last=False), True),
    ],
    ids=["group", "timm group", "timm rms 2d", "torch rms", "timm rms", "own rms", "simple", "simple 2d", "response"],
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


def test_norms_are_known_by_what_they_compute():
    model = nn.Sequential(
        *(OwnRms(8), OwnRms(8, subtract=True), nn.LayerNorm(8, bias=False), RmsNorm2d(4), nn.PReLU(8)),
        *(SimpleNorm(8), SimpleNorm2d(4), GlobalResponseNorm(8), GlobalResponseNorm(8, channels_last=False)),
        *(nn.LayerNorm(8), nn.BatchNorm2d(8)),
    )
    expected = {"0": ("rms", -1), "1": ("layer", -1), "3": ("rms", 1), "5": ("simple", -1), "6": ("simple", 1)}
    assert recognise_norms(model) == expected | {"7": ("response", -1), "8": ("response", 1)}


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
    found = masked_simple_norm(rows, mask, -1, weight, 1e-6)[:, kept]
    torch.testing.assert_close(found, simple_norm(rows[:, kept], [4], weight[kept], 1e-6))
    found = masked_response_norm(x, mask, 1, weight, bias, 1e-6)[:, kept]
    own = GlobalResponseNorm(4, channels_last=False).double()
    with torch.no_grad():
        own.weight.copy_(weight[kept])
        own.bias.copy_(bias[kept])
        torch.testing.assert_close(found, own(x[:, kept]))


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


def test_masks_reach_the_statistics_of_response_and_simple_norms_smoothly():
    mask = (torch.rand(6).double() * 0.5 + 0.5).requires_grad_()
    x, weight, bias = torch.randn(2, 6, 3, 3).double(), torch.rand(6).double(), torch.rand(6).double()
    assert torch.autograd.gradcheck(lambda m: masked_response_norm(x, m, 1, weight, bias, 1e-6), mask)
    assert torch.autograd.gradcheck(lambda m: masked_simple_norm(x, m, 1, weight, 1e-6), mask)


def test_a_variance_needs_two_features():
    layers = [nn.Linear(6, 12), SimpleNorm(12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)]
    space = find_space(nn.Sequential(*layers), torch.randn(2, 6))
    assert space.units.minimum == (2, 1)
    model = nn.Sequential(*layers)
    mask = torch.ones(20)
    mask[2:12] = 0
    assert bool(cut(model, space, space.architecture(mask))(torch.randn(2, 6)).isfinite().all())


def test_the_hidden_width_of_a_block_with_a_response_norm_is_searched():
    model = timm.create_model("convnextv2_atto", num_classes=5, depths=(1, 1, 2, 1), dims=(8, 16, 16, 24)).eval()
    space = find_space(model, torch.randn(2, 3, 64, 64))
    hidden = {group.name: group.size for group in space.groups if group.name.endswith("fc1")}
    assert hidden["stages.2.blocks.1.mlp.fc1"] == 64
    assert len(hidden) == 5
    assert space.proof_error < 1e-12
