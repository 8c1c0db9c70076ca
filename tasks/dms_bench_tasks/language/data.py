"""Training sequences: windows of running text, or instructions with their answers; and what of the data is left out.

Shape legend:
    N: sequences of an epoch
    B: sequences of a micro-batch
    T: tokens of a sequence (the task's context)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dms_bench.errors import UserError
from dms_bench.pace import paced
from dms_bench_tasks.common.sharding import Shard
from dms_bench_tasks.language.spec import AlpacaData, LanguageRecipe, LanguageTask
from dms_bench_tasks.language.text import (
    PARTS,
    Part,
    check_splits,
    documents,
    empty_documents,
    instructions,
    null_records,
)
from dms_bench_tasks.language.tokenizer import tokenizer_of

#: The target of a token that is not to be predicted; what cross entropy ignores.
IGNORED = -100
#: Of fewer prompts than this share the context is too short for the data.
_FITTING = 0.5
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


@dataclass(frozen=True)
class Notice:
    """Something about the data that is no mistake, and that readers of a result should know."""

    #: Name in the results.
    name: str
    #: How many records or documents it is true of.
    count: int
    #: What is said about it.
    text: str


class Text:
    """The task's training and validation sequences; read and tokenised once per process."""

    def __init__(self, task: LanguageTask) -> None:
        self.task = task

    def check(self) -> None:
        """Read everything. Raises UserError where something is missing, too short, or in two splits at once."""
        check_splits(self.task)
        for part in ("train", "val"):
            self.sequences(part)
        if not isinstance(self.task.data, AlpacaData):
            documents(self.task.data, "test")
        elif not self.task.corpora:  # else they are measured on
            self.sequences("test")

    def notices(self) -> tuple[Notice, ...]:
        """Return what of the data is left out or cut, and what of the test split is trained on, where anything is."""
        return tuple(notice for notice in _notices(self.task) if notice.count)

    def train_samples(self) -> int:
        """Return the number of training sequences; of well-known instructions without reading them."""
        data = self.task.data
        if isinstance(data, AlpacaData) and data.path in KNOWN_RECORDS:
            return KNOWN_RECORDS[data.path] - data.val - data.test
        return len(self.sequences("train"))

    def sequences(self, part: Part, offset: int = 0) -> Sequences:
        """Return a split in windows that begin at a token between 0 and T, or its instructions.

        Raises:
            UserError: there is less than one window, or most prompts leave no room for an answer in one.
        """
        task = self.task
        if isinstance(task.data, AlpacaData):
            split = _instructions(task)[part]
            split.check(task, part)
            return split.sequences
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
        """Return one worker's micro-batches of an epoch, [B, T]; their order depends on `seed` alone."""
        parts = recipe.grad_accum_steps
        batches = self._batches(recipe, shard, seed)
        return paced(batches, self.steps(recipe) * parts, size=micro_batch(recipe, shard), parts=parts)

    def _batches(self, recipe: LanguageRecipe, shard: Shard, seed: int) -> Iterator[Sequences]:
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


@dataclass(frozen=True)
class _Instructions:
    """A split of an instruction set as sequences, and what did not get into them."""

    records: tuple[tuple[str, ...], ...]
    sequences: Sequences
    #: Records without an instruction or an answer, with a prompt that fills the context, and with an answer cut short.
    blank: int
    too_long: int
    cut: int
    #: Tokens of the longest prompt.
    longest: int

    def check(self, task: LanguageTask, part: Part) -> None:
        """Raise a UserError where nothing can be learnt of the split, or too little of it."""
        fitting, asked = len(self.sequences), len(self.sequences) + self.too_long
        if not asked:
            raise UserError(f"{task.data.label()}: no record of the {part} split has an instruction and an answer")
        if fitting < _FITTING * asked:
            raise UserError(
                f"{task.data.label()}: of {asked} prompts of the {part} split {fitting} ({fitting / asked:.0%}) leave "
                f"room for an answer in a context of {task.context} tokens; the longest takes {self.longest}: "
                "make 'task.context' larger"
            )


@lru_cache(maxsize=2)
def _instructions(task: LanguageTask) -> dict[Part, _Instructions]:
    """Return instructions cut or padded to the context; prompts are not predicted. Raises UserError for too few."""
    data = task.data
    assert isinstance(data, AlpacaData)
    records = instructions(data)
    order = np.random.default_rng(data.seed).permutation(len(records))
    if len(records) <= data.val + data.test:
        raise UserError(f"{data.path}: {len(records)} records leave none to train on beside val and test")
    held_out = data.test + data.val
    bounds: dict[Part, slice] = {
        "test": slice(data.test), "val": slice(data.test, held_out), "train": slice(held_out, None),
    }  # fmt: skip
    return {part: _sequences(task, [records[index] for index in order[rows]]) for part, rows in bounds.items()}


def _sequences(task: LanguageTask, records: list[dict[str, str]]) -> _Instructions:
    tokenizer = tokenizer_of(task)
    asked = [record for record in records if _asks_and_answers(record)]
    prompts = [tokenizer(_prompt(record))["input_ids"] for record in asked]
    fitting = [index for index, prompt in enumerate(prompts) if len(prompt) <= task.context]
    tokens = torch.full((len(fitting), task.context + 1), tokenizer.pad_token_id or 0)
    targets = torch.full((len(fitting), task.context + 1), IGNORED)
    cut = 0
    for row, index in enumerate(fitting):
        prompt = prompts[index]
        answer = tokenizer(asked[index]["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        whole = torch.tensor((prompt + answer)[: task.context + 1])
        cut += len(whole) < len(prompt) + len(answer)
        tokens[row, : len(whole)] = whole
        targets[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return _Instructions(
        records=tuple(tuple(asked[index].values()) for index in fitting),
        sequences=Sequences(tokens[:, :-1].contiguous(), targets[:, 1:].contiguous()),
        blank=len(records) - len(asked),
        too_long=len(asked) - len(fitting),
        longest=max(map(len, prompts), default=0),
        cut=cut,
    )


def _asks_and_answers(record: dict[str, str]) -> bool:
    return bool((record["instruction"] + record["input"]).strip()) and bool(record["output"].strip())


@lru_cache(maxsize=2)
def _notices(task: LanguageTask) -> tuple[Notice, ...]:
    data, label = task.data, task.data.label()
    notices = []
    trained: Set[object]
    measured: Sequence[object]
    if isinstance(data, AlpacaData):
        found = _instructions(task)
        for part in PARTS:
            split, of = found[part], f"{label}: of its {part} split"
            whole, lost = split.blank + split.too_long + len(split.sequences), split.blank + split.too_long
            why = f"{split.blank} without instruction or answer, {split.too_long} with a prompt that fills the context"
            notices += [
                Notice(f"left_out_{part}", lost, f"{of} {lost} of {whole} records are left out: {why}"),
                Notice(f"cut_{part}", split.cut, f"{of} {split.cut} answers are cut at the context's end"),
            ]
        trained, measured = set(found["train"].records), found["test"].records
    else:
        for part in PARTS:
            empty, whole = empty_documents(data, part)
            text = f"{label}: of its {part} split {empty} of {whole} documents are left out, as they are null or blank"
            notices.append(Notice(f"left_out_{part}", empty, text))
        trained, measured = set(documents(data, "train")), documents(data, "test")
    for corpus in task.corpora:
        null, whole = null_records(corpus)
        text = f"corpus {corpus.name!r}: {null} of {whole} records are null and left out"
        notices.append(Notice(f"left_out_{corpus.name}", null, text))
    shared = sum(item in trained for item in measured)
    text = f"{label}: {shared} of {len(measured)} documents of its test split are also in its training split"
    return (*notices, Notice("test_in_train", shared, text))


def _prompt(record: dict[str, str]) -> str:
    input_text = record["input"]
    return _PROMPT.format(
        with_input=", paired with an input that provides further context" if input_text else "",
        instruction=record["instruction"],
        input=f"### Input:\n{input_text}\n\n" if input_text else "",
    )
