"""CONTRIBUTING.md's method and task, as its reader would make them: in a fresh environment, from the text alone."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILES = (
    "dms-bench-taper/pyproject.toml",
    "dms-bench-taper/dms_bench_taper/spec.py",
    "dms-bench-taper/dms_bench_taper/search.py",
    "dms-bench-taper/test_taper.py",
    "dms-bench-taper/taper.yaml",
)
#: No network: what is needed to build is there already.
PIP = 'pip() { python -m pip "$1" --quiet --no-index --no-deps --no-build-isolation "${@:2}"; }'


def _files():
    """Return the files that CONTRIBUTING.md shows: a block belongs to the name that a line before it begins with."""
    names = "|".join(map(re.escape, FILES))
    sections = re.split(f"^`({names})`", TEXT, flags=re.MULTILINE)
    blocks = [re.search(r"^```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL) for section in sections[2::2]]
    return {name: block.group(1) for name, block in zip(sections[1::2], blocks, strict=True) if block}


def _commands(heading):
    """Return the commands of a section, line after line."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Return a function that types a command where the reader would, and returns exit code and output."""
    folder = tmp_path_factory.mktemp("reader")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [libraries] = environment.glob("lib/python*/site-packages")
    # What this repository needs is read from the environment of the tests; the packages themselves are installed.
    known = sysconfig.get_paths()["purelib"]
    (libraries / "zz_known.pth").write_text(f"import site; site.addsitedir({known!r})\n")
    (folder / "dms_bench").symlink_to(ROOT)
    for name, content in _files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def typed(command):
        done = subprocess.run(
            ["bash", "-c", f"{PIP}; {command}"],
            cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout

    typed.folder = folder
    code, output = typed("pip install --editable ./dms_bench")
    assert code == 0, output
    return typed


def _kept(trials):
    """Return of each trial the shares that its groups keep and those that its stages keep, in their order."""
    found = []
    for path in trials.glob("*/architecture.json"):
        description = json.loads(path.read_text())
        shares = {name: kept / size for name, (kept, size) in description["sizes"].items()}
        parts = (description["architecture"][kind] for kind in ("groups", "stages"))
        found.append([[share for name, share in shares.items() if name in part] for part in parts])
    return found


def _type_all(shell, heading, but=()):
    """Type the commands of a section, but those that begin so; returns what each printed."""
    printed = {}
    for command in _commands(heading):
        if command.startswith(tuple(but)):
            continue
        code, printed[command] = shell(command)
        assert code == 0, f"{command}\n{printed[command]}"
    return printed


def test_the_text_shows_all_files():
    assert tuple(_files()) == FILES


def test_the_method(shell):
    printed = _type_all(shell, "A method of your own")
    assert re.search(r"taper +Widths that fall linearly", printed["dms-bench ls methods"])
    assert "1 passed" in printed["python -m pytest dms-bench-taper"]
    board = printed["dms-bench leaderboard --suite taper"]
    for label in ("taper to 30%", "taper to 50%", "random"):
        assert label in board
    assert '"taper"' in shell("dms-bench schema")[1]

    # As the text says: the whole depth, and widths that fall.
    shares = _kept(shell.folder / "runs/taper/trials")
    whole = [groups for groups, stages in shares if set(stages) == {1}]
    assert len(shares) == 3
    assert len(whole) == 2  # of random blocks some go
    for groups in whole:
        assert groups[-1] < 0.6 * groups[0]

    # A wrong option is refused in a line.
    suite = (shell.folder / "dms-bench-taper/taper.yaml").read_text()
    (shell.folder / "bad.yaml").write_text(suite.replace("last: 0.3", "lost: 0.3"))
    code, output = shell("dms-bench validate bad.yaml")
    assert code == 2
    assert output == (
        "error: bad.yaml: experiments[0] (resnet).sweep.grid.method[1].lost: unknown field; did you mean 'last'?\n"
    )


#: They take most of the time; the method's suite is run and compared above.
RUNS = ("dms-bench run", "dms-bench leaderboard")


def test_the_task(shell):
    printed = _type_all(shell, "A task of your own", but=RUNS)
    assert "1 passed" in printed["python -m pytest dms-bench-waves"]
    assert re.search(r"^3 trials, about", printed["dms-bench plan dms-bench-waves/waves.yaml"], re.MULTILINE)


@pytest.mark.slow
def test_the_task_is_run(shell):
    printed = _type_all(shell, "A task of your own")
    board = printed["dms-bench leaderboard --suite waves"]
    assert "accuracy" in board
    for label in ("dms", "uniform", "random"):
        assert label in board
