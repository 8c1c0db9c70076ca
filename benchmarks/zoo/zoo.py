"""Builds and proves the search space of many networks, one process each, and writes a table.

    python benchmarks/zoo/zoo.py                          # zoo.yaml, timm's models, to zoo.csv beside it
    python benchmarks/zoo/zoo.py --list any.yaml          # networks of many libraries, to any.csv
    python benchmarks/zoo/zoo.py --models resnet18 vgg11  # any timm models, or NAME or LIBRARY/NAME of the list

timm's models run at the smallest input that they accept. A line is written as soon as its model is done;
`--resume` keeps the lines that are there. The exit status is 0 when the share of models that are built,
searchable and proven reaches the goal.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from networks import AnyEntry, TimmEntry, read
from torch import Tensor, nn

from dms_bench.scaling import Example, SearchSpace, Supernet, apply_structure, cut, find_space, plan_surgery
from dms_bench.scaling.example import outputs_in

HERE = Path(__file__).parent
#: What makes a line of a table from a network and an input.
Measure = Callable[[nn.Module, Example], dict[str, Any]]
COLUMNS = (
    *("model", "family", "input", "status", "searchable", "proof_error", "seconds", "groups", "stages", "blocks"),
    *("macs", "params", "trained", "why"),
)
#: Samples of the batches that a cut network is trained on.
BATCHES = (2, 3)
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
    entries = _entries(options.list, options.models)
    done = {(row["family"], row["model"]): row for row in rows_of(table)} if options.resume and table else {}
    rows = []
    for entry in entries:
        measured = done.get((entry.family, entry.name)) or isolated(measure, entry, options.timeout)
        rows.append({"model": entry.name, "family": entry.family, **measured})
        row = rows[-1]
        print("  ".join(str(row.get(column, "")) for column in COLUMNS if column not in ("family", "why")), flush=True)
        if row.get("why"):
            print(f"    {row['why']}", flush=True)
        if table:
            write(table, rows)
    good = sum(row["status"] == "ok" for row in rows)
    print(f"{good} of {len(rows)} models built, proven, with at least {GOAL_SEARCHABLE:.0%} of MACs searchable")
    return 0 if good >= GOAL_SHARE * len(rows) else 1


def _entries(path: Path, names: list[str] | None) -> list[AnyEntry]:
    """Return the networks of a list, or those of some names, from the list where it has them."""
    entries = read(path)
    if names is None:
        return entries
    by_name = {name: entry for entry in entries for name in (entry.name, f"{entry.family}/{entry.name}")}
    return [by_name.get(name) or TimmEntry(name) for name in names]


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of a table, none where it is not there."""
    if path.exists():
        with path.open(newline="") as file:
            yield from csv.DictReader(file)


def write(path: Path, rows: list[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> None:
    """Write a table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def isolated(measure: Measure, entry: AnyEntry, timeout: float) -> dict[str, Any]:
    """Measure one model in a process of its own, which ends when its time is over."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "networks"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(measure, entry, sender))
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


def _send(measure: Measure, entry: AnyEntry, sender: Any) -> None:
    torch.set_num_threads(1)
    try:
        sender.send(measure(*entry.build()))
    except Exception as error:
        sender.send({"status": "error", "why": f"{type(error).__name__}: {error}".splitlines()[0][:300]})


def measure(model: nn.Module, example: Example) -> dict[str, Any]:
    """Build the search space of a model, train it and a cut of it for one step; return a line of the table."""
    space = find_space(model, example)
    low, high = space.reachable(space.macs_model)
    searchable = 1 - low / high
    reasons = Counter(space.excluded.values())
    row: dict[str, Any] = {
        "input": _input(example),
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


def _input(example: Example) -> str:
    """Return what the table says of an input: the pixels of images alone, or the shape of every tensor."""
    if example.alone and example.args[0].dim() == 4:
        return str(example.args[0].shape[-1])
    return " ".join("x".join(map(str, tensor.shape)) for tensor in example.tensors())


def round_trip(model: nn.Module, example: Example, space: SearchSpace) -> str:
    """Train a soft step, cut half of everything, train steps, save, rebuild by structure, load.

    A network that does not run in training mode on its input (detectors, which want targets then) trains in eval mode.

    Returns:
        "yes" if the gradients were finite and the output of the rebuilt network is the same.
    """
    # Lists of images and graphs hold no samples that could be stacked: these train on what they are.
    batches = [example.batch(samples) for samples in BATCHES]
    batches = [batch if _runs(copy.deepcopy(model), batch) else example for batch in batches]
    training = _runs(copy.deepcopy(model).train(), batches[0])
    supernet = Supernet(copy.deepcopy(model), space).train(training)
    if not trained(supernet, batches[0]):
        return "gradients of the search are not finite"
    mask = torch.zeros(space.units.total)
    for start, size, low in zip(space.units.starts, space.units.sizes, space.units.minimum, strict=True):
        mask[start : start + max(low, size // 2)] = 1
    architecture = space.architecture(mask)
    small = cut(model, space, architecture).train(training)
    optimiser = torch.optim.Adam(small.parameters(), lr=1e-4)
    for batch in batches:
        if not trained(small, batch):
            return "gradients are not finite"
    optimiser.step()
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    again = copy.deepcopy(model)
    apply_structure(again, plan_surgery(model, space, architecture))
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    with torch.no_grad():
        pairs = zip(_seeded(small.eval(), example), _seeded(again.eval(), example), strict=True)
        same = all(torch.allclose(ours, other, rtol=1e-4, atol=1e-5, equal_nan=True) for ours, other in pairs)
    return "yes" if same else "differs after loading"


def _runs(model: nn.Module, example: Example) -> bool:
    """Whether a network takes an input, in the mode it is in."""
    try:
        with torch.no_grad():
            example(model)
    except Exception:  # whatever its code makes of it
        return False
    return True


def trained(model: nn.Module, example: Example) -> bool:
    """Run a network backwards; whether all of its gradients are finite."""
    outputs = [output for output in _outputs(model, example) if output.requires_grad]
    sum(output.abs().square().mean() for output in outputs).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return bool(gradients) and all(bool(gradient.isfinite().all()) for gradient in gradients)


def _seeded(model: nn.Module, example: Example) -> list[Tensor]:
    """Return the outputs where what a network draws at random is the same every time."""
    torch.manual_seed(0)
    return _outputs(model, example)


def _outputs(model: nn.Module, example: Example) -> list[Tensor]:
    return [output for output in outputs_in(example(model)) if output.is_floating_point() or output.is_complex()]


if __name__ == "__main__":
    sys.exit(main())
