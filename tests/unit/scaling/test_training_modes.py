"""A search step under the ways in which people train: the same gradients as in a plain loop."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from dms_bench.scaling import Supernet, budget_of, find_space
from dms_bench.scaling.example import Example
from dms_bench.scaling.masks import norms
from dms_bench.scaling.masks.blocks import BlendBlock
from dms_bench.scaling.masks.norm_hook import MaskedNorm
from dms_bench.scaling.masks.norms import masked_layer_norm
from dms_bench.scaling.masks.weights import ScaleWeight
from dms_bench.scaling.tracing.branches import find_tails


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x))))))


class Mixer(nn.Module):
    """A pre-norm block whose branch ends in something that is no layer: it is blended."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.grow, self.shrink = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(3 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.shrink(functional.gelu(self.grow(self.norm(x))))


class Network(nn.Module):
    """Every kind of hook: convolutions and linear layers, layer norms, blocks with and without a tail."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.ModuleList(Residual(width) for _ in range(3))
        self.mixers = nn.ModuleList(Mixer(width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = self.run(block, x)
        x = x.flatten(2).transpose(1, 2)
        for mixer in self.mixers:
            x = self.run(mixer, x)
        return self.head(self.norm(x).mean(1))

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)


def search(temperature: float = 1.0) -> Supernet:
    torch.manual_seed(0)
    net = Supernet(Network(), torch.randn(1, 3, 12, 12), temperature=temperature)
    with torch.no_grad():
        net.importance.uniform_(0, 1)
        net.ratios.uniform_(0.2, 0.6)
    net.update()  # as every step ends
    return net


def batch(seed: int = 1, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 12, 12, generator=generator), torch.arange(size) % 5


def step(net: Supernet, forward: nn.Module | None = None, amp: bool = False, data: tuple | None = None) -> float:
    """One backward pass; the gradients stay."""
    x, y = data or batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        scores = (net if forward is None else forward)(x)
    loss = functional.cross_entropy(scores.float(), y) + net.resource_loss(budget_of(net.space, macs=0.5))
    loss.backward()
    return float(loss.detach())


def gradients(net: Supernet) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return {**found, "mask": net._probe.grad}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda text, name=name: f"{name}: {text}", **tolerance)
    assert float(expected["relaxation.ratios"].abs().min()) > 0


@pytest.fixture
def net() -> Supernet:
    return search()


def test_the_network_has_every_kind_of_hook(net):
    hooks = []
    for module in net.model.modules():
        hooks += [*module._forward_pre_hooks.values(), *module._forward_hooks.values(), module.__dict__.get("forward")]
    kinds = [type(hook) for hook in hooks]
    assert kinds.count(BlendBlock) == 2
    assert kinds.count(MaskedNorm) == 3
    assert any(isinstance(hook, ScaleWeight) and hook.input_dim is not None for hook in hooks)
    assert net.space.tails == {f"blocks.{i}": (f"blocks.{i}.norm2",) for i in range(3)}


def test_scaling_the_input_equals_scaling_the_weight(net):
    """Small batches scale inputs, large ones weights; halves of a batch add up to the whole."""
    net.double().eval()
    twin = copy.deepcopy(net)
    x, y = batch(size=64)
    x = x.double()
    functional.cross_entropy(net(x), y, reduction="sum").backward()
    for one, label in zip(x.split(1), y.split(1), strict=True):
        functional.cross_entropy(twin(one), label, reduction="sum").backward()
    assert_same(gradients(twin), gradients(net))


def test_a_block_that_changes_its_input_even_without_its_branch_is_blended():
    """relu(x + f(x)) returns x where f gives nothing only if x was activated before."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8), Residual(8), nn.Flatten(), nn.Linear(800, 5)).eval()
    blocks = ["1", "2"]
    assert find_tails(model, Example(torch.randn(1, 3, 12, 12)), blocks) == {"2": ("2.norm2",)}


def test_a_loaded_state_ranks_anew(net):
    twin = search()
    with torch.no_grad():
        net.importance.copy_(net.importance.flip(0))
    twin.load_state_dict(net.state_dict())
    net.relaxation.refresh()
    assert torch.equal(twin.relaxation._positions, net.relaxation._positions)


def test_soft_block_masks_scale_branches(net):
    """x + m f(x), where the branch ends in a layer and where the block is blended."""
    net.eval()
    mask = torch.ones(net.space.units.total)
    for place, block in enumerate([*net.model.blocks, *net.model.mixers]):
        mask[net.space.width_elements + place] = 0.3
        seen = {}
        handle = block.register_forward_hook(lambda _, args, output, seen=seen: seen.update(x=args[0], y=output))
        with torch.no_grad(), net.fixed(mask):
            net(batch()[0])
        handle.remove()
        x = seen["x"]
        with torch.no_grad():
            if isinstance(block, Residual):
                branch = block.norm2(block.conv2(functional.relu(block.norm1(block.conv1(x)))))
                expected = functional.relu(x + 0.3 * branch)
            else:
                expected = x + 0.3 * (block(x) - x)
        torch.testing.assert_close(seen["y"], expected)
        mask.fill_(1)


@pytest.mark.parametrize(("shape", "at_a_time"), [((6, 5), 2**17), ((2, 3, 5), 2**17), ((7, 5), 11), ((7, 5), 1)])
def test_masked_layer_norm_is_its_definition_in_value_and_gradient(shape, at_a_time, monkeypatch):
    monkeypatch.setattr(norms, "_ELEMENTS_AT_A_TIME", at_a_time)

    def definition(x, mask, weight, bias):
        shares = mask / mask.sum()
        mean = (x * shares).sum(-1, keepdim=True)
        variance = ((x - mean).square() * shares).sum(-1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 0.1) * weight + bias

    torch.manual_seed(0)
    operands = [torch.randn(shape) * 2 + 3, torch.rand(5), torch.randn(5), torch.randn(5)]
    operands = [operand.double().requires_grad_() for operand in operands]
    up = torch.randn(shape).double()
    expected = definition(*operands)
    found = masked_layer_norm(operands[0], operands[1], -1, operands[2], operands[3], 0.1)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, operands, up), torch.autograd.grad(expected, operands, up), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_masked_layer_norm_takes_channels_first_and_no_affine():
    x, mask = torch.randn(2, 5, 3, 3), torch.tensor([1.0, 0, 1, 1, 0])
    kept = mask.bool()
    found = masked_layer_norm(x, mask, 1, None, None, 1e-5)
    expected = functional.layer_norm(x[:, kept].movedim(1, -1), (3,)).movedim(-1, 1)
    torch.testing.assert_close(found[:, kept], expected)


def test_activation_checkpointing_changes_no_gradient(net):
    twin = copy.deepcopy(net)
    twin.model.checkpointing = True
    assert step(twin) == step(net)
    assert_same(gradients(twin), gradients(net))


def test_timms_checkpointing_changes_no_gradient():
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, num_heads=3, depth=2, num_classes=5)
    space = find_space(model, torch.randn(1, 3, 32, 32))
    found = []
    for enable in (False, True):
        torch.manual_seed(0)
        net = Supernet(copy.deepcopy(model), space)
        with torch.no_grad():
            net.importance.uniform_(0, 1)
            net.ratios.fill_(0.35)
        net.model.set_grad_checkpointing(enable)
        step(net, data=(torch.randn(3, 3, 32, 32), torch.arange(3)))
        found.append(gradients(net))
    assert_same(found[1], found[0])


def test_autocast_keeps_masks_in_full_precision_and_gradients_close(net):
    twin = copy.deepcopy(net)
    exact, rough = step(net), step(twin, amp=True)
    assert rough == pytest.approx(exact, rel=0.02)
    assert rough != exact
    assert twin._mask.dtype == twin._probe.grad.dtype == torch.float32
    expected, found = gradients(net), gradients(twin)
    for name in ("relaxation.ratios", "mask"):
        cosine = functional.cosine_similarity(found[name], expected[name], dim=0)
        assert float(cosine) > 0.99, name
    twin.update()
    assert torch.isfinite(twin.importance).all()


def test_gradient_accumulation_adds_up(net):
    net.eval()
    twin = copy.deepcopy(net)
    x, y = batch()
    functional.cross_entropy(net(x), y).backward()
    for part in (slice(0, 3), slice(3, 6)):
        (functional.cross_entropy(twin(x[part]), y[part]) / 2).backward()
    assert_same(gradients(twin), gradients(net))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_search_step_follows_the_plain_one(net, backend):
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    for seed in (1, 2, 3):
        losses = [step(net, data=batch(seed)), step(twin, compiled, data=batch(seed))]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert_same(gradients(twin), gradients(net), rtol=1e-3, atol=1e-5)
        for one in (net, twin):
            with torch.no_grad():
                one.ratios.sub_(0.05 * one.ratios.grad.sign())
            one.zero_grad()
            one.update()
        torch.testing.assert_close(twin.importance, net.importance, rtol=1e-3, atol=1e-9)
    assert all(isinstance(parameter, nn.Parameter) for parameter in twin.model.parameters())
    torch._dynamo.reset()


def _worker(rank: int, port: int, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        net = search()
        replica = DistributedDataParallel(net)
        structure = torch.optim.Adam(net.structure_parameters(), lr=0.02)
        weights = torch.optim.SGD(net.model.parameters(), lr=0.01)
        for number in range(3):
            first = batch(10 * number + 2 * rank), batch(10 * number + 2 * rank + 1)
            with replica.no_sync():  # accumulates
                functional.cross_entropy(replica(first[0][0]), first[0][1]).backward()
            step(net, replica, data=first[1])
            for optimizer in (structure, weights):
                optimizer.step()
                optimizer.zero_grad()
            net.update()
        torch.save({"ratios": net.ratios.detach(), "importance": net.importance}, f"{results}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_workers_of_a_distributed_search_agree_to_the_bit(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(port, str(tmp_path)), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in ("ratios", "importance"):
        assert torch.equal(one[name], other[name])
    fresh = search()
    assert not torch.equal(one["importance"], fresh.importance)
    assert not torch.equal(one["ratios"], fresh.ratios)
