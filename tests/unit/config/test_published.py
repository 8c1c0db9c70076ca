"""The published figures: their schema, the repository's file, and that its rows select trials of the suites."""

import copy
from pathlib import Path

import pytest

from dms_bench.config.document import read_document
from dms_bench.config.published import Figures, Published, load_published
from dms_bench.errors import UserError

PAPER = Path(__file__).parents[3] / "benchmarks" / "paper"
#: Of every table: rows, figures and their sum, from another typing of the paper than the file's.
TOTALS = {
    2: (4, 12, 23277.0), 3: (3, 12, 277.1), 4: (16, 78, 7881.13), 5: (6, 12, 463.08),
    6: (5, 5, 364.1), 7: (31, 87, 2665.97), 8: (8, 24, 757.8), 9: (2, 6, 91.3),
    10: (3, 21, 888.15), 11: (2, 4, 76.8), 12: (4, 12, 982.7), 13: (2, 8, 202.65),
    14: (5, 10, 366.1), 15: (12, 7, 507.2), 16: (4, 12, 347.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def published() -> Published:
    return load_published(PAPER / "published.yaml")


def test_all_tables_of_the_paper_are_there(published):
    assert [table.number for table in published.tables] == list(range(2, 17))
    assert [figure.number for figure in published.figures] == [3, 4]


@pytest.mark.parametrize("number", TOTALS)
def test_figures_add_up_to_those_of_another_typing(published, number):
    rows = [row for row in published.table(number).rows if not row.control and not row.later]
    figures = [value for row in rows for name in Figures.model_fields if (value := getattr(row, name)) is not None]
    # A column that the file holds as text there was a number in, or the other way round, would not add up either.
    assert (len(rows), len(figures)) == TOTALS[number][:2]
    assert sum(figures) == pytest.approx(TOTALS[number][2], rel=0, abs=1e-6)


def test_later_rows_have_a_source_and_are_marked(published):
    later = {row.id: row for table in published.tables for row in table.rows if row.later}
    assert {"b0-ra4", "ofa-389", "isomorphic-deit", "yolo11n", "yolo26n", "disp-llm", "olica"} <= later.keys()
    assert later["b0-ra4"].top1_percent == 78.57
    assert later["yolo26n"].map50_95_percent == 40.9
    assert all(row.source for row in later.values())


def test_costs_add_up_in_days(published):
    assert published.table(4).row("ma-b1").search_days() == 255
    assert published.table(4).row("b0").search_days() == 1714
    assert published.table(3).row("evolution").search_days() == pytest.approx(1.1 / 24)
    assert published.table(5).row("dms").search_days() is None


WRONG = [
    (("tables", 0, "rules", 0, "than"), "gets", "a rule names the row 'gets'; did you mean 'get'"),
    (("tables", 0, "rows", 0, "tolerance"), "frosen", "no tolerance 'frosen'; did you mean 'frozen'?"),
    (("tables", 0, "rows", 0, "tolerance"), None, "a row that our trials answer needs a 'tolerance'"),
    (("tables", 0, "rows", 0, "id"), "dms", "two rows have the id 'dms'"),
    (("tables", 0, "rows", 0, "top1_percent"), 555, "must be at most 100"),
    (("tables", 0, "rows", 0, "top_1"), 55, "unknown field"),
    (("tables", 0, "measures", 0, "field"), "top1", "'top1' is no figure; "),
    (("tables", 1, "number"), 2, "table 2 occurs twice"),
    (("tables", 3, "rules", 0, "than"), "tpp", "has no trials of ours"),
    (("figures", 1, "designed"), "b1", "no row 'b1' with trials of ours"),
    (("figures", 1, "table"), 99, "draws table 99, which is not there"),
]


@pytest.mark.parametrize(("path", "value", "text"), WRONG, ids=[text for _, _, text in WRONG])
def test_a_mistake_is_one_line_that_says_where(tmp_path, path, value, text):
    import yaml

    document = copy.deepcopy(read_document(PAPER / "published.yaml"))
    node = document
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    file = tmp_path / "published.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(UserError) as raised:
        load_published(file)
    assert len(str(raised.value).splitlines()) == 1
    assert text in str(raised.value)
    assert str(file) in str(raised.value)


def test_tables_and_figures_that_do_not_exist_are_named(published):
    with pytest.raises(UserError, match=r"there is no table 1; choose from 2, 3"):
        published.table(1)
    with pytest.raises(UserError, match=r"there is no figure 5; choose from 3, 4"):
        published.figure(5)
