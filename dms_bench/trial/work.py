"""What the driver hands to Ray: one trial, a rehearsal, or what trials share: the training of a supernet, a search."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dms_bench.config.trial import Trial
from dms_bench.trial.storage import StageFolder, SuiteFolder, WorkFolder

Kind = Literal["trial", "supernet", "search", "rehearsal"]


class Work(BaseModel):
    """A unit of work, and where its results go. Travels as JSON."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    trial: Trial
    suite_folder: Path
    #: Tracking URI, experiment and parent run.
    uri: str
    experiment_id: str
    parent_id: str
    environment: dict[str, str]
    #: The tracking store had no run of the trial when the suite began.
    new: bool = False
    #: Epochs are reported to a scheduler, which may end the trial early.
    scheduled: bool = False
    #: Of a rehearsal: steps of every pass over data.
    steps: int = 0

    @property
    def key(self) -> str:
        """Hash that names the work's folder."""
        if self.kind == "trial":
            return self.trial.hash
        if self.kind == "rehearsal":  # its folder has the name of the kind of trials
            return self.suite_folder.name
        shared = supernet_hash(self.trial) if self.kind == "supernet" else search_hash(self.trial)
        assert shared is not None
        return shared

    @property
    def name(self) -> str:
        """What people see."""
        trial = self.trial
        if self.kind == "supernet":
            return f"{trial.experiment}-pretrain-s{trial.seed}"
        if self.kind == "search":
            return f"{trial.experiment}-{trial.method.kind}-in-one-s{trial.seed}"
        return trial.name

    @property
    def folder(self) -> WorkFolder:
        """Where the work is done."""
        suite = SuiteFolder(self.suite_folder)
        folders = {"trial": suite.trial, "rehearsal": suite.trial, "supernet": suite.supernet, "search": suite.search}
        return folders[self.kind](self.key)

    @property
    def supernet(self) -> WorkFolder | None:
        """Folder of the pretrained supernet that the trial starts or learns from, if it shares one."""
        shared = supernet_hash(self.trial)
        return SuiteFolder(self.suite_folder).supernet(shared) if shared else None

    @property
    def search(self) -> WorkFolder | None:
        """Folder of the search that finds the trial's network among those for other budgets, if there is one."""
        shared = search_hash(self.trial)
        return SuiteFolder(self.suite_folder).search(shared) if shared else None

    @property
    def shared(self) -> list[tuple[str, StageFolder, WorkFolder]]:
        """What others may compute for the work, in the order in which it is needed: its name, stage and folder."""
        stages = []
        if self.supernet is not None and self.kind != "supernet":
            stages.append(("training of its supernet", self.supernet.stage("pretrain"), self.supernet))
        if self.search is not None and self.kind == "trial":
            stages.append(("search for its budget and others", self.search.stage("search"), self.search))
        return stages


def supernet_hash(trial: Trial, *, former: bool = False) -> str | None:
    """Return the hash of the supernet's training, equal for all trials that can share it; None if there is none.

    Args:
        trial: one of them.
        former: the hash in versions before, in which it depended on where data lie.
    """
    if trial.pretrain is None or not trial.needs_pretrained:
        return None
    known = trial.as_written() if former else trial.identity()
    content = known.model_dump(mode="json", include={"task", "pretrain", "seed", "version"})
    content["supernet"] = trial.network.model_dump(mode="json")
    return _hash(content | _local(trial, ("search.", "retrain.")))


def search_hash(trial: Trial, *, former: bool = False) -> str | None:
    """Return the hash of a search for several budgets, equal for the trials of each; None for a search of its own.

    Args:
        trial: one of them.
        former: the hash in versions before, in which it depended on where data lie.
    """
    if not trial.method.searched_budgets:
        return None
    apart = {"experiment", "budget", "retrain", "repair", "resources", "content"}
    known = trial.as_written() if former else trial.identity()
    return _hash(known.model_dump(mode="json", exclude=apart) | _local(trial, ("retrain.",)))


def _local(trial: Trial, unused: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return the digests of files that shared work depends on, where there are any; not those of some stages."""
    content = {field: digest for field, digest in trial.content.items() if not field.startswith(unused)}
    return {"content": content} if content else {}


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
