"""No secret of a store's address leaves the process, in whatever form it stands there."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dms_bench.config.suite import Suite
from dms_bench.config.trial import Trial
from dms_bench.errors import UserError
from dms_bench.runtime import submit, worker
from dms_bench.tracking import TrackingLost, TrialResult, TrialRun, open_suite, redact, resolve_uri, shown
from dms_bench.tracking import store as store_module
from dms_bench.tracking import suite_run as suite_run_module
from dms_bench.tracking import trial_run as trial_run_module
from dms_bench.tracking.environment import command_line
from dms_bench.tracking.secrets import has_secrets, redacted
from dms_bench.tracking.store import reason
from dms_bench.trial.work import Work

MARK = "s3cretMARK"
EXAMPLES = 400
SCHEMES = ("http", "https", "postgresql", "postgresql+psycopg", "mysql+pymysql", "mssql+pyodbc", "gopher", "ftp")
#: Names of parameters that hold secrets, and some that nobody has heard of.
NAMES = (
    *("passwd", "pwd", "password", "PASSWORD", "pass", "passphrase", "sslpassword", "odbc_connect", "sig", "token"),
    *(
        "access_token",
        "access_key",
        "secret_access_key",
        "api_key",
        "api-key",
        "X-Amz-Signature",
        "sas",
        "jwt",
        "k",
        "x",
    ),
)
#: What stands around the mark: all that means something in an address, a shell, JSON or Python.
AROUND = st.text(alphabet="ab9/@:?#&;=%+'\"\\ .,é-_{}[]$~", max_size=3)


@st.composite
def addresses(draw: st.DrawFn) -> str:
    """An address with the mark in one of the places where secrets are."""
    place = draw(st.sampled_from(("password", "user", "parameter", "odbc", "fragment", "no host", "no scheme", "file")))
    secret = draw(AROUND) + MARK + draw(AROUND)
    escaped = draw(st.booleans())
    if escaped:
        secret = quote(secret, safe="")
    scheme, host = draw(st.sampled_from(SCHEMES)), draw(st.sampled_from(("host", "a.b.org:5000", "[::1]:80")))
    if place == "no scheme":
        return f"ann:{secret}@{host}/mlflow"
    if place in ("parameter", "file") and not escaped:  # they would end it
        secret = secret.replace("&", "").replace(";", "")
    name = draw(st.sampled_from(NAMES))
    more = draw(st.sampled_from(("", "&timeout=9", "&a=b&charset=utf8")))
    return {
        "password": f"{scheme}://ann:{secret}@{host}/mlflow",
        "user": f"{scheme}://{secret}@{host}",
        "parameter": f"{scheme}://ann@{host}/mlflow?{name}={secret}{more}",
        "odbc": f"mssql+pyodbc:///?odbc_connect={quote(f'DRIVER={{x}};UID=sa;PWD={MARK};')}",
        "fragment": f"{scheme}://{host}/x#{secret}",
        "no host": f"{scheme}://ann:{MARK}",
        "file": f"sqlite:///mlflow.db?{name}={secret}{more}",
    }[place]


def errors_about(uri: str) -> Iterator[Exception]:
    """Yield what libraries say of such an address, and what they might."""
    import requests
    from sqlalchemy.engine import make_url

    attempts: tuple[Callable[[], object], ...] = (
        lambda: urlsplit(uri).port,
        lambda: make_url(uri),
        lambda: requests.Request("GET", uri).prepare(),
        lambda: requests.get(uri, timeout=1e-9) if uri.startswith("gopher") else None,
        lambda: json.loads(uri),
    )
    for attempt in attempts:
        try:
            attempt()
        except Exception as error:
            yield error
    _, _, rest = uri.partition("://")
    for form in (uri, unquote(uri), repr(uri), quote(uri), f"port {rest.partition(':')[2]!r} is no number"):
        yield RuntimeError(f"cannot open {form}")
    for piece in rest.replace("?", "/").replace("@", "/").split("/"):
        yield ValueError(f"HTTPConnectionPool(host={piece!r}): Max retries exceeded with url: /{piece}/api (failed)")


RESULT = TrialResult(metric="top1", value=1.0, macs=1, params=1, supernet_macs=1, supernet_params=1, targets={}, seed=0)


class Store:
    """Takes down what is sent to it, or fails with an error."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: object, **named: object) -> Any:
            if self.error is not None:
                raise self.error
            self.sent.append((arguments, {key: _plain(value) for key, value in named.items()}))
            if name in ("get_experiment_by_name", "get_experiment"):
                return SimpleNamespace(
                    experiment_id="1", name="paper", lifecycle_stage="active", tags={}, creation_time=0
                )
            run = SimpleNamespace(
                info=SimpleNamespace(run_id="r"),
                data=SimpleNamespace(tags={}, metrics={}, params={}),
                inputs=SimpleNamespace(dataset_inputs=[]),
            )
            return [] if name == "search_runs" else run

        return call


def _plain(value: object) -> object:
    return [dict(item) for item in value] if isinstance(value, list) else value  # type: ignore[call-overload]


def _without_secret(text: object) -> None:
    assert MARK not in str(text)


@given(uri=addresses())
@settings(max_examples=EXAMPLES)
def test_no_secret_is_shown(uri: str) -> None:
    _without_secret(shown(uri))
    _without_secret(redact(f"tracking {uri!r}: cannot be opened: {uri}", uri))
    _without_secret(redacted({"tracking": uri, "list": [uri, f"see {uri}", 1, None]}, uri))
    _without_secret(command_line(["x", "--tracking", uri, f"--tracking={uri}", f"MLFLOW_TRACKING_URI={uri}"]))
    if not any(character in uri for character in " '\"\\"):
        _without_secret(redact(uri))
        _without_secret(redact(f"see {uri} for more"))
        _without_secret(redact(shlex.join(["x", uri])))
    assert has_secrets(uri)


@given(uri=addresses())
@example(uri=f"ann:{MARK}://@host/mlflow")
@settings(max_examples=EXAMPLES)
def test_no_secret_is_in_what_is_said_of_an_error(uri: str) -> None:
    for error in errors_about(uri):
        _without_secret(reason(error, uri))
    refusal = _refusal(uri)
    _without_secret(refusal)
    assert refusal is None or (refusal.__cause__ is None and "\n" not in str(refusal))


def _refusal(uri: str) -> UserError | None:
    try:
        resolve_uri(uri)
    except UserError as error:
        return error
    return None


@given(uri=addresses())
@settings(max_examples=EXAMPLES // 4)
def test_no_secret_is_sent_anywhere(uri: str, make_trial: Callable[..., Trial]) -> None:
    records = _Records()
    logger, store = logging.getLogger("dms_bench"), Store()
    suite = Suite.model_construct(name="paper", description=f"Results are in {uri}", tracking=uri, experiments=[])
    trial = make_trial(supernet={"model": "resnet18", "args": {"weights": uri}})
    with pytest.MonkeyPatch.context() as patch:
        for module in (store_module, trial_run_module):
            patch.setattr(module, "make_client", lambda uri: store)
            patch.setattr(module, "resolve_uri", lambda uri: uri)
        for name in ("resolve_uri", "sqlite_path"):
            patch.setattr(
                suite_run_module, name, {"resolve_uri": lambda uri: uri, "sqlite_path": lambda uri: None}[name]
            )
        patch.setattr(suite_run_module, "connect", lambda uri, create=False: store)
        patch.setattr(logger, "handlers", [records])
        environment = {"command": command_line(["x", "run", "--tracking", uri])}
        run = open_suite(uri, suite, environment)
        own = TrialRun(uri, "1", "p", trial, environment)
        assert own.run_id == "r"
        run.show({"top1": True})
        run.describe(f"The results of {uri} are in a table")
        records.said.append(run.address)
        own.finish(RESULT, lambda trial, result, run_id: f"{trial.supernet.args} of {uri}")
        own.fail(f"RuntimeError: {uri} does not answer")
        store.error = RuntimeError(f"cannot reach {uri}")
        for act in (run.finish, lambda: own.fail(""), lambda: open_suite(uri, suite, environment)):
            with pytest.raises((UserError, TrackingLost)) as caught:
                act()
            records.said.append(str(caught.value))
            assert caught.value.__cause__ is None
        own.log("search", 1, {"loss": 1.0})
        for address in ("http://127.0.0.1:8265", "http://ann:pw@far:8265"):
            try:
                records.said.append(submit.entrypoint(suite, Path("x.yaml"), address))
            except UserError as error:
                records.said.append(str(error))
    assert len(records.said) >= 5
    assert store.sent
    _without_secret([repr(sent) for sent in store.sent])
    _without_secret(records.said)


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(logging.Formatter().format(record))


def test_a_failure_on_disk_holds_no_secret(
    tmp_path: Path, make_trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"postgresql://ann:a/{MARK}@host/db"
    work = Work(
        kind="trial", trial=make_trial(), suite_folder=tmp_path, uri=uri,
        experiment_id="1", parent_id="p", environment={},
    )  # fmt: skip

    def fails(*_: object) -> None:
        raise RuntimeError(f"invalid literal for int() with base 10: 'a/{MARK}'")

    monkeypatch.setattr(worker, "do_part", fails)
    monkeypatch.setattr(worker, "_publish_failure", lambda work: None)
    worker.carry_out(work, lambda report: None)
    assert work.folder.failure() == "RuntimeError: invalid literal for int() with base 10: '***'"
    details = (work.folder.path / "failure.json").read_text()
    assert "Traceback" in details
    _without_secret(details)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ann:s3c/r@t@host:80/x?timeout=9&view=all", "https://***@host:80/x?timeout=9&view=all"),
        ("postgresql://h/db?sslmode=require&password=1234&a=1", "postgresql://h/db?sslmode=require&password=***&a=1"),
        ("sqlite:////home/ann/mlflow.db", "sqlite:////home/ann/mlflow.db"),
        ("sqlite:////a/b.db?timeout=9", "sqlite:////a/b.db?timeout=9"),
        ("Driver={x};UID=sa;PWD={s3c;ret};Server=h", "Driver={x};UID=***;PWD=***;Server=h"),
        ("a plain text, ratio: 1:2, me@here.org", "a plain text, ratio: 1:2, me@here.org"),
        ("mail ann:s3cret@host", "mail ***@host"),
        ('{"password": "s3cret", "user": "ann"}', '{"password": "***", "user": "***"}'),
        ("tokenizer=bpe", "tokenizer=bpe"),
    ],
)
def test_what_is_no_secret_stays_readable(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_addresses_that_are_written_wrong_say_how_to_write_them() -> None:
    with pytest.raises(UserError, match=r"tracking 'http://\*\*\*@host': .*write / as %2F") as caught:
        resolve_uri("http://ann:s3c/ret@host")
    assert "s3c" not in str(caught.value)
    with pytest.raises(UserError, match="write / as %2F"):
        resolve_uri("http://ann:[s3cret@host")
    assert resolve_uri("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx") == "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx"
