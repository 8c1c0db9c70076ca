"""Tokenizers: bytes, byte-level BPE trained on the training text, or one of transformers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from dms_bench.data import advice
from dms_bench.errors import UserError, close, nearest
from dms_bench_tasks.language.library import expanded, one_line
from dms_bench_tasks.language.spec import AlpacaData, Data, LanguageTask
from dms_bench_tasks.language.text import documents

#: Tokenizers that are made here.
OWN = ("bytes", "bpe")
#: Ids 0, 1 and 2 of the tokenizers made here.
SPECIAL = ("<pad>", "<s>", "</s>")
#: Characters that a vocabulary is trained on; more change little.
_TRAINED_ON = 4_000_000


def tokenizer_of(task: LanguageTask) -> Any:
    """Return the task's tokenizer, a `transformers.PreTrainedTokenizerBase`.

    Raises:
        UserError: there is none of that name, or no text to train it on.
    """
    data = task.data if task.tokenizer == "bpe" else None
    return _tokenizer(task.tokenizer, task.vocab_size, data, task.trust_remote_code)


@lru_cache(maxsize=4)
def _tokenizer(name: str, vocab_size: int, data: Data | None, trusted: bool) -> Any:
    if name in OWN:
        return _made_here(vocab_size if name == "bpe" else 0, data)
    from transformers import AutoTokenizer

    folder = Path(expanded(name))
    if (name.startswith(("/", "~", ".")) or advice(name)) and not folder.is_dir():
        raise UserError(f"task.tokenizer {name!r} does not exist{advice(name)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else name, trust_remote_code=trusted)
    except Exception as error:  # whatever the library, or the hub, says
        raise UserError(f"task.tokenizer {name!r}: {_reason(name, error)}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"task.tokenizer {name!r} has no token for the end of a text: give it an eos_token in its "
            "tokenizer_config.json"
        )
    return tokenizer


def _reason(name: str, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it brings code of its own, which is run only where `task.trust_remote_code: true` says so"
    meant = "" if "/" in name or not close(name, OWN) else f"; {nearest(name, OWN)}"
    return f"{one_line(error)}{meant}"


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
