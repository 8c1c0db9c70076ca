"""A suite for a network and data that somebody brings: what is chosen, that it runs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from dms_bench import cli
from dms_bench.config import Resources, load_suite, resolve
from dms_bench.config.proposal import Brought, Choice, epochs_for, power_of_two
from dms_bench.config.write import commented, fields
from dms_bench.errors import UserError
from dms_bench.trial import begin as begin_module
from dms_bench.trial.group import alone
from dms_bench.trial.plan import plan, total_macs
from dms_bench.trial.run import run_trial
from dms_bench.trial.storage import WorkFolder
from dms_bench_tasks.classification import folders

#: The smallest network of timm; made for pictures of 160 x 160.
NET = "test_efficientnet"


def pictures(folder: Path, classes: dict[str, int], size: int = 40, mode: str = "RGB") -> None:
    rng = np.random.default_rng(0)
    for place, count in classes.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(256, size=(size, size + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / place / f"{number}.png")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def new(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Type `dms-bench new`: exit code, standard output, standard error."""

    def new(*arguments: str, model: str = NET, data: str = "pets") -> tuple[int, str, str]:
        code = cli._main(["new", "--model", model, "--data", data, *arguments])
        return code, *capsys.readouterr()

    return new


def content(path: str = "suite.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    return loaded


def test_a_folder_of_two_classes_becomes_a_suite_that_is_valid_and_whose_smoke_variant_runs(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "pets", {"cats": 30, "dogs": 20})
    code, out, err = new("--macs", "50%")
    assert (code, err) == (0, "")
    experiment = content()["experiments"][0]
    assert experiment["task"]["data"] | {"workers": 0} == {
        "name": "timm", "root": "pets", "classes": 2, "splits": {"train": ".", "val": None, "test": None},
        "val_fraction": 0.2, "test_fraction": 0.2, "workers": 0,
    }  # fmt: skip
    assert experiment["task"]["image_size"] == 32  # 40 is nearer to 32 than to 64
    assert experiment["budget"] == {"kind": "macs", "target": "50%"}
    assert experiment["sweep"]["grid"] == {"method": ["dms", "uniform", "random", "supernet"], "seed": [0, 1, 2]}

    lines = out.splitlines()
    assert lines[-2].startswith("dms-bench run suite.yaml --smoke")
    assert lines[-1].startswith("dms-bench run suite.yaml ")
    planned = plan(load_suite("suite.yaml"))
    assert len(planned) == 12
    assert f"12 trials, about {total_macs(planned):.2e} MACs of training" in out
    for field in ("task.kind", "task.image_size", "pipeline", "retrain", "budget", "sweep.grid.seed"):
        assert sum(line.startswith(f"{field}: ") and " - " in line for line in lines) == 1, field
    assert "50 pictures of 2 classes (cats, dogs)" in out
    assert cli._main(["validate", "suite.yaml"]) == 0
    assert "valid, 12 trials" in capsys.readouterr().out

    small = resolve(load_suite("suite.yaml", smoke=True))
    assert len(small) == 4
    for trial in small[:2]:
        result = run_trial(trial, WorkFolder(tmp_path / trial.name), alone(Resources()))
        assert result.metrics["n"] == 10  # a fifth of the pictures, which nothing was trained or chosen on


def test_home_is_a_tilde_in_every_path(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pictures(tmp_path / "home" / "pets", {"cats": 8, "dogs": 8})
    torch.save(timm.create_model(NET, num_classes=2).state_dict(), tmp_path / "home" / "own.pt")
    code, _, err = new("--checkpoint", "~/own.pt", "--output", "~/mine.yaml", data="~/pets")
    assert (code, err) == (0, "")
    experiment = content(str(tmp_path / "home" / "mine.yaml"))["experiments"][0]
    assert experiment["task"]["data"]["root"] == "~/pets"
    assert experiment["supernet"] == {"model": NET, "checkpoint": "~/own.pt"}
    assert experiment["pipeline"] == "DMSp"


def test_a_checkpoint_of_other_classes_gets_a_new_classifier_which_is_pretrained(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    pictures(tmp_path / "pets", {"cats": 8, "dogs": 8})
    torch.save({"state_dict": timm.create_model(NET, num_classes=7).state_dict()}, "own.pt")
    code, out, _ = new("--checkpoint", "own.pt")
    assert code == 0
    experiment = content()["experiments"][0]
    assert experiment["supernet"]["fresh_head"] is True
    assert "its classifier is drawn anew" in out
    rates = [experiment[stage]["lr"] for stage in ("pretrain", "search", "retrain")]
    torch.save(timm.create_model(NET, num_classes=2).state_dict(), "own.pt")
    assert new("--checkpoint", "own.pt", "--output", "same.yaml")[0] == 0
    assert "fresh_head" not in content("same.yaml")["experiments"][0]["supernet"]
    new("--output", "scratch.yaml")
    assert content("scratch.yaml")["experiments"][0]["retrain"]["lr"] == pytest.approx(10 * rates[0], rel=0.05)


@pytest.mark.parametrize(
    ("places", "splits", "said"),
    [
        (["train", "val", "test"], {"train": "train", "val": "val", "test": "test"}, ""),
        (["training", "validation"], {"train": "training", "val": None, "test": "validation"}, "validation is the"),
        (["train"], {"train": "train", "val": None, "test": None}, ""),
        (["train", "valid", "test."], {"train": "train", "val": None, "test": "valid"}, "test has no sub-folders"),
    ],
)
def test_splits_are_told_by_the_names_of_sub_folders(
    tmp_path: Path, places: list[str], splits: dict[str, str | None], said: str
) -> None:
    for place in places:
        unlabelled = place.endswith(".")
        pictures(tmp_path / place.rstrip("."), {".": 3} if unlabelled else {"a": 3, "b": 2})
    found = folders.look_at(tmp_path, "x")
    assert found.splits == splits
    assert (found.classes, found.images, found.side) == (("a", "b"), 5, 40)
    assert found.all_images == 5 * (len(places) - said.startswith("test has no"))
    assert found.unused.startswith(said)
    assert bool(found.unused) == bool(said)


def test_grey_pictures_have_one_channel_unless_weights_want_three(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    pictures(tmp_path / "pets", {"cats": 8, "dogs": 8}, mode="L")
    assert new()[0] == 0
    assert content()["experiments"][0]["task"]["channels"] == 1
    torch.save(timm.create_model(NET, num_classes=2).state_dict(), "own.pt")
    assert new("--checkpoint", "own.pt", "--output", "other.yaml")[0] == 0
    assert content("other.yaml")["experiments"][0]["task"]["channels"] == 3


def test_many_pictures_are_generated_for_the_smoke_variant(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dms_bench_tasks.classification import proposal

    monkeypatch.setattr(proposal, "_SMOKE", 10)
    pictures(tmp_path / "pets", {"cats": 8, "dogs": 8})
    torch.save(timm.create_model(NET, num_classes=2).state_dict(), "own.pt")
    assert new("--checkpoint", "own.pt")[0] == 0
    trial = resolve(load_suite("suite.yaml", smoke=True))[0]
    assert trial.task.data.name == "glyphs"  # type: ignore[attr-defined]
    assert trial.supernet.fresh_head


def test_a_count_is_a_share_in_the_smoke_variant_whose_pictures_are_smaller(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    pictures(tmp_path / "pets", {"cats": 8, "dogs": 8}, size=150)
    assert new("--macs", "20M", "--params", "60%")[0] == 0
    assert content()["experiments"][0]["budget"] == {
        "kind": "all", "of": [{"kind": "macs", "target": "20M"}, {"kind": "params", "target": "60%"}],
    }  # fmt: skip
    assert content()["experiments"][0]["task"]["image_size"] == 160
    assert content()["smoke"]["task"]["image_size"] == 64
    assert content()["smoke"]["budget"] == {"kind": "macs", "target": "50%"}


def test_a_latency_is_judged_when_the_suite_runs(new: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    pictures(tmp_path / "pets", {"cats": 8, "dogs": 8})
    code, out, _ = new("--latency", "60%")
    assert code == 0
    assert content()["experiments"][0]["budget"] == {"kind": "latency", "target": "60%"}
    assert "whether the budget is within reach is said then" in out


@pytest.mark.parametrize(
    ("make", "options", "line"),
    [
        ({"cats": 8, "dogs": 8}, {"model": "nowhere:network"}, "nowhere"),
        ({"cats": 8, "dogs": 8}, {"model": "resnet18.foo"}, "resnet18.foo: Invalid pretrained tag (foo) for resnet18."),
        ({"cats": 8, "dogs": 8, ".git": 3}, {}, "data folder 'pets': '.git' is a hidden folder with pictures, and no"),
        ({}, {}, "--data 'pets' does not exist: give a folder of pictures"),
        ({"cats": 0}, {}, "--data 'pets' is empty: give a folder"),
        ({".": 4}, {}, "data folder 'pets': 4 pictures lie in no class: put those of each class into a sub-folder"),
        ({"images/train": 4, "images/val": 2}, {}, "data folder 'pets': its pictures lie in train, val, which are no"),
        ({"cats": 4}, {}, "data folder 'pets' has a single class, 'cats': put"),
        ({"cats": 8, "dogs": 8}, {"model": "resnet8"}, "timm has no model 'resnet8'; did you mean 'resnet"),
        (
            {"cats": 8, "dogs": 8},
            {"model": "best.pt"},
            "--model 'best.pt' is a file of weights: give it as --checkpoint",
        ),
        ({"cats": 8, "dogs": 8}, {"macs": "50x"}, "--macs: '50x' is not an amount; write for example 30%"),
        ({"cats": 8, "dogs": 8}, {"macs": "120%"}, "--macs: '120%' is more than the whole supernet"),
        ({"cats": 8, "dogs": 8}, {"params": "900G"}, "budget params 900G is out of reach for test_efficientnet: its"),
        ({"cats": 8, "dogs": 8}, {"macs": "10"}, "budget macs 10 is out of reach for test_efficientnet: its"),
        ({"cats": 8, "dogs": 8}, {"checkpoint": "no.pt"}, "supernet.checkpoint 'no.pt' does not exist"),
        ({"cats": 8, "dogs": 8}, {"task": "clasification"}, "--task 'clasification' proposes no suite; did you mean"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path, make: dict[str, int], options: dict[str, str], line: str
) -> None:
    pictures(tmp_path / "pets", make) if make else None
    given = dict(options)
    model = given.pop("model", NET)
    code, out, err = new(*(word for name, value in given.items() for word in (f"--{name}", value)), model=model)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert line in err
    assert not Path("suite.yaml").exists()


def test_a_suite_that_is_there_is_left_alone(new: Callable[..., tuple[int, str, str]]) -> None:
    Path("suite.yaml").write_text("mine\n")
    code, _, err = new()
    assert (code, err) == (2, "error: suite.yaml is there already: give another --output, or remove it\n")
    assert Path("suite.yaml").read_text() == "mine\n"


def test_data_that_two_tasks_take_needs_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of somebody's own is asked like the others, where its specification names a proposal."""

    class Own:
        proposal = "own:propose"

        @classmethod
        def takes(cls, brought: Brought) -> bool:
            return brought.data.startswith("x")

    class Silent(Own):
        proposal = ""

    monkeypatch.setattr(begin_module, "registered", lambda group: {"one": Own, "two": Own, "three": Silent})
    brought = Brought("net", "x.yaml")
    with pytest.raises(UserError, match=r"--data 'x.yaml' may be for one or two: say which with --task"):
        begin_module._task(brought, None)
    assert begin_module._task(brought, "two") is Own  # type: ignore[comparison-overlap]
    with pytest.raises(UserError, match="--task 'three' proposes no suite"):
        begin_module._task(brought, "three")
    with pytest.raises(UserError, match=r"the proposal of task Own, own:propose: No module named 'own'"):
        begin_module._proposal(Own, brought)  # type: ignore[arg-type]


def test_choices_are_nested_as_their_paths_are_and_reasons_stand_above() -> None:
    choices = [
        Choice("task.kind", "toy", "a reason"),
        Choice("task.data.root", "a: b # c"),
        Choice("budget", {"kind": "macs", "target": "50%"}),
        Choice("task.data.size", 0.00001, "small " * 40),
    ]
    text = "\n".join(fields(choices))
    expected: dict[str, Any] = {}
    for choice in choices:
        place = expected
        *parents, last = choice.field.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = choice.value
    assert yaml.safe_load(text) == expected
    lines = text.splitlines()
    assert lines[lines.index("  # a reason") + 1] == "  kind: toy"
    assert all(len(line) <= 120 for line in lines)


def test_sizes_of_batches_and_trainings() -> None:
    assert [power_of_two(most) for most in (0.3, 1, 2, 3.9, 4, 63, 64)] == [1, 1, 2, 2, 4, 32, 64]
    assert epochs_for(1000, 10, 3, 200) == 100
    assert epochs_for(1000, 1, 3, 200) == 200
    assert epochs_for(1000, 5000, 3, 200) == 3


def test_names_that_yaml_reads_as_something_else_are_text(
    new: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eigen.py").write_text("import timm\n\n\ndef null(num_classes):\n"
        f"    return timm.create_model({NET!r}, num_classes=num_classes)\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    pictures(tmp_path / "pets", {"cats": 8, "dogs": 8})
    code, _, err = new(model="eigen:null")
    assert (code, err) == (0, "")
    assert content()["experiments"][0]["name"] == "null"
    assert cli._main(["validate", "suite.yaml"]) == 0


def test_what_a_folder_holds_beside_classes_is_said(tmp_path: Path) -> None:
    pictures(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "c").mkdir()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.webm").touch()
    (tmp_path / "e").symlink_to("nowhere")
    assert folders.look_at(tmp_path, "x").unused == (
        "sub-folder c is empty; sub-folder d holds .webm, none of which is read; "
        "sub-folder e is a link that leads nowhere"
    )


def test_bytes_that_are_no_text_are_escaped_in_comments() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert list(commented(f"a class {name}")) == ["# a class caf\\udce9"]
