"""Importance and counts under mixed precision, gradient scalers and networks that are bf16 or fp16 throughout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dms_bench.scaling import Supernet, budget_of, find_space
from dms_bench.scaling.structure.importance import IMPORTANCE


class Wide(nn.Module):
    """More elements than bf16 has whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 1500), nn.Linear(1500, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


def small() -> Supernet:
    torch.manual_seed(0)
    return Supernet(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(1, 8))


def take_step(net: Supernet, x: Tensor, factor: float, loss_scale: float = 1.0) -> None:
    (net(x).square().mean() * factor).backward()
    net.update(loss_scale)
    net.zero_grad()


@pytest.mark.parametrize("kind", sorted(IMPORTANCE))
def test_a_step_with_gradients_that_are_not_finite_leaves_the_importance(kind: str) -> None:
    net = small()
    net.relaxation.importance_kind = kind
    x = torch.randn(4, 8)
    take_step(net, x, 1.0)
    before = net.importance.clone()
    for factor in (float("inf"), float("nan")):
        take_step(net, x, factor)
        assert torch.equal(net.importance, before)
    take_step(net, x, 2.0)
    assert bool(net.importance.isfinite().all())
    assert not torch.equal(net.importance, before)
    assert sum(map(len, net.architecture(budget_of(net.space, macs=0.5)).groups.values())) == 8


@pytest.mark.parametrize("kind", sorted(IMPORTANCE))
def test_the_factor_of_a_gradient_scaler_is_divided_out(kind: str) -> None:
    plain, scaled = small(), small()
    for net in (plain, scaled):
        net.relaxation.importance_kind = kind
    for step in range(3):
        x = torch.randn(4, 8)
        take_step(plain, x, 1.0)
        take_step(scaled, x, 2.0 ** (10 + step), loss_scale=2.0 ** (10 + step))
    torch.testing.assert_close(scaled.importance, plain.importance)


def test_a_users_loop_with_a_gradient_scaler() -> None:
    """As documented: the scale is asked for before the scaler's update. Its factor changes on the way."""
    plain, scaled = small(), small()
    weights = {net: torch.optim.SGD(net.model.parameters(), lr=0.1) for net in (plain, scaled)}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)
    for step in range(8):
        x = torch.randn(4, 8)
        overflows = step == 5
        scaler.scale(scaled(x).square().mean() * (float("inf") if overflows else 1.0)).backward()
        scaler.step(weights[scaled])
        scaled.update(loss_scale=scaler.get_scale())
        scaler.update()
        scaled.zero_grad()
        if not overflows:
            plain(x).square().mean().backward()
            weights[plain].step()
            plain.update()
            plain.zero_grad()
    assert scaler.get_scale() != 2.0**8
    torch.testing.assert_close(scaled.importance, plain.importance)
    torch.testing.assert_close(scaled.model.state_dict(), plain.model.state_dict())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_groups_of_more_elements_than_bf16_can_count(kind: torch.dtype) -> None:
    space = find_space(Wide(), torch.randn(4, 8))
    torch.manual_seed(0)
    net = Supernet(Wide(), space).to(kind)
    net(torch.randn(4, 8).to(kind)).square().mean().backward()
    net.update()
    with torch.no_grad():
        net.ratios.fill_(0.3)
    assert int(net.hard_mask().sum()) == 1050
    assert float(net.soft_mask().detach().double().sum()) == pytest.approx(1050, abs=0.5)
    assert [len(kept) for kept in net.architecture().groups.values()] == [1050]
    assert net(torch.randn(4, 8).to(kind)).dtype == kind
    assert next(net.model.parameters()).dtype == kind


def test_masks_of_a_network_that_is_double_are_double() -> None:
    torch.manual_seed(0)
    net = Supernet(
        nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)).double(), torch.randn(1, 8).double()
    )
    assert net.soft_mask().dtype == net.ratios.dtype == torch.float64
    take_step(net, torch.randn(4, 8).double(), 1.0)
    assert net.importance.dtype == torch.float64
    assert sum(map(len, net.architecture().groups.values())) == 16
