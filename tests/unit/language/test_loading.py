"""Weights of folders and files whose tensors do not fit the network."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench_tasks.common.notes import say_once
from dms_bench_tasks.language.loading import common_prefix
from tests.unit.classification.classification_helpers import same
from tests.unit.language.language_helpers import TINY, lively, network, task

States = dict[str, Tensor]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(autouse=True)
def _said_anew() -> Iterator[None]:
    say_once.cache_clear()
    yield
    say_once.cache_clear()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A network, and the folder in which transformers keeps it."""
    model = lively(task().build(TINY))
    (folder,) = task().export(model, tmp_path_factory.mktemp("saved"))
    return model, folder


def changed(folder: Path, to: Path, change: Callable[[States], States]) -> Path:
    """Copy a model's folder, with other tensors."""
    shutil.copytree(folder, to)
    state = change(load_file(folder / "model.safetensors"))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, to / "model.safetensors", {"format": "pt"})
    return to


def built(folder: Path) -> nn.Module:
    return task().build(SupernetSpec(model=str(folder), pretrained=True))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "model."])
def test_a_prefix_of_all_names_is_taken_off_and_said(
    saved: tuple[nn.Module, Path], tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = saved
    path = changed(folder, tmp_path / "m", lambda state: {f"{prefix}{name}": value for name, value in state.items()})
    with caplog.at_level(logging.WARNING):
        assert same(built(path).state_dict(), model.state_dict())
        built(path)
    expected = [f"supernet.model '{path}': its tensors are named {prefix}...; read without that"]
    # "model." is transformers' own to take off.
    assert caplog.messages == ([] if prefix == "model." else expected)
    file = path / "model.safetensors"
    from_file = task().build(TINY.model_copy(update={"checkpoint": str(file)}))
    assert same(from_file.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {name: value for name, value in state.items() if name != UP}, f"lacks '{UP}' (1 in all)"),
        (
            lambda state: {name.replace("1.mlp.up_", "1.mlp.upp_"): value for name, value in state.items()},
            f"lacks '{UP}' (1 in all); did you mean 'model.layers.1.mlp.upp_proj.weight'?",
        ),
        (
            lambda state: {name: value[:-1] if name == UP else value for name, value in state.items()},
            f"'{UP}' has shape [43, 48] in its files, and [44, 48] in the network that its configuration describes "
            "(1 such tensors)",
        ),
        (lambda state: {name: value for name, value in state.items() if "lm_head" not in name}, "lacks 'lm_head.wei"),
        (lambda state: {f"x{number}": value for number, value in enumerate(state.values())}, "(30 in all)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    saved: tuple[nn.Module, Path], tmp_path: Path, change: Callable[[States], States], message: str
) -> None:
    path = changed(saved[1], tmp_path / "m", change)
    with pytest.raises(UserError) as caught:
        built(path)
    text = str(caught.value)
    assert text.startswith(f"supernet.model '{path}'")
    assert message in text
    assert "\n" not in text


def test_a_checkpoint_of_other_shapes_names_both(saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    path = changed(saved[1], tmp_path / "m", lambda state: state | {UP: state[UP][:-1]}) / "model.safetensors"
    with pytest.raises(
        UserError, match=r"has another shape of '.*up_proj.weight', which is \[43, 48\], and \[44, 48\] in the"
    ):
        task().build(TINY.model_copy(update={"checkpoint": str(path)}))


def test_a_head_that_is_tied_need_not_be_there(tmp_path: Path) -> None:
    model = network("qwen2, tied")
    (folder,) = task().export(model, tmp_path)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    again = built(folder)
    assert same(again.state_dict(), model.state_dict())
    assert again.lm.lm_head.weight is again.lm.model.embed_tokens.weight
    prefixed = changed(folder, tmp_path / "m", lambda state: {f"module.{name}": value for name, value in state.items()})
    assert same(built(prefixed).state_dict(), model.state_dict())
    spec = SupernetSpec(model=str(folder), checkpoint=str(prefixed / "model.safetensors"))
    assert same(task().build(spec).state_dict(), model.state_dict())


def test_tensors_too_many_are_said(
    saved: tuple[nn.Module, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = saved
    path = changed(folder, tmp_path / "m", lambda state: state | {"v_head.weight": state[UP].clone()})
    with caplog.at_level(logging.WARNING):
        assert same(built(path).state_dict(), model.state_dict())
    assert caplog.messages == [f"supernet.model '{path}': 1 tensors of its files are not used, such as 'v_head.weight'"]


def test_a_prefix_is_one_only_if_all_that_is_missing_has_it() -> None:
    assert common_prefix(["a.b", "c"], ["module.a.b", "module.c", "more"]) == "module."
    assert common_prefix(["a.b", "c"], ["old.c"]) == ""
    assert common_prefix([], ["module.a"]) == ""
    assert common_prefix(["a"], []) == ""


def test_an_adapter_alone_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    with pytest.raises(UserError, match="is an adapter of peft, not a model: merge it into its base"):
        built(tmp_path)


def test_a_folder_in_the_home_folder(
    saved: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = saved
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(folder, tmp_path / "mine")
    spec = SupernetSpec(model="~/mine", pretrained=True)
    own = task(tokenizer="~/mine")
    assert same(own.build(spec).state_dict(), model.state_dict())
    assert own.spec.weight_files(spec) == [tmp_path / "mine" / "model.safetensors"]
    from_file = TINY.model_copy(update={"checkpoint": "~/mine/model.safetensors"})
    assert same(own.build(from_file).state_dict(), model.state_dict())
    assert own.spec.weight_files(from_file) == [tmp_path / "mine" / "model.safetensors"]
    with pytest.raises(UserError, match=r"supernet.model '~/yours' does not exist"):
        own.build(SupernetSpec(model="~/yours", pretrained=True))


def test_code_of_a_folder_is_run_only_where_the_suite_says_so(saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    path = tmp_path / "m"
    shutil.copytree(saved[1], path)
    config = json.loads((path / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}, "model_type": "own"}
    (path / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (path / "own.py").write_text(
        f"open({str(ran)!r}, 'a').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Own(LlamaConfig):\n    model_type = 'own'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Own\n"
    )
    with pytest.raises(UserError, match=r"supernet.model '.*/m': it brings code of its own") as caught:
        built(path)
    assert "supernet.args.trust_remote_code: true" in str(caught.value)
    assert not ran.exists()
    own = task().build(SupernetSpec(model=str(path), pretrained=True, args={"trust_remote_code": True}))
    assert ran.exists()
    assert type(own.lm).__name__ == "Model"
    with pytest.raises(UserError, match=r"supernet.args.trust_remote_code 'yes' must be true or false"):
        task().build(SupernetSpec(model=str(path), pretrained=True, args={"trust_remote_code": "yes"}))
