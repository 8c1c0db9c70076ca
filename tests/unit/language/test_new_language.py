"""A suite for a language model and a text that somebody brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dms_bench import cli
from dms_bench.config import Resources, load_suite, resolve
from dms_bench.trial.group import alone
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder

LINES = "".join(f"line {number} of a text that says little\n" for number in range(600))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(LINES)


def llama(folder: str, weights: bool = True, positions: int = 64) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259, hidden_size=48, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=positions, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder) if weights else config.save_pretrained(folder)


def new(*arguments: str, model: str = "small", data: str = "text.txt") -> dict[str, Any]:
    assert cli._main(["new", "--model", model, "--data", data, *arguments]) == 0
    experiment: dict[str, Any] = yaml.safe_load(Path("suite.yaml").read_text())["experiments"][0]
    return experiment


def test_a_folder_with_weights_and_a_text_become_a_suite_whose_smoke_variant_runs(tmp_path: Path) -> None:
    llama("small")
    experiment = new("--params", "60%")
    assert experiment["supernet"] == {"model": "small", "pretrained": True}
    assert experiment["pipeline"] == "DMSp"
    assert experiment["task"]["data"] == {"name": "text", "root": "text.txt"}
    assert experiment["task"]["tokenizer"] == "bytes"
    assert experiment["task"]["context"] == 64  # what the model takes
    assert cli._main(["validate", "suite.yaml"]) == 0
    for trial in resolve(load_suite("suite.yaml", smoke=True))[:2]:
        result = run_trial(trial, WorkFolder(tmp_path / trial.name), alone(Resources()))
        assert result.metrics["perplexity"] > 1


def test_a_folder_without_weights_and_a_type_start_at_random() -> None:
    llama("small", weights=False)
    experiment = new()
    assert experiment["pipeline"] == "DMSnp"
    assert "pretrained" not in experiment["supernet"]
    Path("suite.yaml").unlink()
    assert new(model="llama")["supernet"]["args"]["hidden_size"] == 128


def test_records_are_read_by_their_column() -> None:
    llama("small")
    Path("text.jsonl").write_text(
        "".join(
            json.dumps({"n": 1, "title": str(number), "body": LINES[:2000] if number else None}) + "\n"
            for number in range(20)
        )
    )
    assert new(data="text.jsonl")["task"]["data"] == {
        "name": "hub", "dataset": "text.jsonl", "column": "body",
        "train": "train[:80%]", "val": "train[80%:90%]", "test": "train[90%:]",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "data", "line"),
    [
        ("lama", "text.txt", "--model 'lama' is neither a folder nor a type of transformers; did you mean 'llama'"),
        ("./none", "text.txt", "supernet.model './none' does not exist"),
        ("llama", "none.txt", "--data 'none.txt' does not exist"),
        ("llama", "short.txt", "short: the val split has 2 tokens, less than a sequence"),
    ],
)
def test_mistakes_are_one_line(model: str, data: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("short.txt").write_text("a few\nwords\n")
    assert cli._main(["new", "--model", model, "--data", data]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert line in said
