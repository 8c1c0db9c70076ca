"""Perplexity on windows of text that do not overlap, as LLM-Pruner measures it.

A text is tokenised once, from its beginning, so that a token for the beginning of text stands in the first window
alone; each window of T tokens predicts T - 1, seeing nothing of the one before; what is left over is not used.
Numbers with different windows, tokenizers or texts cannot be compared; per word and per byte, tokenizers can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.pace import paced
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench_tasks.common.sharding import WHOLE, Shard
from dms_bench_tasks.language.data import IGNORED, Text
from dms_bench_tasks.language.spec import AlpacaData, Corpus, LanguageTask
from dms_bench_tasks.language.text import Part, corpus_text, running_text
from dms_bench_tasks.language.tokenizer import tokenizer_of

#: Tokens of a forward pass.
_BATCH_TOKENS = 8192


@torch.no_grad()
def validation_loss(
    model: nn.Module, text: Text, device: torch.device, shard: Shard = WHOLE, tick: Callable[[], None] | None = None
) -> float:
    """Return the mean loss per token of the validation sequences in eval mode, over all workers, in nats."""
    whole = text.sequences("val")
    size = max(1, _BATCH_TOKENS // whole.tokens.size(1))
    indices = torch.arange(len(whole))[shard.rank :: shard.count]
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    with modes_kept(model):
        model.eval()
        batches = indices.split(size)  # type: ignore[no-untyped-call]
        for rows in paced(batches, len(batches), size=size):
            targets = whole.targets[rows].to(device)
            sums += _nats(model(whole.tokens[rows].to(device)), targets)
            if tick is not None:
                tick()
    if shard.count > 1:
        dist.all_reduce(sums)
    return float(sums[0] / sums[1])


@torch.no_grad()
def perplexities(model: nn.Module, task: LanguageTask, part: Part, device: torch.device) -> dict[str, float]:
    """Measure in eval mode; `part` is the split of the task's own data that is measured where no corpora are given.

    Returns:
        `<text>/<window>` per token, and for the first window also `.../word` and `.../bits_per_byte`; of the first
        text and window also `perplexity` and `loss` in nats per token.

    Raises:
        UserError: a text is shorter than a window.
    """
    if isinstance(task.data, AlpacaData) and not (task.corpora and part == "test"):
        return _of_instructions(model, task, part, device)
    corpora = task.corpora if part == "test" else ()
    results: dict[str, float] = {}
    for corpus in corpora or (None,):
        name = corpus.name if corpus else f"{task.data.label()}-{part}"
        tokens, words, size = _tokens(task, part, corpus)
        for window in task.windows:
            loss = _window_loss(model, tokens, window, device, name)
            if not results:
                results |= {"perplexity": _exp(loss), "loss": loss}
            results[f"{name}/{window}"] = _exp(loss)
            if window == task.windows[0]:
                results[f"{name}/{window}/word"] = _exp(loss * len(tokens) / words)
                results[f"{name}/{window}/bits_per_byte"] = loss * len(tokens) / size / math.log(2)
    return results


def _of_instructions(model: nn.Module, task: LanguageTask, part: Part, device: torch.device) -> dict[str, float]:
    whole = Text(task).sequences(part)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    with modes_kept(model):
        model.eval()
        size = max(1, _BATCH_TOKENS // task.context)
        batches = torch.arange(len(whole)).split(size)  # type: ignore[no-untyped-call]
        for rows in paced(batches, len(batches), size=size):
            sums += _nats(model(whole.tokens[rows].to(device)), whole.targets[rows].to(device))
    loss = float(sums[0] / sums[1])
    return {"perplexity": _exp(loss), "loss": loss, f"{task.data.label()}-{part}/answers": _exp(loss)}


def _window_loss(model: nn.Module, tokens: Tensor, window: int, device: torch.device, name: str) -> float:
    """Return the mean loss per predicted token, in nats."""
    count = len(tokens) // window
    if not count:
        raise UserError(f"{name}: {len(tokens)} tokens are less than a window of {window}")
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    with modes_kept(model):
        model.eval()
        size = max(1, _BATCH_TOKENS // window)
        batches = tokens[: count * window].view(count, window).split(size)  # type: ignore[no-untyped-call]
        for batch in paced(batches, len(batches), size=size):
            batch = batch.to(device)
            sums += _nats(model(batch)[:, :-1], batch[:, 1:])
    return float(sums[0] / sums[1])


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return summed loss and number of predicted tokens, [2]."""
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return torch.stack([loss.double(), (targets != IGNORED).sum().double()])


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))


@lru_cache(maxsize=8)
def _tokens(task: LanguageTask, part: Part, corpus: Corpus | None) -> tuple[Tensor, int, int]:
    """Return a text's tokens and its numbers of words and bytes."""
    if corpus is not None:
        text = corpus_text(corpus)
    else:
        assert not isinstance(task.data, AlpacaData)
        text = running_text(task.data, part)
    tokens = torch.tensor(tokenizer_of(task)(text)["input_ids"], dtype=torch.long)
    return tokens, max(1, len(text.split())), max(1, len(text.encode()))


def check_corpora(task: LanguageTask) -> Iterator[str]:
    """Read every text, and yield the names of those that were read. Raises UserError for the first that cannot be."""
    for corpus in task.corpora:
        tokens, _, _ = _tokens(task, "test", corpus)
        if len(tokens) < max(task.windows):
            raise UserError(f"{corpus.name}: {len(tokens)} tokens are less than a window of {max(task.windows)}")
        yield corpus.name
