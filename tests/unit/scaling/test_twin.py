"""A search by a twin without zeros is the search by masks: losses, weights, statistics and the architecture."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
from timm.layers import StdConv2d
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from dms_bench.scaling import Schedule, Supernet, budget_of, find_space
from dms_bench.scaling.structure.relaxation import StraightThroughTopK, TopK
from dms_bench.scaling.twin import PATIENCE, Twins

STEPS = 60
PHASES = Schedule(0.1, 0.6)
#: Much harder than the default, so that narrow groups have masks of zero soon.
HARD = 20.0


class Residual(nn.Module):
    """A residual block of convolutions with batch norm, and a grouped one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 12, 1)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.last = nn.Conv2d(12, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(functional.relu(self.grouped(functional.relu(self.norm(self.first(x))))))


class Convolutions(nn.Module):
    """A stem, two stages of three blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.first = nn.Sequential(*(Residual(12) for _ in range(3)))
        self.down = nn.Conv2d(12, 16, 3, stride=2)
        self.second = nn.Sequential(*(Residual(16) for _ in range(3)))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.tanh(self.down(self.first(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """A GRU between two layers, of which the second shares its weight with a third."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(6, 16)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.hidden = nn.Linear(16, 16)
        self.again = nn.Linear(16, 16)
        self.again.weight = self.hidden.weight
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru(torch.tanh(self.inputs(x)))
        return self.head(self.again(torch.tanh(self.hidden(x))).mean(1))


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=48, num_heads=6, depth=3, num_classes=5, patch_size=16
    )


#: A network, and the shape of what it takes.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (Convolutions, (4, 3, 9, 9)),
    "attention": (vit, (4, 3, 32, 32)),
    "torch's transformer": (
        lambda: nn.Sequential(
            nn.Linear(6, 32),
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, batch_first=True, norm_first=True),
                3,
                enable_nested_tensor=False,
            ),
            nn.Flatten(),
            nn.Linear(32 * 4, 5),
        ),
        (4, 4, 6),
    ),
    "recurrent": (Recurrent, (4, 5, 6)),
    "standardised": (
        lambda: nn.Sequential(
            *(StdConv2d(3, 24, 3, padding=1), nn.ReLU(), StdConv2d(24, 24, 3, padding=1), nn.ReLU()),
            *(StdConv2d(24, 24, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)),
        ),
        (4, 3, 8, 8),
    ),
}


def supernets(name: str, **options: Any) -> tuple[tuple[Supernet, Supernet], tuple[int, ...]]:
    """Return two of the same network, of which the second leaves out zeros, and the shape of what they take."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build().double()
    space = find_space(copy.deepcopy(model), torch.randn(shape).double())
    options = {"temperature": HARD, **options}
    masked, skipping = (Supernet(copy.deepcopy(model), space, **options, skip_zeros=skip) for skip in (False, True))
    return (masked.train(), skipping.train()), shape


class Search:
    """A search that stops after any step; with revivals, as ratios jump back now and then."""

    def __init__(self, net: Supernet, shape: tuple[int, ...], worker: int | None = None) -> None:
        self.net, self.shape, self.first = net, shape, 0 if worker is None else worker * STEPS
        self.replica: nn.Module = net if worker is None else DistributedDataParallel(net)
        self.budget = budget_of(net.space, macs=0.4)
        self.weights = torch.optim.SGD(net.model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
        self.structure = torch.optim.Adam(net.structure_parameters(), lr=5e-2)

    def step(self, number: int) -> float:
        draw = torch.Generator().manual_seed(self.first + number)
        images = torch.randn(self.shape, generator=draw, dtype=torch.double)
        labels = torch.randint(0, 5, self.shape[:1], generator=draw)
        budget = self.net.begin_step(number / STEPS, self.budget, PHASES)
        loss = functional.cross_entropy(self.replica(images), labels)
        (loss + self.net.resource_loss(budget)).backward()
        self.weights.step()
        self.structure.step()
        self.weights.zero_grad()
        self.structure.zero_grad()
        self.net.update()
        if number in (30, 45):
            with torch.no_grad():
                self.net.ratios[: len(self.net.space.groups)] *= 0.7
        return float(loss.detach())


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the share of elements that each twin is built of."""
    built: list[float] = []
    of = Twins.of

    def recorded(self: Twins, model: nn.Module, mask: Tensor) -> Any:
        before = self._twin
        twin = of(self, model, mask)
        if twin is not before and twin is not None:
            built.append(float(self.alive.double().mean()))
        return twin

    monkeypatch.setattr(Twins, "of", recorded)
    return built


@pytest.mark.parametrize("name", NETWORKS)
def test_a_search_without_zeros_is_the_masked_search(name: str, alive: list[float]) -> None:
    (masked, skipping), shape = supernets(name)
    searches = [Search(net, shape) for net in (masked, skipping)]
    for number in range(STEPS):
        expected, loss = (search.step(number) for search in searches)
        assert loss == pytest.approx(expected, rel=1e-9), number
    assert len(alive) >= 2  # revivals build another one
    assert min(alive) < 0.9
    for (of, expected), found in zip(masked.named_parameters(), skipping.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=of)
    assert masked.architecture(searches[0].budget) == skipping.architecture(searches[1].budget)


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        nets, shape = supernets("convolutions")
        searches = [Search(net, shape, worker=rank) for net in nets]
        losses = [[search.step(number) for number in range(STEPS)] for search in searches]
        assert nets[1]._twins is not None
        assert not bool(nets[1]._twins.alive.all())
        torch.save((losses, [net.ratios.detach() for net in nets]), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_workers_leave_out_the_same(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_worker, args=(str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for losses, _ in (one, other):
        assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert one[0] != other[0]
    assert torch.equal(one[1][1], other[1][1])


@pytest.mark.parametrize("importance", ["snip", "index"])
def test_other_importances_that_vanish_with_the_mask(importance: str, alive: list[float]) -> None:
    (masked, skipping), shape = supernets("convolutions", importance=importance)
    searches = [Search(net, shape) for net in (masked, skipping)]
    losses = [[search.step(number) for number in range(STEPS)] for search in searches]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert min(alive) < 0.8


@pytest.mark.parametrize("relaxation", [StraightThroughTopK, lambda space: TopK(space, importance="fisher")])
def test_where_zeros_matter_blocks_alone_go_once_the_depth_is_decided(relaxation: Any, alive: list[float]) -> None:
    (_, skipping), shape = supernets("convolutions")
    nets = [
        Supernet(copy.deepcopy(skipping.model), skipping.space, relaxation(skipping.space), skip_zeros=skip).train()
        for skip in (False, True)
    ]
    searches = [Search(net, shape) for net in nets]
    losses = [[search.step(number) for number in range(STEPS)] for search in searches]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    twins, width = nets[1]._twins, skipping.space.width_elements
    assert twins is not None
    assert bool(twins.alive[:width].all())
    assert twins.alive[width:].tolist() == nets[1].relaxation.depth.bool().tolist()
    assert not bool(twins.alive.all())


def test_statistics_move_on_in_what_runs_alone(alive: list[float]) -> None:
    (masked, skipping), shape = supernets("convolutions")
    searches = [Search(net, shape) for net in (masked, skipping)]
    for number in range(STEPS):
        for search in searches:
            search.step(number)
    images = torch.randn(shape).double()
    outputs = [net.eval()(images) for net in (masked, skipping)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-2, atol=1e-2)  # what returned knows fewer batches
    norms = [net.model.second[0].norm for net in (masked, skipping)]
    assert norms[0].num_batches_tracked == norms[1].num_batches_tracked


def test_what_does_not_run_has_a_gradient_of_zero() -> None:
    (_, skipping), shape = supernets("convolutions")
    assert skipping._twins is not None
    alive = torch.ones_like(skipping._twins.alive)
    alive[:4] = False  # channels of the first group
    alive[skipping.space.width_elements] = False  # and the first block
    skipping._twins.alive.copy_(alive)
    mask = alive.double()
    with skipping.fixed(mask):
        skipping(torch.randn(shape).double()).sum().backward()
    assert all(parameter.grad is not None for parameter in skipping.model.parameters())
    gone = skipping.space.blocks[0]
    assert all(not parameter.grad.any() for parameter in skipping.model.get_submodule(gone).parameters())
    assert skipping.model.head.weight.grad.any()


def test_the_whole_network_runs_what_the_twin_has_not() -> None:
    (masked, skipping), shape = supernets("convolutions")
    assert skipping._twins is not None
    skipping._twins.alive[:4] = False
    images = torch.randn(shape).double()
    for mask in (skipping.space.full(), skipping._twins.alive.double()):
        with masked.eval().fixed(mask), skipping.eval().fixed(mask), torch.no_grad():
            torch.testing.assert_close(skipping(images), masked(images))


def test_a_search_goes_on_from_its_state(alive: list[float]) -> None:
    (_, skipping), shape = supernets("convolutions")
    whole, halves = Search(skipping, shape), Search(copy.deepcopy(skipping), shape)
    losses = [whole.step(number) for number in range(STEPS)]
    found = [halves.step(number) for number in range(35)]
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (halves.net, halves.weights, halves.structure)], file)
    (_, fresh), _ = supernets("convolutions")
    resumed = Search(fresh, shape)
    file.seek(0)
    for part, state in zip((resumed.net, resumed.weights, resumed.structure), torch.load(file), strict=True):
        part.load_state_dict(state)
    found += [resumed.step(number) for number in range(35, STEPS)]
    assert found == losses  # to the last bit: it runs the same twin


def test_a_copy_and_another_precision_have_twins_of_their_own() -> None:
    (_, skipping), shape = supernets("convolutions")
    assert skipping._twins is not None
    skipping._twins.alive[:4] = False
    mask, images = skipping._twins.alive.double(), torch.randn(shape).double()
    with torch.no_grad(), skipping.eval().fixed(mask):
        expected = skipping(images)
    copied = copy.deepcopy(skipping)
    with torch.no_grad():
        for parameter in skipping.model.parameters():
            parameter.zero_()
    with torch.no_grad(), copied.fixed(mask):
        torch.testing.assert_close(copied(images), expected)
    single = copied.float()
    with torch.no_grad(), single.fixed(mask):
        torch.testing.assert_close(single(images.float()), expected.float())


def test_an_element_stays_for_a_while_after_it_became_zero() -> None:
    (_, skipping), _ = supernets("convolutions")
    twins = Twins(skipping.space)
    few = torch.zeros(skipping.space.units.total, dtype=torch.bool)
    few[::2] = True
    few[skipping.space.width_elements :] = True
    for _ in range(PATIENCE - 1):
        twins.begin_step(few)
        assert twins.alive.all()
    for _ in range(PATIENCE + 1):
        twins.begin_step(few)
    assert torch.equal(twins.alive, few)
    twins.begin_step(torch.ones_like(few))
    assert twins.alive.all()
