"""Letters for methods that are not told apart: two share one if, and only if, no test tells them apart.

A letter stands for methods of which no two are told apart, and which no other can join (Piepho, J. Comput. Graph.
Statist. 13, 2004). To find the fewest is hard; here each pair that has none yet gets the next letter, and those that
add nothing are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, combinations_with_replacement
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
    """Return the letters of `count` methods, of which these pairs, the smaller number first, are told apart."""
    columns: list[frozenset[int]] = []
    covered: set[tuple[int, int]] = set()
    for first, second in combinations_with_replacement(range(count), 2):
        if (first, second) in covered or (first, second) in apart:
            continue
        column = {first, second}
        for other in range(count):
            if all((min(one, other), max(one, other)) not in apart for one in column):
                column.add(other)
        columns.append(frozenset(column))
        covered.update(combinations_with_replacement(sorted(column), 2))
    columns = sorted(_needed(columns), key=sorted)
    return [
        "".join(_letter(index) for index, column in enumerate(columns) if method in column) for method in range(count)
    ]


def _needed(columns: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Leave out columns of which every pair, and every method, is in another column, the smallest first."""
    pairs = {column: list(combinations_with_replacement(sorted(column), 2)) for column in columns}
    times = Counter(pair for own in pairs.values() for pair in own)
    kept = set(columns)
    for column in sorted(columns, key=lambda column: (len(column), sorted(column))):
        if all(times[pair] > 1 for pair in pairs[column]):
            kept.remove(column)
            times.subtract(pairs[column])
    return list(kept)


def _letter(index: int) -> str:
    """Return `a` to `Z`, then `a2`, `b2` and so on."""
    turn, place = divmod(index, len(ascii_letters))
    return ascii_letters[place] + (str(turn + 1) if turn else "")
