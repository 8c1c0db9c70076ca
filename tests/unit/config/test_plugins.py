from importlib.metadata import EntryPoint

import pytest

from dms_bench.config import plugins
from dms_bench.errors import UserError
from dms_bench.methods.gradient.spec import Dms


@pytest.fixture
def installed(monkeypatch):
    """Install entry points: name -> `module:attribute`."""

    def installed(**points):
        group = "dms_bench.methods"
        found = [EntryPoint(name, value, group) for name, value in points.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: found)
        return REGISTERED(group)

    return installed


REGISTERED = plugins.registered.__wrapped__


def test_plug_ins_are_found_by_kind(installed):
    assert installed(dms="dms_bench.methods.gradient.spec:Dms") == {"dms": Dms}


def test_a_plug_in_that_cannot_be_imported_is_named(installed):
    with pytest.raises(UserError, match=r"plug-in 'mine' \(no_such_module:Thing\) of dms_bench.methods: No module"):
        installed(mine="no_such_module:Thing")


def test_a_plug_in_that_is_no_specification_is_refused(installed):
    with pytest.raises(UserError, match=r"plug-in 'mine' \(collections:OrderedDict\).*is no PluginSpec"):
        installed(mine="collections:OrderedDict")


def test_the_kind_alone_is_enough():
    assert plugins.parse_plugin(plugins.METHODS, "dms") == Dms()
    assert plugins.parse_plugin(plugins.METHODS, Dms(temperature=2)) == Dms(temperature=2)


def test_the_implementation_is_imported_when_asked():
    class Here(plugins.PluginSpec):
        implementation = "collections:OrderedDict"
        kind: str = "here"

    import collections

    assert Here().load_implementation() is collections.OrderedDict
