"""Results of versions before, by whose hashes data lay at a place and were loaded by so many processes.

A trial's hash no longer depends on either. What is found under its former hash, in the suite's folder and in the
tracking store, is put under the present one, and counts as if it had always been there.
"""

from __future__ import annotations

from collections.abc import Iterable

from dms_bench import tracking
from dms_bench.config import Trial
from dms_bench.trial.storage import SuiteFolder, WorkFolder
from dms_bench.trial.work import search_hash, supernet_hash


def adopt(trials: Iterable[Trial], folder: SuiteFolder, uri: str, suite: str) -> int:
    """Put what is known of trials under their former hashes under the present ones; may be repeated.

    Args:
        trials: of the suite.
        folder: where the suite keeps its files; claimed by this process.
        uri: tracking URI.
        suite: name of the suite.

    Returns:
        Number of trials of which something was found.

    Raises:
        UserError: the store does not answer.
    """
    former: dict[str, str] = {}
    found = set()
    for trial in trials:
        if trial.former_hash is None:
            continue
        former[trial.former_hash] = trial.hash
        if _move(folder.trial(trial.former_hash), folder.trial(trial.hash)):
            found.add(trial.hash)
        for of, hash_ in ((folder.supernet, supernet_hash), (folder.search, search_hash)):
            before, now = hash_(trial, former=True), hash_(trial)
            if before is not None and now is not None:
                _move(of(before), of(now))
    return len(found | tracking.rename(uri, suite, former)) if former else 0


def _move(former: WorkFolder, present: WorkFolder) -> bool:
    if present.path.exists() or not former.path.exists():
        return False
    former.path.rename(present.path)
    return True
