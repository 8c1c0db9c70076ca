"""Rankings against torch-pruning: its scores, its topologies and the channels that its pruner keeps."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch_pruning
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dms_bench.config import parse_suite, resolve
from dms_bench.methods.base import SearchContext
from dms_bench.methods.rankings.scores import (
    block_scores,
    magnitude,
    maker_scores,
    mean_scores,
    shared_scores,
    taylor,
    topologies,
)
from dms_bench.methods.rankings.search import (
    GroupNormSearch,
    IsomorphicSearch,
    MagnitudeSearch,
    TaylorSearch,
    above_threshold,
    threshold_counts,
)
from dms_bench.methods.rankings.spec import L1, L2, GroupNorm, Isomorphic, Taylor
from dms_bench.scaling import SearchSpace, budget_of, find_space
from dms_bench.scaling.space.elements import Stage

CLASSES = 6


def network(name: str) -> tuple[nn.Module, SearchSpace]:
    torch.manual_seed(1)
    args = {"channels": [8, 16, 24, 32]} if name == "resnet18" else {}
    model = timm.create_model(name, num_classes=CLASSES, in_chans=1, **args).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):  # so that scales, means and variances matter
                module.weight.uniform_(0.2, 1.5)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return model, find_space(model, torch.randn(1, 1, 32, 32))


def batches(number: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [
        (torch.randn(8, 1, 32, 32, generator=generator), torch.randint(0, CLASSES, (8,), generator=generator))
        for _ in range(number)
    ]


def with_gradients(model: nn.Module) -> None:
    for images, labels in batches():
        functional.cross_entropy(model(images), labels).backward()


class Images:
    """The task, as far as a ranking needs it."""

    def losses(self, model: nn.Module, number: int, device: torch.device) -> Any:
        assert number == 50
        for images, labels in batches():
            yield functional.cross_entropy(model(images), labels)


def context(model: nn.Module, space: SearchSpace, share: float = 0.4) -> SearchContext:
    loop: Any = SimpleNamespace(device=torch.device("cpu"), tick=lambda: None)
    task: Any = Images()
    trial: Any = SimpleNamespace(seed=0)
    return SearchContext(trial, task, model, space, budget_of(space, macs=share), loop)


def layer_of(model: nn.Module, space: SearchSpace, group: int) -> tuple[str, nn.Module]:
    """The first layer that makes the elements of a group."""
    start = space.units.starts[group]
    for name, module in model.named_modules():
        made = space.outer_elements.get((f"{name}.weight", 0))
        if isinstance(module, nn.Conv2d | nn.Linear) and made is not None and start in made:
            return name, module
    raise AssertionError


def theirs(model: nn.Module, space: SearchSpace, importance: Any) -> torch.Tensor:
    """torch-pruning's score of every element, its groups rooted at the layer that we take for the first."""
    graph = torch_pruning.DependencyGraph().build_dependency(model, torch.randn(1, 1, 32, 32))
    scores = torch.ones(space.units.total)
    for group, start in zip(range(len(space.groups)), space.units.starts, strict=False):
        layer = layer_of(model, space, group)[1]
        size = space.groups[group].size
        pruning = graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, list(range(size)))
        scores[start : start + size] = importance(pruning)
    return scores[: space.width_elements]


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet"])
@pytest.mark.parametrize("p", [1, 2])
def test_magnitudes_are_torch_prunings(name, p):
    model, space = network(name)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p, group_reduction="first", normalizer=None)
    ours = maker_scores(model, space, magnitude(p))[: space.width_elements]
    torch.testing.assert_close(ours.float(), theirs(model, space, importance))


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet"])
def test_group_norms_are_torch_prunings(name):
    model, space = network(name)
    importance = torch_pruning.importance.GroupMagnitudeImportance(2, group_reduction="mean", normalizer="mean")
    ours = shared_scores(model, space, magnitude(2), (_BatchNorm, nn.LayerNorm))[: space.width_elements]
    torch.testing.assert_close(ours.float(), theirs(model, space, importance))


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet"])
def test_taylor_scores_are_torch_prunings(name):
    model, space = network(name)
    with_gradients(model)
    ours = shared_scores(model, space, taylor, (nn.LayerNorm,))[: space.width_elements]
    expected = theirs(model, space, torch_pruning.importance.GroupTaylorImportance())
    torch.testing.assert_close(ours.float(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet"])
def test_taylor_scores_in_one_currency_are_torch_prunings(name):
    model, space = network(name)
    with_gradients(model)
    ours = mean_scores(model, space, taylor, (nn.LayerNorm,))[: space.width_elements]
    expected = theirs(model, space, torch_pruning.importance.GroupTaylorImportance(normalizer=None))
    torch.testing.assert_close(ours.float(), expected, rtol=1e-4, atol=1e-6)


def test_a_block_scores_the_mean_of_its_layers_and_depthwise_ones_do_not_count():
    model, space = network("test_efficientnet")
    space = replace(space, stages=(Stage("blocks.3", ("blocks.3.0",), 0),))
    with_gradients(model)
    sums = []
    for module in model.blocks[3][0].modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            products = zip(module.weight.flatten().tolist(), module.weight.grad.flatten().tolist(), strict=True)
            sums.append(sum(abs(w * g) for w, g in products))
    assert any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.blocks[3][0].modules())
    assert block_scores(model, space, taylor).tolist() == pytest.approx([sum(sums) / len(sums)], rel=1e-4)


def pruned_by_torch_pruning(model: nn.Module, ratio: float, importance: Any, **options: Any) -> dict[str, set[int]]:
    """The channels that torch-pruning removes, by every layer that makes them."""
    pruner = torch_pruning.pruner.BasePruner(
        model, torch.randn(1, 1, 32, 32), importance, pruning_ratio=ratio, ignored_layers=[model.fc], **options
    )
    removed: dict[str, set[int]] = {name: set() for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for group in pruner.step(interactive=True):
        for dependency, indices in group:
            if dependency.handler == torch_pruning.prune_conv_out_channels:
                removed[dependency.target.name.partition(" ")[0]] |= set(indices)
    return removed


@pytest.mark.parametrize("isomorphic", [False, True])
def test_one_threshold_keeps_the_channels_that_torch_prunings_pruner_keeps(isomorphic):
    model, space = network("resnet18")
    importance = torch_pruning.importance.GroupMagnitudeImportance(2, group_reduction="mean", normalizer="mean")
    removed = pruned_by_torch_pruning(model, 0.35, importance, global_pruning=True, isomorphic=isomorphic)
    rivals = topologies(model, space) if isomorphic else torch.zeros(len(space.groups), dtype=torch.long)
    scores = shared_scores(model, space, magnitude(2), (_BatchNorm, nn.LayerNorm))
    kept = above_threshold(space, scores, rivals, 0.35)
    for group, (start, spec) in enumerate(zip(space.units.starts, space.groups, strict=False)):
        own = scores[start : start + spec.size]
        ours = set(own.argsort()[: spec.size - int(kept[group])].tolist())
        assert ours == removed[layer_of(model, space, group)[0]], spec.name
    assert len(set(kept.tolist())) > 4


def test_topologies_are_those_that_torch_pruning_tells_apart():
    """Blocks' inner channels compete with their like; streams with as many layers do, the stem with none."""
    model, space = network("resnet18")
    kinds = dict(zip(space.names, topologies(model, space).tolist(), strict=False))
    inner = {kinds[name] for name in kinds if name.endswith(".conv1")}
    assert len(inner) == 1
    assert len({kinds[name] for name in ("layer2.stream", "layer3.stream")}) == 1
    assert kinds["conv1"] not in inner | {kinds["layer2.stream"]}
    assert kinds["layer2.stream"] not in inner


RANKINGS = {
    "l1 local": MagnitudeSearch(L1()),
    "l1 global": MagnitudeSearch(L1(scope="global")),
    "l2 global": MagnitudeSearch(L2(scope="global")),
    "taylor local": TaylorSearch(Taylor(scope="local")),
    "taylor global": TaylorSearch(Taylor()),
    "group_norm": GroupNormSearch(GroupNorm()),
    "isomorphic": IsomorphicSearch(Isomorphic()),
}


@pytest.mark.parametrize("label", RANKINGS)
@pytest.mark.parametrize("share", [0.15, 0.6])
def test_rankings_meet_the_budget_with_all_blocks(label, share):
    model, space = network("resnet18")
    given = context(model, space, share)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    architecture = RANKINGS[label].search(given)
    assert abs(architecture.macs - share * space.macs) <= 0.01 * share * space.macs
    assert all(len(architecture.stages[stage.name]) == stage.size for stage in space.stages)
    assert RANKINGS[label].spec.label() == label
    # The network is as it was: not trained, its statistics not moved, no gradients left.
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.training


def test_local_keeps_one_share_and_global_does_not():
    model, space = network("resnet18")
    with torch.no_grad():
        model.get_submodule("layer3.0.conv1").weight *= 10
    shares = {}
    for scope in ("local", "global"):
        architecture = MagnitudeSearch(L1(scope=scope)).search(context(model, space))
        kept = torch.tensor([float(len(indices)) for indices in architecture.groups.values()])
        shares[scope] = dict(zip(space.names, kept / torch.tensor([float(g.size) for g in space.groups]), strict=False))
    assert max(shares["local"].values()) - min(shares["local"].values()) < 0.1
    assert shares["global"]["layer3.0.conv1"] == 1


def test_no_layer_is_emptied_however_small_its_weights_are():
    model, space = network("resnet18")
    with torch.no_grad():
        model.get_submodule("layer2.0.conv1").weight /= 1000
    scores = maker_scores(model, space, magnitude(1))
    rivals = torch.zeros(len(space.groups), dtype=torch.long)
    group = space.names.index("layer2.0.conv1")
    for ratio in (0.3, 1.0):
        assert above_threshold(space, scores, rivals, ratio)[group] == 3  # a fifth of 16
    # The fewest and the most that a coarse space allows.
    bounds = {"minimum": 5, "maximum": 12}
    coarse = replace(space, groups=tuple(replace(one, **bounds) if one.size == 16 else one for one in space.groups))
    kept = [above_threshold(coarse, scores, rivals, ratio)[group] for ratio in (0.0, 1.0)]
    assert kept == [12, 5]


def test_the_largest_stay():
    model, space = network("resnet18")
    with torch.no_grad():
        model.conv1.weight[:5] *= 100
    for search in (MagnitudeSearch(L1()), MagnitudeSearch(L2()), GroupNormSearch(GroupNorm())):
        assert set(range(5)) <= set(search.search(context(model, space, 0.1)).groups["conv1"])


def test_l1_and_l2_order_differently():
    model, space = network("resnet18")
    with torch.no_grad():
        weight = model.conv1.weight
        weight[:] = 0.1
        weight[0] = 0.0
        weight[0, 0, 0, 0] = 0.11 * weight[1].numel() ** 0.5  # the larger L2 norm, the smaller L1 norm
    one, two = (maker_scores(model, space, magnitude(p)) for p in (1, 2))
    assert one[0] < one[1]
    assert two[0] > two[1]


def test_every_method_uses_its_own_scores_and_rivals():
    model, space = network("resnet18")
    given = context(model, space)
    assert torch.equal(MagnitudeSearch(L1()).scores(given), maker_scores(model, space, magnitude(1)))
    assert torch.equal(MagnitudeSearch(L2()).scores(given), maker_scores(model, space, magnitude(2)))
    taylor_scores = TaylorSearch(Taylor()).scores(given)
    assert torch.equal(IsomorphicSearch(Isomorphic()).scores(given), taylor_scores)
    with_gradients(model)
    torch.testing.assert_close(taylor_scores, shared_scores(model, space, taylor, (nn.LayerNorm,)))
    assert TaylorSearch(Taylor(scope="local")).rivals(given) is None
    assert TaylorSearch(Taylor()).rivals(given).unique().tolist() == [0]
    assert GroupNormSearch(GroupNorm()).rivals(given).unique().tolist() == [0]
    assert torch.equal(IsomorphicSearch(Isomorphic()).rivals(given), topologies(model, space))


def test_the_lowest_threshold_that_fits_is_taken():
    model, space = network("resnet18")
    budget = budget_of(space, macs=0.5)
    scores = maker_scores(model, space, magnitude(1))
    rivals = torch.zeros(len(space.groups), dtype=torch.long)
    counts = threshold_counts(space, scores, rivals, budget)
    blocks = torch.ones(space.units.total - space.width_elements)
    assert 0.95 < float(budget.usage(counts, blocks)) <= 1


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_convnext2", "swin_tiny_patch4_window7_224"])
def test_networks_beyond_torch_prunings_reach(name):
    torch.manual_seed(0)
    size = {"test_convnext2": 64}.get(name, 224)
    args: dict[str, Any] = {"depth": 2} if "vit" in name else {"depths": (1, 1, 1, 1)} if "swin" in name else {}
    model = timm.create_model(name, num_classes=CLASSES, **args).eval()
    space = find_space(model, torch.randn(1, 3, size, size))
    for scores in (
        maker_scores(model, space, magnitude(1)),
        shared_scores(model, space, magnitude(2), (_BatchNorm, nn.LayerNorm)),
    ):
        assert bool((scores[: space.width_elements] > 0).all())
        assert bool(scores.isfinite().all())
    means = shared_scores(model, space, magnitude(2), (nn.LayerNorm,)).split(list(space.units.sizes))
    assert all(float(own.mean()) == pytest.approx(1) for own in means[: len(space.groups)])


def test_a_head_is_scored_by_the_mean_of_its_channels():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, depth=2).eval()
    space = find_space(model, torch.randn(1, 3, 224, 224))
    group = next(index for index, group in enumerate(space.groups) if group.heads)
    start, heads = space.units.starts[group], space.groups[group].size
    scores = maker_scores(model, space, magnitude(1))[start : start + heads]
    weight = model.get_submodule("blocks.0.attn.qkv").weight.detach().abs().sum(1)
    expected = weight.reshape(3, heads, -1).mean((0, 2))
    torch.testing.assert_close(scores.float(), expected)


def test_heads_and_their_sizes_are_each_scored_by_their_own_channels():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, in_chans=1, img_size=32, depth=1).eval()
    space = find_space(model, torch.randn(1, 1, 32, 32), attention="both")
    scores = dict(
        zip(space.names, maker_scores(model, space, magnitude(1)).split(list(space.units.sizes)), strict=True)
    )
    rows = model.get_submodule("blocks.0.attn.qkv").weight.detach().abs().sum(1).view(3, 3, 64)  # q, k, v of 3 heads
    for kind, expected in {
        "heads": rows.mean((0, 2)),
        "qk_dims": rows[:2].mean((0, 1)),
        "v_dims": rows[2].mean(0),
    }.items():
        torch.testing.assert_close(scores[f"blocks.0.attn.qkv.{kind}"].float(), expected)


@pytest.mark.parametrize(
    "search", [GroupNormSearch(GroupNorm()), TaylorSearch(Taylor()), IsomorphicSearch(Isomorphic())]
)
def test_rankings_cut_heads_and_their_sizes(search):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=CLASSES, in_chans=1, img_size=32).eval()
    space = find_space(model, torch.randn(1, 1, 32, 32), attention="both")
    found = search.search(context(model, space))
    assert found.macs == pytest.approx(0.4 * space.macs, rel=0.01)
    for kind in ("qk_dims", "v_dims"):
        sizes = [pair for name, pair in space.sizes_of(found).items() if name.endswith(kind)]
        assert any(kept < size for kept, size in sizes)


def test_what_a_suite_may_say():
    suite = {
        "name": "s",
        "experiments": [
            {
                "name": "e", "task": {"kind": "classification", "data": "glyphs"}, "supernet": {"model": "resnet18"},
                "retrain": {"epochs": 1, "lr": 0.1},
                "budget": {"kind": "macs", "target": "30%"},
                "sweep": {"grid": {"method": ["l1", {"kind": "l1", "scope": "global"}, "taylor", "isomorphic"]}},
            }
        ],
    }  # fmt: skip
    labels = [trial.method.label() for trial in resolve(parse_suite(suite))]
    assert labels == ["l1 local", "l1 global", "taylor global", "isomorphic"]
