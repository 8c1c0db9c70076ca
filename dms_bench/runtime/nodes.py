"""The nodes of a Ray cluster: what they have room for, and whether they reach what all must share."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray

from dms_bench.config.trial import Resources
from dms_bench.errors import UserError
from dms_bench.runtime.session import on_a_cluster
from dms_bench.trial.storage import SuiteFolder, locked, write_atomic

#: Seconds that a cluster's nodes get to come (back): after its head was lost they join one by one.
JOIN_SECONDS = 300.0
#: Seconds that a node gets to say what it reaches; the first task on a node imports for a while.
_CHECK_SECONDS = 120.0


class RayLostError(Exception):
    """No node is left: the raylet of a machine with a Ray of its own has died."""


def check_alive() -> None:
    """Make sure that there is a node; Tune would wait for one for ever.

    Raises:
        RayLostError: there is none.
    """
    if not any(node["Alive"] for node in ray.nodes()):
        raise RayLostError


def room(nodes: Iterable[Mapping[str, float]], shape: Resources) -> int:
    """Return how many trials of this shape run at once on nodes with these resources (CPU, GPU)."""
    needs = {kind: each for kind, each in (("CPU", shape.cpus), ("GPU", shape.gpus)) if each}
    # How many workers each node takes; the little that is added forgives 3 x 0.1 > 0.3.
    workers = [int(min(node.get(kind, 0.0) / each for kind, each in needs.items()) + 1e-9) for node in nodes]
    if shape.placement == "strict_pack":
        return sum(number // shape.workers for number in workers)
    if shape.placement == "strict_spread":
        # Of k trials, a node takes one worker each.
        most = sum(workers) // shape.workers
        return next(k for k in range(most, -1, -1) if sum(min(number, k) for number in workers) >= k * shape.workers)
    return sum(workers) // shape.workers


def resources_here() -> list[dict[str, float]]:
    """Return the resources (CPU, GPU) of every node that is there."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def trials_at_once(shape: Resources, say: Callable[[str], None] = lambda _: None) -> int:
    """Return how many trials of this shape run at once, on a cluster after waiting for nodes to join.

    Args:
        shape: resources of a trial.
        say: is told, once, when there is something to wait for.

    Raises:
        UserError: not a single one does.
    """
    deadline = time.monotonic() + (JOIN_SECONDS if on_a_cluster() else 0.0)
    waiting = False
    while True:
        nodes = resources_here()
        trials = room(nodes, shape)
        if trials:
            return trials
        if time.monotonic() >= deadline:
            raise UserError(f"{_shortage(nodes, shape)}; change its 'resources'")
        if not waiting:
            say(f"{_shortage(nodes, shape)}; waiting up to {JOIN_SECONDS / 60:g} minutes for nodes")
            waiting = True
        time.sleep(1.0)


def _shortage(nodes: list[dict[str, float]], shape: Resources) -> str:
    for kind, each in (("CPU", shape.cpus), ("GPU", shape.gpus)):
        needed, have = each * shape.workers, sum(node.get(kind, 0.0) for node in nodes)
        if needed > have:
            return f"a trial needs {needed:g} {kind}s, there are {have:g}"
    worker = f"{shape.cpus:g} CPUs" + (f" and {shape.gpus:g} GPUs" if shape.gpus else "")
    have_all = ", ".join(f"{node.get('CPU', 0):g} CPUs {node.get('GPU', 0):g} GPUs" for node in nodes)
    return (
        f"a trial's {shape.workers} workers need {worker} each, placed by {shape.placement!r}, "
        f"which {len(nodes)} nodes ({have_all}) have no room for"
    )


def check_nodes(folder: SuiteFolder, uri: str) -> None:
    """Make sure that all nodes share the suite's folder and reach its tracking store, before anything is trained.

    The driver holds the folder's lock meanwhile, so that a node that gets it has another folder, or locks
    that do not reach so far. Nodes that join later are not asked.

    Raises:
        UserError: some do not; a line for each.
    """
    this_node = ray.get_runtime_context().get_node_id()
    other_nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != this_node]
    if not other_nodes:
        return
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    sign = folder.path / f".sign-{secrets.token_hex(8)}"
    write_atomic(sign, sign.name)
    try:
        answers = {
            node["NodeManagerAddress"]: ray.remote(_problem_here)
            .options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote(str(sign), uri)
            for node in other_nodes
        }
        problems = [f"node {name}: {problem}" for name, answer in answers.items() if (problem := _answer(answer))]
    finally:
        sign.unlink(missing_ok=True)
    if problems:
        raise UserError("\n".join(problems))


def _answer(answer: Any) -> str | None:
    try:
        problem: str | None = ray.get(answer, timeout=_CHECK_SECONDS)
    except ray.exceptions.GetTimeoutError:
        return f"no answer within {_CHECK_SECONDS:g} s"
    except ray.exceptions.RayError as error:
        return "dms_bench does not run there: " + " ".join(str(error).split())[-300:]
    return problem


def _problem_here(sign: str, uri: str) -> str | None:
    """Say what a trial on this node would miss, None if nothing."""
    from dms_bench import tracking

    path = Path(sign)
    try:
        if not path.exists() or path.read_text() != path.name:
            return f"storage {path.parent} is not the folder that the driver has under that name; share one"
        probe = path.with_name(f"{path.name}-{os.getpid()}")
        write_atomic(probe, "")
        probe.unlink()
        with locked(path.with_name("lock")) as acquired:
            if acquired:
                return f"storage {path.parent} does not share locks between nodes (mount it with locks)"
    except OSError as error:
        return f"storage {path.parent}: {error.strerror or error}"
    try:
        tracking.check(uri)
    except UserError as error:
        return str(error)
    return None
