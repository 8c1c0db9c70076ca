"""Builds and proves the search space of many timm models, one process each, and writes a table.

    python benchmarks/zoo/zoo.py                          # the whole list, to zoo.csv beside it
    python benchmarks/zoo/zoo.py --models resnet18 vgg11  # any timm models
    python benchmarks/zoo/zoo.py --list other.yaml --csv other.csv

Every model runs at the smallest input that it accepts. A line is written as soon as its model is done;
`--resume` keeps the lines that are there. The exit status is 0 when the share of models that are built,
searchable and proven reaches the goal.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLUMNS = (
    *("model", "family", "input", "status", "searchable", "proof_error", "seconds", "groups", "stages", "blocks"),
    *("macs", "params", "trained", "why"),
)
#: Input sizes that are tried, in pixels; then the model's own.
SIZES = (64, 96, 128, 160, 192, 224, 256, 288, 384)
GOAL_SEARCHABLE, GOAL_ERROR, GOAL_SHARE = 0.6, 1e-5, 0.95


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, default=HERE / "zoo.yaml", help="families and models, YAML")
    parser.add_argument("--models", nargs="+", help="models, in the place of the list")
    parser.add_argument("--csv", type=Path, default=None, help="the table (default: beside the list)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a model, proof and training included")
    parser.add_argument("--resume", action="store_true", help="keep the lines that the table has")
    options = parser.parse_args()
    table = options.csv or (None if options.models else options.list.with_suffix(".csv"))
    wanted = dict.fromkeys(options.models, "") if options.models else _read(options.list)
    done = {row["model"]: row for row in _rows(table)} if options.resume and table else {}
    rows = []
    for model, family in wanted.items():
        row = done.get(model) or {"model": model, "family": family, **_isolated(model, options.timeout)}
        rows.append(row)
        print("  ".join(str(row.get(column, "")) for column in COLUMNS if column not in ("family", "why")), flush=True)
        if row.get("why"):
            print(f"    {row['why']}", flush=True)
        if table:
            _write(table, rows)
    good = sum(row["status"] == "ok" for row in rows)
    print(f"{good} of {len(rows)} models built, proven, with at least {GOAL_SEARCHABLE:.0%} of MACs searchable")
    return 0 if good >= GOAL_SHARE * len(rows) else 1


def _read(path: Path) -> dict[str, str]:
    import yaml

    families = yaml.safe_load(path.read_text())
    if isinstance(families, list):
        return dict.fromkeys(families, "")
    return {model: family for family, models in families.items() for model in models}


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with path.open(newline="") as file:
            yield from csv.DictReader(file)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _isolated(model: str, timeout: float) -> dict[str, Any]:
    """Measure one model in a process of its own, which ends when its time is over."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "dms_bench.scaling"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(model, sender))
    begin = time.perf_counter()
    process.start()
    sender.close()
    row: dict[str, Any] = {"status": "timeout", "why": f"not done in {timeout:.0f} s"}
    try:
        if receiver.poll(timeout):
            row = receiver.recv()
    except EOFError:
        row = {"status": "error", "why": "the process ended (out of memory?)"}
    process.kill()
    process.join()
    row.setdefault("seconds", f"{time.perf_counter() - begin:.1f}")
    return row


def _send(model: str, sender: Any) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        sender.send(measure(model))
    except Exception as error:
        sender.send({"status": "error", "why": f"{type(error).__name__}: {error}".splitlines()[0][:300]})


def measure(name: str) -> dict[str, Any]:
    """Build the search space of a model and train a cut of it for one step; return a line of the table."""
    from dms_bench.scaling import find_space

    model, example = create(name)
    space = find_space(model, example)
    low, high = space.reachable(space.macs_model)
    searchable = 1 - low / high
    reasons = Counter(space.excluded.values())
    row: dict[str, Any] = {
        "input": example.shape[-1],
        "searchable": f"{searchable:.3f}",
        "proof_error": f"{space.proof_error:.1e}",
        "seconds": f"{space.seconds:.1f}",
        "groups": len(space.groups),
        "stages": len(space.stages),
        "blocks": sum(stage.size for stage in space.stages),
        "macs": space.macs,
        "params": space.params,
        "why": "; ".join(f"{times} x {reason}" for reason, times in reasons.most_common(6)),
    }
    proven = space.proof_error < GOAL_ERROR
    row["trained"] = round_trip(model, example, space)
    row["status"] = "low" if searchable < GOAL_SEARCHABLE else "ok" if proven and row["trained"] == "yes" else "wrong"
    return row


def create(name: str) -> tuple[Any, Any]:
    """Return a timm model at the smallest input that it accepts, and an example of it, [1, 3, H, W]."""
    import timm
    import torch

    torch.manual_seed(0)
    config = timm.get_pretrained_cfg(name)
    channels, own = (config.input_size[0], config.input_size[-1]) if config else (3, 224)
    first: Exception | None = None
    for size in [size for size in SIZES if size < own] + [own]:
        example = torch.randn(1, channels, size, size)
        for args in ({"img_size": size}, {}):
            try:
                model = timm.create_model(name, num_classes=10, **args).eval()
                with torch.no_grad():
                    model(example)
                    model.train()(example.repeat(2, 1, 1, 1))  # batch norms need two samples
            except (TypeError, ValueError, RuntimeError, AssertionError, IndexError) as error:
                first = first or error
            else:
                return timm.create_model(name, num_classes=10, **args).eval(), example
    raise ValueError(f"no input size from {SIZES[0]} to {own} works: {first}")


def round_trip(model: Any, example: Any, space: Any) -> str:
    """Cut half of everything, train a step, save, rebuild by structure, load: "yes" if the output is the same."""
    import copy
    import io

    import torch

    from dms_bench.scaling import apply_structure, cut, plan_surgery

    mask = torch.zeros(space.units.total)
    for start, size, low in zip(space.units.starts, space.units.sizes, space.units.minimum, strict=True):
        mask[start : start + max(low, size // 2)] = 1
    architecture = space.architecture(mask)
    small = cut(model, space, architecture).train()
    optimiser = torch.optim.Adam(small.parameters(), lr=1e-4)
    small(torch.randn(4, *example.shape[1:])).square().mean().backward()
    if not all(p.grad is None or bool(p.grad.isfinite().all()) for p in small.parameters()):
        return "gradients are not finite"
    optimiser.step()
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    again = copy.deepcopy(model)
    apply_structure(again, plan_surgery(model, space, architecture))
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    with torch.no_grad():
        same = torch.allclose(small.eval()(example), again.eval()(example), rtol=1e-4, atol=1e-5)
    return "yes" if same else "differs after loading"


if __name__ == "__main__":
    sys.exit(main())
