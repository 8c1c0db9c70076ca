"""Send a suite to a Ray cluster as a job, follow its log, return its exit code."""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dms_bench.errors import TrialFailure, UserError
from dms_bench.spec import Suite, load_suite

#: What a job does not need of the working folder, beside what `.gitignore` and `.rayignore` name.
EXCLUDES = (
    "/mlflow.db*", "/mlruns/", "/runs/", "/dist/", "/build/",
    ".git", ".venv", "__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache", ".pytest_cache",
)  # fmt: skip
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: The job's own command needs no core, only a place on the head node.
_ENTRYPOINT_RESOURCES = {"node:__internal_head__": 0.001}


def submit(
    suite_path: Path | str, address: str, *, profile: str | None = None, smoke: bool = False, fresh: bool = False
) -> int:
    """Run a suite as a Ray job, print its log as it comes, and return its exit code.

    The working folder is packed and unpacked on the cluster; what a job writes there is lost with it.
    So the suite's storage and tracking must be absolute, or the cluster be this machine.

    Args:
        suite_path: a suite file below the working folder.
        address: of the cluster's dashboard, for example `http://127.0.0.1:8265`.
        profile: one of the suite's `profiles`.
        smoke: run the suite's `smoke` section.
        fresh: forget the suite's earlier results first.

    Returns:
        0, 1 or 2, as `dms-bench run` gives; 1 where the job was stopped or lost.

    Raises:
        UserError: the suite is wrong, the cluster does not answer, or the working folder is too large.
        TrialFailure: the cluster is gone before the job has ended.
    """
    suite = load_suite(Path(suite_path), profile=profile, smoke=smoke)
    client = _client(address)
    command = entrypoint(suite, Path(suite_path), address, profile=profile, smoke=smoke, fresh=fresh)
    job = _submit(client, command, suite)
    print(f"submitted {job} to {address}", flush=True)
    try:
        asyncio.run(_follow(client, job))
        return _exit_code(client, job)
    except KeyboardInterrupt:
        print(f"{job} goes on; stop it with: ray job stop --address {address} {job}", file=sys.stderr)
        return 1
    except (ConnectionError, RuntimeError) as error:
        raise TrialFailure(f"{address} no longer answers; whether {job} goes on is unknown: {_line(error)}") from error


def entrypoint(
    suite: Suite, path: Path, address: str, *, profile: str | None = None, smoke: bool = False, fresh: bool = False
) -> str:
    """Return the job's command.

    Raises:
        UserError: the suite's file or results are where the cluster cannot find them.
    """
    folder = Path.cwd()
    if not path.resolve().is_relative_to(folder):
        raise UserError(f"{path}: only the working folder {folder} is sent to the cluster; put the suite below it")
    words = ["python", "-m", "dms_bench", "run", path.resolve().relative_to(folder).as_posix()]
    words += ["--profile", profile] if profile else []
    words += ["--smoke"] * smoke + ["--fresh"] * fresh
    local = urlsplit(address).hostname in _LOOPBACK
    storage, tracking = Path(suite.storage).expanduser(), suite.tracking
    relative = {
        "storage": not storage.is_absolute(),
        "tracking": tracking.startswith("sqlite:///") and not tracking.startswith("sqlite:////"),
    }
    for name, wrong in relative.items():
        if wrong and not local:
            raise UserError(
                f"suite {suite.name!r}: {name} {getattr(suite, name)!r} is relative to a folder that a job on "
                f"{address} does not share; name an absolute path on shared storage, or a server"
            )
    if relative["storage"]:
        words += ["--storage", str(folder / storage)]
    if relative["tracking"]:
        words += ["--tracking", f"sqlite:///{folder / tracking.removeprefix('sqlite:///')}"]
    return shlex.join(words)


def _client(address: str) -> Any:
    if urlsplit(address).scheme not in ("http", "https"):
        raise UserError(f"address {address!r}: give the dashboard's, for example http://127.0.0.1:8265")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for part in JobSubmissionClient.__mro__:  # each has a logger of its own that tells what it uploads
        logging.getLogger(part.__module__).setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UserError(f"{address} wants a token: set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster answers at {address}: {_line(error)}") from error


def _submit(client: Any, command: str, suite: Suite) -> str:
    excludes = list(EXCLUDES)
    storage = Path(suite.storage).expanduser().absolute()
    if storage.is_relative_to(Path.cwd()) and storage != Path.cwd():
        excludes.append(f"/{storage.relative_to(Path.cwd()).as_posix()}/")
    try:
        job: str = client.submit_job(
            entrypoint=command,
            runtime_env={"working_dir": ".", "excludes": excludes},
            entrypoint_resources=_ENTRYPOINT_RESOURCES,
            metadata={"dms_bench_suite": suite.name},
        )
    except (RuntimeError, ValueError, ConnectionError) as error:
        raise UserError(f"the cluster does not take the job: {_line(error)}") from error
    return job


async def _follow(client: Any, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)


def _exit_code(client: Any, job: str) -> int:
    details = client.get_job_info(job)
    code = details.driver_exit_code
    if code is None:
        print(f"{job} ended as {details.status}: {details.message}", file=sys.stderr)
        return 1
    return int(code) if code in (0, 1, 2) else 1


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
