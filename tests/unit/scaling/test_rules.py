"""Labels and the operators they travel through, on small modules and small timm models."""

import random

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import count, cut, find_space
from dms_bench.scaling.example import Example
from dms_bench.scaling.masks.hooks import MaskedForward
from dms_bench.scaling.masks.standardised import masked_standardised
from dms_bench.scaling.tracing.labels import FIXED, Labels
from dms_bench.scaling.tracing.rules import RULES
from dms_bench.scaling.tracing.tracer import Tracer


def sizes(space):
    return {group.name: group.size for group in space.groups}


def searchable(space):
    low, high = space.reachable(space.macs_model)
    return 1 - low / high


# --- labels


def test_classes_equal_those_of_a_naive_union_find():
    generator = random.Random(0)
    labels, naive = Labels(), {FIXED: {FIXED}}
    own = labels.fresh(60)
    naive.update({label: {label} for label in own.tolist()})
    for _ in range(30):
        left, right = generator.randrange(1, 61), generator.randrange(1, 61)
        labels.unite(torch.tensor([left]), torch.tensor([right]))
        merged = naive[left] | naive[right]
        for label in merged:
            naive[label] = merged
    labels.freeze(torch.tensor([7, 8]), "because")
    roots, reasons = labels.resolve()
    gone = naive[7] | naive[8]
    for label in own.tolist():
        expected = FIXED if label in gone else min(naive[label])
        assert int(roots[label]) == expected
        assert reasons.get(label) == ("because" if label in gone else None)


def test_what_meets_a_fixed_label_is_frozen():
    labels = Labels()
    own = labels.fresh(3)
    labels.unite(own, torch.tensor([FIXED, int(own[1]), int(own[2])]))
    roots, reasons = labels.resolve()
    assert [int(roots[label]) == FIXED for label in own.tolist()] == [True, False, False]
    assert list(reasons) == [int(own[0])]


# --- operators


def test_a_group_norm_keeps_or_loses_whole_groups():
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.GroupNorm(6, 24), nn.ReLU(), nn.Conv2d(24, 5, 3))
    space = find_space(model, torch.randn(1, 3, 9, 9))
    assert sizes(space) == {"0": 6}
    assert space.proof_error < 1e-10
    small = cut(model, space, space.architecture(torch.tensor([1.0, 0, 1, 0, 0, 1])))
    assert (small[1].num_groups, small[1].num_channels) == (3, 12)


def test_few_groups_of_a_convolution_are_cut_inside_many_are_removed():
    for groups, expected in ((2, {"0": 12, "1": 10}), (12, {"stream": 12})):
        model = nn.Sequential(
            nn.Conv2d(3, 24, 1), nn.Conv2d(24, 20 if groups == 2 else 24, 3, groups=groups), nn.Conv2d(20, 5, 3)
        )
        if groups == 12:
            model[2] = nn.Conv2d(24, 5, 3)
        space = find_space(model, torch.randn(1, 3, 9, 9))
        assert sizes(space) == expected
        assert space.proof_error < 1e-10
        mask = torch.ones(space.units.total)
        mask[1:4] = 0
        small = cut(model, space, space.architecture(mask))
        assert small[1].groups == (2 if groups == 2 else 9)
        assert count(small, torch.randn(1, 3, 9, 9)).macs == space.hard_cost("macs", mask)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"), [(1, 1, 0, {"stem": 13}), (3, 1, 1, {}), (1, 2, 6, {})]
)
def test_features_in_the_place_of_positions_pass_a_convolution_that_leaves_them_there(
    kernel, stride, padding, expected
):
    class Aggregate(nn.Module):
        """Sums three copies of all features by a convolution over the copies (CoaT), or over features (ECA)."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(6, 13), nn.Linear(13, 4)
            self.mix = nn.Conv1d(3, 1, kernel, stride, padding)

        def forward(self, x):
            x = self.stem(x)
            return self.head(self.mix(torch.stack([x, x.relu(), -x], 1)).squeeze(1))

    model = Aggregate().eval()
    space = find_space(model, torch.randn(2, 6))
    assert sizes(space) == expected
    assert space.macs == count(model, torch.randn(1, 6)).macs
    assert expected or space.excluded["stem"] == "convolved over"


def test_activations_without_the_pointwise_tag_pass_labels_on():
    model = nn.Sequential(
        nn.Linear(4, 12), nn.Hardswish(inplace=True), nn.Linear(12, 10), nn.PReLU(10), nn.Linear(10, 2)
    )
    assert sizes(find_space(model, torch.randn(1, 4))) == {"0": 12, "2": 10}


def test_macs_of_what_does_not_depend_on_the_input_are_counted_once():
    class Constant(nn.Module):
        """A bias that a small network makes from fixed coordinates."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("places", torch.randn(7, 2))
            self.make = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 7))
            self.inner, self.out = nn.Linear(7, 9), nn.Linear(9, 2)

        def forward(self, x):
            return self.out(self.inner(x + self.make(self.places).mean(0)))

    model = Constant().eval()
    expected = 7 * (2 * 16 + 16 * 7) + 7 * 9 + 9 * 2
    seen = Tracer(model, RULES).run(Example(torch.randn(2, 7)), 2).contractions
    assert sum(one.macs for one in seen) == expected
    space = find_space(model, torch.randn(4, 7))
    assert space.macs == expected
    assert sizes(space) == {"make.0": 16, "inner": 9}


def test_samples_that_depend_on_each_other_are_traced_one_at_a_time():
    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x):
            x = self.b(self.a(x))
            return (x @ x.t()) @ x

    model = Across().eval()
    space = find_space(model, torch.randn(1, 6))
    assert space.macs == count(model, torch.randn(1, 6)).macs
    assert sizes(space) == {"a": 12}


def test_a_rule_that_does_not_fit_freezes(monkeypatch):
    def broken(*args):
        raise IndexError

    monkeypatch.setitem(RULES, "relu", broken)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    space = find_space(model, torch.randn(1, 4))
    assert sizes(space) == {"2": 8}
    assert space.excluded["0"] == "operator relu in a form that its rule does not know"


# --- statistics of weights


class Standardised(nn.Conv2d):
    """Normalises its weight over its inputs, as timm's BiT and normaliser-free networks do."""

    eps = 1e-4

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = functional.batch_norm(flat, None, None, training=True, momentum=0.0, eps=self.eps)
        return functional.conv2d(x, weight.reshape_as(self.weight), self.bias)


def naive_standardised(weight, eps):
    mean, variance = weight.mean((1, 2, 3), keepdim=True), weight.var((1, 2, 3), unbiased=False, keepdim=True)
    return (weight - mean) / torch.sqrt(variance + eps)


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5], [1, 4], [0, 2, 3]])
def test_masked_standardised_weights_equal_those_of_the_kept_inputs(kept):
    weight = torch.randn(4, 6, 3, 3, dtype=torch.double)
    mask = torch.zeros(6, dtype=torch.double)
    mask[kept] = 1
    found = naive_standardised(masked_standardised(weight, mask, 1, 1e-4), 1e-4)
    torch.testing.assert_close(found[:, kept], naive_standardised(weight[:, kept], 1e-4))
    assert float(found[:, [index for index in range(6) if index not in kept]].abs().sum()) < 1e-12


def test_masks_reach_standardised_weights_smoothly():
    weight, eps = torch.randn(4, 6, 3, 3, dtype=torch.double), 1e-4
    mask = torch.rand(6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: masked_standardised(weight, m, 1, eps), mask)
    # A mask near one changes next to nothing.
    near = masked_standardised(weight, torch.full((6,), 1 - 1e-9, dtype=torch.double), 1, eps)
    torch.testing.assert_close(naive_standardised(near, eps), naive_standardised(weight, eps), atol=1e-4, rtol=1e-4)


def test_convolutions_that_standardise_their_weight_are_searched():
    model = nn.Sequential(Standardised(3, 12, 3), nn.ReLU(), Standardised(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    space = find_space(model, torch.randn(1, 3, 9, 9))
    assert sizes(space) == {"0": 12, "2": 8}
    assert [site.standardised for site in space.sites] == [True, False]
    assert space.proof_error < 1e-10
    with MaskedForward(model, space).using(space.full()):
        masked = model(torch.ones(1, 3, 9, 9))
    torch.testing.assert_close(masked, model(torch.ones(1, 3, 9, 9)))


# --- depth


def test_blocks_are_the_modules_that_hold_most_of_the_weights():
    class Residual(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return x + self.inner(x)

    class Block(nn.Module):
        """A small residual module inside, and a residual branch of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.position, self.up, self.down = Residual(nn.Linear(8, 8)), nn.Linear(8, 40), nn.Linear(40, 8)

        def forward(self, x):
            x = self.position(x)
            return x + self.down(self.up(x))

    class Pair(nn.Module):
        """Nothing but two residual modules."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = Residual(nn.Linear(8, 8)), Residual(nn.Linear(8, 8))

        def forward(self, x):
            return self.other(self.one(x))

    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(Block(), Block()), Pair(), nn.Linear(8, 2))
    space = find_space(model, torch.randn(1, 4))
    assert {stage.name: stage.blocks for stage in space.stages} == {"1": ("1.0", "1.1"), "2": ("2.one", "2.other")}


# --- real models, one per mechanism


@pytest.mark.parametrize(
    ("name", "size", "least"),
    [
        pytest.param(
            "davit_tiny", 64, 0.99, marks=pytest.mark.slow
        ),  # head sizes from the stream's width, in windows and over channels
        ("levit_128s", 64, 0.99),  # biases per head, splits of q, k and v
        ("swinv2_cr_tiny_224", 64, 0.8),  # biases from a small network
        ("resnest14d", 64, 0.99),  # few wide groups, sums over splits
        ("nf_resnet26", 64, 0.99),  # standardised weights
        ("efficientnet_b0_gn", 64, 0.95),  # group norms
        ("lcnet_050", 64, 0.95),  # hard swish
    ],
)
def test_timm_models_are_searched_and_proven(name, size, least):
    torch.manual_seed(0)
    args = {"img_size": size} if "swin" in name or "levit" in name else {}
    model = timm.create_model(name, num_classes=10, **args).eval()
    example = torch.randn(1, 3, size, size)
    space = find_space(model, example)
    assert space.proof_error < 1e-10
    assert searchable(space) > least
    assert space.macs == count(model, example).macs


def test_a_residual_module_that_takes_a_list_is_no_block():
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 4, 1)

        def forward(self, parts: list[torch.Tensor]) -> torch.Tensor:
            return self.conv(torch.cat(parts, 1)) + parts[0]

    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.root, self.head = nn.Conv2d(3, 4, 1), Root(), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.head(self.root([x, x.relu()])).mean((2, 3))

    space = find_space(Tree(), torch.randn(2, 3, 6, 6))
    assert space.stages == ()
    assert sizes(space) == {"stem.stream": 4} or sum(sizes(space).values()) == 4
