"""Ultralytics' networks: building them, and their form for tracing, counting and timing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn import tasks
from ultralytics.nn.modules.block import DFL
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError, nearest
from dms_bench.scaling import reinitialise
from dms_bench_tasks.detection.blocks import split_blocks
from dms_bench_tasks.detection.weights import load_weights

#: Fields of a model's YAML that a suite may set.
SCALING = ("scale", "depth_multiple", "width_multiple", "max_channels")
#: Last layers of the networks that are trained here.
HEADS = ("Detect", "v10Detect")


class Detector(DetectionModel):  # type: ignore[misc]
    """A detection network of Ultralytics whose cross-stage blocks can be cut.

    Attributes:
        raw: in eval mode, return the head's raw outputs as one tensor [batch, outputs, anchors], which
            tracing, counting and timing compare. Off while Ultralytics' own trainer and validator run it.
    """

    raw = True

    def __init__(self, config: dict[str, Any], classes: int) -> None:
        super().__init__(config, ch=3, nc=classes, verbose=False)
        split_blocks(self.model)
        self.args = get_cfg()  # gains of the losses

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the losses of a batch (a dict), or predictions for images [batch, 3, height, width]."""
        out = super().forward(x, *args, **kwargs)
        if not self.raw or self.training or isinstance(x, dict):
            return out
        heads = out[1]
        heads = list(heads.values()) if "one2one" in heads else [heads]
        return torch.cat([part for head in heads for part in (head["boxes"], head["scores"])], 1)

    def loss(self, batch: dict[str, Tensor], preds: Any = None) -> Any:
        """Return Ultralytics' losses [parts], summed over the batch, and the parts by name."""
        with library_form(self):
            return super().loss(batch, preds)


def detector_of(model: nn.Module) -> Detector:
    """Return the network of Ultralytics in a search's wrapper, or the model itself."""
    return next(module for module in model.modules() if isinstance(module, Detector))


@contextmanager
def library_form(*models: nn.Module) -> Iterator[None]:
    """Let networks return what Ultralytics' code expects."""
    detectors = [module for model in models for module in model.modules() if isinstance(module, Detector)]
    before = [detector.raw for detector in detectors]
    try:
        for detector in detectors:
            detector.raw = False
        yield
    finally:
        for detector, raw in zip(detectors, before, strict=True):
            detector.raw = raw


def build(supernet: SupernetSpec, classes: int, seed: int) -> Detector:
    """Build a network of Ultralytics on the CPU, its random weights decided by `seed` alone.

    Raises:
        UserError: unknown model (with the nearest name), arguments that its YAML does not have, an unusable checkpoint.
    """
    config = configuration(supernet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = Detector({"nc": classes} | config, classes)
        except Exception as error:  # whatever Ultralytics' code meets in what somebody wrote by hand
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"supernet.model {supernet.model!r} with {supernet.args}: {reason}") from error
    if supernet.checkpoint is not None:
        load_weights(model, supernet.checkpoint, fresh_head=supernet.fresh_head)
    return model


def configuration(supernet: SupernetSpec) -> dict[str, Any]:
    """Return the model's YAML with the suite's own depth and width.

    Raises:
        UserError: Ultralytics has no such model, it does not detect, or an argument is unknown.
    """
    name = supernet.model
    if supernet.pretrained:
        raise UserError("supernet.pretrained needs a download, which is off: give supernet.checkpoint")
    if name.endswith(".pt"):
        raise UserError(
            f"supernet.model {name!r} is a checkpoint: give its path as supernet.checkpoint, and the YAML of its "
            "network (such as yolov8n.yaml) as supernet.model; `dms-bench new` writes both"
        )
    if not name.endswith((".yaml", ".yml")):
        raise UserError(f"supernet.model {name!r} is no model YAML of Ultralytics; {nearest(name + '.yaml', known())}")
    try:
        config: dict[str, Any] = yaml_model_load(os.path.expanduser(name))
    except FileNotFoundError:
        raise UserError(f"supernet.model: Ultralytics has no model {name!r}; {nearest(name, known())}") from None
    except Exception as error:  # whatever the reader of YAMLs meets in what somebody wrote by hand
        raise UserError(
            f"supernet.model {name!r} is no YAML of a model: {' '.join(str(error).split())[:200]}"
        ) from error
    _check_layers(name, config)
    for key, value in supernet.args.items():
        if key not in SCALING:
            raise UserError(f"supernet.args.{key} is no field of a model's scaling; {nearest(key, SCALING)}")
        config[key] = value
    if supernet.args.keys() & {"depth_multiple", "width_multiple"}:
        # Ultralytics ignores both where a YAML lists scales.
        multiples = [config.get("depth_multiple", 1.0), config.get("width_multiple", 1.0)]
        config["scales"] = {"own": [*multiples, config.pop("max_channels", 1024)]}
        config["scale"] = "own"
    if config["head"][-1][2] not in HEADS:
        raise UserError(f"supernet.model {name!r} is no detection network (its last layer is not Detect)")
    if config.get("channels", 3) != 3:
        raise UserError(f"supernet.model {name!r}: channels: {config['channels']}: networks are searched on 3 channels")
    if config.get("scales") and config.get("scale") not in config["scales"]:
        sizes = ", ".join(name.replace(".yaml", f"{size}.yaml") for size in config["scales"])
        raise UserError(f"supernet.model {name!r} has no size: name one ({sizes}), or give depth and width multiples")
    return config


def _check_layers(name: str, config: dict[str, Any]) -> None:
    """Refuse rows that are no layers, and layers that Ultralytics does not have. Raises UserError."""
    rows = [row for part in ("backbone", "head") for row in config.get(part) or ()]
    if not rows or not config.get("head"):
        raise UserError(f"supernet.model {name!r} is no YAML of a model: it has no layers under 'backbone' and 'head'")
    families = {"nn.": nn, "torchvision.ops.": torchvision.ops, "": tasks}  # as Ultralytics reads the names
    for number, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 4 and isinstance(row[2], str)):
            raise UserError(
                f"supernet.model {name!r}: layer {number} is {row!r}, not [from, repeats, module, arguments]"
            )
        prefix = next(prefix for prefix in families if row[2].startswith(prefix))
        layers = [f"{prefix}{key}" for key, value in vars(families[prefix]).items() if _is_layer(value)]
        if row[2] not in layers:
            raise UserError(
                f"supernet.model {name!r}: layer {number} is a {row[2]!r}, which Ultralytics does not have (modules "
                f"of your own cannot be searched here); {nearest(row[2], layers)}"
            )


def _is_layer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def known() -> list[str]:
    """Return the names of Ultralytics' own model YAMLs, with their sizes."""
    import re

    import ultralytics

    names = []
    for path in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").glob("*/yolo*.yaml")):
        sized = re.fullmatch(r"(yolov?\d+)(-p\d)?\.yaml", path.name)
        if sized:
            names += [f"{sized[1]}{size}{sized[2] or ''}.yaml" for size in ("", *"nsmlx")]
    return names


def initialise(model: Detector, seed: int) -> None:
    """Draw fresh weights in place, as Ultralytics does when it builds the network."""
    reinitialise(model, seed)
    for module in model.modules():
        if isinstance(module, DFL):  # no weight, but the numbers of its bins
            with torch.no_grad():
                module.conv.weight.copy_(torch.arange(module.c1, dtype=torch.float).view(1, -1, 1, 1))
    head = model.model[-1]
    assert isinstance(head, Detect)
    head.bias_init()


def fused(model: Detector) -> Detector:
    """Return a copy with batch norms folded into convolutions and without the head that is used in training only."""
    copy: Detector = deepcopy(model).eval()
    copy.fuse(verbose=False)
    return copy


def example_input(batch: int, size: int) -> Tensor:
    """Return random images, always the same, [batch, 3, size, size], values in [0, 1]."""
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
