"""Run by test_two_workers: one rank of two, trained over gloo."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from dms_bench.methods.sampling.fitness import agreed
from dms_bench.scaling import Architecture, find_space
from dms_bench.trial.weight_sharing import train_sharing
from tests.unit.classification.classification_helpers import (
    NORMLESS,
    TINY,
    MemoryLoop,
    RecordingHook,
    SearchWrapper,
    glyph_task,
    recipe,
)


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    task, loop = glyph_task(), MemoryLoop(rank=rank, world_size=2)
    options = {"mixup": 0.2, "drop": 0.1, "model_ema_decay": 0.9, "grad_accum_steps": 2, "clip_grad": 1.0}
    trained = task.fit(task.build(TINY), recipe(**options), loop)
    wrapper = SearchWrapper(task.build(TINY))
    task.fit(wrapper, recipe(epochs=1), MemoryLoop(rank=rank, world_size=2), RecordingHook(wrapper))
    plain = task.fit(task.build(NORMLESS), recipe(epochs=1), MemoryLoop(rank=rank, world_size=2))
    sharing = task.build(NORMLESS)
    space = find_space(sharing, task.example_input())
    train_sharing(task, sharing, space, recipe(epochs=1), MemoryLoop(rank=rank, world_size=2), seed=0)
    score = agreed(lambda architecture: float(rank + 1), torch.device("cpu"))(Architecture({}, {}, 0, 0))
    metrics = loop.epochs[-1][1]
    result = {
        "trained": trained.state_dict(),
        "search": wrapper.state_dict(),
        "plain": plain.state_dict(),
        "sharing": sharing.state_dict(),
        "score": score,
        "shared": {name: metrics[name] for name in ("train_loss", "val_top1", "lr")},
    }
    torch.save(result, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
