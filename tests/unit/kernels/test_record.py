"""Layers are recorded as they run, by name, and made small without losing what a kernel is chosen by."""

import torch
from torch import nn
from torch.nn import functional

from dms_bench.kernels.cases import Case
from dms_bench.kernels.record import layers_of


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 13, 7, stride=2, padding=3)
        self.block = nn.Sequential(nn.Conv2d(13, 13, 3, groups=13), nn.BatchNorm2d(13), nn.Dropout())
        self.up = nn.ConvTranspose2d(13, 4, 2, stride=2)
        self.wide = nn.Linear(4, 1000)
        self.kernel = nn.Parameter(torch.randn(5, 4, 1, 1))

    def forward(self, x):
        x = self.up(self.block(self.stem(x)))
        functional.conv2d(x, self.kernel, stride=2)  # of no module of its own
        return self.wide(x.mean((2, 3)))


def test_all_layers_are_found_where_they_run():
    model = Net()
    model.block[2].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    found = layers_of(model, torch.randn(2, 3, 65, 64))
    names = {name: case for case, name in found.items() if case.layout == "contiguous"}
    assert set(names) == {"stem", "block.0", "up", "wide", ""}
    stem = names["stem"]
    assert (stem.inputs, stem.outputs, stem.kernel, stem.stride, stem.padding) == (3, 13, (7, 7), (2, 2), (3, 3))
    assert stem.size == (13, 14)  # smaller, and odd or even as it was
    assert (names["block.0"].groups, names["block.0"].inputs) == (13, 13)
    assert (names["up"].transposed, names["up"].outputs) == (True, 4)
    assert names[""] == Case(2, (14, 14), 4, 5, (1, 1), (2, 2), (0, 0), (1, 1))
    assert (names["wide"].inputs, names["wide"].outputs) == (4, 128 + 1000 % 64)
    assert {case.layout for case, name in found.items() if name == "stem"} == {"contiguous", "channels-last"}
    # The model is what it was, hooks and modes included.
    assert model.training
    assert not model.block[2].training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_wide_groups_stay_groups_and_equal_layers_are_one():
    deep = nn.Sequential(*(nn.Conv2d(600, 600, 1, groups=groups) for groups in (600, 600, 2)))
    cases = [case for case in layers_of(deep, torch.randn(1, 600, 4, 4)) if case.layout == "contiguous"]
    assert [(case.kind, case.inputs, case.groups) for case in cases] == [
        ("depthwise 1x1 convolution", 128 + 600 % 64, 128 + 600 % 64),
        ("grouped 1x1 convolution", 2 * (128 + 300 % 64), 2),
    ]
