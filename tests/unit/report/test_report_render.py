from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from dms_bench.errors import UserError
from dms_bench.report import Row, leaderboard, render, show
from dms_bench.report.forest import forest
from dms_bench.report.layout import blocks
from dms_bench.report.svg import colours, measure_axis, panel, ticks

FIRST = (
    "task,model,budget,method,metric,mean,ci95,n,macs,params,latency_ms,search_device_days,device,"
    "delta_random,delta_random_ci95,failed,"
)


@pytest.fixture(scope="module")
def board(board_uri: str) -> list[Row]:
    return leaderboard(board_uri)


def printed(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_csv_has_the_promised_columns_in_full_precision(board: list[Row]) -> None:
    text = render(board, "csv")
    assert text.startswith(FIRST)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == len(board)
    for line, row in zip(lines, board, strict=True):
        assert float(line["mean"]) == row.mean
        assert (float(line["ci95"]) if line["ci95"] else None) == row.ci95
        assert (line["method"], int(line["failed"]), line["budget"]) == (row.method, row.failed, row.budget)


def test_the_table_fits_and_says_how_to_read_it(board: list[Row]) -> None:
    text = printed(render(board, "table"))
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(
        r"macs 30%\s+dms\s+73\.0 ± 6\.6\s+3\s+1\.50M\s+240k\s+1\.44 core-min\s+\+10\.0 ± 4\.4\*\s+- ", text
    )
    assert re.search(r"uniform .*\+5\.0 ± 4\.4\*\s+-5\.0 ± 4\.4\*", text)
    assert "Left out for want of room: latency" in text
    wider = printed(render(board, "table"), 110)
    assert re.search(r"1\.50M\s+240k\s+0\.42x\s+1\.44 core-min", wider)
    assert "Left out" not in wider
    assert re.search(r"supernet\s+91\.0", text)
    assert "uniform † 1/3" in text
    assert "random ✗ 1 … 1" in text
    for note in (
        "95 % interval",
        "n = 1",
        "dms-bench show",
        "the ceiling",
        "paired by seed",
        "Latency and cost on: EPYC",
    ):
        assert note in text.replace("\n", " ")


def test_notes_are_only_about_what_is_there(board: list[Row]) -> None:
    text = printed(render([row for row in board if row.method == "dms" and row.n == 3], "table"))
    for note in ("n = 1", "✗", "†", "ceiling", "…"):
        assert note not in text


def test_who_misses_the_budget_is_not_the_best(board: list[Row]) -> None:
    def best(rows: list[Row]) -> list[str]:
        return [line.row.method for block in blocks(rows) for line in block.lines if line.best]

    assert best(board) == ["dms", "dms"]
    missing = [replace(row, budget_missed=1) if row.kind == "dms" else row for row in board]
    assert best(missing) == []  # uniform misses one, too: a single row is the best of nothing


def test_markdown_is_a_table_with_the_best_in_bold(board: list[Row]) -> None:
    text = render(board, "markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {11}
    bold = [line for line in rows if "**" in line]
    assert [line.split("|")[2].strip() for line in bold] == ["**dms**", "**dms**"]


def test_what_searches_use_and_compute_is_a_view_of_its_own(board: list[Row]) -> None:
    uses = {"dms": "weights, data, gradients, training", "uniform": "weights", "random": "nothing"}
    computed = {"dms": 3.2e12, "uniform": 0.0, "random": 0.0}
    counted = [
        replace(row, uses=uses.get(row.kind, ""), search_training_macs=computed.get(row.kind), search_samples=12000.0)
        for row in board
    ]
    text = render(counted, "markdown", costs=True)
    assert "| budget | method |" in text
    assert "| uses | search MACs | samples | processors | wall |" in text
    assert re.search(r"dms\S* \|.*\| weights, data, gradients, training \| 3\.20T \| 12\.0k \|", text)
    lines = [line for line in text.splitlines() if "macs 30%" in line or line.startswith("|  |")]
    order = [next(kind for kind in uses if kind in line) for line in lines if any(kind in line for kind in uses)]
    assert order.index("random") < order.index("uniform") < order.index("dms"), "grouped by what they use"
    assert "gradients count as two more passes" in text
    assert "latency" not in text.split("How")[0].splitlines()[2]
    page = str(render(counted, "html"))
    assert "What searches use and compute" in page
    assert "3.20T" in page
    assert "What searches use and compute" not in str(render(board, "html")), "nothing was counted"
    printed(render(counted, "table", costs=True), 80)


def test_a_board_shows_what_searches_computed_and_time_alone_where_that_is_not_known(board: list[Row]) -> None:
    counted = [replace(row, search_training_macs=3.2e12, search_processor_seconds=90.0) for row in board]
    text = render(counted, "markdown")
    assert "| search MACs |" in text
    assert "3.20T" in text
    assert "core-min" not in text
    some = [replace(row, search_training_macs=None) if row.kind == "uniform" else row for row in counted]
    text = render(some, "markdown")
    assert "| search |" in text
    assert "1.44 core-min" in text
    assert "search: devices times wall time" in text
    assert "1.50 CPU-min" in render(counted, "markdown", costs=True)


def test_a_latency_is_compared_with_the_supernets_that_took_turns_with_it(board: list[Row]) -> None:
    def cells(**fields: float | None) -> set[str]:
        (block,) = blocks([replace(row, **fields) for row in board])
        place = block.columns.index("latency")
        return {line.cells[place] for line in block.lines if line.row.kind != "supernet" and line.row.n}

    assert cells(latency_ratio=0.731, latency_ratio_ci95=0.2) == {"0.73x"}
    assert cells(latency_ratio=0.731, latency_ratio_ci95=0.27) == {"≈ 0.73x"}
    assert cells(latency_ratio=1.2, latency_ratio_ci95=0.1) == {"1.20x"}
    assert cells(latency_ratio=1.2, latency_ratio_ci95=0.3) == {"≈ 1.20x"}
    assert cells(latency_ratio=0.5, latency_ratio_ci95=None) == {"0.50x"}
    assert cells(latency_ratio=None, latency_ms=3.0) == {"3.00 ms"}
    (block,) = blocks(board)
    supernet = next(line for line in block.lines if line.row.kind == "supernet")
    assert supernet.cells[block.columns.index("latency")] == "0.83 ms"


def test_the_narrowest_terminals_lose_columns_by_their_worth(board: list[Row]) -> None:
    (block,) = blocks(board)
    assert block.fitted(200) == block
    for width in range(80, 110):
        fitted = block.fitted(width)
        assert fitted.left_out == ("latency", "params", "MACs", "search")[: len(fitted.left_out)]
        assert fitted.width <= width
        lines = printed(render(board, "table"), width).splitlines()
        assert max(map(len, lines)) <= width
        assert all(len(line.cells) == len(fitted.columns) for line in fitted.lines)


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_a_missed_budget_and_a_single_seed_are_marked(board: list[Row], form: str) -> None:
    text = " ".join(printed(render(board, form), 160).split())
    assert "uniform † 1/3" in text
    assert "† k/n: k of n networks cost more than 1 % more or less than the budget" in text
    assert "n = 1: a single seed, no interval" in text


def test_csv_counts_missed_budgets_and_gives_every_difference(board: list[Row]) -> None:
    lines = {(line["budget"], line["method"]): line for line in csv.DictReader(io.StringIO(render(board, "csv")))}
    uniform = lines["macs 30%", "uniform"]
    assert (uniform["budget_missed"], uniform["n"], uniform["settings_tried"]) == ("1", "3", "1")
    assert (float(uniform["delta_dms"]), uniform["delta_dms_n"]) == (pytest.approx(-5.0), "3")
    assert (lines["macs 50%", "random"]["n"], lines["macs 50%", "random"]["ci95"]) == ("1", "")


def test_what_is_paid_once_is_a_column_where_it_is_paid(board: list[Row]) -> None:
    assert "public" not in printed(render(board, "table"), 160)
    paid = [replace(row, public_device_days=0.5) for row in board]
    for form in ("table", "markdown", "html"):
        text = printed(render(paid, form), 160)
        assert "12.0 core-h" in text
        assert "trained once for many" in " ".join(text.split())
    assert max(map(len, printed(render(paid, "table"), 100).splitlines())) <= 100


def test_how_many_settings_were_tried_is_a_column_and_unequal_numbers_are_named(board: list[Row]) -> None:
    assert "tried" not in printed(render(board, "table"), 160)
    trials = {"dms": 6, "uniform": 1}
    tuned = [replace(row, settings_tried=trials.get(row.kind, 1)) for row in board]
    text = printed(render(tuned, "markdown"), 160)
    assert re.search(r"\| \*\*dms\*\* \| \*\*73.0 ± 6.6\*\* \| 3 \| 6 \|", text)
    assert "Given fewer: uniform." in text
    equal = [replace(row, settings_tried=6 if row.kind in ("dms", "uniform") else 1) for row in board]
    assert "Given fewer" not in printed(render(equal, "table"), 160)


def test_lower_can_be_better(board: list[Row]) -> None:
    rows = [replace(row, higher_is_better=False) for row in board if row.budget == "macs 30%"]
    bold = [line for line in render(rows, "markdown").splitlines() if "**" in line]
    assert len(bold) == 1
    assert "random" in bold[0]


def test_unknown_formats_are_refused(board: list[Row]) -> None:
    with pytest.raises(UserError, match="did you mean 'html'"):
        render(board, "htm")


class Page(HTMLParser):
    """Collect what a browser would fetch, and whether the tags are balanced."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.fetches: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetches += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag in ("script", "link", "iframe", "img"):
            self.fetches.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass


def test_the_page_needs_nothing_else_and_says_where_it_was_made(board: list[Row]) -> None:
    text = render(board, "html", title="Quick & easy")
    page = Page()
    page.feed(text)
    assert page.fetches == []
    assert page.open == []
    assert not re.search(r"url\(|@import|https?://", text)
    assert "<h1>Quick &amp; easy</h1>" in text
    for part in ("dms-bench run quick.yaml", "abc123", "2.15.0", "EPYC", "73.0 ± 6.6", "<svg", "★"):
        assert part in text


def test_markup_in_names_stays_text(board: list[Row]) -> None:
    odd = [
        replace(row, metric="<script>", model="<script>x</script>[bold]|*_", method=row.method + "<b>[red]")
        for row in board
    ]
    assert "<script>" not in render(odd, "html")
    assert "[bold]" in printed(render(odd, "table"), 140)
    assert "[red]" in printed(render(odd, "table"), 140)


def test_a_panel_draws_each_row_where_it_belongs(board: list[Row]) -> None:
    svg = ElementTree.fromstring(panel(board, colours(board), "a & b"))
    circles = svg.findall("circle")
    assert len(circles) == 5  # every row but the supernet
    tops = {title.text.partition(" [")[0]: float(circle.get("cy", "")) for circle in circles for title in circle}
    assert tops["dms, macs 50%: top1"] < tops["dms, macs 30%: top1"] < tops["random, macs 30%: top1"]
    assert len(svg.findall("path[@class='interval']")) == 4  # one row has a single seed
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    for circle in circles:
        assert 0 < float(circle.get("cx", "")) < width
        assert 0 < float(circle.get("cy", "")) < height


def test_a_forest_has_a_line_for_each_row_and_places_it_by_its_mean(board: list[Row]) -> None:
    svg = ElementTree.fromstring(forest(board, "a & b"))
    circles = svg.findall("circle")
    assert len(circles) == 6
    places = {title.text.partition(" [")[0]: circle for circle in circles for title in circle}
    across = {name: float(circle.get("cx", "")) for name, circle in places.items()}
    assert across["random, macs 30%: top1"] < across["dms, macs 30%: top1"] < across["dms, macs 50%: top1"]
    levels = [float(circle.get("cy", "")) for circle in circles]
    assert levels == sorted(set(levels))  # in the board's order, one below the other
    width, height = map(float, svg.get("viewBox", "").split()[2:])
    assert all(0 < place < width for place in across.values())
    assert levels[-1] < height
    assert [text.text for text in svg.findall("text[@class='budget']")] == ["-", "macs 30%", "macs 50%"]
    assert places["dms, macs 30%: top1"].get("fill") != places["uniform, macs 30%: top1"].get("fill")


def test_one_wide_interval_does_not_hide_the_differences_between_the_others(board: list[Row]) -> None:
    values = {"dms": (12.0, 0.3), "uniform": (12.2, 0.2), "group_norm": (12.4, 0.2), "random": (18.0, 24.0)}
    rows = [replace(board[1], metric="perplexity", method=name, mean=m, ci95=c) for name, (m, c) in values.items()]
    axis = measure_axis(rows, 0, 100)
    assert 0 < axis.low < 12.0 - 0.3
    assert 18.0 < axis.high < 30
    assert axis.interval_end(rows[0], -1) == (axis(11.7), True)
    assert axis.interval_end(rows[3], -1) == (0, False)
    assert axis.interval_end(rows[3], 1) == (100, False)
    for draw in (forest(rows, ""), panel(rows, colours(rows), "")):
        bars = [path.get("d", "") for path in ElementTree.fromstring(draw).findall("path[@class='interval']")]
        assert len(bars) == 4
        open_ended = [bar for bar in bars if "6" not in re.findall(r"[vh](-?\d+)", bar)]  # no caps
        assert len(open_ended) == 1
    few = [replace(board[1], metric="perplexity", mean=1.0, ci95=5.0)]
    assert measure_axis(few, 0, 100).low == 0  # no measure is negative


def test_a_page_draws_more_methods_than_colours_as_a_forest(board: list[Row]) -> None:
    many = [replace(board[1], method=f"dms ({number})") for number in range(9)]
    assert "of every method" in render(many, "html")
    assert "against MACs" in render(many[:8], "html")
    assert 'class="budget"' not in render(many[:8], "html")


def test_a_board_of_failures_still_renders(board: list[Row]) -> None:
    none = dict.fromkeys(
        ("mean", "ci95", "macs", "params", "latency_ms", "latency_ratio", "search_device_days", "delta_random")
    )
    failed = [replace(row, n=0, failed=3, device="", device_kind="", **none) for row in board]
    assert "<svg" not in render(failed, "html")
    for form in ("table", "markdown", "csv"):
        assert "dms" in printed(render(failed, form), 200)


def test_a_single_point_can_be_drawn(board: list[Row]) -> None:
    alone = [replace(board[1], ci95=None, mean=0.0)]
    assert "circle" in panel(alone, colours(alone), "")


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_show_finds_a_trial_by_name_hash_or_beginning(board_uri: str, board: list[Row]) -> None:
    failed = next(row for row in board if row.failed).failed_trials[0]
    text = printed(show(board_uri, failed), 120)
    assert "failed: loss is nan in retrain, epoch 2" in text
    code = re.search(r"hash\s+(\w{12})", text)
    assert code is not None
    assert printed(show(board_uri, code[1]), 120) == text
    assert printed(show(board_uri, code[1][:6], "quick"), 120) == text
    assert printed(show(board_uri, failed[:-4]), 120) == text


def test_show_tells_result_cost_and_specification(board_uri: str) -> None:
    text = printed(show(board_uri, "cnn-dms-macs30pct-s1"), 120)
    assert re.search(r"top1 \[%\]\s+74\.0", text)
    assert re.search(r"macs\s+1\.50M of 5\.00M \(30\.0%\)", text)
    assert re.search(r"search\s+1\.44 core-min\s+43\.2 s\s+2\s+EPYC\s+3", text)
    assert re.search(r"method\.temperature\s+1\.0", text)
    assert re.search(r"retrain/train_loss\s+0\.50", text)
    assert "spec.json" in text


def test_show_refuses_unknown_and_ambiguous_names(board_uri: str) -> None:
    with pytest.raises(UserError, match=r"no trial 'cnn-dsm-macs30pct-s1'; did you mean"):
        show(board_uri, "cnn-dsm-macs30pct-s1")
    with pytest.raises(UserError, match=r"is not one trial but \d+"):
        show(board_uri, "cnn-dms")
    with pytest.raises(UserError, match="no trial 'cn'"):
        show(board_uri, "cn")
