"""What a suite says about language models: text, tokenizer, measures, and how a network is trained.

Reading it imports neither torch nor transformers. Options carry the names that transformers and peft give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dms_bench.config.base import Spec
from dms_bench.config.content import digest_of_path
from dms_bench.config.proposal import Brought
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import PERCENT, TaskSpec, Unit
from dms_bench.config.units import WholeCount, also_boolean
from dms_bench.errors import nearest
from dms_bench_tasks.common.place import folder_name, placed
from dms_bench_tasks.common.recipe import SteppedRecipe

Share = Annotated[float, Field(ge=0, lt=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]

#: Files of a folder of transformers by which a tokenizer is what it is, and a network without and with its weights.
_OF_TOKENIZER = (".json", ".py", ".txt", ".model", ".jinja")
_OF_NETWORK = (".json", ".py")
_WITH_WEIGHTS = (*_OF_NETWORK, ".safetensors", ".bin")
#: Endings of files of text, and of records.
TEXTS, RECORDS = (".txt",), (".jsonl", ".json", ".parquet", ".csv")
_PARTS = ("train", "val", "test")
_COUNT = Unit("", 0)
#: Zero-shot items that are generated from the task's own text, beside lm-eval's own tasks.
NEXT_LINE = "next_line"
#: The tasks of the paper's table 10 and of LLM-Pruner's tables, by their names in lm-eval.
HARNESS_TASKS = ("boolq", "winogrande", "arc_easy", "arc_challenge", "piqa", "hellaswag", "openbookqa")


class PystdlibData(Spec):
    """The source text of Python's own standard library, split by file; what is read depends on Python's version."""

    name: Literal["pystdlib"] = "pystdlib"
    """`pystdlib`: the source text of Python's own standard library, which is always there."""
    train: WholeCount = 4_000_000
    """Characters of the training split, from at most 40,000 of each file (see the README for what there is)."""
    val: WholeCount = 200_000
    """Characters of the validation split."""
    test: WholeCount = 400_000
    """Characters of the test split."""

    def label(self) -> str:
        """Return the set's short name."""
        return self.name


class TextData(Spec):
    """A folder with the sub-folders (or `.txt` files) train, val and test, every file a document; or one text file."""

    name: Literal["text"] = "text"
    """`text`: text files in a folder."""
    root: str
    """The folder with the sub-folders `train`, `val` and `test`, or the files `train.txt`, `val.txt` and `test.txt`; or
    one text file, whose last tenth is the test split and whose tenth before that is for validation."""
    called: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """Name of the data on boards, where it is not the folder's or file's. null: that."""
    pattern: str = "**/*.txt"
    """Shell-style pattern of the files in a sub-folder."""
    # In no hash of a trial without them.
    train: Annotated[WholeCount | None, Field(exclude_if=lambda value: value is None)] = None
    """About how many characters of the training split are used, in pieces from all over it. null: all."""
    val: Annotated[WholeCount | None, Field(exclude_if=lambda value: value is None)] = None
    """About how many characters of the validation split are used, in pieces from all over it. null: all."""
    test: Annotated[WholeCount | None, Field(exclude_if=lambda value: value is None)] = None
    """About how many characters of the test split are used, in pieces from all over it. null: all."""

    def label(self) -> str:
        """Return the data's name."""
        return self.called or folder_name(self.root).removesuffix(".txt")

    def identity(self) -> Self:
        """Return the data as they are known wherever they lie."""
        return self.model_copy(update={"root": f"real-data/{self.label()}", "called": None})


class HubData(Spec):
    """A data set that `datasets.load_dataset` opens: a name on the hub, or a local folder."""

    name: Literal["hub"] = "hub"
    """`hub`: a data set that `datasets` opens."""
    dataset: str
    """Name on the hub, a local folder, or a file of records (`.jsonl`, `.json`, `.parquet`, `.csv`), all of which is
    `train`."""
    config: str | None = None
    """Configuration of the data set (the second argument of `datasets.load_dataset`); null: its default."""
    column: str = "text"
    """Column with the text; records without any are left out, and counted."""
    train: str = "train"
    """Name of the training split."""
    val: str = "validation"
    """Name of the split for validation."""
    test: str = "test"
    """Name of the split that is measured at the end."""

    @model_validator(mode="after")
    def _splits_differ(self) -> Self:
        if len({self.train, self.val, self.test}) < 3:
            raise ValueError(f"train {self.train!r}, val {self.val!r} and test {self.test!r} must be different splits")
        return self

    def label(self) -> str:
        """Return the data set's name."""
        return self.dataset.rstrip("/").rpartition("/")[2]


class AlpacaData(Spec):
    """Instructions in alpaca's format: a JSON file, or a data set of the hub; the answer alone is learnt."""

    name: Literal["alpaca"] = "alpaca"
    """`alpaca`: instructions in alpaca's format."""
    path: str
    """A file of records (`.json`, `.jsonl`), or the name of a data set on the hub; records have `instruction`, `input`
    and `output`."""
    val: Annotated[int, Field(ge=1)] = 2000
    """Records held out for validation."""
    test: Annotated[int, Field(ge=1)] = 2000
    """Records held out for the test split."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of what is held out."""

    def label(self) -> str:
        """Return the file's or data set's name."""
        return self.path.rstrip("/").rpartition("/")[2].removesuffix(".json")


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Data = Annotated[
    Annotated[PystdlibData | TextData | HubData | AlpacaData, Field(discriminator="name")], BeforeValidator(_name_alone)
]


class Corpus(Spec):
    """A text on which perplexity is measured, at the end."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name in the results, for example `wikitext2-test`."""
    path: str
    """A text file or a file of records (`.jsonl`, `.json`, `.parquet`, `.csv`), or with `config` or `split` given a
    data set that `datasets.load_dataset` opens."""
    config: str | None = None
    """Configuration of the data set, where it is one."""
    split: str | None = None
    """Split of the data set, where it is one; test where only `config` is given."""
    column: str = "text"
    """Column with the text, where it is a data set."""
    joiner: str = "\n\n"
    """Put between documents: the records of a data set, or the lines of a file."""

    @property
    def is_file(self) -> bool:
        """Whether it is a text file and not a data set."""
        return self.split is None and self.config is None


class LanguageDistillation(Spec):
    """Learn from the supernet as it was before the search, too."""

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the loss that compares with the teacher's predictions; the rest is the task's own loss."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Both predictions are softened by it; the loss is multiplied by its square."""


class Lora(Spec):
    """Train low-rank adapters of peft beside frozen weights; they are merged in the end (LLM-Pruner's defaults)."""

    r: Annotated[int, Field(ge=1)] = 8
    """peft's option: rank of the adapters."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """peft's option `lora_alpha`: adapters are scaled by alpha / r."""
    dropout: Share = 0.05
    """peft's option `lora_dropout`: dropout before the adapters."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """peft's option `target_modules`: layers with adapters, by the end of their names."""


class LanguageRecipe(SteppedRecipe):
    """One training stage by AdamW. `batch_size` is the number of sequences per optimiser step, over all workers."""

    lr: Annotated[float, Field(gt=0)]
    """Learning rate of AdamW after the warm-up; the highest one."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW; vectors (norms, biases) go without it."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """Both betas of AdamW."""
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    """A schedule of transformers, advanced on every optimiser step."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps in which the learning rate rises from 0 to `lr`."""
    clip_grad: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of all gradients. null: not clipped."""
    gradient_checkpointing: bool = False
    """Keep the inputs of blocks only and compute the rest again in the backward pass: less memory, more time."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """End an epoch after so many optimiser steps. null: when all of the text was seen."""
    distil: Annotated[LanguageDistillation | None, Field(json_schema_extra=also_boolean)] = None
    """Learn from the supernet's predictions, too; `true` takes the defaults. null: no teacher."""
    lora: Annotated[Lora | None, Field(json_schema_extra=also_boolean)] = None
    """Train adapters instead of the weights; `true` takes the defaults. Not in a search. null: train the weights."""

    @field_validator("distil", "lora", mode="before")
    @classmethod
    def _true_is_the_defaults(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    def samples_per_epoch(self, available: int) -> int:
        """Return how many of the training sequences an epoch takes."""
        return available if self.steps is None else min(available, self.steps * self.batch_size)

    def needs_teacher(self) -> bool:
        """Whether the stage distils."""
        return self.distil is not None

    def unfit_for(self, stage: Literal["pretrain", "search", "retrain"]) -> str | None:
        """Refuse adapters in a search."""
        searched = stage == "search" and self.lora is not None
        return "search.lora: masks do not reach adapters; leave it to the 'retrain' recipe" if searched else None


class LanguageTask(TaskSpec):
    """Predict text with any causal language model of transformers; measured as perplexity per token."""

    implementation: ClassVar[str] = "dms_bench_tasks.language.task:Language"
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    recipe_class: ClassVar[type[Recipe]] = LanguageRecipe
    caches: ClassVar[bool] = True
    proposal: ClassVar[str] = "dms_bench_tasks.language.proposal:propose"
    metric: ClassVar[str] = "perplexity"
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[Mapping[str, Unit]] = {
        **dict.fromkeys(("zero_shot", NEXT_LINE, *HARNESS_TASKS), PERCENT),
        **dict.fromkeys(
            ("test_in_train", *(f"{what}_{part}" for what in ("left_out", "cut") for part in _PARTS)), _COUNT
        ),
    }
    example: ClassVar[dict[str, Any]] = {
        "task": {"kind": "language", "data": "pystdlib", "tokenizer": "bpe", "context": 128},
        "supernet": {
            "model": "llama",
            "args": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4},
        },
        "search": {"epochs": 1, "lr": 0.001},
        "retrain": {"epochs": 2, "lr": 0.001, "warmup_steps": 50},
    }

    kind: Literal["language"] = "language"
    data: Data = PystdlibData()
    """The text: a mapping, or the name `pystdlib` alone."""
    tokenizer: str = "bytes"
    """bytes, bpe (trained on the training text), or a tokenizer of transformers (a folder, or a name on the hub)."""
    vocab_size: Annotated[int, Field(ge=300)] = 1024
    """Size of the trained vocabulary, special tokens included. For the tokenizer bpe only."""
    trust_remote_code: Annotated[bool, Field(exclude_if=lambda trusted: not trusted)] = False  # in no hash without it
    """Run the code that comes with a tokenizer of transformers; a network's own is run by
    `supernet.args.trust_remote_code`."""
    context: Annotated[int, Field(ge=8)] = 128
    """Tokens of a training sequence, and of the one that MACs and latency are counted for."""
    windows: Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=1)] = (128,)
    """Tokens of the windows that perplexity is measured on; the first one is the leaderboard's."""
    corpora: tuple[Corpus, ...] = ()
    """Texts of the final measure; the first one is the leaderboard's. None given: the data's own test split."""
    zero_shot: tuple[str, ...] = ()
    """Zero-shot tasks of the final measure: names in lm-eval, or `next_line` (generated from the test text)."""
    zero_shot_limit: Annotated[int, Field(ge=1)] | None = None
    """Items of each zero-shot task; null: all."""
    generate: Annotated[int, Field(ge=0)] = 32
    """Tokens that are generated to measure speed and memory; 0: not measured."""

    @field_validator("zero_shot")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = (NEXT_LINE, *HARNESS_TASKS)
        for name in names:
            if name not in known:
                raise ValueError(f"unknown zero-shot task {name!r}; {nearest(name, known)}")
        return names

    @model_validator(mode="after")
    def _items_have_lines(self) -> Self:
        if NEXT_LINE in self.zero_shot and isinstance(self.data, AlpacaData):
            raise ValueError("zero_shot 'next_line' needs plain text, not instructions")
        return self

    def identity(self) -> Self:
        """Return the task with its data as they are known wherever they lie."""
        return self.model_copy(update={"data": self.data.identity()}) if isinstance(self.data, TextData) else self

    def placed(self, roots: Mapping[str, str], workers: int | None) -> Self:
        """Return the task with its data where a site has them."""
        return self.model_copy(update={"data": placed(self.data, self.data.label(), roots, workers)})

    def local_content(self, supernet: SupernetSpec) -> dict[str, str]:
        """Return digests of network, weights, tokenizer, text and corpora, where these lie on this machine."""
        found = {f"task.corpora.{corpus.name}": digest_of_path(corpus.path) for corpus in self.corpora}
        if self.tokenizer not in ("bytes", "bpe"):
            found["task.tokenizer"] = digest_of_path(self.tokenizer, _OF_TOKENIZER)
        match self.data:
            case TextData(root=path) | HubData(dataset=path) | AlpacaData(path=path):
                found["task.data"] = digest_of_path(path)
        local = {field: digest for field, digest in found.items() if digest is not None}
        return super().local_content(supernet) | local

    def local_model(self, supernet: SupernetSpec) -> str | None:
        """Return a digest of a folder of transformers, with its weights where they are read."""
        if not Path(supernet.model, "config.json").expanduser().is_file():  # the name of a type, or on the hub
            return None
        return digest_of_path(supernet.model, _WITH_WEIGHTS if supernet.pretrained else _OF_NETWORK)

    @classmethod
    def takes(cls, brought: Brought) -> bool:
        """Whether the data is Python's library, a file of text or records, or a folder of text files and no pictures.

        What a network of pictures has beside these, such as boxes, is text, too.
        """
        if brought.data == "pystdlib":
            return True
        if brought.path.is_dir():
            return brought.holds(TEXTS) and not brought.holds((".jpeg", ".jpg", ".png"))
        return brought.holds((*TEXTS, *RECORDS))

    def label(self) -> str:
        """Return the task as the leaderboard prints it: data, tokenizer, protocol and harness."""
        text = self.corpora[0].name if self.corpora else f"{self.data.label()}-test"
        tokenizer = f"bpe-{self.vocab_size}" if self.tokenizer == "bpe" else self.tokenizer.rpartition("/")[2]
        harness = f" (lm-eval {_harness_version()})" if self.zero_shot else ""
        return f"{text}/{self.windows[0]} {tokenizer}{harness}"

    def weight_files(self, supernet: SupernetSpec) -> list[Path]:
        """Return the files that a supernet's weights are read from. Raises UserError where they are not to be had."""
        files = super().weight_files(supernet)
        if supernet.pretrained:
            from dms_bench_tasks.language.snapshot import weight_files

            files = [*weight_files(supernet.model, supernet.args.get("revision")), *files]
        return files


def _harness_version() -> str:
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        return "not installed"
