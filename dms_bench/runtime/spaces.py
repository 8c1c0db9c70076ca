"""The search space of a supernet's specification, found once per process, as it takes seconds."""

from __future__ import annotations

import json
from functools import lru_cache

from torch import Tensor, nn

from dms_bench.errors import UserError
from dms_bench.scaling import Coarse, CoarseError, SearchSpace, find_space
from dms_bench.spec.plugins import TASKS, parse_plugin
from dms_bench.spec.supernet import SpaceSpec, SupernetSpec
from dms_bench.spec.task import TaskSpec


def space_of(task: TaskSpec, supernet: SupernetSpec) -> SearchSpace:
    """Return what may be searched of `supernet`; it depends on the structure, not on weights or seed."""
    return _find(task.model_dump_json(), untrained(supernet).model_dump_json())


def untrained(supernet: SupernetSpec) -> SupernetSpec:
    """Return the same supernet with random weights."""
    return supernet.model_copy(update={"pretrained": False, "checkpoint": None, "weight_sharing": False})


@lru_cache(maxsize=4)
def _find(task_json: str, supernet_json: str) -> SearchSpace:
    spec = parse_plugin(TASKS, json.loads(task_json))
    supernet = SupernetSpec.model_validate_json(supernet_json)
    task = spec.load_implementation()(spec, 0)
    return find_specified(task.build(supernet), task.example_input(), supernet.space)


def find_specified(model: nn.Module, example: Tensor, wanted: SpaceSpec) -> SearchSpace:
    """Find and prove what a specification wants to be searched of a network.

    Raises:
        UserError: it does not fit the network.
    """
    coarse = [Coarse(**rule.model_dump()) for rule in wanted.coarse]
    try:
        return find_space(
            model,
            example,
            width=wanted.width,
            depth=wanted.depth,
            exclude=wanted.exclude,
            coarse=coarse,
            round_to=wanted.round_to,
        )
    except CoarseError as error:
        raise UserError(f"supernet.space.coarse: {error}") from error
