"""Which part of the data a worker sees, and seeds that are derived from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shard:
    """The part of the data that one worker of several sees."""

    rank: int = 0
    count: int = 1


#: All of the data.
WHOLE = Shard()


def derive_seed(*parts: int) -> int:
    """Mix integers into one seed of 63 bits, so that (1, 2) and (2, 1) are unrelated."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
