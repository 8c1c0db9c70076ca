"""Search a BERT classifier of transformers, cut it to a third of its MACs, finetune and export it.

    pip install "dms-bench[language]" numpy scikit-learn
    python examples/bert.py

It tells from a sentence of documentation which library it is of: torch, numpy, or scikit-learn, as they are installed
here. It takes a minute on two cores and ends with the accuracy before and after; the cut network
has trained for longer, as search and finetuning go on from the whole one.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import random
import re
from collections import Counter
from pathlib import Path

import numpy
import sklearn.cluster
import sklearn.ensemble
import sklearn.linear_model
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from dms_bench.scaling import Supernet, budget_of, count, cut

WORDS, LENGTH, BATCH = 2000, 24, 32
LIBRARIES = (
    [torch, torch.nn, torch.nn.functional],
    [numpy, numpy.linalg, numpy.random],
    [sklearn.linear_model, sklearn.cluster, sklearn.ensemble],
)


def sentences() -> list[tuple[list[str], int]]:
    """Return sentences of documentation as words, without the libraries' names, with the number of the library."""
    found = set()
    for label, modules in enumerate(LIBRARIES):
        for value in {id(value): value for module in modules for value in vars(module).values()}.values():
            text = inspect.getdoc(value) or "" if callable(value) else ""
            for sentence in re.split(r"[.:]\s|\n\n", text):
                words = re.findall(r"[a-z]{2,}", sentence.lower())
                kept = tuple(word for word in words if word not in ("torch", "numpy", "np", "sklearn", "scikit"))
                if len(kept) >= 5:
                    found.add((kept[:LENGTH], label))
    by_label = [sorted(words for words, label in found if label == number) for number in range(len(LIBRARIES))]
    draw = random.Random(0)
    smallest = min(map(len, by_label))
    pairs = [(list(words), label) for label, some in enumerate(by_label) for words in draw.sample(some, smallest)]
    draw.shuffle(pairs)
    return pairs


def tensors(pairs: list[tuple[list[str], int]]) -> dict[str, Tensor]:
    """Return words as numbers with a mask, [sentences, 24], and labels, [sentences]."""
    common = [word for word, _ in Counter(word for words, _ in pairs for word in words).most_common(WORDS - 2)]
    numbers = {word: index + 2 for index, word in enumerate(common)}  # 0: nothing, 1: another word
    ids = torch.zeros(len(pairs), LENGTH, dtype=torch.long)
    for row, (words, _) in zip(ids, pairs, strict=True):
        row[: len(words)] = torch.tensor([numbers.get(word, 1) for word in words])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([label for _, label in pairs])}


def train(model: nn.Module, data: dict[str, Tensor], steps: int, search: float | None = None) -> nn.Module:
    """Train a network; with `search`, search it for that share of its MACs and return what is cut out."""
    example = {name: data[name][:2] for name in ("input_ids", "attention_mask")}
    net = Supernet(model, example) if search else None
    weights = torch.optim.AdamW(model.parameters(), lr=5e-4)
    structure = torch.optim.Adam(net.structure_parameters(), lr=5e-2) if net else None
    budget = budget_of(net.space, macs=search) if net and search else None
    model.train()
    for step in range(steps):
        chosen = torch.randint(len(data["labels"]), (BATCH,), generator=torch.Generator().manual_seed(step))
        target = net.begin_step(step / steps, budget) if net and budget else None
        loss = (net or model)(**{name: values[chosen] for name, values in data.items()}).loss
        if net and target:
            loss = loss + net.resource_loss(target)
        loss.backward()
        for optimizer in filter(None, (weights, structure)):
            optimizer.step()
            optimizer.zero_grad()
        if net:
            net.update()
    return cut(model, net.space, net.architecture(budget)) if net and budget else model


@torch.no_grad()
def accuracy(model: nn.Module, data: dict[str, Tensor]) -> float:
    """Return the share of sentences whose library is told right."""
    scores = model.eval()(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    return float((scores.argmax(1) == data["labels"]).float().mean())


class Scores(nn.Module):
    """What is exported: numbers of words and a mask in, probabilities out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the probability of each library, [sentences, 3]."""
        return functional.softmax(self.model(input_ids=ids, attention_mask=mask).logits, -1)


def main(steps: int, folder: Path) -> dict[str, float]:
    """Run the example; return the figures that it prints."""
    torch.manual_seed(0)
    data = tensors(sentences())
    cutoff = len(data["labels"]) * 4 // 5
    known = {name: values[:cutoff] for name, values in data.items()}
    unseen = {name: values[cutoff:] for name, values in data.items()}
    sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 192}
    network = BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=3, **sizes))
    example = {name: data[name][:1] for name in ("input_ids", "attention_mask")}
    whole = train(network, known, steps)
    figures = {"macs": count(whole, example).macs, "accuracy": accuracy(whole, unseen)}
    small = train(train(copy.deepcopy(whole), known, steps, search=1 / 3), known, steps // 2)
    figures |= {"small macs": count(small, example).macs, "small accuracy": accuracy(small, unseen)}
    print(
        f"whole: {figures['macs'] / 1e6:.2f} M MACs, {figures['accuracy']:.1%} of {len(unseen['labels'])} right; "
        f"cut: {figures['small macs'] / 1e6:.2f} M MACs, {figures['small accuracy']:.1%} right"
    )
    program = torch.export.export(Scores(small).eval(), tuple(example.values()))  # opens with torch alone
    torch.export.save(program, folder / "bert.pt2")
    print(f"wrote {folder / 'bert.pt2'}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps of the training and of the search")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for the exported network")
    options = parser.parse_args()
    main(options.steps, options.output)
