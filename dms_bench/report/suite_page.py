"""One suite as one HTML page that needs nothing else: tables, figures, architectures, costs, and every trial."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from dms_bench.errors import UserError
from dms_bench.report import format as fmt
from dms_bench.report.board import rows
from dms_bench.report.html import board_sections, environment_section, page
from dms_bench.report.paper.compare import Comparison
from dms_bench.report.paper.widths import Network, read_network
from dms_bench.report.paper.write import html_section
from dms_bench.report.records import Record
from dms_bench.tracking import names

_BAR, _TALL, _WIDE = 9, 74, 420
_KEPT, _WHOLE = "#0072b2", "#dde3ea"
_STAGES = ("build", "pretrain", "predictor", "search", "repair", "retrain", "recalibrate", "evaluate")


def suite_page(
    uri: str,
    suite: str,
    records: Sequence[Record],
    comparisons: Sequence[Comparison],
    figures: Iterable[tuple[str, Any]],
) -> str:
    """Return the page.

    Args:
        uri: tracking URI, where architectures are read from.
        suite: its name.
        records: its trials.
        comparisons: the tables of the paper that it answers.
        figures: captions and figures (matplotlib's).
    """
    board = rows(records)
    finished = [record for record in records if record.status == names.FINISHED]
    sections = [_section(html_section(comparison)) for comparison in comparisons]
    sections += [_section(f"<h2>{escape(caption)}</h2>{_picture(figure, caption)}") for caption, figure in figures]
    sections += board_sections(board)
    sections += [
        _section(f"<h2>Architectures</h2>{_architectures(uri, finished)}"),
        _section(f"<h2>Cost by stage</h2>{_costs(finished)}"),
        _section(f"<h2>Trials</h2>{_trials(records)}"),
        environment_section(board),
    ]
    lead = f"{len(finished)} finished of {len(records)} trials. Every mean is over trials of the list at the end."
    return page(f"Suite {suite}", lead, sections)


def _section(content: str) -> str:
    return f"<section>{content}</section>"


def _picture(figure: Any, caption: str) -> str:
    """Embed a figure: as an image its identifiers cannot clash with another's."""
    text = io.BytesIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    data = base64.b64encode(text.getvalue()).decode()
    return f'<img class="figure" alt="{escape(caption, quote=True)}" src="data:image/svg+xml;base64,{data}">'


def _title(record: Record) -> str:
    tags = record.tags
    method = tags.get(names.METHOD_LABEL, tags[names.METHOD])
    return f"{tags[names.EXPERIMENT]}, {method}, {tags[names.BUDGET]}, seed {record.seed}"


def _architectures(uri: str, finished: Sequence[Record]) -> str:
    """Draw the network of the first seed of every experiment, method and budget."""
    firsts: dict[tuple[str, ...], Record] = {}
    for record in sorted(finished, key=lambda trial: trial.seed):
        settings = json.dumps(
            {key: value for key, value in record.params.items() if key.startswith("method.")}, sort_keys=True
        )
        firsts.setdefault((record.tags[names.EXPERIMENT], settings, record.tags[names.BUDGET]), record)
    drawn = []
    for _, record in sorted(firsts.items()):
        try:
            network = read_network(uri, record, _title(record))
        except UserError as error:
            drawn.append(f"<p>{escape(str(error))}</p>")
        else:
            drawn.append(_strip(network, record))
    note = (
        "Share of every width group that is kept, from the input to the output; groups of removed blocks are left out."
    )
    return f'<p class="caption">{note}</p>{"".join(drawn)}' if drawn else "<p>No finished trial.</p>"


def _strip(network: Network, record: Record) -> str:
    # A network of few groups would otherwise be a stripe of a few millimetres.
    bar = max(_BAR, round(_WIDE / max(1, len(network.layers))))
    bars = []
    for index, layer in enumerate(network.layers):
        tip = f"<title>{escape(f'{layer.name}: {layer.kept} of {layer.whole}')}</title>"
        for height, colour in ((_TALL, _WHOLE), (_TALL * layer.kept / layer.whole, _KEPT)):
            shape = f'x="{index * bar}" y="{_TALL - height:.1f}" width="{bar - 1}" height="{height:.1f}"'
            bars.append(f'<rect {shape} fill="{colour}">{tip}</rect>')
    width = max(1, len(network.layers)) * bar
    macs, params = (fmt.count(record.metrics.get(name)) for name in ("macs", "params"))
    size = f"{network.depth}, {macs} MACs, {params} parameters"
    return (
        f'<figure class="strip"><figcaption>{escape(network.title)}: {size}</figcaption>'
        f'<svg viewBox="0 0 {width} {_TALL}" width="{width}" height="{_TALL}" role="img" '
        f'aria-label="{escape(network.title, quote=True)}">{"".join(bars)}</svg></figure>'
    )


def _costs(finished: Sequence[Record]) -> str:
    """Add up what the finished trials cost, by stage and device; a stage that trials share is in every one's record."""
    total: dict[tuple[str, str, str], list[float]] = {}
    for record in finished:
        for cost in json.loads(record.tags.get(names.COSTS, "[]")):
            key = (cost["stage"], cost["device"], cost["kind"])
            total.setdefault(key, []).append(cost["devices"] * cost["seconds"] / 86400)
    order = {stage: index for index, stage in enumerate(_STAGES)}
    lines = []
    for (stage, device, kind), days in sorted(total.items(), key=lambda item: (order.get(item[0][0], 99), item[0])):
        mean, whole = fmt.cost(sum(days) / len(days), kind), fmt.cost(sum(days), kind)
        shared = " (shared: counted in each)" if stage in names.PUBLIC_STAGES else ""
        lines.append([stage, device, str(len(days)), mean, f"{whole}{shared}"])
    return _table(["stage", "device", "trials", "mean", "all"], lines, numbers_from=2)


def _trials(records: Sequence[Record]) -> str:
    heading = ["trial", "status", "measure", "MACs", "params", "search", "run", "commit", "specification"]
    lines = []
    for record in sorted(records, key=lambda trial: trial.name):
        metric = record.tags[names.METRIC]
        spec = "\n".join(f"{name} = {value}" for name, value in sorted(record.params.items()))
        cells = [
            record.name,
            record.status,
            fmt.measure(record.value, None, record.unit(metric).decimals),
            fmt.count(record.metrics.get("macs")),
            fmt.count(record.metrics.get("params")),
            fmt.cost(record.metrics.get("search_device_days"), record.tags.get(names.DEVICE_KIND, "")),
            record.run_id,
            _code_of(record),
        ]
        lines.append(
            [
                *map(escape, cells),
                f"<details><summary>{escape(record.hash)}</summary><pre>{escape(spec)}</pre></details>",
            ]
        )
    return _table(heading, lines, escaped=True, name="trials")


def _code_of(record: Record) -> str:
    """Return the commit that a trial ran, or of an installed package its version."""
    environment = record.environment
    version = environment.get("dms_bench")
    return environment.get("git_commit") or (f"version {version}" if version else fmt.MISSING)


def _table(
    heading: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    numbers_from: int = 99,
    escaped: bool = False,
    name: str = "",
) -> str:
    def cells(tag: str, texts: Sequence[str], safe: bool) -> str:
        number = ' class="number"'
        return "".join(
            f"<{tag}{number if index >= numbers_from else ''}>{text if safe else escape(text)}</{tag}>"
            for index, text in enumerate(texts)
        )

    body = "".join(f"<tr>{cells('td', line, escaped)}</tr>" for line in lines)
    return (
        f'<div class="scroll"><table class="{name}"><thead><tr>{cells("th", heading, False)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
