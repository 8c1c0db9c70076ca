"""Perplexity, zero-shot accuracy, generation: against what one would write by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench_tasks.language import generation, zero_shot
from dms_bench_tasks.language.items import next_line_items
from dms_bench_tasks.language.perplexity import perplexities, validation_loss
from dms_bench_tasks.language.text import documents
from dms_bench_tasks.language.tokenizer import tokenizer_of
from tests.unit.language.language_helpers import CPU, TINY, lively, network, task


class Uniform(nn.Module):
    """Gives every one of V tokens the same chance."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, self.size)


def test_a_model_that_knows_nothing_has_a_perplexity_of_its_vocabulary() -> None:
    own = task(windows=(32, 100))
    found = perplexities(Uniform(259), own.spec, "test", CPU)
    assert found["perplexity"] == pytest.approx(259)
    assert found["pystdlib-test/100"] == pytest.approx(259)
    text = "\n\n".join(documents(own.spec.data, "test"))
    # One byte is one token here.
    assert found["pystdlib-test/32/bits_per_byte"] == pytest.approx(math.log2(259))
    length = len(text.encode()) / len(text.split())
    assert found["pystdlib-test/32/word"] == pytest.approx(259**length, rel=1e-4)
    assert validation_loss(Uniform(259), own._text, CPU) == pytest.approx(math.log(259))


def test_windows_do_not_see_one_another_and_predict_all_but_their_first_token() -> None:
    own = task(windows=(24,), data={"name": "pystdlib", "train": 4000, "val": 400, "test": 400})
    model = lively(network())
    tokens = tokenizer_of(own.spec)("\n\n".join(documents(own.spec.data, "test")))["input_ids"]
    losses = []
    for start in range(0, len(tokens) - 23, 24):
        window = torch.tensor([tokens[start : start + 24]])
        with torch.no_grad():
            chances = model(window)[0].double().log_softmax(-1)
        losses += [-float(chances[place, window[0, place + 1]]) for place in range(23)]
    assert len(losses) == 23 * (len(tokens) // 24)
    found = perplexities(model, own.spec, "test", CPU)
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found["perplexity"] == found["pystdlib-test/24"] == pytest.approx(math.exp(found["loss"]))
    assert set(perplexities(model, own.spec, "val", CPU)) >= {"perplexity", "pystdlib-val/24"}


def test_given_texts_are_measured_at_the_end_and_the_first_one_leads(tmp_path: Path) -> None:
    (tmp_path / "wiki.txt").write_text("one two three four\n" * 30)
    (tmp_path / "ptb.txt").write_text("no it was n't black monday\n" * 20)
    corpora = [
        {"name": "wikitext2-test", "path": str(tmp_path / "wiki.txt"), "joiner": "\n"},
        {"name": "ptb-valid", "path": str(tmp_path / "ptb.txt")},
    ]
    own = task(corpora=corpora, windows=(32, 64), data={"name": "pystdlib", "train": 4000, "val": 400, "test": 400})
    own.prepare()
    model = own.build(TINY)
    found = own.evaluate(model, "test", CPU)
    assert found["perplexity"] == found["wikitext2-test/32"]
    assert {"wikitext2-test/64", "ptb-valid/32", "ptb-valid/64", "ptb-valid/32/word", "weights_mb"} <= set(found)
    assert "pystdlib-val/32" in own.evaluate(model, "val", CPU)
    assert not any("wikitext" in name for name in own.evaluate(model, "val", CPU))
    with pytest.raises(UserError, match=r"ptb-valid: 5.. tokens are less than a window of 700"):
        task(corpora=corpora[1:], windows=(700,)).prepare()


def test_items_are_lines_that_follow_their_context() -> None:
    texts = documents(task(data={"name": "pystdlib", "test": 60_000}).spec.data, "test")
    items = next_line_items(texts)
    assert len(items) > 50
    assert items == next_line_items(texts)
    assert {item["answer"] for item in items} == {0, 1, 2, 3}
    for item in items:
        right = item["choices"][item["answer"]]
        followed = item["context"] + "\n" + right
        squeezed = ["\n".join(line.rstrip() for line in text.splitlines() if line.strip()) for text in texts]
        assert sum(followed in text for text in squeezed) >= 1
        assert len(set(item["choices"])) == 4
        assert not (set(item["choices"]) - {right}) & set(item["context"].splitlines())


def test_the_harness_finds_the_most_likely_line() -> None:
    own = task(zero_shot=("next_line",), zero_shot_limit=12, data={"name": "pystdlib", "test": 40_000}, context=256)
    zero_shot.check(own.spec)
    model = lively(own.build(TINY)).eval()
    found = zero_shot.accuracies(model, own.spec, CPU)
    assert found.keys() == {"next_line", "next_line_version", "zero_shot"}
    assert found["zero_shot"] == found["next_line"]
    assert found["next_line_version"] == 1.0
    tokenizer = tokenizer_of(own.spec)
    hits = 0
    for item in zero_shot._items(own.spec)[:12]:
        sums = []
        for choice in item["choices"]:
            context = tokenizer(item["context"])["input_ids"]
            whole = tokenizer(item["context"] + "\n" + choice)["input_ids"]
            with torch.no_grad():
                chances = model(torch.tensor([whole]))[0].log_softmax(-1)
            sums.append(sum(float(chances[place - 1, whole[place]]) for place in range(len(context), len(whole))))
        hits += sums.index(max(sums)) == item["answer"]
    assert found["next_line"] == pytest.approx(100 * hits / 12)


def test_a_task_of_the_harness_without_its_data_is_one_readable_line() -> None:
    with pytest.raises(UserError, match="zero_shot 'boolq': "):
        zero_shot.check(task(zero_shot=("boolq",)).spec)


def test_speed_and_memory_of_writing() -> None:
    own = task(generate=4)
    model = own.build(TINY)
    found = generation.measure(model, own.spec, CPU)
    assert found["weights_mb"] == pytest.approx(4e-6 * sum(p.numel() for p in model.parameters()))
    # Keys and values of 3 layers, 4 heads of 12.
    assert found["cache_kb_per_token"] == pytest.approx(2 * 3 * 48 * 4 / 1e3)
    assert found["generate_ms_per_token"] > 0
    assert generation.measure(model, task(generate=0).spec, CPU).keys() == {"weights_mb"}
