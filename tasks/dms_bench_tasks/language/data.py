"""Training sequences: windows of running text, or instructions with their answers.

Shape legend:
    N: sequences of an epoch
    B: sequences of a micro-batch
    T: tokens of a sequence (the task's context)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dms_bench.errors import UserError
from dms_bench_tasks.common.sharding import Shard
from dms_bench_tasks.language.spec import AlpacaData, LanguageRecipe, LanguageTask
from dms_bench_tasks.language.text import Part, documents, instructions
from dms_bench_tasks.language.tokenizer import tokenizer_of

#: The target of a token that is not to be predicted; what cross entropy ignores.
IGNORED = -100
#: Records of instruction sets of the hub, so that a suite can be planned where they are not.
KNOWN_RECORDS = {"yahma/alpaca-cleaned": 51_760}
#: Prompts of alpaca, with and without an input.
_PROMPT = (
    "Below is an instruction that describes a task{with_input}. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}\n\n{input}### Response:\n"
)


@dataclass(frozen=True)
class Sequences:
    """Sequences [N, T] and what each position has to predict, already shifted by one, [N, T]."""

    tokens: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


class Text:
    """The task's training and validation sequences; read and tokenised once per process."""

    def __init__(self, task: LanguageTask) -> None:
        self.task = task

    def check(self) -> None:
        """Read everything. Raises UserError where something is missing or too short."""
        for part in ("train", "val"):
            self.sequences(part)
        if not isinstance(self.task.data, AlpacaData):
            documents(self.task.data, "test")

    def train_samples(self) -> int:
        """Return the number of training sequences; of well-known instructions without reading them."""
        data = self.task.data
        if isinstance(data, AlpacaData) and data.path in KNOWN_RECORDS:
            return KNOWN_RECORDS[data.path] - data.val - data.test
        return len(self.sequences("train"))

    def sequences(self, part: Part, offset: int = 0) -> Sequences:
        """Return a split in windows that begin at a token between 0 and T, or its instructions.

        Raises:
            UserError: there is less than one window.
        """
        task = self.task
        if isinstance(task.data, AlpacaData):
            return _instructions(task)[part]
        stream = _stream(task, part)
        context = task.context
        count = (len(stream) - 1 - offset) // context
        if count < 1 and offset:
            return self.sequences(part)
        if count < 1:
            raise UserError(f"{task.data.label()}: the {part} split has {len(stream)} tokens, less than a sequence")
        tokens = stream[offset : offset + count * context].view(count, context)
        targets = stream[offset + 1 : offset + count * context + 1].view(count, context)
        return Sequences(tokens, targets)

    def steps(self, recipe: LanguageRecipe) -> int:
        """Return the optimiser steps of an epoch. Raises UserError where the text is not enough for one."""
        # A window is lost to the offset.
        whole = len(self.sequences("train")) - (0 if isinstance(self.task.data, AlpacaData) else 1)
        steps = whole // recipe.batch_size
        if not steps:
            raise UserError(f"batch_size {recipe.batch_size} is more than the {whole} training sequences")
        return min(steps, recipe.steps or steps)

    def epoch(self, recipe: LanguageRecipe, shard: Shard, seed: int) -> Iterator[Sequences]:
        """Yield one worker's micro-batches of an epoch, [B, T]; their order depends on `seed` alone."""
        generator = torch.Generator().manual_seed(seed)
        offset = int(torch.randint(self.task.context, (1,), generator=generator))
        all_of_it = self.sequences("train", offset)
        size = micro_batch(recipe, shard)
        order = torch.randperm(len(all_of_it), generator=generator)
        for step in range(self.steps(recipe)):
            batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            for part in batch[shard.rank :: shard.count].split(size):  # type: ignore[no-untyped-call]
                yield Sequences(all_of_it.tokens[part], all_of_it.targets[part])


def micro_batch(recipe: LanguageRecipe, shard: Shard) -> int:
    """Return the sequences of one forward pass of one worker. Raises UserError where they cannot be split evenly."""
    parts = shard.count * recipe.grad_accum_steps
    size, rest = divmod(recipe.batch_size, parts)
    if rest or not size:
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be split over {shard.count} workers x "
            f"{recipe.grad_accum_steps} grad_accum_steps: make it a multiple of {parts}"
        )
    return size


@lru_cache(maxsize=8)
def _stream(task: LanguageTask, part: Part) -> Tensor:
    """Return a split as one stream of tokens, every document ended by the tokenizer's end."""
    assert not isinstance(task.data, AlpacaData)
    tokenizer = tokenizer_of(task)
    encoded = tokenizer(documents(task.data, part), add_special_tokens=False)["input_ids"]
    end = [tokenizer.eos_token_id]
    return torch.from_numpy(np.concatenate([np.array(ids + end, dtype=np.int64) for ids in encoded]))


@lru_cache(maxsize=2)
def _instructions(task: LanguageTask) -> dict[str, Sequences]:
    """Return instructions cut or padded to the context; prompts are not predicted."""
    data = task.data
    assert isinstance(data, AlpacaData)
    records = instructions(data)
    order = np.random.default_rng(data.seed).permutation(len(records))
    if len(records) <= data.val + data.test:
        raise UserError(f"{data.path}: {len(records)} records leave none to train on beside val and test")
    bounds = {"test": (0, data.test), "val": (data.test, data.test + data.val), "train": (data.test + data.val, None)}
    return {
        part: _sequences(task, [records[index] for index in order[first:last]])
        for part, (first, last) in bounds.items()
    }


def _sequences(task: LanguageTask, records: list[dict[str, str]]) -> Sequences:
    tokenizer = tokenizer_of(task)
    tokens = torch.full((len(records), task.context + 1), tokenizer.pad_token_id or 0)
    targets = torch.full((len(records), task.context + 1), IGNORED)
    for row, record in enumerate(records):
        prompt = tokenizer(_prompt(record))["input_ids"]
        answer = tokenizer(record["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        whole = torch.tensor((prompt + answer)[: task.context + 1])
        tokens[row, : len(whole)] = whole
        targets[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return Sequences(tokens[:, :-1].contiguous(), targets[:, 1:].contiguous())


def _prompt(record: dict[str, str]) -> str:
    input_text = record["input"]
    return _PROMPT.format(
        with_input=", paired with an input that provides further context" if input_text else "",
        instruction=record["instruction"],
        input=f"### Input:\n{input_text}\n\n" if input_text else "",
    )
