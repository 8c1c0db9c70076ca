import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from dms_bench.errors import TrialFailure, UserError
from dms_bench.runtime import submit as module
from dms_bench.runtime.submit import entrypoint, submit
from dms_bench.spec import Suite

HERE, THERE = "http://127.0.0.1:8265", "http://ray.example:8265"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _suite(**fields):
    return Suite.model_construct(name="quick", **{"storage": "runs", "tracking": "sqlite:///mlflow.db", **fields})


def test_on_this_machine_results_stay_in_the_working_folder(tmp_path):
    command = entrypoint(_suite(), tmp_path / "suites" / "quick.yaml", HERE, profile="full", smoke=True)
    assert command == (
        f"python -m dms_bench run suites/quick.yaml --profile full --smoke --storage {tmp_path}/runs "
        f"--tracking sqlite:///{tmp_path}/mlflow.db"
    )


@pytest.mark.parametrize("fields", [{"storage": "/shared/runs"}, {"tracking": "http://mlflow.example:5000"}])
def test_elsewhere_paths_of_this_machine_are_refused(tmp_path, fields):
    with pytest.raises(UserError, match=r"(storage|tracking) '.*' is relative to a folder"):
        entrypoint(_suite(**fields), tmp_path / "quick.yaml", THERE)


def test_elsewhere_shared_storage_and_a_server_are_fine(tmp_path):
    suite = _suite(storage="/shared/runs", tracking="http://mlflow.example:5000")
    assert entrypoint(suite, tmp_path / "quick.yaml", THERE) == "python -m dms_bench run quick.yaml"


def test_a_suite_outside_the_working_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="put the suite below it"):
        entrypoint(_suite(), tmp_path.parent / "quick.yaml", HERE)


@pytest.fixture
def quick(tmp_path):
    (tmp_path / "quick.yaml").write_text(
        "name: quick\nexperiments:\n- {name: toy, task: toy, supernet: {model: mlp}, method: half, "
        "budget: {kind: macs, target: 50%}, search: {epochs: 1}, retrain: {epochs: 1}}\n"
    )


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("address", ["127.0.0.1:8265", "http://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_one_line(address):
    with pytest.raises(UserError) as error:
        submit("quick.yaml", address)
    assert address in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("quick")
def test_a_cluster_that_wants_a_token_is_one_line(monkeypatch):
    def refuse(self, address):
        raise AuthenticationError("Unauthorized")

    monkeypatch.setattr(JobSubmissionClient, "__init__", refuse)
    with pytest.raises(UserError, match="wants a token: set RAY_AUTH_MODE=token"):
        submit("quick.yaml", HERE)


@pytest.mark.usefixtures("quick")
def test_a_cluster_that_is_lost_is_a_failure_of_the_run(monkeypatch, capsys):
    class Client:
        def submit_job(self, **job):
            return "job_1"

        async def tail_job_logs(self, job):
            yield "one line of the log\n"

        def get_job_info(self, job):
            raise ConnectionError("no route to\nhost")

    monkeypatch.setattr(module, "_client", lambda address: Client())
    with pytest.raises(TrialFailure, match="whether job_1 goes on is unknown: no route to host"):
        submit("quick.yaml", HERE)
    assert capsys.readouterr().out == f"submitted job_1 to {HERE}\none line of the log\n"
