from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dms_bench.tracking.environment import command_line, cpu_name, environment, git_commit


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["/usr/bin/dms-bench", "run", "a b.yaml"], "dms-bench run 'a b.yaml'"),
        (["x", "--tracking", "https://ann:s3cret@host/a"], "x --tracking https://***@host/a"),
        (["x", "--token", "s3cret", "run"], "x --token '***' run"),
        (["x", "--password=s3cret", "run"], "x '--password=***' run"),
        (["x", "API_KEY=s3cret"], "x 'API_KEY=***'"),
        ([], "''"),
    ],
)
def test_commands_show_no_secrets(arguments: list[str], shown: str) -> None:
    assert command_line(arguments) == shown


def test_the_environment_names_versions_and_hardware() -> None:
    found = environment()
    assert {"python", "torch", "mlflow", "ray", "timm", "dms_bench", "cpu", "cores", "command"} <= found.keys()
    assert all(isinstance(value, str) and value for value in found.values())
    assert cpu_name() == found["cpu"]


def test_an_edited_checkout_is_dirty(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == f"{clean}-dirty"


def _commit(folder: Path, *files: str) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-f", *files], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_of_a_checkout_around_an_installation_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment inside of somebody's checkout, ignored there or not, holds code that the checkout does not."""
    installed = tmp_path / ".venv" / "lib" / "dms_bench" / "environment.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    (tmp_path / "theirs.py").write_text("")
    theirs = _commit(tmp_path, "theirs.py")
    assert git_commit(installed) is None
    (tmp_path / ".gitignore").write_text(".venv")
    assert git_commit(installed) is None
    assert git_commit(tmp_path / "theirs.py") == theirs
    monkeypatch.setattr(sys.modules["dms_bench.tracking.environment"], "__file__", str(installed))
    found = environment()
    assert "git_commit" not in found
    assert found["dms_bench"]


def test_the_commit_of_a_checkout_that_tracks_the_package_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "ours" / "a [b] c.py"
    source.parent.mkdir()
    source.write_text("")
    ours = _commit(tmp_path / "ours", source.name)
    link = tmp_path / "link.py"
    link.symlink_to(source)
    assert git_commit(source) == git_commit(link) == ours
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("")
    _commit(other, "file")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as git sets it for hooks
    assert git_commit(source) == ours
