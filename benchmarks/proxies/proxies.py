"""Ranks random architectures of a search space by every training-free score, against their sizes.

    python benchmarks/proxies/proxies.py                      # proxies.csv and a table, both networks
    python benchmarks/proxies/proxies.py --count 20 --csv some.csv

A score whose ranking is that of parameters or MACs says no more than counting does; at equal MACs only parameters
are left to count. The architectures are those that random search draws from the space.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from scipy import stats

from dms_bench.config.supernet import SupernetSpec
from dms_bench.methods.base import SearchContext
from dms_bench.methods.sampling.fitness import SCORES
from dms_bench.methods.sampling.search import fitted
from dms_bench.methods.sampling.spec import RandomSearch
from dms_bench.scaling import Architecture, budget_of, find_space
from dms_bench.scaling.structure.subnets import leading
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.classification.task import Classification

HERE = Path(__file__).parent
NETWORKS = {"resnet18": {"channels": [16, 32, 64, 128]}, "test_efficientnet": {}}
TASK = {"data": {"name": "glyphs", "train": 4000, "val": 1000, "test": 4000}}
#: Everything that needs no trained weights.
CHOSEN = ("params", "macs", "zico", "zen", "naswot", "synflow", "snip", "grad_norm")
SHARE = 0.4


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="architectures per network and way of drawing")
    parser.add_argument("--csv", type=Path, default=HERE / "proxies.csv", help="the table of all scores")
    options = parser.parse_args()
    rows = [row for model in NETWORKS for row in scored(model, options.count)]
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("model", "drawn", "architecture", *CHOSEN), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(table(rows)))


def scored(model: str, count: int) -> Iterator[dict[str, Any]]:
    """Yield a row with all scores per architecture, first of any size, then at equal MACs."""
    task = Classification(ClassificationTask.model_validate(TASK), seed=0)
    supernet = task.build(SupernetSpec(model=model, args=NETWORKS[model]))
    space = find_space(supernet, task.example_input())
    trial: Any = SimpleNamespace(seed=0)
    loop: Any = SimpleNamespace(device=torch.device("cpu"))
    context = SearchContext(trial, task, supernet, space, budget_of(space, macs=SHARE), loop)
    scorers = {name: SCORES[name](context, RandomSearch(score=name)) for name in CHOSEN}
    generator = context.generator()
    order = -torch.arange(space.units.total, dtype=torch.float32)
    minimum, maximum = torch.tensor(space.units.minimum), torch.tensor(space.units.maximum)

    def free(genes: torch.Tensor) -> Architecture:
        return space.architecture(leading(space.units, (minimum + genes * (maximum - minimum)).round().long()))

    for drawn in ("any size", "equal MACs"):
        for number in range(count):
            genes = torch.rand(len(minimum), generator=generator)
            one = free(genes) if drawn == "any size" else fitted(context, genes, order)
            found = {name: f"{scorer(one):.6g}" for name, scorer in scorers.items()}
            yield {"model": model, "drawn": drawn, "architecture": number, **found}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield lines of a Markdown table: the rank correlations of each score."""
    yield "| network | drawn | score | Kendall to params | Spearman to params | Kendall to MACs | Spearman to MACs |"
    yield "|---|---|---|---|---|---|---|"
    for model, drawn in dict.fromkeys((row["model"], row["drawn"]) for row in rows):
        own = [row for row in rows if (row["model"], row["drawn"]) == (model, drawn)]
        values = {name: [float(row[name]) for row in own] for name in CHOSEN}
        for name in CHOSEN:
            cells = []
            for size in ("params", "macs"):
                counted = name != size and not (drawn == "equal MACs" and "macs" in (name, size))
                for rank in (stats.kendalltau, stats.spearmanr):
                    cells.append(f"{rank(values[name], values[size]).statistic:.2f}" if counted else "-")
            if set(cells) != {"-"}:
                yield f"| {model} | {drawn} | {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
