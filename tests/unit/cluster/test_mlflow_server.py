"""The MLflow server: its compose file by the schema of Compose, its Python run, its command parsed by MLflow."""

import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import check_jsonschema
import pytest
import yaml
from jsonschema.validators import validator_for

from tests.unit.cluster.parsing import CLUSTER, commands, parse

COMPOSE = yaml.safe_load((CLUSTER / "mlflow" / "compose.yaml").read_text())
DEPLOYMENT = next(
    document
    for document in yaml.safe_load_all((CLUSTER / "mlflow" / "kubernetes.yaml").read_text())
    if document["kind"] == "Deployment"
)
CONTAINER = DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]
SCRIPTS = {"compose": COMPOSE["services"]["mlflow"]["command"][-1], "kubernetes": CONTAINER["args"][-1]}


def problems(document):
    path = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text())
    return [error.message for error in validator_for(schema)(schema).iter_errors(document)]


def test_the_compose_file_is_valid():
    assert problems(COMPOSE) == []
    assert problems(COMPOSE | {"service": {}})


def test_only_this_machine_reaches_the_server_and_secrets_must_be_given():
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:5000:5000"]
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name or "SECRET" in name:
                assert re.fullmatch(r"\$\{[A-Z0-9_]+:\?in \.env\}", value), name
    needed = set(re.findall(r"\$\{([A-Z0-9_]+):", (CLUSTER / "mlflow" / "compose.yaml").read_text()))
    assert set(re.findall(r"([A-Z0-9_]+)=%s", (CLUSTER / "mlflow" / "README.md").read_text())) == needed
    assert ".env" in (CLUSTER.parent / ".gitignore").read_text().split()


def test_the_image_is_built_from_the_dockerfile():
    build = COMPOSE["services"]["mlflow"]["build"]
    context = (CLUSTER / "mlflow" / build["context"]).resolve()
    assert context == CLUSTER.parent
    assert (context / build["dockerfile"]).exists()


@pytest.mark.parametrize("where", SCRIPTS)
def test_mlflow_takes_the_command(where):
    subprocess.run(["bash", "-n", "-c", SCRIPTS[where]], check=True)
    (words,) = commands(SCRIPTS[where], "exec mlflow")
    options = parse("mlflow", words)
    assert options["backend_store_uri"].startswith("postgresql+psycopg://mlflow@")
    assert "password" not in SCRIPTS[where].lower()
    assert options["artifacts_destination"] == "s3://mlflow"
    assert "mlflow:5000" in options["allowed_hosts"]


@pytest.mark.parametrize("where", SCRIPTS)
@pytest.mark.parametrize("there", [True, False])
def test_the_bucket_is_made_once(where, there):
    """The script's own Python, against a server that speaks as much S3 as it needs."""
    code = re.search(r'python -c "\n(.*?)"\n', SCRIPTS[where], re.DOTALL)[1]
    asked = []

    class S3(BaseHTTPRequestHandler):
        def do_GET(self):
            bucket = "<Bucket><Name>mlflow</Name></Bucket>" if there else ""
            self.answer(f"<ListAllMyBucketsResult><Buckets>{bucket}</Buckets></ListAllMyBucketsResult>")

        def do_PUT(self):
            self.answer("")

        def answer(self, text):
            asked.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), S3)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        environment = {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "mlflow",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    finally:
        server.shutdown()
    assert [line.split("?")[0] for line in asked] == ["GET /"] + ["PUT /mlflow"] * (not there)


def test_commands_in_the_readme_parse():
    text = (CLUSTER / "mlflow" / "README.md").read_text()
    found = commands(text, "dms-bench")
    assert found
    for words in found:
        parse("dms-bench", words)
    assert shlex.split(re.search(r"printf (.*?\.env)", text)[1])
