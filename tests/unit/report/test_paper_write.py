"""The comparison as a terminal table, Markdown, CSV and HTML, the command line, and the figures."""

import csv
import io
import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import yaml
from matplotlib.collections import PathCollection
from rich.console import Console

from dms_bench.cli import _main
from dms_bench.errors import UserError
from dms_bench.report.paper import render_comparisons
from tests.unit.report.paper_store import compared, run_suite, small_paper
from tests.unit.report.test_paper_compare import CLEAR


@pytest.fixture
def filled(store, make_trial, make_suite):
    run_suite(store, make_trial, make_suite, CLEAR)
    return store


@pytest.fixture
def paper_file(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump(small_paper().model_dump(mode="json")))
    return path


def text_of(renderable):
    console = Console(file=io.StringIO(), width=150)
    console.print(renderable)
    return console.file.getvalue()


def test_terminal_says_what_was_claimed_seen_and_concluded(filled):
    text = text_of(render_comparisons([compared(filled, small_paper())]))
    assert re.search(r"DMSnp +75 +75.10 ± 0.50 +3 ", text)
    assert re.search(r"Quoted +71.5 +not run +- ", text)
    assert "> 500 + 0 TPU-d" in text
    assert "Claim: DMS wins." in text
    assert "Verdict on paper (proxy): the claim is reproduced." in text
    assert "no difference is taken" in text
    assert "commit abc123" in text
    assert "difference" not in text.splitlines()[2]


def test_full_profile_shows_differences(store, make_trial, make_suite):
    run_suite(store, make_trial, make_suite, CLEAR, "table02-full")
    text = text_of(render_comparisons([compared(store, small_paper(), "full")]))
    assert re.search(r"DMSnp +75 +75.10 ± 0.50 +3 +\+0.10 +yes \(± 0.5\)", text)
    assert re.search(r"uniform +70 +71.23 ± 0.52 +3 +\+1.23 +no \(± 0.5\)", text)
    assert "Proxy" not in text


def test_csv_follows_every_number_to_runs_and_commit(filled):
    (dms, uniform, quoted, newer, random) = csv.DictReader(
        io.StringIO(render_comparisons([compared(filled, small_paper())], "csv"))
    )
    assert float(dms["ours"]) == pytest.approx(75.1)
    assert float(dms["published"]) == 75.0
    assert dms["difference"] == dms["within_tolerance"] == ""
    assert len(dms["runs"].split()) == 3
    assert dms["commits"] == "abc123"
    assert dms["profile"] == "proxy"
    assert dms["verdict_of_table"] == "reproduced"
    assert dms["source"] == "Here 2026, table 2"
    assert newer["source"] == "somewhere"
    assert random["source"] == quoted["runs"] == ""
    assert float(uniform["search_device_days"]) == pytest.approx(2 * 43.2 / 86400)
    assert float(quoted["published_search_days"]) == 500


def test_markdown_escapes_and_has_one_shape(filled):
    text = render_comparisons([compared(filled, small_paper())], "markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 5
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "Newer \\| one" in text


class Checker(HTMLParser):
    """Checks that tags are closed in order, and that nothing is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_one_page_that_fetches_nothing(filled):
    page = render_comparisons([compared(filled, small_paper())], "html")
    checker = Checker()
    checker.feed(page)
    assert checker.open == checker.links == []
    assert "75.10 ± 0.50" in page
    assert "Newer | one" in page


def test_unknown_formats_are_named(filled):
    with pytest.raises(UserError, match="did you mean 'markdown'"):
        render_comparisons([compared(filled, small_paper())], "markdwn")


def test_command_line(filled, paper_file, tmp_path, capsys):
    options = ["--published", str(paper_file), "--tracking", filled]
    assert _main(["table", "2", *options]) == 0
    assert "75.10" in capsys.readouterr().out
    output = tmp_path / "all.csv"
    assert _main(["table", "--all", "--format", "csv", "--output", str(output), *options]) == 0
    assert output.read_text().startswith("table,profile,suite,")
    for arguments, text in (
        (["table", "9"], "there is no table 9; choose from 2"),
        (["table"], "name tables by their numbers, or give --all"),
        (["table", "2", "--all"], "name tables by their numbers, or give --all"),
        (["figure", "9"], "there is no figure 9; choose from 3"),
    ):
        capsys.readouterr()
        assert _main([*arguments, *options]) == 2
        assert text in capsys.readouterr().err


def test_without_a_store_everything_is_missing(paper_file, tmp_path, capsys):
    assert _main(["table", "2", "--published", str(paper_file), "--tracking", f"sqlite:///{tmp_path / 'none.db'}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cannot be judged yet: trials are missing" in out
    assert f"Made by: dms-bench run {tmp_path}/table02.yaml" in out
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("profile", ["proxy", "full"])
def test_figure_3_is_drawn_with_and_beside_ours(store, make_trial, make_suite, paper_file, tmp_path, profile):
    run_suite(store, make_trial, make_suite, CLEAR, "table02" if profile == "proxy" else "table02-full")
    output = tmp_path / "three"
    assert _main(["figure", "3", "-o", str(output), "--published", str(paper_file), "--tracking", store]) == 0
    assert (tmp_path / "three.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "three.svg").read_text()
    ElementTree.fromstring(svg)
    from dms_bench.report.paper.scatter import draw_scatter

    figure = draw_scatter([compared(store, small_paper(), profile)], "title")
    panels = figure.axes
    assert len(panels) == (4 if profile == "proxy" else 2)
    # Published: dms, uniform, quoted, newer; a proxy's points are not among them.
    places = [tuple(point) for part in panels[0].collections for point in getattr(part, "get_offsets", list)()]
    ours = [place for place in places if abs(place[1] - 75.1) < 1e-6]
    assert ((1.0, 75.0) in places, bool(ours)) == (True, profile == "full")
    assert panels[1].get_xscale() == "log"


def test_our_points_of_one_budget_stand_side_by_side_and_wide_intervals_run_out(store, make_trial, make_suite):
    run_suite(store, make_trial, make_suite, {**CLEAR, "random": {0: 20.0, 1: 90.0}})
    from dms_bench.report.paper.scatter import draw_scatter

    figure = draw_scatter([compared(store, small_paper())], "title")
    figure.draw_without_rendering()
    by_macs, by_cost = figure.axes[2:]
    points = [part for part in by_macs.collections if isinstance(part, PathCollection)]
    assert len({tuple(part.get_edgecolor()[0]) for part in points}) == len(points) == 3
    places = sorted(by_macs.transData.transform(part.get_offsets()[0])[0] for part in points)
    assert all(right - left > 4 for left, right in itertools.pairwise(places))
    assert [text.get_text() for text in by_macs.texts] == ["DMSnp"]
    # The interval of two seeds 70 points apart is 445 points to either side; the means lie 20 apart.
    for panel in (by_macs, by_cost):
        low, high = panel.get_ylim()
        assert 25 < low < 55
        assert high <= 100


def test_figure_4_leaves_removed_blocks_out():
    from dms_bench.report.paper.widths import draw_widths, network_of

    description = {
        "architecture": {"stages": {"blocks.1": [0]}},
        "surgery": {"skipped": ["blocks.1.2"]},
        "sizes": {
            "stream": [16, 32], "blocks.1.0.conv_pw": [8, 64], "blocks.1.0.se.conv_reduce": [2, 4],
            "blocks.1.1.conv_pw": [60, 64], "blocks.1.2.conv_pw": [64, 64], "blocks.1.20.conv_pw": [5, 64],
            "blocks.1.stream": [24, 24], "blocks.1": [1, 2],
        },
    }  # fmt: skip
    network = network_of(description, "searched")
    assert [(layer.name, layer.kept) for layer in network.layers] == [
        ("stream", 16), ("blocks.1.0.conv_pw", 8), ("blocks.1.1.conv_pw", 60), ("blocks.1.20.conv_pw", 5),
        ("blocks.1.stream", 24),
    ]  # fmt: skip
    assert network.depth == "1 of 2 removable blocks"
    assert [layer.stage for layer in network.layers] == ["stream", *["blocks.1"] * 4]
    figure = draw_widths(network, network, "title")
    heights = [bar.get_height() for bar in figure.axes[0].containers[1]]
    assert heights == [16, 8, 60, 5, 24]
