"""Where networks that are not timm's come from: torchvision, folders of transformers, functions of one's own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.config.own_network import digest_of, is_own, maker_of
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError, nearest

#: Makes a network for a number of classes, of channels, and a height and width in pixels.
Create = Callable[[SupernetSpec, int, int, int], nn.Module]

_TORCHVISION = "torchvision:"
#: Beginning of a name in torchvision, an argument, and its value at a height and width. Auxiliary classifiers, whose
#: scores no recipe has a loss for, are left out, and weights drawn by PyTorch's own rules.
_ARGUMENTS: tuple[tuple[str, str, Callable[[int], Any]], ...] = (
    ("vit_", "image_size", lambda size: size),
    ("maxvit_", "input_size", lambda size: (size, size)),
    ("googlenet", "aux_logits", lambda size: False),
    ("googlenet", "init_weights", lambda size: False),
    ("inception_v3", "aux_logits", lambda size: False),
    ("inception_v3", "init_weights", lambda size: False),
)
#: How the names of the layers begin that are drawn anew for other classes.
_CLASSIFIERS = ("classifier", "head", "fc")
#: What functions of one's own may take, by the names that timm has for it.
_HANDED_OVER = ("num_classes", "in_chans", "img_size")


def other_source(name: str) -> Create | None:
    """Return what makes a network of another source than timm; None for timm's."""
    if name.startswith(_TORCHVISION):
        return _of_torchvision
    if is_own(name):
        return _own
    return _of_transformers if is_folder(name) else None


def is_folder(name: str) -> bool:
    """Whether the name of a model is that of a folder of transformers."""
    return os.path.isfile(Path(os.path.expanduser(name), "config.json"))  # False also for what no path can be


class Scores(nn.Module):
    """A network that returns its scores in an object, as `logits`: hands on these alone.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of images [B, channels, H, W], [B, classes]."""
        scores: Tensor = self.network(images).logits
        return scores

    def init_weights(self) -> None:
        """Draw the weights by transformers' own rules, which `reinitialise` does not know."""
        rule = getattr(self.network, "_init_weights", None)
        if rule is not None:
            with torch.no_grad():
                for module in self.network.modules():
                    rule(module)


def _of_torchvision(supernet: SupernetSpec, classes: int, channels: int, size: int) -> nn.Module:
    from torchvision.models import get_model, list_models

    name = supernet.model.removeprefix(_TORCHVISION)
    names = list_models(module=importlib.import_module("torchvision.models"))
    if name not in names:
        raise UserError(f"supernet.model: torchvision has no classifier {name!r}; {nearest(name, names)}")
    if channels != 3:
        raise UserError(f"torchvision's networks take colour images: set task.channels to 3, not {channels}")
    if supernet.pretrained:
        return _with_classes(_without_auxiliary(get_model(name, weights="DEFAULT", **supernet.args)), classes)
    args = {argument: value(size) for family, argument, value in _ARGUMENTS if name.startswith(family)} | supernet.args
    model: nn.Module = get_model(name, weights=None, num_classes=classes, **args)
    return model


def _without_auxiliary(model: nn.Module) -> nn.Module:
    """Take the auxiliary classifiers off a pretrained GoogLeNet or Inception, which is built with them."""
    for name in [name for name, _ in model.named_children() if name.lower().startswith("aux")]:
        setattr(model, name, None)
    if hasattr(model, "aux_logits"):
        model.aux_logits = False  # type: ignore[assignment]
    return model


def _with_classes(model: nn.Module, classes: int) -> nn.Module:
    """Replace the last layer, which gives the scores of ImageNet's classes, unless there are as many."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    name, last = list(layers.items())[-1]
    parent, _, attribute = name.rpartition(".")
    if isinstance(last, nn.Conv2d) and last.out_channels != classes:  # SqueezeNet's
        setattr(model.get_submodule(parent), attribute, nn.Conv2d(last.in_channels, classes, 1))
    elif isinstance(last, nn.Linear) and last.out_features != classes:
        setattr(model.get_submodule(parent), attribute, nn.Linear(last.in_features, classes))
    return model


def _of_transformers(supernet: SupernetSpec, classes: int, channels: int, size: int) -> nn.Module:
    if importlib.util.find_spec("transformers") is None:
        raise UserError(
            f"supernet.model {supernet.model!r} is a folder of transformers: pip install 'dms-bench[language]'"
        )
    from transformers import AutoConfig, AutoModelForImageClassification

    folder = str(Path(supernet.model).expanduser())
    stored_fields = json.loads((Path(folder) / "config.json").read_text())
    sizes = {"image_size": size, "num_channels": channels, "num_labels": classes}
    fields = {name: value for name, value in sizes.items() if name in stored_fields or name == "num_labels"}
    config = AutoConfig.from_pretrained(folder, **fields)
    for argument in supernet.args:
        if not hasattr(config, argument):
            raise UserError(
                f"supernet.args.{argument} is no field of its configuration; {nearest(argument, vars(config))}"
            )
    config.update(supernet.args)
    if not supernet.pretrained:
        return Scores(AutoModelForImageClassification.from_config(config))
    network, info = AutoModelForImageClassification.from_pretrained(
        folder, config=config, ignore_mismatched_sizes=True, output_loading_info=True
    )
    changed = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    odd = [key for key in changed if not key.startswith(_CLASSIFIERS)]
    if odd:
        raise UserError(
            f"supernet.model {supernet.model!r}: its pretrained {odd[0]} ({len(odd)} in all) has another size: take "
            "its own image_size and channels, and none of its sizes in supernet.args"
        )
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(_CLASSIFIERS))
    if missing:
        unknown = sorted(info["unexpected_keys"])
        instead = f", and has unknown {unknown[0]!r} ({len(unknown)} in all)" if unknown else ""
        raise UserError(
            f"supernet.model {supernet.model!r}: its pretrained weights lack {missing[0]!r} ({len(missing)} in "
            f"all){instead}: they are of another network, or renamed"
        )
    return Scores(network)


def _own(supernet: SupernetSpec, classes: int, channels: int, size: int) -> nn.Module:
    if supernet.pretrained:
        raise UserError(
            f"supernet.model {supernet.model!r} is a network of your own: load its weights in that function, or give "
            "supernet.checkpoint in the place of supernet.pretrained"
        )
    if supernet.code != digest_of(supernet.model):
        raise UserError(f"the code of {supernet.model!r} has changed since the trial was made: run the suite anew")
    make = maker_of(supernet.model)
    accepted = inspect.signature(make).parameters
    handed = dict(zip(_HANDED_OVER, (classes, channels, size), strict=True))
    model = make(**{name: value for name, value in handed.items() if name in accepted}, **supernet.args)
    if not isinstance(model, nn.Module):
        raise UserError(f"supernet.model {supernet.model!r} returns a {type(model).__name__}, not a torch.nn.Module")
    return model
