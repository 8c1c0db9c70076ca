"""A trial's network as a model of MLflow's, which `mlflow.pyfunc.load_model` opens with torch alone, without pickle.

It is written in the form of `mlflow.pytorch` with `serialization_format="pt2"`, around a program of torch.export that
was compared with the network: MLflow's own writer traces the network itself, and keeps an example input as JSON, of
megabytes for a picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dms_bench.tracking import names
from dms_bench.tracking.store import reason

if TYPE_CHECKING:
    from torch import Tensor

#: What a model is compared by on its page, beside its measures.
_METRICS = ("macs", "params", "latency_ms", "search_training_macs")
_MEASURES = ("test/", "val/")
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Ends:
    """What a program takes and gives: an example of each, [batch, ...]."""

    inputs: Tensor
    outputs: Tensor
    #: The number of samples that the program takes; None where it takes any.
    batch: int | None


#: Writes the program into a file.
Write = Callable[[Path], Ends]


def log_model(client: Any, uri: str, run_id: str, write: Write) -> None:
    """Log a finished trial's network, unless its run has one, and note with the run which it is, or why there is none.

    Args:
        client: of the store.
        uri: tracking URI.
        run_id: the trial's run.
        write: writes the network as a program of torch.export.
    """
    try:
        run = client.get_run(run_id)
        if names.LOGGED_MODEL in run.data.tags:
            return
        client.set_tag(run_id, names.LOGGED_MODEL, _logged(client, run, write))
    except Exception as error:  # of torch, MLflow, its stores, the disk: the result is published, whatever this is
        with suppress(Exception):
            client.set_tag(run_id, names.NO_MODEL, reason(error, uri)[:_LONGEST_REASON])


def _logged(client: Any, run: Any, write: Write) -> str:
    from mlflow.entities import LoggedModelOutput

    run_id, tags = run.info.run_id, run.data.tags
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "data").mkdir()
        ends = write(folder / "data" / "model.pt2")
        model = client.create_logged_model(
            run.info.experiment_id,
            name=re.sub(r"[^\w-]+", "-", run.info.run_name),
            source_run_id=run_id,
            model_type=tags[names.TASK],
            params={name: tags[tag] for name, tag in _PARAMS.items() if tags.get(tag)},
        )
        ready = False
        try:
            _describe(folder, model, run_id, ends)
            client.log_model_artifacts(model.model_id, str(folder))
            ready = True
        finally:
            client.finalize_logged_model(model.model_id, "READY" if ready else "FAILED")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.log_batch(run_id, metrics=_metrics(client, run, model.model_id))
    return str(model.model_id)


#: What tells models apart on their pages.
_PARAMS = {
    "budget": names.BUDGET,
    "method": names.METHOD_LABEL,
    "seed": names.SEED,
    "model": names.MODEL,
    "pipeline": names.PIPELINE,
    "trial": names.TRIAL,
}


def _describe(folder: Path, model: Any, run_id: str, ends: Ends) -> None:
    """Write what MLflow reads before it opens the program."""
    import torch
    from mlflow import pyfunc, pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(tensor: Tensor) -> Schema:
        shape = (-1 if ends.batch is None else ends.batch, *tensor.shape[1:])
        return Schema([TensorSpec(tensor.numpy().dtype, shape)])

    written = Model(
        artifact_path=model.artifact_location,
        run_id=run_id,
        model_id=model.model_id,
        signature=ModelSignature(schema(ends.inputs), schema(ends.outputs)),
    )
    pyfunc.add_to_model(
        written,
        loader_module="mlflow.pytorch",
        data="data",
        conda_env="conda.yaml",
        model_config={"device": "cpu"},  # where the program was traced: it cannot be moved
    )
    written.add_flavor("pytorch", model_data="data", pytorch_version=str(torch.__version__), code=None)
    written.save(str(folder / "MLmodel"))
    requirements = pytorch.get_default_pip_requirements()
    (folder / "requirements.txt").write_text("\n".join(["mlflow", *requirements]) + "\n")
    # JSON is YAML.
    (folder / "conda.yaml").write_text(json.dumps(pytorch.get_default_conda_env(), indent=1))


def _metrics(client: Any, run: Any, model_id: str) -> list[Any]:
    """Return the run's results as they were logged, said of the model as well."""
    from mlflow.entities import Metric

    datasets = [found.dataset for found in run.inputs.dataset_inputs]
    data = {"dataset_name": datasets[0].name, "dataset_digest": datasets[0].digest} if datasets else {}
    of_model = []
    for name in run.data.metrics:
        if name in _METRICS or name.startswith(_MEASURES):
            last = client.get_metric_history(run.info.run_id, name)[-1]
            of = data if name.startswith(_MEASURES) else {}
            of_model.append(Metric(name, last.value, last.timestamp, last.step, model_id=model_id, **of))
    return of_model
