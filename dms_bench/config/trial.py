"""One fully resolved trial: everything that decides its result, and its content hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from dms_bench.config.base import Spec, Written
from dms_bench.config.budget import NO_ORDER, BudgetSpec, MacsBudget, MemoryBudget, bound_the_same, constraints_of
from dms_bench.config.content import digest_of_path
from dms_bench.config.method import MethodSpec
from dms_bench.config.plugins import METHODS, TASKS, parse_plugin, plugin_class
from dms_bench.config.recipe import Recipe
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec

#: DMSnp: search and retrain from random weights. DMSp: pretrain, search, retrain from the searched
#: weights. DMSp-: pretrain, search the structure only, evaluate as it is. The names are the paper's.
Pipeline = Literal["DMSnp", "DMSp", "DMSp-"]

#: What makes up for a cut, before anything is trained again.
Repair = Literal["none", "bias", "least_squares"]

AnyTask = Annotated[SerializeAsAny[TaskSpec], BeforeValidator(lambda value: parse_plugin(TASKS, value))]
AnyMethod = Annotated[SerializeAsAny[MethodSpec], BeforeValidator(lambda value: parse_plugin(METHODS, value))]


#: More samples than any data set has, by which epochs that end early are told from those that do not.
_MANY = 10**15


class Resources(Spec):
    """What one trial runs on. It decides where a trial runs, not what it computes."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that train one trial together, each on its own part of every batch."""
    cpus: Annotated[float, Field(gt=0)] = 1
    """Processors of each worker. A fraction shares a processor between trials."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of each worker; 0 trains on processors. A fraction shares a GPU between trials and needs `workers: 1`."""
    # Not part of a content where it is not given: trials from before there was a choice keep their hashes.
    placement: Annotated[
        Literal["pack", "spread", "strict_pack", "strict_spread"], Field(exclude_if=lambda value: value == "pack")
    ] = "pack"
    """How several workers are spread over nodes. pack: on few nodes, spread: on many, where there is room; strict_pack:
    all on one node, strict_spread: each on its own, or the trial waits."""

    @model_validator(mode="after")
    def _fractions_need_one_worker(self) -> Self:
        if self.workers > 1 and self.gpus % 1:
            raise ValueError(f"gpus {self.gpus:g} is a fraction, which needs workers: 1 (NCCL cannot share a device)")
        return self


class Trial(Spec):
    """A task, a supernet, a budget, a method, their training recipes and a seed."""

    experiment: str
    """Name of the experiment that the trial belongs to."""
    # Not part of a content where it is the first: trials from before there were others keep their hashes.
    version: Annotated[int, Field(ge=1, exclude_if=lambda value: value == 1)] = 1
    """Version of the suite."""
    task: AnyTask
    """What is learnt: the kind of a task, or a mapping with its `kind`, its data and its other options (`dms-bench ls
    task NAME`)."""
    supernet: SupernetSpec
    """The network that is searched, and what of it may be cut."""
    pipeline: Pipeline = "DMSnp"
    """DMSnp: search and retrain from random weights. DMSp: start from a trained supernet, search, retrain from the
    searched weights. DMSp-: start from a trained supernet, search the structure only, evaluate without retraining."""
    budget: BudgetSpec
    """What the searched network may cost."""
    method: AnyMethod
    """How the network is searched: the kind of a method, or a mapping with its `kind` and its options (`dms-bench ls
    method NAME`)."""
    pretrain: SerializeAsAny[Recipe] | None = None
    """How the supernet is trained before the search, for DMSp, DMSp- and for recipes that distil from it. Not needed
    where the supernet has weights already (`pretrained`, `checkpoint`)."""
    search: SerializeAsAny[Recipe] | None = None
    """How the network is trained during the search, for the methods that train in it; the others ignore it."""
    retrain: SerializeAsAny[Recipe] | None = None
    """How the searched network is trained in the end, for DMSnp and DMSp; DMSp- ignores it."""
    # Not part of a content where it is not given: trials from before there was a choice keep their hashes.
    repair: Annotated[Repair, Field(exclude_if=lambda value: value == "none")] = "none"
    """How layers behind a cut width make up for it, for DMSp and DMSp-: after the cut and before anything is trained
    again, without gradients, on eight batches of training data. bias: what their lost inputs contributed on average
    goes into their biases (FLAP). least_squares: their weights are fitted to the outputs that they had in the whole
    network. Where the loss on these batches does not fall, the cut network stays as it was."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides everything random: initial weights, order and augmentation of the data, what a method draws."""
    resources: Resources = Resources()
    """What the trial runs on. It does not decide the result and is not part of the trial's hash."""
    # In no hash of a trial that names nothing on this machine.
    content: Annotated[SkipJsonSchema[dict[str, str]], Field(exclude_if=lambda content: not content)] = Field(
        default_factory=dict
    )
    """Digests of the files and folders that the trial names by their paths, by the field that does so. They are filled
    in, so that another content makes another trial."""

    # Where a site has the data elsewhere, by which versions before did not know the trial.
    _written_task: TaskSpec | None = PrivateAttr(default=None)

    @field_validator("pretrain", "search", "retrain", mode="before")
    @classmethod
    def _recipe_of_the_task(cls, value: Any, info: ValidationInfo) -> Any:
        task = info.data.get("task")
        if value is None or isinstance(value, Recipe):
            return value
        if task is not None:
            return type(task).recipe_class.model_validate(value)
        # The task is reported by itself. Recipes are those of its kind; of an unknown one, what all tasks have.
        kind = plugin_class(TASKS, info.context.task) if isinstance(info.context, Written) else None
        if kind is not None:
            return cast(type[TaskSpec], kind).recipe_class.model_validate(value)
        if isinstance(value, Mapping):
            value = {field: given for field, given in value.items() if field in Recipe.model_fields}
        return Recipe.model_validate(value)

    @model_validator(mode="after")
    def _stages_are_given(self) -> Self:
        wrong = list(self._wrong_stages())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong_stages(self) -> Iterator[str]:
        if self.search is None and (self.method.trains_in_search or self.method.adds_search_epochs):
            why = "trains during its search" if self.method.trains_in_search else "also trains for a search's epochs"
            yield f"method {self.method.kind!r} {why}: give a 'search' recipe"
        recipes = [recipe for recipe in (self.search, self.retrain) if recipe is not None]
        unequal = len({recipe.samples_per_epoch(_MANY) for recipe in recipes}) > 1
        if self.method.adds_search_epochs and unequal:
            yield (
                f"method {self.method.kind!r} adds the epochs of 'search' to those of 'retrain', which are of another "
                "length: give both epochs of as many samples"
            )
        if self.method.adds_search_epochs and self.pipeline == "DMSp-":
            yield f"pipeline 'DMSp-' retrains nothing, which method {self.method.kind!r} does for longer"
        if self.retrain is None and self.pipeline != "DMSp-":
            yield f"pipeline {self.pipeline!r} retrains what it found: give a 'retrain' recipe"
        if self.method.judges_weights and self.pipeline == "DMSnp":
            yield (
                f"method {self.method.label()!r} is asked to measure the supernet's weights, "
                "which pipeline 'DMSnp' leaves untrained: take DMSp or DMSp-"
            )
        if self.repair != "none" and self.pipeline == "DMSnp":
            yield (
                f"pipeline 'DMSnp' retrains from random weights, which 'repair' {self.repair!r} has nothing to repair "
                "by: leave 'repair' out, or take DMSp or DMSp-"
            )
        if self.pipeline == "DMSnp" and self.search is not None and self.search.needs_teacher():
            yield "pipeline 'DMSnp' searches without a trained supernet: only its 'retrain' can distil from one"
        if self.pretrain is not None and self.pretrain.needs_teacher():
            yield "the 'pretrain' recipe distils, but the supernet is the teacher"
        ready = self.network.pretrained or self.network.checkpoint
        if self.needs_pretrained and self.pretrain is None and not ready:
            why = "starts" if self.pipeline != "DMSnp" else "is to distil"
            yield (
                f"pipeline {self.pipeline!r} {why} from a trained supernet: give a 'pretrain' recipe, "
                "'supernet.checkpoint' or 'supernet.pretrained'"
            )
        if not self.needs_pretrained and (self.supernet.pretrained or self.supernet.checkpoint):
            yield (
                f"pipeline {self.pipeline!r} starts from random weights, and would not read the supernet's: leave "
                "'supernet.pretrained' and 'supernet.checkpoint' out, or take DMSp or DMSp-"
            )
        used = {"pretrain": self.needs_pretrained, "search": self.method.trains_in_search, "retrain": True}
        for stage in ("pretrain", "search", "retrain"):
            recipe: Recipe | None = getattr(self, stage)
            reason = recipe.unfit_for(stage) if recipe is not None and used[stage] else None
            if reason:
                yield reason

    @model_validator(mode="after")
    def _the_budget_is_searched_for(self) -> Self:
        budgets = self.method.searched_budgets
        if budgets and self.budget not in budgets:
            listed = ", ".join(budget.label() for budget in budgets)
            raise ValueError(f"budget {self.budget.label()} is none that 'method.budgets_in_one' lists: {listed}")
        if not bound_the_same(budgets):
            raise ValueError(f"'method.budgets_in_one' {NO_ORDER}")
        return self

    @model_validator(mode="after")
    def _the_task_caches(self) -> Self:
        bounded = any(isinstance(constraint, MemoryBudget) for constraint in constraints_of(self.budget))
        if bounded and not self.task.caches:
            raise ValueError(
                f"budget 'memory' counts weights and the cache of keys and values, which task {self.task.kind!r} has "
                "none of; the memory of activations is not counted yet: bound macs, params or latency"
            )
        return self

    @model_validator(mode="after")
    def _pictures_can_shrink(self) -> Self:
        if not self.method.shrinks_pictures:
            return self
        if self.task.picture_size is None:
            raise ValueError(
                f"method {self.method.kind!r} takes smaller pictures, and task {self.task.kind!r} has none"
            )
        if any(not isinstance(constraint, MacsBudget) for constraint in constraints_of(self.budget)):
            raise ValueError(
                f"method {self.method.kind!r} takes smaller pictures, which leaves parameters and memory as they are, "
                f"and whose latency is not known: bound macs instead of {self.budget.label()}"
            )
        return self

    @model_validator(mode="after")
    def _the_task_multiplies(self) -> Self:
        if self.supernet.multiplied and not self.task.multiplies:
            raise ValueError(f"task {self.task.kind!r} has no supernets with 'width' or 'depth' multiplied")
        return self

    @model_validator(mode="after")
    def _a_fresh_head_is_trained(self) -> Self:
        if self.supernet.fresh_head and not self.task.has_head:
            raise ValueError(f"task {self.task.kind!r} has no classifier for 'supernet.fresh_head'")
        if self.supernet.fresh_head and self.pretrain is None:
            raise ValueError(
                "'supernet.fresh_head' draws a classifier that knows nothing, which methods would judge: give a "
                "'pretrain' recipe, which trains it"
            )
        return self

    def canonical(self) -> Self:
        """Return the trial without what cannot influence its result.

        A method that does not train in its search has no use for the search recipe, nor one that
        does not cut for a budget, and so on. Trials that differ only there are one trial.
        """
        unused: dict[str, Any] = {"method": self.method.canonical()}
        if not self.method.uses_budget:
            unused["budget"] = MacsBudget(target=1.0)
        if not (self.method.trains_in_search or self.method.adds_search_epochs):
            unused["search"] = None
        if not self.needs_pretrained:
            unused["pretrain"] = None
        if self.pipeline == "DMSnp":
            unused["supernet"] = self.supernet.model_copy(update={"weight_sharing": False})
        if self.pipeline == "DMSp-":
            unused["retrain"] = None
        return self.model_copy(update=unused)

    def with_content(self) -> Self:
        """Return the trial with digests of the files and folders that it names, as they are now."""
        content = self.task.local_content(self.supernet)
        if self.network != self.supernet:  # the method brings its own
            of_network = self.task.local_model(self.network)
            content |= {"method.model": of_network} if of_network else {}
        for stage in ("pretrain", "search", "retrain"):
            recipe: Recipe | None = getattr(self, stage)
            for number, path in enumerate(recipe.weight_files() if recipe is not None else ()):
                if digest := digest_of_path(str(path)):
                    content[f"{stage}.weights[{number}]"] = digest
        return self.model_copy(update={"content": content}) if content else self

    @property
    def network(self) -> SupernetSpec:
        """The network that is trained and cut: the supernet, unless the method brings its own."""
        return self.method.network(self.supernet)

    @property
    def retraining(self) -> Recipe | None:
        """How the searched network is trained: the retraining recipe, for a search's epochs more where asked for."""
        if self.retrain is None or self.search is None or not self.method.adds_search_epochs:
            return self.retrain
        return self.retrain.model_copy(update={"epochs": self.retrain.epochs + self.search.epochs})

    @property
    def needs_pretrained(self) -> bool:
        """Whether anything starts from the pretrained supernet, or learns from it."""
        return self.pipeline != "DMSnp" or (self.retrain is not None and self.retrain.needs_teacher())

    @property
    def course(self) -> str:
        """The pipeline, and the repair where there is one: only trials that agree in both are to be compared."""
        return self.pipeline if self.repair == "none" else f"{self.pipeline}, repair {self.repair}"

    @cached_property
    def hash(self) -> str:
        """Content hash of everything that decides the result; where it runs, and where data lie, does not."""
        return self.identity().content_hash()

    @property
    def former_hash(self) -> str | None:
        """The hash by which versions before knew the trial; None where it is the same.

        Also None where the trial names files of this machine: nobody knows what they were then.
        """
        former = self.as_written().model_copy(update={"resources": Resources()}).content_hash()
        return former if former != self.hash and not self.content else None

    def placed(self, roots: Mapping[str, str], workers: int | None) -> Self:
        """Return the trial with its data where a site has them; arguments as of `TaskSpec.placed`."""
        if not roots and workers is None:
            return self
        copy = self.model_copy(update={"task": self.task.placed(roots, workers)})
        copy._written_task = self.task
        return copy

    def as_written(self) -> Self:
        """Return the trial with its data where the suite has them."""
        return self.model_copy(update={"task": self._written_task}) if self._written_task is not None else self

    def identity(self) -> Self:
        """Return the trial with the usual values of all that does not change its result."""
        return self.model_copy(update={"resources": Resources(), "task": self.task.identity()})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the fields and change some, as pydantic does, but not the hash that was computed before."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("hash", None)
        return copy

    @property
    def name(self) -> str:
        """A readable name, unique as it ends in the hash; fit for a folder."""
        budget = self.budget.label().replace(" ", "")
        return f"{self.experiment}-{self.method.kind}-{budget}-s{self.seed}-{self.hash}".replace("%", "pct")
