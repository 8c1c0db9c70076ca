import copy
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Supernet, budget_of, count, cut, falling_target, find_space
from tests.unit.scaling import naive

ROOT = Path(__file__).parents[3]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def with_known_importance(net: Supernet) -> Supernet:
    net.importance.copy_(torch.rand(len(net.importance), generator=torch.Generator().manual_seed(1)))
    return net


@pytest.fixture
def net() -> Supernet:
    return with_known_importance(Supernet(small_network(), torch.randn(2, 3, 10, 10)))


def test_all_masks_are_one_before_importance_is_known():
    net = Supernet(small_network(), torch.randn(2, 3, 10, 10))
    assert torch.equal(net.soft_mask(), torch.ones(20))


def test_resource_loss_is_equation_6_on_macs_written_out(net):
    with torch.no_grad():
        net.ratios.copy_(torch.tensor([0.25, 0.5]))
    first, second = 0.75 * 8, 0.5 * 12
    cost = 100 * 27 * first + 64 * 9 * first * second + second * 5
    assert float(net.space.macs_model(*net.soft_size()).detach()) == pytest.approx(cost, rel=1e-6)
    for target in (cost / 3, cost * 2):
        assert float(net.resource_loss(budget_of(net.space, macs=target)).detach()) == pytest.approx(
            naive.resource_loss(cost, target), abs=1e-6
        )


def test_gradient_of_the_resource_loss_equals_finite_differences(net):
    with torch.no_grad():
        net.ratios.copy_(torch.tensor([0.3, 0.4]))
    target = float(net.space.macs_model(*net.soft_size()).detach()) / 2
    (gradient,) = torch.autograd.grad(net.resource_loss(budget_of(net.space, macs=target)), net.ratios)
    for unit in range(2):
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                net.ratios[unit] += step
                values.append(math.log(float(net.space.macs_model(*net.soft_size())) / target))
                net.ratios[unit] -= step
        assert float(gradient[unit]) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-3)


def test_gradient_of_the_task_loss_reaches_the_ratios_through_the_mask(net):
    """dLoss/da is the sum of dLoss/dm_i times equation (3)'s derivative."""
    net.double().eval()
    with torch.no_grad():
        net.ratios.copy_(torch.tensor([0.3, 0.4]))
    x, y = torch.randn(4, 3, 10, 10).double(), torch.tensor([0, 1, 2, 3])
    functional.cross_entropy(net(x), y).backward()
    found = net.ratios.grad.clone()
    for unit in range(2):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                net.ratios[unit] += step
                values.append(float(functional.cross_entropy(net(x), y)))
                net.ratios[unit] -= step
        assert float(found[unit]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-9)


def test_masks_folded_into_weights_equal_masks_on_inputs(net):
    net.eval()
    with torch.no_grad():
        net.ratios.copy_(torch.tensor([0.5, 0.25]))
        x = torch.randn(2, 3, 10, 10)
        m = net.soft_mask()
        layers = list(net.model)
        h = layers[2](layers[1](layers[0](x))) * m[:8].view(1, -1, 1, 1)
        h = layers[6](layers[5](layers[4](layers[3](h)))) * m[8:]
        torch.testing.assert_close(net(x), layers[7](h))
        assert layers[3].weight.requires_grad  # the weights themselves are back in place


def test_importance_takes_up_the_masks_gradient(net):
    before = net.importance.clone()
    mask = net.soft_mask().detach()
    functional.cross_entropy(net(torch.randn(4, 3, 10, 10)), torch.tensor([0, 1, 2, 3])).backward()
    gradient = net._probe.grad.clone()
    net.update()
    expected = [
        naive.taylor(c, m, g, 0.99) for c, m, g in zip(before.tolist(), mask.tolist(), gradient.tolist(), strict=True)
    ]
    torch.testing.assert_close(net.importance, torch.tensor(expected))
    assert float(gradient.abs().max()) > 0


def test_gradients_accumulate_over_several_passes(net):
    net.eval()
    x, y = torch.randn(8, 3, 10, 10), torch.arange(8) % 5
    twin = copy.deepcopy(net)
    functional.cross_entropy(net(x), y).backward()
    for part in (slice(0, 4), slice(4, 8)):
        (functional.cross_entropy(twin(x[part]), y[part]) / 2).backward()
    net.update()
    twin.update()
    torch.testing.assert_close(twin.importance, net.importance)
    torch.testing.assert_close(twin.ratios.grad, net.ratios.grad)


def test_a_deep_copy_has_masks_of_its_own(net):
    twin = copy.deepcopy(net).eval()
    net.eval()
    x = torch.randn(2, 3, 10, 10)
    with torch.no_grad():
        net.ratios.fill_(0.6)
        assert not torch.allclose(net(x), twin(x))
        twin.ratios.fill_(0.6)
        torch.testing.assert_close(net(x), twin(x))


def test_weights_are_restored_when_a_forward_pass_fails(net):
    with pytest.raises(RuntimeError):
        net(torch.randn(2, 4, 10, 10))
    assert all(isinstance(parameter, nn.Parameter) for parameter in net.model.parameters())
    assert isinstance(net.model[3].weight, nn.Parameter)


def test_ratios_stay_in_their_range(net):
    with torch.no_grad():
        net.ratios.copy_(torch.tensor([-0.5, 7.0]))
    net.update()
    assert net.ratios.tolist() == pytest.approx([0.0, 1 - 1 / 12])
    assert net.hard_mask().sum() == 8 + 1


def test_frozen_depth_is_hard_and_carries_no_gradient():
    import timm

    model = timm.create_model("resnet18", channels=(8, 8, 8, 8), num_classes=4)
    net = with_known_importance(Supernet(model, torch.randn(1, 3, 32, 32)))
    with torch.no_grad():
        net.ratios.fill_(0.2)
    net.depth_frozen = True
    assert set(net.soft_mask()[net.space.width_elements :].tolist()) <= {0.0, 1.0}
    net.resource_loss(budget_of(net.space, macs=1e5)).backward()
    widths = len(net.space.groups)
    assert net.ratios.grad[:widths].abs().min() > 0
    assert net.ratios.grad[widths:].abs().max() == 0


def test_falling_target_is_equation_10_and_then_holds():
    assert falling_target(100, 25, 0.0, 1.0) == 100
    assert falling_target(100, 25, 0.5, 1.0) == pytest.approx(50)
    assert falling_target(100, 25, 0.8, 0.8) == pytest.approx(25)
    assert falling_target(100, 25, 0.95, 0.8) == pytest.approx(25)


def test_search_finds_the_planted_structure():
    """Only four of the inputs' sixteen features tell the class: what carries them must survive."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 4))
    net = Supernet(model, torch.randn(2, 16))
    weights = torch.optim.Adam(model.parameters(), lr=5e-3)
    structure = torch.optim.Adam(net.structure_parameters(), lr=2e-2)
    final = 0.3 * net.space.macs
    budget = budget_of(net.space, macs=0.3)
    for step in range(300):
        x = torch.randn(128, 16)
        y = x[:, :4].argmax(1)
        target = budget.falling(step / 300, 0.8)
        (functional.cross_entropy(net(x), y) + net.resource_loss(target)).backward()
        weights.step()
        structure.step()
        weights.zero_grad()
        structure.zero_grad()
        net.update()
    architecture = net.architecture(budget)
    assert abs(architecture.macs - final) <= 0.01 * final
    small = cut(model, net.space, architecture)
    x = torch.randn(2000, 16)
    accuracy = float((small(x).argmax(1) == x[:, :4].argmax(1)).float().mean())
    assert accuracy > 0.85
    assert count(small, x[:1]).macs == architecture.macs


def test_scaling_needs_torch_alone():
    blocked = ["ray", "mlflow", "timm", "pydantic", "typer", "rich", "ultralytics", "transformers", "sklearn", "yaml"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({blocked!r}))  # importing any of them now fails
import torch, dms_bench.scaling as s
net = s.Supernet(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)), torch.randn(1, 4))
print(net.space.macs)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "48"


def test_the_readmes_own_training_loop_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    loop = next(block for block in blocks if "resource_loss" in block)
    model, example = small_network(), torch.randn(2, 3, 10, 10)
    loader = [(torch.randn(8, 3, 10, 10), torch.randint(0, 5, (8,))) for _ in range(30)]
    scope = {"model": model, "example": example, "loader": loader}
    exec(loop, scope)
    whole = find_space(small_network(), example).macs
    assert abs(count(scope["small"], example).macs - 0.3 * whole) < 0.01 * whole
