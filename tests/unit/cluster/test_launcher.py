"""Files of Ray's cluster launcher, by Ray's own schema and preparation."""

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.unit.cluster.parsing import CLUSTER, commands, parse

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray Serve's own

FILES = sorted((CLUSTER / "ray").glob("*.yaml"))


def read(path):
    return yaml.safe_load(path.read_text())


def test_one_cloud_and_one_on_premise():
    assert {read(path)["provider"]["type"] for path in FILES} == {"aws", "local"}


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def prepared(request):
    config = prepare_config(read(request.param))
    validate_config(config)
    return config


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValidationError):
        validate_config(prepare_config(read(FILES[0]) | {"max_worker": 3}))


def test_ray_is_started_as_its_command_line_takes_it_with_tokens_and_a_loopback_dashboard(prepared):
    for role in ("head", "worker"):
        lines = "\n".join(prepared[f"{role}_start_ray_commands"])
        stop, start = [parse("ray", words) for words in commands(lines, "ray")]
        assert "force" in stop
        assert start["head"] is (role == "head")
        assert start["dashboard_host"] == "127.0.0.1"
        assert start["disable_usage_stats"]
        assert "RAY_AUTH_MODE=token" in lines
    assert any(path.endswith("/.ray/auth_token") for path in prepared["file_mounts"])


def test_nothing_but_the_image_or_the_lock_is_installed(prepared):
    for when in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert set(prepared[when]) <= {"make --directory ~/dms_bench install"}


def test_the_cluster_is_of_one_size(prepared):
    """A suite is planned on the nodes that are there when it starts."""
    workers = [kind for name, kind in prepared["available_node_types"].items() if name != "head"]
    assert all(kind["min_workers"] == kind["max_workers"] > 0 for kind in workers)
    assert prepared["max_workers"] == sum(kind["max_workers"] for kind in workers)


def test_workers_on_aws_are_spot_machines_and_its_head_trains_nothing():
    types = read(CLUSTER / "ray" / "aws.yaml")["available_node_types"]
    assert types["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["head"]["resources"]["CPU"] == 0
