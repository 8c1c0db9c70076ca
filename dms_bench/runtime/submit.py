"""Send a suite to a Ray cluster as a job, follow its log, and send it again where its head was lost."""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dms_bench.config import Suite, load_suite
from dms_bench.config.request import NOTHING, TRACKING, Request
from dms_bench.errors import TrialFailure, UserError
from dms_bench.tracking import redact, shown
from dms_bench.tracking.secrets import has_secrets
from dms_bench.tracking.store import resolve_uri

#: What a job does not need of the working folder, beside what `.gitignore` and `.rayignore` name.
EXCLUDES = (
    "/mlflow.db*", "/mlruns/", "/runs/", "/dist/", "/build/",
    ".git", ".venv", "__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache", ".pytest_cache",
)  # fmt: skip
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: The job's own command needs no core, only a place on the head node.
_ENTRYPOINT_RESOURCES = {"node:__internal_head__": 0.001}
#: How often a job that was lost is submitted again: one that brings down every head must end.
RESUBMISSIONS = 5
#: Seconds between two looks at a cluster that does not answer, or at a job that says nothing.
_LOOK_SECONDS = 2.0
#: How Ray says that a job was not ended by its own command.
_LOST = (
    "JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
)  # fmt: skip


def submit(
    suite_path: Path | str,
    address: str,
    *,
    profile: str | None = None,
    smoke: bool = False,
    request: Request = NOTHING,
    fresh: bool = False,
    patience: float = 600.0,
) -> int:
    """Run a suite as a Ray job, print its log as it comes, and return its exit code.

    The working folder is packed and unpacked on the cluster; what a job writes there is lost with it.
    So the suite's storage and tracking must be absolute, or the cluster be this machine.

    A job dies with its head. When the head is back the suite is submitted again and goes on.

    Args:
        suite_path: a suite file below the working folder.
        address: of the cluster's dashboard, for example `http://127.0.0.1:8265`.
        profile: one of the suite's `profiles`.
        smoke: run the suite's `smoke` section.
        request: changes to the suite, and which of its trials are meant.
        fresh: forget the suite's earlier results first (not again where the job is submitted again).
        patience: seconds to wait, each time, for a cluster that no longer answers.

    Returns:
        0, 1 or 2, as `dms-bench run` gives; 1 where the job was stopped or lost too often.

    Raises:
        UserError: the suite is wrong, the cluster does not answer, or the working folder is too large.
        TrialFailure: the cluster is gone before the job has ended, and does not come back.
    """
    suite = load_suite(Path(suite_path), profile=profile, smoke=smoke, request=request)
    client = _client(address)
    for submission in range(RESUBMISSIONS + 1):
        first = submission == 0
        command = entrypoint(
            suite,
            Path(suite_path),
            address,
            profile=profile,
            smoke=smoke,
            request=request,
            fresh=fresh and first,
        )
        job = _submit(client, command, suite, 0.0 if first else patience)
        print(f"submitted {job} to {shown(address)}" + ("" if first else ", to go on from there"), flush=True)
        try:
            code = _JobWatch(client, address, job, patience).code()
        except KeyboardInterrupt:
            print(f"{job} goes on; stop it with: ray job stop --address {shown(address)} {job}", file=sys.stderr)
            return 1
        if code is not None:
            return code
    print(f"{shown(address)}: the job was lost {RESUBMISSIONS + 1} times", file=sys.stderr)
    return 1


class _JobWatch:
    """Follows one job to its end, through times in which its cluster does not answer."""

    def __init__(self, client: Any, address: str, job: str, patience: float) -> None:
        self._client, self._address, self._job, self._patience = client, address, job, patience
        self._shown = shown(address)
        self._printed = 0

    def code(self) -> int | None:
        """Print the job's log as it comes; returns its exit code, None where it was lost.

        Raises:
            TrialFailure: the cluster does not answer for longer than patience lasts.
        """
        while True:
            try:
                asyncio.run(self._follow())
                details = self._client.get_job_info(self._job)
            except Exception as error:  # of aiohttp, requests or Ray: whatever a lost connection raises
                if not self._still_known(error):
                    print(f"{self._job} is lost with the cluster's head", file=sys.stderr)
                    return None
            else:
                if details.status.is_terminal():
                    return _exit_code(self._job, details)
            time.sleep(_LOOK_SECONDS)

    async def _follow(self) -> None:
        """Print what the log has beyond what is printed already."""
        received = 0
        async for text in self._client.tail_job_logs(self._job):
            received += len(text)
            new = text[-(received - self._printed) :] if received > self._printed else ""
            self._printed = max(self._printed, received)
            print(new, end="", flush=True)

    def _still_known(self, error: Exception) -> bool:
        """Wait for the cluster to answer; returns whether it (still) knows the job.

        Raises:
            TrialFailure: it does not answer in time.
        """
        deadline = time.monotonic() + self._patience
        told = False
        while True:
            try:
                return any(job.submission_id == self._job for job in self._client.list_jobs())
            except Exception as again:
                if time.monotonic() >= deadline:
                    raise TrialFailure(
                        f"{self._shown} no longer answers; whether {self._job} goes on is unknown: "
                        f"{_line(again, self._address)}"
                    ) from error
            if not told:
                minutes = f"{self._patience / 60:g} minutes"
                print(f"{self._shown} does not answer; waiting up to {minutes} for it", file=sys.stderr, flush=True)
                told = True
            time.sleep(_LOOK_SECONDS)


def entrypoint(
    suite: Suite,
    path: Path,
    address: str,
    *,
    profile: str | None = None,
    smoke: bool = False,
    request: Request = NOTHING,
    fresh: bool = False,
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
    words += ["--smoke"] * smoke + request.words + ["--fresh"] * fresh
    local = is_local(address)
    if request.site_path is not None:
        words += ["--site", _site_of_job(request.site_path, local)]
    storage, tracking = Path(suite.storage).expanduser(), suite.tracking
    relative = {
        "storage": not storage.is_absolute(),
        "tracking": tracking.startswith("sqlite:///") and not tracking.startswith(("sqlite:////", "sqlite:///~")),
    }
    for name, wrong in relative.items():
        if wrong and not local:
            raise UserError(
                f"suite {suite.name!r}: {name} {shown(getattr(suite, name))!r} is relative to a folder that a job on "
                f"{shown(address)} does not share; name an absolute path on shared storage, or a server"
            )
    if relative["storage"]:
        words += ["--storage", str(folder / storage)]
    of_environment = request.tracking is not None and tracking == request.tracking
    if relative["tracking"] or of_environment:
        if has_secrets(tracking):  # everybody on the cluster sees a job's command
            advice = "write it into the suite or a site file" if of_environment else "name an absolute path"
            named = TRACKING if of_environment else f"suite {suite.name!r}: tracking"
            raise UserError(f"{named} {shown(tracking)!r} holds a secret: {advice}")
        words += ["--tracking", resolve_uri(tracking)]
    return shlex.join(words)


def is_local(address: str) -> bool:
    """Tell whether a cluster's dashboard is on this machine."""
    return urlsplit(address).hostname in _LOOPBACK


def _site_of_job(path: Path, local: bool) -> str:
    """Return where a job finds a site file. Raises UserError where it is not sent to the cluster."""
    if path.resolve().is_relative_to(Path.cwd()):
        return path.resolve().relative_to(Path.cwd()).as_posix()
    if not local:
        raise UserError(
            f"{path}: only the working folder {Path.cwd()} is sent to the cluster; put the site file below it"
        )
    return str(path.resolve())


def _client(address: str) -> Any:
    if urlsplit(address).scheme not in ("http", "https"):
        raise UserError(f"address {shown(address)!r}: give the dashboard's, for example http://127.0.0.1:8265")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for part in JobSubmissionClient.__mro__:  # each has a logger of its own that tells what it uploads
        logging.getLogger(part.__module__).setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UserError(
            f"{shown(address)} wants a token: set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster answers at {shown(address)}: {_line(error, address)}") from error


def _submit(client: Any, command: str, suite: Suite, patience: float) -> str:
    """Hand the job in; a cluster whose head has just come back may not take jobs for a while.

    Raises:
        UserError: the cluster does not take it, for longer than patience (seconds) lasts.
    """
    excludes = list(EXCLUDES)
    storage = Path(suite.storage).expanduser().absolute()
    if storage.is_relative_to(Path.cwd()) and storage != Path.cwd():
        excludes.append(f"/{storage.relative_to(Path.cwd()).as_posix()}/")
    deadline = time.monotonic() + patience
    while True:
        try:
            job: str = client.submit_job(
                entrypoint=command,
                runtime_env={"working_dir": ".", "excludes": excludes},
                entrypoint_resources=_ENTRYPOINT_RESOURCES,
                metadata={"dms_bench_suite": suite.name},
            )
            return job
        except (RuntimeError, ValueError, ConnectionError) as error:
            if time.monotonic() >= deadline:
                raise UserError(f"the cluster does not take the job: {_line(error)}") from error
        time.sleep(_LOOK_SECONDS)


def _exit_code(job: str, details: Any) -> int | None:
    """Return the exit code of a job that is over, None where something else than its command has ended it."""
    code = details.driver_exit_code
    if code in (0, 1, 2) and details.status != "STOPPED":
        return int(code)
    print(f"{job} ended as {details.status}: {' '.join(str(details.message).split())[-500:]}", file=sys.stderr)
    if details.status == "STOPPED":  # by the user
        return 1
    # A code beyond 2 is a signal's: the driver was killed.
    return None if code is not None or details.error_type in _LOST else 1


def _line(error: Exception, address: str = "") -> str:
    return redact(" ".join(str(error).split()), address)[:300]
