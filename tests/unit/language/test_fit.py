"""Training: seeds, resume to the bit, structure hooks, teachers, adapters."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from dms_bench.config.trial import Trial
from dms_bench.errors import TrialFailure, UserError
from dms_bench.methods.base import SearchContext
from dms_bench.methods.gradient.dms import DmsSearch
from dms_bench.methods.gradient.spec import Dms
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.scaling import Supernet, budget_of
from dms_bench_tasks.language.objective import combined, distillation
from dms_bench_tasks.language.spec import LanguageDistillation
from tests.unit.classification.classification_helpers import MemoryLoop, same, snapshot
from tests.unit.language.language_helpers import TINY, lively, network, recipe, space, task

SEARCHED = {"exclude": ("lm.model.stream",)}
LORA = {"lora": {"r": 4, "dropout": 0.2}}


def fit(loop: Any = None, seed: int = 0, **options: Any) -> nn.Module:
    own = task(seed)
    return own.fit(own.build(TINY), recipe(**options), loop or MemoryLoop())


def search(loop: Any = None, frozen: bool = False, **options: Any) -> tuple[Supernet, nn.Module]:
    own = task()
    model = own.build(TINY)
    net = Supernet(model, space(model, **SEARCHED))
    structure = DmsStructure(net, Dms(), budget_of(net.space, params=0.7), trains_weights=not frozen)
    own.fit(net, recipe(**options), loop or MemoryLoop(), structure)
    return net, model


def test_the_seed_decides_the_result() -> None:
    assert same(fit(**LORA).state_dict(), fit(**LORA).state_dict())
    assert not same(fit().state_dict(), fit(seed=1).state_dict())


@pytest.mark.parametrize(
    "options", [{}, LORA, {"lr_scheduler_type": "linear", "warmup_steps": 3, "grad_accum_steps": 2, "amp": "bf16"}]
)
def test_a_resumed_run_equals_an_undisturbed_one(options: dict[str, Any]) -> None:
    expected = fit(epochs=3, **options)
    killed = MemoryLoop(stop=2)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, epochs=3, **options)
    torch.rand(7)  # another process has other random state
    resumed = MemoryLoop(killed.state)
    assert same(fit(resumed, epochs=3, **options).state_dict(), expected.state_dict())
    assert [epoch for epoch, _ in resumed.epochs] == [3]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_resumed_search_equals_an_undisturbed_one(frozen: bool) -> None:
    expected, _ = search(frozen=frozen, epochs=3)
    killed = MemoryLoop(stop=1)
    with pytest.raises(KeyboardInterrupt):
        search(killed, frozen=frozen, epochs=3)
    assert any("lm_head" in name for name in killed.state["model"]) is not frozen  # type: ignore[index]
    resumed, _ = search(MemoryLoop(killed.state), frozen=frozen, epochs=3)
    assert same(resumed.state_dict(), expected.state_dict())


def test_frozen_weights_stay_and_the_structure_moves() -> None:
    before = snapshot(task().build(TINY))
    net, model = search(frozen=True, epochs=1)
    assert same(before, snapshot(model))
    assert all(weight.requires_grad for weight in model.parameters())
    assert not torch.equal(net.ratios, torch.zeros_like(net.ratios))
    assert float(net.importance.abs().sum()) > 0
    moved, other = search(epochs=1)
    assert not same(before, snapshot(other))
    assert moved.ratios.requires_grad


def test_training_learns_and_reports() -> None:
    loop = MemoryLoop()
    fit(loop, epochs=3, steps=8, lr=1e-2)
    metrics = [metrics for _, metrics in loop.epochs]
    assert metrics[-1]["val_loss"] < metrics[0]["val_loss"]
    assert metrics[-1].keys() == {"train_loss", "val_loss", "val_perplexity", "lr", "seconds", "samples_per_s"}
    assert loop.ticks >= 24
    assert metrics[-1]["lr"] == pytest.approx(0, abs=1e-9)  # cosine, to its end


def test_micro_batches_and_recomputed_blocks_give_the_same_step() -> None:
    whole = fit(epochs=1, steps=1)
    for options in ({"grad_accum_steps": 4}, {"gradient_checkpointing": True}):
        other = fit(epochs=1, steps=1, **options)
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], tensor, rtol=1e-3, atol=2e-5, msg=name)


def test_a_checkpointed_search_gives_the_same_gradients_to_the_structure() -> None:
    plain, _ = search(epochs=1, steps=2, frozen=True)
    checkpointed, _ = search(epochs=1, steps=2, frozen=True, gradient_checkpointing=True)
    torch.testing.assert_close(checkpointed.importance, plain.importance, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(checkpointed.ratios, plain.ratios, rtol=1e-4, atol=1e-6)


def test_adapters_alone_are_trained_and_become_part_of_the_weights() -> None:
    own = task()
    model = lively(own.build(TINY))
    before, names = snapshot(model), [name for name, _ in model.named_modules()]
    loop = MemoryLoop(stop=1)
    with pytest.raises(KeyboardInterrupt):
        own.fit(model, recipe(**LORA), loop)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in loop.state["model"] if ".lora_" in name} == {  # type: ignore[index]
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert not any("embed" in name for name in loop.state["model"])  # type: ignore[index]
    model = lively(own.build(TINY))
    own.fit(model, recipe(**LORA), MemoryLoop())
    assert [name for name, _ in model.named_modules()] == names
    assert all(weight.requires_grad for weight in model.parameters())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[-2] for name in changed} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    for name in changed:
        assert torch.linalg.matrix_rank((model.state_dict()[name] - before[name]).double(), rtol=1e-4) <= 4


def test_distillation_is_the_divergence_from_the_teacher_where_something_is_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 2, 5, 7, generator=generator)
    targets = torch.tensor([[1, 2, -100, 3, -100], [0, -100, -100, 6, 5]])
    total, count = 0.0, 0
    for row in range(2):
        for place in range(5):
            if targets[row, place] >= 0:
                p, q = F.softmax(teacher[row, place] / 2, 0), F.softmax(logits[row, place] / 2, 0)
                total += float((p * (p / q).log()).sum()) * 4
                count += 1
    found = distillation(logits, teacher, targets, 2.0)
    assert float(found) == pytest.approx(total / count, rel=1e-5)
    spec = LanguageDistillation(weight=0.25, temperature=2.0)
    own = float(combined(logits, targets, None, None))
    assert float(combined(logits, targets, teacher, spec)) == pytest.approx(0.75 * own + 0.25 * total / count, rel=1e-5)
    asked = targets[targets >= 0]
    assert own == pytest.approx(float(F.cross_entropy(logits[targets >= 0], asked)), rel=1e-6)


def test_a_teacher_teaches_and_is_not_changed() -> None:
    own = task()
    teacher = lively(own.build(TINY), seed=1)
    before = snapshot(teacher)
    taught = own.fit(own.build(TINY), recipe(distil={"weight": 1.0}, steps=12), MemoryLoop(), teacher=teacher)
    alone = own.fit(own.build(TINY), recipe(), MemoryLoop())
    assert same(before, snapshot(teacher))
    assert all(weight.grad is None for weight in teacher.parameters())
    tokens = own._text.sequences("val").tokens[:8]
    with torch.no_grad():
        networks = (taught, alone, own.build(TINY))
        distances = [float(distillation(model(tokens), teacher(tokens), tokens, 1.0)) for model in networks]
    assert distances[0] < min(distances[1:])


@pytest.mark.parametrize("pipeline", ["DMSp", "DMSp-"])
def test_the_teacher_of_a_search_is_the_original(pipeline: str) -> None:
    """A copy where weights are trained; where they are frozen, the searched network without its masks."""
    own = task()
    model = lively(own.build(TINY))
    original = copy.deepcopy(model).eval()
    seen: list[nn.Module] = []
    tokens = own.example_input(2)

    class Watching(type(own)):  # type: ignore[misc]
        def fit(self, net, stage, loop, structure=None, teacher=None):
            seen.append(teacher)
            structure.begin_step(0.9)
            with torch.no_grad():
                for ratio in net.structure_parameters():
                    ratio.fill_(0.5)
                net.importance.copy_(torch.rand(len(net.importance)))
            result = super().fit(net, stage, loop, structure, teacher)
            with torch.no_grad():
                torch.testing.assert_close(teacher.eval()(tokens), original(tokens))
                assert not torch.allclose(net.eval()(tokens), original(tokens), rtol=1e-3)
            return result

    own.__class__ = Watching
    found = space(model, **SEARCHED)
    trial: Any = SimpleNamespace(pipeline=pipeline, search=recipe(epochs=1, distil=True), seed=0)
    context = SearchContext(trial, own, model, found, budget_of(found, params=0.6), MemoryLoop())
    DmsSearch(Dms()).search(context)
    assert (seen[0] is model) is (pipeline == "DMSp-")


def test_adapters_are_for_the_retraining() -> None:
    fields = {
        "experiment": "adapted",
        "task": "language",
        "supernet": {"model": "llama"},
        "budget": {"kind": "macs", "target": 0.5},
        "method": "dms",
        "retrain": {"epochs": 1, "lr": 1e-3} | LORA,
    }
    assert Trial.model_validate(fields | {"search": {"epochs": 1, "lr": 1e-3}}).retrain
    with pytest.raises(ValidationError, match=r"search.lora: masks do not reach adapters"):
        Trial.model_validate(fields | {"search": fields["retrain"]})
    unsearched = fields | {"search": fields["retrain"], "method": "uniform"}  # which has no use for that recipe
    assert Trial.model_validate(unsearched).canonical().search is None


def test_what_cannot_be_trained_says_so() -> None:
    own = task()
    with pytest.raises(UserError, match=r"batch_size 7 cannot be split over 1 workers x 2 grad_accum_steps"):
        fit(batch_size=7, grad_accum_steps=2)
    with pytest.raises(UserError, match="batch_size 100000 is more than the"):
        own.check_recipe(recipe(batch_size=100_000))
    with pytest.raises(UserError, match=r"recipe.lora.targets nothing: .*nothing"):
        fit(lora={"targets": ["nothing"]})
    with pytest.raises(UserError, match=r"warmup_steps 9 must be less than the 8 steps that the stage has"):
        own.check_recipe(recipe(epochs=2, steps=4, warmup_steps=9))
    own.check_recipe(recipe(epochs=2, steps=4, warmup_steps=7))
    with pytest.raises(TrialFailure, match=r"training: the loss is (nan|inf) in epoch 1, step"):
        fit(lr=1e30, clip_grad=None)
    loop = MemoryLoop()
    fit(loop)
    assert loop.state is not None
    loop.state["model"].pop("lm.lm_head.weight")
    with pytest.raises(TrialFailure, match="damaged or of another network"):
        fit(MemoryLoop(loop.state))


def test_an_outline_is_not_trained() -> None:
    own = task()
    with pytest.raises(UserError, match="only planned with"):
        own.fit(network().to("meta"), recipe(), MemoryLoop())
