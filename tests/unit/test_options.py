"""Every option is described where people look for it: in the JSON Schema, and in `dms-bench ls`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

import dms_bench.config.published  # noqa: F401 - has specifications, too
from dms_bench import cli
from dms_bench.cli.options import example, sections
from dms_bench.config.base import Spec
from dms_bench.config.described import descriptions, summary
from dms_bench.config.load import parse_suite
from dms_bench.config.plugins import METHODS, TASKS, PluginSpec, registered
from dms_bench.config.schema import suite_schema
from dms_bench.config.task import TaskSpec
from dms_bench.methods.gradient.spec import Dms
from dms_bench.methods.rankings.spec import ScopedRanking, Taylor
from dms_bench_tasks.classification.spec import ClassificationTask
from dms_bench_tasks.language.spec import LanguageTask

PLUGINS = [
    (noun, spec) for noun, group in (("task", TASKS), ("method", METHODS)) for spec in registered(group).values()
]
EXPERIMENT = {
    "name": "example",
    "task": {"kind": "classification", "data": "digits"},
    "supernet": {"model": "resnet18"},
    "pipeline": "DMSp",
    "budget": {"kind": "macs", "target": "30%"},
    "method": "random",
    "search": {"epochs": 1, "lr": 0.1},
    "retrain": {"epochs": 1, "lr": 0.1},
}


def specs(base: type[Spec] = Spec) -> Iterator[type[Spec]]:
    for spec in base.__subclasses__():
        yield spec
        yield from specs(spec)


def ours() -> list[type[Spec]]:
    """Return the specifications of dms_bench and of what is registered; other tests define some, too."""
    known = {spec for _, spec in PLUGINS}
    return sorted(
        {spec for spec in specs() if spec in known or spec.__module__.startswith(("dms_bench.", "dms_bench_tasks."))},
        key=lambda spec: (spec.__module__, spec.__qualname__),
    )


@pytest.mark.parametrize("spec", ours(), ids=lambda spec: f"{spec.__module__}.{spec.__qualname__}")
def test_every_field_has_a_description(spec: type[Spec]) -> None:
    assert [name for name, text in descriptions(spec).items() if not text] == []
    assert spec.__doc__


def undescribed(schema: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the places of properties without a description."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        for name, value in properties.items() if isinstance(properties, dict) else ():
            if not value.get("description"):
                yield "/".join((*path, name))
        for name, value in schema.items():
            yield from undescribed(value, (*path, name))
    elif isinstance(schema, list):
        for place, value in enumerate(schema):
            yield from undescribed(value, (*path, str(place)))


def test_every_property_of_the_printed_schema_has_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main(["schema"]) == 0
    assert list(undescribed(json.loads(capsys.readouterr().out))) == []


def test_what_may_be_chosen_has_a_title_and_a_description() -> None:
    definitions = suite_schema()["$defs"]
    assert [name for name, one in definitions.items() if not one.get("description")] == []
    titles = {one.get("title") for one in definitions.values()}
    budgets, data = {"macs", "params", "latency", "all"}, {"glyphs", "timm", "yolo", "hub"}
    assert {*registered(METHODS), *registered(TASKS), *budgets, *data} <= titles
    for field in ("task", "method"):
        for choice in definitions["Experiment"]["properties"][field]["anyOf"][0]["anyOf"]:
            assert choice["title"] == choice["const"]
            assert choice["description"]


def test_a_field_defined_anew_keeps_its_description_unless_it_has_its_own() -> None:
    class Named(Taylor):
        """A ranking."""

        scope: Annotated[str, Field(description="By\nname.")] = "x"  # type: ignore[assignment]

        kind: str = "named"  # type: ignore[assignment]
        """Its own."""
        undescribed: int = 0

    assert descriptions(Taylor)["scope"] == descriptions(ScopedRanking)["scope"]
    assert descriptions(Named) == {"kind": "Its own.", "scope": "By name.", "undescribed": ""}
    assert Named.model_json_schema()["properties"]["kind"]["description"] == "Its own."
    assert summary(Named) == "A ranking."


def test_descriptions_are_in_no_hash() -> None:
    assert Dms().content_hash() == "b260f6e1ecad"


@pytest.mark.parametrize(("noun", "spec"), PLUGINS, ids=lambda value: getattr(value, "__name__", value))
def test_ls_shows_every_option_and_a_valid_example(
    noun: str, spec: type[PluginSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    kind = spec.model_fields["kind"].default
    for asked in (noun, f"{noun}s"):
        assert cli._main(["ls", asked, kind]) == 0
        out, err = capsys.readouterr()
        assert err == ""
    recipe = spec.recipe_class.model_fields if issubclass(spec, TaskSpec) else {}
    words = set(out.split())
    assert ({*spec.model_fields, *recipe} - {"kind"}) <= words
    shown = example(spec, noun)
    assert out.rstrip().endswith(shown)
    fields = yaml.safe_load(shown)
    assert fields[noun] == kind or fields[noun]["kind"] == kind
    whole = EXPERIMENT | fields
    parse_suite({"name": "example", "experiments": [whole | {"pretrain": whole["retrain"]}]})


def test_an_example_has_the_options_that_no_hash_has() -> None:
    assert example(Dms, "method").splitlines()[2:5] == [
        "  structure: {optimizer: adam, lr: 0.005}",
        "  budget: penalty",
        "  resource_weight: 1.0",
    ]


def test_options_are_written_as_in_a_suite() -> None:
    dms = {section.title: {row[0]: row for row in section.rows} for section in sections(Dms, "method")}
    assert dms["method"]["decay_share"][1:3] == ("number >0 <=1", "0.8")
    assert dms["method"]["importance"][1:3] == ("taylor | snip | fisher | index", "taylor")
    assert dms["method"]["structure"][1:3] == ("mapping", "")
    assert dms["method.structure"]["lr"][1:3] == ("number >0", "0.005")
    task = {section.title: {row[0]: row for row in section.rows} for section in sections(ClassificationTask, "task")}
    assert task["task"]["data"][2] == "to be given"
    assert task["task"]["image_size"][2] == ""
    assert task["task.data (glyphs)"]["train"][1] == "number >0 | text such as 300k"
    assert task["task.data (timm).splits"]["val"][1:3] == ("text | null", "null")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["method", "dmz"], "there is no method 'dmz'; did you mean 'dms'?"),
        (["tasks", "detektion"], "there is no task 'detektion'; did you mean 'detection'?"),
        (["tusk", "detection"], "there is nothing called 'tusk' to list; did you mean 'tasks'?"),
        (["suite", "quick"], "suites have no options to show; `dms-bench plan FILE` shows the trials of a suite"),
    ],
)
def test_what_is_not_there_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._main(["ls", *arguments]) == 2
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_a_plug_in_without_an_example_that_needs_one_is_still_listed() -> None:
    class Needy(PluginSpec):
        """Needs a size."""

        kind: str = "needy"
        size: int

    assert example(Needy, "method") == ""


def test_a_default_of_line_breaks_is_shown_in_quotes():
    (row,) = (row for section in sections(LanguageTask, "task") for row in section.rows if row[0] == "joiner")
    assert row[2] == '"\\n\\n"'
