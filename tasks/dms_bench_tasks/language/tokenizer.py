"""Tokenizers: bytes, byte-level BPE trained on the training text, or one of transformers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dms_bench.errors import UserError
from dms_bench_tasks.language.library import one_line
from dms_bench_tasks.language.spec import AlpacaData, Data, LanguageTask
from dms_bench_tasks.language.text import documents

#: Ids 0, 1 and 2 of the tokenizers made here.
SPECIAL = ("<pad>", "<s>", "</s>")
#: Characters that a vocabulary is trained on; more change little.
_TRAINED_ON = 4_000_000


def tokenizer_of(task: LanguageTask) -> Any:
    """Return the task's tokenizer, a `transformers.PreTrainedTokenizerBase`.

    Raises:
        UserError: there is none of that name, or no text to train it on.
    """
    return _tokenizer(task.tokenizer, task.vocab_size, task.data if task.tokenizer == "bpe" else None)


@lru_cache(maxsize=4)
def _tokenizer(name: str, vocab_size: int, data: Data | None) -> Any:
    if name in ("bytes", "bpe"):
        return _made_here(vocab_size if name == "bpe" else 0, data)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # whatever the library, or the hub, says
        raise UserError(f"task.tokenizer {name!r}: {one_line(error)}") from error


def _made_here(vocab_size: int, data: Data | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if data is None:
        vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    else:
        tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if data is not None:
        if isinstance(data, AlpacaData):
            raise UserError("task.tokenizer 'bpe' is trained on plain text; instructions come with a model's tokenizer")
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        )
        texts, left = [], _TRAINED_ON
        for text in documents(data, "train"):
            if left <= 0:
                break
            texts.append(text)
            left -= len(text)
        tokenizer.train_from_iterator(texts, trainer)
    pad, begin, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=begin, eos_token=end, clean_up_tokenization_spaces=False
    )
