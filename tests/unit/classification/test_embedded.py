from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dms_bench.errors import UserError
from dms_bench_tasks.classification import digits, embedded
from dms_bench_tasks.classification.data_spec import DigitsData, GlyphsData
from dms_bench_tasks.classification.embedded import EmbeddedSource, cached_arrays, translate
from dms_bench_tasks.common.sharding import WHOLE, Shard
from tests.unit.classification.classification_helpers import CPU, GLYPHS, recipe


def source(**options: Any) -> EmbeddedSource:
    return EmbeddedSource(GlyphsData.model_validate(GLYPHS | options), 32, 1)


def epoch(origin: EmbeddedSource, shard: Shard = WHOLE, number: int = 0, seed: int = 0, **options: Any) -> list[Any]:
    return list(origin.train(torch.nn.Identity(), recipe(**options), shard, CPU, seed).epoch(number))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, again = epoch(source()), epoch(source())
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    labels = torch.cat([batch[1] for batch in first])
    assert not torch.equal(labels, torch.cat([batch[1] for batch in epoch(source(), number=1)]))
    assert not torch.equal(labels, torch.cat([batch[1] for batch in epoch(source(), seed=1)]))


def test_an_epoch_takes_each_image_once() -> None:
    images, _ = source().tensors("train")
    drawn = torch.cat([batch[0] for batch in epoch(source())])
    assert len({image.numpy().tobytes() for image in drawn}) == len(images)


@pytest.mark.parametrize("options", [{}, {"grad_accum_steps": 2}])
def test_workers_share_the_same_global_batches(options: dict[str, int]) -> None:
    whole = epoch(source(), shift=2)
    parts = [epoch(source(), Shard(rank, 2), shift=2, **options) for rank in (0, 1)]
    per_step = options.get("grad_accum_steps", 1)
    for step, (images, _) in enumerate(whole):
        mine = [torch.cat([b[0] for b in part[step * per_step : (step + 1) * per_step]]) for part in parts]
        assert torch.equal(torch.stack(mine, 1).flatten(0, 1), images)


def test_evaluation_shards_cover_a_split_once() -> None:
    origin = source(val=41)
    parts = [torch.cat([b[0] for b in origin.evaluation(torch.nn.Identity(), "val", CPU, Shard(r, 2))]) for r in (0, 1)]
    assert [len(part) for part in parts] == [21, 20]
    assert len({image.numpy().tobytes() for part in parts for image in part}) == 41


def test_training_images_are_normalised() -> None:
    pixels = torch.cat([images for images, _ in source().evaluation(torch.nn.Identity(), "train", CPU)])
    assert abs(float(pixels.mean())) < 1e-3
    assert abs(float(pixels.std()) - 1) < 1e-3


def test_limited_evaluation_draws_at_random() -> None:
    (images, labels), *rest = source().evaluation(torch.nn.Identity(), "train", CPU, limit=20)
    assert len(images) == 20
    assert not rest
    assert not torch.equal(labels, source().tensors("train")[1][:20])


def test_translate_moves_and_repeats_the_border() -> None:
    image = torch.arange(9).view(1, 1, 3, 3)
    moved = translate(image, torch.tensor([[1, -1]]))
    assert moved[0, 0].tolist() == [[1, 2, 2], [1, 2, 2], [4, 5, 5]]


def test_shift_changes_images_and_not_labels() -> None:
    plain, shifted = epoch(source()), epoch(source(), shift=3)
    assert sorted(torch.cat([b[1] for b in plain]).tolist()) == sorted(torch.cat([b[1] for b in shifted]).tolist())
    assert not torch.equal(plain[0][0], shifted[0][0])


def test_the_cache_is_used_and_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    made = 0

    def make() -> tuple[np.ndarray, np.ndarray]:
        nonlocal made
        made += 1
        return np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1])

    path = tmp_path / "folder" / "set.npz"
    for _ in range(2):
        _, labels = cached_arrays(path, make)
    assert made == 1
    assert labels.tolist() == [0, 1]
    path.write_bytes(path.read_bytes()[:100])
    cached_arrays(path, make)
    assert made == 2
    cached_arrays(path, make)
    assert made == 2
    assert [entry.name for entry in path.parent.iterdir()] == ["set.npz"]


def test_the_cache_distinguishes_what_changes_the_images() -> None:
    for options in ({}, {"seed": 1}, {"difficulty": 0.3}, {"train": 97}, {"classes": 5}):
        source(**options).tensors("train")
    EmbeddedSource(GlyphsData.model_validate(GLYPHS), 16, 1).tensors("train")
    assert len(list(embedded.cache_folder().iterdir())) == 6
    source(test=7).tensors("train")  # another split's size changes nothing
    assert len(list(embedded.cache_folder().iterdir())) == 6


def test_an_unwritable_cache_does_not_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(source().tensors("val")[1]) == 40


def test_digits_splits_are_disjoint_stratified_and_stable() -> None:
    from sklearn.datasets import load_digits

    labels = load_digits().target
    splits = digits.split_indices(labels, DigitsData())
    everything = np.concatenate(list(splits.values()))
    assert sorted(everything.tolist()) == list(range(1797))
    for index in splits.values():
        assert np.bincount(labels[index]).min() > 0.85 * np.bincount(labels[index]).max()
    assert len(splits["test"]) == 360
    assert np.array_equal(splits["val"], digits.split_indices(labels, DigitsData())["val"])
    assert not np.array_equal(splits["val"], digits.split_indices(labels, DigitsData(seed=1))["val"])


@pytest.mark.parametrize("held", [(0.2, 0.2), (0.1, 0.3), (0.15, 0.07), (1 / 3, 1 / 3)])
def test_digits_are_counted_without_being_loaded(held: tuple[float, float]) -> None:
    from sklearn.datasets import load_digits

    data = DigitsData(val_fraction=held[0], test_fraction=held[1])
    assert digits.train_samples(data) == len(digits.split_indices(load_digits().target, data)["train"])


def test_digits_are_scaled_up() -> None:
    images, labels = digits.load(DigitsData(), "val", 16, 3)
    assert images.shape == (len(labels), 3, 16, 16)
    assert images.max() > 240


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aa": "rand-m9"}, "aa: not for 'glyphs'"),
        ({"shift": 32}, "shift 32 must be less"),
    ],
)
def test_recipes_for_other_data_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        source().check_recipe(recipe(**options))


@pytest.mark.parametrize(
    ("options", "shard", "message"),
    [
        ({"batch_size": 33}, Shard(0, 2), "make it a multiple of 2"),
        ({"batch_size": 10, "grad_accum_steps": 4}, Shard(), "make it a multiple of 4"),
        ({"batch_size": 30, "grad_accum_steps": 2, "mixup": 0.2}, Shard(), "even batch, not 15"),
        ({"batch_size": 1000}, Shard(), "more than the 96 training images"),
    ],
)
def test_batches_that_cannot_be_split_are_refused(options: dict[str, Any], shard: Shard, message: str) -> None:
    with pytest.raises(UserError, match=message):
        epoch(source(), shard, **options)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_channels_last_on_processors(channels: int, shift: int) -> None:
    """On purpose, and alike with and without shifts; one channel leaves strides a choice that networks look at."""
    origin = EmbeddedSource(GlyphsData.model_validate(GLYPHS), 32, channels)
    strides = (channels * 32 * 32, 1, channels * 32, channels)
    for images, _ in [*epoch(origin, shift=shift), *origin.evaluation(torch.nn.Identity(), "val", CPU)]:
        assert images.stride() == strides
