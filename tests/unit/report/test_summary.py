"""A summary's statistics against scipy, definitions and hand-worked examples; what is left out; how it is written."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from scipy import stats

from dms_bench.cli import _main
from dms_bench.errors import UserError
from dms_bench.report.board import Row, rows
from dms_bench.report.records import Record
from dms_bench.report.summary import summarise
from dms_bench.report.summary.anytime import anytime, at
from dms_bench.report.summary.areas import area
from dms_bench.report.summary.bootstrap import Interval, improvements, interquartile_mean, interquartile_means
from dms_bench.report.summary.plots import critical, curves, dots, standalone
from dms_bench.report.summary.profiles import profile
from dms_bench.report.summary.ranks import critical_difference, ranks
from dms_bench.report.summary.render import render_summary, save_figures
from dms_bench.report.summary.scores import scorable, scored
from dms_bench.report.summary.tasks import complete, tasks_of
from tests.unit.report.trials import record

SLOW = settings(deadline=None)
METHODS = {"dms": 4.0, "random": 0.0, "uniform": 2.0, "l1": 1.0}
SPENT = {"dms": 1e12, "random": 0.0, "uniform": 0.0, "l1": 1e10}


def finished(
    count: int = 3, experiments: int = 2, budgets: int = 2, methods: dict[str, float] = METHODS
) -> list[Record]:
    """Trials with measured supernets and costs."""
    generator = numpy.random.default_rng(1)
    found = []
    for experiment, seed in product(range(experiments), range(count)):
        name = f"net{experiment}"
        size = {"supernet_macs": 5e8, "supernet_latency_ms": 8.0}
        found.append(record("supernet", seed, 90.0, experiment=name, metrics={"macs": 5e8, **size}))
        for budget, (method, shift) in product(range(budgets), METHODS.items()):
            share = 0.3 + 0.2 * budget
            spent = {"search_training_macs": SPENT.get(method, 0.0), "val/top1": 70.0}
            costs = {"macs": 5e8 * share, "latency_ms": 8 * share, **size, **spent}
            value = 70 + shift + 2 * budget + generator.normal(scale=0.5)
            found.append(record(method, seed, value, budget=f"{share:.0%}", experiment=name, metrics=costs))
    return found


def printed(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


# Definitions


@SLOW
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_the_interquartile_mean_is_scipys_trimmed_mean(values: list[float]) -> None:
    assert interquartile_mean(numpy.array(values)) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9)


def test_the_bootstrap_is_stratified_and_matches_one_written_out() -> None:
    generator = numpy.random.default_rng(2)
    tasks = [generator.normal(level, 1, size=(2, 6)) for level in (0.0, 50.0)]
    found = interquartile_means(tasks)
    other = numpy.random.default_rng(99)
    for method in range(2):
        drawn = []
        for _ in range(3000):
            scores = [value for own in tasks for value in other.choice(own[method], size=6)]
            drawn.append(stats.trim_mean(scores, 0.25))
        low, high = numpy.percentile(drawn, [2.5, 97.5])
        assert found[method].value == pytest.approx(
            stats.trim_mean(numpy.concatenate([t[method] for t in tasks]), 0.25)
        )
        # Two bootstraps of a few thousand draws; were tasks drawn as well, the interval would be 50 wide.
        assert found[method].low == pytest.approx(low, abs=0.1)
        assert found[method].high == pytest.approx(high, abs=0.1)


def test_the_chance_of_improvement_is_mann_whitneys() -> None:
    generator = numpy.random.default_rng(4)
    tasks = [generator.integers(0, 6, size=(3, 5)).astype(float) for _ in range(4)]
    found = improvements(tasks, control=1)
    for method in range(3):
        u = [stats.mannwhitneyu(own[method], own[1]).statistic / 25 for own in tasks]
        assert found[method].value == pytest.approx(numpy.mean(u))
    assert found[1].value == 0.5
    low, high = found[0].low, found[0].high
    assert low is not None
    assert high is not None
    assert 0 <= low <= found[0].value <= high <= 1


def test_seeds_are_drawn_for_all_methods_together() -> None:
    """A method that is ahead by a constant of a noise that both share is ahead in every draw of a single pair."""
    noise = numpy.array([0.0, 100.0])
    (first, _) = improvements([numpy.stack([noise + 1, noise])], control=1)
    # Pairs of a draw: seeds (0, 0) or (1, 1) give 1, (0, 1) gives 0.75; drawn apart, some would give 0.
    assert (first.value, first.low, first.high) == (0.75, 0.75, 1.0)


def test_one_seed_has_no_interval() -> None:
    for found in (interquartile_means([numpy.ones((2, 1))]), improvements([numpy.ones((2, 1))], 0)):
        assert found[0][1:] == (None, None)


def test_critical_differences_are_demsars() -> None:
    """The q of table 5 (a) in Demšar (2006): 1.960, 2.343, 2.569, 2.728 for 2 to 5 methods."""
    for methods, q in ((2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)):
        assert critical_difference(methods, 14) == pytest.approx(
            q * math.sqrt(methods * (methods + 1) / (6 * 14)), abs=6e-4
        )


#: AUCs of C4.5 and its variants with other parameters on 14 data sets: Demšar (2006), table 6.
DEMSAR = [
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657), (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625), (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975), (0.957, 0.978, 0.946, 0.970),
]  # fmt: skip


def test_ranks_are_those_of_demsars_example() -> None:
    """Average ranks 3.143, 2.000, 2.893, 1.964; critical difference 1.25: nothing but what z-tests find differs."""
    found = ranks(numpy.array(DEMSAR).T)
    assert found.mean == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    assert found.friedman == pytest.approx(stats.friedmanchisquare(*numpy.array(DEMSAR).T).pvalue)
    assert found.letters == ("a", "a", "a", "a")
    # Against C4.5: z = 2.416, 2.343, 0.512; p = 0.0157, 0.0191, 0.608; the second is lifted to the first.
    against = found.against(0)
    assert against[0] is None
    assert against[1:] == pytest.approx([3 * 0.0157, 0.608, 3 * 0.0157], abs=1e-3)


def test_methods_that_are_always_last_are_told_apart() -> None:
    scores = numpy.array([[3.0, 2.0, 1.0, 0.0]] * 12).T + numpy.arange(12) * 10
    found = ranks(scores)
    assert found.mean == (1.0, 2.0, 3.0, 4.0)
    assert found.letters == ("a", "ab", "bc", "c")
    one = ranks(scores[:, :1])
    assert (one.critical, one.friedman, one.letters, one.against(0)) == (None, None, ("",) * 4, [None] * 4)
    assert ranks(numpy.ones((3, 5))).friedman is None
    assert ranks(numpy.ones((3, 5))).mean == (2.0, 2.0, 2.0)


def test_profiles_count_runs_and_weigh_tasks_equally() -> None:
    tasks = [numpy.array([[0.1, 0.5]]), numpy.array([[0.5, 0.6, 0.7, 0.8]])]
    assert profile(tasks, 0, [0.0, 0.5, 0.65, 0.8]) == [1.0, (0 + 0.75) / 2, 0.25, 0.0]


@given(st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 1)), max_size=6))
def test_areas_are_sums_of_thin_strips(points: list[tuple[float, float]]) -> None:
    strips = 4000
    middles = [(index + 0.5) / strips for index in range(strips)]
    best = [max((score for cost, score in points if cost <= place), default=0.0) for place in middles]
    assert area(points) == pytest.approx(sum(best) / strips, abs=len(points) / strips + 1e-9)


def test_an_area_by_hand() -> None:
    assert area([(0.2, 0.5), (0.6, 0.9), (0.7, 0.1), (1.0, 5.0)]) == pytest.approx(0.5 * 0.4 + 0.9 * 0.4)
    assert area([]) == 0.0


# Scores and tasks


def test_scores_are_shares_or_between_random_and_the_supernet() -> None:
    (task,) = tasks_of(rows(finished(count=1, experiments=1, budgets=1)))
    floor = task.rows["random"].mean
    assert floor is not None
    assert scored(task, 45.0, "relative") == pytest.approx(0.5)
    assert scored(task, 90.0, "gap") == pytest.approx(1.0)
    assert scored(task, floor, "gap") == pytest.approx(0.0)
    assert scored(task, (floor + 90) / 2, "gap") == pytest.approx(0.5)


def test_losses_are_turned_round() -> None:
    trials = [record("supernet", 0, 10.0, higher_is_better=False)]
    trials += [record(method, 0, value, higher_is_better=False) for method, value in (("dms", 20.0), ("random", 40.0))]
    (task,) = tasks_of(rows(trials))
    assert scored(task, 20.0, "relative") == pytest.approx(0.5)
    assert scored(task, 20.0, "gap") == pytest.approx(2 / 3)
    found = summarise(rows(trials))
    assert found.sections[0].numbers["dms"]["rank"] == 1.0
    over_random = next(section for section in found.sections if section.key == "improvement_random")
    assert over_random.numbers["dms"]["value"] == 1.0


def test_a_loss_of_nothing_has_no_share() -> None:
    trials = [record("supernet", 0, 10.0, higher_is_better=False)]
    trials += [record(method, 0, value, higher_is_better=False) for method, value in (("dms", 0.0), ("random", 40.0))]
    (task,) = tasks_of(rows(trials))
    assert not scorable(task, "relative")
    assert scored(task, 0.0, "gap") == pytest.approx(4 / 3)
    assert json.loads(str(render_summary(summarise(rows(trials)), "json")))["sections"].keys() == {
        "ranks", "improvement_dms", "improvement_random",
    }  # fmt: skip


def test_without_a_scale_ranks_and_chances_remain() -> None:
    trials = [trial for trial in finished() if trial.tags["dms.method"] != "supernet"]
    found = summarise(rows(trials))
    assert [section.key for section in found.sections] == ["ranks", "improvement_dms", "improvement_random"]
    assert any("4 tasks, without scores for want of a finished supernet" in note for note in found.left_out)
    behind = [record("supernet", 0, 60.0)] + [record(method, 0, 70.0) for method in ("dms", "random")]
    (task,) = tasks_of(rows(behind))
    assert scorable(task, "relative")
    assert not scorable(task, "gap")
    with pytest.raises(ValueError, match="no scale"):
        scored(task, 1.0, "gap")


def test_what_is_left_out_is_counted() -> None:
    trials = finished()
    trials = [t for t in trials if t.name not in ("net0-l1-30%-s2", "net1-dms-50%-s0", "net1-random-50%-s0")]
    trials.append(record("l1", 2, None, budget="30%", experiment="net0", status="failed"))
    trials += [record("dms", 3, math.nan, budget="30%", experiment="net0")]
    trials += [record("taylor", seed, 71.0, budget="30%", experiment="net1") for seed in range(3)]
    trials += [record("dms", 0, 71.0, budget="90%", experiment="net1")]
    found = summarise(rows(trials))
    assert found.methods == ("dms", "l1", "random", "uniform")
    assert found.tasks == ("net0 at 30%", "net0 at 50%", "net1 at 30%", "net1 at 50%")
    assert found.runs == 2 + 3 + 3 + 2
    assert list(found.left_out) == [
        "1 task that these methods have not all answered: net1 at 90%.",
        "1 method that lacks one of these tasks: taylor.",
        "5 finished trials whose seed another method lacks.",
        "1 trial: diverged.",
        "1 trial: failed.",
    ]


def test_the_largest_block_is_kept() -> None:
    trials = finished()
    few = [record("taylor", 0, 71.0, budget=budget, experiment="net0") for budget in ("30%", "50%")]
    block = complete(tasks_of(rows([*trials, *few])))
    assert block is not None
    assert len(block.methods) * len(block.tasks) == 16
    assert complete(tasks_of(rows(few))) is None
    # A method that shares no task with the others is passed over, however many it has answered.
    alone = [record("halving", 0, 71.0, budget=f"{share}%", experiment="other") for share in range(10, 90, 10)]
    other = complete(tasks_of(rows([*trials, *alone])))
    assert other is not None
    apart = [record("dms", 0, 1.0), record("random", 1, 1.0)]
    assert complete(tasks_of(rows(apart))) is None


def test_nothing_to_summarise_is_said() -> None:
    with pytest.raises(UserError, match="nothing to summarise: no two methods"):
        summarise(rows([record("dms", 0, 70.0), record("random", 0, None, status="failed")]))
    with pytest.raises(UserError, match="nothing to summarise"):
        summarise([])


def test_one_seed_and_ties_are_summarised() -> None:
    found = summarise(rows([record("supernet", 0, 90.0), *(record(name, 0, 70.0) for name in METHODS)]))
    assert {numbers["rank"] for numbers in found.sections[0].numbers.values()} == {2.5}
    assert "A single task" in found.sections[0].notes[0]
    assert json.loads(str(render_summary(found, "json")))["runs"] == 1
    printed(render_summary(found))


def test_pure_noise_is_seldom_grouped_apart() -> None:
    generator = numpy.random.default_rng(8)
    stores = 600
    apart = sum(len(set(ranks(generator.normal(size=(5, 12))).letters)) > 1 for _ in range(stores))
    assert 0 < apart <= 0.05 * stores + 2 * math.sqrt(0.05 * 0.95 * stores)


# Anytime


def with_settings(values: list[tuple[float, float, float]]) -> list[Row]:
    """A method with one search per setting: (search MACs, validation, test), and random at no cost."""
    trials = [record("supernet", 0, 100.0), record("random", 0, 50.0, metrics={"search_training_macs": 0.0})]
    for index, (spent, validation, value) in enumerate(values):
        trial = record("dms", 0, value, metrics={"search_training_macs": spent, "val/top1": validation})
        trial.params["method.temperature"] = str(index)
        trial.tags["dms.trial"] += str(index)
        trials.append(trial)
    return rows(trials)


def test_the_best_so_far_is_chosen_on_validation_and_costs_add_up() -> None:
    board = with_settings([(4.0, 0.9, 60.0), (1.0, 0.5, 70.0), (3.0, 0.4, 90.0)])
    found = anytime(tasks_of(board), "relative")
    assert found is not None
    # From the cheapest on: 1, 1 + 3 (worse on validation, though better on test), 1 + 3 + 4.
    assert found.curves["dms"] == [(1 / 8, pytest.approx(0.7)), (1.0, pytest.approx(0.6))]
    assert found.curves["random"] == [(0.0, 0.5)]
    assert at(found.curves["dms"], 0.1) is None
    assert at(found.curves["dms"], 0.5) == pytest.approx(0.7)


def test_anytime_curves_need_counted_searches() -> None:
    trials = [record("supernet", 0, 90.0), record("dms", 0, 70.0), record("random", 0, 60.0)]
    assert anytime(tasks_of(rows(trials)), "relative") is None
    assert "anytime" not in [section.key for section in summarise(rows(trials)).sections]


def test_anytime_curves_are_means_over_tasks_from_where_all_have_one() -> None:
    other = record("taylor", 0, 71.0, budget="30%", experiment="net0", metrics={"search_training_macs": 1.0})
    found = anytime(tasks_of(rows([*finished(), other])), "gap")
    assert found is not None
    assert found.tasks == 4
    assert "taylor" not in found.curves
    assert found.left_out == ("taylor",)
    assert [place for place, _ in found.curves["dms"]] == [1.0]
    # In one task DMS has a network after a quarter of the costliest search, in the other after half.
    trials = []
    for name, spent, value in (("a", 1.0, 60.0), ("b", 2.0, 80.0)):
        trials.append(record("supernet", 0, 100.0, experiment=name))
        for method, macs, top1 in (("dms", spent, value), ("l1", 4.0, 50.0)):
            trials.append(record(method, 0, top1, experiment=name, metrics={"search_training_macs": macs}))
    later = anytime(tasks_of(rows(trials)), "relative")
    assert later is not None
    assert later.curves == {"dms": [(0.5, pytest.approx(0.7))], "l1": [(1.0, 0.5)]}


# Output


@pytest.mark.parametrize("score", ["relative", "gap"])
def test_every_section_is_there_and_fits(score: str) -> None:
    found = summarise(rows(finished()), score)  # type: ignore[arg-type]
    keys = ["ranks", "improvement_dms", "improvement_random", "iqm", "profiles", "areas", "anytime"]
    assert [section.key for section in found.sections] == keys
    text = printed(render_summary(found))
    assert max(map(len, text.splitlines())) <= 80
    assert "4 methods over 4 tasks (experiments x budgets), 12 runs of each." in text
    for section in found.sections:
        assert section.title in text
        assert all(len(line) == len(section.columns) for line in section.lines)
        assert set(section.numbers) <= set(found.methods)
    areas = next(section for section in found.sections if section.key == "areas")
    assert areas.columns == ("method", "MACs", "latency", "search MACs")


def test_areas_are_those_of_the_tables() -> None:
    """Relative scores at 30 % and 50 % of the MACs, by hand from the board."""
    board = rows(finished(experiments=1))
    found = summarise(board)
    own = {row.budget: (row.mean or 0.0) / 90 for row in board if row.kind == "dms"}
    expected = own["30%"] * 0.2 + own["50%"] * 0.5
    areas = next(section for section in found.sections if section.key == "areas")
    assert areas.numbers["dms"]["MACs"] == pytest.approx(expected)
    assert areas.numbers["dms"]["latency"] == pytest.approx(expected)
    # The costliest search stands at half of the bound.
    assert areas.numbers["dms"]["search MACs"] == pytest.approx(0.5 * own["50%"])


def test_formats_hold_the_same_numbers() -> None:
    found = summarise(rows(finished()))
    content = json.loads(str(render_summary(found, "json")))
    lines = list(csv.DictReader(io.StringIO(str(render_summary(found, "csv")))))
    assert len(lines) == sum(len(own) for part in content["sections"].values() for own in part.values())
    for line in lines:
        value = content["sections"][line["section"]][line["method"]][line["quantity"]]
        assert line["value"] == ("" if value is None else str(value))
    text = str(render_summary(found, "markdown", "Summary: x_y"))
    assert text.startswith("## Summary: x\\_y\n")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == sum(2 + len(section.lines) for section in found.sections)
    with pytest.raises(UserError, match="did you mean 'html'"):
        render_summary(found, "htm")


class Page(HTMLParser):
    """Count what is drawn, and check that tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.drawn = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.drawn += tag == "svg"
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass


def test_the_page_has_every_figure_and_names_stay_text(tmp_path: Path) -> None:
    trials = finished()
    for trial in trials:
        if trial.tags["dms.method"] == "l1":
            trial.tags["dms.method_label"] = "l1 <b> & c"
    found = summarise(rows(trials))
    page = Page()
    page.feed(str(render_summary(found, "html", "A & b")))
    assert page.open == []
    assert page.drawn == sum(len(section.figures) for section in found.sections)
    written = save_figures(found, tmp_path / "plots")
    assert len(written) == page.drawn
    for path in written:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        save_figures(found, tmp_path / "file")


def boxes(drawing: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Return where the level texts stand, at 6.7 pixels a character."""
    found = []
    for text in drawing.iter("text"):
        if text.get("transform") is None:
            long = 6.7 * len(text.text or "")
            left = (
                float(text.get("x", ""))
                - {"start": 0, "middle": long / 2, "end": long}[text.get("text-anchor", "start")]
            )
            level = float(text.get("y", ""))
            found.append((left, level - 6, left + long, level + 6))
    return found


LONG = [f"method {index} of a name that is longer than there is room for" for index in range(12)]
DRAWINGS = {
    "dots": dots(
        [(name, Interval(0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.3)) for i, name in enumerate(LONG)], "score", 0.5
    ),
    "curves": curves({name: [(0.01 * i, 0.1), (0.5, 0.1 * i)] for i, name in enumerate(LONG)}, "cost", "score", 1.0),
    "critical": critical([(name, 1.0 + i, "ab" if i == 5 else "ab"[i > 5]) for i, name in enumerate(LONG)], 6.2),
    "one": dots([("dms", Interval(0.0, None, None))], "score"),
    "flat": curves({"dms": [(0.0, 0.0)]}, "cost", "score", 1.0),
    "alone": critical([("dms", 1.0, "")], None),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_hold_all_that_they_draw(name: str) -> None:
    drawing = ElementTree.fromstring(DRAWINGS[name])
    width, height = map(float, drawing.get("viewBox", "").split()[2:])
    found = boxes(drawing)
    assert found
    for box in found:
        assert box[0] >= 0
        assert box[2] <= width
        assert 0 <= box[1] < box[3] <= height
    for first, second in ((a, b) for index, a in enumerate(found) for b in found[:index]):
        apart = first[0] >= second[2] or second[0] >= first[2] or first[1] >= second[3] or second[1] >= first[3]
        assert apart, (first, second)
    for circle in drawing.iter("circle"):
        x, y = float(circle.get("cx", "")), float(circle.get("cy", ""))
        assert 0 < x < width
        assert 0 < y < height
        near = [box for box in found if box[0] < x + 4.5 and x - 4.5 < box[2]]
        assert not [box for box in near if box[1] < y + 4.5 and y - 4.5 < box[3]]
    for path in drawing.iter("path"):
        across = re.findall(r"[MH](-?[\d.]+)", path.get("d", ""))
        assert all(0 <= float(place) <= width for place in across)
    assert "xmlns" in standalone(DRAWINGS[name])


def test_dots_stand_in_order_of_their_values() -> None:
    drawing = ElementTree.fromstring(DRAWINGS["dots"])
    places = [float(circle.get("cx", "")) for circle in drawing.iter("circle")]
    assert places == sorted(places)
    assert len(set(places)) == 12


def test_the_command_line(board_uri: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _main(["summary", "--tracking", board_uri, "--plots", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "Average ranks" in shown.out
    assert f"wrote {tmp_path / 'ranks.svg'}" in shown.err
    assert _main(["summary", "--suite", "quick", "--score", "gap", "-f", "json", "--tracking", board_uri]) == 0
    assert json.loads(capsys.readouterr().out)["methods"] == ["dms", "random"]


def test_an_empty_store_is_named(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(["summary", "--tracking", store]) == 2
    assert "no trials yet" in capsys.readouterr().err
