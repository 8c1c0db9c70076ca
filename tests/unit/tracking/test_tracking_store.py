from __future__ import annotations

import http.server
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dms_bench.errors import UserError
from dms_bench.tracking import check, connect, redact, resolve_uri


def test_relative_sqlite_uri_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    uri = resolve_uri("sqlite:///mlflow.db")
    assert uri == f"sqlite:////{str(tmp_path / 'mlflow.db')[1:]}"
    assert resolve_uri(uri) == uri
    assert resolve_uri("sqlite:///a/b.db?timeout=9").endswith(f"{tmp_path}/a/b.db?timeout=9")


@pytest.mark.parametrize("uri", ["http://host:5000", "https://host", "postgresql://u@h/db", "mysql+pymysql://h/db"])
def test_other_stores_are_left_as_they_are(uri: str) -> None:
    assert resolve_uri(uri) == uri
    assert resolve_uri("http://host:5000/") == "http://host:5000"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mlruns", "plain folders"),
        ("file:///tmp/mlruns", "plain folders"),
        ("gopher://host", "unknown scheme 'gopher'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("http://", "host name is missing"),
    ],
)
def test_unusable_uris_are_named(uri: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        check(uri)
    assert uri in str(caught.value)


def test_secrets_are_masked() -> None:
    assert redact("https://ann:s3cret@host/x") == "https://***@host/x"
    assert redact("see https://ann:p@ss@host/x") == "see https://***@host/x"
    assert redact("https://host/x?access_token=s3cret&a=1") == "https://host/x?access_token=***&a=1"
    with pytest.raises(UserError) as caught:
        check("gopher://ann:s3cret@host")
    assert "s3cret" not in str(caught.value)


def test_a_store_that_can_be_made_passes_and_is_not_made(tmp_path: Path) -> None:
    check(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_passes(store: str) -> None:
    check(store)


def test_paths_that_cannot_hold_a_database(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not a folder"):
        check(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    with pytest.raises(UserError, match="is a folder"):
        check(f"sqlite:///{tmp_path}")
    with pytest.raises(UserError, match="not a database"):
        check(f"sqlite:///{tmp_path / 'file'}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; the test below asks in its place")
def test_an_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission"):
        check(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_permissions_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=f"no permission to write {tmp_path}"):
        check(f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(UserError, match="another program's database"):
        check(f"sqlite:///{path}")


def test_a_database_of_another_mlflow_version_says_what_to_do(store: str) -> None:
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE alembic_version SET version_num = '90e64c465722'")  # a revision of MLflow 1
    with pytest.raises(UserError, match="mlflow db upgrade"):
        check(store)


def test_a_missing_store_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results there"):
        connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_is_refused_at_once() -> None:
    uri = f"http://ann:s3cret@127.0.0.1:{_free_port()}"
    began = time.monotonic()
    with pytest.raises(UserError, match="connection refused") as caught:
        check(uri)
    assert time.monotonic() - began < 10
    assert redact(uri) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up() -> None:
    before = dict(os.environ)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(UserError, match="no answer in time"):
            check(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 10
    # What check() sets for itself (an impatient client) is gone again.
    assert os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") in (before.get("MLFLOW_HTTP_REQUEST_TIMEOUT"), "30")


def test_a_server_that_is_not_mlflow() -> None:
    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="no MLflow server"):
            check(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_importing_is_cheap_and_making_a_store_is_silent(tmp_path: Path) -> None:
    code = (
        "import sys, dms_bench.tracking as t\n"
        "assert not {'mlflow', 'torch', 'scipy'} & set(sys.modules), 'heavy import'\n"
        f"t.connect('sqlite:///{tmp_path}/new/mlflow.db', create=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "new" / "mlflow.db").exists()
