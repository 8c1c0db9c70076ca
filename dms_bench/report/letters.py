"""Letters for methods that are not told apart: two share one if, and only if, no test tells them apart.

The insert-and-absorb algorithm of Piepho (J. Comput. Graph. Statist. 13, 2004), with columns that add nothing left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from string import ascii_letters

from dms_bench.report.statistics import LEVEL, difference, holm

#: Two or three differences may be alike by chance, which a test far out in the tail of Student's t takes for certainty.
FEWEST_SEEDS = 4


def grouped(methods: Sequence[Mapping[int, float]]) -> tuple[list[str], int]:
    """Compare every method with every other, and return letters, and the number of comparisons.

    Args:
        methods: the measure by seed, of each method in the order of their letters.

    Returns:
        A string for each method, empty where none of its comparisons has seeds enough; p-values are Holm's.
    """
    tested: dict[tuple[int, int], float] = {}
    for first, second in combinations(range(len(methods)), 2):
        found = difference(methods[first], methods[second])
        if found is not None and found.n >= FEWEST_SEEDS and found.tested:
            tested[first, second] = found.p()
    apart = {pair for pair, p in zip(tested, holm(list(tested.values())), strict=True) if p < LEVEL}
    compared = sorted({method for pair in tested for method in pair})
    place = {method: index for index, method in enumerate(compared)}
    found_letters = letters(len(compared), {(place[first], place[second]) for first, second in apart})
    return [found_letters[place[method]] if method in place else "" for method in range(len(methods))], len(tested)


def letters(count: int, apart: Collection[tuple[int, int]]) -> list[str]:
    """Return the letters of `count` methods, of which these pairs are told apart."""
    columns = [frozenset(range(count))] if count else []
    for first, second in apart:
        split = [column - {one} for column in columns if {first, second} <= column for one in (first, second)]
        kept = [column for column in columns if not {first, second} <= column]
        for column in sorted(split, key=len, reverse=True):
            if not any(column <= other for other in kept):
                kept.append(column)
        columns = kept
    columns = sorted(_needed(columns), key=sorted)
    return [
        "".join(_letter(index) for index, column in enumerate(columns) if method in column) for method in range(count)
    ]


def _needed(columns: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Leave out columns of which every pair, and every method, is in another column, the smallest first."""
    kept = list(columns)
    for column in sorted(columns, key=lambda column: (len(column), sorted(column))):
        others = [other for other in kept if other != column]
        pairs = combinations(sorted(column), 2) if len(column) > 1 else ((method, method) for method in column)
        if all(any({first, second} <= other for other in others) for first, second in pairs):
            kept = others
    return kept


def _letter(index: int) -> str:
    """Return `a` to `Z`, then `a2`, `b2` and so on."""
    turn, place = divmod(index, len(ascii_letters))
    return ascii_letters[place] + (str(turn + 1) if turn else "")
