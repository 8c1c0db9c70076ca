import shlex
from types import SimpleNamespace

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from dms_bench.config import Suite, read_request
from dms_bench.errors import TrialFailure, UserError
from dms_bench.runtime import submit as module
from dms_bench.runtime.submit import RESUBMISSIONS, entrypoint, submit

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


def test_the_job_is_asked_for_the_same(tmp_path):
    request = read_request(["search.epochs=2", "a:method={kind: dms}"], ["seed=0,1"])
    suite = _suite(storage="/shared/runs", tracking="http://mlflow.example:5000")
    command = entrypoint(suite, tmp_path / "quick.yaml", THERE, request=request, fresh=True)
    assert shlex.split(command)[5:] == [
        *("--set", "search.epochs=2", "--set", "a:method={kind: dms}", "--only", "seed=0,1", "--fresh"),
    ]


def test_a_site_file_is_sent_along_where_it_can_be(tmp_path):
    suite = _suite(storage="/shared/runs", tracking="http://mlflow.example:5000")
    inside, outside = tmp_path / "places" / "site.yaml", tmp_path.parent / f"{tmp_path.name}.yaml"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_text("{}")

    def words(path, address):
        return entrypoint(suite, tmp_path / "quick.yaml", address, request=read_request(site=path)).split()[5:]

    assert words(inside, THERE) == ["--site", "places/site.yaml"]
    assert words(outside, HERE) == ["--site", str(outside)]
    with pytest.raises(UserError, match="put the site file below it"):
        words(outside, THERE)


def test_the_store_of_the_environment_is_the_jobs(tmp_path, monkeypatch):
    def words(address, uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        suite = _suite(storage="/shared/runs", tracking=uri)
        return entrypoint(suite, tmp_path / "quick.yaml", address, request=read_request()).split()[5:]

    assert words(THERE, "http://mlflow.example:5000") == ["--tracking", "http://mlflow.example:5000"]
    assert words(HERE, "sqlite:///own.db") == ["--tracking", f"sqlite:///{tmp_path}/own.db"]
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI 'http://\*\*\*@host' holds a secret: write it into"):
        words(THERE, "http://ann:s3cret@host")


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


class Cluster:
    """A job client whose every answer about a job is written down beforehand, in order; errors are raised."""

    def __init__(self, *answers, log="one line of the log\n", knows=True):
        self.answers, self.log, self.knows, self.commands = list(answers), log, knows, []

    def submit_job(self, *, entrypoint, **_):
        self.commands.append(entrypoint)
        return f"job_{len(self.commands)}"

    async def tail_job_logs(self, job):
        for line in self.log.splitlines(keepends=True):
            yield line

    def get_job_info(self, job):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list_jobs(self):
        if isinstance(self.knows, Exception):
            raise self.knows
        return [SimpleNamespace(submission_id=f"job_{len(self.commands)}")] if self.knows else []


def _ended(status, code=None, error_type=None):
    return SimpleNamespace(status=JobStatus(status), driver_exit_code=code, error_type=error_type, message="said\nRay")


@pytest.fixture
def submit_to(monkeypatch, quick):
    def submit_to(cluster, **options):
        monkeypatch.setattr(module, "_client", lambda address: cluster)
        monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)
        return submit("quick.yaml", HERE, **{"patience": 0.0, **options})

    return submit_to


LOST = ConnectionError("no route to\nhost")


def test_a_cluster_that_is_lost_for_good_is_a_failure_of_the_run(submit_to, capsys):
    with pytest.raises(TrialFailure, match="whether job_1 goes on is unknown: no route to host"):
        submit_to(Cluster(LOST, knows=LOST))
    assert capsys.readouterr().out == f"submitted job_1 to {HERE}\none line of the log\n"


def test_a_job_lost_with_its_head_is_submitted_again_and_forgets_nothing(submit_to, capsys):
    cluster = Cluster(LOST, _ended("SUCCEEDED", 0), knows=False)
    assert submit_to(cluster, fresh=True) == 0
    first, second = cluster.commands
    assert first == second.replace("run quick.yaml", "run quick.yaml --fresh")
    assert f"submitted job_2 to {HERE}, to go on from there" in capsys.readouterr().out


def test_a_cluster_is_waited_for(submit_to, monkeypatch, capsys):
    cluster = Cluster(LOST, _ended("SUCCEEDED", 0), knows=LOST)

    def sleep(seconds):
        cluster.knows = False

    monkeypatch.setattr(module.time, "sleep", sleep)
    assert submit_to(cluster, patience=120.0) == 0
    assert len(cluster.commands) == 2
    assert f"{HERE} does not answer; waiting up to 2 minutes for it" in capsys.readouterr().err


def test_a_job_that_outlived_its_dashboard_is_followed_on_without_repeating_its_log(submit_to, capsys):
    cluster = Cluster(LOST, _ended("RUNNING"), _ended("FAILED", 2), log="abc\ndef\n")
    assert submit_to(cluster) == 2
    assert len(cluster.commands) == 1
    assert capsys.readouterr().out == f"submitted job_1 to {HERE}\nabc\ndef\n"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_jobs(submit_to, code):
    assert submit_to(Cluster(_ended("FAILED" if code else "SUCCEEDED", code))) == code


@pytest.mark.parametrize(
    "ended",
    [_ended("STOPPED", -15), _ended("STOPPED", 1), _ended("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE")],
    ids=["killed", "stopped", "environment"],
)
def test_a_job_that_the_user_stopped_or_that_cannot_start_is_not_submitted_again(submit_to, ended, capsys):
    cluster = Cluster(ended)
    assert submit_to(cluster) == 1
    assert len(cluster.commands) == 1
    assert f"job_1 ended as {ended.status}: said Ray" in capsys.readouterr().err


@pytest.mark.parametrize("ended", [_ended("FAILED", -9), _ended("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED")])
def test_a_job_that_is_killed_each_time_ends(submit_to, ended):
    cluster = Cluster(*[ended] * (RESUBMISSIONS + 1))
    assert submit_to(cluster) == 1
    assert len(cluster.commands) == RESUBMISSIONS + 1


def test_a_head_that_is_back_but_takes_no_jobs_yet_is_asked_again(submit_to, monkeypatch):
    cluster = Cluster(LOST, _ended("SUCCEEDED", 0), knows=False)
    submitted, refusals = cluster.submit_job, [RuntimeError("No available agent"), None]

    def submit_job(**job):
        if cluster.commands and (refusal := refusals.pop(0)):
            raise refusal
        return submitted(**job)

    monkeypatch.setattr(cluster, "submit_job", submit_job)
    assert submit_to(cluster, patience=60.0) == 0
    assert not refusals
