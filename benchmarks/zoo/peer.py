"""Prunes the networks of a list by Torch-Pruning, for the same table as `zoo.py`.

    python benchmarks/zoo/peer.py --list any.yaml      # to any-torch-pruning.csv

Its MetaPruner takes half of everything by magnitude. A network is `ok` when it then runs, trains a step at batches of
two and three, and costs at most 70 % of its MACs. Several settings are tried, as its own examples have them (whole
heads, sizes of heads, attention left out), and the first that is `ok` counts; what reads sizes of attention from
attributes gets them adapted, as there. Layers that make the outputs are left as they are. Whether what is cut computes
what the rest of the network computed before is not asked.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from networks import read
from torch import nn
from zoo import BATCHES, HERE, isolated, rows_of, trained, write

from dms_bench.scaling import Example, count
from dms_bench.scaling.example import outputs_in

COLUMNS = ("model", "family", "status", "setting", "macs", "kept", "seconds", "why")
KEPT = 0.7
#: What attention calls the number of its heads, and the projections whose rows belong to heads.
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
PROJECTIONS = (
    *("q", "k", "v", "query", "key", "value", "q_proj", "k_proj", "v_proj", "to_q", "to_k", "to_v", "qkv", "in_proj"),
)
#: What it calls the features of a head, and those of all heads.
HEAD_SIZES = ("head_dim", "attention_head_size", "dim_head")
ALL_SIZES = ("all_head_size", "inner_dim")
SETTINGS: dict[str, dict[str, bool]] = {
    "heads": {"prune_num_heads": True, "prune_head_dims": False},
    "head sizes": {"prune_num_heads": False, "prune_head_dims": True},
    "no attention": {},
}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, default=HERE / "any.yaml", help="networks, YAML")
    parser.add_argument("--models", nargs="+", help="some of them, by name")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a network")
    parser.add_argument("--resume", action="store_true", help="keep the lines that the table has")
    options = parser.parse_args()
    table = None if options.models else options.list.with_name(f"{options.list.stem}-torch-pruning.csv")
    done = {(row["family"], row["model"]): row for row in rows_of(table)} if options.resume and table else {}
    rows = []
    for entry in read(options.list):
        if options.models and entry.name not in options.models:
            continue
        measured = done.get((entry.family, entry.name)) or isolated(measure, entry, options.timeout)
        rows.append({"model": entry.name, "family": entry.family, **measured})
        print("  ".join(str(rows[-1].get(column, "")) for column in COLUMNS), flush=True)
        if table:
            write(table, rows, COLUMNS)
    print(f"{sum(row['status'] == 'ok' for row in rows)} of {len(rows)} ok")
    return 0


def measure(model: nn.Module, example: Example) -> dict[str, Any]:
    """Prune a network under each setting until one works; return a line of the table."""
    row: dict[str, Any] = {}
    reasons = []
    whole = count(model, example).macs
    for name, setting in SETTINGS.items():
        try:
            pruned = prune(copy.deepcopy(model), example, setting)
            kept = count(pruned.eval(), example).macs / whole
            good = all(trained(pruned.train(), example.batch(samples)) for samples in BATCHES)
        except Exception as error:  # whatever the library or the network makes of it
            reasons.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0][:150])
            continue
        row = {"setting": name, "macs": whole, "kept": f"{kept:.3f}"}
        if good and kept <= KEPT:
            return {"status": "ok", **row}
        reasons.append(f"{name}: {kept:.0%} of MACs kept" if good else f"{name}: gradients are not finite")
    return {"status": "error" if not row else "low", **row, "why": "; ".join(reasons)}


def prune(model: nn.Module, example: Example, setting: dict[str, bool]) -> nn.Module:
    """Take half of everything by magnitude."""
    attention = {
        projection: int(getattr(parent, heads))
        for parent in model.modules()
        for heads in HEADS
        if isinstance(getattr(parent, heads, None), int)
        for name, projection in parent.named_children()
        if name in PROJECTIONS and isinstance(projection, nn.Linear)
    }
    ignored = outputs_of(model, example)
    if not setting:
        ignored += [module for module in model.modules() if any(hasattr(module, name) for name in HEADS)]
    pruner = tp.pruner.MetaPruner(
        model,
        example.kwargs or example.args,
        forward_fn=lambda net, _: floats(example(net)),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        head_pruning_ratio=0.5 if setting.get("prune_num_heads") else 0.0,
        num_heads=dict(attention) if setting else {},
        ignored_layers=ignored,
        **setting,
    )
    pruner.step()
    if setting:
        adapt(model, pruner)
    return model


def adapt(model: nn.Module, pruner: Any) -> None:
    """Tell attention how many heads it has and how large they are, as the library's examples do."""
    for parent in model.modules():
        for name, projection in parent.named_children():
            if name not in PROJECTIONS or projection not in pruner.num_heads:
                continue
            packed = 3 if name in ("qkv", "in_proj") else 1
            heads, features = pruner.num_heads[projection], projection.out_features // packed
            for attribute, value in [
                *((attribute, heads) for attribute in HEADS),
                *((attribute, features // heads) for attribute in HEAD_SIZES),
                *((attribute, features) for attribute in ALL_SIZES),
            ]:
                if isinstance(getattr(parent, attribute, None), int):
                    setattr(parent, attribute, value)
            break


def outputs_of(model: nn.Module, example: Example) -> list[nn.Module]:
    """Return the layers that make the outputs of a network."""
    made: dict[int, nn.Module] = {}
    kept = []  # so that no two outputs share an address

    def remember(layer: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            for tensor in outputs_in(output):
                made[id(tensor)] = layer
                kept.append(tensor)

        return hook

    layers = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [layer.register_forward_hook(remember(layer)) for layer in layers]
    with torch.no_grad():
        outputs = floats(example(model))
    for handle in handles:
        handle.remove()
    return [made[id(output)] for output in outputs if id(output) in made]


def floats(output: Any) -> list[torch.Tensor]:
    """Return the tensors of an output that have gradients."""
    return [tensor for tensor in outputs_in(output) if tensor.is_floating_point()]


if __name__ == "__main__":
    sys.exit(main())
