"""A cut network as a folder that transformers opens by itself.

Where all layers have the same widths, that is a plain model of its type. Where they differ, which no configuration
can say, a file of twenty lines stands beside the weights (`modeling_cut.py`, by transformers' own mechanism for such
files: `trust_remote_code=True`): it builds the network by its library and gives some layers other sizes.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dms_bench.errors import UserError
from dms_bench.scaling.mends import MendedForward
from tasks.language.plain import plain

_CODE = '''"""A {base} some of whose layers have sizes of their own (config.json: "cut"). Written by dms_bench."""

import torch
from torch import nn
from transformers import {base}


class Cut{base}({base}):
    def __init__(self, config):
        super().__init__(config)
        for name, shape in config.cut["shapes"].items():
            holder, _, leaf = name.rpartition(".")
            old = self.get_parameter(name)
            new = nn.Parameter(torch.empty(shape, dtype=old.dtype, device=old.device))
            setattr(self.get_submodule(holder), leaf, new)
        for name, values in config.cut["attributes"].items():
            for attribute, value in values.items():
                setattr(self.get_submodule(name), attribute, value)
        self.tie_weights()
'''
#: Names of a block's layers in transformers, whose sizes a configuration has a field for.
_QUERIES, _KEYS, _HIDDEN = ("q_proj",), ("k_proj",), ("down_proj", "fc2")


def save(model: nn.Module, tokenizer: Any, folder: Path) -> Path:
    """Write configuration, weights (safetensors), tokenizer and, where needed, `modeling_cut.py`.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written, or the network's code holds sizes that cannot be told to transformers.
    """
    if any(isinstance(module.__dict__.get("forward"), MendedForward) for module in model.modules()):
        raise UserError(
            "transformers' code of this network computes sizes of heads from its configuration, which has one for all "
            "layers: it can be loaded by dms_bench.load alone"
        )
    lm = plain(model)
    base = type(lm).__name__
    lm.config = _nearest_config(lm)
    cut = _differences(lm, lm.config)
    lm.config.use_cache = True
    try:
        lm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if cut["shapes"]:
            path = folder / "config.json"
            config = json.loads(path.read_text())
            config |= {"architectures": [f"Cut{base}"], "cut": cut}
            config["auto_map"] = {"AutoModelForCausalLM": f"modeling_cut.Cut{base}"}
            path.write_text(json.dumps(config, indent=2) + "\n")
            (folder / "modeling_cut.py").write_text(_CODE.format(base=base))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    return folder


def _nearest_config(lm: Any) -> Any:
    """Return the configuration with the network's sizes, those of the first block where blocks differ."""
    config = copy.deepcopy(lm.config)
    wanted: dict[str, int] = {"hidden_size": lm.get_input_embeddings().embedding_dim}
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    linears = [
        (name.rpartition(".")[2], module) for name, module in lm.named_modules() if isinstance(module, nn.Linear)
    ]
    for field, names, side in (
        ("num_attention_heads", _QUERIES, "out_features"),
        ("num_key_value_heads", _KEYS, "out_features"),
        ("intermediate_size", _HIDDEN, "in_features"),
    ):
        found = next((getattr(module, side) for name, module in linears if name in names), None)
        if found is not None:
            wanted[field] = found if field == "intermediate_size" else found // size
    if hasattr(config, "head_dim"):
        wanted["head_dim"] = size
    try:
        trial = type(config)(**(config.to_dict() | wanted))
        return config if _differences(lm, trial)["shapes"] else trial
    except Exception:  # sizes that the type does not allow together, each in its own words
        return config


def _differences(lm: Any, config: Any) -> dict[str, Any]:
    """Return how a network differs from the one that its type builds from a configuration."""
    with torch.device("meta"):
        built = type(lm)(copy.deepcopy(config))
    shapes = {name: tuple(parameter.shape) for name, parameter in built.named_parameters()}
    own = {name: list(p.shape) for name, p in lm.named_parameters() if tuple(p.shape) != shapes.get(name)}
    attributes: dict[str, dict[str, int]] = {}
    for name, module in lm.named_modules():
        usual = vars(built.get_submodule(name))
        changed = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, int) and not isinstance(value, bool) and usual.get(key) != value
        }
        if changed:
            attributes[name] = changed
    return {"shapes": own, "attributes": attributes}
