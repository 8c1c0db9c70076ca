"""Two processes that work on a trial together."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

WORKERS = 2
#: Seconds that two processes may take for what they are asked.
_PATIENCE = 300.0

Answer = TypeVar("Answer")


def in_two_processes(work: Callable[[Any, int], Answer], argument: Any, folder: Path) -> tuple[Answer, Answer]:
    """Return what two processes, a group of `torch.distributed`, make of what they are given.

    Raises:
        AssertionError: one of them failed, or they wait for one another.
    """
    meeting = folder / "meeting"
    shutil.rmtree(meeting, ignore_errors=True)
    meeting.mkdir()
    # A server imports torch once, and later calls fork from it. It keeps the environment that it began with.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dms_bench.testing"])
    # Pickled by itself: multiprocessing would share each tensor through a file descriptor.
    packed = pickle.dumps((work, argument))
    workers = [
        context.Process(target=_worker, args=(packed, meeting, rank, dict(os.environ))) for rank in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + _PATIENCE
    codes: list[int | None] = []
    try:
        while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
            if any(worker.exitcode for worker in workers):  # the other waits for it in vain
                break
            time.sleep(0.05)
        codes = [worker.exitcode for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    for rank, code in enumerate(codes):
        error = meeting / f"{rank}.error"
        if code:
            raise AssertionError(
                f"worker {rank} of two failed: {error.read_text() if error.exists() else f'exit code {code}'}"
            )
    if None in codes:
        raise AssertionError(f"two workers have not ended after {_PATIENCE:.0f} s: one may wait for the other")
    one, other = (torch.load(meeting / f"{rank}.pt", weights_only=False) for rank in range(WORKERS))
    return one, other


def _worker(packed: bytes, meeting: Path, rank: int, variables: dict[str, str]) -> None:
    """Be one of two processes."""
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}/store", rank=rank, world_size=WORKERS)
    try:
        work, argument = pickle.loads(packed)
        torch.save(work(argument, rank), meeting / f"{rank}.pt")
    except Exception as error:
        (meeting / f"{rank}.error").write_text(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
        raise SystemExit(1) from error
    distributed.barrier()
    distributed.destroy_process_group()
