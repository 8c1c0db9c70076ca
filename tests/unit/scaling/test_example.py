"""Inputs and outputs of any build: what a network takes and returns is no reason not to search it."""

import dataclasses
from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dms_bench.scaling import Example, Supernet, budget_of, count, cut, find_space, measure_latency
from dms_bench.scaling.cost.counter import sample_of
from dms_bench.scaling.example import tensors_in

Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass
class Features:
    x: Tensor
    scale: float
    more: dict[str, Tensor] | None = None


def take(value, index):
    """Return a tensor of an argument, however it is wrapped."""
    return tensors_in(value)[index]


class Reads(nn.Module):
    """Adds the features of all tensors of its arguments; returns them in some form."""

    def __init__(self, form=lambda x: x):
        super().__init__()
        self.form = form
        self.inner, self.outer = nn.Linear(6, 10), nn.Linear(10, 4)

    def forward(self, *args, scale=1.0, **kwargs):
        values = [value.real.float() if value.is_complex() else value for value in tensors_in((args, kwargs))]
        total = sum(value.to(self.inner.weight.dtype) for value in values)
        return self.form(self.outer(self.inner(total * scale).relu()))


X = torch.randn(3, 6)
EXAMPLES = {
    "tensor": X,
    "tuple": (X, X.flip(0)),
    "mapping": {"a": X, "b": X, "scale": 0.5},
    "ordered": OrderedDict(a=X),
    "both": Example(X, b=X, scale=2.0),
    "list": ([X, X],),
    "nested": ({"images": [X, (X,)], "none": None, "size": 6},),
    "named": (Pair(X, X),),
    "dataclass": (Features(X, 2.0, {"y": X}),),
    "integers": (torch.arange(18).view(3, 6), X),
    "bools": {"x": X, "mask": X > 0},
    "complex": (X.to(torch.cfloat),),
    "number": (X, torch.tensor(2.0)),
}
FORMS = {
    "tensor": lambda y: y,
    "mapping": lambda y: {"y": y, "none": None},
    "tuple": lambda y: (None, (y, [y.sum()]), "text"),
    "dataclass": lambda y: Features(y, 1.0),
    "integers": lambda y: (y, y.argmax(-1)),
    "infinite": lambda y: y.masked_fill(torch.eye(len(y), 4, dtype=torch.bool), -torch.inf),
}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("form", FORMS)
def test_any_nesting_is_searched_counted_and_cut(name, form):
    net, example = Reads(FORMS[form]), EXAMPLES[name]
    space = find_space(net, example)
    assert [(group.name, group.size) for group in space.groups] == [("inner", 10)]
    assert space.proof_error < 1e-12
    assert space.macs == count(net, example).macs == 6 * 10 + 10 * 4
    mask = space.full()
    mask[::2] = 0
    small = cut(net, space, space.architecture(mask))
    assert small.inner.out_features == 5
    result = take(Example.of(example)(small), 0)
    with Supernet(net, space).fixed(mask):
        pass
    supernet = Supernet(net, space)
    with supernet.fixed(mask):
        expected = take(Example.of(example)(supernet), 0)
    torch.testing.assert_close(result, expected)


def test_the_latency_of_a_network_of_several_inputs_is_measured():
    net, example = Reads(), {"a": X, "b": X}
    model = measure_latency(net, find_space(net, example), example, torch.device("cpu"))
    assert model.fidelity is not None


TENSORS = st.sampled_from([torch.zeros(2, 3), torch.zeros(2), torch.tensor(1.0), torch.zeros(5, 2, dtype=torch.long)])
LEAVES = TENSORS | st.none() | st.integers() | st.text(max_size=3)
NESTINGS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Features, TENSORS, st.floats(allow_nan=False), st.dictionaries(st.text(max_size=2), TENSORS))
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(NESTINGS)
def test_a_change_reaches_every_tensor_and_nothing_else(value):
    tree = torch.utils._pytree
    example = Example(torch.zeros(2, 3), value)
    changed = example.mapped(lambda tensor: tensor + 1)
    assert all(torch.equal(new - 1, old) for new, old in zip(changed.tensors(), example.tensors(), strict=True))
    assert type(changed.args[1]) is type(value)
    if not any(isinstance(leaf, Features) for leaf in tree.tree_leaves(value)):
        assert tree.tree_structure(changed.args) == tree.tree_structure(example.args)


def test_a_batch_is_made_of_the_first_sample():
    example = Example(torch.arange(6).view(2, 3), lengths=torch.tensor([3, 2]), table=torch.zeros(5, 3), scale=1)
    many = example.batch(3)
    assert many.args[0].tolist() == [[0, 1, 2], [2, 1, 0], [2, 0, 1]]
    assert many.kwargs["lengths"].tolist() == [3, 3, 3]
    assert many.kwargs["table"].shape == (5, 3)
    assert many.kwargs["scale"] == 1


class Graph(nn.Module):
    """Sums over neighbours: its rows are nodes of one graph, not samples."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, adjacency):
        return adjacency @ self.second((adjacency @ self.first(x)).relu())


def test_an_example_that_is_no_batch_is_taken_whole():
    nodes, adjacency = torch.randn(5, 6), torch.rand(5, 5)
    net = Graph()
    assert sample_of(net, Example(nodes, adjacency))[0].rows == 5
    macs = 5 * (6 * 8 + 8 * 3) + 25 * (8 + 3)
    assert count(net, (nodes, adjacency)).macs == macs
    space = find_space(net, (nodes, adjacency))
    assert space.macs == macs
    assert [group.name for group in space.groups] == ["first"]


class Queries(nn.Module):
    """Attention of learned queries, the same for all samples, in a code that splits heads by hand."""

    def __init__(self, repeat):
        super().__init__()
        self.num_heads, self.head_dim, self.repeat = 4, 8, repeat
        self.embed = nn.Linear(10, 32)
        self.queries = nn.Parameter(torch.randn(6, 32))
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.head = nn.Linear(32, 3)

    def split(self, x, batch):
        x = x.view(batch, -1, self.num_heads, self.head_dim).transpose(1, 2)
        return x.reshape(batch * self.num_heads, -1, self.head_dim)

    def forward(self, x):
        batch = len(x)
        x = self.embed(x)
        queries = self.repeat(self.queries, batch)
        q, k, v = self.split(self.q(queries), batch), self.split(self.k(x), batch), self.split(self.v(x), batch)
        mixed = (q @ k.transpose(1, 2) / self.head_dim**0.5).softmax(-1) @ v
        mixed = mixed.view(batch, self.num_heads, -1, self.head_dim).transpose(1, 2)
        return self.head(self.o(mixed.reshape(batch, -1, self.num_heads * self.head_dim)))


REPEATS = {
    "expand": lambda queries, batch: queries.expand(batch, -1, -1),
    "repeat": lambda queries, batch: queries.unsqueeze(0).repeat(batch, 1, 1),
    "tile": lambda queries, batch: queries[None].tile(batch, 1, 1),
    "stack": lambda queries, batch: torch.stack([queries] * batch),
    "interleave": lambda queries, batch: queries[None].repeat_interleave(batch, 0),
}


@pytest.mark.parametrize("repeat", REPEATS)
def test_what_is_repeated_for_every_sample_works_in_batches_of_any_size(repeat):
    net = Queries(REPEATS[repeat]).eval()
    space = find_space(net, torch.randn(2, 5, 10))
    assert space.proof_error < 1e-12
    assert space.macs == count(net, torch.randn(1, 5, 10)).macs
    assert "att.heads" in space.names or any(group.heads for group in space.groups)
    mask = space.full()
    for start, size in zip(space.units.starts, space.units.sizes, strict=True):
        mask[start : start + size // 2] = 0
    small = cut(net, space, space.architecture(mask))
    supernet = Supernet(net, space)
    for batch, length in ((1, 5), (2, 5), (5, 7)):
        x = torch.randn(batch, length, 10)
        with supernet.fixed(mask), torch.no_grad():
            torch.testing.assert_close(small(x), supernet(x))


class Fixed(nn.Module):
    """Its code has the numbers of samples and of positions that it was first run on written into it."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.seen = nn.Linear(6, 8), nn.Linear(8, 3), None

    def forward(self, x):
        x = self.inner(x).relu()
        if self.inner.out_features < 8:  # as in a cut network
            x = x.reshape(2, 4, -1)
        return self.outer(x)


def test_a_cut_that_works_at_the_traced_size_alone_is_no_cut():
    space = find_space(Fixed(), torch.randn(2, 4, 6))
    assert not space.groups
    assert "inner" in space.excluded


@pytest.mark.parametrize(
    ("example", "text"),
    [(3, "holds no tensor: 3"), ((), "holds no tensor"), ({1: X}, "keyword arguments by name"), (None, "no tensor")],
)
def test_what_is_no_example_is_refused(example, text):
    with pytest.raises(TypeError, match=text):
        find_space(Reads(), example)


def test_a_compiled_network_and_one_without_numbers_are_refused():
    with pytest.raises(ValueError, match=r"the network is compiled: search its `_orig_mod`"):
        find_space(torch.compile(Reads()), X)
    with pytest.raises(ValueError, match=r"returns no floating-point tensor that could be compared: Tensor"):
        find_space(Reads(lambda y: y.argmax(-1)), X)


def test_a_random_network_is_searched_by_equal_draws():
    assert find_space(Reads(lambda y: y + torch.rand(4)), X).names == ("inner",)


def test_nothing_to_search_is_said_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"nothing of the network can be searched:\n  1 x output of the network$"):
        Supernet(nn.Linear(6, 3), X)


def test_a_budget_out_of_reach_warns_with_what_is_in_reach():
    supernet = Supernet(Reads(), X)
    with pytest.warns(UserWarning, match=r"costs 10 times its budget: the space reaches from 10 to 100 times it"):
        supernet.architecture(budget_of(supernet.space, macs=0.01))
