"""The faults: each disturbs a suite under way, sees it to its end, and says what it did.

A fault is a function of an arena (and what it needs beside). Only processes that the campaign has started are
touched, by their ids.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.faults.arena import EPOCHS, Arena, BrokenPromiseError, descendants
from tests.faults.places import Disk, Server

Fault = Callable[[Arena], str]


def driver(arena: Arena) -> str:
    """`kill -9` of the driver; the same command goes on."""
    process = arena.start()
    moment = arena.anywhere()
    process.kill()
    process.communicate()
    arena.finish()
    return moment


def actor(arena: Arena) -> str:
    """`kill -9` of a process that trains; Ray starts it again."""
    process = arena.start()
    moment = arena.anywhere()
    trainer = _kill_trainer(arena, process)
    return f"{moment}, {trainer}; {_to_the_end(arena, process)}"


def raylet(arena: Arena) -> str:
    """`kill -9` of the node's raylet; what it started ends, and the driver starts another Ray."""
    process = arena.start()
    moment = arena.anywhere()
    raylets = descendants(process.pid, "raylet")
    for found in raylets:
        found.kill()
    return f"{moment}, {len(raylets)} killed; {_to_the_end(arena, process)}"


def cut_checkpoint(arena: Arena) -> str:
    """The newest checkpoint of a stage cut short, while nothing runs."""
    return _damage(arena, lambda content: content[: arena.random.randrange(len(content))], "cut short")


def flipped_bytes(arena: Arena) -> str:
    """Bytes of the newest checkpoint flipped, while nothing runs."""

    def flip(content: bytes) -> bytes:
        places = {arena.random.randrange(len(content)) for _ in range(3)}
        return bytes(byte ^ 0xFF if place in places else byte for place, byte in enumerate(content))

    return _damage(arena, flip, "flipped")


def clock(arena: Arena) -> str:
    """The clock of the processes that train jumps by up to a week, forwards or backwards."""
    seconds = arena.random.choice([-1, 1]) * arena.random.randrange(60, 7 * 86400)
    epoch = arena.random.randint(1, 3)
    arena.environment["TOY_CLOCK"] = f"{epoch} {seconds}"
    process = arena.start()
    return f"by {seconds} s in epoch {epoch}; {_to_the_end(arena, process)}"


def second_driver(arena: Arena) -> str:
    """A second driver on the same suite: it refuses."""
    process = arena.start()
    moment = arena.anywhere()
    code, output = arena.end(arena.start())
    if code != 2 or "is already running" not in output:
        raise BrokenPromiseError(f"the second driver ended with {code}: {output[-300:]}")
    return f"{moment}: refused; {_to_the_end(arena, process)}"


def server_killed(server: Server) -> Fault:
    """`kill -9` of the MLflow server, which comes back."""

    def fault(arena: Arena) -> str:
        process = arena.start()
        moment = arena.anywhere()
        server.kill()
        server.start()
        return f"{moment}; {_to_the_end(arena, process)}"

    return fault


def server_away(server: Server, seconds: float) -> Fault:
    """The MLflow server does not answer for a while."""

    def fault(arena: Arena) -> str:
        process = arena.start()
        moment = arena.anywhere()
        server.silent(seconds)
        return f"{moment}, for {seconds:g} s; {_to_the_end(arena, process)}"

    return fault


def full_disk(disk: Disk) -> Fault:
    """The disk with the suite's storage is full, until somebody makes room."""

    def fault(arena: Arena) -> str:
        process = arena.start()
        moment = arena.anywhere()
        disk.fill()
        try:
            code, _ = arena.end(process)
        finally:
            disk.make_room()
        if code == 0:
            return f"{moment}: nothing more to write"
        arena.finish()
        return f"{moment}: ended with {code}; the same command"

    return fault


def _kill_trainer(arena: Arena, process: subprocess.Popen[str]) -> str:
    """Kill one of the processes that wrote the journal and still live below the driver."""
    writers = {pid for pid, _, _ in arena.lines("epoch")}
    living = [found for found in descendants(process.pid) if found.pid in writers]
    if not living:
        return "none left"
    chosen = arena.random.choice(living)
    try:
        chosen.kill()
    except psutil.NoSuchProcess:
        return "just ended"
    return "killed"


def _to_the_end(arena: Arena, process: subprocess.Popen[str]) -> str:
    """See a disturbed run to its end, giving the command again where it ended early; returns how."""
    code, _ = arena.end(process)
    if code == 0:
        return "went on by itself"
    arena.finish()
    return f"ended with {code}; the same command"


def _damage(arena: Arena, change: Callable[[bytes], bytes], how: str) -> str:
    """Kill the driver while a stage has two checkpoints, change the newer one, and go on."""
    process = arena.start()
    moment = arena.anywhere(left=sum(EPOCHS.values()))
    arena.wait_for(lambda: _pairs(arena) or process.poll() is not None, "two checkpoints")
    process.kill()
    process.communicate()
    for found in descendants(process.pid):
        found.wait()
    pairs = _pairs(arena)
    if not pairs:  # the stage has ended since
        arena.finish()
        return f"{moment}: no checkpoint left"
    newest = arena.random.choice(pairs)
    newest.write_bytes(change(newest.read_bytes()))
    arena.finish()
    return f"{moment}: {newest.parent.name}/{newest.name[:16]} {how}; the same command"


def _pairs(arena: Arena) -> list[Path]:
    """The newest checkpoint of each stage that has two."""
    stages = [sorted(path.glob("checkpoint-*.pt")) for trial in arena.trials() for path in trial.path.iterdir()]
    return [files[-1] for files in stages if len(files) >= 2]
