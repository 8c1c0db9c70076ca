"""Hidden sizes of recurrent layers: held against layers that are cut by hand."""

import pytest
import torch
from torch import nn

from dms_bench.scaling import Supernet, budget_of, count, cut, find_space

GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


class Tagger(nn.Module):
    """A recurrent layer between two linear ones, read at every step."""

    def __init__(self, kind, **options) -> None:
        super().__init__()
        self.first, self.rnn = nn.Linear(6, 9), kind(9, 14, **options)
        self.last = nn.Linear(14 * (1 + self.rnn.bidirectional), 3)

    def forward(self, x):
        return self.last(self.rnn(self.first(x))[0])


def by_hand(rnn, hidden, inputs):
    """Cut a layer by the definition of its weights: rows in gates, columns of inputs and states."""
    kind, gates = type(rnn), GATES[type(rnn)]
    options = {"num_layers": rnn.num_layers, "bidirectional": rnn.bidirectional, "batch_first": rnn.batch_first}
    small = kind(len(inputs), len(hidden), **options).to(rnn.weight_hh_l0.dtype)
    rows = torch.cat([gate * rnn.hidden_size + hidden for gate in range(gates)])
    both = torch.cat([hidden, rnn.hidden_size + hidden]) if rnn.bidirectional else hidden
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            whole = rnn.get_parameter(name)
            if name.startswith("bias"):
                parameter.copy_(whole[rows])
            elif name.startswith("weight_hh"):
                parameter.copy_(whole[rows][:, hidden])
            else:
                parameter.copy_(whole[rows][:, inputs if "_l0" in name else both])
    return small


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2, "batch_first": True, "bidirectional": True}, {"num_layers": 3}],
    ids=str,
)
def test_a_cut_layer_is_the_one_that_is_cut_by_hand(kind, options):
    torch.manual_seed(0)
    model, x = Tagger(kind, **options).double().eval(), torch.randn(4, 5, 6, dtype=torch.double)
    space = find_space(model, x)
    assert {group.name: group.size for group in space.groups} == {"first": 9, "rnn": 14}
    assert space.proof_error < 1e-12
    assert space.macs == count(model, x).macs
    mask = torch.ones(space.units.total)
    mask[torch.tensor([0, 3, 4, 9, 12, 20, 22])] = 0
    small = cut(model, space, space.architecture(mask))
    inputs, hidden = mask[:9].nonzero().flatten(), mask[9:].nonzero().flatten()
    assert (small.rnn.input_size, small.rnn.hidden_size) == (len(inputs), len(hidden)) == (6, 10)
    expected = by_hand(model.rnn, hidden, inputs)
    states = model.first(x)[..., inputs]
    torch.testing.assert_close(small.rnn(states)[0], expected(states)[0])
    last = model.last.weight.view(3, -1, 14)[..., hidden].flatten(1)
    torch.testing.assert_close(small(x), expected(states)[0] @ last.T + model.last.bias)


@pytest.mark.parametrize("kind", GATES)
def test_a_sequence_of_one_step_shows_what_a_longer_one_needs(kind):
    model = Tagger(kind, batch_first=True).eval()
    space = find_space(model, torch.randn(1, 1, 6))
    assert {group.name for group in space.groups} == {"first", "rnn"}
    small = cut(model, space, space.architecture(torch.arange(space.units.total).remainder(2).float()))
    assert small(torch.randn(2, 7, 6)).shape == (2, 7, 3)


@pytest.mark.parametrize("kind", GATES)
def test_masks_act_and_learn_through_the_layer(kind):
    torch.manual_seed(0)
    model, x = Tagger(kind).eval(), torch.randn(4, 2, 6)
    net = Supernet(model, x).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    whole = model(x)
    target = net.begin_step(0.5, budget_of(net.space, macs=0.3))
    (net(x).square().sum() + net.resource_loss(target)).backward()
    net.update()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.structure_parameters()
    )
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))
    torch.testing.assert_close(model(x), whole)  # its own weights are back in its lists


def test_cells_in_a_loop_of_ones_own():
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.last = nn.GRUCell(6, 14), nn.Linear(14, 3)

        def forward(self, x):
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return self.last(state)

    model, x = Loop().eval(), torch.randn(2, 5, 6)
    space = find_space(model, x)
    assert {group.name: group.size for group in space.groups} == {"cell": 14}
    small = cut(model, space, space.architecture(torch.arange(14).remainder(2).float()))
    assert (small.cell.hidden_size, small(x).shape) == (7, (2, 3))


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_projected_states_are_cut_and_cells_stay(options):
    torch.manual_seed(0)
    model, x = Tagger(nn.LSTM, **options).double(), torch.randn(4, 2, 6, dtype=torch.double)
    whole = model.rnn = nn.LSTM(9, 20, proj_size=14, **options).double()
    space = find_space(model.eval(), x)
    assert {group.name: group.size for group in space.groups} == {"first": 9, "rnn": 14}
    assert space.excluded["rnn"] == "cells of a recurrent layer that projects them"
    mask = torch.ones(space.units.total)
    mask[torch.tensor([0, 4, 9, 12, 20, 22])] = 0
    small = cut(model, space, space.architecture(mask))
    inputs, states = mask[:9].nonzero().flatten(), mask[9:].nonzero().flatten()
    expected = nn.LSTM(len(inputs), 20, proj_size=len(states), **options).double()
    both = torch.cat([states, 14 + states]) if whole.bidirectional else states
    with torch.no_grad():
        for name, parameter in expected.named_parameters():
            value = whole.get_parameter(name)
            if name.startswith("weight_ih"):
                value = value[:, inputs if "_l0" in name else both]
            elif name.startswith("weight_hh"):
                value = value[:, states]
            elif name.startswith("weight_hr"):
                value = value[states]
            parameter.copy_(value)
    last = model.last.weight.view(3, -1, 14)[..., states].flatten(1)
    torch.testing.assert_close(small(x), expected(model.first(x)[..., inputs])[0] @ last.T + model.last.bias)
    assert (small.rnn.input_size, small.rnn.hidden_size, small.rnn.proj_size) == (7, 20, 10)


class Packed(nn.Module):
    """Reads sequences of different lengths, and gives its last state alone."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.rnn, self.last = nn.Embedding(20, 6), nn.LSTM(6, 14, batch_first=True), nn.Linear(14, 3)

    def forward(self, words):
        lengths = words.gt(0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.words(words), lengths, batch_first=True, enforce_sorted=False)
        return self.last(self.rnn(packed)[1][0][-1])


def test_packed_sequences_are_searched_or_refused_and_never_a_crash():
    torch.manual_seed(0)
    words = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 2, 0, 0]])
    model = Packed().eval()
    space = find_space(model, words)
    assert space.macs > 0
    if "rnn" in space.names:
        small = cut(model, space, space.architecture(torch.arange(space.units.total).remainder(2).float()))
        assert small(words).shape == (2, 3)


class FirstOfTwo(nn.LSTM):
    """Returns its outputs alone."""

    def forward(self, x):
        return super().forward(x)[0]


def test_a_layer_of_ones_own_class_stays():
    model = nn.Sequential(nn.Linear(6, 9), FirstOfTwo(9, 14, bidirectional=True), nn.Linear(28, 3)).eval()
    space = find_space(model, torch.randn(4, 2, 6))
    assert {group.name for group in space.groups} == {"0"}
    assert space.excluded["1"] == "a state that is not returned"


def test_single_precision_made_in_the_code_is_no_crash():
    class OneHot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.last = nn.GRU(20, 14, batch_first=True), nn.Linear(14, 3)

        def forward(self, words):
            return self.last(self.rnn(nn.functional.one_hot(words, 20).float())[0])

    space = find_space(OneHot().eval(), torch.randint(20, (2, 5)))
    assert {group.name: group.size for group in space.groups} == {"rnn": 14}
    assert space.proof_error < 1e-5
