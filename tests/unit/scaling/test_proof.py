"""The proof tries every group and every block, kept and removed, and says what it could not try."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dms_bench.scaling import build, find_space
from dms_bench.scaling.coverage import gaps, proof_masks
from dms_bench.scaling.proof import masks_of, untried
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
    assert masks.shape == (number, sum(size for size, _ in [*groups, *stages]))
    start = 0
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
    monkeypatch.setattr(build, "prove", lambda model, example, space: space)
    return find_space(model, example)


@pytest.mark.parametrize("name", FAMILIES)
def test_real_networks_are_covered(name, monkeypatch):
    size = 224 if name in ("deit_tiny_patch16_224", "resmlp_12_224", "levit_128s") else 64
    space = space_unproven(monkeypatch, timm.create_model(name), torch.randn(1, 3, size, size))
    masks = masks_of(space)
    assert len(masks) == 2
    assert not untried(space, masks)
    alone = untried(space, masks[:1])
    assert alone  # one mask is not enough


@pytest.mark.slow
def test_the_whole_zoo_is_covered(monkeypatch):
    folder = Path(__file__).parents[3] / "benchmarks" / "zoo"
    spec = importlib.util.spec_from_file_location("zoo", folder / "zoo.py")
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    uncovered = {}
    for names in yaml.safe_load((folder / "zoo.yaml").read_text()).values():
        for name in names:
            space = space_unproven(monkeypatch, *zoo.create(name))
            masks = masks_of(space)
            if untried(space, masks) or len(masks) != 2:
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


@pytest.mark.parametrize(("model", "what"), [("macs_model", "MACs"), ("params_model", "parameters")])
def test_both_costs_are_compared_and_the_reason_says_which_is_wrong(model, what, monkeypatch):
    real = build._Builder.build

    def build_wrong(self, *args):
        space = real(self, *args)
        getattr(space, model).multiples *= 0.5
        return space

    monkeypatch.setattr(build._Builder, "build", build_wrong)
    space = find_space(Residual([Block() for _ in range(3)]), IMAGES)
    assert not space.groups
    assert space.excluded["blocks.0.a"].endswith(f"the predicted {what} are not the counted ones")


def test_a_bound_that_keeps_elements_out_of_the_proof_is_named():
    from dms_bench.scaling.coarse import Coarse

    space = find_space(Residual([Block() for _ in range(4)]), IMAGES, coarse=[Coarse(groups="blocks.0.a", min=7)])
    assert space.gaps == {"blocks.0.a": "of 8 elements 6 never removed, 0 never kept in the proof"}
    bounded = find_space(Residual([Block() for _ in range(4)]), IMAGES, coarse=[Coarse(stages="blocks", min=3)])
    assert not bounded.gaps  # blocks may go in the proof that stay in a search
