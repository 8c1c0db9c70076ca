"""Which families of language models are searched, trained, cut, exported and opened by plain transformers.

    python benchmarks/language/families.py                 # families.yaml, all of it, to families.csv (3 minutes)
    python benchmarks/language/families.py --only gpt2 opt # some, to the terminal

Of each network its space is found and proven, a step of a search is made, a random 60 % of every group and all blocks
but the first are kept, a step of training is made, and it is exported. A process that has no dms_bench opens the
folder, predicts, and writes six tokens with a cache; `equal` says whether predictions are those of the cut network (to
1e-4 of the largest), `writes` whether the tokens are.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling import SearchSpace, Supernet, cut, find_space
from dms_bench_tasks.language.spec import LanguageTask
from dms_bench_tasks.language.task import Language

HERE = Path(__file__).parent
COLUMNS = (
    *("family", "groups", "blocks", "smallest", "proof_error", "trains", "form", "equal", "writes", "seconds", "why"),
)
PROMPT, WRITTEN = list(range(40, 56)), 6
STRANGER = """
import json, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("dms_bench", "dms_bench_tasks"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModelForCausalLM
for line in sys.stdin:
    folder, remote, tokens, number = json.loads(line)
    tokens = torch.tensor([tokens])
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote).eval()
        with torch.no_grad():
            logits = model(tokens).logits[0].tolist()
            written = model.generate(tokens, max_new_tokens=number, do_sample=False)[0].tolist()
        answer = [logits, written]
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"[:300]
    print("answer " + json.dumps(answer), flush=True)
"""


class Stranger:
    """A process in which dms_bench cannot be imported."""

    def __init__(self) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([sys.executable, "-c", STRANGER], text=True, **pipes)

    def ask(self, folder: Path) -> Any:
        """Return logits [T, vocabulary] and tokens that the model in a folder gives to `PROMPT`, or what went wrong."""
        remote = (folder / "modeling_cut.py").exists()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(folder), remote, PROMPT, WRITTEN]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        return "its process died"

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def tried(family: str, args: dict[str, Any], stranger: Stranger) -> dict[str, Any]:
    """Return a family's row."""
    row: dict[str, Any] = {"family": family}
    started = time.perf_counter()
    data = {"name": "pystdlib", "train": 40_000, "val": 4000, "test": 4000}
    task = Language(LanguageTask.model_validate({"data": data, "context": 32, "windows": (32,), "generate": 0}), 0)
    try:
        model = task.build(SupernetSpec(model=family, args=args)).eval()
        _enliven(model)
        space = find_space(model, task.example_input(1))
        least, most = space.reachable(space.params_model)
        row |= {"groups": len(space.groups), "blocks": len(space.blocks), "smallest": f"{least / most:.3f}"}
        row["proof_error"] = f"{space.proof_error:.0e}"
        small = cut(model, space, space.architecture(_mask(space))).eval()
        row["trains"] = _trains(Supernet(model, space)) and _trains(small)
        with tempfile.TemporaryDirectory() as folder:
            (exported,) = task.export(small.eval(), Path(folder))
            row["form"] = "code beside it" if (exported / "modeling_cut.py").exists() else "plain"
            row |= _compared(small, stranger.ask(exported))
    except UserError as error:
        row["why"] = str(error)
    except Exception as error:
        row["why"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return row | {"seconds": f"{time.perf_counter() - started:.1f}"}


def _compared(small: nn.Module, answer: Any) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"equal": False, "why": answer}
    logits, written = torch.tensor(answer[0]), answer[1]
    with torch.no_grad():
        expected: Tensor = small(torch.tensor([PROMPT]))[0]
        tokens = list(PROMPT)
        while len(tokens) < len(written):
            tokens.append(int(small(torch.tensor([tokens]))[0, -1].argmax()))
    return {
        "equal": bool((logits - expected).abs().max() <= 1e-4 * expected.abs().max()),
        "writes": tokens == written,
    }


def _enliven(model: nn.Module) -> None:
    """Give a network weights under which its predictions depend on all that it has."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.size(1) ** -0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)


def _mask(space: SearchSpace) -> Tensor:
    """Return a mask [E] of a random 60 % of every group, and of all blocks but the first."""
    generator = torch.Generator().manual_seed(1)
    mask, units = torch.zeros(space.units.total), space.units
    for start, size, low in zip(units.starts, units.sizes, units.minimum, strict=True):
        mask[start + torch.randperm(size, generator=generator)[: max(low, 1, round(0.6 * size))]] = 1
    if space.blocks:
        mask[space.width_elements :] = 1
        mask[space.width_elements] = 0
    return mask


def _trains(network: nn.Module) -> bool:
    """Make a step of training; whether its loss and gradients are finite."""
    network.train()
    tokens = torch.tensor([PROMPT, PROMPT[::-1]])
    loss = F.cross_entropy(network(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    finite = all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
    network.zero_grad()
    return bool(loss.isfinite()) and finite


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", help="some families, to the terminal")
    options = parser.parse_args()
    families: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "families.yaml").read_text())
    rows, stranger = [], Stranger()
    for family in options.only or families:
        rows.append(tried(family, families[family], stranger))
        print(*(f"{rows[-1].get(column, '')!s:14}" for column in COLUMNS), flush=True)
    stranger.close()
    good = sum(bool(row.get("equal") and row.get("writes") and row.get("trains")) for row in rows)
    print(f"{good} of {len(rows)} are searched, trained, exported and opened with equal predictions")
    if not options.only:
        with (HERE / "families.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
