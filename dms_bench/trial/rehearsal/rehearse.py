"""One trial, rehearsed: its own code, a few steps of every pass over data, one epoch of every training."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from dms_bench.pace import watched_by
from dms_bench.tasks import make_task
from dms_bench.trial.group import WorkerGroup
from dms_bench.trial.rehearsal.record import Measured
from dms_bench.trial.rehearsal.watch import Onlooker
from dms_bench.trial.run import pretrain_supernet, run_trial, search_in_one
from dms_bench.trial.storage import SuiteFolder, WorkFolder, write_atomic
from dms_bench.trial.work import Work

_FILE = "rehearsal.json"


def rehearse(work: Work, group: WorkerGroup) -> None:
    """Rehearse a trial and what it shares with others; every worker of its group calls this.

    What is known so far is in the work's folder at every moment, so that a process that dies leaves it behind.

    Raises:
        UserError: the specification cannot be carried out.
        TrialFailure: as of `run_trial`.
    """
    method, times = work.trial.method.rehearsed()
    trial, hardware = work.trial.model_copy(update={"method": method}), group.hardware()
    measured = Measured(device=hardware.device, kind=hardware.kind, devices=hardware.devices)

    def changed() -> None:
        measured.stages, measured.at = onlooker.stages, onlooker.at
        if group.leads:
            write_atomic(work.folder.path / _FILE, measured.model_dump_json())

    # What a process imports it imports once, and a run's processes are used again: no trial's time.
    make_task(trial.task, trial.seed)
    trial.method.load_implementation()
    onlooker = Onlooker(work.steps, group.device, times, changed)
    latency = SuiteFolder(work.suite_folder).latency
    with watched_by(onlooker):
        if work.supernet is not None:
            with onlooker.of("supernet"):
                pretrain_supernet(trial, work.supernet, group)
        if work.search is not None:
            with onlooker.of("search"):
                search_in_one(trial, work.search, group, supernet=work.supernet, latency=latency)
        run_trial(trial, work.folder, group, supernet=work.supernet, searched=work.search, latency=latency)
    if work.supernet is not None:
        measured.kept_bytes["supernet"] = _size(work.supernet.path)
    if work.search is not None:
        measured.kept_bytes["search"] = _size(work.search.path)
    measured.kept_bytes["trial"] = _size(work.folder.path)
    changed()


def measured_of(folder: WorkFolder) -> Measured:
    """Return what a rehearsal has measured; nothing where its process died before it began."""
    try:
        return Measured.model_validate_json((folder.path / _FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return Measured()


def _size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
