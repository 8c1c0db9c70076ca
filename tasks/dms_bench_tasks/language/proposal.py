"""An experiment for a language model and text that somebody brings: tokenizer, context, recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dms_bench.config.proposal import Brought, Choice, Proposal, epochs_for, power_of_two
from dms_bench.errors import UserError, nearest
from dms_bench_tasks.language import library, records
from dms_bench_tasks.language.loading import refuse_folder
from dms_bench_tasks.language.spec import RECORDS, LanguageTask

#: Optimiser steps of a training from random weights, without and with a GPU: a first answer, not the best one.
_STEPS = {False: 1_000, True: 10_000}
#: Share of these that weights which have learnt something need.
_TUNING = 0.2
#: Most sequences of a batch, and most tokens of one, without and with a GPU.
_BATCH, _CONTEXT = {False: 8, True: 16}, {False: 128, True: 512}
#: A text file of more bytes is read in part without a GPU, as much as of Python's library.
_LARGE = 8_000_000
_PART = {"train": 4_000_000, "val": 200_000, "test": 400_000}
#: Records that are looked at for text.
_LOOKED_AT = 100
#: Characters for which a vocabulary of its own is worth training.
_FOR_BPE = 1_000_000
#: Windows of the validation text, at least.
_WINDOWS = 4
#: Sizes of a network from random weights, without and with a GPU.
_SIZES = {
    False: {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
    True: {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8},
}
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def propose(brought: Brought) -> Proposal:
    """Return an experiment for a language model and text.

    Raises:
        UserError: transformers is not installed, there is no such network, or too little text.
    """
    library.prepare()
    refuse_folder(brought.model)
    folder = Path(library.expanded(brought.model))
    weights = brought.pretrained or brought.checkpoint is not None or _has(folder, _WEIGHTS)
    gpu = brought.gpus > 0
    data, what = _data(brought)
    supernet = _supernet(brought, folder, weights, gpu)
    tokenizer, why_tokenizer = _tokenizer(brought, folder, data)
    context, sequences = _context(data, tokenizer, _positions(folder), gpu)
    why_weights = "weights to start from" if weights else "small enough to be trained from random weights here"
    choices = [
        Choice("task.kind", "language", f"{brought.data}: {what}"),
        Choice("task.data", data),
        *(
            Choice(f"task.{key}", value, why_tokenizer if key == "tokenizer" else "")
            for key, value in tokenizer.items()
        ),
        Choice("task.context", context, f"{sequences} sequences to train on, and at least {_WINDOWS} for validation"),
        Choice("task.windows", [context]),
        *(
            Choice(f"supernet.{key}", value, why_weights if key in ("pretrained", "checkpoint", "args") else "")
            for key, value in supernet.items()
        ),
        Choice(
            "pipeline",
            "DMSp" if weights else "DMSnp",
            "start from the weights, search, retrain the searched weights"
            if weights
            else "search and retrain from random weights, as none are given (a folder with weights, or --checkpoint)",
        ),
        *_recipes(gpu, sequences, weights),
    ]
    recipe = {"epochs": 1, "steps": 2, "batch_size": max(1, power_of_two(min(4, sequences / 2))), "warmup_steps": 0}
    limits = {"train": 100_000, "val": 20_000, "test": 20_000} if data["name"] in ("text", "pystdlib") else {}
    smoke = {"task": {"generate": 0, **({"data": limits} if limits else {})}, "search": recipe, "retrain": recipe}
    return Proposal(choices, smoke, LanguageTask.model_validate({"data": data}).data.label())


def _has(folder: Path, patterns: tuple[str, ...]) -> bool:
    return folder.is_dir() and any(True for pattern in patterns for _ in folder.glob(pattern))


def _supernet(brought: Brought, folder: Path, weights: bool, gpu: bool) -> dict[str, Any]:
    """Return the supernet's fields: a type of transformers gets sizes, a folder has its own."""
    supernet: dict[str, Any] = {"model": brought.model}
    if brought.checkpoint is not None:
        supernet["checkpoint"] = brought.checkpoint
    elif weights:
        supernet["pretrained"] = True
    if folder.is_dir() or "/" in brought.model:
        return supernet
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if brought.model not in CONFIG_MAPPING_NAMES:
        raise UserError(
            f"--model {brought.model!r} is neither a folder nor a type of transformers; "
            f"{nearest(brought.model, CONFIG_MAPPING_NAMES)}"
        )
    known = AutoConfig.for_model(brought.model)
    return supernet | {"args": {name: value for name, value in _SIZES[gpu].items() if hasattr(known, name)}}


def _data(brought: Brought) -> tuple[dict[str, Any], str]:
    """Return the data's fields, and what they are in words. Raises UserError."""
    if brought.data == "pystdlib":
        return {"name": "pystdlib"}, "the source text of Python's own library"
    path = brought.path
    if not path.exists():
        raise UserError(f"--data {brought.data!r} does not exist")
    if path.suffix.lower() in RECORDS:
        return _records(brought)
    data: dict[str, Any] = {"name": "text", "root": brought.data}
    size = path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*.txt"))
    what = f"{size / 1e6:.3g} MB of text"
    if path.is_file():
        what += ", of which the last tenth is the test, and the tenth before it for validation"
    if size > _LARGE and not brought.gpus:
        data |= _PART
        what += "; a part from all over it is used, as there is no GPU"
    return data, what


def _records(brought: Brought) -> tuple[dict[str, Any], str]:
    found = records.load(brought.data, None, "train")
    columns = found.column_names
    if {"instruction", "output"} <= set(columns):
        held = max(1, min(2000, len(found) // 10))
        data = {"name": "alpaca", "path": brought.data, "val": held, "test": held}
        return (
            data,
            f"{len(found)} instructions with their answers; {held} of them for validation and {held} for the test",
        )
    lengths = _text_columns(found)
    if not lengths:
        raise UserError(f"data {brought.data!r}: no column holds text: {', '.join(columns)}")
    column = "text" if "text" in lengths else max(lengths, key=lambda name: lengths[name])
    splits = {"train": "train[:80%]", "val": "train[80%:90%]", "test": "train[90%:]"}
    others = [name for name in lengths if name != column]
    chosen = f" ({', '.join(others)} left out: shorter)" if others else ""
    what = f"{len(found)} records with text in {column!r}{chosen}"
    what += ", the last tenth for the test, the tenth before for validation"
    return {"name": "hub", "dataset": brought.data, "column": column, **splits}, what


def _text_columns(found: Any) -> dict[str, int]:
    """Return the columns that hold text, and how much of it some of the first records have."""
    some = found[: min(_LOOKED_AT, len(found))]
    values = {name: [value for value in column if value is not None] for name, column in some.items()}
    return {
        name: sum(map(len, column))
        for name, column in values.items()
        if column and all(isinstance(value, str) for value in column)
    }


def _tokenizer(brought: Brought, folder: Path, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the task's fields of the tokenizer, and why."""
    if _has(folder, _TOKENIZERS):
        return {"tokenizer": brought.model}, "the model's own"
    if folder.is_dir():
        return {"tokenizer": "bytes"}, "the model's folder has no tokenizer: one token for each byte"
    if "/" in brought.model:
        return {"tokenizer": brought.model}, "the model's own"
    path = Path(library.expanded(data.get("root", "")))
    large = data["name"] == "pystdlib" or (path.is_file() and path.stat().st_size > _FOR_BPE)
    if large:
        return {"tokenizer": "bpe", "vocab_size": 1024}, "trained on the training text"
    return {"tokenizer": "bytes"}, "one token for each byte: there is too little text to train a vocabulary on"


def _positions(folder: Path) -> int:
    """Return how many tokens a model in a folder takes; many where that is not known."""
    try:
        return int(json.loads((folder / "config.json").read_text())["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return 10**9


def _context(data: dict[str, Any], tokenizer: dict[str, Any], most: int, gpu: bool) -> tuple[int, int]:
    """Return the tokens of a sequence, and how many sequences there are to train on. Raises UserError."""
    from dms_bench_tasks.language.data import Text

    def sequences(part: Any, context: int) -> int:
        return len(Text(LanguageTask.model_validate({"data": data, **tokenizer, "context": context})).sequences(part))

    if data["name"] == "alpaca":  # a sequence is an instruction with its answer
        context = power_of_two(min(_CONTEXT[gpu] * 2, most))
        return context, sequences("train", context)
    tokens = 8 * sequences("val", 8)
    context = max(8, power_of_two(min(_CONTEXT[gpu], most, tokens / _WINDOWS)))
    return context, sequences("train", context)


def _recipes(gpu: bool, sequences: int, weights: bool) -> list[Choice]:
    """Return the choices of the training stages."""
    batch = max(1, power_of_two(min(_BATCH[gpu], sequences / 2)))
    per_epoch = max(1, sequences // batch)
    wanted = int(_STEPS[gpu] * (_TUNING if weights else 1))
    epochs = epochs_for(wanted, per_epoch, 1, 3 if weights else 10)
    recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch, "lr": 1e-4 if weights else 1e-3}
    if per_epoch > wanted:
        recipe["steps"] = wanted
    total = epochs * min(per_epoch, wanted)
    recipe["warmup_steps"] = min(50, total // 20)
    if gpu:
        recipe["amp"] = "bf16"
    why = (
        f"{total} steps of {batch} sequences {'with' if gpu else 'without'} a GPU, for a first answer; "
        + ("the rate of LLM-Pruner's retraining (Ma et al. 2023)" if weights else "a usual rate of small models")
        + ". Longer training is better, and costs as much more"
    )
    search = recipe | {"epochs": max(1, epochs // 2)}
    stage = "trains weights and structure of the methods that learn it"
    return [Choice("search", search, stage), Choice("retrain", recipe, why)]
