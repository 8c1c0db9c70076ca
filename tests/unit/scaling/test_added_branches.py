"""Depth beyond one residual block in one module: branches that the code around them adds, and several streams."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

from dms_bench.scaling import Supernet, count, cut, find_space

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


@dataclass
class Seen:
    """What attention tells beside its output."""

    scores: torch.Tensor | None = None
    kind: str = ""


class Mix(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.value, self.last = nn.Linear(width, 8), nn.Linear(width, 8), nn.Linear(8, width)

    def forward(self, x):
        scores = (self.query(x) @ x.new_ones(8, 1)).softmax(1)
        return self.last(scores * self.value(x)), Seen(scores)


class Feed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 9), nn.Linear(9, width)

    def forward(self, x):
        return self.down(functional.gelu(self.up(x)))


class Scaled(nn.Module):
    """A norm that scales behind torch's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.gamma = nn.LayerNorm(width, elementwise_affine=False), nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.norm(x) * self.gamma


class Pairs(nn.Module):
    """Adds attention and feed-forward branches in its own forward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList(nn.ModuleList([Scaled(12), Mix(12), nn.LayerNorm(12), Feed(12)]) for _ in range(3))
        self.gone: set[str] = set()  # what the reference leaves out, by hand

    def forward(self, x):
        x = self.stem(x)
        for index, (first, mix, second, feed) in enumerate(self.layers):
            if f"layers.{index}.1" not in self.gone:
                branch, seen = mix(first(x))
                seen.kind = "mix"
                x = x + 0.5 * branch
            if f"layers.{index}.3" not in self.gone:
                x = feed(second(x)) + x
        return self.head(x)


def assert_depth_is(model: nn.Module, removed: set[str], example=X) -> None:
    """Mask and cut blocks; both must equal the network without them, which a set in the network names."""
    space = find_space(model, example)
    assert space.proof_error < 1e-12
    mask = space.full()
    for block in removed:
        mask[space.width_elements + space.blocks.index(block)] = 0
    small = cut(model, space, space.architecture(mask))
    by_hand = copy.deepcopy(model)
    by_hand.gone = removed
    arguments = example if isinstance(example, tuple) else (example,)
    expected = by_hand(*arguments)
    torch.testing.assert_close(small(*arguments), expected)
    assert count(small, example).macs == space.architecture(mask).macs == count(by_hand, example).macs
    net = Supernet(model, space)
    soft = mask.clone().requires_grad_()
    with net._masked.using(soft):
        output = model(*arguments)
    torch.testing.assert_close(output, expected)
    (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    assert soft.grad[space.width_elements :].abs().min() > 0


def test_branches_that_their_parent_adds_are_blocks():
    model = Pairs().eval()
    stages = find_space(model, X).stages
    blocks = tuple(f"layers.{index}.{branch}" for index in range(3) for branch in (1, 3))
    assert [(stage.name, stage.blocks, stage.minimum) for stage in stages] == [("layers", blocks, 1)]
    assert_depth_is(model, {"layers.0.1", "layers.1.3", "layers.2.1"})


class Variant(nn.Module):
    """One way to use what two modules return."""

    def __init__(self, use) -> None:
        super().__init__()
        self.stem, self.head, self.use = nn.Linear(6, 12), nn.Linear(12, 3), use
        self.layers = nn.ModuleList([Feed(12), Feed(12)])
        self.inner = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)])

    def forward(self, x):
        x = self.stem(x)
        for layer, inner in zip(self.layers, self.inner, strict=True):
            x = self.use(x, layer, inner)
        return self.head(x)


# What something else reads is no branch; but that adds to it.
def read_twice(x, layer, inner):
    branch = layer(x)
    return x + branch + inner(branch)


@pytest.mark.parametrize(
    ("use", "depth"),
    [
        (lambda x, layer, inner: x.add_(layer(x)), ["layers"]),
        (lambda x, layer, inner: functional.relu(x + 2 * layer(x) * x.sigmoid()), ["layers"]),
        (lambda x, layer, inner: x + layer(x) + inner(x), ["layers", "inner"]),
        (lambda x, layer, inner: inner(x) + layer(x), []),  # no stream: neither is added to its input
        (lambda x, layer, inner: (x.flip(-1) + layer(x)).softmax(-1), []),
        (lambda x, layer, inner: x + layer(inner(x)), []),  # without the layer what feeds it would run for nothing
        (lambda x, layer, inner: layer(x), []),
        (lambda x, layer, inner: x * layer(x), []),
        (lambda x, layer, inner: x + layer(x).softmax(-1), []),  # of zero it makes something else
        (read_twice, ["inner"]),
    ],
)
def test_what_is_a_branch(use, depth):
    torch.manual_seed(0)
    space = find_space(Variant(use).eval(), X)
    assert [stage.name for stage in space.stages] == depth
    assert all(stage.size == 2 for stage in space.stages)
    assert space.proof_error < 1e-12


class Two(nn.Module):
    """Adds to two streams, and returns them in another order than it takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text, self.both = Feed(12), Feed(12), Feed(12)

    def forward(self, image, text, scale):
        mixed = self.both(image).mean(1, keepdim=True)
        return text + self.text(text + mixed), image + self.image(image) * scale


class Straight(Two):
    """Ends in layers that could carry its mask, of which those of one stream are not enough."""

    def forward(self, image, text, scale):
        text = text + self.text(text + self.both(image).mean(1, keepdim=True))
        image = image + self.image(image)
        return image, text


class Joined(Two):
    def forward(self, image, text, scale):
        both = torch.cat([text, image], 1)
        both = both + self.both(both) * scale
        return both[:, : text.size(1)], both[:, text.size(1) :]


class Displaced(Two):
    """Returns pieces of what the streams are joined to that are other than the streams."""

    def forward(self, image, text, scale):
        both = torch.cat([text, image], 1)
        both = both + self.both(both)
        return both[:, image.size(1) :], both[:, : image.size(1)]


class Streams(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.other, self.head = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 3)
        self.blocks = nn.ModuleList(kind() for _ in range(3))
        self.gone: set[str] = set()
        self.straight = kind is Straight

    def forward(self, image, text):
        image, text = self.stem(image), self.other(text)
        for index, block in enumerate(self.blocks):
            if f"blocks.{index}" not in self.gone:
                streams = block(image, text=text, scale=0.5)
                image, text = streams if self.straight else streams[::-1]
            image, text = image * 1.1, text * 0.9
        return self.head(image), self.head(text)


PAIR = (X, torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("kind", [Two, Straight, Joined])
def test_blocks_of_two_streams_hand_on_both(kind):
    assert_depth_is(Streams(kind).eval(), {"blocks.1"}, PAIR)


def test_pieces_of_another_place_are_no_streams():
    assert not find_space(Streams(Displaced).eval(), PAIR).stages


class Sized(nn.Module):
    def __init__(self, inner: nn.ModuleList | None = None) -> None:
        super().__init__()
        self.inner, self.feed = inner, Feed(12)

    def forward(self, x, size):
        y = x
        for layer in self.inner or ():
            y, size = layer(y, size)
        tells = (*size, 1) if self.inner else tuple(size)
        return x + self.feed(y), tells


class Sizes(nn.Module):
    """Its runs tell sizes that nothing else knows; their blocks only hand them on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.runs = nn.ModuleList(Sized(nn.ModuleList(Sized() for _ in range(2))) for _ in range(2))

    def forward(self, x):
        x = self.stem(x)
        for run in self.runs:
            x, size = run(x, (x.size(1), x.size(2)))
            assert len(size) == 3
            x = x.unflatten(1, size[:1])
        return self.head(x)


def test_sizes_are_handed_on_and_runs_that_tell_others_are_no_blocks():
    space = find_space(Sizes().eval(), X)
    assert [(stage.name, stage.size) for stage in space.stages] == [("runs.0.inner", 2), ("runs.1.inner", 2)]
    assert space.proof_error < 1e-12


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.feed = nn.Linear(12, 12), Feed(12)

    def forward(self, x):
        return x + self.feed(x) * self.gate(x).sigmoid()


class Lending(nn.Module):
    """Runs a part of its first block after the last one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.blocks = nn.ModuleList(Residual() for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x * self.blocks[0].gate(x).sigmoid())


def test_a_block_of_which_others_run_a_part_stays():
    space = find_space(Lending().eval(), X)
    assert [stage.blocks for stage in space.stages] == [("blocks.1", "blocks.2")]
    assert space.excluded["blocks.0"] == "a block of which code outside of it runs a part"
