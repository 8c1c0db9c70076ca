"""What a run needs of this machine, tried out: kernels, Ray, disk, shared memory, ports, tracking store, versions."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dms_bench.errors import TrialFailure, UserError
from dms_bench.kernels.cases import cut_layers
from dms_bench.kernels.guard import endangered_case
from dms_bench.kernels.probe import ProbeGroup, probe
from dms_bench.runtime.findings import Finding, judge
from dms_bench.tracking.environment import cpu_name
from dms_bench.trial.storage import SuiteFolder, write_atomic

_GIB = 2**30
#: Below this much room a suite of networks with checkpoints gets into trouble, and below the other all do.
_SOME_ROOM, _LITTLE_ROOM = 5 * _GIB, _GIB // 2
#: What Ray's object store takes of shared memory (`session`); without it Ray falls back on the disk.
_SHARED = 100 * 2**20
_PORTS = {5000: "`make ui`", 8265: "Ray's dashboard"}
_PACKAGES = ("torch", "ray", "mlflow", "timm", "ultralytics", "transformers")


def examine(storage: str, uri: str) -> Iterator[Finding]:
    """Yield what is found, as it is found.

    Args:
        storage: folder where suites keep their files.
        uri: tracking URI.
    """
    for subject, look in (
        ("versions", _versions),
        ("kernels", _kernels),
        ("ray", _ray),
        ("storage", lambda: _storage(storage)),
        ("shared memory", _shared_memory),
        ("ports", _ports),
        ("tracking", lambda: _tracking(uri)),
    ):
        yield from _looked(subject, look)


def _looked(subject: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as error:  # whatever it is, it is what the doctor is asked for
        text = " ".join(str(error).split())[:300]
        return [Finding("error", subject, f"could not be checked: {type(error).__name__}: {text}", "see to that first")]


def _versions() -> list[Finding]:
    import platform

    import torch

    packages = []
    for name in _PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    built = re.findall(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", torch.backends.cpu.get_cpu_capability())
    cores = len(os.sched_getaffinity(0))
    return [
        Finding("ok", "versions", f"Python {platform.python_version()}, {', '.join(packages)}"),
        Finding(
            "ok", "processor", f"{cpu_name()}, {cores} cores, {isa}; {f'oneDNN {built[0]}' if built else 'no oneDNN'}"
        ),
    ]


def _kernels() -> list[Finding]:
    import torch

    findings = []
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        cases = tuple(cut_layers(device))
        threads = (1, 2) if device == "cpu" else (1,)
        # All other layers run the same code with the guard and without.
        bare = [ProbeGroup(tuple(filter(endangered_case, cases)), number, False) for number in threads]
        guarded = [ProbeGroup(cases, number, True) for number in threads]
        outcomes = probe([*bare, *guarded])
        name = "CPU, 1 and 2 threads" if device == "cpu" else torch.cuda.get_device_name()
        findings += judge(outcomes[: len(bare)], outcomes[len(bare) :], name)
    return findings


def _ray() -> list[Finding]:
    import time

    from dms_bench.runtime.session import ray_session

    start = time.monotonic()
    with ray_session():
        import ray

        process = ray.get(ray.remote(_own_process).remote(), timeout=60)
        room = ray.cluster_resources()
    assert process != os.getpid()
    resources = ", ".join(f"{room[kind]:g} {kind}s" for kind in ("CPU", "GPU") if kind in room)
    return [Finding("ok", "ray", f"starts and runs a task in {time.monotonic() - start:.0f} s; {resources}")]


def _own_process() -> int:
    return os.getpid()


def _storage(storage: str) -> list[Finding]:
    folder = Path(storage).expanduser().absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        if existing == folder:
            SuiteFolder(folder).check_room()
        else:  # nothing is left behind where no suite has run
            probe = existing / f".dms-bench-doctor-{os.getpid()}"
            write_atomic(probe, b"\0" * 2**16)
            probe.unlink()
    except (OSError, TrialFailure) as error:
        return [Finding("error", "storage", str(error), "choose another folder with `--storage`")]
    free = shutil.disk_usage(existing).free
    message = f"{folder}: {free / _GIB:.1f} GiB free"
    if free >= _SOME_ROOM:
        return [Finding("ok", "storage", message)]
    return [Finding("error" if free < _LITTLE_ROOM else "warning", "storage", message, "make room, or use `--storage`")]


def _shared_memory() -> list[Finding]:
    free = shutil.disk_usage("/dev/shm").free
    message = f"/dev/shm: {free / 2**20:.0f} MiB free, Ray wants {_SHARED / 2**20:.0f}"
    if free >= _SHARED:
        return [Finding("ok", "shared memory", message)]
    advice = "give the container more (`docker run --shm-size=1g`); Ray uses the slower disk instead"
    return [Finding("warning", "shared memory", message, advice)]


def _ports() -> list[Finding]:
    taken = []
    for port, user in _PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(f"{port} ({user})")
    if not taken:
        return [Finding("ok", "ports", ", ".join(f"{port} free for {user}" for port, user in _PORTS.items()))]
    advice = "fine if that is what runs there; else `make ui PORT=...`"
    return [Finding("warning", "ports", f"in use: {', '.join(taken)}", advice)]


def _tracking(uri: str) -> list[Finding]:
    from dms_bench import tracking
    from dms_bench.tracking import shown

    try:
        tracking.check(uri)
    except UserError as error:
        return [Finding("error", "tracking", str(error), "name a store that answers with `--tracking`")]
    return [Finding("ok", "tracking", f"{shown(tracking.resolve_uri(uri))} can be used")]
