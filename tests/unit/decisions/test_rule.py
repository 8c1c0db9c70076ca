"""Decisions: against the rule written out, and against how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from dms_bench.decisions import Rule, decide, power
from dms_bench.decisions.rule import DIFFERENT, EQUAL, decide_all
from tests.unit.decisions import naive

RULE = Rule(at_least=3, at_most=20, margin=0.3)
#: Every method with DMS (0) and with random (1).
PAIRS = ((0, 1), (0, 2), (2, 1), (0, 3), (3, 1))


def suites(
    number: int, deviation: float = 1.0, means: tuple[float, ...] = (0, 0, 0, 0), kind: str = "normal", seed: int = 0
) -> np.ndarray:
    """Return differences between four methods of which each seed has one share of luck in common.

    Shape (number, comparisons, 20); `deviation` is that of a difference.
    """
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda shape: rng.normal(size=shape),
        "t": lambda shape: rng.standard_t(3, size=shape) / np.sqrt(3),
        "skewed": lambda shape: rng.exponential(size=shape),
        "steps": lambda shape: np.round(rng.normal(size=shape), 0),
    }[kind]
    values = draw((number, 4, RULE.at_most)) * deviation / np.sqrt(2) + np.array(means)[:, None]
    values = values + 5 * rng.normal(size=(number, 1, RULE.at_most))  # what seeds do to all methods alike
    ours, theirs = np.array(PAIRS).T
    return np.asarray(values[:, ours] - values[:, theirs])


def bound(number: int, rate: float = 0.05) -> float:
    """Return the share of wrong suites that a rate of `rate` exceeds once in a thousand times."""
    return float(rate + 3.1 * np.sqrt(rate * (1 - rate) / number))


@pytest.mark.parametrize("kind", ["normal", "t", "skewed", "steps"])
def test_of_suites_of_pure_noise_at_most_five_in_a_hundred_claim_a_difference(kind: str) -> None:
    """Whatever the noise of a method is like, so long as it is the same for all: differences are then symmetric."""
    number = 3000
    result = decide_all(suites(number, kind=kind), Rule(3, 20, margin=1e-4))
    assert (result.outcome == DIFFERENT).any(axis=1).mean() <= bound(number)


@pytest.mark.parametrize("comparisons", [1, 5])
def test_the_error_that_may_be_made_is_made(comparisons: int) -> None:
    """A rule that hardly ever errs could do with fewer seeds; with one comparison the spending is exact."""
    number = 4000
    result = decide_all(suites(number)[:, :comparisons], Rule(3, 20, margin=1e-4))
    assert (result.outcome == DIFFERENT).any(axis=1).mean() >= (0.04 if comparisons == 1 else 0.025)


@pytest.mark.parametrize("deviation", [0.1, 0.3, 0.5])
def test_differences_of_just_the_margin_are_seldom_called_equal(deviation: float) -> None:
    number = 3000
    differences = suites(number, deviation, means=(0.3, 0, 0, 0))
    at_margin = [0, 1, 3]
    result = decide_all(differences, RULE)
    assert (result.outcome[:, at_margin] == EQUAL).any(axis=1).mean() <= bound(number)


def test_neither_kind_of_claim_pays_for_the_other() -> None:
    """Comparisons that are found different, and are, do not let others be called equal more easily."""
    rng = np.random.default_rng(1)
    number = 4000
    differences = 0.3 + 0.3 * rng.normal(size=(number, 8, 20))
    assert (decide_all(differences, RULE).outcome == EQUAL).any(axis=1).mean() <= bound(number)


def test_some_true_differences_do_not_make_the_rest_err_more() -> None:
    number = 3000
    result = decide_all(suites(number, means=(4, 0, 0, 0)), Rule(3, 20, margin=1e-4))
    wrong = (result.outcome[:, [2, 4]] == DIFFERENT).any(axis=1).mean()
    right = (result.outcome[:, [0, 1, 3]] == DIFFERENT).mean()
    assert wrong <= bound(number)
    assert right > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("comparisons", [1, 2, 5])
@pytest.mark.parametrize("at_least", [2, 3, 5])
def test_rates_of_error_to_a_quarter_of_a_point(at_least: int, comparisons: int) -> None:
    number = 40_000
    noise = suites(number, seed=7)[:, :comparisons]
    false = (decide_all(noise, Rule(at_least, 20, margin=1e-4)).outcome == DIFFERENT).any(axis=1).mean()
    assert false <= 0.0525
    at_margin = suites(number, 0.3, means=(0.3, 0, 0, 0), seed=8)[:, [0, 1, 3][:comparisons]]
    assert (decide_all(at_margin, Rule(at_least, 20, 0.3)).outcome == EQUAL).any(axis=1).mean() <= 0.0525


def test_decisions_are_those_of_the_rule_written_out() -> None:
    rng = np.random.default_rng(3)
    differences = suites(60, 0.4, means=(0.5, 0, 0.4, 0), seed=3)
    differences[rng.random(differences.shape) < 0.1] = np.nan
    result = decide_all(differences, RULE)
    outcomes = set()
    for family, rows in enumerate(differences):
        expected = naive.decide(rows.tolist(), RULE)
        assert [("undecided", "different", "equal")[code] for code in result.outcome[family]] == [
            outcome for outcome, _ in expected
        ]
        assert result.seeds[family].tolist() == [seeds for _, seeds in expected]
        assert [(one.outcome, one.seeds) for one in decide(_rows(rows), RULE)] == expected
        outcomes |= {outcome for outcome, _ in expected}
    assert outcomes == {"different", "equal", "undecided"}


def _rows(rows: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in rows]


def test_a_decision_is_not_taken_back_by_later_seeds() -> None:
    differences = suites(200, 0.4, means=(0.5, 0, 0, 0), seed=4)
    whole = decide_all(differences, RULE)
    for seeds in (5, 10):
        early = decide_all(differences[:, :, :seeds], RULE)
        taken = early.outcome != 0
        assert taken.any()
        assert (whole.outcome[taken] == early.outcome[taken]).all()
        assert (whole.seeds[taken] == early.seeds[taken]).all()


def test_the_interval_says_what_was_decided() -> None:
    differences = suites(80, 0.4, means=(0.5, 0, 0, 0), seed=6)
    for rows in differences:
        for one, row in zip(decide(_rows(rows), RULE), rows, strict=True):
            assert one.mean == pytest.approx(row[: one.seeds].mean())
            assert one.low is not None
            assert one.high is not None
            if one.outcome == "different":
                assert one.low * one.high >= -1e-9
            elif one.outcome == "equal":
                assert -RULE.margin <= one.low <= one.high <= RULE.margin
            else:
                assert one.low < 0 < one.high


def test_nothing_is_claimed_of_differences_without_spread_or_of_too_few() -> None:
    same = [[0.5] * 20, [0.0] * 20, [0.1, None, None, 0.2]]
    found = decide([row + [None] * (20 - len(row)) for row in same], RULE)
    assert [(one.outcome, one.seeds, one.pairs) for one in found] == [
        ("undecided", 20, 20),
        ("undecided", 20, 20),
        ("undecided", 20, 2),
    ]
    assert found[2].mean == pytest.approx(0.15)
    assert found[2].low is None


def test_a_seed_without_a_pair_is_none() -> None:
    """It is as if the seed had not been drawn, but that it counts as looked at."""
    values = [0.9, 1.1, 1.0, 1.05, 0.97]
    without = decide([values], RULE)[0]
    gap = decide([[values[0], None, *values[1:]]], RULE)[0]
    assert without.outcome == gap.outcome == "different"
    assert (gap.pairs, gap.seeds) == (without.pairs, without.seeds + 1)
    assert (gap.mean, gap.low) == (without.mean, without.low)


def test_power_is_the_share_of_simulated_suites_that_decide() -> None:
    """Against suites drawn here, decided one by one by the rule written out."""
    rng = np.random.default_rng(11)
    rule = Rule(3, 8, 0.3)
    found = power([(0, 1), (0, 2)], rule, effect=0.6, deviation=0.5)
    outcomes = []
    for _ in range(150):
        arms = rng.normal(size=(3, 8)) * 0.5 / np.sqrt(2) + np.array([0.6, 0, 0])[:, None]
        outcomes += [kind == "different" for kind, _ in naive.decide((arms[0] - arms[1:]).tolist(), rule)]
    assert found.different == pytest.approx(np.mean(outcomes), abs=0.09)
    assert 3 <= found.seeds_different <= 8
    assert power([(0, 1)], rule, effect=3.0, deviation=0.2).different > 0.99
    assert power([(0, 1)], rule, effect=0.0, deviation=0.5).different < 0.07
    assert power([(0, 1)], Rule(3, 20, 0.3), effect=0.0, deviation=0.1).equal > 0.99
