"""Epochs that end before all images were seen."""

from __future__ import annotations

import pytest
import torch

from dms_bench.errors import UserError
from dms_bench_tasks.classification.data import steps_per_epoch
from dms_bench_tasks.classification.data_spec import GlyphsData
from dms_bench_tasks.classification.embedded import EmbeddedSource
from dms_bench_tasks.classification.recipe import ClassificationRecipe
from dms_bench_tasks.common.sharding import WHOLE

CPU = torch.device("cpu")


@pytest.mark.parametrize(("steps", "expected"), [(None, 6), (2, 2), (6, 6), (100, 6)])
def test_an_epoch_has_as_many_steps_as_wanted_or_there_are(steps: int | None, expected: int) -> None:
    recipe = ClassificationRecipe(epochs=1, lr=0.1, batch_size=16, epoch_steps=steps)
    assert steps_per_epoch(100, recipe) == expected


def test_a_batch_that_the_set_cannot_fill_is_refused_all_the_same() -> None:
    with pytest.raises(UserError, match="batch_size 16 is more than the 10 training images"):
        steps_per_epoch(10, ClassificationRecipe(epochs=1, lr=0.1, batch_size=16, epoch_steps=1))


def test_short_epochs_see_other_images_each_time() -> None:
    source = EmbeddedSource(GlyphsData(train=64, val=36, test=36), 16, 1)
    recipe = ClassificationRecipe(epochs=2, lr=0.1, batch_size=8, epoch_steps=2)
    batches = source.train(torch.nn.Identity(), recipe, WHOLE, CPU, seed=0)
    first, second = (list(batches.epoch(number)) for number in (1, 2))
    assert len(first) == len(second) == 2
    assert not torch.equal(first[0][0], second[0][0])
