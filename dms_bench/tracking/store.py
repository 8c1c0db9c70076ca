"""Reaching an MLflow tracking store: what a URI means, whether it answers, and a quiet client for it."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dms_bench.errors import UserError
from dms_bench.tracking.secrets import redact, shown

_SERVERS = ("http", "https")
_DATABASES = ("postgresql", "mysql", "mssql")
_SQLITE = "sqlite:///"
_ADVICE = "use sqlite:///mlflow.db, a server's http(s):// address or a database's URI"
_CHECK_SECONDS = 5
#: Set unless the user has: quiet output, no reports to third parties, and failures within seconds.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def resolve_uri(uri: str) -> str:
    """Return `uri` with a relative SQLite path made absolute, as workers run in other folders.

    Raises:
        UserError: a scheme that cannot be used (MLflow's file store among them).
    """
    if uri.startswith("sqlite:"):
        path, _, query = uri.removeprefix(_SQLITE).partition("?")
        if not uri.startswith(_SQLITE) or path in ("", ":memory:"):
            raise UserError(f"tracking {shown(uri)!r}: needs a file that all workers can open; {_ADVICE}")
        return f"{_SQLITE}{Path(path).expanduser().absolute()}{'?' + query if query else ''}"
    try:
        parts = urlsplit(uri)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port
    except ValueError:  # which names what it could not read
        advice = "in user names and passwords write / as %2F, @ as %40, # as %23, ? as %3F and : as %3A"
        raise UserError(f"tracking {shown(uri)!r}: no address with a host and a port; {advice}") from None
    if scheme in _SERVERS or scheme.partition("+")[0] in _DATABASES:
        if not host and "odbc_connect=" not in parts.query:
            raise UserError(f"tracking {shown(uri)!r}: the host name is missing")
        return uri.rstrip("/") if scheme in _SERVERS else uri
    if scheme in ("", "file"):
        raise UserError(f"tracking {shown(uri)!r}: MLflow no longer writes to plain folders; {_ADVICE}")
    raise UserError(f"tracking {shown(uri)!r}: unknown scheme {scheme!r}; {_ADVICE}")


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite URI, None for other stores."""
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def check(uri: str) -> None:
    """Make sure that runs can be written to `uri`; takes a few seconds at most and writes nothing.

    Raises:
        UserError: the store does not answer, refuses, or is no MLflow store.
    """
    uri = resolve_uri(uri)
    path = sqlite_path(uri)
    if path is not None:
        try:
            _check_file(path, uri)
        except OSError as error:
            raise UserError(f"tracking {shown(uri)}: {error.strerror}: {error.filename}") from error
        if not has_tables(path):
            return  # made by `open_suite`
    with _impatient():
        connect(uri)


def connect(uri: str, *, create: bool = False) -> Any:
    """Return an `MlflowClient` for a store that answers, without MLflow's messages on the terminal.

    Args:
        uri: tracking URI.
        create: make a missing SQLite database (the driver does, before its workers start).

    Raises:
        UserError: the store is missing, does not answer or is no MLflow store.
    """
    uri = resolve_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not create and not has_tables(path):
        raise UserError(f"tracking {shown(uri)}: no results there; run a suite first or name another store")
    with answering(uri), _alone_in(path.parent) if path is not None and create else nullcontext():
        client = make_client(uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Let a store that does not answer, or refuses, end what is inside in one line without secrets.

    Raises:
        UserError: what MLflow, SQLAlchemy, requests or a driver raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Not `from error`: it, and what it comes from, may hold the address.
        raise UserError(f"tracking {shown(uri)}: {reason(error, uri)}") from None


def make_client(uri: str) -> Any:
    """Return an `MlflowClient` without asking the store anything yet."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow.tracking", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Prints errors of drivers, address and all, before it raises them.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(uri)


def _check_file(path: Path, uri: str) -> None:
    """Refuse a path that cannot become, or is not, MLflow's database."""
    if path.is_dir():
        raise UserError(f"tracking {shown(uri)}: {path} is a folder; name a file in it")
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir():
        raise UserError(f"tracking {shown(uri)}: {folder} is not a folder")
    for target in (folder, path):  # SQLite writes its journal beside the file
        if target.exists() and not os.access(target, os.R_OK | os.W_OK):
            raise UserError(f"tracking {shown(uri)}: no permission to write {target}")
    if path.exists() and path.stat().st_size and not has_tables(path):
        with opened_for_reading(path) as database:
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise UserError(f"tracking {shown(uri)}: this is another program's database, not MLflow's")


@contextmanager
def opened_for_reading(path: Path, patience: float = 5.0) -> Iterator[sqlite3.Connection]:
    """Open a SQLite file for reading.

    A process that was killed as it wrote leaves a journal, which whoever reads next has to roll back, and must be
    allowed to write for; otherwise SQLite refuses to read.

    Args:
        path: the file.
        patience: seconds to wait for a process that is writing.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    address = path.as_uri()
    with closing(sqlite3.connect(f"{address}?mode=ro", uri=True, timeout=patience)) as database:
        try:
            database.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                raise
            with closing(sqlite3.connect(f"{address}?mode=rw", uri=True, timeout=patience)) as restored:
                restored.execute("SELECT count(*) FROM sqlite_master")
        yield database


def has_tables(path: Path) -> bool:
    """Tell whether the SQLite file exists and holds MLflow's tables.

    Raises:
        UserError: the file is no SQLite database.
    """
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":  # SQLite takes a short text file for an empty database
                raise sqlite3.DatabaseError("the file is not a database")
        with opened_for_reading(path) as database:
            query = "SELECT count(*) FROM sqlite_master WHERE name IN ('experiments', 'alembic_version')"
            return bool(database.execute(query).fetchone()[0] == 2)
    except (sqlite3.DatabaseError, OSError) as error:
        raise UserError(f"tracking {_SQLITE}{path}: {error}") from error


def reason(error: Exception, uri: str) -> str:
    """Say in one line why the store at `uri` could not be used, without secrets."""
    text = redact(" ".join(str(error).split()), uri)
    for sign, reason in (
        ("onnection refused", "nothing listens there (connection refused)"),
        ("timed out", "no answer in time"),
        ("Failed to resolve", "unknown host name"),
        ("Name or service not known", "unknown host name"),
        ("ermission denied", "no permission"),
        ("database is locked", "another program has locked the database"),
        (
            "out-of-date database schema",
            "made by another MLflow version; back it up, then `mlflow db upgrade URI`",
        ),
        ("Can't locate revision", "written by a newer MLflow version"),
        ("No module named", f"its driver is not installed ({text})"),
        ("error code 401", "the server asks for credentials (MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN)"),
        ("error code 403", "the server refuses (credentials, or its --allowed-hosts)"),
        ("error code 404", "something answers, but it is no MLflow server"),
    ):
        if sign in text:
            return reason
    return text[:200]


@contextmanager
def _impatient() -> Iterator[None]:
    """Let MLflow's HTTP client give up after one short attempt."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{_CHECK_SECONDS}"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a lock on `folder`: two processes that create one MLflow database at once spoil it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
