"""The proof tries every group and every block, kept and removed, and says what it could not try."""

import importlib
import itertools
import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dms_bench.scaling import cut, find, find_space
from dms_bench.scaling.proof.masks import gaps, proof_masks
from dms_bench.scaling.proof.outputs import difference_of
from dms_bench.scaling.proof.proof import DIFFERS, FEW, _Proof, masks_of, untried
from tests.unit.scaling.agreement import assert_masked_is_cut
from tests.unit.scaling.odd_networks import Block, Residual

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
groups = st.lists(
    st.integers(2, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size - 1))), max_size=6
)
stages = st.lists(
    st.integers(1, 12).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))), max_size=4
)


@given(groups, stages, st.integers(0, 99))
def test_masks_try_all_that_minimums_allow(groups, stages, seed):
    masks = proof_masks(groups, stages, seed)
    number = max([2, *(-(-size // (size - low)) for size, low in stages)])
    assert masks.shape == (number + 2, sum(size for size, _ in [*groups, *stages]))
    masks, start = masks[:number], 0
    for unit, (size, low) in enumerate([*groups, *stages]):
        own = masks[:, start : start + size]
        start += size
        assert int(own.sum(1).min()) >= low
        if unit < len(groups):
            assert bool((own == 0).any(1).all())  # each mask cuts some
            assert len(own.unique(dim=0)) > 1
            assert bool(own.amax(0).all())  # everything is there once
            assert int((own == 0).any(0).sum()) == min(size, number * (size - low))  # as many as can are gone once
        else:
            assert bool(own.amax(0).all()) or size == 0
            assert not bool(own.amin(0).any())
    blocks = sum(size for size, _ in stages)
    places = [(unit, block) for unit in range(len(groups)) for block in range(-1, blocks)]
    missing = gaps(masks, [size for size, _ in groups], [size for size, _ in stages], places)
    assert set(missing) == {unit for unit, (size, low) in enumerate(groups) if number * (size - low) < size}


@given(groups, stages)
def test_two_more_masks_are_lopsided_and_the_smallest(groups, stages):
    lopsided, fewest = proof_masks(groups, stages, 0)[-2:]
    start, shares = 0, []
    for size, low in groups:
        own, few = lopsided[start : start + size], fewest[start : start + size]
        start += size
        assert own.tolist() == sorted(own.tolist(), reverse=True)  # what goes lies at the end
        assert int(own.sum()) >= low
        assert int(few.sum()) == low
        shares.append(float(own.mean()) if low == 1 and size >= 8 else None)
    assert all(a != b for a, b in itertools.pairwise(shares) if a is not None and b is not None)
    assert bool((lopsided[start:] == 1).all())
    assert bool((fewest[start:] == 1).all())  # so that all layers are there


def test_gaps_name_what_a_single_mask_hides():
    mask = torch.tensor([[0.0, 1, 1, 1, 0, 1]])  # two groups of two, then a stage of two: the first block is gone
    found = gaps(mask, [2, 2], [2], [(0, -1), (0, 0), (0, 1), (1, 1)])
    assert found[0] == "layers that no mask of the proof cuts while they are there"
    assert "layers" in found[1]
    assert found[2] == "of 2 blocks 1 never removed, 1 never kept in the proof"


FAMILIES = [
    *("resnet18", "mobilenetv2_035", "efficientnet_b0", "deit_tiny_patch16_224", "convnext_atto", "resmlp_12_224"),
    *("regnetx_002", "ghostnet_050", "levit_128s", "edgenext_xx_small"),
]


def space_unproven(monkeypatch, model, example):
    monkeypatch.setattr(find, "prove", lambda model, example, space, idle: space)
    return find_space(model, example)


@pytest.mark.parametrize("name", FAMILIES)
def test_real_networks_are_covered(name, monkeypatch):
    size = 224 if name in ("deit_tiny_patch16_224", "resmlp_12_224", "levit_128s") else 64
    space = space_unproven(monkeypatch, timm.create_model(name), torch.randn(1, 3, size, size))
    masks = masks_of(space)
    few = any(group.size <= FEW and not group.heads for group in space.groups)
    assert len(masks) == (6 if few else 4)
    assert not untried(space, masks if few else masks[:2])
    alone = untried(space, masks[:1])
    assert alone  # one mask is not enough


@pytest.mark.slow
def test_the_whole_zoo_is_covered(monkeypatch):
    folder = Path(__file__).parents[3] / "benchmarks" / "zoo"
    monkeypatch.syspath_prepend(folder)
    networks = importlib.import_module("networks")
    uncovered = {}
    for names in yaml.safe_load((folder / "zoo.yaml").read_text()).values():
        for name in names:
            space = space_unproven(monkeypatch, *networks.TimmEntry(name).build())
            masks = masks_of(space)
            few = any(group.size <= FEW and not group.heads for group in space.groups)
            if untried(space, masks if few else masks[:2]) or len(masks) != (6 if few else 4):
                uncovered[name] = untried(space, masks)
    assert not uncovered


class Fragile(Block):
    """A block whose cut goes wrong without a word; as one of two, a single mask may remove it."""

    def forward(self, x):
        hidden = self.a(x).relu()
        return x + self.last(self.b(hidden * (1 + hidden.size(1) / 8)))


@pytest.mark.parametrize("place", range(4))
def test_a_fault_is_found_in_whichever_block_it_is(place):
    space = find_space(Residual([Fragile() if i == place else Block() for i in range(4)]), IMAGES)
    assert space.excluded[f"blocks.{place}.a"] == "the cut network does not equal the masked one"
    assert len(space.groups) == 4
    assert space.proof_error < 1e-12
    assert not space.gaps


class Jealous(nn.Module):
    """Branches of which two cannot be cut at once."""

    def __init__(self):
        super().__init__()
        self.ins = nn.ModuleDict({name: nn.Linear(8, 16) for name in "abcdefghijkl"})
        self.outs = nn.ModuleDict({name: nn.Linear(16, 8) for name in self.ins})

    def forward(self, x):
        hidden = {name: layer(x).relu() for name, layer in self.ins.items()}
        wrong = hidden["c"].size(1) < 16 and hidden["h"].size(1) < 16
        return sum(self.outs[name](hidden[name]) for name in hidden) * (2 if wrong else 1)


def test_of_what_cannot_be_cut_together_the_first_stays(monkeypatch):
    compared, error = [], _Proof._error
    monkeypatch.setattr(_Proof, "_error", lambda *args, **kwargs: compared.append(args) or error(*args, **kwargs))
    space = find_space(Jealous(), torch.randn(2, 8))
    assert [group.name for group in space.groups] == [f"ins.{name}" for name in "abcdefgijkl"]
    assert space.excluded["ins.h"] == f"cannot be cut together with others: {DIFFERS}"
    assert space.proof_error < 1e-12
    assert len(compared) < 40  # which does not grow with the number of groups


WRONG = {
    "macs_model": r"\d+ MACs were seen where \d+ are counted",
    "params_model": "of the whole network: the predicted parameters are not the counted ones",
}


@pytest.mark.parametrize("model", WRONG)
def test_both_costs_are_compared_and_the_reason_says_which_is_wrong(model, monkeypatch):
    real = find._Builder.build

    def build_wrong(self, *args):
        space = real(self, *args)
        getattr(space, model).multiples *= 0.5
        return space

    monkeypatch.setattr(find._Builder, "build", build_wrong)
    space = find_space(Residual([Block() for _ in range(3)]), IMAGES)
    assert not space.groups
    assert re.fullmatch(WRONG[model], space.excluded["blocks.0.a"])


def test_a_bound_that_keeps_elements_out_of_the_proof_is_named():
    from dms_bench.scaling.space.coarse import Coarse

    space = find_space(Residual([Block() for _ in range(4)]), IMAGES, coarse=[Coarse(groups="blocks.0.a", min=7)])
    assert space.gaps == {"blocks.0.a": "of 8 elements 3 never removed, 0 never kept in the proof"}
    bounded = find_space(Residual([Block() for _ in range(4)]), IMAGES, coarse=[Coarse(stages="blocks", min=3)])
    assert not bounded.gaps  # blocks may go in the proof that stay in a search


class Halves(nn.Module):
    """Takes its channels apart in the middle, wherever that is."""

    def __init__(self, channels, convolved):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 1)
        self.b = nn.Conv2d(channels // 2, channels // 2, 3, padding=1) if convolved else nn.Tanh()

    def forward(self, x):
        left, right = self.a(x).chunk(2, 1)
        return torch.cat([left.relu(), self.b(right)], 1)


@pytest.mark.parametrize("convolved", [False, True])
@pytest.mark.parametrize("channels", [4, 8, 12, 20, 28, 32, 36])
def test_halves_that_a_random_mask_cuts_alike_by_luck(channels, convolved):
    layers = [nn.Conv2d(3, channels, 1), Halves(channels, convolved), nn.Conv2d(channels, 6, 1)]
    assert_masked_is_cut(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)), IMAGES)


class Threshold(nn.Module):
    """Computes otherwise where it is narrow."""

    def forward(self, x):
        return x.relu() if x.shape[1] > 4 else x


class Einsum(nn.Module):
    """torch multiplies where one channel is left, and makes a product of matrices where there are more."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, 16))

    def forward(self, x):
        return torch.einsum("bchw,dc->bdhw", x, self.w)


@pytest.mark.parametrize(("middle", "width"), [(Threshold(), 16), (Einsum(), 12)])
def test_what_differs_in_the_narrowest_network_alone_is_found(middle, width):
    """A branch on the width leaves its group out; where two channels are right for all, two have to stay."""
    layers = [nn.Conv2d(3, 16, 1), middle, nn.Conv2d(width, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    space = assert_masked_is_cut(nn.Sequential(*layers, nn.Linear(8, 5)), IMAGES)
    if isinstance(middle, Threshold):
        assert space.excluded["0"] == "the cut network does not equal the masked one"
        assert [group.name for group in space.groups] == ["2"]
    else:
        assert {(group.name, group.minimum) for group in space.groups} == {("0", 2), ("1", 2), ("2", 2)}


def test_one_channel_may_stay_where_that_is_right():
    space = assert_masked_is_cut(Residual([Block() for _ in range(2)]), IMAGES)
    assert {group.minimum for group in space.groups} == {1}


class Auxiliary(nn.Module):
    """A head that runs in training alone, on features that are searched."""

    def __init__(self):
        super().__init__()
        self.a, self.aux, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1), nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.a(x).relu()
        extra = self.aux(x).mean() if self.training else 0
        return self.head(self.b(x).relu().mean((2, 3))) + extra


def test_what_feeds_a_layer_that_only_runs_in_training_takes_its_inputs_along():
    model = Auxiliary()
    space = assert_masked_is_cut(model, IMAGES)
    assert {group.name: group.size for group in space.groups} == {"a": 12, "b": 8}
    mask = space.full()
    mask[: len(mask) // 2] = 0
    cut(model, space, space.architecture(mask)).train()(IMAGES.double())


class Blur(nn.Module):
    """A constant that is no buffer, in single precision whatever the network's."""

    def __init__(self):
        super().__init__()
        self.kernel = torch.ones(1, 1, 3, 3) / 9

    def forward(self, x):
        return functional.conv2d(x, self.kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def test_a_network_that_does_not_run_in_double_is_proven_in_single_precision():
    layers = [nn.Conv2d(3, 8, 3), Blur(), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    space = find_space(nn.Sequential(*layers, nn.Linear(6, 2)), IMAGES)
    assert space.proof_error < 1e-5
    assert [group.name for group in space.groups] == ["3"]
    assert "0" in space.excluded


def test_torchscript_is_refused_in_words():
    with pytest.warns(FutureWarning):
        model = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    with pytest.raises(ValueError, match="the network is TorchScript: search the network that it was made from"):
        find_space(model, torch.randn(2, 3))


def test_a_space_without_widths_takes_round_to():
    space = find_space(Residual([Block() for _ in range(3)]), IMAGES, width=False, round_to=8)
    assert space.units.sizes == (3,)


@pytest.mark.parametrize("scale", [1.0, 1e160, 1e-3])
def test_outputs_that_differ_differ_whatever_their_size(scale):
    right = torch.tensor([1.0, -2.0, 3.0], dtype=torch.double) * scale
    assert difference_of([right], [right]) == 0
    assert difference_of([right * 2], [right]) == pytest.approx(1)
    assert difference_of([right * (1 + 1e-9)], [right]) == pytest.approx(1e-9, rel=1e-3)


def test_where_nothing_is_finite_there_is_nothing_to_compare():
    nothing = torch.full((3,), float("nan"))
    assert difference_of([nothing], [nothing]) == float("inf")
    partly = torch.tensor([float("-inf"), 1.0])
    assert difference_of([partly, torch.empty(0)], [partly, torch.empty(0)]) == 0


class LogarithmOfAWrongCut(nn.Module):
    """Multiplies by a number of channels, which no cut can know, and takes the logarithm of what may be negative."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x):
        hidden = self.a(x)
        return torch.log(self.b(hidden.relu()).sum(1) * hidden.shape[-1] - 1e3)


def test_a_network_without_finite_outputs_is_not_proven():
    with pytest.raises(ValueError, match="nothing of the network can be searched"):
        find_space(LogarithmOfAWrongCut(), torch.randn(2, 4)).check_searchable()
