"""The pruning methods of language models, on small Llamas, against their formulas written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.language.activations import FlapSearch, WandaSpSearch
from dms_bench.methods.language.blocks import ShortGptSearch, SlebSearch
from dms_bench.methods.language.llm_pruner import LlmPrunerSearch
from dms_bench.methods.language.spec import Flap, LlmPruner, ShortGpt, Sleb, WandaSp
from dms_bench.methods.sampling.search import SamplingSearch
from dms_bench.methods.sampling.spec import RandomSearch
from dms_bench.scaling import Architecture, budget_of, count, cut
from dms_bench.scaling.fit import fit_to_budget
from tests.unit.classification.classification_helpers import MemoryLoop, same, snapshot
from tests.unit.language.language_helpers import SIZES, lively, space, task

HEADS, SIZE, FFN = 4, 12, 44
SEARCHES = {
    "llm_pruner": LlmPrunerSearch(LlmPruner(batches=2)),
    "wanda_sp": WandaSpSearch(WandaSp(batches=2)),
    "flap": FlapSearch(Flap(batches=2)),
    "shortgpt": ShortGptSearch(ShortGpt(batches=2)),
    "sleb": SlebSearch(Sleb(batches=1)),
}


def context(
    layers: int = 4, share: float = 0.7, exclude: tuple[str, ...] = ("lm.model.stream",), attention: str = "heads"
) -> SearchContext:
    own = task()
    model = lively(own.build(SupernetSpec(model="llama", args=SIZES | {"num_hidden_layers": layers}))).eval()
    found = space(model, exclude=exclude, attention=attention)
    kept: Any = SimpleNamespace(weight_sharing=False)
    trial: Any = SimpleNamespace(seed=0, pipeline="DMSp", method=SimpleNamespace(kind="shortgpt"), supernet=kept)
    return SearchContext(trial, own, model, found, budget_of(found, params=share), MemoryLoop())


def inputs_of(given: SearchContext, layer: str, batches: int) -> Tensor:
    """Return all rows that a layer read on the calibration batches, [rows, features]."""
    seen: list[Tensor] = []
    handle = given.model.get_submodule(layer).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].flatten(0, 1))
    )
    with torch.no_grad():
        list(given.task.losses(given.model, batches, torch.device("cpu")))
    handle.remove()
    return torch.cat(seen).double()


def best(scores: Tensor, count: int) -> set[int]:
    return set(scores.topk(count).indices.tolist())


@pytest.mark.parametrize("name", SEARCHES)
def test_every_method_meets_the_budget_and_leaves_the_network_as_it_was(name: str) -> None:
    given = context()
    before = snapshot(given.model)
    found = SEARCHES[name].search(given)
    assert found == SEARCHES[name].search(given)
    assert abs(found.params / given.budget.constraints[0].target - 1) < 0.01
    small = cut(given.model, given.space, found)
    assert count(small, given.task.example_input(1)).params == found.params
    assert same(before, snapshot(given.model))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in given.model.modules())
    assert all(weight.grad is None for weight in given.model.parameters())


@pytest.mark.parametrize("name", ["llm_pruner", "wanda_sp", "flap"])
def test_sizes_of_heads_are_scored_by_who_reads_them_or_refused(name: str) -> None:
    """Nothing but queries and keys themselves read the features of queries, of which activations tell nothing."""
    exclude = ("lm.model.stream", *(("*.qk_dims",) if name != "llm_pruner" else ()))
    given = context(exclude=exclude, attention="both")
    found = SEARCHES[name].search(given)
    assert abs(found.params / given.budget.constraints[0].target - 1) < 0.01
    sizes = [len(kept) for group, kept in found.groups.items() if group.endswith(".v_dims")]
    assert min(sizes) < SIZE
    if name == "llm_pruner":
        scores = LlmPrunerSearch(LlmPruner(batches=2))._scores(given).split(list(given.space.units.sizes))
        assert all(bool((own > 0).all()) for own in scores)
    else:
        with pytest.raises(UserError, match=r"no plain layer reads group 'lm\.model\.layers\.qk_dims'"):
            SEARCHES[name].search(context(attention="both"))


def test_wanda_keeps_what_has_large_weights_on_large_inputs() -> None:
    given = context(exclude=("lm.model.stream", "lm.model.layers"))
    found = SEARCHES["wanda_sp"].search(given)
    for layer in range(4):
        for part, width in (("self_attn.o_proj", HEADS), ("mlp.down_proj", FFN)):
            weight = given.model.get_parameter(f"lm.model.layers.{layer}.{part}.weight").detach().double()
            rows = inputs_of(given, f"lm.model.layers.{layer}.{part}", 2)
            scores = weight.abs().mean(0) * rows.square().sum(0).sqrt()
            scores = scores.view(width, -1).sum(1)
            kept = _kept(found, layer, part)
            assert set(kept) == best(scores, len(kept))
    assert len({len(_kept(found, layer, "mlp.down_proj")) for layer in range(4)}) <= 2  # one ratio, but for rounding


def test_flap_keeps_what_varies_and_has_one_threshold() -> None:
    given = context(exclude=("lm.model.stream", "lm.model.layers"))
    with torch.no_grad():  # beside an outlier all others are about equal, and none is far below the mean
        given.model.get_parameter("lm.model.layers.0.mlp.down_proj.weight")[:, 7] *= 100
    found = SEARCHES["flap"].search(given)
    for layer in range(4):
        for part, width in (("self_attn.o_proj", HEADS), ("mlp.down_proj", FFN)):
            weight = given.model.get_parameter(f"lm.model.layers.{layer}.{part}.weight").detach().double()
            rows = inputs_of(given, f"lm.model.layers.{layer}.{part}", 2)
            scores = rows.var(0, unbiased=False) * weight.square().sum(0)
            scores = scores.square().view(HEADS, SIZE).mean(1) if width == HEADS else scores
            standard = (scores - scores.mean()) / scores.std()
            kept = _kept(found, layer, part)
            assert set(kept) == best(standard, len(kept))
    widths = [len(_kept(found, layer, "mlp.down_proj")) for layer in range(4)]
    assert widths[0] == FFN > max(widths[1:])


@pytest.mark.parametrize("importance", ["param_first", "vectorize", "param_second", "param_mix"])
def test_llm_pruner_scores_heads_by_all_their_weights(importance: str) -> None:
    given = context(exclude=("lm.model.stream", "lm.model.layers"))
    spec = LlmPruner(importance=importance, batches=2)  # type: ignore[arg-type]
    found = LlmPrunerSearch(spec).search(given)
    weights = dict(given.model.named_parameters())
    gradients: list[dict[str, Tensor]] = []
    for loss in given.task.losses(given.model, 2, torch.device("cpu")):
        given.model.zero_grad()
        loss.backward()
        gradients.append({name: weight.grad.double().clone() for name, weight in weights.items()})  # type: ignore[union-attr]
    given.model.zero_grad(set_to_none=True)
    for layer in (1, 2):
        prefix = f"lm.model.layers.{layer}."
        for group, parts, width in (
            ("self_attn.o_proj", {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}, HEADS),
            ("mlp.down_proj", {"gate_proj": 0, "up_proj": 0, "down_proj": 1}, FFN),
        ):
            scores = torch.zeros(width, dtype=torch.double)
            for name, dim in parts.items():
                full = f"{prefix}{group.split('.')[0]}.{name}.weight"
                w = weights[full].detach().double()
                g = sum(one[full] for one in gradients) / 2
                f = sum(one[full].square() for one in gradients) / 2
                salience = {
                    "param_first": (w * g).abs(),
                    "vectorize": w * g,
                    "param_second": w.square() * f,
                    "param_mix": (w * g - w.square() * f / 2).abs(),
                }[importance]
                scores += (salience if dim == 0 else salience.T).reshape(width, -1).sum(1)
            kept = _kept(found, layer, group)
            assert set(kept) == best(scores.abs(), len(kept))
            assert len(kept) < width
    for layer in (0, 3):  # of four blocks an eighth and a sixteenth are one each
        assert len(_kept(found, layer, "self_attn.o_proj")) == HEADS
        assert len(_kept(found, layer, "mlp.down_proj")) >= FFN - 1  # the last step to the budget may be theirs


def test_llm_pruner_of_two_blocks_has_nothing_to_prune() -> None:
    given = context(layers=2)
    with pytest.raises(UserError, match="leaves the first 1 and the last 1 blocks alone, and of 2 none"):
        LlmPruner().check(given.space, given.task)


def test_shortgpt_drops_the_blocks_that_change_least() -> None:
    given = context(layers=5, share=0.62)
    with torch.no_grad():  # blocks 1 and 3 hardly do anything
        for layer in (1, 3):
            for part in ("self_attn.o_proj", "mlp.down_proj"):
                given.model.get_parameter(f"lm.model.layers.{layer}.{part}.weight").mul_(1e-3 if layer == 3 else 1e-2)
    found = SEARCHES["shortgpt"].search(given)
    kept = found.stages["lm.model.layers"]
    assert 3 not in kept
    assert set(range(5)) - set(kept) <= {1, 3}
    # Blocks alone would be too much or too little: widths make up for the difference.
    assert abs(found.params / given.budget.constraints[0].target - 1) < 0.01


def test_influence_is_one_minus_the_cosine_of_input_and_output() -> None:
    given = context(layers=4, share=0.5)
    seen: dict[int, list[float]] = {}

    def note(layer: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            x, y = args[0].double().flatten(0, 1), output.double().flatten(0, 1)
            cosine = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
            seen.setdefault(layer, []).append(float((1 - cosine).mean()))

        return hook

    handles = [given.model.lm.model.layers[n].register_forward_hook(note(n)) for n in range(4)]  # type: ignore[union-attr]
    with torch.no_grad():
        list(given.task.losses(given.model, 2, torch.device("cpu")))
    for handle in handles:
        handle.remove()
    order = sorted(seen, key=lambda layer: sum(seen[layer]))
    found = SEARCHES["shortgpt"].search(given)
    gone = set(range(4)) - set(found.stages["lm.model.layers"])
    assert gone
    assert gone == set(order[: len(gone)])


def test_sleb_drops_greedily_by_loss_and_keeps_both_ends() -> None:
    given = context(layers=5, share=0.55)
    gone: list[int] = []
    for _ in range(2):
        losses = {}
        for place in (1, 2, 3):
            if place in gone:
                continue
            stays = tuple(n for n in range(5) if n not in (*gone, place))
            whole = {group.name: tuple(range(group.size)) for group in given.space.groups}
            small = cut(given.model, given.space, Architecture(whole, {"lm.model.layers": stays}, 0, 0)).eval()
            with torch.no_grad():
                losses[place] = float(next(iter(given.task.losses(small, 1, torch.device("cpu")))))
        gone.append(min(losses, key=lambda place: losses[place]))
    found = SEARCHES["sleb"].search(given)
    dropped = set(range(5)) - set(found.stages["lm.model.layers"])
    assert dropped
    assert dropped == set(gone[: len(dropped)])
    assert {0, 4} <= set(found.stages["lm.model.layers"])


def test_dropping_blocks_needs_blocks() -> None:
    given = context(exclude=("lm.model.layers",))
    for method in (ShortGpt(), Sleb()):
        with pytest.raises(UserError, match=f"method '{method.kind}' drops blocks, .* at most one may go"):
            method.check(given.space, given.task)


def test_scores_that_need_numbers_are_refused_for_tokens() -> None:
    given = context()
    for score in ("synflow", "zen"):
        method = RandomSearch(score=score, candidates=1)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=f"method.score '{score}' feeds a network with numbers"):
            method.check(given.space, given.task)
    found = SamplingSearch(RandomSearch(score="zico", candidates=2)).search(given)
    assert abs(found.params / given.budget.constraints[0].target - 1) < 0.01


@pytest.mark.slow
def test_llm_pruners_own_recipe_is_reproduced_to_the_parameter() -> None:
    """24 of 32 heads and 8256 of 11008 in blocks 4 to 29 of Llama-7B are 5,422,977,024 parameters (its issue 34)."""
    own = task(context=32)
    outline = own.build(SupernetSpec(model="huggyllama/llama-7b", args={"dtype": "bfloat16"}))
    found = space(outline, exclude=("lm.model.stream", "lm.model.layers"))
    assert found.params == 6_738_415_616
    counts = LlmPrunerSearch(LlmPruner()).counts(found)
    scores = torch.rand(found.units.total, generator=torch.Generator().manual_seed(0))
    kept = found.architecture(fit_to_budget(found, counts, scores, budget_of(found, params=5_422_977_024)))
    assert kept.params == 5_422_977_024
    sizes = [len(kept.groups[group.name]) for group in found.groups]
    assert sizes == [32, 11008] * 4 + [24, 8256] * 26 + [32, 11008] * 2
    even = torch.tensor(found.units.sizes, dtype=torch.float32)
    for proposed in (counts, even):
        kept = found.architecture(fit_to_budget(found, proposed, scores, budget_of(found, params=5.47e9)))
        assert abs(kept.params / 5.47e9 - 1) < 0.005


def _kept(found: Architecture, layer: int, part: str) -> tuple[int, ...]:
    name = f"lm.model.layers.{layer}." + ("self_attn.heads" if part.startswith("self_attn") else "mlp.stream")
    return found.groups[name]
