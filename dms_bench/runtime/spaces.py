"""The search space of a supernet's specification, found once per process, as it takes seconds."""

from __future__ import annotations

import json
from functools import lru_cache

from dms_bench.scaling import SearchSpace, find_space
from dms_bench.spec.plugins import TASKS, parse_plugin
from dms_bench.spec.supernet import SupernetSpec
from dms_bench.spec.task import TaskSpec


def space_of(task: TaskSpec, supernet: SupernetSpec) -> SearchSpace:
    """Return what may be searched of `supernet`; it depends on the structure, not on weights or seed."""
    return _find(task.model_dump_json(), untrained(supernet).model_dump_json())


def untrained(supernet: SupernetSpec) -> SupernetSpec:
    """Return the same supernet with random weights."""
    return supernet.model_copy(update={"pretrained": False, "checkpoint": None})


@lru_cache(maxsize=4)
def _find(task_json: str, supernet_json: str) -> SearchSpace:
    spec = parse_plugin(TASKS, json.loads(task_json))
    supernet = SupernetSpec.model_validate_json(supernet_json)
    task = spec.load_implementation()(spec, 0)
    wanted = supernet.space
    return find_space(
        task.build(supernet), task.example_input(), width=wanted.width, depth=wanted.depth, exclude=wanted.exclude
    )
