"""What all tests share: caches and settings of their own, so that nothing is read that lies on this machine."""

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
