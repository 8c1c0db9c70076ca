"""Wrong use of the library ends in one line that says what is wrong, before anything is trained."""

import re

import pytest
import torch
from torch import nn

from dms_bench.scaling import Example, LatencyModel, Supernet, budget_of, count, cut, find_space, measure_latency


def network(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))


X = torch.randn(2, 6)
SPACE = find_space(network(), X)
HALF = SPACE.architecture(torch.tensor([1.0, 0.0] * 4))


def compiled_forward() -> nn.Module:
    net = network()
    net.forward = torch.compile(net.forward)
    return net


MISTAKES = {
    "attention is one of heads, dims, both: 'head'": lambda: find_space(network(), X, attention="head"),
    "exclude is a list of patterns: ['a']": lambda: find_space(network(), X, exclude="a"),
    "round_to must be at least 1: 0": lambda: find_space(network(), X, round_to=0),
    "the forward of the network is compiled: compile what is cut instead": lambda: find_space(compiled_forward(), X),
    "importance is one of taylor, snip, fisher or index: 'x'": lambda: Supernet(network(), SPACE, importance="x"),
    "macs: 0 is no target; a share such as 0.3": lambda: budget_of(SPACE, macs=0),
    "macs: -1 is no target": lambda: budget_of(SPACE, macs=-1),
    "macs: '50%' is no target": lambda: budget_of(SPACE, macs="50%"),
    "params: nan is no target": lambda: budget_of(SPACE, params=float("nan")),
    "a budget needs a target": lambda: budget_of(SPACE),
    "latency=(measure_latency(...), target)": lambda: budget_of(SPACE, latency=0.5),
    "0.weight has 16 instead of 8 in dimension 0": lambda: Supernet(network(16), SPACE),
    "the space is of another network: this one has no 0.weight": lambda: cut(nn.Linear(6, 4), SPACE, HALF),
    "or this one was cut: 0.weight has 4 instead of 8": lambda: cut(cut(network(), SPACE, HALF), SPACE, HALF),
    "the example has no rows: Example(float32[0, 6])": lambda: count(network(), X[:0]),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line(text):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        MISTAKES[text]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("example", [{"y": X}, (X, X), Example(X, scale=[1.0])])
def test_an_example_of_other_arguments_says_how_it_was_read(example):
    with pytest.raises(TypeError, match=re.escape(f"The example was read as {Example.of(example)!r}: a tuple gives")):
        find_space(network(), example)


def test_a_sparse_example_is_refused():
    with pytest.raises(TypeError, match="holds a sparse tensor"):
        find_space(network(), X.to_sparse())


def test_a_device_may_be_named():
    assert isinstance(measure_latency(network(), SPACE, X, "cpu"), LatencyModel)


def test_a_text_whose_first_dimension_are_positions_is_costed_as_a_whole():
    """As torch's own transformers take it, and no budget is computed for a text of one word."""
    layer = nn.TransformerEncoderLayer(16, 4, 32)
    net, example = (
        nn.Sequential(nn.Linear(5, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)),
        torch.randn(40, 1, 5),
    )
    space = find_space(net, example)
    assert space.macs == count(net, example).macs > 40 * count(net, example[:1]).macs


class Record:
    def __init__(self, features):
        self.features = features


class Returns(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x):
        features = self.a(x).relu()
        return self.b(features), Record(features)


def test_what_an_object_of_any_class_holds_is_an_output():
    assert find_space(Returns(), X).excluded["a"] == "output of the network"
