"""Weights by name: all of them fit, or what does not is named."""

import logging
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dms_bench.errors import UserError
from dms_bench_tasks.common.weights import give, read


def network(features=4):
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, features))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"5.weight": torch.zeros(1)}, "it has unknown '5.weight'"),
        (lambda state: {k: v for k, v in state.items() if k != "3.bias"}, "it lacks '3.bias'"),
        (lambda state: state | {"3.bias": torch.zeros(7)}, r"another shape of '3.bias', which is \[7\], and \[4\] in"),
        (
            lambda state: state | {"3.bias": torch.full((4,), torch.nan)},
            "cannot be used: it holds numbers that are .* in '3.b",
        ),
        (
            lambda state: state | {"3.bias": torch.ones(4, dtype=torch.cfloat)},
            "holds numbers that are complex, .* in '3.b",
        ),
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


def test_what_a_trainers_module_has_beside_the_network_is_named():
    """Lightning keeps a network under the name that the user gave it, beside weights of losses and the like."""
    state = {f"model.{name}": tensor for name, tensor in network().state_dict().items()}
    with pytest.raises(UserError, match=r"of another network: it has unknown 'criterion.weight'$"):
        give(network(), state | {"criterion.weight": torch.zeros(2)}, "trainer.ckpt")
    del state["model.3.bias"]
    with pytest.raises(UserError, match=r"of another network: it lacks '3.bias'$"):
        give(network(), state, "trainer.ckpt")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3},
        lambda state: {"state_dict_ema": state, "state_dict": {name: value + 1 for name, value in state.items()}},
        lambda state: {"model_ema": {f"module.{name}": value for name, value in state.items()}, "optimizer": {}},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: state,
    ],
)
def test_layouts_of_trainers_are_read(wrap, tmp_path, caplog):
    trained, path = network(), str(tmp_path / "own.ckpt")
    wrapped = wrap(trained.state_dict())
    torch.save(wrapped, path)
    own = network()
    give(own, read(path), path)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(own.state_dict()[name], tensor), name
    averaged = [key for key in wrapped if key.endswith("ema")]
    assert [key for key in averaged if any(key in message for message in caplog.messages)] == averaged
    assert any("averaged" in message for message in caplog.messages) == bool(averaged)


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"state_dict": network().state_dict(), "extra": Malicious(str(tmp_path / "run"))}, tmp_path / "x.pt")
    with pytest.raises(
        UserError, match=r"holds a .*open beside tensors, whose code is not run: save its tensors"
    ) as no:
        read(str(tmp_path / "x.pt"))
    assert not (tmp_path / "run").exists()
    assert "\n" not in str(no.value)


def test_what_is_no_checkpoint_is_one_line(tmp_path, recwarn):
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"empty.pt' is empty$"):
        read(str(tmp_path / "empty.pt"))
    for name in ("text.pt", "plain.pt"):
        with pytest.raises(UserError, match="it is no checkpoint of PyTorch") as refused:
            read(str(tmp_path / name))
        assert "weights_only" not in str(refused.value)
    assert not recwarn


def test_odd_checkpoints_are_read(tmp_path):
    state = network().state_dict()
    itself = {"epoch": 1}
    itself["state_dict"] = itself
    torch.save(itself, tmp_path / "itself.pt")
    with pytest.raises(UserError, match="holds no tensors by name"):
        read(str(tmp_path / "itself.pt"))
    for content in (
        {1: torch.ones(1), **state},
        {"state_dict": state, "state_dict_ema": {}},
        {"ema": {"module": state}},
    ):
        torch.save(content, tmp_path / "odd.pt")
        assert read(str(tmp_path / "odd.pt")).keys() == state.keys()
    save_file(dict(state), tmp_path / "loud.SAFETENSORS")
    assert read(str(tmp_path / "loud.SAFETENSORS")).keys() == state.keys()
