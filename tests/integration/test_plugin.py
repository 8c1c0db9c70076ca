"""The method of CONTRIBUTING.md, as its reader would write it: a package of its own, found by its entry point."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).parent / "plugin"
FILES = ("pyproject.toml", "dms_bench_taper/spec.py", "dms_bench_taper/search.py")
LONGEST = 60


def _documented():
    """Return the files that CONTRIBUTING.md shows: a block belongs to the name that a line before it begins with."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    names = "|".join(map(re.escape, FILES))
    sections = re.split(f"^`({names})`", text, flags=re.MULTILINE)
    blocks = [re.search(r"^```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL) for section in sections[2::2]]
    return {name: block.group(1) for name, block in zip(sections[1::2], blocks, strict=True) if block}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Install the package as pip would: its modules, and its entry points in a `dist-info`."""
    folder = tmp_path_factory.mktemp("site")
    files = _documented()
    assert tuple(files) == FILES
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    return folder


def _dms_bench(folder, package, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "dms_bench", *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{TOY}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_it_is_short():
    assert sum(len(content.splitlines()) for content in _documented().values()) < LONGEST


def test_it_is_listed_and_its_options_are_checked(command, package):
    assert re.search(r"taper +Widths that fall linearly", _dms_bench(command.folder, package, "ls", "methods")[1])
    assert '"taper"' in _dms_bench(command.folder, package, "schema")[1]
    command.write("good", {"method": {"kind": "taper", "last": 0.3}})
    assert _dms_bench(command.folder, package, "validate", "good.yaml")[0] == 0
    command.write("bad", {"method": {"kind": "taper", "lost": 0.3}})
    code, out, err = _dms_bench(command.folder, package, "validate", "bad.yaml")
    assert (code, out) == (2, "")
    assert err == "error: bad.yaml: experiments[0].method.lost: unknown field; did you mean 'last'?\n"
    assert "unknown method 'taper'" in _dms_bench(command.folder, TOY, "validate", "good.yaml")[2]


def test_a_suite_runs_it_beside_the_others(command, package):
    methods = [{"kind": "taper", "last": 0.3}, "taper", "random"]
    command.write("taper", {"task": {"kind": "toy", "width": 64}, "sweep": {"grid": {"method": methods}}})
    code, output = command.run("taper", PYTHONPATH=f"{package}{os.pathsep}{TOY}")
    assert code == 0, output
    assert len(command.results("taper")) == 3
    assert not any(result.budget_missed for result in command.results("taper").values())
    _, board, _ = _dms_bench(command.folder, package, "leaderboard", "--suite", "taper")
    for label in ("taper to 30%", "taper to 50%", "random"):
        assert label in board

    # Its network leaves the store and is built again elsewhere.
    key, result = next(iter(command.results("taper").items()))
    assert _dms_bench(command.folder, package, "show", key, "--suite", "taper")[0] == 0
    assert "no trial" in _dms_bench(command.folder, package, "show", "nothing", "--suite", "taper")[2]
    code, out, _ = _dms_bench(command.folder, package, "export", key, "--output", "exported")
    assert code == 0
    assert {Path(line.removeprefix("wrote ")).name for line in out.splitlines()} == {
        "architecture.json",
        "weights.safetensors",
        "toy.txt",
    }
    script = "import dms_bench; print(sum(tensor.numel() for tensor in dms_bench.load('exported').parameters()))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=command.folder, env=os.environ | {"PYTHONPATH": str(TOY)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == f"{result.params}\n", done.stderr
