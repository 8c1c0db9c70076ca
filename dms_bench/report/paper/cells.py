"""What a comparison shows, apart from how: cells, notes and the record of every number, shared by all formats."""

from __future__ import annotations

from dms_bench.report import format as fmt
from dms_bench.report.paper.compare import Comparison, ComparisonLine
from dms_bench.report.paper.measured import distilled
from dms_bench.tracking import names

#: Stages whose cost is shown apart.
_STAGES = ("pretrain", "predictor", "search", "retrain")
_SHORT_COMMIT = 9
_MARKS = {True: "yes", False: "no", None: fmt.MISSING}
_QUESTIONS = {
    "reproduced": "the claim is reproduced",
    "not reproduced": "the claim is not reproduced",
    "equal": "the claim is not reproduced nor refuted: rows that should differ are equal within a point",
    "undecided": "undecided at this number of seeds",
    "missing": "cannot be judged yet: trials are missing",
}
_ANSWERS = {
    "reproduced": "yes",
    "not reproduced": "no",
    "equal": "equal within a point",
    "undecided": "undecided",
    "missing": "trials are missing",
}


def title(comparison: Comparison) -> str:
    """Return the heading of a table."""
    return f"Table {comparison.table.number}: {comparison.table.title}"


def columns(comparison: Comparison, *, full: bool) -> list[str]:
    """Return the headings; `full` where there is room."""
    measured = ["measure"] if len(comparison.table.measures) > 1 else []
    headings = ["row", *measured, "published", "ours", "n"]
    if comparison.profile == "full":
        headings += ["difference", "in tolerance"]
    headings += ["MACs", "our MACs", "search cost", "our cost"]
    return [*headings, "over target", "our recipe", "runs"] if full else headings


def cells(comparison: Comparison, line: ComparisonLine, *, full: bool) -> list[str]:
    """Return a line's texts, in the order of `columns`."""
    row, measured = line.row, line.measured
    several = [line.measure.field.rpartition("_")[0]] if len(comparison.table.measures) > 1 else []
    texts = [label(line), *several, _published(line), ours(line), str(line.ours.n) if measured else fmt.MISSING]
    if comparison.profile == "full":
        difference = fmt.MISSING if line.difference is None else f"{line.difference:+.2f}"
        within = _MARKS[line.within]
        if line.tolerance is not None and line.within is not None:
            within += f" (± {line.tolerance.points:g})"
        texts += [difference, within]
    macs = measured.mean("macs") if measured else None
    texts += [
        fmt.MISSING if row.macs_g is None else f"{row.macs_g:g}G",
        fmt.count(macs),
        published_cost(line),
        our_cost(line),
    ]
    if full:
        over = list(measured.over_target().values()) if measured else []
        texts += [
            f"{100 * sum(over) / len(over):+.1f} %" if over else fmt.MISSING,
            measured.recipe or fmt.MISSING if measured else fmt.MISSING,
            " ".join(measured.runs) or fmt.MISSING if measured else fmt.MISSING,
        ]
    return texts


def label(line: ComparisonLine) -> str:
    """Return a row's name with what sets it apart."""
    row = line.row
    marks = [text for text, holds in (("distilled", row.distilled), ("later", row.later)) if holds]
    marks += ["our control"] if row.control else []
    return f"{row.name} ({', '.join(marks)})" if marks else row.name


def ours(line: ComparisonLine) -> str:
    """Return our mean with its interval, or why there is none."""
    if line.measured is None:
        return "not run"
    if line.missing:
        failed, unfinished = line.measured.failed, line.measured.unfinished
        return f"{failed} failed" if failed else f"{unfinished} unfinished" if unfinished else "missing"
    mean, half, _ = line.ours
    if mean is None:
        return "not measured"
    return f"{mean:.2f}" if half is None else f"{mean:.2f} ± {half:.2f}"


def _published(line: ComparisonLine) -> str:
    if not line.row.target_reached:
        return "target not reached"
    return fmt.MISSING if line.published is None else f"{line.published:g}"


def published_cost(line: ComparisonLine) -> str:
    """Return the printed search cost, public and private where the paper tells them apart."""
    row = line.row
    at_least = "> " if row.cost_is_at_least else ""
    parts = [
        (row.public_gpu_days, row.private_gpu_days, "GPU-d"),
        (row.public_tpu_days, row.private_gpu_days, "TPU-d"),
        (row.public_gpu_hours, row.private_gpu_hours, "GPU-h"),
        (row.pretrain_gmac_epochs, row.search_gmac_epochs, "GMACs x epochs"),
    ]
    for public, private, unit in parts:
        if public is not None:
            return f"{at_least}{public:g} + {private or 0:g} {unit}"
    return fmt.MISSING if row.total_gpu_days is None else f"{at_least}{row.total_gpu_days:g} GPU-d"


def our_cost(line: ComparisonLine) -> str:
    """Return our search cost, public and private, as devices x time."""
    if line.measured is None or not line.measured.records:
        return fmt.MISSING
    kind = line.measured.tag(names.DEVICE_KIND)
    public = fmt.cost(line.measured.mean("public_device_days"), kind)
    private = fmt.cost(line.measured.mean("search_device_days"), kind)
    return private if public in ("0", fmt.MISSING) else f"{public} + {private}"


def notes(comparison: Comparison) -> list[str]:
    """Return what a reader must know: claim, verdict and its reasons, where it comes from, what is missing."""
    table = comparison.table
    sentences = [f"Claim: {table.claim}"]
    on_task = f" on {comparison.task}" if comparison.task else ""
    sentences.append(f"Verdict{on_task} ({comparison.profile}): {_QUESTIONS[comparison.outcome]}.")
    sentences += [f"- {verdict.question}: {verdict.outcome}; {verdict.evidence}" for verdict in comparison.verdicts]
    if comparison.doubts:
        sentences.append("Not said by the claim, and no part of the verdict:")
        sentences += [f"- {doubt.question}: {_ANSWERS[doubt.outcome]}; {doubt.evidence}" for doubt in comparison.doubts]
    if any(" p " in verdict.evidence for verdict in (*comparison.verdicts, *comparison.doubts)):
        sentences.append(
            "± and p: paired by seed, for the questions of a list together (Bonferroni's intervals, Holm's p-values)."
        )
    if comparison.correlation is not None:
        tau, n = comparison.correlation
        sentences.append(f"Order of the rows beside the published order: Kendall's tau {tau:+.2f} over {n} rows.")
    if comparison.profile == "proxy":
        sentences.append(
            "Proxy: the same question on small data and networks. Its accuracies are of another task than the "
            "published ones: no difference is taken."
        )
    if comparison.missing:
        sentences.append(f"Missing: {', '.join(comparison.missing)}. Made by: {comparison.command}")
    commits = ", ".join(commit[:_SHORT_COMMIT] for commit in comparison.commits) or "none yet"
    sentences.append(f"Ours: suite {comparison.suite}, profile {comparison.profile}, commit {commits}.")
    return sentences


def remarks(comparison: Comparison) -> list[str]:
    """Return what is to be said of the published figures: setting, sources, mixed or later rows, tolerances."""
    table = comparison.table
    sentences = ["Setting of the paper: " + "; ".join(f"{name}: {text}" for name, text in table.setting.items()) + "."]
    sentences += table.remarks
    for row in table.rows:
        remark = "; ".join(text for text in (row.source, row.remark) if text)
        if remark:
            sentences.append(f"{row.name}: {remark}.")
    if comparison.profile == "full":
        tolerances = {line.tolerance.why: line.tolerance for line in comparison.lines if line.tolerance}
        sentences += [f"Tolerance of {tolerance.points:g}: {why}." for why, tolerance in tolerances.items()]
    return sentences


def record(comparison: Comparison, line: ComparisonLine) -> dict[str, object]:
    """Return everything about a line in full precision: a line of the CSV."""
    row, measured, mean = line.row, line.measured, line.ours
    verdict = comparison.outcome
    fields: dict[str, object] = {
        "table": comparison.table.number,
        "profile": comparison.profile,
        "suite": comparison.suite,
        "task": comparison.task,
        "row": row.id,
        "name": row.name,
        "distilled": row.distilled,
        "later": row.later,
        "control": row.control,
        "measure": line.measure.field,
        "published": line.published,
        "target_reached": row.target_reached,
        "ours": mean.mean,
        "ci95": mean.ci95,
        "n": mean.n,
        "difference": line.difference,
        "tolerance": line.tolerance.points if line.tolerance and line.comparable else None,
        "within_tolerance": line.within,
        "verdict_of_table": verdict,
        "published_macs_g": row.macs_g,
        "published_params_m": row.params_m,
        "published_cost": published_cost(line).removeprefix(fmt.MISSING),
        "published_search_days": row.search_days(),
    }
    numbers = ("macs", "params", "latency_ms", "public_device_days", "search_device_days")
    fields |= {name: measured.mean(name) if measured else None for name in numbers}
    fields |= {f"{stage}_device_days": _stage(line, stage) for stage in _STAGES if stage != "search"}
    over = list(measured.over_target().values()) if measured else []
    fields |= {
        "over_target": sum(over) / len(over) if over else None,
        "device": measured.tag(names.DEVICE) if measured else "",
        "recipe": measured.recipe if measured else "",
        "ours_distilled": distilled(measured) if measured and measured.records else None,
        "failed": measured.failed if measured else None,
        "unfinished": measured.unfinished if measured else None,
        "runs": " ".join(measured.runs) if measured else "",
        "commits": " ".join(measured.commits) if measured else "",
        "source": row.source or ("" if row.control else f"{comparison.paper.venue}, table {comparison.table.number}"),
        "remark": row.remark,
    }
    return fields


def _stage(line: ComparisonLine, stage: str) -> float | None:
    return line.measured.mean(names.cost_metric(stage)) if line.measured else None
