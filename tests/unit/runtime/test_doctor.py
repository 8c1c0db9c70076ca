"""What the doctor makes of what it finds; the kernels are really tried, on few layers."""

import platform
from dataclasses import replace

import pytest

from dms_bench import cli
from dms_bench.kernels.cases import Case
from dms_bench.kernels.probe import Outcome, probe
from dms_bench.runtime import doctor
from dms_bench.runtime.findings import Finding, judge

ENDANGERED = Case(8, (28, 28), 3, 22, (1, 1), (2, 2), (0, 0), (1, 1), layout="channels-last")
OTHER = replace(ENDANGERED, kernel=(3, 3))
RIGHT = Outcome(tried=1, asked=1)


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Only few layers, no Ray: what remains takes seconds."""
    monkeypatch.setattr(doctor, "cut_layers", lambda device: [OTHER, *(replace(ENDANGERED, inputs=n) for n in (3, 7))])
    monkeypatch.setattr(doctor, "_ray", lambda: [Finding("ok", "ray", "left out")])
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the fault is in kernels for x86 processors")
def test_a_fault_that_the_guard_covers_is_a_warning(few, capsys, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    code = cli._main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0, lines
    (line,) = [line for line in lines if line.startswith("warning kernels")]
    assert "PyTorch's own kernel is wrong here: " in line
    assert "strided 1x1 convolution" in line
    assert "uxlfoundation/oneDNN issue 6035); dms_bench runs such layers in contiguous layout: checked, right" in line


def test_a_wrong_kernel_that_nothing_covers_is_an_error(few, capsys, monkeypatch):
    spoilt = lambda groups: probe([replace(group, spoil="weight gradient") for group in groups])  # noqa: E731
    monkeypatch.setattr(doctor, "probe", spoilt)
    assert cli._main(["doctor"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    assert "strided 3x3 convolution 3 -> 22" in line
    assert "weight gradient off by 0.5" in line
    assert "try another version of torch" in line


def test_a_bad_store_and_a_check_that_breaks_are_errors(few, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_kernels", lambda: 1 / 0)
    assert cli._main(["doctor", "--tracking", "http://127.0.0.1:1"]) == 1
    out = capsys.readouterr().out
    assert "error   kernels: could not be checked: ZeroDivisionError" in out
    assert "error   tracking: tracking http://127.0.0.1:1: nothing listens there" in out
    assert out.splitlines()[-1].startswith("2 errors")


def test_little_room_and_taken_ports_are_warnings(monkeypatch, tmp_path):
    import shutil
    import socket

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, 2**20))
    assert [finding.level for finding in (*doctor._storage(str(tmp_path)), *doctor._shared_memory())] == [
        "error",
        "warning",
    ]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "_PORTS", {taken.getsockname()[1]: "`make ui`"})
        (finding,) = doctor._ports()
    assert finding.level == "warning"
    assert list(tmp_path.iterdir()) == []


def test_only_the_known_fault_is_called_so():
    wrong = {"weight gradient": 0.5}
    known, _ = judge([Outcome([(ENDANGERED, wrong)], [], 1)], [RIGHT], "CPU")
    other, _ = judge([Outcome([(OTHER, wrong)], [], 1)], [RIGHT], "CPU")
    assert "oneDNN" in known.message
    assert "oneDNN" not in other.message
    (death,) = judge([RIGHT], [Outcome([], [(OTHER, "SIGSEGV", "")], 1)], "CPU")
    assert death.level == "error"


def test_what_could_not_be_tried_in_time_is_counted_and_what_was_found_is_kept():
    found = Outcome([(ENDANGERED, {"weight gradient": 0.9})], [], 1, 1)
    known, left = judge([found], [RIGHT, Outcome(asked=7)], "CPU")
    assert (known.level, left.level) == ("warning", "warning")
    assert "weight gradient off by 0.9" in known.message
    assert left.message == "CPU: 1 layers, output and gradients right; 7 were not tried for want of time"
