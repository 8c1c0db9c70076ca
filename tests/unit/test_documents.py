"""What the documentation names exists: files, commands, suites; what the glossary prints is what it shows."""

import contextlib
import io
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from dms_bench.cli import app
from dms_bench.config import parse_suite

ROOT = Path(__file__).parents[2]
FOLDERS = ("", "benchmarks", "cluster", "docs", "tasks", "dms_bench", "tests")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.md" if folder else "*.md"))
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_there_is_documentation():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "cluster/README.md", "benchmarks/README.md"} <= set(NAMES)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_linked_files_exist(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_commands_options_and_make_targets_exist(path):
    text = path.read_text()
    commands = get_command(app).commands
    for line in re.findall(r"dms-bench ((?!is |does )[a-z].*)", text):
        words = re.split(r"[`#|]", line)[0].split()
        if words and words[0].isalpha():
            assert words[0].rstrip(",") in commands, line
            options = {option for parameter in commands[words[0]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options, line
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", text, re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_files_named_in_commands_exist(path):
    for name in re.findall(
        r"\b((?:benchmarks|tests|tasks|cluster|dms_bench)/[\w./-]+\.(?:py|yaml|md))\b", path.read_text()
    ):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_suites_are_valid(path):
    for text in blocks(path.read_text(), "yaml"):
        document = yaml.safe_load(text) if "experiments:" in text else {}
        if document and path.name != "CONTRIBUTING.md":  # its method is a plug-in: tests/integration/test_plugin.py
            parse_suite(document)


def test_the_glossary_prints_what_it_shows():
    text = (ROOT / "docs" / "pages" / "glossary.md").read_text()
    scope: dict[str, object] = {}
    printed: list[str] = []
    shown = blocks(text, "text")
    for code in blocks(text, "python"):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, scope)
        printed += [output.getvalue()] if output.getvalue() else []
    assert printed == shown
    assert len(shown) >= 7


def test_the_citation_is_valid_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    done = subprocess.run([*command, str(ROOT / "CITATION.cff")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1300


def test_nothing_refers_to_notes_that_are_not_here():
    """Neither pages nor code: a reader has this repository and the paper."""
    notes = re.compile(r"\b(?:method|baselines|design)\.md\b|\btables\.yaml\b")
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for folder in ("benchmarks", "cluster", "dms_bench", "docs", "tasks", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".sh"} and path != Path(__file__)
        for line in path.read_text().splitlines()
        if notes.search(line)
    ]
    assert not found


def test_the_path_of_a_trial_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## The path of a trial")[2].partition("\n## ")[0]
    stops = re.findall(r"^\d+\. \[`([^`]+)`\]\(\1\)(?:, `(\w+)`)?:", text, re.MULTILINE)
    assert len(stops) == len(re.findall(r"^\d+\. ", text, re.MULTILINE))
    assert 1 < len(stops) <= 12
    for file, name in stops:
        assert (ROOT / file).exists()
        assert not name or re.search(rf"^(def|class) {name}\b", (ROOT / file).read_text(), re.MULTILINE), name


def test_the_page_of_methods_has_each_of_ours_with_what_it_uses() -> None:
    """Its letters are the ones that the specification declares; samplers have theirs by score."""
    from dms_bench.config.method import USES
    from dms_bench.config.plugins import METHODS, registered
    from dms_bench.methods.sampling.spec import RandomSearch

    text = (ROOT / "docs" / "pages" / "methods.md").read_text()
    rows: dict[str, str] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for name in re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") else ():
            rows[name] = cells[2].strip(" |")
    assert len(rows) > 30
    needed = {"designed": {"model": "resnet18"}, "halving": {"proposals": ["dms", "l1"]}}
    own = {kind: spec for kind, spec in registered(METHODS).items() if spec.__module__.startswith("dms_bench.")}
    assert own.keys() <= rows.keys()
    declared = {kind: spec(**needed.get(kind, {})).uses for kind, spec in own.items()}
    scores = RandomSearch.model_fields["score"].annotation.__args__  # type: ignore[union-attr]
    declared |= {score: RandomSearch(score=score).uses for score in scores}
    for name, uses in declared.items():
        letters = " ".join(use[0].upper() for use in USES if use in (uses or ()))
        if name not in ("random_search", "evolution", "halving"):
            assert rows[name] == (letters or "nothing"), name
