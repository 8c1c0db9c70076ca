from __future__ import annotations

import subprocess
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
