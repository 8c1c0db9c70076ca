"""Weights by name: all of them fit, or what does not is named."""

import logging

import pytest
import torch
from torch import nn

from dms_bench.errors import UserError
from dms_bench_tasks.common.weights import give


def network(features=4):
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, features))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"5.weight": torch.zeros(1)}, "it has unknown '5.weight'"),
        (lambda state: {k: v for k, v in state.items() if k != "3.bias"}, "it lacks '3.bias'"),
        (lambda state: state | {"3.bias": torch.zeros(7)}, r"another shape of '3.bias', which is \[7\], and \[4\] in"),
        (lambda state: {"a": 1, "b": "text"}, "holds no tensors by name, but 'a', 'b'"),
        (
            lambda state: {f"encoder.{k}": v for k, v in state.items()},
            r"lacks '0.weight' \(8 in all\), has unknown 'encoder.0.weight' \(9",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(UserError, match=message) as refused:
        give(network(), change(network().state_dict()), "x.pt")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("supernet.checkpoint 'x.pt' ")


@pytest.mark.parametrize("prefix", ["module.", "model.", "module._orig_mod."])
def test_known_prefixes_are_left_out_and_said_once(prefix, caplog):
    trained, path = network(), f"{prefix}.pt"
    state = {f"{prefix}{name}": tensor for name, tensor in trained.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            model = network()
            give(model, state, path)
    assert torch.equal(model[3].weight, trained[3].weight)
    assert caplog.messages == [f"supernet.checkpoint {path!r}: its names begin with {prefix!r}, which is left out"]


def test_a_prefix_that_the_network_has_is_kept(caplog):
    wrapped = nn.ModuleDict({"model": network()})
    give(wrapped, nn.ModuleDict({"model": network()}).state_dict(), "whole.pt")
    assert not caplog.messages
    give(wrapped, network().state_dict(), "part.pt")
    assert caplog.messages == ["supernet.checkpoint 'part.pt': 'model.' is put before its names"]


def test_counters_of_old_batch_norms_may_be_missing():
    state = {name: tensor for name, tensor in network().state_dict().items() if "num_batches" not in name}
    give(network(), state, "old.pt")
