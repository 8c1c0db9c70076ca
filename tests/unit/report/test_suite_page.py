"""The page on a suite: what is in it, and what a real browser makes of it."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from dms_bench.cli import _main
from dms_bench.report.records import read_records
from tests.unit.report.paper_store import run_suite, small_paper
from tests.unit.report.test_paper_compare import CLEAR
from tests.unit.report.test_paper_write import Checker

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ARCHITECTURE = {
    "architecture": {"stages": {"layer1": [0]}},
    "surgery": {"skipped": ["layer1.1"]},
    "sizes": {"conv1": [8, 16], "layer1.0.conv1": [5, 16], "layer1.1.conv1": [16, 16], "layer1": [1, 2]},
}
#: What the page is asked, once it is there.
PROBE = """<script>addEventListener("load", () => { document.body.dataset.probe = JSON.stringify({
  wide: document.documentElement.scrollWidth, window: innerWidth,
  images: [...document.images].map(image => image.naturalWidth),
  tables: [...document.querySelectorAll("table")].map(table => table.rows.length),
  bars: document.querySelectorAll(".strip rect").length,
  text: document.querySelector("h1").getBoundingClientRect().height,
}) })</script></body>"""


@pytest.fixture
def page(store, make_trial, make_suite, tmp_path):
    """The page of a suite of nine trials, one of which published its architecture."""
    from dms_bench.tracking import connect

    run_suite(store, make_trial, make_suite, CLEAR)
    architecture = tmp_path / "architecture.json"
    architecture.write_text(json.dumps(ARCHITECTURE))
    records = read_records(store, "table02")
    dms = next(record for record in records if record.tags["dms.method"] == "dms" and record.seed == 0)
    connect(store).log_artifact(dms.run_id, str(architecture))
    paper = tmp_path / "published.yaml"
    paper.write_text(yaml.safe_dump(small_paper().model_dump(mode="json")))
    output = tmp_path / "report.html"
    options = ["--published", str(paper), "--tracking", store]
    assert _main(["report", "--suite", "table02", "--output", str(output), *options]) == 0
    return output, records


def test_every_trial_is_there_with_run_and_commit(page):
    text = page[0].read_text()
    for record in page[1]:
        assert record.run_id in text
        assert record.hash in text
    assert "abc123" in text
    assert "method.temperature = 1.0" in text


def test_it_has_tables_figures_architectures_and_costs_and_fetches_nothing(page):
    text = page[0].read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert all(link.startswith("data:image/svg+xml;base64,") for link in checker.links)
    assert len(checker.links) == 1
    assert "Table 2: Small table" in text
    assert "Verdict on paper (proxy): the claim is reproduced." in text
    assert re.search(r"cnn, dms, macs 30%, seed 0: 1 of 2 removable blocks, 1.50M MACs", text)
    assert "layer1.0.conv1: 5 of 16" in text
    assert "layer1.1.conv1" not in text
    # Nine trials of 2 devices x 43.2 s.
    assert "0.0010 core-days" not in text
    assert re.search(
        r"<td>search</td><td>EPYC</td><td class=\"number\">9</td><td class=\"number\">1.44 core-min</td>", text
    )


def test_a_suite_of_no_table_has_a_page_too(store, make_trial, make_suite, tmp_path, capsys):
    run_suite(store, make_trial, make_suite, CLEAR, "own")
    output = tmp_path / "own.html"
    options = ["--published", str(tmp_path / "none.yaml"), "--tracking", store]
    assert _main(["report", "--suite", "own", "--output", str(output), *options]) == 0
    assert "its architecture cannot be read" in output.read_text()
    assert _main(["report", "--suite", "onw", "--output", str(output), *options]) == 2
    assert "did you mean 'own'?" in capsys.readouterr().err


@pytest.mark.skipif(BROWSER is None, reason="needs a browser on this machine: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 800])
def test_a_browser_shows_it(page, tmp_path, width):
    copy = tmp_path / "probed.html"
    copy.write_text(page[0].read_text().replace("</body>", PROBE))
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=10000",
        "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    probe = re.search(r'data-probe="([^"]*)"', found)
    assert probe, found[:500]
    seen = json.loads(probe[1].replace("&quot;", '"'))
    assert seen["wide"] <= seen["window"]  # wide tables scroll by themselves
    assert len(seen["images"]) == 1
    assert min(seen["images"]) > 300
    assert seen["tables"][0] == 1 + 5
    assert seen["tables"][-1] == 1 + 9
    assert seen["bars"] == 2 * 2
    assert 15 < seen["text"] < 120
