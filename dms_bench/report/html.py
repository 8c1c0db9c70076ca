"""The leaderboard as one HTML page that needs nothing else: tables, plots, and where it all came from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from dms_bench.report.board import CEILING, Row
from dms_bench.report.forest import forest
from dms_bench.report.layout import Block, blocks, footnotes
from dms_bench.report.svg import CEILING_COLOUR, PALETTE, colours, panel

_NUMBERS_FROM, _MEAN_COLUMN, _METHOD_COLUMN = 2, 2, 1


def render_html(rows: Sequence[Row], title: str = "Leaderboard", decided: Sequence[str] = ()) -> str:
    """Return the page; `decided` as of `render`."""
    board_blocks = blocks(rows)
    suites = ", ".join(sorted({row.suite for row in rows}))
    trials = sum(row.n for row in rows)
    comparisons = f"{len(board_blocks)} comparison{'s' * (len(board_blocks) != 1)}"
    lead = f"Suite {suites}: {trials} finished trial{'s' * (trials != 1)} in {comparisons}"
    items = "".join(f"<li>{escape(note)}</li>" for note in decided)
    section = f'<section><h2>What was decided</h2><ul class="notes">{items}</ul></section>'
    return page(title, lead, [*board_sections(rows), *([section] if decided else []), environment_section(rows)])


def board_sections(rows: Sequence[Row]) -> list[str]:
    """Return a leaderboard as sections of a page: plots, a table for each comparison, notes."""
    board_blocks = blocks(rows)
    known = [row for row in rows if row.search_training_macs is not None]
    return [
        _plots(board_blocks, rows),
        *[f"<section><h2>{escape(block.title)}</h2>{_table(block)}</section>" for block in board_blocks],
        *[
            f"<section><h2>What searches use and compute: {escape(block.title)}</h2>{_table(block)}</section>"
            for block in blocks(known, costs=True)
        ],
        f"<section><h2>How to read it</h2>{_notes(rows)}</section>",
    ]


def environment_section(rows: Sequence[Row]) -> str:
    """Return where rows were made, as a section of a page."""
    return f"<section><h2>Where it was made</h2>{_environment(rows)}</section>"


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """Return a page that needs no other file.

    Args:
        title: heading, plain text.
        lead: the line below it, plain text.
        sections: HTML.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    style = files("dms_bench.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "\n".join([f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(lead)}</p>', *sections])
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{style}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _plots(board_blocks: Sequence[Block], rows: Sequence[Row]) -> str:
    colour = colours(rows)
    if len(colour) > len(PALETTE):
        return _forests(board_blocks, rows)
    figures = _figures(
        [(block.title, panel(block.rows, colour, f"{block.title}: against MACs")) for block in board_blocks]
    )
    if not figures:
        return ""
    entries = [f'<li><i style="background:{shade}"></i>{escape(method)}</li>' for method, shade in colour.items()]
    if any(row.kind == CEILING for row in rows):
        entries.append(f'<li><b style="color:{CEILING_COLOUR}">★</b>supernet, not cut (dashed: its level)</li>')
    heading = ", ".join(sorted({row.metric for row in rows}))
    caption = "Means over seeds; bars are 95 % intervals. Methods at one budget are drawn a few pixels apart. "
    caption += "The vertical axis does not start at 0."
    return (
        f'<section><h2>{escape(heading)} against MACs</h2><ul class="legend">{"".join(entries)}</ul>'
        f'<div class="panels">{figures}</div><p class="caption">{caption}</p></section>'
    )


def _forests(board_blocks: Sequence[Block], rows: Sequence[Row]) -> str:
    figures = _figures([(block.title, forest(block.rows, f"{block.title}: every method")) for block in board_blocks])
    if not figures:
        return ""
    heading = ", ".join(sorted({row.metric for row in rows}))
    caption = "Means over seeds; bars are 95 % intervals. The axis need not start at 0."
    return f'<section><h2>{escape(heading)} of every method</h2>{figures}<p class="caption">{caption}</p></section>'


def _figures(drawings: Sequence[tuple[str, str]]) -> str:
    return "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{drawing}</figure>" for title, drawing in drawings if drawing
    )


def _table(block: Block) -> str:
    head = "".join(f"<th{_number(index)}>{escape(column)}</th>" for index, column in enumerate(block.columns))
    lines = []
    for line in block.lines:
        kind = " ".join(name for name, holds in (("opens", line.opens), ("best", line.best)) if holds)
        cells = "".join(f"<td{_number(index)}>{escape(cell)}</td>" for index, cell in enumerate(line.cells))
        lines.append(f'<tr class="{kind}">{cells}</tr>')
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _number(column: int) -> str:
    names = []
    if column >= _NUMBERS_FROM:
        names.append("number")
    if column == _MEAN_COLUMN:
        names.append("mean")
    if column == _METHOD_COLUMN:
        names.append("method")
    return f' class="{" ".join(names)}"' if names else ""


def _notes(rows: Sequence[Row]) -> str:
    notes = dict.fromkeys([*footnotes(rows), *footnotes(rows, costs=True)])  # the page has both views
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _environment(rows: Sequence[Row]) -> str:
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, row_values in row.environment.items():
            values.setdefault(name, set()).update(row_values)
    entries = []
    for name, several in sorted(values.items()):
        text = "<br>".join(escape(value) for value in sorted(several))
        entries.append(f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{text}</dd>")
    return f"<dl>{''.join(entries)}</dl>"
