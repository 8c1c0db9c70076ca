"""A trained network in all its forms: what is written computes what it should, and says what was seen."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import dms_bench
from dms_bench.deploy import files as deploy_files
from dms_bench.deploy.accuracy import top1
from dms_bench.deploy.compare import Comparison
from dms_bench.deploy.eager_int8 import quantised
from dms_bench.deploy.export import Exported, Forms, export
from dms_bench.deploy.files import Files
from dms_bench.deploy.table import render
from dms_bench.errors import UserError
from dms_bench.inference import runtimes
from dms_bench.inference.timing import medians, ratios, rounds
from dms_bench.report.records import read_records
from dms_bench_tasks.classification import digits
from dms_bench_tasks.classification.data_spec import DigitsData

#: Of the task in `digits_trial`.
SIZE, CHANNELS = 32, 3


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a split as the card says that inputs are made: float32 [n, 3, 32, 32]; and the labels."""
    train, _ = digits.load(DigitsData(), "train", SIZE, CHANNELS)
    images, labels = digits.load(DigitsData(), split, SIZE, CHANNELS)
    mean, deviation = train.astype(np.float64).mean(), train.astype(np.float64).std(ddof=1)
    return ((images - mean) / deviation).astype(np.float32), labels


@pytest.fixture(scope="module")
def calibrators() -> list[np.ndarray]:
    """What ONNX Runtime's quantiser was given in the export of this module."""
    return []


@pytest.fixture(scope="module")
def exported(
    trained: tuple[str, str], calibrators: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Exported]:
    """Everything, with the comparison, once; and the folder."""
    import onnxruntime.quantization as quantization

    real = quantization.quantize_static

    class Kept:
        def __init__(self, reader) -> None:
            self.reader = reader

        def get_next(self):
            batch = self.reader.get_next()
            calibrators.extend([] if batch is None else batch.values())
            return batch

    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            quantization, "quantize_static", lambda i, o, reader, **options: real(i, o, Kept(reader), **options)
        )
        patch.setattr("dms_bench.inference.timing._ENOUGH_SECONDS", 0.5)
        return folder, export(*trained, folder, forms=Forms(compare=True))


def test_everything_is_written_and_listed(exported: tuple[Path, Exported]) -> None:
    folder, found = exported
    expected = {"architecture.json", "weights.safetensors", "model.pt2", "README.md", "model.onnx", "model.xml"}
    expected |= {"model.bin", "model.int8.onnx", "model.int8.xml", "model.int8.bin"}
    assert {file.path.name for file in found.files} == expected == {path.name for path in folder.iterdir()}
    assert found.notes == []
    card = (folder / "README.md").read_text()
    assert {name for name in expected if f"`{name}`" in card} == expected - {"README.md"}


def test_single_precision_is_the_network_itself_in_every_runtime(exported: tuple[Path, Exported]) -> None:
    import openvino

    folder, _ = exported
    inputs, _ = pictures("test")
    with torch.no_grad():
        expected = dms_bench.load(folder)(torch.from_numpy(inputs)).numpy()
        program = torch.export.load(folder / "model.pt2").module()(torch.from_numpy(inputs)).numpy()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    by_onnx = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    compiled = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for found in (program, by_onnx, compiled(inputs)[0]):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_eight_bits_hold_int8_weights_by_channel(exported: tuple[Path, Exported]) -> None:
    folder, _ = exported
    graph = onnx.load(folder / "model.int8.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") > 10
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    read = {node.output[0]: node.input for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    convolutions = [node for node in layers if node.op_type == "Conv"]
    whole = [module for module in dms_bench.load(folder).modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == len(whole)
    for node in layers:
        weight, scale = (values[name] for name in read[node.input[1]][:2])
        assert weight.dtype == np.int8
        assert len(np.unique(weight)) > 2
    for node in convolutions:
        weight, scale = (values[name] for name in read[node.input[1]][:2])
        assert scale.shape == weight.shape[:1]
    in_fp32 = [value for value in values.values() if value.dtype == np.float32 and value.ndim > 1]
    assert not in_fp32  # no weight is there a second time


def test_calibration_sees_training_pictures_alone(
    exported: tuple[Path, Exported], calibrators: list[np.ndarray]
) -> None:
    def keys(images: np.ndarray) -> list[bytes]:
        return [np.round(image * 100).astype(np.int32).tobytes() for image in images]

    seen = keys(np.concatenate(calibrators))
    held = {split: set(keys(pictures(split)[0])) for split in ("train", "val", "test")}
    assert len(seen) == 256 == len(set(seen))
    assert set(seen) <= held["train"]
    assert not set(seen) & (held["test"] | held["val"])
    assert exported[1].comparison.calibration == 256


def test_the_comparison_measures_what_the_trial_measured(
    trained: tuple[str, str], exported: tuple[Path, Exported]
) -> None:
    folder, found = exported
    (record,) = read_records(trained[0])
    rows = {(row.precision, row.runtime): row for row in found.comparison.rows}
    assert list(rows) == [(bits, name) for bits in ("fp32", "int8") for name in ("PyTorch", "ONNX Runtime", "OpenVINO")]
    assert record.metrics["test/top1"] > 60  # it has learnt something, so that the rest says something
    inputs, labels = pictures("test")
    assert found.comparison.pictures == len(labels) == record.metrics["test/n"]
    for runtime in ("PyTorch", "ONNX Runtime", "OpenVINO"):
        assert rows["fp32", runtime].top1 == pytest.approx(record.metrics["test/top1"])
    session = onnxruntime.InferenceSession(str(folder / "model.int8.onnx"))
    scores = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    own = 100 * float((scores.argmax(1) == labels).mean())
    assert rows["int8", "ONNX Runtime"].top1 == pytest.approx(
        own, abs=0.6
    )  # two pictures: other kernels, other threads
    for row in rows.values():
        assert abs(row.top1 - record.metrics["test/top1"]) < 6
        assert row.latency_ms > 0
    assert rows["fp32", "PyTorch"].ratio == 1
    assert rows["fp32", "PyTorch"].size == (folder / "weights.safetensors").stat().st_size
    for bits, suffix in (("fp32", ""), ("int8", ".int8")):
        assert rows[bits, "ONNX Runtime"].size == (folder / f"model{suffix}.onnx").stat().st_size
        both = [(folder / f"model{suffix}.{ending}").stat().st_size for ending in ("xml", "bin")]
        assert rows[bits, "OpenVINO"].size == sum(both)
    weights = sum(value.numel() for value in dms_bench.load(folder).parameters())
    assert rows["int8", "PyTorch"].size < 4 * weights  # or nothing was made smaller


def test_the_card_has_the_figures_and_where_they_come_from(
    trained: tuple[str, str], exported: tuple[Path, Exported]
) -> None:
    card = (exported[0] / "README.md").read_text()
    (record,) = read_records(trained[0])
    said = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", card, re.MULTILINE))
    assert said["top1 [%], test"] == f"{record.metrics['test/top1']:.1f}"
    assert (said["n, test"], said["seed"], said["commit"], said["budget"]) == ("360", "1", "0123abcd", "macs 50%")
    assert said["trial"] == record.hash
    train, _ = digits.load(DigitsData(), "train", SIZE, CHANNELS)
    mean, deviation = re.search(r"from 0 to 255, less ([\d.]+), divided by ([\d.]+)", said["input"]).groups()
    assert float(mean) == pytest.approx(train.mean(), rel=1e-5)
    assert float(deviation) == pytest.approx(train.std(ddof=1), rel=1e-5)
    assert '"name": "digits"' in card
    assert "- timm: Apache-2.0" in card
    measured = exported[1].comparison.rows[1]
    assert f"| fp32 | ONNX Runtime | {measured.top1:.1f} |" in card


def test_the_comparison_as_csv_has_full_figures(exported: tuple[Path, Exported]) -> None:
    comparison = exported[1].comparison
    rows = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    assert [float(row["latency_ms"]) for row in rows] == [row.latency_ms for row in comparison.rows]
    assert {row["pictures"] for row in rows} == {"360"}


def test_the_line_on_eight_bits_says_what_was_measured(exported: tuple[Path, Exported]) -> None:
    (about,) = (file.about for file in exported[1].files if file.path.name == "model.int8.onnx")
    assert re.fullmatch(
        r"top-1 [\d.]+ % of 360 validation samples, [\d.]+ % in single precision; calibrated with 256 training samples",
        about,
    )


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    real = runtimes.find_spec
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "openvino" else real(name))


def test_a_missing_openvino_is_one_line(trained: tuple[str, str], tmp_path: Path, without_openvino: None) -> None:
    with pytest.raises(UserError, match=r"^OpenVINO needs openvino: install dms-bench\[openvino\]$"):
        export(*trained, tmp_path, forms=Forms(openvino=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["", "mine"])
def test_a_file_of_the_users_own_is_not_replaced(
    trained: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(UserError, match="folder to write into"):
        export(*trained, output)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "README.md"]
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


class _Task:
    """Two classes, told apart by the sign of the first feature; a network of as many features as one likes."""

    def example_input(self, batch: int = 2) -> torch.Tensor:
        return torch.randn(batch, 8, generator=torch.Generator().manual_seed(0))

    def labelled(self, model: nn.Module, split: str, most: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        seed = ("train", "val", "test").index(split)
        inputs = torch.randn(min(most, 100), 8, generator=torch.Generator().manual_seed(seed))
        yield inputs, (inputs[:, 0] > 0).long()


class _Plain:
    """A task that has nothing to calibrate on."""

    example_input = _Task.example_input


def _signs() -> nn.Module:
    network = nn.Sequential(nn.Linear(8, 2, bias=False))
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].weight[:, 0] = torch.tensor([-1.0, 1.0])
    return network.eval()


def test_a_file_that_is_refused_has_a_row_with_the_reason(tmp_path: Path, without_openvino: None, monkeypatch) -> None:
    from dms_bench.deploy.compare import compare

    monkeypatch.setattr("dms_bench.inference.timing._ENOUGH_SECONDS", 0.01)
    (tmp_path / "weights").write_bytes(b"1234")
    tried = []
    real = deploy_files.export_onnx
    monkeypatch.setattr(deploy_files, "export_onnx", lambda *arguments: tried.append(1) or real(*arguments))
    files = Files(_signs(), _Task(), tmp_path, tmp_path, ())
    found = compare(files.model, files.task, files, tmp_path / "weights")
    notes = {(row.precision, row.runtime): row.note for row in found.rows}
    assert (
        notes["fp32", "OpenVINO"] == notes["int8", "OpenVINO"] == "OpenVINO needs openvino: install dms-bench[openvino]"
    )
    assert [row.top1 for row in found.rows if row.runtime == "ONNX Runtime"] == [100, 100]
    assert len(tried) == 1
    assert "OpenVINO needs openvino" in str(render(found, "markdown"))


def test_eight_bits_that_lose_too_much_are_not_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        deploy_files, "onnx_runtime", lambda path: lambda inputs: torch.tensor([[1.0, 0]] * len(inputs))
    )
    files = Files(_signs(), _Task(), tmp_path, tmp_path, ())
    with pytest.raises(UserError, match=r"model\.int8\.onnx is not written: 8 bits take top-1 from 100\.0 % to \d"):
        _ = files.int8
    assert not (tmp_path / "model.int8.onnx").exists()


def test_a_task_without_labels_is_refused_in_one_line(tmp_path: Path) -> None:
    from dms_bench.deploy.compare import compare

    files = Files(_signs(), _Plain(), tmp_path, tmp_path, ())
    with pytest.raises(UserError, match=r"^--int8 and --compare are for networks that classify: .* with labels$"):
        _ = files.int8
    with pytest.raises(UserError, match=r"^--int8 and --compare are for networks that classify"):
        compare(files.model, files.task, files, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_top1_counts_what_is_right() -> None:
    batches = [(torch.eye(3), torch.tensor([0, 1, 0])), (torch.eye(3)[:1], torch.tensor([0]))]
    found = top1([lambda inputs: inputs, lambda inputs: -inputs], batches)
    assert (found.samples, found.top1[0]) == (4, 75.0)
    assert found.top1[1] == 25.0  # -eye: the first of the others, which is class 0 for the third row alone


def test_torch_ao_refuses_what_it_cannot_trace() -> None:
    class Depends(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match=r"^torch\.ao cannot quantise it: ") as caught:
        quantised(Depends(), [torch.ones(1, 2)], torch.ones(1, 2))
    assert "\n" not in str(caught.value)


def test_turns_are_interleaved_and_begin_one_later_each_round(monkeypatch) -> None:
    calls: list[int] = []
    threads: set[int] = set()
    clock = iter(range(100_000))

    def file(number: int):
        def predict(inputs: torch.Tensor) -> torch.Tensor:
            calls.append(number)
            threads.add(torch.get_num_threads())
            for _ in range(number):
                next(clock)
            return inputs

        return predict

    monkeypatch.setattr("dms_bench.inference.timing.time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("dms_bench.inference.timing._ENOUGH_SECONDS", 1.0)
    before = torch.get_num_threads()
    spent = rounds([file(0), file(1), file(2)], torch.ones(1))
    assert torch.get_num_threads() == before
    assert threads == {1}
    timed = calls[3 * 5 :]
    assert timed[:18] == [0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 0, 0, 2, 2, 0, 0, 1, 1]
    assert len(spent) == 15
    assert set(spent) == {(1000.0, 2000.0, 3000.0)}


def test_medians_and_ratios_are_by_round() -> None:
    spent = [(1.0, 2.0), (10.0, 5.0), (2.0, 8.0)]
    assert medians(spent) == [2.0, 5.0]
    assert ratios(spent) == [1.0, 2.0]  # of 2, 0.5 and 4, not 5 / 2


def test_the_table_shows_a_row_that_was_refused() -> None:
    from rich.console import Console

    from dms_bench.deploy.compare import Row

    rows = (Row("fp32", "PyTorch", 81.44, 1.5, 1.0, 110_000), Row("int8", "PyTorch", note="cannot be traced"))
    console = Console(width=140, file=io.StringIO())
    console.print(render(Comparison(rows, 360, 256, 20, "a processor", {"torch": "2"})))
    text = console.file.getvalue()
    assert re.search(r"fp32 +PyTorch +81\.4 +1\.50 ms +1\.00 x +0\.11 MB", text)
    assert re.search(r"int8 +PyTorch +- +- +- +- +cannot be traced", text)
    assert "256 samples of the training split" in text
