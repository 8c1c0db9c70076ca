"""Learning from a teacher: the distances, what the teacher sees, which network it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling import Supernet, find_space
from dms_bench.scaling.masks.state import MaskHook
from dms_bench_tasks.classification import distil
from dms_bench_tasks.classification.distil import Teaching, decorrelation, divergence
from dms_bench_tasks.classification.recipe import ClassificationDistillation, ClassificationRecipe
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.classification.timm_data import TimmSource
from tests.unit.classification.classification_helpers import (
    CPU,
    TINY,
    MemoryLoop,
    RecordingHook,
    SearchWrapper,
    glyph_task,
    recipe,
    same,
    snapshot,
)

SCORES, TAUGHT = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))


def test_the_divergence_is_from_the_teacher_to_the_student() -> None:
    total = 0.0
    for own, its in zip(SCORES.tolist(), TAUGHT.tolist(), strict=True):
        p, q = (np.exp(np.array(values) / 2) / np.exp(np.array(values) / 2).sum() for values in (its, own))
        total += float((p * np.log(p / q)).sum())
    assert float(divergence(SCORES, TAUGHT, 2.0)) == pytest.approx(4 * total / 6, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_dist_is_what_correlations_lack_between_and_within_classes(temperature: float) -> None:
    own, its = (torch.softmax(values / temperature, 1).double().numpy() for values in (SCORES, TAUGHT))
    between = np.mean([1 - np.corrcoef(own[row], its[row])[0, 1] for row in range(6)])
    within = np.mean([1 - np.corrcoef(own[:, column], its[:, column])[0, 1] for column in range(5)])
    expected = temperature**2 * (between + within)
    assert float(decorrelation(SCORES, TAUGHT, temperature)) == pytest.approx(expected, rel=1e-4)
    assert float(decorrelation(SCORES, SCORES, temperature)) == pytest.approx(0, abs=1e-5)


def test_the_distance_is_weighted() -> None:
    for loss, distance in (("kl", divergence), ("dist", decorrelation)):
        teaching = Teaching(nn.Identity(), ClassificationDistillation(loss=loss, weight=0.25, temperature=3.0))
        assert float(teaching.loss(SCORES, TAUGHT)) == pytest.approx(0.25 * float(distance(SCORES, TAUGHT, 3.0)))


class Watcher(nn.Module):
    """A network that only looks, with a configuration as timm's have."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 32, 32), **config}
        self.seen: list[Tensor] = []

    def get_classifier(self) -> nn.Module:
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x.mean((2, 3))


def test_a_teacher_sees_the_images_at_its_size_and_by_its_statistics() -> None:
    data = {"name": "timm", "root": "nowhere", "classes": 3}
    task = ClassificationTask.model_validate({"kind": "classification", "data": data, "image_size": 32})
    source = TimmSource(task.data, 32, 3)
    student = Watcher(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    network = Watcher(mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.3))
    raw = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours, its = (
        (raw - mean[None, :, None, None]) / std[None, :, None, None]
        for mean, std in (source.statistics(student), source.statistics(network))
    )
    spec = ClassificationDistillation(teacher={"model": "resnet18", "image_size": 48})
    scaling = distil._scaling(source.statistics(student), source.statistics(network))
    taught = Teaching(network, spec, scaling).scores(ours)
    (seen,) = network.seen
    assert seen.shape == (2, 3, 48, 48)
    torch.testing.assert_close(taught, its.mean((2, 3)), rtol=1e-2, atol=1e-2)
    again = Teaching(network, ClassificationDistillation(teacher={"model": "resnet18"}), scaling)
    again.scores(ours)
    torch.testing.assert_close(network.seen[-1], its)
    assert distil._scaling(source.statistics(student), source.statistics(student)) is None


def trained_teacher(task: Any) -> nn.Module:
    return task.fit(task.build(TINY), recipe(epochs=6, lr=0.1), MemoryLoop())


def hooks_of(module: nn.Module) -> list[Any]:
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values(), module.__dict__.get("forward")]


@pytest.mark.parametrize("loss", ["kl", "dist"])
def test_a_teacher_teaches_and_is_not_changed(loss: str) -> None:
    task = glyph_task(train=256)
    teacher = trained_teacher(task)
    before = snapshot(teacher)
    images = torch.cat([batch for batch, _ in task._data.evaluation(teacher, "val", CPU)])
    distance = {"kl": divergence, "dist": decorrelation}[loss]
    far = []
    for options in ({"distil": {"loss": loss, "weight": 5.0}}, {}):
        given = {"teacher": teacher} if options else {}
        student = task.fit(task.build(TINY), recipe(epochs=4, **options), MemoryLoop(), **given).eval()
        with torch.no_grad():
            far.append(float(distance(student(images), teacher(images), 1.0)))
    assert far[0] < 0.7 * far[1]
    assert same(before, snapshot(teacher))
    assert all(weight.grad is None for weight in teacher.parameters())


def test_a_teacher_of_its_own_comes_from_its_file_and_a_resumed_stage_is_the_same(tmp_path: Path) -> None:
    task = glyph_task()
    weights = task.build(TINY.model_copy(update={"model": "test_resnet", "args": {}})).state_dict()
    save_file(weights, tmp_path / "teacher.safetensors")
    teacher = {"model": "test_resnet", "checkpoint": str(tmp_path / "teacher.safetensors"), "image_size": 40}
    own = recipe(epochs=3, distil={"loss": "dist", "teacher": teacher}, mixup=0.2)
    assert not own.needs_teacher()
    found = distil.teaching(own.distil, None, task.build(TINY), task._data, task.spec)  # type: ignore[arg-type]
    assert same(snapshot(found.network), weights)
    assert not found.network.training
    expected = task.fit(task.build(TINY), own, MemoryLoop())
    killed = MemoryLoop(stop=2)
    with pytest.raises(KeyboardInterrupt):
        task.fit(task.build(TINY), own, killed)
    resumed = task.fit(task.build(TINY), own, MemoryLoop(killed.state))
    assert same(resumed.state_dict(), expected.state_dict())
    assert not same(
        expected.state_dict(), task.fit(task.build(TINY), recipe(epochs=3, mixup=0.2), MemoryLoop()).state_dict()
    )


def test_the_original_teaches_where_the_search_leaves_the_weights_alone() -> None:
    task = glyph_task()
    model = trained_teacher(task).eval()
    images = task.example_input(4)
    with torch.no_grad():
        original = model(images)
    net = Supernet(model, find_space(model, images))
    with torch.no_grad():
        net.ratios.fill_(0.5)
        net.importance.copy_(torch.rand(len(net.importance)))
    teaching = distil.teaching(ClassificationDistillation(), model, net, task._data, task.spec)
    assert not any(isinstance(part, MaskHook) for module in teaching.network.modules() for part in hooks_of(module))
    net.train()
    for _ in range(3):
        net(images)  # batch norm's statistics follow the masks
    with torch.no_grad():
        assert not torch.allclose(model.eval()(images), original, rtol=1e-2)
        torch.testing.assert_close(teaching.scores(images), original)
    wrapper = SearchWrapper(task.build(TINY))
    hook = RecordingHook(wrapper, trains_weights=False)
    loop = MemoryLoop()
    task.fit(wrapper, recipe(distil=True), loop, hook, wrapper.model)
    assert all(math.isfinite(metrics["train_loss"]) for _, metrics in loop.epochs)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"model": "resnet19"}, "distil.teacher: timm has no model 'resnet19'; did you mean"),
        ({"model": "resnet18", "checkpoint": "nowhere"}, "distil.teacher.checkpoint 'nowhere' does not exist"),
        ({"model": "resnet18"}, "timm's weights of 'resnet18' tell 1000 classes apart, the data have 4"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_anything_runs(teacher: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        glyph_task().check_recipe(recipe(distil={"teacher": teacher}))
    assert message in str(error.value)


def test_a_recipe_without_a_teacher_is_what_it_was() -> None:
    assert "distil" not in recipe().model_dump(mode="json")
    assert recipe(distil=False).content_hash() == recipe().content_hash()
    assert recipe(distil=True).needs_teacher()
    assert recipe(distil=True).content_hash() != recipe().content_hash()


def test_a_teacher_of_its_own_is_planned_at_the_size_that_it_is_shown() -> None:
    task = ClassificationTask(data={"name": "digits"}, image_size=16)
    supernet = SupernetSpec(model="resnet18")
    distil = {"teacher": {"model": "resnet34", "image_size": 24}}
    shown, network = ClassificationRecipe(epochs=1, lr=0.1, distil=distil).teacher(task, supernet)
    assert (shown.image_size, network.model) == (24, "resnet34")
    assert ClassificationRecipe(epochs=1, lr=0.1, distil=True).teacher(task, supernet) == (task, supernet)
    assert ClassificationRecipe(epochs=1, lr=0.1).teacher(task, supernet) is None
