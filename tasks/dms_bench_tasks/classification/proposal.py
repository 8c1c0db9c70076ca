"""An experiment for a network and pictures that somebody brings: input, recipe, and what to start from."""

from __future__ import annotations

from typing import Any

from torch import nn

from dms_bench.config.proposal import Brought, Choice, Proposal, epochs_for, power_of_two
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench_tasks.classification import folders, model
from dms_bench_tasks.classification.data_spec import EMBEDDED, TimmData
from dms_bench_tasks.classification.sources import is_folder
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.classification.task import Classification
from dms_bench_tasks.classification.weights import classifies_otherwise
from dms_bench_tasks.common.weights import read

#: Optimiser steps of a training from random weights, without and with a GPU: a first answer, not the best one.
_STEPS = {False: 2_000, True: 20_000}
#: Share of these that weights which have learnt something need.
_TUNING = 0.2
#: Most images of a batch, without and with a GPU.
_BATCH = {False: 64, True: 128}
#: Below so many pictures a tenth of them says too little.
_FEW = 2_000
#: Fewer pictures are seen often; their crops are larger than ImageNet's.
_MANY = 100_000
#: Pictures of the smoke variant, of all splits; of a larger set it takes generated ones in their place.
_SMOKE = 3_000
#: Height and width of its pictures, where the network takes them.
_SMOKE_SIZE = 64


def propose(brought: Brought) -> Proposal:
    """Return an experiment for a classifier and pictures.

    Raises:
        UserError: there is no such network, its weights do not fit, or the folder holds no classes of pictures.
    """
    if brought.model.endswith((".pt", ".pth", ".safetensors")):
        raise UserError(
            f"--model {brought.model!r} is a file of weights: give it as --checkpoint, and the name of its network "
            "(such as resnet18) as --model"
        )
    own = model.own_size(brought.model)
    weights = brought.checkpoint is not None or brought.pretrained or is_folder(brought.model)
    data, side, why_data, pictures = _data(brought, weights)
    supernet: dict[str, Any] = {"model": brought.model}
    size, why_size = _size(brought.model, own, side)
    channels = data.pop("channels", None)
    colours = channels or (1 if brought.data in EMBEDDED and not weights else 3)
    task_fields: dict[str, Any] = {"data": data, "image_size": size, "channels": colours}
    spec = ClassificationTask.model_validate(task_fields)
    network = _built(brought.model, spec)
    samples = Classification(spec, 0).train_samples()
    head, why_weights = _weights(brought, network, weights)
    supernet |= head
    smoke_size = _smoke_size(brought.model, spec)
    choices = [
        Choice("task.kind", "classification", f"{brought.data}: {why_data}"),
        Choice("task.data", data),
        Choice("task.image_size", size, why_size),
        Choice("task.channels", colours, "all pictures are grey" if channels == 1 else ""),
        *(
            Choice(f"supernet.{name}", value, why_weights if name != "model" else "")
            for name, value in supernet.items()
        ),
        Choice(
            "pipeline",
            "DMSp" if weights else "DMSnp",
            "pretrain, search, retrain the searched weights"
            if weights
            else "search and retrain from random weights, as none are given (--pretrained, --checkpoint)",
        ),
        *_recipes(brought, network, samples, pictures, weights),
    ]
    smoke = _smoke(spec, pictures, smoke_size, samples, weights)
    if "checkpoint" in supernet and smoke.get("task", {}).get("data"):
        smoke["supernet"] = {"fresh_head": True}  # generated pictures have classes of their own
    return Proposal(choices, smoke, spec.data.label())


def _data(brought: Brought, weights: bool) -> tuple[dict[str, Any], int, str, int]:
    """Return the data's fields, the pictures' size in pixels, what they are in words, and how many there are."""
    if brought.data in EMBEDDED:
        spec = ClassificationTask.model_validate({"data": brought.data}).data
        return {"name": brought.data}, 32, f"an embedded set of {spec.classes} classes", _FEW
    found = folders.look_at(brought.path, brought.data)
    held = 0.2 if found.images < _FEW else 0.1
    data: dict[str, Any] = {"name": "timm", "root": brought.data, "classes": len(found.classes), "splits": found.splits}
    parts = []
    if found.splits["val"] is None:
        data["val_fraction"] = held
        parts.append(f"{held:.0%} of them are held out for validation")
    if found.splits["test"] is None:
        data["test_fraction"] = held
        parts.append(f"{held:.0%} for the test")
    if brought.cpus < 4:
        data["workers"] = 0 if found.images < _FEW else 1
    if found.grey and not weights:
        data["channels"] = 1
    names = ", ".join(found.classes[:4]) + (", ..." if len(found.classes) > 4 else "")
    said = [f"{found.images} pictures of {len(found.classes)} classes ({names})", " and ".join(parts), found.unused]
    return data, found.side, "; ".join(filter(None, said)), found.all_images


def _size(name: str, own: int, side: int) -> tuple[int, str]:
    """Return the height and width of the input, and why."""
    if model.size_is_built_in(name):
        return own, f"the network's own; it takes no other (the pictures' shorter side is {side} as a rule)"
    if side >= 0.75 * own:
        return own, f"the network's own (the pictures' shorter side is {side} as a rule)"
    return max(32, min(own, 32 * round(side / 32))), (
        f"near the pictures' own, whose shorter side is {side} as a rule; the network was made for {own}"
    )


def _built(name: str, spec: ClassificationTask) -> nn.Module:
    """Return the network with random weights. Raises UserError."""
    return model.build(SupernetSpec(model=name), spec.data.classes, spec.channels, spec.image_size, 0)


def _weights(brought: Brought, network: nn.Module, weights: bool) -> tuple[dict[str, Any], str]:
    """Return the supernet's fields that say what it starts from, and why."""
    if brought.checkpoint is None:
        return (
            ({"pretrained": True}, "the library's own weights; its classifier is drawn anew for other classes")
            if (weights)
            else ({}, "")
        )
    fields: dict[str, Any] = {"checkpoint": brought.checkpoint}
    if not classifies_otherwise(network, read(brought.checkpoint)):
        return fields, "weights to start from"
    return fields | {"fresh_head": True}, "it tells other classes apart: its classifier is drawn anew, and pretrained"


def _recipes(brought: Brought, network: nn.Module, samples: int, pictures: int, weights: bool) -> list[Choice]:
    """Return the choices of the training stages."""
    gpu = brought.gpus > 0
    batch = max(2, power_of_two(min(_BATCH[gpu], samples / 4)))
    per_epoch = max(1, samples // batch)
    wanted = _STEPS[gpu] * (_TUNING if weights else 1)
    epochs = epochs_for(int(wanted), per_epoch, 3 if weights else 10, 30 if weights else 200)
    recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch} | _optimiser(network, batch, weights)
    if epochs >= 10:
        recipe["warmup_epochs"] = max(1, epochs // 20)
    recipe |= {"smoothing": 0.1}
    if gpu:
        recipe["amp"] = "bf16"
    if pictures < _MANY and brought.data not in EMBEDDED:
        recipe["scale"] = [0.35, 1.0]
    why = (
        f"{epochs} epochs of {per_epoch} steps on {samples} pictures, for a first answer "
        f"{'with' if gpu else 'without'} a GPU; "
        + ("SGD as in Goyal et al. 2017" if recipe["opt"] == "sgd" else "AdamW as in DeiT (Touvron et al. 2021)")
        + ", with the rate scaled to the batch"
        + (", a tenth of it as the weights have learnt something" if weights else "")
        + ". Longer training is better, and costs as much more"
    )
    search = recipe | {"epochs": max(1, epochs // 2)}
    if search.get("warmup_epochs", 0) >= search["epochs"]:
        search.pop("warmup_epochs")
    stages = [Choice("pretrain", recipe, "fits the weights to the data, with a new classifier")] if weights else []
    return [
        *stages,
        Choice(
            "search", search, "trains weights and structure of the methods that learn it; half as long as retraining"
        ),
        Choice("retrain", recipe, why),
    ]


def _optimiser(network: nn.Module, batch: int, weights: bool) -> dict[str, Any]:
    """Return the optimiser's options: SGD where batch norm keeps the scale of weights, else AdamW."""
    tenth = 0.1 if weights else 1.0
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return {"opt": "sgd", "lr": float(f"{0.1 * batch / 256 * tenth:.2g}"), "weight_decay": 1e-4}
    # By the square root of the batch, which is Adam's rule (Malladi et al. 2022).
    return {"opt": "adamw", "lr": float(f"{1e-3 * (batch / 1024) ** 0.5 * tenth:.2g}"), "weight_decay": 0.05}


def _smoke_size(name: str, spec: ClassificationTask) -> int:
    """Return the size of the smoke variant's pictures: a small one, where the network takes it."""
    if spec.image_size <= _SMOKE_SIZE or model.size_is_built_in(name):
        return spec.image_size
    try:
        _built(name, spec.model_copy(update={"image_size": _SMOKE_SIZE}))
    except UserError:
        return spec.image_size
    return _SMOKE_SIZE


def _smoke(spec: ClassificationTask, pictures: int, size: int, samples: int, weights: bool) -> dict[str, Any]:
    """Return what makes an experiment small: two steps of an epoch, and generated pictures in the place of many."""
    data: dict[str, Any] = {}
    generated = isinstance(spec.data, TimmData) and pictures > _SMOKE
    if generated or spec.data.name in ("glyphs", "fashion_mnist"):
        data, samples = {"train": 256, "val": 72, "test": 72}, 256
    if generated:
        data = {"name": "glyphs", **data, "classes": min(36, spec.data.classes)}
    small = ({"image_size": size} if size != spec.image_size else {}) | ({"data": data} if data else {})
    batch = max(2, power_of_two(min(16, samples / 4)))
    recipe: dict[str, Any] = {"epochs": 1, "epoch_steps": 2, "batch_size": batch, "warmup_epochs": 0}
    if generated:
        recipe["scale"] = [0.08, 1.0]  # of pictures in files alone
    stages = ("pretrain", "search", "retrain") if weights else ("search", "retrain")
    return ({"task": small} if small else {}) | dict.fromkeys(stages, recipe)
