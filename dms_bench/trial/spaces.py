"""The search space of a supernet's specification: found and proven once, then kept on disk, as it takes seconds.

Spaces lie in `$XDG_CACHE_HOME/dms_bench/spaces` (`~/.cache/...`), one file each, named after everything that they
depend on: task, supernet, what of it is searched, and the code that finds it. Files that cannot be read are
written anew; a cache that cannot be written is none.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dms_bench.scaling
from dms_bench.config.own_network import is_own, maker_of
from dms_bench.config.plugins import TASKS, parse_plugin
from dms_bench.config.supernet import SpaceSpec, SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.errors import UserError, nearest
from dms_bench.scaling import Coarse, CoarseError, SearchSpace, find_space
from dms_bench.scaling.example import AnyExample, Example
from dms_bench.scaling.shapes import example_of_shapes
from dms_bench.tasks import make_task
from dms_bench.trial.space_file import DamagedError, from_bytes, to_bytes
from dms_bench.trial.storage import write_atomic

_log = logging.getLogger(__name__)


def space_of(task: TaskSpec, supernet: SupernetSpec) -> SearchSpace:
    """Return what may be searched of `supernet`; it depends on the structure, not on weights or seed.

    Raises:
        UserError: the supernet cannot be built, or what is wanted to be searched does not fit it.
    """
    # The file that describes a network may come to say something else.
    local = task.local_model(untrained(supernet)) or ""
    return _find(task.model_dump_json(), untrained(supernet).model_dump_json(), local)


def untrained(supernet: SupernetSpec) -> SupernetSpec:
    """Return the same supernet with random weights."""
    return supernet.model_copy(
        update={"pretrained": False, "checkpoint": None, "fresh_head": False, "weight_sharing": False}
    )


@lru_cache(maxsize=4)
def _find(task_json: str, supernet_json: str, local: str) -> SearchSpace:
    spec = parse_plugin(TASKS, json.loads(task_json))
    assert isinstance(spec, TaskSpec)
    supernet = SupernetSpec.model_validate_json(supernet_json)

    def find() -> SearchSpace:
        task = make_task(spec, 0)
        return find_specified(task.build(supernet), task.example_input(), supernet.space)

    if ":" in supernet.model:  # a name on a server or in a folder, behind which the network may change
        return find()
    content = {"task": json.loads(task_json), "supernet": json.loads(supernet_json)}
    config = Path(os.path.expanduser(supernet.model), "config.json")
    if os.path.isfile(config):  # a folder of transformers
        content["config"] = [config.read_text(), version("transformers")]
    elif local:
        content["local"] = local
    return cached(content, type(spec), find)[0]


def cached(content: dict[str, Any], task: type[TaskSpec], find: Callable[[], SearchSpace]) -> tuple[SearchSpace, bool]:
    """Return a space from the cache, or find it and put it there.

    Args:
        content: what was asked for, ready for JSON.
        task: builds the network.
        find: finds the space where it is not known.

    Returns:
        The space, and whether it was known.
    """
    key = json.dumps({**content, "code": _code(task)}, sort_keys=True)
    path = _folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.space"
    try:
        return from_bytes(path.read_bytes(), key), True
    except (OSError, DamagedError) as error:
        _log.debug("no space in %s: %s", path, error)
    space = find()
    try:
        write_atomic(path, to_bytes(space, key))
    except OSError as error:
        _log.debug("the space is not kept: %s", error)
    return space, False


def find_specified(model: nn.Module, example: AnyExample, spec: SpaceSpec) -> SearchSpace:
    """Find and prove what a specification wants to be searched of a network.

    Raises:
        UserError: it does not fit the network.
    """
    coarse = [Coarse(**rule.model_dump()) for rule in spec.coarse]
    try:
        space = find_space(
            model,
            example,
            width=spec.width,
            depth=spec.depth,
            exclude=spec.exclude,
            coarse=coarse,
            round_to=spec.round_to,
            attention=spec.attention,
        )
    except CoarseError as error:
        raise UserError(f"supernet.space.coarse: {error}") from error
    names = [*space.names, *space.excluded]
    for pattern in spec.exclude:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"supernet.space.exclude: {pattern!r} fits no group or stage; {nearest(pattern, names)}")
    return space


def space_on(supernet: SupernetSpec, shapes: Any) -> tuple[Example, SearchSpace]:
    """Find the space of a network of one's own on an example, whatever it takes and returns.

    Args:
        supernet: `package.module:function`, its arguments, and what is searched.
        shapes: the example (see `dms_bench.scaling.shapes`).

    Raises:
        UserError: there is no such network, or it cannot be searched on that.
    """
    if not is_own(supernet.model):
        raise UserError(f"an example needs a network of your own (package.module:function), not {supernet.model!r}")
    if supernet.multiplied or supernet.pretrained or supernet.checkpoint:
        raise UserError(
            f"{supernet.model}: width, depth, pretrained and checkpoint have no meaning for its search space"
        )
    try:
        example = example_of_shapes(shapes)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"example {shapes!r}: {' '.join(str(error).split())}") from error
    torch.manual_seed(0)
    try:
        network = maker_of(supernet.model)(**supernet.args)
        return example, find_specified(network.eval(), example, supernet.space)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code, or what it makes of such an input
        raise UserError(f"{supernet.model}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dms_bench" / "spaces"


def _code(task: type[TaskSpec]) -> dict[str, str]:
    """Return what changes when the code does that builds networks and finds spaces."""
    module = importlib.util.find_spec(task.implementation.partition(":")[0])
    folder = Path(module.origin).parent if module and module.origin else None
    scaling = Path(dms_bench.scaling.__file__).parent
    return {
        "scaling": _digest(sorted(scaling.rglob("*.py"))),
        "task": _digest(sorted(folder.glob("*.py")) if folder else ()),
        **{name: version(name) for name in ("torch", *task.libraries)},
    }


def _digest(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()
