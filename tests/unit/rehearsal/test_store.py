"""Rehearsals are kept by profile and machine, and the newest of each kind is what counts."""

from __future__ import annotations

from pathlib import Path

from dms_bench.trial.rehearsal.record import Rehearsal, Rehearsed
from dms_bench.trial.rehearsal.store import known, save
from dms_bench.trial.storage import SuiteFolder


def kind(key: str, day: int, failure: str | None = None) -> Rehearsed:
    date = f"2026-01-{day:02d}"
    return Rehearsed(key=key, name=key, experiments=["e"], trials=1, date=date, failure=failure)


def rehearsal(*kinds: Rehearsed, machine: str = "EPYC 7B13, 2 cores", profile: str | None = None) -> Rehearsal:
    return Rehearsal(suite="s", profile=profile, machine=machine, kinds=list(kinds))


def test_the_newest_of_each_kind_counts(tmp_path: Path):
    folder = SuiteFolder(tmp_path)
    assert known(folder) == {}
    save(rehearsal(kind("a", 1), kind("b", 1)), folder)
    save(rehearsal(kind("a", 3)), folder)  # of a part of the suite: b is kept
    save(rehearsal(kind("a", 2), kind("b", 2), kind("c", 2, "it died"), machine="A100", profile="full"), folder)
    assert [path.name for path in sorted((tmp_path / "rehearsals").iterdir())] == [
        "default-epyc-7b13-2-cores.json",
        "full-a100.json",
    ]
    found = known(folder)
    assert {key: (rehearsed.date[-2:], machine) for key, (rehearsed, machine) in found.items()} == {
        "a": ("03", "EPYC 7B13, 2 cores"),
        "b": ("02", "A100"),
    }


def test_what_is_no_rehearsal_is_passed_over(tmp_path: Path, caplog):
    folder = SuiteFolder(tmp_path)
    save(rehearsal(kind("a", 1)), folder)
    (tmp_path / "rehearsals" / "odd.json").write_text("{}")
    assert set(known(folder)) == {"a"}
    assert "odd.json is no rehearsal of this version" in caplog.text
