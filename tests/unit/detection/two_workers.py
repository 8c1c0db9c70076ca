"""Run by test_detection_workers: one rank of two, trained over gloo."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist


def main(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    from dms_bench.methods.gradient.spec import Dms
    from dms_bench.methods.gradient.structure import DmsStructure
    from dms_bench.scaling import Supernet, budget_of, find_space
    from tests.unit.detection.detection_helpers import TINY, MemoryLoop, recipe, task

    def loop(state=None, stop=0):
        own = MemoryLoop(Path(folder), state, stop)
        own.rank, own.world_size = rank, 2
        return own

    own = task()
    first = loop()
    trained = own.fit(own.build(TINY), recipe(2), first)
    if rank == 0:  # the leader measures by itself, as at the end of a trial
        measured = own.evaluate(trained, "test", torch.device("cpu"))
        assert measured["params_fused"] > 0
    killed = loop(stop=1)
    with contextlib.suppress(KeyboardInterrupt):
        own.fit(own.build(TINY), recipe(2), killed)
    # As the runtime's storage does, all ranks read what the leader wrote.
    states = [killed.state]
    dist.broadcast_object_list(states, src=0)
    resumed = own.fit(own.build(TINY), recipe(2), loop(states[0]))

    model = own.build(TINY)
    space = find_space(model, own.example_input())
    net = Supernet(model, space)
    budget = budget_of(space, macs=0.5)
    own.fit(net, recipe(2), loop(), DmsStructure(net, Dms(), budget, trains_weights=True))
    result = {
        "trained": trained.state_dict(),
        "resumed": resumed.state_dict(),
        "search": {name: tensor for name, tensor in net.state_dict().items() if "relaxation" in name},
        "weights": dict(net.model.named_parameters()),
        "architecture": net.architecture(budget).to_json(),
        "metrics": [{k: v for k, v in m.items() if k.startswith(("val", "lr"))} for _, m in first.epochs],
    }
    torch.save(result, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
