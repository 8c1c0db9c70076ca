"""A Ray session: this machine's own, or the cluster that the environment names; quiet either way."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dms_bench.errors import UserError
from dms_bench.tracking import redact, shown

_log = logging.getLogger(__name__)

#: What keeps Ray quiet, fast to notice a dead worker, and in the folder it was started in.
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A group whose node is gone waits for another one.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Snapshots of all trials serve a restore that is never asked for; one of 9,000 trials took five seconds.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "TUNE_WARN_THRESHOLD_S": "60",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
#: Only JSON passes through Ray's object store.
_OBJECT_STORE_BYTES = 100 * 2**20


def on_a_cluster() -> bool:
    """Tell whether this process belongs to a Ray cluster (a job does), and does not start a Ray of its own."""
    return "RAY_ADDRESS" in os.environ


def _one_line(record: logging.LogRecord) -> bool:
    """Cut what Tune says of a failure down to its reason: where it happened is in the trial's own record.

    Of dead processes it says nothing that the trial's own line does not say better, and of their sum nothing new.
    """
    text = f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''}"
    if "worker process has died" in text or text.startswith("Trials did not complete"):
        return False
    if record.exc_info and record.exc_info[1] is not None:
        lines = str(record.exc_info[1]).strip().splitlines() or [type(record.exc_info[1]).__name__]
        record.msg, record.args, record.exc_info = f"{record.getMessage().strip()} ({lines[-1]})", (), None
    return True


def _quieten_raylet() -> None:
    """Keep the raylet's paragraphs on dead workers off the terminal, in Ray's log: the trial's own line has the reason.

    `log_to_driver=False` does not reach them, nor does any option of Ray 2.60; where Ray has no such function any more,
    this does nothing.
    """
    from ray._private import worker

    def to_log(data: dict[str, Any], *_: Any, **__: Any) -> None:
        _log.debug("raylet: %s", " ".join(data.get("lines", ())))

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = to_log


def _not_started(error: Exception) -> str:
    """Say on one line why Ray is not there; what it says itself goes on about its own processes."""
    reason = redact((str(error).strip().splitlines() or [type(error).__name__])[0])
    if on_a_cluster():
        return f"cannot join the Ray cluster {shown(os.environ['RAY_ADDRESS'])}: {reason}"
    return f"Ray does not start on this machine: {reason}"


@contextmanager
def ray_session() -> Iterator[None]:
    """Start Ray on this machine, or join the cluster of `RAY_ADDRESS` (set inside a Ray job).

    Raises:
        UserError: Ray does not start, or there is no such cluster.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Where it is set, every process that Ray starts compiles its imports anew, for many seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    import ray

    _quieten_raylet()
    # Ray gives some of its loggers a level of their own, which the packages' does not reach.
    for name in ("ray", "ray.tune", "ray.train", "ray.tune.execution.tune_controller"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("ray.tune.execution.tune_controller", "ray.tune.execution.experiment_state", "ray.tune.tune"):
        logging.getLogger(name).addFilter(_one_line)
    try:
        if on_a_cluster():
            ray.init(
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {name: os.environ[name] for name in _ENVIRONMENT}},
            )
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
            )
    except (
        Exception
    ) as error:  # Ray has no class for it: OSError, ValueError, ConnectionError and plain Exception occur
        ray.shutdown()
        raise UserError(_not_started(error)) from error
    try:
        with _terminated_like_interrupted():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does; Ray's own handler aborts the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
