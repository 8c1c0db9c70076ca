"""Trials keep their hashes, by which a run is resumed, unless somebody means to change what a suite computes.

`python -m tests.unit.test_trial_hashes` writes `trial_hashes.csv` anew.
"""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dms_bench.config import load_suite, profile_names, resolve
from dms_bench.config.document import read_document
from dms_bench.config.layers import profiled

ROOT = Path(__file__).absolute().parents[2]
KNOWN = Path(__file__).absolute().with_name("trial_hashes.csv")

#: Suite file, profile, smoke or not, number of trials, digest of all their hashes in order.
Row = tuple[str, str, str, str, str]


def variants(path: Path) -> Iterator[tuple[str | None, bool]]:
    """Yield the profiles of a suite file, each at full size and, where it has one, at smoke size."""
    document = read_document(path)
    for profile in (None, *profile_names(path)):
        yield profile, False
        if "smoke" in profiled(document, profile):
            yield profile, True


def rows() -> Iterator[Row]:
    """Yield a row for every variant of every shipped suite."""
    for path in sorted((ROOT / "benchmarks").rglob("*.yaml")):
        if "experiments" not in read_document(path):
            continue  # published figures, lists of networks
        for profile, smoke in variants(path):
            hashes = [trial.hash for trial in resolve(load_suite(path, profile=profile, smoke=smoke))]
            digest = hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]
            size = "smoke" if smoke else "whole"
            yield str(path.relative_to(ROOT)), profile or "", size, str(len(hashes)), digest


def test_every_trial_of_every_shipped_suite_has_the_hash_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where none of the files lie that some suites name: their content counts, too
    with KNOWN.open() as file:
        known = [tuple(row) for row in csv.reader(file)]
    assert list(rows()) == known


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    with KNOWN.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows())
