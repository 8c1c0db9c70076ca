"""What the driver hands to Ray: one trial, or the training of a supernet that trials share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dms_bench.config.trial import Trial
from dms_bench.trial.storage import SuiteFolder, WorkFolder


class Work(BaseModel):
    """A unit of work, and where its results go. Travels as JSON."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["trial", "supernet"]
    trial: Trial
    suite_folder: Path
    #: Tracking URI, experiment and parent run.
    uri: str
    experiment_id: str
    parent_id: str
    environment: dict[str, str]
    #: Epochs are reported to a scheduler, which may end the trial early.
    scheduled: bool = False

    @property
    def key(self) -> str:
        """Hash that names the work's folder."""
        if self.kind == "trial":
            return self.trial.hash
        shared = supernet_hash(self.trial)
        assert shared is not None
        return shared

    @property
    def name(self) -> str:
        """What people see."""
        return self.trial.name if self.kind == "trial" else f"{self.trial.experiment}-pretrain-s{self.trial.seed}"

    @property
    def folder(self) -> WorkFolder:
        """Where the work is done."""
        suite = SuiteFolder(self.suite_folder)
        return suite.trial(self.key) if self.kind == "trial" else suite.supernet(self.key)

    @property
    def supernet(self) -> WorkFolder | None:
        """Folder of the pretrained supernet that the trial starts or learns from, if it shares one."""
        shared = supernet_hash(self.trial)
        return SuiteFolder(self.suite_folder).supernet(shared) if shared else None


def supernet_hash(trial: Trial) -> str | None:
    """Return the hash of the supernet's training, equal for all trials that can share it; None if there is none."""
    if trial.pretrain is None or not trial.needs_pretrained:
        return None
    content = trial.model_dump(mode="json", include={"task", "pretrain", "seed"})
    content["supernet"] = trial.network.model_dump(mode="json")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
