import re
from importlib.metadata import EntryPoint

import pytest

from dms_bench.cli import catalogue
from dms_bench.config import plugins
from dms_bench.errors import UserError
from dms_bench.methods.gradient.spec import Dms


@pytest.fixture
def installed(monkeypatch):
    """Install entry points: name -> `module:attribute`."""

    def installed(**points):
        found = [EntryPoint(name, value, plugins.METHODS) for name, value in points.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: found)
        uncached = plugins.discovered.__wrapped__
        for module in (plugins, catalogue):
            monkeypatch.setattr(module, "discovered", uncached)
        monkeypatch.setattr(plugins, "registered", REGISTERED)

    return installed


REGISTERED = plugins.registered  # the package's fixture puts another in its place


def test_plug_ins_are_found_by_kind(installed):
    installed(dms="dms_bench.methods.gradient.spec:Dms")
    assert plugins.registered(plugins.METHODS) == {"dms": Dms}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("no_such_module:Thing", "method 'mine' (no_such_module:Thing) cannot be imported: No module named 'no_such_"),
        ("collections:OrderedDict", "method 'mine' (collections:OrderedDict): <class 'collections.OrderedDict'> is no"),
    ],
)
def test_a_broken_plug_in_is_named_by_those_who_ask_for_it_alone(installed, value, text):
    installed(mine=value, dms="dms_bench.methods.gradient.spec:Dms")
    assert plugins.parse_plugin(plugins.METHODS, "dms") == Dms()
    assert plugins.registered(plugins.METHODS) == {"dms": Dms}
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        plugins.parse_plugin(plugins.METHODS, "mine")
    with pytest.raises(UserError, match=f"^{re.escape(text)}"):
        catalogue.options("methods", "mine")
    rows = dict(row[:2] for row in catalogue.methods()[1])
    assert rows["mine"].startswith(text)
    assert rows["dms"] == "Differentiable model scaling (ICML 2024)."


def test_the_kind_alone_is_enough():
    assert plugins.parse_plugin(plugins.METHODS, "dms") == Dms()
    assert plugins.parse_plugin(plugins.METHODS, Dms(temperature=2)) == Dms(temperature=2)


def test_the_implementation_is_imported_when_asked():
    class Here(plugins.PluginSpec):
        implementation = "collections:OrderedDict"
        kind: str = "here"

    import collections

    assert Here().load_implementation() is collections.OrderedDict
