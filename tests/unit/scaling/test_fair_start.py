"""MES and SNS, started fairly, begin at the whole supernet and hot; as released, at chance and cold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dms_bench.scaling import find_space
from dms_bench.scaling.structure.gumbel import CountChoice, ElementGates


@pytest.fixture(scope="module")
def space() -> Any:
    return find_space(
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(2, 8)
    )


@pytest.mark.parametrize("kind", [ElementGates, CountChoice])
def test_a_fair_start_keeps_nearly_all_and_cools_to_the_given_temperature(space: Any, kind: Any) -> None:
    relaxation = kind(space, seed=0, fair=True, temperature=0.3)
    kept = relaxation.soft_size()[0].detach() / torch.tensor(space.units.sizes)
    assert bool((kept >= 0.95 - 1e-5).all())
    if kind is ElementGates:
        assert kept.tolist() == pytest.approx([0.95] * len(kept))
    assert relaxation.temperature == pytest.approx(0.3 * 50)
    relaxation.anneal(1.0)
    assert relaxation.temperature == pytest.approx(0.3)


def test_gates_as_released_start_at_chance_and_cold(space: Any) -> None:
    relaxation = ElementGates(space, seed=0)
    assert torch.allclose(relaxation.expected_mask(), torch.tensor(0.5), atol=0.01)
    relaxation.anneal(0.0)
    assert relaxation.temperature == pytest.approx(0.1)


def test_counts_as_released_start_near_a_uniform_choice(space: Any) -> None:
    """The first choice, which keeps all, is a little ahead of the others."""
    first = torch.cat([torch.softmax(part, 0)[:1] for part in CountChoice(space, seed=0).logits.split([16, 32])])
    assert first.tolist() == pytest.approx([1.105 / 16.105, 1.105 / 32.105], rel=1e-3)
