"""A small paper and a store in which its suite was run, with known numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dms_bench.config.published import Published
from dms_bench.config.suite import Suite
from dms_bench.config.trial import Trial
from dms_bench.report.paper import Comparison, compare
from dms_bench.report.records import read_suites
from dms_bench.tracking import StageCost, open_suite
from tests.unit.report.published import ENVIRONMENT, publisher

Values = Mapping[str, Mapping[int, float | None]]

ROWS: list[dict[str, Any]] = [
    {"id": "dms", "name": "DMSnp", "top1_percent": 75.0, "macs_g": 1.0, "private_gpu_days": 3, "public_gpu_days": 0,
     "tolerance": "tight", "ours": {"experiment": "cnn", "method": "dms"}},
    {"id": "uniform", "name": "uniform", "top1_percent": 70.0, "macs_g": 1.0, "tolerance": "tight",
     "ours": {"experiment": "cnn", "method": "uniform"}},
    {"id": "quoted", "name": "Quoted", "top1_percent": 71.5, "macs_g": 1.1, "level": "high", "public_tpu_days": 500,
     "private_gpu_days": 0, "cost_is_at_least": True},
    {"id": "newer", "name": "Newer | one", "top1_percent": 79.0, "later": True, "source": "somewhere", "macs_g": 0.9},
    {"id": "random", "name": "random", "control": True, "ours": {"experiment": "cnn", "method": "random"}},
]  # fmt: skip
RULES: list[dict[str, Any]] = [
    {"kind": "better", "row": "dms", "than": "uniform"},
    {"kind": "better", "row": "dms", "than": "random"},
]


def small_paper(rows: Any = ROWS, rules: Any = RULES, doubts: Any = (), **measure: Any) -> Published:
    """Return a paper of one table."""
    return Published.model_validate(
        {
            "paper": {"title": "Small", "venue": "Here 2026", "url": "https://example.org"},
            "tolerances": {"tight": {"points": 0.5, "why": "it repeats"}},
            "tables": [
                {
                    "number": 2, "title": "Small table", "claim": "DMS wins.", "rows": rows, "rules": rules,
                    "doubts": doubts,
                    "measures": [{"field": "top1_percent", "metric": "top1", **measure}], "remarks": ["Rounded."],
                    "setting": {"data": "ImageNet"},
                }
            ],
            "figures": [{"number": 3, "kind": "scatter", "title": "Small figure", "tables": [2]}],
        }
    )  # fmt: skip


def run_suite(
    store: str,
    make_trial: Callable[..., Trial],
    make_suite: Callable[..., Suite],
    values: Values,
    name: str = "table02",
    **fields: Any,
) -> None:
    """Publish trials: method -> seed -> top-1 (None: failed); fields may be functions of the seed."""
    publish = publisher(open_suite(store, make_suite(name), ENVIRONMENT))
    for method, by_seed in values.items():
        for seed, value in by_seed.items():
            own = {name: field(seed) if callable(field) else field for name, field in fields.items()}
            publish(make_trial(method, seed), value, **own)


def days(search: float, pretrain: float = 0.0) -> dict[str, Any]:
    """Return the costs of a trial, in days of one device; seeds differ a little, the more the dearer they are."""

    def costs(seed: int) -> list[StageCost]:
        return [
            StageCost(stage=stage, device="EPYC", kind="cpu", devices=1, seconds=86400 * own * (1 + seed * own / 1e4))
            for stage, own in (("search", search), ("pretrain", pretrain))
        ]

    return {"costs": costs}


def compared(store: str, paper: Published, profile: Any = "proxy") -> Comparison:
    """Lay the store's trials beside the paper's table."""
    return compare(paper, paper.tables[0], profile, read_suites(store, ["table02", "table02-full"]))
