"""How long files take for one sample, on one thread of this machine's processor, taking turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor

from dms_bench.inference.runtimes import Predict

_WARM_UP = 5
_ROUNDS = 300
_LEAST_ROUNDS = 15
_ENOUGH_SECONDS = 15.0


def rounds(
    predicts: Sequence[Predict],
    example: Tensor,
    *,
    clock: Callable[[], float] | None = None,
    enough: float | None = None,
) -> list[tuple[float, ...]]:
    """Return the milliseconds that each file takes in each round.

    In a round each file has its turn: a call that is not timed, as the file before has used the caches, and one that
    is. The round after begins one file later, so that none always follows the same one.

    Args:
        predicts: the files, opened.
        example: one sample with its batch dimension, [1, ...].
        clock: tells seconds; the wall's by default.
        enough: seconds by it after which no further round begins, but for a least number of rounds.
    """
    clock = clock or time.perf_counter
    enough = _ENOUGH_SECONDS if enough is None else enough
    with one_thread():
        for predict in predicts:
            for _ in range(_WARM_UP):
                predict(example)
        spent: list[tuple[float, ...]] = []
        started = clock()
        while len(spent) < _ROUNDS:
            if len(spent) >= _LEAST_ROUNDS and clock() - started > enough:
                break
            turn = {(len(spent) + index) % len(predicts): 0.0 for index in range(len(predicts))}
            for index in turn:
                predicts[index](example)
                begun = clock()
                predicts[index](example)
                turn[index] = 1e3 * (clock() - begun)
            spent.append(tuple(turn[index] for index in range(len(predicts))))
    return spent


def medians(spent: Sequence[tuple[float, ...]]) -> list[float]:
    """Return the median of each file's times."""
    return [median(times) for times in zip(*spent, strict=True)]


def ratios(spent: Sequence[tuple[float, ...]], reference: int = 0) -> list[float]:
    """Return the median over rounds of what each file takes against another in the same round."""
    shares = [tuple(value / times[reference] for value in times) for times in spent]
    return medians(shares)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread; the other runtimes were opened for one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
