"""Training by Ultralytics' own trainer: pretraining, search and retraining.

`DetectionTraining` is a `DetectionTrainer` whose network, data, checkpoints and end of an epoch are the runtime's. All
else (augmentation and its end, warm-up, losses, average of weights, validation) is Ultralytics' own.
In a search the network is `Searched`: Ultralytics' attributes around the masked supernet.

Import after `offline.set_up`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from dms_bench.errors import TrialFailure, UserError
from dms_bench.tasks import Loop, StructureHook
from dms_bench_tasks.detection.data import Source
from dms_bench_tasks.detection.measure import percent
from dms_bench_tasks.detection.model import detector_of, library_form
from dms_bench_tasks.detection.offline import quiet
from dms_bench_tasks.detection.paced_loader import PacedLoader
from dms_bench_tasks.detection.searched import Searched, SearchLoss, share_structure
from dms_bench_tasks.detection.spec import DetectionRecipe

#: Largest norm of the gradients, as in Ultralytics.
CLIP = 10.0
#: Fields of a recipe that the trainer's configuration has under the same name.
_SAME = set(DetectionRecipe.model_fields) - {"epochs", "batch_size", "amp", "close_mosaic"}


def fit(
    model: nn.Module, source: Source, recipe: DetectionRecipe, loop: Loop, structure: StructureHook | None, seed: int
) -> nn.Module:
    """Train `model` from where the stage was left, and return it with its averaged weights.

    Raises:
        TrialFailure: the loss is not finite, or the stage's checkpoint does not fit.
        UserError: the batch cannot be split over the workers.
    """
    if recipe.batch_size % loop.world_size:
        raise UserError(f"batch_size {recipe.batch_size} cannot be split over {loop.world_size} workers evenly")
    model.to(loop.device)
    with library_form(model):
        training = DetectionTraining(model, source, recipe, loop, structure, seed)
        training.train()
        average = detector_of(training.ema.ema)
        detector_of(model).load_state_dict(average.state_dict())
    return model


class DetectionTraining(DetectionTrainer):  # type: ignore[misc]
    """One stage. Its name keeps Ultralytics from adding the callbacks of other trackers to it.

    Args:
        model: a detector, or the masked supernet of a search.
        source: its data.
        recipe: how to train.
        loop: the runtime's side.
        structure: what a search adds to a step.
        seed: decides the order and augmentation of the data.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        recipe: DetectionRecipe,
        loop: Loop,
        structure: StructureHook | None,
        seed: int,
    ) -> None:
        self.source, self.recipe, self.loop, self.structure = source, recipe, loop, structure
        self.data_seed, self._saved = seed, loop.resume()
        self.trains_weights = structure is None or structure.trains_weights
        self.detector = detector_of(model)
        self._in_step, self._batch, self._epoch_began = False, 0, 0.0
        super().__init__(overrides=_options(recipe, source, loop, seed))
        self.model = Searched(model, SearchLoss(structure.loss)) if structure is not None else model
        if loop.world_size > 1:
            if loop.rank != RANK:
                raise TrialFailure("Ultralytics was imported before this worker had its rank")
            self.world_size = loop.world_size
        self.add_callback("on_train_epoch_start", lambda _: self._begin_epoch())
        self.add_callback("on_train_batch_start", lambda _: self._begin_batch())
        self.add_callback("on_train_batch_end", lambda _: self._end_batch())
        self.add_callback("on_val_batch_end", lambda _: loop.tick())
        self.add_callback("on_fit_epoch_end", lambda _: self._end_epoch())

    # What Ultralytics asks for, answered by the runtime.

    def get_dataset(self) -> dict[str, Any]:
        """Return the description of the data; nothing is downloaded."""
        return dict(self.source.description)

    def build_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """Return a split as Ultralytics' data set, without its progress bar."""
        with quiet():
            return super().build_dataset(*args, **kwargs)

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loader of a split, over which a rehearsal looks on."""
        return PacedLoader(super().get_dataloader(*args, **kwargs))

    def _setup_ddp(self) -> None:
        """Do nothing: the workers have met already."""

    def _setup_train(self) -> None:
        """Set up as for one worker; with more of them, let the network share its gradients."""
        with self._as_one_worker():
            super()._setup_train()
        if self.world_size > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            # Not all blocks have a gradient in every step; statistics of batch norm are each worker's own, as in
            # Ultralytics, until `validate` shares those of the average.
            self.model = nn.parallel.DistributedDataParallel(
                self.model, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False
            )

    @contextmanager
    def _as_one_worker(self) -> Iterator[None]:
        """Keep Ultralytics from wrapping the network, and from what works on GPUs only."""
        workers, self.world_size = self.world_size, min(1, self.world_size)
        try:
            yield
        finally:
            self.world_size = workers

    def _build_train_pipeline(self) -> None:
        """Build the loaders of this worker's part of a batch."""
        before, self.world_size = self.world_size, self.loop.world_size
        super()._build_train_pipeline()
        self.world_size = before

    def set_model_attributes(self) -> None:
        """Tell the network its classes and the weights of its losses."""
        self.detector.nc, self.detector.names = self.data["nc"], self.data["names"]
        self.detector.args = self.args
        self.detector.criterion = None  # of another device, perhaps

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the optimiser of the network's weights alone; the structure has its own."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(self.detector, *args, **kwargs)
        return optimizer

    def save_model(self) -> bool:
        """Write nothing: the runtime keeps the checkpoints."""
        return False

    def final_eval(self) -> None:
        """Measure nothing: the runtime does, on data of its own."""

    def optimizer_step(self) -> None:
        """Step weights and structure, then the average.

        Frozen weights (DMSp-) are not stepped; batch norm's statistics follow the masks, as the network trains.
        """
        if self.trains_weights:
            nn.utils.clip_grad_norm_(self.detector.parameters(), CLIP)
            self.optimizer.step()
        if self.structure is not None:
            self.structure.end_step()
        self.optimizer.zero_grad()
        self.ema.update(self.model)
        self._in_step = False

    def validate(self) -> tuple[Any, Any]:
        """Measure the averaged network, in a search under the present masks."""
        if self.structure is not None:
            share_structure(unwrap_model(self.model).supernet, self.ema.ema.supernet)
        if self.world_size > 1:
            for buffer in self.ema.ema.buffers():
                dist.broadcast(buffer, src=0)
        with self._as_one_worker():
            measured: tuple[Any, Any] = super().validate()
        return measured

    def resume_training(self, ckpt: Any) -> None:
        """Take up the state that the runtime has kept, if any."""
        state = self._saved
        if state is None:
            return
        try:
            unwrap_model(self.model).load_state_dict(state["model"])
            self.ema.ema.load_state_dict(state["ema"])
            self.ema.updates = int(state["updates"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.structure is not None:
                self.structure.load_state_dict(state["structure"])
            self.start_epoch = int(state["epoch"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrialFailure(f"the checkpoint of this stage is damaged or of another network: {reason}") from error
        self.detector.criterion = self.detector.init_criterion()
        for _ in range(self.start_epoch):  # losses of two heads shift their weights with every epoch
            getattr(self.detector.criterion, "update", lambda: None)()

    def _do_train(self) -> None:
        """Train, unless all epochs were done when the stage was left."""
        if self._saved is not None and int(self._saved["epoch"]) >= self.epochs:
            self._setup_train()
            return
        super()._do_train()

    # The course of an epoch.

    def _begin_epoch(self) -> None:
        """Nothing random outlives an epoch, so that a resumed stage repeats an undisturbed one."""
        self._batch, self._epoch_began = 0, time.perf_counter()
        if self.epoch >= self.epochs - self.recipe.close_mosaic:
            self._close_dataloader_mosaic()
        seed = int(np.random.SeedSequence((self.data_seed, self.epoch, self.loop.rank)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.train_loader.reset()
        self.train_loader.generator.manual_seed(seed)

    def _begin_batch(self) -> None:
        """An optimiser step begins with the first of its batches."""
        if self.structure is not None and not self._in_step:
            self._in_step = True
            self.structure.begin_step(self._progress())
        self._batch += 1

    def _progress(self) -> float:
        return float((self.epoch + self._batch / len(self.train_loader)) / self.epochs)

    def _end_batch(self) -> None:
        if not bool(torch.isfinite(self.loss)):
            stage = "search" if self.structure else "training"
            value = float(self.loss.detach())
            raise TrialFailure(f"{stage}: the loss is {value} in epoch {self.epoch + 1}: try a lower lr0")
        self.loop.tick()

    def _end_epoch(self) -> None:
        """Hand metrics and state to the runtime."""
        seconds = time.perf_counter() - self._epoch_began
        val_metrics = [percent(self.metrics) if self.loop.rank == 0 else None]
        if self.world_size > 1:  # the first worker has them
            dist.broadcast_object_list(val_metrics, src=0)
        metrics = {f"train_{name}": float(value) for name, value in self.tloss.items()}
        metrics |= {f"val_{name}": value for name, value in (val_metrics[0] or {}).items()}
        metrics |= {"lr": max(group["lr"] for group in self.optimizer.param_groups), "seconds": seconds}
        if self.structure is not None:
            metrics |= self.structure.metrics()
        self.loop.epoch_done(self.epoch + 1, metrics, self._state())

    def _state(self) -> dict[str, Any]:
        """Return tensors and plain values to go on from."""
        state = {
            "epoch": self.epoch + 1,
            "model": unwrap_model(self.model).state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.structure is not None:
            state["structure"] = self.structure.state_dict()
        return state


def _options(recipe: DetectionRecipe, source: Source, loop: Loop, seed: int) -> dict[str, Any]:
    """Return the recipe in the words of Ultralytics' configuration."""
    recipe_options = {name: getattr(recipe, name) for name in _SAME}
    return recipe_options | {
        **{"task": "detect", "mode": "train", "model": "searched.yaml", "data": str(source.path), "seed": seed},
        **{"epochs": recipe.epochs, "batch": recipe.batch_size, "imgsz": source.task.image_size},
        **{"nbs": max(recipe.nbs, recipe.batch_size), "amp": "bf16" if recipe.amp == "bf16" else False},
        **{"cache": source.cache, "workers": source.workers, "device": str(loop.device)},
        **{"project": str(loop.folder), "name": "ultralytics", "exist_ok": True, "pretrained": False},
        # Mosaic is closed by `_begin_epoch`, which knows where a resumed stage stands.
        **{"close_mosaic": 0, "patience": 0, "save": False, "plots": False, "val": True, "verbose": False},
    }
