"""What a search of a language model costs in memory: measured at small size, and computed for Llama-7B.

Every operator of one training step is watched, and the bytes of all tensors that are alive are added up: weights,
gradients, what the backward pass needs, and what is short-lived. On the meta device tensors have sizes but no
contents, so that the same step of the same code runs for Llama-7B on any machine. The optimiser's own state is added by
arithmetic (AdamW: two tensors like each trained one). Not counted: the allocator's losses and the driver. With several
GPUs gradients and DDP's buckets share their memory.

    python benchmarks/language/memory.py [--small]
"""

from __future__ import annotations

import argparse
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dms_bench.config.supernet import SupernetSpec
from dms_bench.methods.gradient.spec import Dms
from dms_bench.methods.gradient.structure import DmsStructure
from dms_bench.methods.language.llm_pruner import LlmPrunerSearch
from dms_bench.methods.language.spec import LlmPruner
from dms_bench.scaling import SearchSpace, Supernet, budget_of, find_space
from dms_bench.scaling.fit import fit_to_budget
from dms_bench.scaling.masks.state import strip_hooks
from dms_bench_tasks.language.objective import cross_entropy
from dms_bench_tasks.language.spec import LanguageTask
from dms_bench_tasks.language.task import Language

#: Sequences of a micro-batch and their tokens, as LLM-Pruner finetunes.
BATCH, CONTEXT = 4, 256
SMALL = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
SPACE = ("lm.model.stream", "lm.model.layers")


class Peak(TorchDispatchMode):
    """Bytes of the tensors that are alive, and the most that ever were; what is there already counts."""

    def __init__(self, present: list[Tensor]) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._known: set[int] = set()
        for tensor in present:
            self._see(tensor)

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._see(value)
        return out


def step(model: nn.Module, space: SearchSpace | None, *, frozen: bool, distils: bool) -> dict[str, float]:
    """Take one step of a search (plain training without a space) and return its memory in bytes."""
    device = next(model.parameters()).device
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen)
    net: nn.Module = model
    structure = None
    if space is not None:
        net = Supernet(model, space).to(device)
        structure = DmsStructure(net, Dms(), budget_of(space, params=0.81), trains_weights=not frozen)
    tokens = torch.zeros(BATCH, CONTEXT, dtype=torch.long, device=device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    copied = weights if distils and not frozen else 0
    with Peak([*model.parameters(), *model.buffers()]) as peak:
        taught = None
        if distils:
            with torch.no_grad():
                taught = model(tokens)
        logits = net(tokens)
        loss = cross_entropy(logits, tokens)
        if taught is not None:
            loss = loss + _distillation(logits, taught)
        loss.backward()
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    model.zero_grad(set_to_none=True)
    if structure is not None:
        strip_hooks(model)
    return {"weights": weights, "teacher": copied, "step": peak.most - weights, "adamw": 2 * trained}


def _distillation(logits: Tensor, taught: Tensor) -> Tensor:
    """The task's distillation where every position asks for something: choosing them needs their contents."""
    own, its = logits.flatten(0, 1).float().log_softmax(-1), taught.flatten(0, 1).float().log_softmax(-1)
    return nn.functional.kl_div(own, its, reduction="batchmean", log_target=True)


def table(name: str, model: nn.Module, space: SearchSpace, scale: float, unit: str) -> None:
    """Print the memory of each way to train."""
    lm: Any = model.lm  # type: ignore[union-attr]
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {BATCH} x {CONTEXT} tokens, {unit}")
    print(f"{'':66}{'weights':>9}{'teacher':>9}{'step':>9}{'AdamW':>9}{'sum':>9}")
    for checkpointed in (False, True):
        if checkpointed:
            lm.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        model.train()
        for title, options in {
            "finetuning of all weights": {"space": None, "frozen": False, "distils": False},
            "DMSp- (structure alone), teacher shared": {"space": space, "frozen": True, "distils": True},
            "DMSp (weights and structure), teacher copied": {"space": space, "frozen": False, "distils": True},
        }.items():
            found = step(model, **options)  # type: ignore[arg-type]
            title += ", blocks recomputed" if checkpointed else ""
            print(f"{title:66}" + "".join(f"{value / scale:9.2f}" for value in [*found.values(), sum(found.values())]))
    lm.gradient_checkpointing_disable()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the small network alone")
    task = Language(LanguageTask(context=CONTEXT), 0)
    small = task.build(SupernetSpec(model="llama", args=SMALL))
    space = find_space(small, task.example_input(), exclude=SPACE)
    table("small Llama, float32, on this machine", small, space, 1e6, "MB")
    if parser.parse_args().small:
        return
    large = task.build(SupernetSpec(model="huggyllama/llama-7b", args={"dtype": "bfloat16"}))
    space = find_space(large, task.example_input(), exclude=SPACE)
    print()
    print(f"Llama-7B: {space.params:,} parameters; at 5.47B and at LLM-Pruner's recipe:")
    for target in (5.47e9, 5_422_977_024):
        proposed = torch.tensor(space.units.sizes, dtype=torch.float32)
        for method, counts in (
            ("one ratio", proposed),
            ("blocks 4-29 alone", LlmPrunerSearch(LlmPruner()).counts(space)),
        ):
            mask = fit_to_budget(space, counts, torch.ones(space.units.total), budget_of(space, params=target))
            found = space.architecture(mask)
            print(f"  target {target:,.0f}, {method}: {found.params:,} ({found.params / target - 1:+.4%})")
    table("Llama-7B, bfloat16, on the meta device", large, space, 1e9, "GB")


if __name__ == "__main__":
    main()
