"""Scores that code sums by hand, with a weight of its own, and what it writes to places (pooling of graphs)."""

import copy

import pytest
import torch
from torch import nn

from dms_bench.scaling import cut, find_space


class Pooling(nn.Module):
    """Keeps the rows of the largest scores, and writes them back."""

    def __init__(self, width, normed, view):
        super().__init__()
        self.weight, self.normed, self.view = nn.Parameter(torch.randn(1, width)), normed, view

    def forward(self, x):
        score = (x * (self.weight.view(-1) if self.view else self.weight)).sum(-1)
        score = (score / self.weight.norm(p=2, dim=-1) if self.normed else score).tanh()
        rows = score.topk(4).indices
        small = x[rows] * score[rows].view(-1, 1)
        back = torch.zeros_like(x)
        back[rows] = small
        return x + back


class Network(nn.Module):
    def __init__(self, normed, view):
        super().__init__()
        self.stem, self.pool, self.head = nn.Linear(6, 12), Pooling(12, normed, view), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.pool(self.stem(x).relu()))


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("view", [False, True])
def test_features_that_a_score_sums_with_a_weight_are_cut_exactly(normed, view):
    torch.manual_seed(0)
    model, x = Network(normed, view).double().eval(), torch.randn(9, 6).double()
    space = find_space(model, x, depth=False)
    assert [group.size for group in space.groups] == [12], space.excluded
    assert space.proof_error < 1e-12
    mask = torch.ones(12)
    mask[[1, 2, 11]] = 0
    small = cut(model, space, space.architecture(mask))
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.pool.weight[:, mask == 0] = 0
        by_hand.head.weight[:, mask == 0] = 0
        torch.testing.assert_close(small(x), by_hand(x))
    assert small.pool.weight.shape == (1, 9)


def test_features_that_a_product_runs_over_without_a_weight_stay():
    class Multiplied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x * x.prod(-1, keepdim=True))

    space = find_space(Multiplied().eval(), torch.randn(5, 6))
    assert not space.groups
    assert space.excluded["stem"] == "operator prod runs over it"


def test_a_shape_by_name_is_a_shape():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.stem(x).reshape(shape=(len(x), -1, 12)).mean(1))

    model, x = Named().double().eval(), torch.randn(5, 6).double()
    space = find_space(model, x)
    assert [group.size for group in space.groups] == [12]
    mask = torch.ones(12)
    mask[5:] = 0
    small = cut(model, space, space.architecture(mask))
    torch.testing.assert_close(small(x), model.stem(x)[:, :5] @ model.head.weight[:, :5].T + model.head.bias)
