"""JSON Schema of a suite file, for editors: completion and errors while typing."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dms_bench.config.described import descriptions, summary
from dms_bench.config.plugins import METHODS, TASKS, registered
from dms_bench.config.suite import TRIAL_FIELDS, Suite
from dms_bench.config.trial import Trial

_RECIPES = ("pretrain", "search", "retrain")


def suite_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a suite file with every installed task and method.

    It is a little more permissive than reading a suite: as `defaults` may hold part of any
    mapping, no field of a trial is required where it stands.
    """
    tasks, methods = registered(TASKS), registered(METHODS)
    recipes = [task.recipe_class for task in tasks.values()]  # type: ignore[attr-defined]
    models: list[type[BaseModel]] = [Suite, Trial, *tasks.values(), *methods.values(), *recipes]
    references, schema = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], ref_template="#/$defs/{model}"
    )
    reference = {model: references[(model, "validation")] for model in models}
    definitions = schema["$defs"]

    if "Halving" in definitions:  # whose proposals are methods
        definitions["Halving"]["properties"]["proposals"]["items"] = _either(methods, reference)
    fields = {field: definitions["Trial"]["properties"][field] for field in TRIAL_FIELDS}
    words = descriptions(Trial)
    for field, kinds in (("task", tasks), ("method", methods)):
        fields[field] = {"description": words[field], **_either(kinds, reference)}
    for recipe in _RECIPES:
        either = [*(reference[model] for model in dict.fromkeys(recipes)), {"type": "null"}]
        fields[recipe] = {"description": words[recipe], "anyOf": either}

    suite = definitions.pop("Suite")
    definitions.pop("Trial")
    experiment = definitions["Experiment"]
    swept = "|".join(field for field in TRIAL_FIELDS if field != "resources")
    for sweep, values in (("Sweep", "grid"), ("Sampling", "space")):
        definitions[sweep]["properties"][values]["propertyNames"] = {"pattern": rf"^({swept})(\..+)?$"}
    for name, definition in definitions.items():
        if name not in ("Experiment", "Range"):
            definition.pop("required", None)
    experiment["properties"] |= fields
    overlay = {
        "description": "Fields of an experiment, laid under or over every one.",
        "type": "object",
        "additionalProperties": False,
        "properties": fields | {name: experiment["properties"][name] for name in ("sweep", "compare")},
    }
    definitions["Overlay"] = overlay
    suite["properties"] |= {
        "defaults": {"$ref": "#/$defs/Overlay", "description": "Laid under every experiment."},
        "smoke": {"$ref": "#/$defs/Overlay", "description": "Laid over every experiment by --smoke."},
    }
    definitions["Profile"] = {
        "description": "Fields of the suite, laid over it.",
        "type": "object",
        "additionalProperties": False,
        "properties": {field: value for field, value in suite["properties"].items() if field != "name"},
    }
    suite["properties"]["profiles"] = {
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/Profile"},
        "description": "Laid over the suite by --profile; lists are replaced.",
    }
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **suite, "$defs": definitions}
    _loosen(schema)
    return schema


def _loosen(schema: Any) -> None:
    """Let a mapping be part of any that it may be, as in `{target: 1G}`, and data be its name alone."""
    if isinstance(schema, list):
        for each in schema:
            _loosen(each)
    if isinstance(schema, dict):
        kinds = schema.pop("discriminator", None)
        if kinds is not None:
            schema["anyOf"] = schema.pop("oneOf")
            if kinds["propertyName"] == "name":
                schema["anyOf"].append({"title": "name alone", "enum": list(kinds["mapping"])})
        for each in list(schema.values()):
            _loosen(each)


def _either(kinds: dict[str, Any], reference: dict[Any, Any]) -> dict[str, Any]:
    """Return the union of plug-ins: a mapping of one of them, or just the name of its kind."""
    names = [{"const": kind, "title": kind, "description": summary(kinds[kind])} for kind in sorted(kinds)]
    return {"anyOf": [{"title": "name alone", "anyOf": names}, *(reference[model] for model in kinds.values())]}
