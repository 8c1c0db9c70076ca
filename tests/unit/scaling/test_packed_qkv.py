"""What stands for queries, keys and values of sizes of their own behaves like the tensor that it stands for."""

import pytest
import torch

from dms_bench.scaling.tracing.qkv import PackedQKV, pack

WHOLE = torch.randn(2, 5, 3, 4, 6)
USES = {
    "method": lambda x: x.permute(2, 0, 3, 1, 4).unbind(0),
    "list": lambda x: x.permute([-3, 0, 3, 1, -1]).unbind(),
    "transposed": lambda x: x.transpose(1, -2).unbind(2),
    "function": lambda x: torch.unbind(x, 2),
    "named": lambda x: torch.unbind(x, dim=-3),
    "iterated": lambda x: tuple(x.permute(2, 0, 3, 1, 4)),
    "indexed": lambda x: [x.permute(2, 0, 3, 1, 4)[place] for place in (0, 2, -1)],
    "sliced": lambda x: x.permute(2, 0, 3, 1, 4)[1:],
    "other dimension": lambda x: x.unbind(1),
    "first sample": lambda x: [x[0]],
    "other method": lambda x: [x.reshape(2, 5, 12, 6)],
    "other function": lambda x: [torch.cat([x, x], dim=2)],
    "attribute": lambda x: [x.sum(2), x.shape],
    "operator": lambda x: [x * 2, 1 - x, -x, x @ WHOLE.transpose(-2, -1)],
}


def packed() -> PackedQKV:
    return pack(WHOLE.reshape(2, 5, 72), 2, [24] * 3, [[2, 5, 4, 6]] * 3)


@pytest.mark.parametrize("use", USES)
def test_equal_sizes(use):
    found, expected = USES[use](packed()), USES[use](WHOLE)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.equal(other) if isinstance(one, torch.Tensor) else one == other


def test_sizes_of_their_own():
    operand = torch.randn(2, 5, 4 * (2 + 2 + 6))
    q, k, v = pack(operand, 2, [8, 8, 24], [[2, 5, 4, 2], [2, 5, 4, 2], [2, 5, 4, 6]]).permute(2, 0, 3, 1, 4).unbind(0)
    assert [one.shape for one in (q, k, v)] == [(2, 4, 5, 2), (2, 4, 5, 2), (2, 4, 5, 6)]
    assert v.transpose(1, 2).reshape(2, 5, 24).equal(operand[..., 16:])
    assert k.transpose(1, 2).reshape(2, 5, 8).equal(operand[..., 8:16])
