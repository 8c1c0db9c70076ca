"""What the driver shows: a line per trial that ended and, on a terminal, a live table of those that run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dms_bench.tracking import TrialResult
from dms_bench.trial.meter import Attempt, attempts
from dms_bench.trial.work import Work

_MARKS = {"finished": "[green]done[/]", "failed": "[red]failed[/]", "stopped": "[yellow]stopped[/]"}


class Board:
    """The state of a run as people see it."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        #: Trials that are known to be run; more may be added.
        self.total = total
        #: How the trials that are over have ended.
        self.counts = dict.fromkeys(_MARKS, 0)
        self._running: dict[str, tuple[Work, float]] = {}

    @property
    def ended_trials(self) -> int:
        """Number of trials that are over."""
        return sum(self.counts.values())

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the live table while inside, if this is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=2, transient=True):
            yield

    def started(self, work: Work) -> None:
        """Note that work has begun, or has begun anew."""
        self._running[work.key] = (work, time.monotonic())

    def ended(self, work: Work, status: str, message: str = "") -> None:
        """Print the line of a trial that is `finished`, `failed` or `stopped`."""
        _, since = self._running.pop(work.key, (work, time.monotonic()))
        if work.kind == "trial":
            self.counts[status] += 1
        seconds = _duration(time.monotonic() - since)
        self.console.print(f"{_MARKS[status]} {escape(work.name)}  {escape(message)}  {seconds}", soft_wrap=True)

    def __rich__(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("trial", "stage", "epoch", "step", "last epoch", "time"):
            table.add_column(heading, no_wrap=True)
        for work, since in list(self._running.values()):
            table.add_row(escape(work.name), *_progress(work), _duration(time.monotonic() - since))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(1, self.total), completed=self.ended_trials, width=40),
            Text(f"{self.ended_trials} of {self.total} trials"),
        )
        return Group(table, bar)


def summary_of(result: TrialResult) -> str:
    """Say in a few words what a trial came to."""
    return f"{result.metric} {result.value:.4g}  {_short(result.macs)} MACs  {_short(result.params)} params"


def _progress(work: Work) -> tuple[str, str, str, str]:
    tried = attempts(work.folder)
    if not tried:
        return "waiting", "", "", ""
    last = tried[-1]
    epochs = _epochs(work, last)
    return last.stage, f"{last.epoch}/{epochs}" if epochs else "", str(last.steps or ""), _metrics(work, last)


def _epochs(work: Work, attempt: Attempt) -> int | None:
    recipe = getattr(work.trial, attempt.stage, None) if attempt.stage in ("pretrain", "search", "retrain") else None
    return recipe.epochs if recipe else None


def _metrics(work: Work, attempt: Attempt) -> str:
    shown = (f"val_{work.trial.task.metric}", "train_loss")
    return "  ".join(f"{name} {attempt.metrics[name]:.4g}" for name in shown if name in attempt.metrics)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(count: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g}{letter}"
    return f"{count:g}"
