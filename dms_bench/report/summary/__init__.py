"""A store in summary: how methods compare over all experiments and budgets together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dms_bench.errors import UserError
from dms_bench.report.board import Row
from dms_bench.report.format import number_of
from dms_bench.report.summary import sections
from dms_bench.report.summary.anytime import anytime
from dms_bench.report.summary.scores import EXPLAINED, Score, scorable, scored
from dms_bench.report.summary.sections import Section
from dms_bench.report.summary.tasks import Complete, complete, tasks_of

__all__ = ["Score", "Section", "Summary", "summarise"]


@dataclass(frozen=True)
class Summary:
    """What is said of all methods, over what, and what is left out."""

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    #: Runs of each method.
    runs: int
    sections: tuple[Section, ...]
    #: In sentences.
    left_out: tuple[str, ...]

    @property
    def lead(self) -> str:
        """What it is over."""
        methods, tasks = number_of(len(self.methods), "method"), number_of(len(self.tasks), "task")
        return f"{methods} over {tasks} (experiments x budgets), {number_of(self.runs, 'run')} of each."


def summarise(rows: Sequence[Row], score: Score = "relative") -> Summary:
    """Summarise a board over all its experiments and budgets.

    Args:
        rows: of a leaderboard, of one suite or of several.
        score: how measures of different tasks are brought to one scale (`summary.scores`).

    Raises:
        UserError: no two methods have answered a task with a seed in common.
    """
    tasks = tasks_of(rows)
    block = complete(tasks)
    if block is None:
        raise UserError("nothing to summarise: no two methods have finished a budget of an experiment with one seed")
    left_out = list(block.left_out)
    parts = [sections.average_ranks(block)]
    parts += [sections.improvement(block, place) for place in (block.dms, block.random) if place is not None]
    places = [index for index, task in enumerate(block.tasks) if scorable(task, score)]
    unscored = [task.name for index, task in enumerate(block.tasks) if index not in places]
    if unscored:
        needs = "a finished supernet" + (" ahead of random architectures" if score == "gap" else "")
        left_out.append(f"{number_of(len(unscored), 'task')}, without scores for want of {needs}: "
                        f"{', '.join(unscored[:6])}{', ...' if len(unscored) > 6 else ''}.")  # fmt: skip
    if places:
        parts += _scored(block, places, score)
    found = anytime(tasks, score)
    if found is not None and found.curves:
        parts.append(sections.best_so_far(found))
    runs = sum(values.shape[1] for values in block.values)
    return Summary(block.methods, tuple(task.name for task in block.tasks), runs, tuple(parts), tuple(left_out))


def _scored(block: Complete, places: Sequence[int], score: Score) -> list[Section]:
    tasks = tuple(block.tasks[place] for place in places)
    values = tuple(block.values[place] for place in places)
    block = Complete(block.methods, tasks, values, block.left_out)
    scores = [scored(task, own, score) for task, own in zip(tasks, values, strict=True)]
    parts = [sections.interquartile(block, scores, EXPLAINED[score])]
    parts.append(sections.performance(block, scores))
    area = sections.pareto_areas(block, scores)
    return [*parts, area] if area else parts
