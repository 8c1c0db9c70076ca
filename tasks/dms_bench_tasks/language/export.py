"""A cut network as a folder that transformers opens by itself; it is opened and compared before it is handed out.

Where all layers have the same widths, that is a plain model of its type. Where they differ, which no configuration
can say, a file of twenty lines stands beside the weights (`modeling_cut.py`, by transformers' own mechanism for such
files: `trust_remote_code=True`): it builds the network by its library and gives some layers other sizes.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from dms_bench.errors import UserError
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench_tasks.language.own_code import HEADS, REFUSED, answer, by_cache, give_own_code, same
from dms_bench_tasks.language.plain import plain

#: Stands beside the weights where layers have sizes of their own.
CODE_FILE = "modeling_cut.py"
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
                setattr(self.get_submodule(name), attribute, tuple(value) if isinstance(value, list) else value)
        for name, values in config.cut["configurations"].items():
            own = copy.copy(config)
            for field, value in values.items():
                setattr(own, field, value)
            self.get_submodule(name).config = own
        self.tie_weights()
'''


def save(model: nn.Module, tokenizer: Any, folder: Path) -> Path:
    """Write configuration, weights (safetensors), tokenizer and, where needed, `modeling_cut.py`; then open them again.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written, or what it holds does not answer as the network does.
    """
    lm = plain(model)
    give_own_code(lm)
    own = lm.config
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for config in (_nearest_config(lm), own):  # code may read other numbers from it than sizes: scales, for one
            lm.config = copy.deepcopy(config)
            with TemporaryDirectory(dir=folder.parent, prefix=".") as place:
                if _write(lm, tokenizer, Path(place)) and _answers_alike(lm, Path(place)):
                    (folder / CODE_FILE).unlink(missing_ok=True)
                    for path in Path(place).iterdir():
                        path.replace(folder / path.name)
                    return folder
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    raise UserError(REFUSED)


def _write(lm: Any, tokenizer: Any, folder: Path) -> bool:
    """Write all files; whether its configuration describes such a network at all."""
    try:
        cut = _differences(lm, lm.config)
    except Exception:  # of sizes and kinds of layers that its type does not have together, each in its own words
        return False
    base = type(lm).__name__
    lm.config.use_cache = True
    # transformers finds what published files call a tensor by the class, and knows none of ours.
    lm.save_pretrained(folder, save_original_format=not cut["shapes"])
    tokenizer.save_pretrained(folder)
    if cut["shapes"]:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config |= {"architectures": [f"Cut{base}"], "cut": cut}
        config["auto_map"] = {"AutoModelForCausalLM": f"modeling_cut.Cut{base}"}
        path.write_text(json.dumps(config, indent=2) + "\n")
        (folder / CODE_FILE).write_text(_CODE.format(base=base))
    return True


def _answers_alike(lm: Any, folder: Path) -> bool:
    """Whether what a folder holds answers as a network does: to some tokens at once and, in float32, by its cache."""
    kind: Any = type(lm)
    if (folder / CODE_FILE).exists():
        names: dict[str, Any] = {}
        exec((folder / CODE_FILE).read_text(), names)  # what transformers does with it
        kind = names[f"Cut{kind.__name__}"]
    with modes_kept(lm), torch.no_grad():
        try:
            again = kind.from_pretrained(folder, dtype=lm.dtype, attn_implementation=lm.config._attn_implementation)
            again = again.to(lm.device).eval()
            expected = answer(lm.eval())
            written = by_cache(again) if lm.dtype == torch.float32 else None
            return same(answer(again), expected) and (written is None or same(written, expected[:, -1:]))
        except OSError:
            raise
        except Exception:  # whatever code raises whose sizes do not fit
            return False


def _nearest_config(lm: Any) -> Any:
    """Return the configuration with the network's sizes, those of the first block where blocks differ."""
    config = copy.deepcopy(lm.config)
    if not hasattr(config, "num_attention_heads"):
        return config
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
    attributes: dict[str, dict[str, Any]] = {}
    configurations = {}
    for name, module in lm.named_modules():
        if getattr(module, "config", lm.config) is not lm.config:
            heads = {field: getattr(module.config, field) for field in HEADS if hasattr(module.config, field)}
            if any(getattr(config, field) != value for field, value in heads.items()):
                configurations[name] = heads
        usual = vars(built.get_submodule(name))
        changed = {key: value for key, value in vars(module).items() if _is_size(value) and usual.get(key) != value}
        if changed:
            attributes[name] = changed
    return {"shapes": changed_shapes, "attributes": attributes, "configurations": configurations}


def _is_size(value: Any) -> bool:
    """Whether an attribute is a size, or several (`normalized_shape` of a layer norm)."""
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_size, value))
    return isinstance(value, int) and not isinstance(value, bool)
