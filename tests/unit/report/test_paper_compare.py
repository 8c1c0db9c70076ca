"""Lines, differences, tolerances and verdicts of a published table, against a store of known numbers."""

import pytest
from pydantic import ValidationError

from dms_bench.config.published import Selector
from dms_bench.errors import UserError
from dms_bench.report.paper.cells import notes
from dms_bench.report.paper.compare import choose_profile
from dms_bench.report.paper.judge import together
from dms_bench.report.paper.measured import Measured, distilled, select
from tests.unit.report.paper_store import ROWS, compared, days, run_suite, small_paper

CLEAR = {
    "dms": {0: 74.9, 1: 75.3, 2: 75.1},
    "uniform": {0: 71.0, 1: 71.4, 2: 71.3},
    "random": {0: 60.0, 1: 62.0, 2: 61.0},
}


@pytest.fixture
def filled(store, make_trial, make_suite):
    """Return a function that fills the store with a suite and compares it with the paper."""

    def fill(values=CLEAR, paper=None, profile="proxy", **fields):
        name = "table02" if profile == "proxy" else f"table02-{profile}"
        run_suite(store, make_trial, make_suite, values, name, **fields)
        return compared(store, paper or small_paper(), profile)

    return fill


def lines(comparison):
    return {line.row.id: line for line in comparison.lines}


def test_the_published_setting_has_differences_and_tolerances(filled):
    found = lines(filled(profile="full"))
    assert found["dms"].ours.mean == pytest.approx(75.1)
    assert found["dms"].ours.n == 3
    assert found["dms"].difference == pytest.approx(0.1)
    assert found["dms"].within is True
    assert found["uniform"].difference == pytest.approx(1.2333, abs=1e-4)
    assert found["uniform"].within is False
    assert found["random"].difference is None
    assert found["random"].within is None
    assert found["quoted"].measured is None


def test_a_figure_below_its_tolerance_is_outside_too(filled):
    found = lines(filled({**CLEAR, "uniform": {0: 68.0, 1: 69.0}}, profile="full"))
    assert found["uniform"].difference == pytest.approx(-1.5)
    assert found["uniform"].within is False


def test_a_proxy_is_never_compared_with_published_figures(filled):
    for line in filled().lines:
        assert line.difference is None
        assert line.within is None


def test_a_clear_claim_is_reproduced(filled):
    comparison = filled()
    assert comparison.outcome == "reproduced"
    assert [verdict.outcome for verdict in comparison.verdicts] == ["reproduced", "reproduced"]
    # Differences 3.9, 3.9, 3.8: mean 3.8667, Student's t for two rules 6.2053 x 0.057735 / sqrt(3).
    assert comparison.verdicts[0].evidence == "+3.87 ± 0.21 (n = 3, p < 0.001)"


def test_one_rule_that_fails_fails_the_claim(filled):
    worse = {**CLEAR, "uniform": {0: 80.0, 1: 80.4, 2: 80.1}}
    comparison = filled(worse)
    assert [verdict.outcome for verdict in comparison.verdicts] == ["not reproduced", "reproduced"]
    assert comparison.outcome == "not reproduced"


def test_seeds_that_disagree_decide_nothing(filled):
    comparison = filled({**CLEAR, "uniform": {0: 70.0, 1: 78.0, 2: 72.0}})
    assert comparison.verdicts[0].outcome == "undecided"
    assert comparison.outcome == "undecided"


def test_one_seed_decides_nothing(filled):
    assert filled({method: {0: values[0]} for method, values in CLEAR.items()}).outcome == "undecided"


def test_differences_are_paired_by_seed(filled):
    """Unpaired, the spread over seeds would hide a difference that every seed shows."""
    comparison = filled(
        {"dms": {0: 51.0, 1: 71.1, 2: 91.0}, "uniform": {0: 50.0, 1: 70.0, 2: 90.0}, "random": CLEAR["random"]}
    )
    assert comparison.verdicts[0].outcome == "reproduced"


def test_missing_rows_are_named_with_the_command(filled):
    comparison = filled({"dms": CLEAR["dms"], "random": {0: None, 1: None}})
    assert comparison.outcome == "missing"
    assert comparison.missing == ["uniform", "random"]
    assert comparison.command == "dms-bench run benchmarks/paper/table02.yaml"
    assert lines(comparison)["random"].measured.failed == 2


def test_the_other_profile_s_trials_are_not_taken(filled, store):
    filled()
    other = compared(store, small_paper(), "full")
    assert other.missing == ["DMSnp", "uniform", "random"]
    assert other.command == "dms-bench run benchmarks/paper/table02.yaml --profile full"


def test_margins_and_lower_is_better(filled):
    by = [{"kind": "better", "row": "dms", "than": "uniform", "by": 5}]
    assert filled(paper=small_paper(rules=by)).outcome == "not reproduced"
    lower = small_paper(rules=[{"kind": "better", "row": "dms", "than": "uniform"}], higher_is_better=False)
    assert filled(paper=lower).outcome == "not reproduced"


def test_what_the_claim_leaves_open_is_answered_but_no_part_of_the_verdict(filled):
    doubts = [
        {"kind": "better", "row": "random", "than": "uniform"},
        {"kind": "better", "row": "uniform", "than": "random"},
        {"kind": "equal", "row": "dms", "to": "uniform", "within": 3.9},
    ]
    comparison = filled(paper=small_paper(doubts=doubts))
    assert comparison.outcome == "reproduced"
    said = notes(comparison)
    place = said.index("Not said by the claim, and no part of the verdict:")
    assert [line.partition(": ")[2].partition(";")[0] for line in said[place + 1 : place + 4]] == [
        "no",
        "yes",
        "undecided",
    ]
    assert "- random beats uniform: no; -10.23 ± 3.54 (n = 3, p = 0.006)" in said
    assert not any("no part of the verdict" in line for line in notes(filled()))


@pytest.mark.parametrize("field", ["rules", "doubts"])
def test_a_rule_names_rows_that_both_profiles_have(field):
    full_only = [{**row, "full_only": True} if row["id"] == "random" else row for row in ROWS]
    with pytest.raises(ValidationError, match="judges the row 'random', which has no trials of ours in both profiles"):
        small_paper(full_only, **{"rules": [], field: [{"kind": "better", "row": "dms", "than": "random"}]})


@pytest.mark.parametrize(("within", "outcome"), [(4.5, "reproduced"), (3.9, "undecided"), (3.0, "not reproduced")])
def test_equal_means_that_the_whole_interval_is_within(filled, within, outcome):
    rules = [{"kind": "equal", "row": "dms", "to": "uniform", "within": within}]
    assert filled(paper=small_paper(rules=rules)).outcome == outcome


def test_rows_that_are_equal_within_a_point_are_neither_ahead_nor_behind(filled):
    level = {seed: value - 0.05 * (-1) ** seed for seed, value in CLEAR["dms"].items()}
    comparison = filled({**CLEAR, "uniform": level})
    assert [verdict.outcome for verdict in comparison.verdicts] == ["equal", "reproduced"]
    assert comparison.outcome == "equal"
    assert comparison.verdicts[0].evidence.endswith(", within 1)")
    said = " ".join(notes(comparison))
    assert "not reproduced nor refuted: rows that should differ are equal within a point" in said
    assert "for the questions of a list together" in said


def test_points_are_of_percents_alone(filled):
    level = {seed: value - 0.05 * (-1) ** seed for seed, value in CLEAR["dms"].items()}
    loss = small_paper(field="wikitext2_perplexity")
    assert filled({**CLEAR, "uniform": level}, paper=loss).verdicts[0].outcome == "undecided"


def test_the_rules_of_a_table_are_corrected_for_their_number(filled):
    """A rule that holds alone (p = 0.02) does not among three that are no surer, and does behind two that are."""
    close = {"dms": {0: 75.0, 1: 75.0, 2: 75.0}, "uniform": {0: 74.0, 1: 73.4, 2: 73.9}, "random": CLEAR["random"]}
    rule = {"kind": "better", "row": "dms", "than": "uniform"}
    clear = {"kind": "better", "row": "dms", "than": "random"}
    assert filled(close, paper=small_paper(rules=[rule])).outcome == "reproduced"
    outcomes = [verdict.outcome for verdict in filled(close, paper=small_paper(rules=[rule] * 3)).verdicts]
    assert outcomes == ["undecided"] * 3
    behind = filled(close, paper=small_paper(rules=[rule, clear, clear])).verdicts
    assert [verdict.outcome for verdict in behind] == ["reproduced"] * 3
    apart = filled(close, paper=small_paper(rules=[clear], doubts=[rule]))
    assert apart.doubts[0].outcome == "reproduced", "doubts are a family of their own"


def test_cheaper_counts_the_stages_that_it_names(store, make_trial, make_suite):
    run_suite(store, make_trial, make_suite, {"dms": CLEAR["dms"]}, **days(search=0.1, pretrain=1.0))
    run_suite(store, make_trial, make_suite, {"uniform": CLEAR["uniform"]}, **days(search=0.4))
    for stages, outcome, factor in (
        (["search"], "reproduced", "4 times"),
        (["pretrain", "search"], "not reproduced", "0.364"),
    ):
        rules = [{"kind": "cheaper", "row": "dms", "than": "uniform", "stages": stages}]
        (verdict,) = compared(store, small_paper(rules=rules)).verdicts
        assert verdict.outcome == outcome
        assert verdict.evidence.startswith(factor)


def test_a_search_that_ends_above_its_target(store, make_trial, make_suite):
    from dms_bench.tracking import TrialRun, open_suite
    from tests.unit.report.published import ENVIRONMENT, publisher

    run = open_suite(store, make_suite("table02"), ENVIRONMENT)
    publish = publisher(run)
    for method, hard in (("dms", 1.01), ("uniform", 1.5), ("random", None)):
        for seed in (0, 1):
            trial = make_trial(method, seed)
            if hard is not None:
                ends = {"hard_macs": hard * 2e6 + (seed == 1 and method == "mixed"), "target_macs": 2e6}
                TrialRun(run.uri, run.experiment_id, run.parent_id, trial, ENVIRONMENT).log("search", 1, ends)
            publish(trial, 70.0)
    rules = [
        {"kind": kind, "row": row}
        for row in ("dms", "uniform", "random")
        for kind in ("misses_target", "reaches_target")
    ]
    found = compared(store, small_paper(rules=rules)).verdicts
    assert [verdict.outcome for verdict in found] == [
        "not reproduced", "reproduced", "reproduced", "not reproduced", "missing", "missing",
    ]  # fmt: skip
    assert found[2].evidence == "+50.0 %, +50.0 %"


def test_rank_correlation_needs_four_rows(filled, make_trial):
    assert filled().correlation is None
    others = [("a", 60, "random"), ("b", 65, "supernet")]
    more = [
        {**ROWS[1], "id": name, "top1_percent": top1, "ours": {"experiment": "cnn", "method": method}}
        for name, top1, method in others
    ]
    rows = [*ROWS[:2], *more]
    rules = [{"kind": "better", "row": "dms", "than": "uniform"}]
    tau, n = filled({"supernet": {0: 59.0, 1: 59.5}}, paper=small_paper(rows, rules)).correlation
    # Ours: dms > uniform > random > supernet; published: random and supernet the other way round: 5 of 6 pairs agree.
    assert n == 4
    assert tau == pytest.approx(4 / 6)


def test_a_selector_that_fits_two_settings_is_refused(store, make_trial, make_suite):
    from dms_bench.report.records import read_suites
    from dms_bench.tracking import open_suite
    from tests.unit.report.published import ENVIRONMENT, publisher

    publish = publisher(open_suite(store, make_suite("table02"), ENVIRONMENT))
    for temperature in (1, 3):
        publish(make_trial("dms", 0, options={"temperature": temperature}), 70.0 + temperature)
    records = read_suites(store, ["table02"])
    chosen = select(records, Selector(experiment="cnn", method="dms", where={"method.temperature": 3}), "row")
    assert chosen.values(small_paper().tables[0].measures[0]) == {0: 73.0}
    assert (
        select(records, Selector(experiment="cnn", method="dms", where={"method.normalise": False}), "row").records
        == ()
    )
    with pytest.raises(UserError, match=r"row 'row' fits several trials of seed 0 .*narrow its 'ours.where'"):
        select(records, Selector(experiment="cnn", method="dms"), "row")


def test_the_profile_is_full_where_it_was_run():
    table = small_paper().tables[0]
    assert choose_profile(table, None, ["table02", "table02-full-smoke"]) == "proxy"
    assert choose_profile(table, None, ["table02", "table02-full"]) == "full"
    assert choose_profile(table, "proxy", ["table02-full"]) == "proxy"
    with pytest.raises(UserError, match="did you mean 'full'"):
        choose_profile(table, "ful", [])


def test_distillation_is_read_from_the_recipe(store, make_trial, make_suite, filled):
    assert not distilled(lines(filled())["dms"].measured)
    assert distilled(Measured(())) is False


def test_what_is_missing_or_fails_weighs_more_than_what_is_undecided():
    assert together(["reproduced", "undecided", "not reproduced"]) == "not reproduced"
    assert together(["undecided", "missing", "not reproduced"]) == "missing"
    assert together(["reproduced", "undecided"]) == "undecided"
    assert together(["reproduced", "equal", "undecided"]) == "undecided"
    assert together(["reproduced", "equal", "reproduced"]) == "equal"
    assert together(["reproduced", "reproduced"]) == "reproduced"
    assert together([]) == "undecided"


def test_a_proxy_has_its_own_measure_and_not_the_full_only_rows(filled):
    rows = [*ROWS, {"id": "big", "name": "big", "control": True, "full_only": True, "ours": ROWS[0]["ours"]}]
    paper = small_paper(rows, proxy_metric="loss")
    proxy = filled(paper=paper)
    assert "big" not in lines(proxy)
    assert lines(proxy)["dms"].ours.mean == pytest.approx(1 - 0.751)
    full = filled(paper=paper, profile="full")
    assert lines(full)["big"].ours.mean == pytest.approx(75.1)


def test_a_measure_that_trials_lack_is_not_called_missing(filled):
    from dms_bench.report.paper.cells import ours

    comparison = filled(paper=small_paper(proxy_metric="other"))
    assert comparison.missing == []
    assert ours(lines(comparison)["dms"]) == "not measured"


def test_a_row_may_be_measured_as_its_search_left_it(filled):
    own = {"experiment": "cnn", "method": "dms"}
    left = {"id": "left", "name": "left", "control": True, "ours": {**own, "measured_at": "search"}}
    rules = [{"kind": "better", "row": "dms", "than": "left"}]
    found = filled(paper=small_paper([*ROWS, left], rules), searched={"val_top1": 5.0})
    assert lines(found)["left"].ours.mean == pytest.approx(5.0)
    assert lines(found)["dms"].ours.mean == pytest.approx(75.1)
    assert found.verdicts[0].outcome == "reproduced"
    assert found.verdicts[0].evidence.startswith("+70.1")
