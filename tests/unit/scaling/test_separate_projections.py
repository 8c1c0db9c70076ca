"""torch's attention over keys and values of sizes of their own (`kdim`, `vdim`): searched like any other."""

import copy

import pytest
import torch
from torch import nn

from dms_bench.scaling import Example, cut, find_space
from dms_bench.scaling.modules.attention import OpenAttention
from tests.unit.scaling.agreement import assert_masked_is_cut

X = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))


class Across(nn.Module):
    """Queries, keys and values of three layers."""

    def __init__(self, bias: bool = True, weights: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = nn.Linear(5, 16), nn.Linear(5, 12), nn.Linear(5, 10)
        self.attention = nn.MultiheadAttention(16, 4, bias=bias, kdim=12, vdim=10, batch_first=True)
        self.last, self.weights = nn.Linear(16, 3), weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        operands = self.query(x), self.key(x), self.value(x)
        return self.last(self.attention(*operands, need_weights=self.weights)[0])


@pytest.mark.parametrize("options", [{}, {"bias": False, "weights": True}])
def test_masks_of_separate_projections_are_cuts(options):
    space = assert_masked_is_cut(Across(**options), X)
    # What attention returns is read by the last layer alone; heads, and what each projection reads, are groups.
    assert sorted((group.size, group.heads) for group in space.groups) == sorted(
        [(16, False), (12, False), (10, False), (16, False), (4, True)]
    )


def test_what_projections_read_is_cut_by_hand_and_heads_as_if_nobody_read_them():
    model = Across().eval()
    space = find_space(model, X)
    names = dict(zip(space.names, zip(space.units.starts, space.units.sizes, strict=True), strict=True))
    mask = space.full()
    for name, gone in (("key", [0, 5]), ("value", [3])):
        mask[[names[name][0] + index for index in gone]] = 0
    small = cut(model, space, space.architecture(mask))
    attention, whole = nn.MultiheadAttention(16, 4, kdim=10, vdim=9, batch_first=True), model.attention
    state = copy.deepcopy(whole.state_dict())
    keys, values = [i for i in range(12) if i not in (0, 5)], [i for i in range(10) if i != 3]
    state["k_proj_weight"], state["v_proj_weight"] = whole.k_proj_weight[:, keys], whole.v_proj_weight[:, values]
    attention.load_state_dict(state)
    operands = model.query(X), model.key(X)[..., keys], model.value(X)[..., values]
    torch.testing.assert_close(small(X), model.last(attention(*operands)[0]))
    assert (small.attention.kdim, small.attention.vdim, small.attention.embed_dim) == (10, 9, 16)
    assert type(small.attention) is nn.MultiheadAttention  # of sizes that torch takes
    heads = next(group.name for group in space.groups if group.heads)
    mask = space.full()
    mask[names[heads][0] + 1] = 0
    small = cut(model, space, space.architecture(mask))
    assert isinstance(small.attention, OpenAttention)
    assert [len(getattr(small.attention, f"{kind}_proj_weight")) for kind in "qkv"] == [12, 12, 12]
    with torch.no_grad():
        model.attention.out_proj.weight[:, 4:8] = 0
    torch.testing.assert_close(small(X), model(X))


@pytest.mark.parametrize("separate", [True, False])
def test_sizes_of_heads_are_searched_where_their_average_is_returned_and_heads_are_not(separate):
    torch.manual_seed(0)
    sizes = {"kdim": 12, "vdim": 10} if separate else {}
    whole = nn.MultiheadAttention(16, 4, batch_first=True, **sizes).double().eval()
    nn.init.uniform_(whole.in_proj_bias)
    example = Example(
        *(torch.randn(2, 5, size).double() for size in (16, sizes.get("kdim", 16), sizes.get("vdim", 16)))
    )
    space = find_space(whole, example, attention="both")
    assert sorted((group.name.rpartition(".")[2], group.size) for group in space.groups) == [
        ("qk_dims", 4),
        ("v_dims", 4),
    ]
    assert not space.gaps
    mask = torch.ones(8)
    mask[[1, 6, 7]] = 0  # of queries and keys the second feature of each head, of values the last two
    small = cut(whole, space, space.architecture(mask))
    by_hand = copy.deepcopy(whole)
    with torch.no_grad():
        q = by_hand.q_proj_weight if separate else by_hand.in_proj_weight[:16]
        v = by_hand.v_proj_weight if separate else by_hand.in_proj_weight[32:]
        q.view(4, 4, -1)[:, 1], v.view(4, 4, -1)[:, 2:] = 0, 0
        by_hand.in_proj_bias[:16].view(4, 4)[:, 1], by_hand.in_proj_bias[32:].view(4, 4)[:, 2:] = 0, 0
        for ours, expected in zip(example(small), example(by_hand), strict=True):
            torch.testing.assert_close(ours, expected)
    rows = len(small.q_proj_weight) if separate else len(small.in_proj_weight)
    assert rows == (12 if separate else 12 + 12 + 8)
