"""Rehearse a suite: one trial of each kind in a process of its own, as Ray places trials, and see what comes of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dms_bench.config import Suite
from dms_bench.config.trial import Resources
from dms_bench.errors import TrialFailure
from dms_bench.runtime.node_memory import Crowd, NodeOutOfMemoryError
from dms_bench.trial.last_words import OUT_OF_MEMORY, cause
from dms_bench.trial.preflight import Preflight
from dms_bench.trial.rehearsal.findings import Finding, findings_of, missing
from dms_bench.trial.rehearsal.kinds import Kind, kinds
from dms_bench.trial.rehearsal.projection import Projection, project
from dms_bench.trial.rehearsal.record import Rehearsal, Rehearsed
from dms_bench.trial.rehearsal.reduced import one_worker
from dms_bench.trial.rehearsal.rehearse import measured_of
from dms_bench.trial.rehearsal.store import save
from dms_bench.trial.storage import CLAIM_SECONDS, SuiteFolder
from dms_bench.trial.work import Work

if TYPE_CHECKING:
    from rich.console import Console

#: Of a disk, this much is to be left.
_ROOM = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a rehearsal has shown."""

    rehearsal: Rehearsal
    projection: Projection
    findings: tuple[Finding, ...]
    #: Devices of the kind that trials run on, of which there are so many here, or were said to be.
    devices: float
    #: Bytes that the storage needs, and has left.
    disk: tuple[int, int]


def rehearse_suite(
    suite: Suite, profile: str | None, steps: int, device: str | None, devices: int | None, console: Console
) -> Outcome:
    """Rehearse a suite, and keep what was measured beside its trials.

    Args:
        suite: what is to be run.
        profile: what it is called; None for the suite as it stands.
        steps: of every pass over data, after one that warms up.
        device: name of the accelerator that the suite is to run on, where it is another than here.
        devices: how many of them; those that are here unless it is given.
        console: where to say what is done.

    Raises:
        UserError: the suite cannot be read, or Ray does not start.
    """
    from dms_bench import tracking
    from dms_bench.runtime.session import on_a_cluster

    uri, environment = tracking.resolve_uri(suite.tracking), tracking.environment()
    folder = SuiteFolder.of(suite.storage, suite.name)
    there = kinds(suite)
    of_suite = sum(kind.count for kind in there)
    console.print(f"{suite.name}: {of_suite} trials of {len(there)} kind{'s' * (len(there) != 1)} to rehearse")
    scratch = SuiteFolder(folder.path / "rehearsal")
    with scratch.claimed(CLAIM_SECONDS if on_a_cluster() else 0.0):
        possible, refused = _checked(there)
        stage = _Stage(scratch, uri, steps, environment.get("git_commit", ""), console)
        found = stage.rehearse(possible) if possible else {}
    rehearsal = Rehearsal(
        suite=suite.name,
        profile=profile,
        machine=environment.get("gpus") or f"{environment['cpu']} {environment['cores']} cores",
        kinds=list(found.values()),
    )
    save(rehearsal, folder)
    projection = project(there, found)
    at_hand = float(devices) if devices is not None else stage.devices
    disk = _disk(folder, projection, at_hand)
    findings = [*refused, *findings_of(found.values(), device), *_full(disk, suite)]
    return Outcome(rehearsal, projection, tuple(findings), at_hand, disk)


def _checked(there: Sequence[Kind]) -> tuple[list[Kind], list[Finding]]:
    """Return the kinds of which some trials can run, of those alone, and what is refused of the others."""
    preflight, possible = Preflight(), []
    for kind in there:
        fine = []
        for trial, times in kind.trials:
            before = len(preflight.refused)
            if preflight.check_data(trial):
                preflight.check_recipes(trial)
                preflight.check_networks(trial)
            if len(preflight.refused) == before:
                fine.append((trial, times))
        if fine:
            possible.append(replace(kind, trials=tuple(fine)))
    by_text: dict[tuple[str, str], dict[str, None]] = {}
    for what, experiment, text in preflight.refused:
        for line in text.splitlines():
            by_text.setdefault((what, line.removeprefix(f"experiment {experiment!r}: ")), {})[experiment] = None
    return possible, [missing(list(names), what, line) for (what, line), names in by_text.items()]


class _Stage:
    """Where kinds are rehearsed (`hooks.Observer`)."""

    def __init__(self, folder: SuiteFolder, uri: str, steps: int, commit: str, console: Console) -> None:
        self._folder, self._uri, self._steps, self._commit, self._console = folder, uri, steps, commit, console
        self._crowd = Crowd()
        self._rehearsed: dict[str, Rehearsed] = {}
        #: Devices that there are of the kind that trials run on.
        self.devices = 0.0

    def rehearse(self, there: Sequence[Kind]) -> dict[str, Rehearsed]:
        """Return what came of each kind, by its key.

        Raises:
            UserError: Ray does not start.
            TrialFailure: its processes died.
        """
        from dms_bench.runtime.nodes import RayLostError, check_nodes
        from dms_bench.runtime.schedule import run_all
        from dms_bench.runtime.session import ray_session

        works: list[Work] = []
        while not works or self._crowd.left(works):
            try:
                with ray_session():
                    check_nodes(self._folder, self._uri)
                    if not works:
                        works = [self._work(kind) for kind in there]
                    run_all(self._crowd.left(works), self._folder.scratch, self, self._crowd.most, once=True)
                break
            except RayLostError:
                raise TrialFailure("Ray's own processes died: rehearse again") from None
            except NodeOutOfMemoryError:
                for work in self._crowd.thin(1):
                    self.ended(work, died=True, ray_message=OUT_OF_MEMORY)
                self.say(f"a node ran out of memory; going on with at most {self._crowd.most} at once")
        return self._rehearsed

    def _work(self, kind: Kind) -> Work:
        """Return the rehearsal of a kind, in a folder of its own, on what there is here."""
        from dms_bench.runtime.nodes import resources_here, room

        nodes = resources_here()
        trial, asked = kind.example, kind.example.resources
        unit = "GPU" if any(node.get("GPU") for node in nodes) and asked.gpus else "CPU"
        self.devices = max(self.devices, sum(node.get(unit, 0.0) for node in nodes))
        enough = room(nodes, asked) > 0
        if not enough:
            trial = one_worker(trial, *(max(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")))
            self.say(
                f"{kind.name}: {_resources(asked)} asked for, which are not here; one worker's part is rehearsed on "
                f"{_resources(trial.resources)}"
            )
        folder = SuiteFolder(self._folder.path / kind.key)
        shutil.rmtree(folder.path, ignore_errors=True)
        work = Work(
            kind="rehearsal",
            trial=trial,
            suite_folder=folder.path,
            uri=self._uri,
            experiment_id="",
            parent_id="",
            environment={},
            steps=self._steps,
        )
        self._rehearsed[kind.key] = Rehearsed(
            key=kind.key,
            name=kind.name,
            experiments=kind.experiments,
            trials=kind.count,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            steps=self._steps,
            commit=self._commit,
            workers_for_one=1 if enough else asked.workers,
            unit="pictures" if trial.task.picture_size is not None else "samples",
        )
        return work

    def started(self, work: Work) -> None:
        """Take notice that a kind is under way."""
        self._crowd.started(work)

    def ended(self, work: Work, died: bool, ray_message: str = "") -> None:
        """Take up what was measured, and why it ended where it failed."""
        self._crowd.ended(work)
        failure = work.folder.failure()
        if died and failure is None:
            failure, _ = cause(work.folder, ray_message)
            failure = f"its process died: {failure}"
        key = work.suite_folder.name
        measured = measured_of(work.folder).model_dump()
        kind = Rehearsed.model_validate(self._rehearsed[key].model_dump() | measured | {"failure": failure})
        self._rehearsed[key] = kind
        seconds = sum(stage.seconds for stage in kind.stages)
        said = "rehearsed" if failure is None else "failed"
        self.say(f"{said} {kind.name}  {failure or f'{seconds:.0f} s'}")
        if failure is None:  # what a failed one wrote may say more
            shutil.rmtree(work.suite_folder, ignore_errors=True)

    def say(self, message: str) -> None:
        """Tell the user."""
        self._console.print(message, markup=False, soft_wrap=True)


def _resources(asked: Resources) -> str:
    each = f"{asked.gpus:g} GPUs" if asked.gpus else f"{asked.cpus:g} processors"
    return f"{asked.workers} worker{'s' * (asked.workers > 1)} with {each}"


def _disk(folder: SuiteFolder, projection: Projection, devices: float) -> tuple[int, int]:
    """Return what the storage needs, and what is left there."""
    least = min((piece.devices for piece in projection.pieces), default=1.0)
    return projection.disk_bytes(max(1, int(devices / least))), shutil.disk_usage(folder.path).free


def _full(disk: tuple[int, int], suite: Suite) -> list[Finding]:
    needed, left = disk
    if needed <= (1 - _ROOM) * left:
        return []
    experiments = tuple(experiment.name for experiment in suite.experiments)
    text = f"checkpoints and networks need {needed / 1e9:.1f} GB, {suite.storage!r} has {left / 1e9:.1f} GB left"
    return [Finding("does not fit", experiments, "storage", text, "take another --storage, or make room")]
