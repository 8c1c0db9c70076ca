"""Ask whether the sizes or the choice of elements sets DMS apart from GET, after `dms-bench run benchmarks/tuned.yaml`.

    python benchmarks/tuned/exchange.py

Takes the finished searches of both methods and cuts the pretrained supernet to each one's sizes three times: with the
elements that the search kept, with the largest weights, and with the highest Taylor scores of the uncut supernet.
Nothing is trained; batch norm is re-estimated, the test split measured, as in the suite (DMSp-). Where a method's
networks differ by their sizes alone, exchanging the ranking changes little.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.config import Trial, load_suite, resolve
from dms_bench.methods.rankings.scores import shared_scores, taylor
from dms_bench.scaling import Architecture, SearchSpace, cut, weight_norms
from dms_bench.scaling.structure.topk import ascending_positions
from dms_bench.tasks import Task
from dms_bench.trial.record import ARCHITECTURE, WEIGHTS, load_weights
from dms_bench.trial.spaces import space_of
from dms_bench.trial.storage import SuiteFolder
from dms_bench.trial.work import supernet_hash

HERE = Path(__file__).parent
CPU = torch.device("cpu")
#: Training batches of the Taylor scores.
BATCHES = 30


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", type=Path, default=HERE.parent / "tuned.yaml", help="the finished suite")
    parser.add_argument("--csv", type=Path, default=HERE / "exchange.csv", help="a row per search and ranking")
    options = parser.parse_args()
    rows = list(measured(options.suite))
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["budget"], row["method"], row["ranking"]].append(row)
    for (budget, method, ranking), own in groups.items():
        top1, spread = (statistics.mean(float(row[name]) for row in own) for name in ("top1", "spread"))
        sizes = f"{budget}: {method:4} sizes, {ranking:8} ranking"
        print(f"{sizes}: top1 {top1:.1f} over {len(own)} seeds, spread of kept shares {spread:.2f}")


def measured(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per search at the standard learning rate and temperature, and per ranking."""
    suite = load_suite(path)
    folder = SuiteFolder.of(suite.storage, suite.name)
    for trial in resolve(suite):
        method = trial.method
        if method.kind not in ("dms", "get") or method.structure.lr != 5e-3 or getattr(method, "temperature", 1) != 1:
            continue
        shared = supernet_hash(trial)
        assert shared is not None
        record = folder.trial(trial.hash).stage("search").output(ARCHITECTURE)
        found = Architecture.from_json(record.read_text())
        task: Task = trial.task.load_implementation()(trial.task, trial.seed)
        model = task.build(trial.supernet)
        load_weights(model, folder.supernet(shared).stage("pretrain").output(WEIGHTS))
        yield from _rows(trial, task, model, space_of(trial.task, trial.supernet), found)


def _rows(
    trial: Trial, task: Task, model: nn.Module, space: SearchSpace, found: Architecture
) -> Iterator[dict[str, Any]]:
    own = space.mask(found)
    shares = [len(found.groups[group.name]) / group.size for group in space.groups]
    model.eval()
    for loss in task.losses(model, BATCHES, CPU):
        loss.backward()
    rankings = {"own": None, "weights": weight_norms(model, space), "taylor": shared_scores(model, space, taylor, ())}
    model.zero_grad()
    for name, scores in rankings.items():
        mask = own if scores is None else _same_sizes(space, own, scores)
        network = cut(model, space, space.architecture(mask))
        task.recalibrate(network, CPU)
        top1 = task.evaluate(network, "test", CPU)["top1"]
        yield {
            "budget": trial.budget.label(),
            "method": trial.method.kind,
            "seed": trial.seed,
            "ranking": name,
            "top1": round(top1, 2),
            "spread": round(statistics.pstdev(shares), 3),
            "shares": " ".join(f"{share:.2f}" for share in shares),
        }


def _same_sizes(space: SearchSpace, own: Tensor, scores: Tensor) -> Tensor:
    """Return the mask with as many elements per group as `own` [E], those of the highest scores; the same blocks."""
    units, width = space.units, space.width_elements
    kept = space.kept_elements(own)
    positions = ascending_positions(scores, units.owner, torch.tensor(units.starts))
    mask = (positions >= (torch.tensor(units.sizes) - kept)[units.owner]).float()
    mask[width:] = own[width:]
    return mask


if __name__ == "__main__":
    main()
