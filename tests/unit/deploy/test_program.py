"""Programs of torch.export: torch alone opens them, and they compute the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dms_bench.deploy.program import write_program
from dms_bench.errors import UserError
from dms_bench.scaling import cut

#: Opens a program where none of the code is to be had that its network was built by.
STRANGER = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("dms_bench", "dms_bench_tasks", "timm", "transformers", "ultralytics"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
network = torch.export.load(sys.argv[1]).module()
inputs = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    torch.save(network(inputs), sys.argv[3])
print("dms_bench" in sys.modules)
"""


def opened_elsewhere(program: Path, inputs: Tensor, folder: Path) -> Tensor:
    """Return what a program computes in a fresh process without dms_bench."""
    torch.save(inputs, folder / "inputs.pt")
    command = [sys.executable, "-c", STRANGER, str(program), str(folder / "inputs.pt"), str(folder / "outputs.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.stdout == "False\n", done.stderr[-2000:]
    outputs: Tensor = torch.load(folder / "outputs.pt", weights_only=True)
    return outputs


def classifier() -> tuple[nn.Module, Tensor]:
    from tests.unit.inference.test_onnx import cut_network

    network, example = cut_network("test_efficientnet", 64, {})
    return network.eval(), torch.cat([example, example.flip(-1), -example])


def detector() -> tuple[nn.Module, Tensor]:
    from dms_bench_tasks.detection.model import build
    from tests.unit.detection.detection_helpers import TINY, cut_at_random, lively, task

    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    small = cut_at_random(lively(build(TINY, 3, 0)), images[:2], 0).eval()
    return task().deployed(small), images


def language_model() -> tuple[nn.Module, Tensor]:
    from tests.unit.language.language_helpers import lively, network, random_mask, space, task

    model = lively(network("llama, grouped queries"))
    own = space(model)
    small = cut(model, own, own.architecture(random_mask(own, seed=3))).eval()
    return small, task().example_input(3)


@pytest.mark.parametrize("family", [classifier, pytest.param(detector, marks=pytest.mark.slow), language_model])
def test_a_program_needs_torch_alone_and_takes_any_number_of_samples(family, tmp_path: Path) -> None:
    network, inputs = family()
    assert write_program(network, inputs[:1], tmp_path / "model.pt2") is None
    found = opened_elsewhere(tmp_path / "model.pt2", inputs, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(found, network(inputs), rtol=1e-4, atol=1e-5)


def test_a_deployed_detector_gives_the_boxes_that_ultralytics_decodes() -> None:
    from dms_bench_tasks.detection.model import build, library_form
    from tests.unit.detection.detection_helpers import TINY, lively, task

    network = lively(build(TINY, 5, 0)).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    deployed = task().deployed(network)
    with torch.no_grad(), library_form(network):
        expected = network(images)[0]
    assert torch.equal(deployed(images), expected)
    assert tuple(expected.shape) == (2, 4 + 5, 8 * 8 + 4 * 4 + 2 * 2)  # a place for each cell of three strides


class _OfTwo(nn.Module):
    """Computes with the number of samples as a plain number."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(len(range(int(x.shape[0]))))


def test_a_network_of_a_fixed_number_of_samples_says_so(tmp_path: Path) -> None:
    assert write_program(_OfTwo().eval(), torch.ones(1, 4), tmp_path / "model.pt2") == 2
    inputs = torch.arange(8.0).view(2, 4)
    assert torch.equal(torch.export.load(tmp_path / "model.pt2").module()(inputs), 2 * inputs)


class _Depends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def test_what_cannot_be_exported_is_one_line_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written as a program of torch\.export") as caught:
        write_program(_Depends().eval(), torch.ones(1, 4), tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_computes_something_else_is_not_handed_out(tmp_path: Path, monkeypatch) -> None:
    network = nn.Linear(4, 2).eval()
    real = torch.export.load

    def damaged(file):
        program = real(file)
        with torch.no_grad():
            program.state_dict["weight"].mul_(1.01)
        return program

    monkeypatch.setattr(torch.export, "load", damaged)
    with pytest.raises(UserError, match="differ from the network's own by"):
        write_program(network, torch.ones(1, 4), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
