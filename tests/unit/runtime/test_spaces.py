"""Search spaces on disk: they come back as they were, and only for what they were found for."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import timm
import torch

from dms_bench.config.plugins import TASKS, parse_plugin
from dms_bench.config.supernet import SupernetSpec
from dms_bench.config.task import TaskSpec
from dms_bench.scaling import Coarse, Supernet, cut, find_space
from dms_bench.trial import spaces
from dms_bench.trial.space_file import DamagedError, from_bytes, to_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spaces._find.cache_clear()
    return tmp_path / "dms_bench" / "spaces"


@pytest.fixture
def found(monkeypatch) -> list[str]:
    """Names of the supernets whose space was found, not read."""
    names: list[str] = []
    original = spaces.find_specified

    def find(model, example, wanted):
        names.append(type(model).__name__)
        return original(model, example, wanted)

    monkeypatch.setattr(spaces, "find_specified", find)
    return names


def ask(**supernet):
    spaces._find.cache_clear()
    task = parse_plugin(TASKS, {"kind": "toy", "width": 12})
    return spaces.space_of(task, SupernetSpec(model="mlp", **supernet))


def test_a_file_that_describes_the_network_counts_by_its_content(found, monkeypatch):
    toy = type(parse_plugin(TASKS, {"kind": "toy", "width": 12}))
    for says in ("one", "other", "one"):
        monkeypatch.setattr(toy, "local_model", lambda self, supernet, says=says: says)
        ask()
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "size", "attention"), [("test_vit", 32, "dims"), ("test_vit", 32, "both"), ("levit_128s", 64, "heads")]
)
def test_a_space_comes_back_as_it_was(name, size, attention):
    torch.manual_seed(0)
    model, example = timm.create_model(name, num_classes=5, img_size=size).eval(), torch.randn(2, 3, size, size)
    coarse = [Coarse(stages="blocks*", max=3)] if name == "test_vit" else []
    space = find_space(model, example, coarse=coarse, attention=attention)
    again = from_bytes(to_bytes(space, "key"), "key")
    assert (again.groups, again.stages, again.units, again.excluded) == (
        *(space.groups, space.stages, space.units, space.excluded),
    )
    assert (again.seconds, again.proof_error, again.patched) == (space.seconds, space.proof_error, space.patched)
    assert again.outer_elements.keys() == space.outer_elements.keys()
    mask = space.full()
    for start, size_ in zip(space.units.starts[: len(space.groups)], space.units.sizes, strict=False):
        mask[start : start + size_ // 2] = 0
    architecture = space.architecture(mask)
    assert again.architecture(mask) == architecture
    with torch.no_grad():
        expected, small = cut(model, space, architecture).eval()(example), cut(model, again, architecture).eval()
        assert torch.equal(small(example), expected)
        net = Supernet(model, again).eval()
        with net.fixed(mask):
            torch.testing.assert_close(net(example), expected, rtol=1e-4, atol=1e-4)


def test_a_space_is_found_once(cache, found):
    first, again = ask(), ask()
    assert len(found) == 1
    assert again.units == first.units
    assert again.seconds == first.seconds > 0
    assert len(list(cache.iterdir())) == 1


def test_what_a_space_depends_on_is_in_its_name(cache, found, monkeypatch):
    ask()
    ask(checkpoint="weights.safetensors")  # weights do not matter
    assert len(found) == 1
    ask(space={"round_to": 4})
    ask(space={"coarse": [{"groups": "*", "step": 2}]})
    ask(args={"anything": 1})
    assert len(found) == 4
    monkeypatch.setattr(spaces, "_digest", lambda files: "other code")
    ask()
    monkeypatch.setattr(spaces, "version", lambda name: "99")
    ask()
    assert len(found) == len(list(cache.iterdir())) == 6


def test_a_space_depends_on_the_code_of_its_task(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    class Mine(TaskSpec):
        implementation = "task_of_mine:Task"

    network = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    space = find_space(network, torch.randn(2, 4))
    for code, known in (("width = 1", False), ("width = 1", True), ("width = 2", False)):
        (folder / "task_of_mine.py").write_text(code)
        assert spaces.cached({}, Mine, lambda: space)[1] is known


def test_a_network_behind_an_address_is_not_kept(cache, found, monkeypatch):
    task = parse_plugin(TASKS, {"kind": "toy", "width": 12})
    implementation = task.load_implementation()
    original = implementation.build
    named = SupernetSpec(model="mlp")
    monkeypatch.setattr(implementation, "build", lambda self, supernet: original(self, named))
    spaces.space_of(task, SupernetSpec(model="hf-hub:mlp"))
    assert len(found) == 1
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["cut off", "a bit", "empty", "text", "another's"])
def test_a_damaged_file_is_written_anew(cache, found, damage):
    space = ask()
    (file,) = cache.iterdir()
    good = file.read_bytes()
    file.write_bytes(
        {
            "cut off": good[:-7],
            "a bit": good[:-1] + bytes([good[-1] ^ 1]),  # of a number, not of the form
            "empty": b"",
            "text": b"{}" * 100,
            "another's": to_bytes(space, "another key"),
        }[damage]
    )
    assert ask().units == space.units
    assert len(found) == 2
    assert file.read_bytes() == good or from_bytes(file.read_bytes(), _key(file)).units == space.units
    ask()
    assert len(found) == 2


def _key(file: Path) -> str:
    body = file.read_bytes()[32:]
    header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    return json.loads(header["__metadata__"]["content"])["key"]


def test_other_content_of_the_same_form_is_refused():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2)).eval()
    data = to_bytes(find_space(model, torch.randn(1, 4)), "one")
    with pytest.raises(DamagedError, match="something else"):
        from_bytes(data, "other")


def test_a_cache_that_cannot_be_written_is_none(tmp_path, found, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ask().units == ask().units
    assert len(found) == 2


def _write(number: int) -> None:
    torch.set_num_threads(1)
    for _ in range(20):
        spaces._find.cache_clear()
        for file in spaces._folder().glob("*.space"):
            file.write_bytes(b"damaged") if number == 0 else None
        ask()


def test_two_processes_may_write_at_once(cache, found):
    expected = ask()
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert ask().units == expected.units
