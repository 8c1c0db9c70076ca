"""Corrections for many comparisons, letters and decisions: against scipy, definitions and simulated noise."""

from __future__ import annotations

import math
from itertools import combinations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dms_bench.report.board import Row, rows
from dms_bench.report.decisions import Above, Within, decide
from dms_bench.report.families import family
from dms_bench.report.layout import blocks, footnotes
from dms_bench.report.letters import FEWEST_SEEDS, grouped, letters
from dms_bench.report.records import Record
from dms_bench.report.statistics import Difference, difference, holm
from tests.unit.report.trials import record

SLOW = settings(deadline=None)


def seeds(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


def made(values: list[float]) -> Difference:
    found = difference(seeds(values), dict.fromkeys(range(len(values)), 0.0))
    assert found is not None
    return found


SAMPLE = st.lists(st.floats(-50, 50), min_size=2, max_size=9).filter(lambda values: numpy.std(values) > 1e-3)


@SLOW
@given(SAMPLE, st.floats(-20, 20))
def test_p_values_are_scipys(values: list[float], bound: float) -> None:
    found = made(values)
    two = stats.ttest_1samp(values, bound)
    assert found.p(bound) == pytest.approx(two.pvalue, rel=1e-6, abs=1e-9)
    one = stats.ttest_1samp(values, bound, alternative="greater")
    assert found.p_above(bound) == pytest.approx(one.pvalue, rel=1e-6, abs=1e-9)


@SLOW
@given(SAMPLE, st.integers(1, 40))
def test_intervals_hold_together_by_bonferroni(values: list[float], comparisons: int) -> None:
    half = stats.t.ppf(1 - 0.05 / (2 * comparisons), len(values) - 1) * stats.sem(values)
    assert made(values).half(comparisons) == pytest.approx(half, rel=1e-6)


def test_equal_differences_are_no_certainty() -> None:
    """Five pairs of one sign have the sign test's 2/32, not the zero of a t-test without a deviation."""
    assert made([0.5] * 5).p() == pytest.approx(2 / 32)
    assert made([0.1 + 0.2, 0.3, 0.3]).p() == pytest.approx(2 / 8)
    assert made([0.5] * 5).half() is None
    assert made([0.0] * 5).p() == 1.0
    assert made([1.0] * 5).p_above(2.0) == 1.0
    assert made([1.0] * 5).p_above(1.0) == 1.0


def test_what_is_no_number_is_not_tested() -> None:
    for odd in (math.nan, math.inf):
        found = made([1.0, odd, 2.0])
        assert not found.tested
        assert found.half() is None
        with pytest.raises(ValueError, match="all of them numbers"):
            found.p()
    assert not made([1.0]).tested
    assert difference({0: math.inf, 1: 1.0, 2: 3.0}, {0: 1.0, 1: math.inf, 2: 0.0}) is not None
    assert difference({0: 1.0}, {1: 1.0}) is None


def naive_holm(p_values: list[float]) -> list[float]:
    """The definition: the largest of (m - j + 1) p(j) over all that are as small or smaller."""
    ordered = sorted(p_values)
    m = len(p_values)
    return [min(1.0, max((m - j) * ordered[j] for j in range(m) if ordered[j] <= p)) for p in p_values]


@given(st.lists(st.floats(0, 1), max_size=12, unique=True))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(naive_holm(p_values))


def test_holm_by_hand() -> None:
    """Worked by hand: 4 x 0.01, 3 x 0.005 and so on; the third is lifted to the second."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_family_counts_what_was_tested() -> None:
    found = family({"a": made([1, 2, 3.5]), "b": made([1.0]), "c": None, "d": made([4, 5, 5.5])})
    assert found.size == 2
    assert found.comparisons["b"] == found.comparisons["c"] == (None, None)
    raw = [stats.ttest_1samp(values, 0).pvalue for values in ([1, 2, 3.5], [4, 5, 5.5])]
    assert [found.comparisons[name].p for name in "ad"] == pytest.approx(naive_holm(raw))
    assert found.comparisons["a"].half == pytest.approx(stats.t.ppf(1 - 0.0125, 2) * stats.sem([1, 2, 3.5]))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, set[tuple[int, int]]]:
    count = draw(st.integers(0, 7))
    pairs = list(combinations(range(count), 2))
    return count, {pair for pair in pairs if draw(st.booleans())}


@SLOW
@given(graphs())
def test_two_share_a_letter_if_and_only_if_they_are_not_told_apart(graph: tuple[int, set[tuple[int, int]]]) -> None:
    count, apart = graph
    own = letters(count, apart)
    assert len(own) == count
    assert all(own)
    for pair in combinations(range(count), 2):
        assert bool(set(own[pair[0]]) & set(own[pair[1]])) == (pair not in apart), (own, apart)
    every = sorted({letter for text in own for letter in text})
    assert every == [chr(ord("a") + index) for index in range(len(every))]
    # No letter can be done without.
    for letter in every:
        fewer = [set(text) - {letter} for text in own]
        lost = any(not text for text in fewer) or any(
            not fewer[first] & fewer[second]
            for first, second in combinations(range(count), 2)
            if (first, second) not in apart
        )
        assert lost, (letter, own, apart)


def test_letters_by_hand() -> None:
    """The usual pattern of a, ab, b: neighbours are not told apart, the ends are."""
    assert letters(3, {(0, 2)}) == ["a", "ab", "b"]
    assert letters(3, set()) == ["a", "a", "a"]
    assert letters(2, {(0, 1)}) == ["a", "b"]
    assert letters(1, set()) == ["a"]


def test_letters_of_methods_are_those_of_scipys_paired_tests() -> None:
    generator = numpy.random.default_rng(3)
    noise = generator.normal(size=6)
    values = [list(noise + generator.normal(shift, 0.4, size=6)) for shift in (3, 2.8, 1.5, 0, -0.2)]
    own, pairs = grouped([seeds(method) for method in values])
    assert pairs == 10
    every = list(combinations(range(5), 2))
    adjusted = naive_holm([stats.ttest_rel(values[a], values[b]).pvalue for a, b in every])
    assert any(p < 0.05 for p in adjusted)
    assert any(p >= 0.05 for p in adjusted)
    for (a, b), p in zip(every, adjusted, strict=True):
        assert bool(set(own[a]) & set(own[b])) == (p >= 0.05)


def test_few_seeds_get_no_letters() -> None:
    apart = [seeds([10.0, 10.1, 10.2, 10.15]), seeds([0.0, 0.2, 0.1, 0.1])]
    assert FEWEST_SEEDS == 4
    assert grouped(apart) == (["a", "b"], 1)
    three = [{seed: own[seed] for seed in range(3)} for own in apart]
    assert grouped(three) == (["", ""], 0)
    assert grouped([*apart, {0: 5.0}]) == (["a", "b", ""], 1)
    assert grouped([*apart, seeds([math.nan] * 4)]) == (["a", "b", ""], 1)
    assert grouped([]) == ([], 0)


def suite(generator: numpy.random.Generator, count: int, shifts: dict[str, float], budgets: int = 2) -> list[Record]:
    """Trials of methods that differ by shifts, and by noise of which a part is the seed's."""
    found = []
    for budget in range(budgets):
        for seed in range(count):
            shared = generator.normal()
            for method, shift in shifts.items():
                value = 70 + shift + shared + generator.normal(scale=2 if method == "random" else 1)
                found.append(record(method, seed, value, budget=f"{30 + 10 * budget}%"))
    return found


def claims(board: list[Row]) -> bool:
    """Whether a board says of any two methods that they differ."""
    return any("*" in cell for block in blocks(board) for line in block.lines for cell in line.cells[-2:])


def test_pure_noise_is_claimed_to_differ_on_at_most_one_board_in_twenty() -> None:
    generator = numpy.random.default_rng(11)
    methods = dict.fromkeys(("dms", "random", "uniform", "l1", "taylor"), 0.0)
    boards = 400
    stars = lettered = 0
    for _ in range(boards):
        board = rows(suite(generator, 5, methods))
        stars += claims(board)
        lettered += len({row.letters for row in board if row.budget == "30%"}) > 1
    # Two standard deviations of the count above 5 %.
    limit = 0.05 * boards + 2 * math.sqrt(0.05 * 0.95 * boards)
    assert 0 < stars <= limit
    assert lettered <= limit


def test_a_board_corrects_its_differences_and_counts_each_pair_once() -> None:
    board = rows(suite(numpy.random.default_rng(5), 5, {"dms": 4.0, "random": 0.0, "uniform": 3.0, "l1": 1.0}))
    by_seed = {(row.budget, row.kind): [row.values[seed] for seed in range(5)] for row in board}
    pairs = [
        (budget, *pair)
        for budget in ("30%", "40%")
        for pair in (("dms", "random"), ("uniform", "random"), ("l1", "random"), ("uniform", "dms"), ("l1", "dms"))
    ]
    adjusted = naive_holm([stats.ttest_rel(by_seed[b, first], by_seed[b, second]).pvalue for b, first, second in pairs])
    found = {(row.budget, row.kind): row for row in board}
    for (budget, first, second), p in zip(pairs, adjusted, strict=True):
        row = found[budget, first]
        own = (
            (row.delta_random_p, row.delta_random_half) if second == "random" else (row.delta_dms_p, row.delta_dms_half)
        )
        differences = numpy.subtract(by_seed[budget, first], by_seed[budget, second])
        assert own[0] == pytest.approx(p)
        assert own[1] == pytest.approx(stats.t.ppf(1 - 0.05 / 20, 4) * stats.sem(differences))
    assert {row.comparisons for row in board} == {10}
    assert found["30%", "random"].delta_dms_p == found["30%", "dms"].delta_random_p
    assert {row.pairs for row in board} == {6}
    said = " ".join(footnotes(board))
    assert "all 10 comparisons of a table at once (Bonferroni)" in said
    assert "(6 pairs, paired by seed, Holm at 5 %)" in said
    assert "group" in blocks(board)[0].columns


@pytest.mark.parametrize(
    ("count", "note"), [(3, "is not asked at 2 of 2 budgets: they have fewer than 4"), (1, "n = 1")]
)
def test_few_seeds_are_said_to_decide_nothing(count: int, note: str) -> None:
    board = rows(suite(numpy.random.default_rng(5), count, {"dms": 9.0, "random": 0.0}))
    assert note in " ".join(footnotes(board))
    assert "group" not in blocks(board)[0].columns


def test_a_method_with_few_seeds_is_not_apart_from_those_that_are_alike() -> None:
    trials = [record(method, seed, 70.0 + seed) for method in ("dms", "random") for seed in range(5)]
    board = rows([*trials, record("uniform", 0, 60.0)])
    assert sorted(row.letters for row in board) == ["", "a", "a"]
    assert "group" not in blocks(board)[0].columns
    assert "No two methods are told apart at 1 of 1 budget." in footnotes(board)


def test_ties_and_trials_that_diverged_are_no_differences() -> None:
    board = rows(
        [record("dms", seed, 70.0) for seed in range(5)]
        + [record("random", seed, 70.0) for seed in range(5)]
        + [record("uniform", seed, math.nan if seed else 60.0) for seed in range(5)]
    )
    found = {row.kind: row for row in board}
    assert found["dms"].delta_random_p == 1.0
    assert found["uniform"].delta_random_p is None
    assert found["uniform"].letters == ""
    assert found["dms"].letters == found["random"].letters == "a"
    assert not claims(board)


def test_claims_are_decided_by_one_interval() -> None:
    """Against the 95 % interval itself: the claim alone, so that nothing is corrected."""
    generator = numpy.random.default_rng(0)
    seen = set()
    for _ in range(400):
        values = list(generator.normal(generator.choice([-1.5, 0, 0.1, 0.8, 1.5]), generator.choice([0.1, 1]), size=5))
        half = stats.t.ppf(0.975, 4) * stats.sem(values)
        low, high = numpy.mean(values) - half, numpy.mean(values) + half
        above = "true" if low > 0.2 else "false" if high < 0.2 else "equal" if low > -1 and high < 1 else "open"
        within = "true" if low > -1 and high < 1 else "false" if low > 1 or high < -1 else "open"
        (first,) = decide([(Above(0.2, 1.0), made(values))])
        (second,) = decide([(Within(1.0), made(values))])
        assert (first.decision, second.decision) == (above, within)
        seen |= {("above", above), ("within", within)}
    assert len(seen) == 7


def test_a_family_of_claims_is_corrected_by_holm() -> None:
    clear, close = made([5.0, 5.2, 5.1, 4.9]), made([1.0, 2.0, 0.8, 1.7])
    p = stats.ttest_1samp([1.0, 2.0, 0.8, 1.7], 0).pvalue
    assert 0.01 < p < 0.025
    (alone,) = decide([(Above(), close)])
    assert (alone.decision, alone.p) == ("true", pytest.approx(p))
    last = decide([(Above(), clear), (Above(), clear), (Above(), close)])[-1]
    assert (last.decision, last.p) == ("true", pytest.approx(p)), "the others are surer: nothing is left to correct for"
    several = decide([(Above(), close)] * 5 + [(Above(), None), (Above(), made([1.0]))])
    assert [found.decision for found in several] == ["open"] * 7
    assert several[0].p == pytest.approx(5 * p)
    assert several[5].p is None
    assert several[0].half == pytest.approx(stats.t.ppf(1 - 0.005, 3) * stats.sem([1.0, 2.0, 0.8, 1.7]))
    assert decide([]) == []


def test_a_preferred_decision_stands_the_same_correction() -> None:
    """Above 0 at p = 0.016 alone and surely within 1: ahead where it is asked alone, equal among five questions."""
    slight = made([0.1, 0.16, 0.05, 0.08, 0.01])
    assert 0.01 < stats.ttest_1samp([0.1, 0.16, 0.05, 0.08, 0.01], 0).pvalue < 0.05
    assert decide([(Above(0.0, 1.0), slight)])[0].decision == "true"
    assert [found.decision for found in decide([(Above(0.0, 1.0), slight)] * 5)] == ["equal"] * 5


def test_one_budget_that_is_told_apart_shows_the_letters_of_all() -> None:
    trials = suite(numpy.random.default_rng(5), 5, {"dms": 30.0, "random": 0.0}, budgets=1)
    trials += [record(method, seed, 70.0 + seed, budget="50%") for method in ("dms", "random") for seed in range(5)]
    (block,) = blocks(rows(trials))
    place = block.columns.index("group")
    assert [line.cells[place] for line in block.lines] == ["a", "b", "a", "a"]


def test_noise_decides_falsely_in_at_most_one_family_in_twenty() -> None:
    """Claims that are false by nothing: the mean is at the bound, or at the margin."""
    generator = numpy.random.default_rng(7)
    families = 1500
    false = 0
    for _ in range(families):
        questions = [(Above(0.0), made(list(generator.normal(size=5)))) for _ in range(3)]
        questions += [(Within(1.0), made(list(generator.normal(1.0, 0.3, size=5)))) for _ in range(2)]
        false += any(found.decision != "open" for found in decide(questions))
    assert 0.02 * families < false <= 0.05 * families + 2 * math.sqrt(0.05 * 0.95 * families)
