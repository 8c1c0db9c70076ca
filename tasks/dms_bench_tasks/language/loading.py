"""Weights from files: every tensor of the network from one of theirs, or a line that says which are not to be had.

transformers draws at random what it does not find, anew in every process, and says so in a log that nobody reads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dms_bench.data import advice
from dms_bench.errors import UserError, nearest
from dms_bench_tasks.common.notes import say_once
from dms_bench_tasks.common.weights import file_at, give
from dms_bench_tasks.language.library import expanded, one_line


def refuse_folder(name: str) -> None:
    """Raise a UserError where a path leads to no folder, or to one with an adapter alone."""
    folder = Path(expanded(name))
    if (name.startswith(("/", "~", ".")) or advice(name)) and not folder.is_dir():
        raise UserError(f"supernet.model {name!r} does not exist{advice(name)}")
    if Path(folder, "adapter_config.json").is_file() and not Path(folder, "config.json").is_file():
        raise UserError(
            f"supernet.model {name!r} is an adapter of peft, not a model: merge it into its base "
            "(merge_and_unload), save that, and name its folder"
        )


def pretrained(name: str, folder: str, **options: Any) -> Any:
    """Return a causal language model of transformers with all of its weights.

    Tensors that transformers ties to others need not be in the files. A prefix that all names have (`module.`) is
    taken off, and said.

    Args:
        name: what the suite calls it.
        folder: where it is: a folder, or a name on the hub.
        options: of `from_pretrained`.

    Raises:
        UserError: a tensor is missing or of another shape.
    """
    from transformers import AutoModelForCausalLM

    def load(mapping: dict[str, str] | None) -> tuple[Any, dict[str, Any]]:
        lm, report = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, key_mapping=mapping, **options
        )
        return lm, report

    what = f"supernet.model {name!r}"
    lm, report = load(None)
    prefix = common_prefix(set(report["missing_keys"]) - tied_names(lm), report["unexpected_keys"])
    if prefix:
        say_once(f"{what}: its tensors are named {prefix}...; read without that")
        lm, report = load({f"^{re.escape(prefix)}": ""})
    for key, found, wanted in sorted(report["mismatched_keys"]):
        raise UserError(
            f"{what}: {key!r} has shape {list(found)} in its files, and {list(wanted)} in the network that its "
            f"configuration describes ({len(report['mismatched_keys'])} such tensors)"
        )
    refuse_missing(what, report["missing_keys"], report["unexpected_keys"])
    if report["error_msgs"]:
        raise UserError(f"{what}: {report['error_msgs'][0]}")
    if report["unexpected_keys"]:
        first = min(report["unexpected_keys"])
        say_once(f"{what}: {len(report['unexpected_keys'])} tensors of its files are not used, such as {first!r}")
    return lm


def load_checkpoint(lm: nn.Module, path: str) -> None:
    """Load a safetensors file, of transformers' names or of ours, into a model of transformers.

    Raises:
        UserError: it is missing, damaged or belongs to another network.
    """
    from safetensors.torch import load_file

    file = file_at(path)
    try:
        state = load_file(file)
    except Exception as error:  # of a damaged file
        raise UserError(f"supernet.checkpoint {path!r} cannot be loaded: {one_line(error)}") from error
    give(lm, {name.removeprefix("lm."): tensor for name, tensor in state.items()}, path, tied_names(lm))


def tied_names(lm: nn.Module) -> set[str]:
    """Return the names of parameters that have another name as well, under which they are listed."""
    own = {name for name, _ in lm.named_parameters()}
    return {name for name, _ in lm.named_parameters(remove_duplicate=False)} - own


def refuse_missing(what: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Raise a UserError that names the first tensor that is missing, and what may have been meant."""
    if missing:
        first = min(missing)
        meant = f"; {nearest(first, unexpected)}" if unexpected else ""
        raise UserError(f"{what} lacks {first!r} ({len(missing)} in all){meant}")


def common_prefix(missing: Collection[str], unexpected: Sequence[str] | Collection[str]) -> str:
    """Return what stands before the name of every missing tensor among the unexpected ones; empty if nothing does."""
    wanted, found = set(missing), Counter[str]()
    for name in unexpected:
        parts = name.split(".")
        for count in range(1, len(parts)):
            if ".".join(parts[count:]) in wanted:
                found[".".join(parts[:count]) + "."] += 1
                break
    prefix, times = found.most_common(1)[0] if found else ("", 0)
    return prefix if wanted and times == len(wanted) else ""
