"""A cut network as layers of Ultralytics' own, which its `YOLO` opens where dms_bench is not installed.

Ultralytics runs a flat list of layers, each with the numbers of the layers that it reads (`f`). A cut
cross-stage block becomes some of its own layers: two `Conv` in place of the one whose output it splits, the inner
blocks that stay, a `Concat` of their outputs, and the last `Conv`. The weights are the same, so is the result.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics import __version__
from ultralytics.nn.modules.conv import Concat
from ultralytics.nn.tasks import DetectionModel

from dms_bench.scaling.cut.stand_ins import Skip
from dms_bench_tasks.common.notes import say_once
from dms_bench_tasks.detection.blocks import CrossStage
from dms_bench_tasks.detection.model import Detector

CHECKPOINT, SCRIPT = "best.pt", "train.py"
_SCRIPT = '''"""Train best.pt on in its searched shape; needs Ultralytics alone.

Ultralytics' own trainer builds a network anew from its YAML, which has no words for these widths. This one
keeps the network that it is given: python train.py data=coco.yaml epochs=100 imgsz=640
"""

import sys
from ast import literal_eval
from pathlib import Path

from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer


class SameShape(DetectionTrainer):
    def get_model(self, cfg=None, weights=None, verbose=True):
        return weights


def value(text):
    try:
        return literal_eval(text)
    except (SyntaxError, ValueError):
        return text


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    network = YOLO(Path(__file__).with_name("best.pt"))
    network.train(trainer=SameShape, **{name: value(text) for name, text in options.items()})
'''


def portable(detector: Detector) -> DetectionModel:
    """Return a copy that consists of Ultralytics' and PyTorch's own modules."""
    copy = deepcopy(detector)
    layers: list[nn.Module] = []
    new_numbers: dict[int, int] = {}  # number of a layer in the searched network -> of the layer that makes its output
    for index, layer in enumerate(copy.model):
        source = [_moved(number, index, new_numbers) for number in ([layer.f] if isinstance(layer.f, int) else layer.f)]
        reads = source[0] if isinstance(layer.f, int) else source
        if isinstance(layer, CrossStage):
            if not layers:  # both halves read the input, which has a number only where a layer hands it on
                reads = _append(layers, nn.Identity(), reads)
            assert isinstance(reads, int)
            _append_block(layers, layer, reads)
        else:
            _append(layers, _without_skips(layer), reads)
        new_numbers[index] = len(layers) - 1
    copy.model = nn.Sequential(*layers)
    copy.save = sorted({number for layer in layers for number in _sources(layer) if number != -1})
    for module in copy.modules():
        module.__dict__.pop("keeps_sizes", None)
    for name in ("raw", "criterion"):
        copy.__dict__.pop(name, None)
    copy.__class__ = DetectionModel
    return copy.eval()


class _Decoding(nn.Module):
    """A network that returns its decoded predictions alone."""

    def __init__(self, network: DetectionModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        predictions: Tensor = self.network(images)
        return predictions


def decoding(detector: Detector) -> nn.Module:
    """Return a copy that gives decoded predictions as one tensor, for any number of images."""
    network = portable(detector)
    # Ultralytics' own switches: predictions alone, and no anchors that are kept from one call to the next.
    network.model[-1].export = network.model[-1].dynamic = True
    return _Decoding(network).eval()


def chooses_boxes(network: nn.Module) -> bool:
    """Whether the head of what `decoding` returned chooses among boxes that overlap by itself."""
    assert isinstance(network, _Decoding)
    return bool(network.network.model[-1].end2end)


def save(detector: Detector, names: dict[int, str], image_size: int, folder: Path) -> list[Path]:
    """Write `best.pt` and the script that trains it on.

    Args:
        detector: the cut network.
        names: of the classes.
        image_size: that it was trained with.
        folder: where to write.

    Returns:
        The files written: none where a layer needs dms_bench to run, which is said.
    """
    model = portable(detector)
    if bound := bound_layers(model):
        say_once(f"no {CHECKPOINT} is written: its {', '.join(bound)} would run with dms_bench alone")
        return []
    model.names = dict(names)
    arguments: dict[str, Any] = {"task": "detect", "imgsz": image_size, "model": CHECKPOINT}
    model.args, model.task = arguments, "detect"
    path = folder / CHECKPOINT
    # In single precision: half of it, which Ultralytics writes, would change the measure.
    torch.save({"model": model.float(), "train_args": arguments, "epoch": -1, "version": __version__}, path)
    script = folder / SCRIPT
    script.write_text(_SCRIPT)
    return [path, script]


def bound_layers(model: nn.Module) -> list[str]:
    """Return the kinds of modules that do not run without dms_bench: ours, and those whose own code is patched.

    Their code holds sizes, as the halves in YOLOv9's blocks, that a cut has changed.
    """
    runs = [(module, type(vars(module).get("forward", module))) for module in model.modules()]
    return sorted({type(module).__name__ for module, kind in runs if kind.__module__.startswith("dms_bench")})


def _append_block(layers: list[nn.Module], block: CrossStage, source: int) -> None:
    first = _append(layers, block.first, source)
    parts = [first, _append(layers, block.second, source)]
    for inner in block.m:
        if isinstance(inner, Skip):
            continue
        number = _append(layers, _without_skips(inner), -1)
        parts = [*parts, number] if block.collects else [first, number]
    _append(layers, Concat(1), parts)
    _append(layers, block.cv2, -1)


def _append(layers: list[nn.Module], layer: nn.Module, reads: int | list[int]) -> int:
    """Append a layer with the attributes that Ultralytics runs and lists it by; return its number."""
    number = len(layers)
    reads = -1 if reads == number - 1 else reads
    kind = type(layer)
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    vars(layer).update(i=number, f=reads, type=f"{kind.__module__}.{kind.__name__}", np=parameters)
    layers.append(layer)
    return number


def _moved(number: int, reader: int, new_numbers: dict[int, int]) -> int:
    """Return the new number of a layer that is read by the layer `reader`; -1, the one before, for the input.

    A negative number counts back from the reader: there may be more layers between the two than there were.
    """
    old = reader + number if number < 0 else number
    return new_numbers[old] if old >= 0 else -1


def _sources(layer: nn.Module) -> list[int]:
    reads = vars(layer)["f"]
    return [reads] if isinstance(reads, int) else reads


def _without_skips(module: nn.Module) -> nn.Module:
    """Leave removed blocks out of sequences, and put an identity in their place elsewhere."""
    if isinstance(module, Skip):
        return nn.Identity()
    for name, child in module.named_children():
        setattr(module, name, _without_skips(child))
    if type(module) is nn.Sequential:
        return nn.Sequential(*(child for child in module if not isinstance(child, nn.Identity)))
    return module
