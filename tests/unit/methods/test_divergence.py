"""The divergence of predictions, against numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from dms_bench.errors import UserError
from dms_bench.methods.divergence import check_softmax, divergence
from dms_bench.scaling import cut
from tests.unit.classification.classification_helpers import same, snapshot
from tests.unit.language.language_helpers import random_mask
from tests.unit.methods.test_language import context


def naive(whole: np.ndarray, other: np.ndarray) -> float:
    """The mean over predictions [R, K] of sum p (log p - log q), p and q by their definition."""
    divergences = []
    for p_logits, q_logits in zip(whole.astype(np.float64), other.astype(np.float64), strict=True):
        p, q = (np.exp(logits) / np.exp(logits).sum() for logits in (p_logits, q_logits))
        divergences.append(sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True)))
    return float(np.mean(divergences))


def test_the_divergence_is_the_mean_of_all_positions_and_changes_nothing() -> None:
    given = context()
    small = cut(given.model, given.space, given.space.architecture(random_mask(given.space)))
    given.model.train()
    small.train()
    before = snapshot(given.model)
    inputs: list[torch.Tensor] = []
    handle = given.model.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    list(given.task.losses(given.model, 2, torch.device("cpu")))
    handle.remove()
    with torch.no_grad():
        logits = [torch.cat([network(x) for x in inputs]).flatten(0, 1).numpy() for network in (given.model, small)]
    found = divergence(given, small, 2)
    assert found == pytest.approx(naive(*logits), rel=1e-5)
    assert found > 0.01
    assert given.model.training
    assert small.training
    assert same(before, snapshot(given.model))
    assert not given.model._forward_hooks
    assert not small._forward_hooks


def test_a_batch_that_is_smaller_counts_less(monkeypatch: pytest.MonkeyPatch) -> None:
    given = context()
    small = cut(given.model, given.space, given.space.architecture(random_mask(given.space)))
    x = torch.arange(96).view(6, 16)

    def losses(model, batches, device):
        for rows in (x[:4], x[4:]):
            yield model(rows).mean()

    monkeypatch.setattr(given.task, "losses", losses)
    with torch.no_grad():
        logits = [network(x).flatten(0, 1).numpy() for network in (given.model.eval(), small.eval())]
    assert divergence(given, small, 2) == pytest.approx(naive(*logits), rel=1e-5)


def test_a_network_does_not_differ_from_itself() -> None:
    given = context()
    assert divergence(given, copy.deepcopy(given.model), 1) == 0


def test_a_task_without_one_softmax_is_refused() -> None:
    class Boxes:
        pass

    with pytest.raises(UserError, match=r"^method\.score 'kl' compares predictions of one softmax, and this task's"):
        check_softmax(Boxes(), "method.score 'kl'")  # type: ignore[arg-type]
    check_softmax(context().task, "method.score 'kl'")
