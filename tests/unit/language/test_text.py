"""Text, tokenizers and sequences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dms_bench.errors import UserError
from dms_bench_tasks.common.sharding import Shard
from dms_bench_tasks.language.data import IGNORED, Text
from dms_bench_tasks.language.spec import AlpacaData, Corpus, HubData, LanguageTask, PystdlibData, TextData
from dms_bench_tasks.language.text import corpus_text, documents, instructions
from dms_bench_tasks.language.tokenizer import tokenizer_of
from tests.unit.language.language_helpers import recipe, task

WHOLE = PystdlibData(train=10**9, val=10**9, test=10**9)


def test_the_standard_library_is_split_by_file_and_holds_no_tests() -> None:
    parts = {part: documents(WHOLE, part) for part in ("train", "val", "test")}  # type: ignore[arg-type]
    texts = [text for found in parts.values() for text in found]
    assert len(texts) > 400
    # Files that are copies of one another would leak from split to split.
    assert len({text for found in parts.values() for text in set(found)}) > 0.99 * len(texts)
    sizes = {part: sum(map(len, found)) for part, found in parts.items()}
    assert sizes["train"] > 6 * sizes["val"] > 0
    assert sizes["train"] > 5 * sizes["test"] > 0
    assert any("class OrderedDict" in text for text in texts)
    assert not any(text.startswith("# Run the _testcapi") for text in texts)
    assert documents(WHOLE, "val") == parts["val"]


def test_a_limit_is_kept_to_the_character_and_no_file_is_most_of_a_split() -> None:
    some, whole = documents(PystdlibData(val=60_000), "val"), documents(WHOLE, "val")
    assert some[:-1] == whole[: len(some) - 1]
    assert whole[len(some) - 1].startswith(some[-1])
    assert sum(map(len, some)) == 60_000
    assert max(map(len, whole)) == 40_000


def test_bytes_and_trained_vocabularies_lose_nothing() -> None:
    text = "def f(x):\n\treturn 'naïve' + \"日本\"  # <s> \x00\n\n"
    for options in ({"tokenizer": "bytes"}, {"tokenizer": "bpe", "vocab_size": 400}):
        tokenizer = tokenizer_of(task(**options).spec)
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(tokenizer) == (259 if options["tokenizer"] == "bytes" else 400)
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert len(ids) < len(text.encode())


def test_a_vocabulary_is_the_same_when_trained_again() -> None:
    from dms_bench_tasks.language.tokenizer import _tokenizer

    spec = task(tokenizer="bpe", vocab_size=400).spec
    first = tokenizer_of(spec).get_vocab()
    _tokenizer.cache_clear()
    assert tokenizer_of(spec).get_vocab() == first


def test_targets_are_the_next_tokens_and_an_epoch_sees_all_of_them_once() -> None:
    own = Text(task().spec)
    stream = own.sequences("train")
    flat = torch.cat([stream.tokens.flatten(), stream.targets[-1, -1:]])
    assert torch.equal(flat[1:], stream.targets.flatten())
    whole = recipe(steps=None)
    batches = list(own.epoch(whole, Shard(), seed=1))
    assert len(batches) == own.steps(whole)
    rows = torch.cat([batch.tokens for batch in batches])
    assert len(torch.unique(rows, dim=0)) > 0.95 * len(rows)
    for batch in batches:
        assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    again = list(own.epoch(whole, Shard(), seed=1))
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(batches, again, strict=True))
    other = list(own.epoch(whole, Shard(), seed=2))
    assert not torch.equal(batches[0].tokens, other[0].tokens)
    assert len(list(own.epoch(recipe(steps=3), Shard(), seed=1))) == 3


def test_two_workers_see_an_epoch_once_between_them() -> None:
    own = Text(task().spec)
    alone = torch.cat([batch.tokens for batch in own.epoch(recipe(steps=5), Shard(), seed=1)])
    parts = [list(own.epoch(recipe(steps=5), Shard(rank, 2), seed=1)) for rank in (0, 1)]
    assert [len(part) for part in parts] == [5, 5]
    assert {len(batch) for part in parts for batch in part} == {4}
    both = torch.cat([batch.tokens for part in parts for batch in part])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, alone.tolist()))


def alpaca(folder: Path, count: int = 30) -> Path:
    path = folder / "alpaca.json"
    records = [
        {"instruction": f"Say {n}", "input": "twice" if n % 2 else "", "output": f"{n} " * (40 if n == 3 else 1)}
        for n in range(count)
    ]
    path.write_text(json.dumps(records))
    return path


def test_of_instructions_the_answer_alone_is_learnt(tmp_path: Path) -> None:
    path = alpaca(tmp_path)
    own = task(data={"name": "alpaca", "path": str(path), "val": 5, "test": 5}, context=300)
    tokenizer = tokenizer_of(own.spec)
    parts = {part: Text(own.spec).sequences(part) for part in ("train", "val", "test")}  # type: ignore[arg-type]
    assert {part: len(found) for part, found in parts.items()} == {"train": 20, "val": 5, "test": 5}
    said = set()
    for found in parts.values():
        for tokens, targets in zip(found.tokens, found.targets, strict=True):
            asked = targets != IGNORED
            answer = tokenizer.decode(targets[asked])
            prompt = tokenizer.decode(tokens)
            number = answer.split()[0]
            said.add(number)
            assert f"### Instruction:\nSay {number}\n\n" in prompt
            assert ("### Input:\ntwice\n\n### Response:\n" in prompt) is bool(int(number) % 2)
            assert torch.equal(tokens[1:][asked[:-1]], targets[:-1][asked[:-1]])
            assert bool((targets[asked] == tokenizer.eos_token_id).any()) is (number != "3" or len(answer) < 110)
    assert len(said) == 30  # no record in two splits


def test_folders_and_data_sets(tmp_path: Path) -> None:
    (tmp_path / "train" / "deep").mkdir(parents=True)
    (tmp_path / "train" / "b.txt").write_text("two")
    (tmp_path / "train" / "deep" / "a.txt").write_text("three")
    (tmp_path / "val.txt").write_text("one")
    data = TextData(root=str(tmp_path))
    assert documents(data, "train") == ["two", "three"]
    assert documents(data, "val") == ["one"]
    with pytest.raises(UserError, match=r"data.root '.*': neither test.txt nor files '\*\*/\*.txt' in test/"):
        documents(data, "test")

    folder = tmp_path / "hub"
    folder.mkdir()
    for split, text in (("train", "a"), ("validation", "b"), ("test", "c")):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": f"{text}{n}"}) + "\n" for n in range(3)))
    hub = HubData(dataset=str(folder))
    assert documents(hub, "val") == ["b0", "b1", "b2"]
    assert documents(hub, "test") == ["c0", "c1", "c2"]
    with pytest.raises(UserError, match="has no column 'page', but text"):
        documents(HubData(dataset=str(folder), column="page"), "train")
    with pytest.raises(UserError, match="data set 'nobody/nothing', split 'train': "):
        documents(HubData(dataset="nobody/nothing"), "train")
    corpus = Corpus(name="c-test", path=str(folder), split="test")
    assert corpus_text(corpus) == "c0\n\nc1\n\nc2"


def test_files_of_wikitext_and_ptb_are_joined_as_their_protocol_says(tmp_path: Path) -> None:
    wiki, ptb = tmp_path / "wiki.test.raw", tmp_path / "ptb.valid.txt"
    wiki.write_text(" \n = Robert = \n \n He acts . \n")
    ptb.write_text(" no it was n't\n but <unk> N\n")
    assert corpus_text(Corpus(name="w", path=str(wiki), joiner="\n")) == wiki.read_text()
    assert corpus_text(Corpus(name="p", path=str(ptb))) == " no it was n't\n\n but <unk> N"
    with pytest.raises(UserError, match=r"corpus 'q': .*nowhere cannot be read: "):
        corpus_text(Corpus(name="q", path=str(tmp_path / "nowhere")))


def test_instructions_without_their_fields_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"question": "?", "output": "!"}]))
    with pytest.raises(
        UserError, match=r"records have no field 'instruction', but (output, question|question, output)"
    ):
        instructions(AlpacaData(path=str(path)))
    with pytest.raises(UserError, match="30 records leave none to train on"):
        Text(task(data={"name": "alpaca", "path": str(alpaca(tmp_path))}).spec).sequences("train")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"zero_shot": ["bolq"]}, "unknown zero-shot task 'bolq'; did you mean 'boolq'"),
        ({"data": "pystdlb"}, "pystdlb"),
        ({"windows": []}, "windows"),
        ({"contxt": 3}, "did you mean 'context'"),
        ({"data": {"name": "alpaca", "path": "x"}, "zero_shot": ["next_line"]}, "needs plain text"),
        ({"data": {"name": "hub", "dataset": "x", "test": "train"}}, "must be different splits"),
    ],
)
def test_what_a_suite_cannot_mean_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LanguageTask(**fields)


def test_too_little_text_is_refused() -> None:
    own = task(context=8, data={"name": "pystdlib", "train": 1, "val": 1, "test": 1})
    with pytest.raises(UserError, match="the train split has 2 tokens, less than a sequence"):
        own._text.check()


def test_the_label_names_text_protocol_and_tokenizer() -> None:
    assert LanguageTask().label() == "pystdlib-test/128 bytes"
    label = LanguageTask(
        tokenizer="bpe", corpora=[Corpus(name="wikitext2-test", path="x")], windows=(2048,), zero_shot=["boolq"]
    ).label()
    assert label.startswith("wikitext2-test/2048 bpe-1024 (lm-eval 0.4.")


def test_a_part_of_a_folder_is_from_all_over_it(tmp_path: Path) -> None:
    lines = [f"{number:07}\n" for number in range(10_000)]  # 80,000 characters
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.txt").write_text("".join(lines))
    data = TextData(root=str(tmp_path), test=20_000)
    pieces = documents(data, "test")
    assert len(pieces) == 5
    assert sum(map(len, pieces)) == 20_000
    numbers = [[int(line) for line in piece.split("\n") if len(line) == 7] for piece in pieces]
    assert [piece[0] for piece in numbers] == [0, 2_001, 4_001, 6_001, 8_001]  # the first whole line behind each fifth
    assert all(piece == list(range(piece[0], piece[0] + len(piece))) for piece in numbers)
    assert documents(data, "val") == ["".join(lines)]
    assert documents(TextData(root=str(tmp_path), test=80_000), "test") == ["".join(lines)]


def test_a_part_takes_the_same_share_of_every_document(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / part).mkdir()
        for number, length in enumerate((1_000, 3_000)):
            (tmp_path / part / f"{number}.txt").write_text(str(number) * length)
    assert documents(TextData(root=str(tmp_path), train=1_000), "train") == ["0" * 250, "1" * 750]


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{number:04}\n" for number in range(1000)),
        " ".join(map(str, range(3000))),
        "x" * 5000,
        "a\nb " + "x" * 5000,
    ],
)
def test_one_file_is_three_stretches_that_share_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "all.txt").write_text(text)
    parts = {part: documents(TextData(root=str(tmp_path / "all.txt")), part) for part in ("train", "val", "test")}  # type: ignore[arg-type]
    joined = [found[0] for found in parts.values()]
    assert all(len(found) == 1 for found in parts.values())
    assert "".join(joined) == text  # each character once, in this order
    assert [round(len(part) / len(text), 2) for part in joined] == [0.8, 0.1, 0.1]
    if text.count("\n") > 1:
        assert all(part.endswith("\n") and len(part) % 5 == 0 for part in joined)  # whole lines
    if text.count(" ") > 1:
        assert all(part.endswith(" ") for part in joined[:2])
    assert TextData(root="a/all.txt").label() == "all"
