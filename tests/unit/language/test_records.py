"""What people bring as text: records of every kind, overlapping splits, encodings, prompts that are too long."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dms_bench.errors import UserError
from dms_bench_tasks.common.notes import say_once
from dms_bench_tasks.language.data import IGNORED, Text
from dms_bench_tasks.language.perplexity import check_corpora
from dms_bench_tasks.language.records import hold_json
from dms_bench_tasks.language.spec import AlpacaData, Corpus, HubData, TextData
from dms_bench_tasks.language.text import corpus_text, documents, running_text
from dms_bench_tasks.language.tokenizer import tokenizer_of
from tests.unit.language.language_helpers import CPU, TINY, task

SLICES = {"train": "train[:80%]", "val": "train[80%:90%]", "test": "train[90%:]"}


@pytest.fixture(autouse=True)
def _said_anew() -> Iterator[None]:
    say_once.cache_clear()
    yield
    say_once.cache_clear()


def lines(path: Path, records: Iterable[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def sentences(count: int = 40) -> list[dict[str, str]]:
    return [
        {"text": f"This is sentence number {number}, and there is no other one like it."} for number in range(count)
    ]


def text_of(data: dict[str, Any], **options: Any) -> Text:
    return task(data=data, **options)._text


def test_one_file_of_records_is_data(tmp_path: Path) -> None:
    path = lines(tmp_path / "a [1] b" / "one.jsonl", sentences())
    own = text_of({"name": "hub", "dataset": path, **SLICES})
    own.check()
    assert documents(own.task.data, "test") == [record["text"] for record in sentences()[36:]]  # type: ignore[arg-type]
    assert own.notices() == ()
    with pytest.raises(UserError, match=r"split 'validation': .*; a file is all 'train': give slices of it"):
        text_of({"name": "hub", "dataset": path}).check()
    (tmp_path / "one.xyz").write_text("")
    with pytest.raises(UserError, match=r"data set '.*one.xyz': not a file of records \(.jsonl, "):
        documents(HubData(dataset=str(tmp_path / "one.xyz")), "train")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "train"}, "train 'train' and val 'train[80%:90%]' have 4 records in common"),
        ({"train": "train[:81%]+train[95%:]", "val": "train[90%:95%]"}, "and test 'train[90%:]' have 2 records in"),
        ({"val": "train[80%:]"}, "val 'train[80%:]' and test 'train[90%:]' have 4 records in common"),
        ({"train": "train[:-3]"}, "train 'train[:-3]' and val 'train[80%:90%]' have 4 records in common"),
    ],
)
def test_splits_that_overlap_are_refused_by_name(tmp_path: Path, splits: dict[str, str], message: str) -> None:
    path = lines(tmp_path / "one.jsonl", sentences())
    with pytest.raises(UserError) as caught:
        text_of({"name": "hub", "dataset": path, **SLICES, **splits}).check()
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"data set '{path}': ")


def test_a_text_that_is_measured_and_trained_on_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "one.jsonl", sentences())
    data = {"name": "hub", "dataset": path, **SLICES}
    ends = {"name": "ends", "path": path, "split": "train[90%:]"}
    text_of(data, corpora=[ends]).check()
    with pytest.raises(UserError, match=r"train 'train\[:80%\]' and corpus 'ends' 'train' have 32 records in common"):
        text_of(data, corpora=[{"name": "ends", "path": path}]).check()


def test_documents_of_the_test_split_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    for part, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(5, 8))):
        (tmp_path / part).mkdir()
        for number in numbers:
            (tmp_path / part / f"{number}.txt").write_text(f"Text number {number}. " * 9)
    (notice,) = text_of({"name": "text", "root": str(tmp_path)}).notices()
    assert (notice.name, notice.count) == ("test_in_train", 1)
    assert notice.text.endswith("1 of 3 documents of its test split are also in its training split")


def test_null_and_blank_records_are_left_out_counted_said_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [*sentences(60), *[{"text": None}] * 9, {"text": "  \n"}]
    for split in ("train", "validation", "test"):
        lines(tmp_path / f"{split}.jsonl", [{"text": f"{split}. {record['text']}"} for record in sentences(60)])
    lines(tmp_path / "train.jsonl", records)
    own = task(data={"name": "hub", "dataset": str(tmp_path)})
    with caplog.at_level(logging.WARNING):
        own.prepare()
        own.prepare()
    text = f"{tmp_path.name}: of its train split 10 of 70 documents are left out, as they are null or blank"
    assert caplog.messages == [text]
    assert documents(own.spec.data, "train") == [record["text"] for record in sentences(60)]  # type: ignore[arg-type]
    assert "None" not in tokenizer_of(own.spec).decode(own._text.sequences("train").tokens.flatten())
    assert own.evaluate(own.build(TINY), "test", CPU)["left_out_train"] == 10
    assert own.spec.units["left_out_train"].decimals == 0


def test_blank_records_stay_where_perplexity_is_measured_as_others_do(tmp_path: Path) -> None:
    path = lines(tmp_path / "wiki.jsonl", [{"text": text} for text in (" = A = ", "", "b", None)])
    assert corpus_text(Corpus(name="w", path=path)) == " = A = \n\n\n\nb"
    data = HubData(dataset=path, test="train", train="train[:1]", val="train[1:2]")
    assert running_text(data, "test") == " = A = \n\n\n\nb"
    notices = text_of(
        {"name": "pystdlib", "train": 4000, "val": 400, "test": 400}, corpora=[{"name": "w", "path": path}]
    )
    assert [(notice.name, notice.count) for notice in notices.notices()] == [("left_out_w", 1)]


def test_a_data_set_without_text_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "one.jsonl", [{"text": None}, {"text": None}])
    with pytest.raises(UserError, match=r"data set '.*one.jsonl': the train split holds no text"):
        documents(HubData(dataset=path), "train")
    (tmp_path / "test.txt").write_text("\n\n \n")
    with pytest.raises(UserError, match=r"data.root '.*': the test split holds no text"):
        documents(TextData(root=str(tmp_path)), "test")


@pytest.mark.parametrize(
    ("record", "column", "message"),
    [
        ({"text": [{"role": "user", "content": "hi"}]}, "text", "column 'text' holds conversations, not text: write"),
        ({"talk": [{"from": "human", "value": "hi"}], "a": "b"}, "talk", "column 'talk' holds conversations, not text"),
        ({"text": 3, "page": "x"}, "text", "column 'text' holds int64, not text; columns of text: 'page'"),
        (
            {"text": {"a": "b"}, "page": "x"},
            "text",
            "column 'text' holds structures, not text; columns of text: 'page'",
        ),
        ({"text": ["a", "b"]}, "text", "column 'text' holds structures, not text"),
        ({"page": "x"}, "text", "has no column 'text', but page"),
    ],
)
def test_records_of_anything_but_text_are_refused(
    tmp_path: Path, record: dict[str, Any], column: str, message: str
) -> None:
    path = lines(tmp_path / "one.jsonl", [record] * 3)
    for read in (
        lambda: documents(HubData(dataset=path, column=column), "train"),
        lambda: corpus_text(Corpus(name="c", path=path, column=column)),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_column_of_several_kinds_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "one.jsonl", [{"text": value} for value in (None, 1, "a", [1])])
    with pytest.raises(UserError, match="not text"):
        documents(HubData(dataset=path), "train")


def test_records_are_not_read_as_if_they_were_plain_text(tmp_path: Path) -> None:
    path = lines(tmp_path / "one.jsonl", sentences(3))
    whole = "\n\n".join(record["text"] for record in sentences(3))
    assert corpus_text(Corpus(name="c", path=path)) == whole
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(sentences(3), indent=1))
    assert corpus_text(Corpus(name="c", path=str(listed))) == whole
    plain = tmp_path / "train.txt"
    for source in (tmp_path / "one.jsonl", listed):
        plain.write_text(source.read_text())
        with pytest.raises(UserError, match=r"corpus 'c': .*train.txt holds records in JSON, not text: name it"):
            corpus_text(Corpus(name="c", path=str(plain)))
        with pytest.raises(UserError, match=r"data.root '.*': .*train.txt holds records in JSON, not text: give"):
            documents(TextData(root=str(tmp_path)), "train")
    with pytest.raises(UserError, match=r"one.jsonl' is a file of records; these are read by `name: hub`"):
        documents(TextData(root=path), "train")


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ('{"a": 1}\n{"a": 2}\n', True),
        ('\n[{"a": 1},\n {"a": 2}]', True),
        ("{ this is a set }\n", False),
        ('{\n  "name": "package.json"\n}\n', False),
        ("[1] A reference.\n", False),
        ("[1, 2]", False),
        ('{"a": 1}\nand then a story begins', False),
        ("", False),
    ],
)
def test_what_counts_as_records(text: str, records: bool) -> None:
    assert hold_json(text) is records


def test_files_of_every_encoding_are_read_right_or_refused_by_name(tmp_path: Path) -> None:
    text, path = "naïve\nline\n", tmp_path / "train.txt"
    data = TextData(root=str(tmp_path))
    for written in (text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode(), text.encode("utf-8-sig")):
        path.write_bytes(written)
        assert documents(data, "train") == [text]
        assert corpus_text(Corpus(name="c", path=str(path), joiner="\n")) == text
    for encoding, place in (
        ("latin-1", r"byte 0xef at position 2"),
        ("utf-16", "byte 0xff at position 0"),
        ("utf-16-le", "byte 0xef|zero bytes"),
    ):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(UserError, match=rf"{path} is not text in UTF-8 \(.*({place}).*\): save it as UTF-8"):
            documents(data, "train")
    path.write_bytes("plain".encode("utf-16-le"))
    with pytest.raises(UserError, match="it holds zero bytes"):
        corpus_text(Corpus(name="c", path=str(path)))
    marked = tmp_path / "one.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + b'{"text": "a"}\r\n{"text": "b"}\r\n')
    assert documents(HubData(dataset=str(marked)), "train") == ["a", "b"]


def asks(count: int, long: int = 0, **fields: Any) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Say {number}" + " again" * 90 * (number < long),
            "input": "",
            "output": f"{number}.",
            **fields,
        }
        for number in range(count)
    ]


def alpaca(path: str, **options: Any) -> Text:
    return text_of({"name": "alpaca", "path": path, "val": 4, "test": 4}, **({"context": 200} | options))


def test_prompts_that_fill_the_context_are_refused_with_the_share_that_fits(tmp_path: Path) -> None:
    path = lines(tmp_path / "alpaca.jsonl", asks(40))
    alpaca(path).check()
    with pytest.raises(
        UserError,
        match=r"alpaca.jsonl: of 32 prompts of the train split 0 \(0%\) leave room for an answer in a context of 64 "
        r"tokens; the longest takes 1\d\d: make 'task.context' larger",
    ):
        alpaca(path, context=64).check()
    with pytest.raises(UserError, match=r"prompts of the \w+ split \d+ \(\d+%\) leave room"):
        alpaca(lines(tmp_path / "most.jsonl", asks(40, long=30))).check()


def test_few_prompts_that_fill_the_context_are_left_out_and_counted(tmp_path: Path) -> None:
    own = alpaca(lines(tmp_path / "some.jsonl", asks(40, long=9)))
    own.check()
    for part in ("train", "val", "test"):
        assert bool((own.sequences(part).targets != IGNORED).any(dim=1).all())  # type: ignore[arg-type]
    assert sum(notice.count for notice in own.notices() if notice.name.startswith("left_out_")) == 9
    assert sum(len(own.sequences(part)) for part in ("train", "val", "test")) == 31  # type: ignore[arg-type]


def test_records_without_an_answer_and_answers_that_are_cut_are_counted(tmp_path: Path) -> None:
    records = asks(40)
    records[3]["output"], records[4]["output"], records[5]["instruction"] = None, " ", ""
    records[6]["output"] = "6. " * 99
    notices = alpaca(lines(tmp_path / "some.jsonl", records)).notices()
    counts = {kind: sum(n.count for n in notices if n.name.startswith(kind)) for kind in ("left_out_", "cut_")}
    assert counts == {"left_out_": 3, "cut_": 1}


def test_answers_that_are_conversations_are_refused(tmp_path: Path) -> None:
    talk = [{"role": "assistant", "content": "hi"}]
    path = lines(tmp_path / "talk.jsonl", asks(40, output=talk))
    with pytest.raises(UserError, match=r"talk.jsonl: column 'output' holds conversations, not text"):
        alpaca(path).check()


def test_paths_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "books").mkdir()
    for part in ("train", "val", "test"):
        (tmp_path / "books" / f"{part}.txt").write_text(f"{part} is one of three. " * 9)
    text_of({"name": "text", "root": "~/books"}).check()
    lines(tmp_path / "one.jsonl", sentences())
    text_of({"name": "hub", "dataset": "~/one.jsonl", **SLICES}).check()
    lines(tmp_path / "alpaca.jsonl", asks(40))
    alpaca("~/alpaca.jsonl").check()
    corpora = [{"name": "a", "path": "~/one.jsonl"}, {"name": "b", "path": "~/books/test.txt"}]
    assert list(check_corpora(task(corpora=corpora).spec)) == ["a", "b"]
    with pytest.raises(UserError, match=r"data set '~/two.jsonl' does not exist"):
        documents(HubData(dataset="~/two.jsonl"), "train")
    assert AlpacaData(path="~/alpaca.jsonl").label() == "alpaca.jsonl"


def test_tokenizers_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    tokenizer_of(task().spec).save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    fields = json.loads(config.read_text())
    del fields["pad_token"]
    config.write_text(json.dumps(fields))
    own = task(tokenizer=str(tmp_path))
    own.prepare()  # without padding all is well
    assert tokenizer_of(own.spec).pad_token_id is None
    del fields["eos_token"]
    other = tmp_path / "other"
    tokenizer_of(own.spec).save_pretrained(other)
    (other / "tokenizer_config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"task.tokenizer '.*other' has no token for the end of a text: give it an eos"):
        task(tokenizer=str(other)).prepare()
    for name, message in (("byte", "task.tokenizer 'byte': .*; did you mean 'bytes'"), ("~/nowhere", "does not exist")):
        with pytest.raises(UserError, match=message):
            task(tokenizer=name).prepare()
