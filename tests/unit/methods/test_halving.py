"""Successive halving: who stays, what it costs, that it resumes, and what it refuses."""

from __future__ import annotations

import pytest
from dms_bench_waves.spec import WavesTask
from pydantic import ValidationError

from dms_bench.config.plugins import METHODS, parse_plugin
from dms_bench.methods.halving.search import HalvingSearch
from dms_bench.methods.halving.spec import Halving
from dms_bench.testing import check_method

SMALL = {"task": WavesTask(samples=128), "supernet": {"model": "mlp"}, "recipe": {"epochs": 1}}


def halving(*proposals, **options):
    return Halving(proposals=proposals, **options)


def test_halving_keeps_its_promises() -> None:
    """With a proposal that trains and two that do not: budget, workers, generators, the same answer twice."""
    check_method(halving("dms", "uniform", "random"), **SMALL)


def test_the_best_by_validation_goes_on_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine proposals, one in three stays twice: trained 1 epoch each, then 3, and the scores decide."""
    seen: list[tuple[str, int]] = []
    scores = {str(place): float(place % 4) for place in range(9)}  # 3 and 7 are the best, 3 the earlier

    def trained(self, context, begin, contestant, epochs):
        seen.append((contestant.place, epochs))
        return scores[contestant.place]

    monkeypatch.setattr(HalvingSearch, "_trained", trained)
    monkeypatch.setattr(HalvingSearch, "_propose", lambda self, context, begin, proposal, place: contestant_of(place))
    found = HalvingSearch(halving(*(f"{kind}" for kind in ("dms", "uniform")))).spec
    assert found.eta == 3
    spec = Halving(
        proposals=[
            {"kind": "evolution", "score": "params", "candidates": 4 + place, "population": 2} for place in range(9)
        ]
    )
    noted: dict[str, float] = {}
    winner = HalvingSearch(spec).search(context_with_loop(noted))
    assert [epochs for _, epochs in seen] == [1] * 9 + [3] * 3
    assert {place for place, epochs in seen if epochs == 3} == {"3", "7", "2"}
    assert len(noted) == 9 + 3 + 1, "a measure of each, whatever its label"
    assert winner == "architecture 3"
    assert spec.trained_epochs(5) == (0, 9 + 9)


def contestant_of(place):
    from types import SimpleNamespace

    return SimpleNamespace(label="p", place=place, architecture=f"architecture {place}", weights={}, network=None)


def context_with_loop(noted):
    from types import SimpleNamespace

    model = SimpleNamespace(load_state_dict=lambda weights: None)
    return SimpleNamespace(
        model=model,
        trial=SimpleNamespace(task=SimpleNamespace(higher_is_better=True)),
        loop=SimpleNamespace(epoch_done=lambda epoch, values, state: noted.update(values)),
    )


def test_costs_of_searches_and_of_the_choice_are_planned() -> None:
    spec = halving("dms", "taylor", {"kind": "get"}, "uniform", epochs=2, eta=2)
    assert spec.trained_epochs(10) == (20, 4 * 2 + 2 * 4)
    assert parse_plugin(METHODS, "dms").trained_epochs(10) == (10, 0)
    assert parse_plugin(METHODS, "taylor").trained_epochs(10) == (0, 0)


@pytest.mark.parametrize(
    ("proposals", "words"),
    [
        (["dms"], "at least two proposals"),
        (["dms", "supernet"], "'supernet' proposes no architecture of the space"),
        (["dms", {"kind": "designed", "model": "resnet18"}], "'designed resnet18' proposes no"),
        (["dms", "dms"], "occurs twice"),
        (
            [{"kind": "dms", "budget": "projected"}, {"kind": "dms", "budget": "projected", "resource_weight": 3}],
            "occurs twice",
        ),
        (["dms", "tailor"], "did you mean 'taylor'"),
        (["dms", {"kind": "halving", "proposals": ["dms", "uniform"]}], "proposes no architecture"),
        (["dms", {"kind": "get", "rate": 1}], "rate"),
    ],
)
def test_what_cannot_compete_is_refused(proposals, words) -> None:
    with pytest.raises(ValidationError, match=words):
        Halving(proposals=proposals)


def test_every_choice_of_proposals_is_a_method_of_its_own() -> None:
    one, other = halving("dms", "uniform"), halving("dms", "taylor")
    assert one.label() == "halving (dms, uniform)"
    assert other.label() == "halving (dms, taylor global)"
    assert one.content_hash() != other.content_hash()
    weighted = halving({"kind": "dms", "budget": "projected", "resource_weight": 3}, "uniform")
    assert weighted.canonical() == halving({"kind": "dms", "budget": "projected"}, "uniform").canonical()


def test_one_mistake_in_a_proposal_is_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        Halving(proposals=["dmss", "taylor"])
    assert len(caught.value.errors()) == 1


def test_it_trains_where_the_pipeline_does_not() -> None:
    from dms_bench.config.trial import Trial
    from dms_bench.tracking.content import trial_tags

    trial = {
        "experiment": "e",
        "task": {"kind": "classification", "data": "glyphs"},
        "supernet": {"model": "resnet18"},
        "pipeline": "DMSp-",
        "budget": {"kind": "macs", "target": "50%"},
        "pretrain": {"epochs": 1, "lr": 0.1},
        "search": {"epochs": 1, "lr": 0.1},
    }
    uses = {
        kind: trial_tags(Trial.model_validate({**trial, "method": method}))["dms.uses"]
        for kind, method in (("halving", {"kind": "halving", "proposals": ["dms", "l1"]}), ("dms", "dms"))
    }
    assert uses == {
        "halving": "weights, data, gradients, training, validation",
        "dms": "weights, data, gradients",
    }
