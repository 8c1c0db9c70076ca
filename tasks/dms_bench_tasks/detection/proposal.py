"""An experiment for a detector and pictures with boxes that somebody brings: input, recipe, and what to start from."""

from __future__ import annotations

from statistics import median
from typing import Any

from dms_bench.config.proposal import Brought, Choice, Proposal, epochs_for, power_of_two
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench_tasks.detection.offline import set_up
from dms_bench_tasks.detection.spec import DetectionTask

#: Optimiser steps of a training from random weights, without and with a GPU: a first answer, not the best one.
_STEPS = {False: 1_000, True: 20_000}
#: Share of these that weights which have learnt something need.
_TUNING = 0.2
#: Most images of a batch, without and with a GPU.
_BATCH = {False: 16, True: 32}
#: Largest height and width of the input, without and with a GPU.
_SIZE = {False: 320, True: 640}
#: Height and width of generated scenes.
_SCENES = 160
#: Below so many pictures, a fiftieth of them says too little.
_FEW = 2_000
#: Training pictures up to which the smoke variant uses them.
_SMOKE = 300
_SMOKE_SIZE = 64
#: Ultralytics' `optimizer: auto` takes AdamW for fewer steps.
_ADAMW_STEPS = 10_000


def propose(brought: Brought) -> Proposal:
    """Return an experiment for a detector and a data YAML.

    Raises:
        UserError: Ultralytics is not installed, there is no such network, or the data are not there.
    """
    set_up()
    from dms_bench_tasks.detection import model as models
    from dms_bench_tasks.detection.data import Source
    from dms_bench_tasks.detection.weights import describe

    name, checkpoint, size, known = brought.model, brought.checkpoint, None, None
    if brought.pretrained:
        raise UserError("Ultralytics' own weights would be downloaded, which is off: give the .pt file as the model")
    if name.endswith((".pt", ".pth")):
        if checkpoint is not None:
            raise UserError(f"{name!r} is a checkpoint itself: leave --checkpoint out")
        name, known, size = describe(name)
        checkpoint = brought.model
        if not name:
            raise UserError(
                f"{brought.model!r} does not say what YAML its network was built from: name that as --model"
            )
    models.configuration(SupernetSpec(model=name))  # refused before anything of the data is looked at
    data, parts = _data(brought)
    gpu = brought.gpus > 0
    generated = data["name"] == "glyph-scenes"
    spec = DetectionTask.model_validate({"data": data, **({"image_size": _SCENES} if generated else {})})
    source = Source(spec)
    source.check()
    samples, names = source.train_samples(), source.names
    image_size, why_size = (_SCENES, "scenes are drawn at this size") if generated else _size(size, _side(source), gpu)
    supernet: dict[str, Any] = {"model": name}
    why_weights = ""
    if checkpoint is not None:
        supernet["checkpoint"] = checkpoint
        other = _other_classes(models, supernet, names, known)
        why_weights = "weights to start from, which are read without running code in their file"
        if other:
            supernet["fresh_head"] = True
            why_weights += f"; {other}: that part of the head is made anew, and pretrained"
    fresh = supernet.get("fresh_head", False)
    listed = ", ".join(list(names.values())[:4]) + (", ..." if len(names) > 4 else "")
    kinds = f"{len(names)} class{'es' * (len(names) != 1)} ({listed})"
    choices = [
        Choice("task.kind", "detection", f"{brought.data}: {samples} pictures to train on, {kinds}{parts}"),
        Choice("task.data", data),
        Choice("task.image_size", image_size, why_size),
        *(
            Choice(f"supernet.{key}", value, why_weights if key == "checkpoint" else "")
            for key, value in supernet.items()
        ),
        Choice(
            "pipeline",
            "DMSp" if checkpoint else "DMSnp",
            "start from the trained weights, search, retrain the searched weights"
            if checkpoint
            else "search and retrain from random weights, as none are given (a .pt file as --model, or --checkpoint)",
        ),
        *_recipes(gpu, samples, len(names), checkpoint is not None, fresh),
    ]
    stages = ("pretrain", "search", "retrain") if fresh else ("search", "retrain")
    return Proposal(choices, _smoke(samples, names, supernet, stages), spec.data.label())


def _data(brought: Brought) -> tuple[dict[str, Any], str]:
    """Return the data's fields, and what they do in words. Raises UserError."""
    if brought.data == "glyph-scenes":
        return {"name": "glyph-scenes"}, ""
    from dms_bench_tasks.detection.data import described

    data: dict[str, Any] = {"name": "yolo", "path": brought.data}
    content = described(brought.data)
    if content.get("test"):
        return data | {"test": "test"}, "; its own val and test"
    share = 0.1 if _images(content["train"]) < _FEW else 0.02
    data |= {"test": "val", "val_fraction": share}
    return data, f"; its val is the test, and {share:.0%} of train is held out for validation"


def _images(sources: Any) -> int:
    from dms_bench_tasks.detection.data import images_of

    return len(images_of(sources))


def _side(source: Any) -> int:
    """Return the median of the longer sides of some training pictures, in pixels."""
    from PIL import Image

    sides = []
    paths = source.plain("train").im_files
    for path in paths[:: max(1, len(paths) // 100)]:
        with Image.open(path) as image:
            sides.append(max(image.size))
    return int(median(sides))


def _size(trained: int | None, side: int, gpu: bool) -> tuple[int, str]:
    """Return the height and width of the input, a multiple of 32, and why."""
    if trained is not None and trained % 32 == 0:
        return trained, "what the checkpoint was trained with"
    near = max(32, min(_SIZE[gpu], 32 * round(side / 32)))
    return (
        near,
        f"the pictures' longer side is {side} as a rule; at most {_SIZE[gpu]} {'with' if gpu else 'without'} a GPU",
    )


def _other_classes(models: Any, supernet: dict[str, Any], names: dict[int, str], known: dict[int, str] | None) -> str:
    """Return in what the checkpoint's classes are others; empty where they are the same, as far as it says."""
    from dms_bench_tasks.detection.weights import detects_others, tensors_of

    network = models.build(SupernetSpec(model=supernet["model"]), len(names), 0)
    if detects_others(network, tensors_of(supernet["checkpoint"])):
        return f"it knows {f'{len(known)} classes' if known else 'another number of classes'}, the data {len(names)}"
    if known and list(known.values()) != list(names.values()):
        return f"its classes have other names ({', '.join(list(known.values())[:3])})"
    return ""


def _recipes(gpu: bool, samples: int, classes: int, weights: bool, fresh: bool) -> list[Choice]:
    """Return the choices of the training stages."""
    batch = max(2, power_of_two(min(_BATCH[gpu], samples / 4)))
    per_epoch = max(1, samples // batch)
    wanted = int(_STEPS[gpu] * (_TUNING if weights else 1))
    epochs = epochs_for(wanted, per_epoch, 3 if weights else 10, 30 if weights else 200)
    recipe: dict[str, Any] = {"epochs": epochs, "batch_size": batch, "nbs": batch}
    if epochs * per_epoch <= _ADAMW_STEPS:
        rate = float(f"{0.002 * 5 / (4 + classes):.2g}")
        recipe |= {"optimizer": "AdamW", "lr0": rate, "momentum": 0.9, "warmup_bias_lr": 0}
        optimiser = "AdamW at the rate that Ultralytics' own `optimizer: auto` takes for so few steps"
    else:
        optimiser = "Ultralytics' SGD"
    recipe |= {"warmup_epochs": _warmup(epochs), "close_mosaic": max(1, epochs // 5)}
    if gpu:
        recipe["amp"] = "bf16"
    why = (
        f"{epochs} epochs of {per_epoch} steps, for a first answer {'with' if gpu else 'without'} a GPU; {optimiser}. "
        "Longer training is better, and costs as much more"
    )
    short = max(1, epochs // 2)
    search = recipe | {"epochs": short, "warmup_epochs": _warmup(short), "close_mosaic": max(1, short // 5)}
    stages = (
        [Choice("pretrain", recipe, "fits the weights to the data, with the new part of the head")] if fresh else []
    )
    return [
        *stages,
        Choice(
            "search", search, "trains weights and structure of the methods that learn it; half as long as retraining"
        ),
        Choice("retrain", recipe, why),
    ]


def _warmup(epochs: int) -> int:
    return 0 if epochs < 4 else min(3, epochs // 4)


def _smoke(samples: int, names: dict[int, str], supernet: dict[str, Any], stages: tuple[str, ...]) -> dict[str, Any]:
    """Return what makes an experiment small: an epoch of small pictures, and generated scenes in the place of many."""
    task: dict[str, Any] = {"image_size": _SMOKE_SIZE}
    own: dict[str, Any] = {}
    batch = max(2, power_of_two(min(8, samples / 4)))
    if samples > _SMOKE:
        classes = min(12, len(names))
        task["data"] = {"name": "glyph-scenes", "train": 48, "val": 16, "test": 16, "classes": classes}
        batch = 8
        if "checkpoint" in supernet and classes != len(names):
            own = {"supernet": {"fresh_head": True}}
    recipe = {"epochs": 1, "batch_size": batch, "nbs": batch, "warmup_epochs": 0}
    every = dict.fromkeys(("pretrain", *stages) if own else stages, recipe)
    return {"task": task, **own, **every}
