"""Scenes and Ultralytics' own files in folders of the tests; nothing here where Ultralytics is not installed."""

import os
from importlib.util import find_spec

import pytest

from dms_bench_tasks.detection.offline import cache_folder, set_up

#: The specification, the scenes and what happens without Ultralytics are tested everywhere.
collect_ignore = []
if find_spec("ultralytics"):
    set_up()  # before test modules import it
else:
    modules = ("data", "fit", "methods", "model", "new", "portable", "space", "workers")
    collect_ignore = [f"test_detection_{name}.py" for name in modules]


@pytest.fixture(autouse=True, scope="package")
def _scenes_of_the_tests(tmp_path_factory):
    """Scenes are drawn into a folder that goes with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        assert os.environ["XDG_CACHE_HOME"] in str(cache_folder())
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Any attempt to reach a server fails the test."""
    import socket

    def refuse(*address, **_):
        raise AssertionError(f"a call to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
