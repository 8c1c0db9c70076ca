"""What all tests share: caches and settings of their own, so that nothing is read that lies on this machine."""

import gc
from pathlib import Path

import hypothesis
import pytest

# A busy machine is no failure: what hangs is ended by pytest's own limit.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def own_caches(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))  # where no site file lies
        patch.delenv("COLUMNS", raising=False)  # of the terminal, which limits our tables
        yield


def pytest_collection_finish():
    """Keep the libraries out of later garbage collections, which some of them ask for after every epoch."""
    gc.freeze()


def pytest_sessionfinish():
    """Let what was kept out be collected, as libraries expect at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """MLflow's SQLite file with no runs in it; to make one takes seconds."""
    from dms_bench.tracking import connect

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}", create=True)
    return path
