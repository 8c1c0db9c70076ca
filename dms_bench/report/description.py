"""What is to be read first on MLflow's pages: of a suite its leaderboard, of a trial what it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dms_bench.config.task import Unit
from dms_bench.config.trial import Trial
from dms_bench.report import format as fmt
from dms_bench.report.board import leaderboard
from dms_bench.report.decided import decided_notes
from dms_bench.report.render import markdown_line, markdown_text, render_markdown
from dms_bench.tracking import TrialResult
from dms_bench.tracking.content import cost_metrics

#: The artifact with the picture of what was kept.
PICTURE = "architecture.png"


def describe_suite(uri: str, suite: str, description: str) -> str:
    """Return a suite's description and its leaderboard, in Markdown.

    Args:
        uri: tracking URI.
        suite: the suite's name.
        description: what the suite says of itself.

    Raises:
        UserError: it has no trials yet, or the store does not answer.
    """
    board = render_markdown(leaderboard(uri, suite), decided=decided_notes(uri, [suite]))
    return "\n\n".join(filter(None, (description.strip(), board)))


def describe_trial(trial: Trial, result: TrialResult, run_id: str, record: Mapping[str, Any]) -> str:
    """Return what a finished trial is, what it came to and where its network is, in Markdown.

    Args:
        trial: what was run.
        result: what it came to.
        run_id: its run, whose artifacts the picture is among.
        record: what its `architecture.json` says.
    """
    unit = trial.task.units.get(result.metric, Unit())
    measured = f"{fmt.heading(result.metric, unit.symbol)} {fmt.measure(result.value, None, unit.decimals)}"
    of = f"`{trial.supernet.label()}`, {markdown_text(trial.method.label())} at {markdown_text(trial.budget.label())}"
    parts = [
        f"**{markdown_text(measured)}**: {of}, seed {trial.seed}, "
        f"{markdown_text(trial.course)}, {markdown_text(trial.task.label())}.",
        _table(result),
        kept(record),
        f"![What was kept of each group and stage](get-artifact?path={PICTURE}&run_uuid={run_id})",
        f"The picture is `{PICTURE}`, the network `architecture.json` with `weights.safetensors`, all three among the "
        f"artifacts. `dms-bench export {trial.name} --output DIR` writes it for PyTorch alone and for other runtimes.",
    ]
    return "\n\n".join(parts)


def kept(record: Mapping[str, Any]) -> str:
    """Say in a sentence what an architecture keeps of its supernet."""
    stages = record["architecture"]["stages"]
    sizes: Mapping[str, Sequence[int]] = record["sizes"]
    widths = [tuple(size) for name, size in sizes.items() if name not in stages]
    depths = [tuple(size) for name, size in sizes.items() if name in stages]
    said = []
    if widths:
        narrowed = sum(kept < size for kept, size in widths)
        said.append(
            f"{_share(widths):.0%} of the channels and heads in {fmt.number_of(len(widths), 'group')}, of which "
            f"{narrowed} {'is' if narrowed == 1 else 'are'} narrower than in the supernet"
        )
    if depths:
        blocks = sum(size for _, size in depths)
        said.append(f"{sum(kept for kept, _ in depths)} of {blocks} blocks that may go")
    return f"The network keeps {' and '.join(said) or 'all of the supernet'}."


def _share(sizes: Sequence[tuple[int, ...]]) -> float:
    return sum(kept for kept, _ in sizes) / sum(size for _, size in sizes)


def _table(result: TrialResult) -> str:
    costs = cost_metrics(result.costs)
    rows = [
        ("MACs", fmt.count(result.macs), fmt.count(result.supernet_macs)),
        ("parameters", fmt.count(result.params), fmt.count(result.supernet_params)),
        ("latency", fmt.milliseconds(result.latency_ms), fmt.milliseconds(result.supernet_latency_ms)),
        ("MACs of the search", fmt.count(costs.get("search_training_macs")), ""),
    ]
    return "\n".join(map(markdown_line, (("", "network", "supernet"), ("---", "---:", "---:"), *rows)))
