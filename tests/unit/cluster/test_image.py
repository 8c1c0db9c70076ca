"""The image does what `make install` does, with files that are there."""

import re
import subprocess

from dms_bench import __version__
from tests.unit.cluster.parsing import CLUSTER, ROOT, parse

DOCKERFILE = (CLUSTER / "image" / "Dockerfile").read_text()
STEPS = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_base_has_the_python_of_the_lock():
    version = re.search(r"--python-version (\S+)", MAKEFILE)[1]
    assert re.search(rf"^FROM python:{re.escape(version)}-", STEPS, re.MULTILINE)


def test_what_is_copied_is_kept_in_git_and_sent_to_the_build():
    copied = [word for line in re.findall(r"^COPY (.*)", STEPS, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    sent = (CLUSTER / "image" / "Dockerfile.dockerignore").read_text().split()
    assert sent[0] == "*"
    for name in copied:
        known = subprocess.run(["git", "ls-files", name], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert known, name
        assert f"!{name}" in sent


def test_dependencies_are_installed_as_make_does():
    uv = re.search(r"UV_VERSION := (\S+)", MAKEFILE)[1]
    assert f"uv=={uv} " in STEPS
    install = MAKEFILE.partition("$(INSTALLED):")[2].partition("\n\n")[0]
    makes, images = (re.findall(r"uv pip install (.*)", text) for text in (install, STEPS))
    for make, image in zip(makes, images, strict=True):
        wanted = set(re.findall(r"--[a-z-]+", make)) - {"--quiet", "--python", "--editable"}
        assert wanted <= set(re.findall(r"--[a-z-]+", image))
    assert "-r requirements.lock" in images[0]


def test_it_is_no_root_and_starts_our_command():
    instructions = re.findall(r"^([A-Z]+) (.*)", STEPS, re.MULTILINE)
    assert [value for name, value in instructions if name == "USER"] == ["dms"]
    assert instructions[-1] == ("CMD", '["dms-bench", "--help"]')


def test_files_name_the_version_of_the_package():
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            assert set(re.findall(r"dms-bench:(\d[\w.]*\d)", path.read_text())) <= {__version__}, path


def test_commands_in_the_readme_parse():
    (words,) = re.findall(r"dms-bench (validate .*)", (CLUSTER / "image" / "README.md").read_text())
    parse("dms-bench", words.split())
