"""Samplers: at the budget, from the seed, and better than chance by their own score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dms_bench.methods import proxies
from dms_bench.methods.base import SearchContext
from dms_bench.methods.sampling import SamplingSearch
from dms_bench.methods.specs.sampling import Evolution, RandomSearch, Score
from dms_bench.scaling import Architecture, budget_of, cut, find_space, reinitialise


class Vectors:
    def example_input(self, batch: int = 2) -> Tensor:
        return torch.ones(batch, 16)

    def initialise(self, model: nn.Module) -> None:
        reinitialise(model, 0)

    def losses(self, model: nn.Module, batches: int, device: torch.device) -> Iterator[Tensor]:
        for seed in range(batches):
            x = torch.randn(32, 16, generator=torch.Generator().manual_seed(seed))
            yield functional.cross_entropy(model(x), x[:, :4].argmax(1))


def context(seed: int = 0, share: float = 0.3) -> SearchContext:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4))
    space = find_space(model, torch.randn(1, 16))
    trial: Any = SimpleNamespace(seed=seed)
    loop: Any = SimpleNamespace(device=torch.device("cpu"), tick=lambda: None)
    task: Any = Vectors()
    return SearchContext(trial, task, model, space, budget_of(space, macs=share), loop)


def search(spec: RandomSearch | Evolution, seed: int = 0) -> Architecture:
    return SamplingSearch(spec).search(context(seed))


@pytest.mark.parametrize("score", get_args(Score))
@pytest.mark.parametrize("kind", [RandomSearch, Evolution])
def test_every_score_gives_an_architecture_at_the_budget(kind, score):
    architecture = search(kind(score=score, candidates=20))
    whole = context().space.macs
    assert abs(architecture.macs - 0.3 * whole) <= 0.02 * 0.3 * whole  # an element is more than a hundredth here


def test_a_search_depends_on_its_seed_alone():
    spec = Evolution(score="snip", candidates=20, population=5)
    assert search(spec, 1) == search(spec, 1)
    assert search(spec, 1) != search(spec, 2)


def test_more_candidates_never_score_worse_and_evolution_improves_on_its_first():
    few, many = (search(RandomSearch(score="params", candidates=count)).params for count in (2, 40))
    assert many >= few
    given = context()
    scores = []
    for candidates in (4, 60):
        found = search(Evolution(score="synflow", candidates=candidates, population=4))
        scores.append(proxies.synflow(initialised(given, found), torch.ones(1, 16)))
    assert scores[1] > scores[0]


def initialised(given: SearchContext, architecture: Architecture) -> nn.Module:
    network = cut(given.model, given.space, architecture)
    given.task.initialise(network)
    return network


def test_the_best_architecture_is_returned():
    """Of random candidates the one with most parameters: compared with scoring each of them alone."""
    spec = RandomSearch(score="params", candidates=6)
    sampler, given = SamplingSearch(spec), context()
    generator = given.generator()
    drawn = [sampler._architecture(given, sampler._random(given, generator)) for _ in range(6)]
    assert search(spec) == max(drawn, key=lambda architecture: architecture.params)


def test_children_of_good_parents_beat_as_many_random_candidates(monkeypatch):
    monkeypatch.setattr(SamplingSearch, "_score", lambda self, given, shares: float(shares.mean()))
    best: dict[str, float] = {}

    def remembered(self: SamplingSearch, given: SearchContext, shares: Tensor) -> Tensor:
        best[self.spec.kind] = float(shares.mean())
        return shares

    monkeypatch.setattr(SamplingSearch, "_architecture", remembered)
    given = replace(context(), space=SimpleNamespace(units=SimpleNamespace(sizes=(9,) * 40)))
    for spec in (RandomSearch(candidates=200), Evolution(candidates=200, population=10, mutation=0.05)):
        SamplingSearch(spec).search(given)
    assert best["evolution"] > best["random_search"] + 0.1
