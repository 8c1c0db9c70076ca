from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import TrialFailure, UserError
from dms_bench_tasks.classification import train
from dms_bench_tasks.classification.measure import recalibrate
from dms_bench_tasks.classification.objective import Objective
from dms_bench_tasks.classification.optim import make_optimizer, make_scheduler, weights_of
from tests.unit.classification.classification_helpers import (
    CPU,
    NORMLESS,
    TINY,
    MemoryLoop,
    RecordingHook,
    SearchWrapper,
    glyph_task,
    recipe,
    same,
    snapshot,
)

RICH = {"mixup": 0.2, "cutmix": 1.0, "shift": 2, "drop": 0.1, "drop_path": 0.1, "model_ema_decay": 0.9, "reprob": 0.2}


def fit(loop: MemoryLoop | None = None, seed: int = 0, **options: Any) -> nn.Module:
    task = glyph_task(seed)
    return task.fit(task.build(TINY), recipe(**options), loop or MemoryLoop())


def search(
    trains_weights: bool = True, model: SupernetSpec = TINY, **options: Any
) -> tuple[SearchWrapper, RecordingHook, MemoryLoop]:
    task = glyph_task()
    wrapper = SearchWrapper(task.build(model))
    hook, loop = RecordingHook(wrapper, trains_weights), MemoryLoop()
    assert task.fit(wrapper, recipe(**options), loop, hook) is wrapper
    return wrapper, hook, loop


def test_the_seed_decides_the_result() -> None:
    assert same(fit(**RICH).state_dict(), fit(**RICH).state_dict())
    assert not same(fit().state_dict(), fit(seed=1).state_dict())


@pytest.mark.parametrize("options", [{}, RICH, {"opt": "rmsproptf", "sched": "step", "warmup_epochs": 1}])
def test_a_resumed_run_equals_an_undisturbed_one(options: dict[str, Any]) -> None:
    undisturbed = MemoryLoop()
    expected = fit(undisturbed, epochs=3, **options)
    killed = MemoryLoop(stop=2)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, epochs=3, **options)
    torch.rand(7)  # another process has other random state
    resumed = MemoryLoop(killed.state)
    assert same(fit(resumed, epochs=3, **options).state_dict(), expected.state_dict())
    assert [epoch for epoch, _ in resumed.epochs] == [3]
    timing = {"seconds", "samples_per_s"}
    for name in undisturbed.epochs[-1][1].keys() - timing:
        assert undisturbed.epochs[-1][1][name] == resumed.epochs[-1][1][name]


def test_a_finished_stage_is_not_trained_again() -> None:
    first = MemoryLoop()
    expected = fit(first, **RICH)
    again = MemoryLoop(first.state)
    assert same(fit(again, **RICH).state_dict(), expected.state_dict())
    assert again.epochs == []


def test_a_checkpoint_of_another_network_is_a_failure() -> None:
    loop = MemoryLoop()
    fit(loop)
    assert loop.state is not None
    loop.state["model"].pop("fc.bias")
    with pytest.raises(TrialFailure, match="damaged or of another network"):
        fit(MemoryLoop(loop.state))


def test_training_learns_and_reports() -> None:
    task, loop = glyph_task(train=256), MemoryLoop()
    model = task.fit(task.build(TINY), recipe(epochs=6, lr=0.1), loop)
    metrics = [metrics for _, metrics in loop.epochs]
    assert [epoch for epoch, _ in loop.epochs] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    assert metrics[-1].keys() == {"train_loss", "val_top1", "lr", "seconds", "samples_per_s"}
    assert loop.ticks >= 6 * 8
    measured = task.evaluate(model, "val", CPU)
    assert measured["top1"] == metrics[-1]["val_top1"]
    assert measured["n"] == 40
    assert measured["top1"] > 40
    assert "top5" not in measured


def test_top5_is_measured_with_more_classes() -> None:
    task = glyph_task(classes=10)
    measured = task.evaluate(task.build(TINY), "test", CPU)
    assert 0 <= measured["top1"] <= measured["top5"] <= 100


def test_evaluation_restores_the_mode_and_changes_nothing() -> None:
    task = glyph_task()
    model = task.build(TINY).train()
    model.layer1.eval()
    before = snapshot(model)
    task.evaluate(model, "test", CPU)
    assert model.training
    assert not model.layer1.training
    assert same(before, model.state_dict())


def test_a_loss_that_is_not_finite_is_a_failure() -> None:
    with pytest.raises(TrialFailure, match=r"training: the loss is (nan|inf) in epoch 1, step"):
        fit(lr=1e30, epochs=3)


def test_the_hook_is_called_in_order_on_every_step() -> None:
    _, hook, loop = search(epochs=2)
    assert hook.calls == ["begin", "loss", "end"] * 6
    assert hook.progress == pytest.approx([step / 6 for step in range(6)])
    assert loop.epochs[-1][1]["gate"] != 1


def test_accumulation_is_one_step_with_the_same_gradient() -> None:
    once, hook_once, _ = search(epochs=1, model=NORMLESS)
    twice, hook_twice, _ = search(epochs=1, model=NORMLESS, grad_accum_steps=2)
    assert hook_twice.calls == hook_once.calls == ["begin", "loss", "end"] * 3
    for name, value in once.state_dict().items():
        assert torch.allclose(twice.state_dict()[name], value, atol=1e-4), name


def test_the_weights_optimiser_leaves_the_structure_alone() -> None:
    task = glyph_task()
    wrapper = SearchWrapper(task.build(TINY))
    optimizer = make_optimizer(wrapper, recipe())
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert owned == {id(parameter) for parameter in wrapper.model.parameters()}


def test_frozen_weights_stay_and_batch_norm_follows() -> None:
    task = glyph_task()
    before = snapshot(task.build(TINY))
    wrapper, hook, loop = search(trains_weights=False)
    after = wrapper.model.state_dict()
    for name, _ in wrapper.model.named_parameters():
        assert torch.equal(before[name], after[name])
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert wrapper.structure["gate"].item() != 1
    assert hook.norms_in_training == {True}
    assert hook.dropout_in_training == {False}
    assert all(parameter.requires_grad for parameter in wrapper.parameters())
    assert "lr" not in loop.epochs[0][1]


def test_averages_replace_the_weights_and_not_the_structure() -> None:
    live, _, _ = search()
    averaged, _, _ = search(model_ema_decay=0.99)
    assert torch.equal(live.structure["gate"], averaged.structure["gate"])
    assert not torch.equal(live.model.fc.weight, averaged.model.fc.weight)


def test_an_average_that_warms_up_is_another_one() -> None:
    averaged, warmed = (fit(model_ema_decay=0.99, model_ema_warmup=warmup) for warmup in (False, True))
    assert not same(averaged.state_dict(), warmed.state_dict())


def test_the_schedule_ends_with_the_last_step() -> None:
    loop = MemoryLoop()
    fit(loop, epochs=2, sched="cosine")
    rates = [metrics["lr"] for _, metrics in loop.epochs]
    assert rates[0] > 0
    assert rates[1] == 0


def test_recalibration_averages_over_the_batches() -> None:
    norm = nn.BatchNorm2d(1, momentum=0.3)
    norm.running_mean.fill_(7)
    batches = [(torch.full((4, 1, 2, 2), value), torch.zeros(4)) for value in (1.0, 3.0)]
    short = [(torch.full((1, 1, 2, 2), 99.0), torch.zeros(1))]
    recalibrate(norm.eval(), [*batches, *short])
    assert norm.running_mean.tolist() == [2]
    assert norm.momentum == 0.3
    assert not norm.training


def test_the_task_recalibrates_on_training_images() -> None:
    task = glyph_task()
    model = task.build(TINY)
    model.bn1.running_mean.fill_(9)
    weights = {name: value.clone() for name, value in weights_of(model).items()}
    task.recalibrate(model, CPU)
    images = torch.cat([images for images, _ in task._data.evaluation(model, "train", CPU)])
    assert torch.allclose(model.bn1.running_mean, model.conv1(images).mean((0, 2, 3)), atol=1e-4)
    assert all(torch.equal(weights[name], value) for name, value in weights_of(model).items())


def rates(**options: Any) -> list[float]:
    chosen = recipe(**({"epochs": 4, "lr": 1.0} | options))
    optimizer = make_optimizer(nn.Linear(2, 2), chosen)
    scheduler = make_scheduler(optimizer, chosen, 10)
    values = []
    for step in range(40):
        values.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step + 1)
    return values


def test_schedules() -> None:
    cosine = rates(warmup_epochs=1, warmup_lr=0.1)
    assert cosine[:11] == pytest.approx([0.1 + 0.09 * step for step in range(10)] + [cosine[10]])
    assert cosine[30] == pytest.approx((1 + math.cos(math.pi * 0.75)) / 2)
    assert rates(sched="step", decay_epochs=2, decay_rate=0.5)[::10] == pytest.approx([1, 1, 0.5, 0.5])
    assert rates(sched="multistep", decay_milestones=(1, 3), decay_rate=0.1)[::10] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert rates(sched="poly", decay_rate=1.0)[::10] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert set(rates(sched="constant")) == {1.0}


def test_optimisers_take_timms_options() -> None:
    model = glyph_task().build(TINY)
    optimizer = make_optimizer(model, recipe(opt="rmsproptf", weight_decay=0.1, opt_kwargs={"eps": 0.001}))
    assert type(optimizer).__name__ == "RMSpropTF"
    assert optimizer.defaults["eps"] == 0.001
    decay = {group["weight_decay"]: group["params"] for group in optimizer.param_groups}
    assert decay.keys() == {0.0, 0.1}
    assert all(parameter.ndim == 1 for parameter in decay[0.0])


def test_what_a_network_names_is_not_decayed() -> None:
    wrapper = SearchWrapper(glyph_task().build(SupernetSpec(model="test_vit")))
    groups = make_optimizer(wrapper, recipe(weight_decay=0.1)).param_groups
    free = {id(parameter) for group in groups if group["weight_decay"] == 0 for parameter in group["params"]}
    assert id(wrapper.model.pos_embed) in free


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opt": "adamww"}, "no optimiser 'adamww'; did you mean .*adamw"),
        ({"opt_kwargs": {"betta": 1}}, "betta"),
        ({"aa": "rand-m9"}, "not for 'glyphs'"),
    ],
)
def test_unusable_recipes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        glyph_task().check_recipe(recipe(**options))
    with pytest.raises(UserError, match="ClassificationRecipe"):
        glyph_task().check_recipe(Recipe(epochs=1))


def test_losses_are_timms() -> None:
    scores, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain = nn.functional.cross_entropy(scores, labels)
    assert Objective(recipe(), 3).loss(scores, labels) == pytest.approx(float(plain))
    smooth = nn.functional.cross_entropy(scores, labels, label_smoothing=0.1)
    assert Objective(recipe(smoothing=0.1), 3).loss(scores, labels) == pytest.approx(float(smooth))
    binary = nn.functional.binary_cross_entropy_with_logits(scores, nn.functional.one_hot(labels, 3).float())
    assert Objective(recipe(bce_loss=True), 3).loss(scores, labels) == pytest.approx(float(binary))


def test_mixing_stops_after_its_last_epoch() -> None:
    objective = Objective(recipe(mixup=1.0, mixup_off_epoch=1), 3)
    images, labels = torch.randn(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    objective.start_epoch(0)
    assert not torch.equal(objective.mix(images.clone(), labels)[0], images)
    objective.start_epoch(1)
    mixed, targets = objective.mix(images.clone(), labels)
    assert torch.equal(mixed, images)
    assert torch.equal(targets.argmax(1), labels)


def test_clipping_and_bf16_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    clipped: list[tuple[float, str]] = []
    monkeypatch.setattr(train, "dispatch_clip_grad", lambda weights, value, mode: clipped.append((value, mode)))
    fit(clip_grad=0.5, clip_mode="agc", epochs=1)
    assert clipped == [(0.5, "agc")] * 3
    assert not same(fit(amp="bf16", epochs=1).state_dict(), fit(epochs=1).state_dict())


@pytest.mark.parametrize(("samples", "limit"), [(None, 4096), (50, 50)])
def test_recalibration_looks_at_as_many_training_images_as_asked(samples, limit, monkeypatch) -> None:
    task, seen = glyph_task(), []
    evaluation = task._data.evaluation

    def watched(model, split, device, **options):
        seen.append((split, options["limit"]))
        return evaluation(model, split, device, **options)

    monkeypatch.setattr(task._data, "evaluation", watched)
    task.recalibrate(task.build(TINY), CPU, samples)
    assert seen == [("train", limit)]
