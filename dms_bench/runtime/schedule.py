"""Work through Ray Tune: as much at once as the resources allow, and again what died."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError

from dms_bench.config.trial import Resources
from dms_bench.runtime.hooks import Feed, FirstCome, FromFeed, Observer, Watch
from dms_bench.runtime.node_memory import NodeOutOfMemoryError
from dms_bench.runtime.nodes import trials_at_once
from dms_bench.runtime.worker import tune_function
from dms_bench.trial.work import Work

#: How often a trial is started again when its process dies.
RETRIES = 2
#: Where Tune's own function of a trial with a group of workers runs; the workers hold the real resources.
_SUPERVISOR = {"node:__internal_head__": 0.001}


def run_all(works: Sequence[Work], scratch: Path, observer: Observer, most: int | None, *, once: bool = False) -> None:
    """Do all the work, one shape of resources after the other (a `Tuner` has one shape), and return.

    Work that failed says so in its folder; of work whose process died too often, the observer is told. No more than
    `most` is done at once, where that is given. With `once`, every piece has a process of its own, and no second one.

    Raises:
        UserError: a trial needs more than there is.
        NodeOutOfMemoryError: Ray ended processes for want of memory.
        RayLostError: no node is left.
        KeyboardInterrupt: the user wants to stop.
    """
    shapes = list(dict.fromkeys(work.trial.resources for work in works))
    for shape in shapes:
        trials_at_once(shape, observer.say)  # before anything is trained
    for shape in shapes:
        grid = [work.model_dump_json() for work in works if work.trial.resources == shape]
        _fit(shape, scratch, observer, most, {"work": tune.grid_search(grid)}, once, scheduler=FirstCome())


def run_sampled(
    feed: Feed, shape: Resources, scheduler: FirstCome, scratch: Path, observer: Observer, most: int | None
) -> None:
    """Do the work that `feed` gives out, each new piece chosen in the light of those that are done.

    Args:
        feed: gives out the work, all of the same shape.
        shape: resources of each piece.
        scheduler: chooses the next trial, and may end trials early.
        scratch: folder for Tune's own files.
        observer: is told what happens.
        most: no more than this is done at once.

    Raises:
        UserError: a trial needs more than there is.
        NodeOutOfMemoryError: Ray ended processes for want of memory.
        RayLostError: no node is left.
        KeyboardInterrupt: the user wants to stop.
    """
    _fit(
        shape, scratch, observer, most, {}, False, search_alg=FromFeed(feed), scheduler=scheduler, num_samples=feed.left
    )


def _fit(
    shape: Resources,
    scratch: Path,
    observer: Observer,
    most: int | None,
    space: dict[str, Any],
    once: bool,
    **options: Any,
) -> None:
    """Run one `Tuner` to its end."""
    at_once = trials_at_once(shape, observer.say)
    tuner = tune.Tuner(
        tune.with_resources(tune_function, _held(shape)),
        param_space=space,
        tune_config=tune.TuneConfig(
            reuse_actors=not once,
            max_concurrent_trials=at_once if most is None else min(at_once, most),
            trial_dirname_creator=_numbered(),
            **options,
        ),
        run_config=tune.RunConfig(
            name=f"{len(list(scratch.glob('*'))):03d}",
            storage_path=str(scratch),
            failure_config=tune.FailureConfig(max_failures=0 if once else RETRIES),
            callbacks=[Watch(observer)],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except RuntimeError as error:
        if not _ran_out_of_memory(error):
            raise
        raise NodeOutOfMemoryError from error


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether that is what an error goes back to; a second one may have met Tune as it cleaned up."""
    while error is not None and not isinstance(error, OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _held(shape: Resources) -> Any:
    """Return what Tune reserves for a trial."""
    if shape.workers > 1:
        return tune.PlacementGroupFactory([_SUPERVISOR])
    return tune.PlacementGroupFactory([{"CPU": shape.cpus} | ({"GPU": shape.gpus} if shape.gpus else {})])


def _numbered() -> Callable[[Any], str]:
    """Short names for Tune's folders; by default they hold the whole configuration."""
    numbers = itertools.count()
    return lambda _: f"{next(numbers):05d}"
