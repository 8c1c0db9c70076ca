"""Room for trials on nodes, against a search through all placements."""

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dms_bench.config import Trial
from dms_bench.config.trial import Resources
from dms_bench.errors import UserError
from dms_bench.runtime import nodes as module
from dms_bench.runtime.nodes import _problem_here, room, trials_at_once
from dms_bench.trial.storage import locked


@pytest.mark.parametrize(
    ("nodes", "shape", "expected"),
    [
        ([(4, 0)], {}, 4),
        ([(4, 0), (2, 0)], {"cpus": 2}, 3),
        ([(4, 0), (4, 0)], {"cpus": 8}, 0),  # eight there are, on no node
        ([(8, 2)], {"gpus": 0.25}, 8),
        ([(8, 1)], {"gpus": 0.1, "cpus": 0.1}, 10),
        ([(33, 0)], {"cpus": 0.55}, 60),  # 59.99999999999999
        ([(8, 2), (8, 0)], {"gpus": 1}, 2),
        ([(8, 3), (8, 3)], {"workers": 2, "gpus": 1}, 3),
        ([(8, 3), (8, 3)], {"workers": 2, "gpus": 1, "placement": "strict_pack"}, 2),
        ([(8, 3), (8, 1)], {"workers": 2, "gpus": 1, "placement": "strict_spread"}, 1),
        ([(8, 4)], {"workers": 2, "gpus": 1, "placement": "strict_spread"}, 0),
        ([], {}, 0),
    ],
)
def test_room(nodes, shape, expected):
    assert room([{"CPU": cpus, "GPU": gpus} for cpus, gpus in nodes], Resources(**shape)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=4), st.integers(1, 3))
def test_room_for_workers_apart_is_what_a_search_finds(places, workers):
    @functools.cache
    def most(left):
        found = 0
        for chosen in itertools.combinations(range(len(left)), workers):
            if all(left[node] for node in chosen):
                rest = tuple(sorted(have - (node in chosen) for node, have in enumerate(left)))
                found = max(found, 1 + most(rest))
        return found

    shape = Resources(workers=workers, placement="strict_spread")
    assert room([{"CPU": place} for place in places], shape) == most(tuple(places))


def test_a_placement_that_is_not_given_leaves_hashes_as_they_were():
    assert set(Resources().model_dump()) == {"workers", "cpus", "gpus"}
    spread = Resources(workers=2, placement="spread")
    assert Resources.model_validate_json(spread.model_dump_json()) == spread


@pytest.fixture
def joining(monkeypatch):
    """Nodes that join one by one, at each look at them."""
    seen = []

    def nodes():
        seen.append({"Alive": True, "Resources": {"CPU": 1.0}})
        return [*seen, {"Alive": False, "Resources": {"CPU": 64.0}}]

    monkeypatch.setattr(module.ray, "nodes", nodes)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    return seen


def test_a_cluster_gets_time_for_its_nodes_to_join(joining, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    said = []
    assert trials_at_once(Resources(workers=3), said.append) == 1
    assert len(joining) == 3
    assert said == ["a trial needs 3 CPUs, there are 1; waiting up to 5 minutes for nodes"]


def test_without_a_cluster_there_is_nothing_to_wait_for(joining, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match="a trial needs 3 CPUs, there are 1; change its 'resources'"):
        trials_at_once(Resources(workers=3))
    joining.clear()
    with pytest.raises(UserError, match=r"2 workers need 0\.5 CPUs each, placed by 'strict_spread', which 1 nodes"):
        trials_at_once(Resources(workers=2, cpus=0.5, placement="strict_spread"))


@pytest.fixture
def sign(tmp_path):
    path = tmp_path / "suite" / ".sign-0"
    path.parent.mkdir()
    path.write_text(path.name)
    return path


def test_a_node_that_shares_everything_has_no_problem(sign, tmp_path):
    with locked(sign.with_name("lock")):
        assert _problem_here(str(sign), f"sqlite:///{tmp_path}/mlflow.db") is None
    assert {path.name for path in sign.parent.iterdir()} == {sign.name, "lock"}


def test_a_node_says_what_it_does_not_share(sign, tmp_path):
    store = f"sqlite:///{tmp_path}/mlflow.db"
    assert "does not share locks" in _problem_here(str(sign), store)  # nobody holds the lock
    with locked(sign.with_name("lock")):
        assert "http://127.0.0.1:9: nothing listens there" in _problem_here(str(sign), "http://127.0.0.1:9")
        sign.write_text("another")
        assert "is not the folder that the driver has" in _problem_here(str(sign), store)
        sign.unlink()
        assert "is not the folder that the driver has" in _problem_here(str(sign), store)


def test_the_kinds_of_placement_are_rays():
    from ray.train import ScalingConfig

    for placement in Resources.model_fields["placement"].annotation.__args__:
        ScalingConfig(num_workers=2, placement_strategy=placement.upper())
    assert "resources" in Trial.model_fields
