"""Ways in which people write blocks, norms and branches, each held against a cut by hand or by its definition."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Supernet, budget_of, count, cut, find_space


def halved(space):
    """An architecture with half of every group and stage."""
    mask = torch.zeros(space.units.total)
    for start, size, low in zip(space.units.starts, space.units.sizes, space.units.minimum, strict=True):
        mask[start : start + max(low, size // 2)] = 1
    return space.architecture(mask)


class InPlace(nn.Module):
    """Adds its input to the output of its last module in place, as torchvision's MobileNetV3 does."""

    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x):
        result = self.branch(x)
        result += x
        return result


class Tuple(nn.Module):
    """Takes its features by name and returns them in a tuple, as blocks of transformers do."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 20), nn.Linear(20, width)

    def forward(self, hidden_states, scale=1.0):
        return hidden_states + self.down(functional.gelu(self.up(self.norm(hidden_states)))) * scale, None


class TupleNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList(Tuple(12) for _ in range(4))

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x, nothing = layer(hidden_states=x)
            assert nothing is None
        return self.head(x)


def test_a_residual_that_is_added_in_place_is_the_blocks_own():
    layers = [
        nn.Conv2d(3, 8, 3),
        InPlace(8),
        InPlace(8),
        InPlace(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    ]
    space = find_space(nn.Sequential(*layers).eval(), torch.randn(2, 3, 12, 12))
    assert [(stage.name, stage.blocks) for stage in space.stages] == [("network", ("1", "2", "3"))]
    assert space.proof_error < 1e-12


def test_blocks_that_take_names_and_return_tuples_are_removed():
    torch.manual_seed(0)
    model, x = TupleNetwork().eval(), torch.randn(2, 6)
    space = find_space(model, x)
    assert [(stage.name, stage.size) for stage in space.stages] == [("layers", 4)]
    mask = torch.ones(space.units.total)
    mask[space.width_elements + 1] = 0
    small = cut(model, space, space.architecture(mask))
    by_hand = copy.deepcopy(model)
    del by_hand.layers[1]
    torch.testing.assert_close(small(x), by_hand(x))
    net = Supernet(model, space)
    masked = mask.clone().requires_grad_()
    with net._masked.using(masked):
        output = model(x)
    torch.testing.assert_close(output, by_hand(x))
    output.sum().backward()
    assert masked.grad[space.width_elements :].abs().min() > 0


class Unit(nn.LayerNorm):
    """Scales by 1 + weight, as Nemotron's norm does."""

    def forward(self, x):
        return functional.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


class UnitRms(nn.Module):
    """Scales by 1 + weight, as Gemma's norm does."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), 1e-6

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class WrittenOut(nn.Module):
    """A layer norm of its own, as DeBERTa has it."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.variance_epsilon = 1e-7

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return (
            self.weight * centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + self.variance_epsilon)
            + self.bias
        )


@pytest.mark.parametrize("norm", [Unit, UnitRms, WrittenOut])
def test_norms_of_ones_own_are_searched_and_cut_exactly(norm):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), norm(16), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 3)).double().eval()
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.normal_()
    x = torch.randn(5, 6, dtype=torch.double)
    space = find_space(model, x)
    assert {group.name: group.size for group in space.groups} == {"0": 16, "2": 20}
    assert space.proof_error < 1e-12
    small = cut(model, space, halved(space))
    by_hand = norm(8).double()
    with torch.no_grad():
        for own, whole in zip(by_hand.parameters(), model[1].parameters(), strict=True):
            own.copy_(whole[:8])
    hidden = by_hand(model[0](x)[:, :8])
    expected = model[4].weight[:, :10] @ functional.relu(
        hidden @ model[2].weight[:10, :8].T + model[2].bias[:10]
    ).T + model[4].bias.unsqueeze(1)
    torch.testing.assert_close(small(x), expected.T)


class Auxiliary(nn.Module):
    """Returns a second output in training, from a branch that does not run otherwise."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 14, 3), nn.Linear(14, 4)
        self.norm = nn.BatchNorm2d(12)  # trained statistics are another network
        self.side = nn.Sequential(nn.Conv2d(12, 10, 1), nn.BatchNorm2d(10), nn.ReLU())
        self.side_head = nn.Linear(10, 4)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)))
        scores = self.head(functional.relu(self.body(x)).mean((2, 3)))
        return (scores, self.side_head(self.side(x).mean((2, 3)))) if self.training else scores


def test_branches_that_run_in_training_alone_are_searched_and_cost_nothing():
    torch.manual_seed(0)
    model, x = Auxiliary().eval(), torch.randn(2, 3, 9, 9)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    space = find_space(model, x)
    assert {group.name: group.size for group in space.groups} == {"stem": 12, "body": 14, "side.0": 10}
    assert space.macs == count(model, x).macs
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())
    small = cut(model, space, halved(space)).train()
    scores, side = small(x)
    assert (scores.shape, side.shape, small.side[0].weight.shape[:2]) == ((2, 4), (2, 4), (5, 6))
    (scores.sum() + side.sum()).backward()


class Windows(nn.Module):
    """Attention in windows of four, of which a small image has one: the code tells batch from windows by itself."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, h, w, c = x.shape
        windows = (h // 4) * (w // 4)
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b * windows, 16, c)
        qkv = self.qkv(x).reshape(x.size(0), 16, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).reshape(b * windows, 16, -1)
        x = self.proj(x).view(b, h // 4, w // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(b, h, w, -1)


def test_a_single_window_is_not_taken_for_the_batch():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner, self.head = nn.Conv2d(3, 24, 1), Windows(), nn.Linear(24, 3)

        def forward(self, x):
            x = self.stem(x).permute(0, 2, 3, 1)
            return self.head((x + self.inner(x)).mean((1, 2)))

    model = Network().eval()
    space = find_space(model, torch.randn(2, 3, 4, 4))
    assert {group.size for group in space.groups} >= {24, 3}
    small = cut(model, space, halved(space))
    assert small(torch.randn(3, 3, 12, 8)).shape == (3, 3)


class Remembering(nn.Module):
    """Keeps what it computes from its weights while it is in eval mode, as LeViT of transformers does."""

    def __init__(self):
        super().__init__()
        self.stem, self.table, self.head = nn.Linear(6, 12), nn.Parameter(torch.randn(4, 12)), nn.Linear(12, 3)
        self.kept = None

    def train(self, mode=True):
        self.kept = None if mode else self.kept
        return super().train(mode)

    def forward(self, x):
        if self.training or self.kept is None:
            self.kept = self.table.mean(0)
        return self.head(self.stem(x) * self.kept)


def test_what_a_network_keeps_of_its_weights_is_computed_anew():
    space = find_space(Remembering().eval(), torch.randn(2, 6))
    assert {group.name: group.size for group in space.groups} == {"stream": 12}
    assert space.proof_error < 1e-12


class Modulated(nn.Module):
    """A norm without weights of its own, as adaptive norms of diffusion transformers have it."""

    def __init__(self):
        super().__init__()
        self.stem, self.shift = nn.Linear(6, 12), nn.Linear(6, 24)
        self.norm, self.head = nn.LayerNorm(12, elementwise_affine=False), nn.Linear(12, 3)

    def forward(self, x):
        scale, shift = self.shift(x).chunk(2, dim=-1)
        return self.head(self.norm(self.stem(x)) * (1 + scale) + shift)


def test_a_norm_without_weights_follows_its_input():
    model = Modulated().eval()
    space = find_space(model, torch.randn(2, 6))
    assert {group.size for group in space.groups} == {12}
    assert cut(model, space, halved(space)).norm.normalized_shape == (6,)


class Rounding(nn.Module):
    """Makes single precision of what it is given, so that it does not run in double."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(functional.relu(self.stem(x.mul(4).round().int() / 4)))


def test_a_network_that_does_not_run_in_double_is_proven_in_single():
    space = find_space(Rounding().eval(), torch.randn(2, 6))
    assert {group.name: group.size for group in space.groups} == {"stem": 12}
    assert 0 < space.proof_error < 1e-5


class Functional(nn.Module):
    """Reads a weight of its own in training alone, in a module that runs otherwise, too."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.extra = nn.Linear(6, 12), nn.Linear(12, 3), nn.Linear(4, 4)
        self.prototypes = nn.Parameter(torch.randn(5, 12))

    def forward(self, x):
        x = functional.relu(self.stem(x))
        if not self.training:
            return self.head(x)
        self.extra(x.new_zeros(1, 4))
        return self.head(x), functional.linear(x, self.prototypes)


def test_weights_that_training_alone_reads_are_masked_there():
    torch.manual_seed(0)
    model, x = Functional().eval(), torch.randn(4, 6)
    space = find_space(model, x)
    mask = halved(space)
    small = cut(model, space, mask).train()
    net = Supernet(model, space)
    with net._masked.using(space.mask(mask)):
        masked = model.train()(x)
    for ours, expected in zip(small(x), masked, strict=True):
        torch.testing.assert_close(ours, expected)


class Noisy(nn.Linear):
    """Adds noise to its weights in training (networks that explore)."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.sigma = nn.Parameter(torch.full_like(self.weight, 0.1))
        self.register_buffer("noise", torch.randn_like(self.weight))

    def forward(self, x):
        weight = self.weight + self.sigma * self.noise if self.training else self.weight
        return functional.linear(x, weight, self.bias)


def test_a_cut_network_runs_where_training_alone_reads_weights_of_a_layer_that_runs_always():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), Noisy(12, 8), nn.ReLU(), Noisy(8, 3)
    )
    x = torch.randn(4, 6)
    space = find_space(model.eval(), x)
    assert "0" in space.names
    small = cut(model, space, halved(space)).train()
    small(x).sum().backward()
    assert small[0].out_features == 8


class Told(nn.Module):
    """Returns its weights of attention as well, if it is asked to."""

    def __init__(self, width):
        super().__init__()
        self.branch = nn.Linear(width, width)

    def forward(self, x, weights=False):
        branch = self.branch(x).tanh()
        return (x + branch, branch) if weights else (x + branch,)


class ToldNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(4, 8), nn.ModuleList(Told(8) for _ in range(3)), nn.Linear(8, 2)

    def forward(self, x, weights=False):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, weights)[0]
        return self.head(x)


def test_a_masked_block_that_returns_more_than_it_was_traced_with_is_blended_all_the_same():
    model = ToldNetwork().double().eval()
    x = torch.randn(3, 4).double()
    space = find_space(model, x)
    assert [stage.size for stage in space.stages] == [3]
    net = Supernet(model, space).eval()
    mask = space.full()
    mask[space.width_elements] = 0.0
    with torch.no_grad(), net.fixed(mask):
        torch.testing.assert_close(net(x, weights=True), net(x))
    with torch.no_grad():
        assert not torch.allclose(model(x), cut(model, space, space.architecture(mask))(x))


class Streams(nn.Module):
    """Two streams, of which the second began as an activation of the first."""

    def __init__(self, width):
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x, c):
        return x + self.one(c), c + self.two(x)


class StreamsNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Linear(4, 8), nn.ModuleList(Streams(8) for _ in range(3))
        self.head, self.other = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        c = x.relu()
        for block in self.blocks:
            x, c = block(x, c)
        return self.head(x) + self.other(c)


def test_a_removed_block_hands_each_stream_on_also_where_one_began_as_the_other():
    model = StreamsNetwork().double().eval()
    x = torch.randn(3, 4).double()
    space = find_space(model, x)
    assert [stage.size for stage in space.stages] == [3]
    mask = space.full()
    mask[space.width_elements] = 0
    small = cut(model, space, space.architecture(mask))
    without = copy.deepcopy(model)
    without.blocks = without.blocks[1:]
    torch.testing.assert_close(small(x), without(x))


def test_blocks_alone_are_searched_and_cut():
    model = ToldNetwork()
    space = find_space(model, torch.randn(3, 4), width=False)
    assert not space.groups
    architecture = Supernet(model, space).architecture(budget_of(space, macs=0.5))
    assert architecture.macs <= 0.5 * space.macs * 1.01
