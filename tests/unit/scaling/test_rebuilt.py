"""A cut network is the same one when it is built again from its structure and its saved weights."""

import copy

import torch
from torch import Tensor, nn

from dms_bench.scaling import apply_structure, cut, find_space, plan_surgery

TOKENS, HEADS = 5, 4


class Remembering(nn.Module):
    """Attention with a bias per head that is looked up once in eval mode (LeViT)."""

    def __init__(self, width: int = 12, size: int = 3) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.qkv, self.out = nn.Linear(width, 3 * HEADS * size), nn.Linear(HEADS * size, width)
        self.biases = nn.Parameter(torch.randn(HEADS, TOKENS))
        self.register_buffer("index", (torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)).abs(), persistent=False)
        self.kept: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> nn.Module:
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(len(x), TOKENS, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if "bias" not in self.kept:
            self.kept["bias"] = self.biases[:, self.index]
        weights = (q @ k.transpose(-2, -1) + self.kept["bias"]).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(len(x), TOKENS, -1))


class Stubborn(nn.Linear):
    """A layer that reads weights of one size alone."""

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others: object) -> None:
        if state[prefix + "weight"].shape != (16, 8):
            raise ValueError("these are not my weights")
        super()._load_from_state_dict(state, prefix, *others)


def test_what_a_network_kept_of_its_old_weights_is_dropped_when_it_is_built_again():
    model = nn.Sequential(nn.Linear(6, 12), Remembering(), nn.Linear(12, 2)).eval()
    x = torch.randn(2, TOKENS, 6)
    space = find_space(model, x)
    assert model[1].kept == {}  # left as it was
    with torch.no_grad():
        model(x)  # keeps the biases of all heads
    mask = space.full()
    heads = space.names.index("1.heads")
    mask[space.units.starts[heads] + 1 : space.units.starts[heads] + HEADS] = 0  # one is left, which fits all shapes
    small = cut(model, space, space.architecture(mask))
    again = copy.deepcopy(model)
    apply_structure(again, plan_surgery(model, space, space.architecture(mask)))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(x), small(x))


def test_the_proof_leaves_out_what_cannot_be_built_again():
    model = nn.Sequential(nn.Linear(6, 8), Stubborn(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    space = find_space(model, torch.randn(2, 6))
    assert [(group.name, group.size) for group in space.groups] == [("3", 8)]
    assert space.excluded["1"] == "the cut network does not read its own weights"
