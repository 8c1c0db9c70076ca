"""Data where a site has them: what belongs to a machine, and to no experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from dms_bench.config.base import Spec

DataSpec = TypeVar("DataSpec", bound=Spec)


def placed(data: DataSpec, label: str, roots: Mapping[str, str], workers: int | None) -> DataSpec:
    """Return data with the folder and the loader's workers of a site, where they have such fields.

    Args:
        data: of a task.
        label: its name on boards, which it keeps (`called`) where the folder has another one.
        roots: folders, by such names.
        workers: processes that load data; None leaves the data their own.
    """
    fields = type(data).model_fields
    changed: dict[str, object] = {}
    root = roots.get(label)
    if root is not None and "root" in fields:
        changed["root"] = root
        if "called" in fields and folder_name(root) != label:
            changed["called"] = label
    if workers is not None and "workers" in fields:
        changed["workers"] = workers
    return data.model_copy(update=changed) if changed else data


def folder_name(root: str) -> str:
    """Return the last part of a folder's path."""
    return root.rstrip("/").rpartition("/")[2]
