import jsonschema
import pytest

from dms_bench.config import suite_schema


@pytest.fixture(scope="module")
def validator(toy_plugins):
    schema = suite_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_a_suite_is_valid(validator, document, experiment):
    document["defaults"] = {"seed": 3, "retrain": {"lr": 0.5}}
    document["smoke"] = {"sweep": {"grid": {"seed": [0]}}}
    experiment["sweep"] = {
        "grid": {"budget": [{"kind": "macs", "target": "450M"}], "method.temperature": [1]},
        "sample": {"samples": 3, "space": {"retrain.lr": {"low": 0, "high": 1}, "retrain.epochs": [1]}},
    }
    validator.validate(document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("piplene", "DMSp"),
        ("pipeline", "DMSx"),
        ("task", "unknown"),
        ("task", {"kind": "toy", "data": {"name": "circles"}}),
        ("method", {"kind": "random", "temperature": 1}),
        ("method", {"kind": "dms", "temperature": "hot"}),
        ("budget", {"kind": "macs", "target": "much"}),
        ("retrain", {"epochs": 0}),
        ("retrain", {"epoch": 1}),
        ("sweep", {"grid": {"sede": [1]}}),
        ("name", "../up"),
        ("supernet", {"model": "net", "width": 0}),
        ("supernet", {"model": "net", "space": {"round_to": 0}}),
        ("supernet", {"model": "net", "space": {"attention": "all"}}),
        ("supernet", {"model": "net", "space": {"coarse": [{"groups": "*", "step": 0}]}}),
    ],
)
def test_what_reading_refuses_an_editor_marks(validator, document, experiment, field, value):
    experiment[field] = value
    assert not validator.is_valid(document)
    document["experiments"] = [{"name": "x"}]
    document["defaults"] = {field: value}
    assert not validator.is_valid(document)
