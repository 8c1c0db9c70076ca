"""A process that has ended a trial holds what it needs, not what the trial needed."""

import platform

import psutil
import pytest

from dms_bench.trial.allocator import give_back_memory


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self, content):
        self.content, self.itself = content, self


def _block():
    """Return memory that is used, below the size at which blocks are mapped on their own."""
    return bytearray(b"x") * 2**16


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's allocator")
def test_what_is_free_goes_back_to_the_system():
    def held():
        return psutil.Process().memory_info().rss / 2**20

    give_back_memory()
    before = held()
    knots, pins = [], []
    for _ in range(40):
        knots.append(Knot([_block() for _ in range(100)]))
        pins.append(_block())
    full = held()
    assert full - before > 150
    knots.clear()
    give_back_memory()
    assert held() - before < 0.2 * (full - before)
    assert len(pins) == 40
