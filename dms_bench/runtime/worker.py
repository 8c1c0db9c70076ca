"""What runs on the cluster: the function that Ray Tune calls for each unit of work.

A trial with one worker is computed right there, in Tune's actor, which is used again for the next
trial: 0.02 s between two trials. More workers are a Ray Train group, which takes half a minute to start.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from dms_bench.deploy.logged import publish_model
from dms_bench.errors import TrialFailure, UserError
from dms_bench.runtime.orphan import end_with_parent
from dms_bench.tracking import TrackingLost, redact, system_metrics
from dms_bench.trial.allocator import give_back_memory
from dms_bench.trial.group import WorkerGroup, alone, set_up_process
from dms_bench.trial.last_words import cause, kept
from dms_bench.trial.meter import costs
from dms_bench.trial.publish import open_run, publish_result
from dms_bench.trial.rehearsal.rehearse import rehearse
from dms_bench.trial.run import pretrain_supernet, run_trial, search_in_one
from dms_bench.trial.storage import SuiteFolder
from dms_bench.trial.work import Work

#: How often a group of workers is started again when one of its processes dies.
GROUP_RETRIES = 2
_log = logging.getLogger(__name__)


def tune_function(config: dict[str, str]) -> None:
    """Do one unit of work; a failure is recorded in its folder and does not reach Tune."""
    from ray import tune

    end_with_parent()
    work = Work.model_validate_json(config["work"])
    with work.folder.claimed(), kept(work.folder), _shared_claimed(work):
        carry_out(work, tune.report)
    give_back_memory()


@contextmanager
def _shared_claimed(work: Work) -> Iterator[None]:
    """Be the only one who computes what trials share, where a trial finds it not done.

    The driver has that done before their trials; only samples that vary it find none.
    """
    with ExitStack() as claims:
        for shared, stage in ((work.supernet, "pretrain"), (work.search, "search")) if work.kind == "trial" else ():
            if shared is not None and not shared.stage(stage).finished():
                claim = claims.enter_context(ExitStack())
                claim.enter_context(shared.claimed(math.inf))
                if shared.stage(stage).finished():
                    claim.close()
        yield


def carry_out(work: Work, report: Callable[[dict[str, Any]], None]) -> None:
    """Run the work in this process, or in a group of workers, and record how it failed if it does."""
    folder, resources = work.folder, work.trial.resources
    folder.forget_failure()
    try:
        if resources.workers == 1:
            do_part(work, alone(resources), report)
        else:
            _run_group(work)
    except TrackingLost as error:
        _log.warning("%s", error)  # the driver publishes from the folder
    except Exception as error:
        with suppress(OSError):  # of a full disk; the driver meets it, too, and says so
            folder.fail(redact(message_of(error), work.uri), redact(traceback.format_exc(), work.uri))
    _publish_failure(work)


def do_part(work: Work, group: WorkerGroup, report: Callable[[dict[str, Any]], None]) -> None:
    """Do this worker's part of the work; the leading worker publishes."""
    if work.kind == "rehearsal":
        rehearse(work, group)
        return
    if work.supernet is not None:
        pretrain_supernet(work.trial, work.supernet, group)
    if work.kind == "supernet":
        return
    latency = SuiteFolder(work.suite_folder).latency
    if work.search is not None:
        search_in_one(work.trial, work.search, group, supernet=work.supernet, latency=latency)
    if work.kind == "search":
        return
    folder = work.folder
    run = open_run(work) if group.leads else None
    with system_metrics(work.uri, run.run_id if run else None):
        run_trial(
            work.trial,
            folder,
            group,
            supernet=work.supernet,
            searched=work.search,
            latency=latency,
            log=run.log if run else None,
            report=report if work.scheduled else None,
        )
    if run is not None:
        publish_result(folder, run)
        publish_model(folder, run)


def message_of(error: BaseException) -> str:
    """Return one line that says what went wrong."""
    text = " ".join(str(error).split())[:1000]
    if isinstance(error, TrialFailure | UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _publish_failure(work: Work) -> None:
    failure = work.folder.failure()
    if failure is None or work.kind != "trial":
        return
    try:
        open_run(work).fail(failure, costs(work.folder))
    except TrackingLost as error:
        _log.warning("%s", error)


def _run_group(work: Work) -> None:
    """Run the work in a Ray Train group of workers and wait for it.

    Raises:
        TrialFailure: the group died more often than it is started again.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    resources, retries = work.trial.resources, 0 if work.kind == "rehearsal" else GROUP_RETRIES
    each = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    trainer = TorchTrainer(
        _group_function,
        train_loop_config={"work": work.model_dump_json()},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker=each,
            placement_strategy=resources.placement.upper(),
        ),
        run_config=RunConfig(
            name=f"{work.key}-{len(list(work.folder.attempts.glob('*.json')))}",
            storage_path=str(work.suite_folder / "ray"),
            failure_config=FailureConfig(max_failures=retries, controller_failure_limit=retries),
            callbacks=[TuneReportCallback()],
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if work.folder.failure() is None:
            reasons = getattr(error, "worker_failures", {}) or {0: error}
            reason = message_of(reasons[min(reasons)])
            if "died unexpectedly" in reason:
                reason = cause(work.folder, reason)[0]
            raise TrialFailure(f"its workers failed {retries + 1} time{'s' * (retries > 0)}: {reason}") from error


def _group_function(config: dict[str, str]) -> None:
    """Be one worker of a group."""
    import ray.train
    from ray.train.torch import get_device

    end_with_parent()
    work = Work.model_validate_json(config["work"])
    if work.folder.failure() is not None:
        return  # the group was started again after an error that no repetition cures
    resources = work.trial.resources
    set_up_process(resources)
    group = WorkerGroup(get_device(), resources, ray.train.get_context().get_world_rank())
    try:
        with kept(work.folder, group.rank):
            do_part(work, group, ray.train.report)
    except TrackingLost as error:
        _log.warning("%s", error)  # the driver publishes from the folder
    except (TrialFailure, UserError) as error:
        # Any other error may only say that another worker has died, which starting again cures.
        work.folder.fail(redact(message_of(error), work.uri), redact(traceback.format_exc(), work.uri))
        raise  # so that Ray ends the workers that wait for this one
