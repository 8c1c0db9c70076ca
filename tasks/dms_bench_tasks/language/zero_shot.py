"""Zero-shot accuracy by EleutherAI's harness (lm-eval), on its own tasks and on items of the task's own text."""

from __future__ import annotations

import contextlib
import io
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dms_bench import pace
from dms_bench.errors import UserError
from dms_bench.scaling.modules.modes import modes_kept
from dms_bench_tasks.language.items import next_line_items, write_task
from dms_bench_tasks.language.library import one_line
from dms_bench_tasks.language.plain import plain
from dms_bench_tasks.language.spec import NEXT_LINE, AlpacaData, LanguageTask
from dms_bench_tasks.language.text import documents
from dms_bench_tasks.language.tokenizer import tokenizer_of

#: Tasks that are measured by accuracy with lengths taken out, as LLM-Pruner does; the others by plain accuracy.
_BY_LENGTH = ("hellaswag", "arc_challenge", "openbookqa")
_BATCH = 32


def check(task: LanguageTask) -> None:
    """Make sure that the harness knows every task and that its data are there.

    Raises:
        UserError: they are not.
    """
    for name in task.zero_shot:
        if name == NEXT_LINE:
            if not _items(task):
                raise UserError("zero_shot 'next_line': the test text yields no items")
            continue
        with _quiet():
            from lm_eval.tasks import TaskManager

            try:
                TaskManager().load([name])
            except Exception as error:  # of data sets that cannot be had
                raise UserError(f"zero_shot {name!r}: {one_line(error)}") from error


def accuracies(model: nn.Module, task: LanguageTask, device: torch.device) -> dict[str, float]:
    """Return `<task>` in percent and `<task>_version` for each zero-shot task, and their mean as `zero_shot`."""
    if not task.zero_shot:
        return {}
    with tempfile.TemporaryDirectory() as folder, modes_kept(model), _quiet():
        if NEXT_LINE in task.zero_shot:
            write_task(Path(folder), _items(task), NEXT_LINE)
        output = _run(model, task, device, folder)
    results: dict[str, float] = {}
    for name in task.zero_shot:
        measure = "acc_norm" if name in _BY_LENGTH else "acc"
        results[name] = 100 * float(output["results"][name][f"{measure},none"])
    mean = sum(results.values()) / len(results)
    versions = {f"{name}_version": float(output["versions"][name]) for name in task.zero_shot}
    return results | versions | {"zero_shot": mean}


def _run(model: nn.Module, task: LanguageTask, device: torch.device, folder: str) -> Any:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # Reading the descriptions of all of the harness's own tasks takes seconds.
    manager = TaskManager(include_path=folder, include_defaults=set(task.zero_shot) != {NEXT_LINE})
    lm = plain(model).eval()
    wrapped = HFLM(
        pretrained=lm, backend="causal", tokenizer=tokenizer_of(task), batch_size=_BATCH, device=str(device),
        max_length=lm.config.max_position_embeddings,
    )  # fmt: skip
    watch, limit = pace.current(), task.zero_shot_limit
    if watch is not None:
        limit = min(watch.few(), limit or watch.few())
    output = simple_evaluate(
        model=wrapped, tasks=list(task.zero_shot), num_fewshot=0, limit=limit, bootstrap_iters=0,
        log_samples=False, task_manager=manager,
    )  # fmt: skip
    assert output is not None
    if watch is not None:
        counts = output["n-samples"].values()
        most = task.zero_shot_limit or max(count["original"] for count in counts)
        whole = sum(min(count["original"], most) for count in counts)
        watch.worked_on(sum(count["effective"] for count in counts), whole)
    return output


@lru_cache(maxsize=2)
def _items(task: LanguageTask) -> tuple[dict[str, Any], ...]:
    assert not isinstance(task.data, AlpacaData)
    return tuple(next_line_items(documents(task.data, "test")))


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the harness's own printing off the console."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
