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
from dms_bench_tasks.language.fused import HEADS, give_configurations
from dms_bench_tasks.language.plain import plain

_CODE = '''"""A {base} some of whose layers have sizes of their own (config.json: "cut"). Written by dms_bench."""

import copy

import torch
from torch import nn
from transformers import {base}


class Cut{base}({base}):
    def __init__(self, config):
        super().__init__(config)
        for name, shape in config.cut["shapes"].items():
            holder, _, leaf = name.rpartition(".")
            layer = self.get_submodule(holder)
            old = getattr(layer, leaf)
            old = layer.weight if old is None else old
            new = nn.Parameter(torch.empty(shape, dtype=old.dtype, device=old.device))
            setattr(layer, leaf, new)
        for name, values in config.cut["attributes"].items():
            for attribute, value in values.items():
                setattr(self.get_submodule(name), attribute, value)
        for name, values in config.cut["configurations"].items():
            own = copy.copy(config)
            for field, value in values.items():
                setattr(own, field, value)
            self.get_submodule(name).config = own
        self.tie_weights()
'''


def save(model: nn.Module, tokenizer: Any, folder: Path) -> Path:
    """Write configuration, weights (safetensors), tokenizer and, where needed, `modeling_cut.py`.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written, or the network's code holds sizes that cannot be told to transformers.
    """
    lm = plain(model)
    give_configurations(lm)
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
    sizes: dict[str, int] = {"hidden_size": lm.get_input_embeddings().embedding_dim}
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    sides: dict[str, tuple[int, int]] = {}  # inputs and outputs of the first layer of each name
    for name, module in lm.named_modules():
        if isinstance(module, nn.Linear):
            sides.setdefault(name.rpartition(".")[2], (module.in_features, module.out_features))
    inputs, outputs = ({name: both[side] for name, both in sides.items()} for side in (0, 1))
    queries = inputs.get("o_proj", inputs.get("dense", 0))  # Llama's name of the layer behind the heads, and Phi's
    keys = outputs.get("k_proj", (outputs.get("qkv_proj", 0) - queries) // 2)
    hidden = inputs.get("down_proj", inputs.get("fc2", 0))
    sizes |= {"num_attention_heads": queries // size, "num_key_value_heads": keys // size, "intermediate_size": hidden}
    if hasattr(config, "head_dim") or sizes["hidden_size"] != queries:
        sizes["head_dim"] = size
    try:
        trial = type(config)(**(config.to_dict() | sizes))
        return config if _differences(lm, trial)["shapes"] else trial
    except Exception:  # sizes that the type does not allow together, each in its own words
        return config


def _differences(lm: Any, config: Any) -> dict[str, Any]:
    """Return how a network differs from the one that its type builds from a configuration."""
    with torch.device("meta"):
        built = type(lm)(copy.deepcopy(config))
    shapes = {name: tuple(parameter.shape) for name, parameter in built.named_parameters()}
    changed_shapes = {name: list(p.shape) for name, p in lm.named_parameters() if tuple(p.shape) != shapes.get(name)}
    attributes: dict[str, dict[str, int]] = {}
    configurations = {}
    for name, module in lm.named_modules():
        if getattr(module, "config", lm.config) is not lm.config:
            heads = {field: getattr(module.config, field) for field in HEADS}
            if any(getattr(config, field) != value for field, value in heads.items()):
                configurations[name] = heads
        usual = vars(built.get_submodule(name))
        changed = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, int) and not isinstance(value, bool) and usual.get(key) != value
        }
        if changed:
            attributes[name] = changed
    return {"shapes": changed_shapes, "attributes": attributes, "configurations": configurations}
