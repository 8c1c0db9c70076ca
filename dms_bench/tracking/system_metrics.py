"""What the machine does during a trial, where MLflow's own variable asks for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def system_metrics(uri: str, run_id: str | None) -> Iterator[None]:
    """Log processors, memory, disk, network and GPUs of this machine to a run while the block is worked on.

    Only where `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING` is true, as for MLflow's other runs; its further variables
    (`MLFLOW_SYSTEM_METRICS_...`) say how often. A store that does not answer costs these numbers and nothing else.

    Args:
        uri: tracking URI.
        run_id: the run; None while the store has not made it.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if run_id is None or not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)  # its messages hold addresses
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
