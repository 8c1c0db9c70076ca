"""What belongs to a place and to no experiment: where data lie, what trials run on, where results go."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from dms_bench.config.base import Spec
from dms_bench.config.document import read_document
from dms_bench.config.merge import merged
from dms_bench.config.problems import problems_of
from dms_bench.errors import UserError

if TYPE_CHECKING:
    from dms_bench.config.changes import Change


class SiteData(Spec):
    """Where data lie, and who loads them."""

    roots: dict[str, str] = Field(default_factory=dict)
    """Folders of data, by the data's names on boards: `imagenet`, `coco`, `fashion_mnist`. Data that are not named stay
    where the suite has them."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode and augment, per worker of a trial. null: what the suite says."""


class SiteResources(Spec):
    """What every trial runs on; what is not given is the suite's."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes that train one trial together."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """Processors of each worker."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of each worker."""
    placement: Literal["pack", "spread", "strict_pack", "strict_spread"] | None = None
    """How several workers are spread over nodes."""


class Site(Spec):
    """What a site file says. It is laid over suites, and under `--set`, `--storage` and `--tracking`."""

    data: SiteData = SiteData()
    """Where data lie, and who loads them."""
    resources: SiteResources = SiteResources()
    """What every trial runs on."""
    storage: str | None = None
    """Folder for checkpoints and finished trials. null: what the suite says."""
    tracking: str | None = None
    """MLflow tracking URI. null: what the suite says."""

    def over(self, suite: dict[str, Any]) -> dict[str, Any]:
        """Return the content of a suite with all of this but the data laid over it."""
        given = {"storage": self.storage, "tracking": self.tracking}
        laid = suite | {field: value for field, value in given.items() if value is not None}
        resources = self.resources.model_dump(exclude_none=True)
        if resources and isinstance(suite.get("experiments"), list):
            laid["experiments"] = [
                merged(entry, {"resources": resources}) if isinstance(entry, dict) else entry
                for entry in suite["experiments"]
            ]
        return laid

    def data_under(self, changes: Iterable[Change]) -> SiteData:
        """Return what it says of data, but for what `--set` says as well."""
        paths = [".".join(change.path) for change in changes]
        kept = SiteData.model_fields.keys() - {
            mine
            for mine, field in (("roots", "task.data.root"), ("workers", "task.data.workers"))
            if any(f"{field}.".startswith(f"{path}.") for path in paths)
        }
        return SiteData(**{field: getattr(self.data, field) for field in kept})


#: A site about which there is nothing to say.
NOWHERE = Site()


def own_site_file() -> Path | None:
    """Return the user's own site file on this machine, where there is one."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    own = Path(base, "dms_bench", "site.yaml")
    return own if own.is_file() else None


def read_site(path: Path) -> Site:
    """Read a site file.

    Raises:
        UserError: it cannot be read, or is not valid, with a line for each mistake.
    """
    content = read_document(path)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: a site file is a mapping with some of {', '.join(Site.model_fields)}")
    try:
        return Site.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems_of(error, content))) from None
