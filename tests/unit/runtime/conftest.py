"""The toy plug-in of the integration tests, and trials of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dms_bench.config import Resources, Trial, plugins
from dms_bench.trial.group import WorkerGroup, alone
from dms_bench.trial.storage import WorkFolder

PLUGIN = Path(__file__).parents[2] / "integration" / "plugin"


@pytest.fixture(autouse=True, scope="module")
def toy_plugin():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        plugins.discovered.cache_clear()
        yield
    plugins.discovered.cache_clear()


@pytest.fixture
def toy_trial() -> Callable[..., Trial]:
    """Return a function that makes a trial of the toy task."""

    def make(**fields: Any) -> Trial:
        return Trial.model_validate(
            {
                "experiment": "toy",
                "task": {"kind": "toy", "width": 12},
                "supernet": {"model": "mlp"},
                "budget": {"kind": "macs", "target": "50%"},
                "method": "half",
                "pretrain": {"epochs": 2},
                "search": {"epochs": 3},
                "retrain": {"epochs": 4},
                **fields,
            }
        ).canonical()

    return make


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "trial")


@pytest.fixture
def group() -> WorkerGroup:
    return alone(Resources())
