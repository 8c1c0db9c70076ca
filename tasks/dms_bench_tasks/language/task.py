"""Language models: the task that the runtime sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.tasks import Loop, Split, StructureHook
from dms_bench_tasks.common.notes import say_once
from dms_bench_tasks.common.sharding import derive_seed
from dms_bench_tasks.language import cache, export, generation, library, model, train, zero_shot
from dms_bench_tasks.language.data import Text
from dms_bench_tasks.language.objective import cross_entropy
from dms_bench_tasks.language.perplexity import check_corpora, perplexities
from dms_bench_tasks.language.spec import LanguageRecipe, LanguageTask
from dms_bench_tasks.language.tokenizer import tokenizer_of

#: Sequences of a batch on which a network is only looked at, not trained.
PROBE_BATCH = 16


class Language:
    """Data, networks, training and measures of one trial.

    Args:
        spec: the task.
        seed: the trial's seed: initial weights, order of the data, dropout.

    Raises:
        UserError: transformers or one of its relatives is not installed.
    """

    class_axis: ClassVar[int] = -1

    def __init__(self, spec: LanguageTask, seed: int) -> None:
        library.prepare()
        self.spec, self.seed = spec, seed
        self._text = Text(spec)

    def build(self, supernet: SupernetSpec) -> nn.Module:
        """Build the supernet on the CPU. Raises UserError for what transformers cannot build."""
        return model.build(supernet, lambda: tokenizer_of(self.spec), self.spec.context, self.seed)

    def example_input(self, batch: int = 2) -> Tensor:
        """Return random tokens, always the same, [batch, context]."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(3, 200, (batch, self.spec.context), generator=generator)

    def prepare(self) -> None:
        """Read all text, look for what the measures need, and say what of the text is left out. Raises UserError."""
        self._text.check()
        list(check_corpora(self.spec))
        zero_shot.check(self.spec)
        for notice in self._text.notices():
            say_once(notice.text)

    def initialise(self, network: nn.Module) -> None:
        """Draw fresh weights by transformers' own rules, at the network's present size."""
        model.initialise(network, self.seed)

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse, before anything runs, a recipe that cannot be used. Raises UserError."""
        warmup, steps = _language(recipe).warmup_steps, recipe.epochs * self._text.steps(_language(recipe))
        if warmup >= steps:
            raise UserError(f"warmup_steps {warmup} must be less than the {steps} steps that the stage has")

    def train_samples(self) -> int:
        """Return the number of training sequences."""
        return self._text.train_samples()

    def fit(
        self,
        model: nn.Module,
        recipe: Recipe,
        loop: Loop,
        structure: StructureHook | None = None,
        teacher: nn.Module | None = None,
    ) -> nn.Module:
        """Train `model` in place and return it. Raises TrialFailure where the loss is not finite."""
        return train.fit(model, self._text, _language(recipe), loop, structure, teacher, self.seed)

    def losses(self, model: nn.Module, batches: int, device: torch.device) -> Iterator[Tensor]:
        """Yield the cross entropy of a few batches of 16 training sequences, always the same."""
        recipe = LanguageRecipe(epochs=1, lr=1.0, batch_size=PROBE_BATCH)
        whole = self._text.sequences("train")
        generator = torch.Generator().manual_seed(derive_seed(recipe.batch_size))
        order = torch.randperm(len(whole), generator=generator)[: batches * PROBE_BATCH]
        for rows in order.split(PROBE_BATCH):  # type: ignore[no-untyped-call]
            yield cross_entropy(model(whole.tokens[rows].to(device)), whole.targets[rows].to(device))

    def cached_rows(self, model: nn.Module) -> dict[str, Tensor]:
        """Return which outputs of which weights go into the cache of keys and values. Raises UserError."""
        return cache.cached_rows(model)

    def recalibrate(self, model: nn.Module, device: torch.device, samples: int | None = None) -> None:
        """Do nothing: these networks keep no statistics of their data."""

    def evaluate(self, model: nn.Module, split: Split, device: torch.device) -> dict[str, float]:
        """Return `perplexity` and `loss`; on the test split all texts and windows, zero-shot tasks and generation.

        Where data are left out, or trained on as well, the test split also has their numbers (`Text.notices`).
        """
        model = model.to(device)
        results = perplexities(model, self.spec, split, device)
        if split == "test":
            results |= zero_shot.accuracies(model, self.spec, device)
            results |= generation.measure(model, self.spec, device)
            results |= {notice.name: float(notice.count) for notice in self._text.notices()}
        return results

    def inputs_and_outputs(self, model: nn.Module) -> tuple[str, str]:
        """Say the length of a text, and what the scores are of."""
        context = self.spec.context
        return f"int64 [batch, {context}]: tokens of `transformers/`", (
            f"float32 [batch, {context}, tokens]: a score for each next token, before the softmax"
        )

    def export(self, model: nn.Module, folder: Path) -> list[Path]:
        """Write `transformers/`, which `AutoModelForCausalLM.from_pretrained` opens without dms_bench."""
        return [export.save(model, tokenizer_of(self.spec), folder / "transformers")]


def _language(recipe: Recipe) -> LanguageRecipe:
    if not isinstance(recipe, LanguageRecipe):
        raise UserError(f"language models train by a LanguageRecipe, not by a {type(recipe).__name__}")
    return recipe
