"""Results of another store taken up in this one, so that several machines fill one board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dms_bench.tracking import names
from dms_bench.tracking.reading import Record, read_trials
from dms_bench.tracking.store import answering, connect, resolve_uri
from dms_bench.tracking.suite_run import experiment_of
from dms_bench.tracking.trial_run import log_in_batches


@dataclass(frozen=True)
class Imported:
    """What became of the rows of a file."""

    #: Trials that are in the store now, by suite.
    taken: dict[str, int]
    #: Trials that it had already, with the same value and with another one; its own stay.
    known: int
    differing: tuple[str, ...]


def take_up(uri: str, records: Sequence[Record], source: str) -> Imported:
    """Make a run of every trial that the store does not have, under a parent run for each suite.

    A finished trial takes the place of one that failed, or was stopped, in this store.

    Args:
        uri: tracking URI; a SQLite file that is missing is made.
        records: as a file has them.
        source: its name, for the parent run.

    Raises:
        UserError: the store does not answer, or a suite of that name was deleted in it.
    """
    uri = resolve_uri(uri)
    client = connect(uri, create=True)
    ours = {(record.suite, record.hash): record for record in _ended(read_trials(uri, {r.suite for r in records}))}
    taken: Counter[str] = Counter()
    known, differing = 0, []
    parents: dict[str, tuple[str, str]] = {}
    for record in records:
        mine = ours.get((record.suite, record.hash))
        if mine is not None and (mine.status == names.FINISHED or record.status != names.FINISHED):
            known += mine.value == record.value
            differing += [record.name] if mine.value != record.value else []
            continue
        with answering(uri):
            if record.suite not in parents:
                parents[record.suite] = _parent(client, uri, record.suite, source)
            _write(client, record, *parents[record.suite])
        ours[record.suite, record.hash] = record
        taken[record.suite] += 1
    with answering(uri):
        for _, parent in parents.values():
            client.set_terminated(parent, names.MLFLOW_STATUS[names.FINISHED])
    return Imported(dict(taken), known, tuple(differing))


def _ended(records: Sequence[Record]) -> list[Record]:
    """Return those that have come to an end, a finished one of a trial last."""
    ended = [record for record in records if record.status != names.RUNNING]
    return sorted(ended, key=lambda record: record.status == names.FINISHED)


def _parent(client: Any, uri: str, suite: str, source: str) -> tuple[str, str]:
    experiment = experiment_of(client, uri, suite)
    tags = {names.SUITE: suite, names.STATUS: names.FINISHED, "mlflow.note.content": f"Imported from {source}."}
    return experiment, client.create_run(experiment, tags=tags, run_name=f"import of {source}").info.run_id


def _write(client: Any, record: Record, experiment: str, parent: str) -> None:
    tags = record.tags | {names.SUITE: record.suite, names.PARENT_RUN: parent}
    # The status comes last: a run that says `finished` has everything.
    status = tags.pop(names.STATUS)
    run = client.create_run(experiment, start_time=record.start, tags=tags, run_name=record.name)
    log_in_batches(client, run.info.run_id, record.params, record.metrics)
    client.set_tag(run.info.run_id, names.STATUS, status)
    client.set_terminated(run.info.run_id, names.MLFLOW_STATUS[status])
