"""Networks by type, folder and name, and what is said about those that cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench_tasks.language import library
from tests.unit.classification.classification_helpers import same
from tests.unit.language.language_helpers import SIZES, TINY, lively, task


def test_the_seed_decides_the_weights_and_the_tokenizer_the_vocabulary() -> None:
    one, again, other = task().build(TINY), task().build(TINY), task(seed=1).build(TINY)
    assert same(one.state_dict(), again.state_dict())
    assert not same(one.state_dict(), other.state_dict())
    assert one.lm.config.vocab_size == 259
    assert one.lm.config.use_cache is False
    before = torch.get_rng_state()
    task().build(TINY)
    assert torch.equal(before, torch.get_rng_state())


def test_initialising_is_building_anew() -> None:
    own = task()
    model = lively(own.build(TINY))
    own.initialise(model)
    fresh = own.build(TINY)
    for (name, found), (_, expected) in zip(model.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert float(found.std()) == pytest.approx(float(expected.std()), rel=0.2, abs=1e-6), name
        assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=0.02), name
    again = lively(own.build(TINY), seed=5)
    own.initialise(again)
    assert same(model.state_dict(), again.state_dict())


def test_a_saved_model_is_a_supernet(tmp_path: Path) -> None:
    model = lively(task().build(TINY))
    (folder,) = task().export(model, tmp_path)
    again = task().build(SupernetSpec(model=str(folder), pretrained=True))
    assert same(again.state_dict(), model.state_dict())
    shape = task().build(SupernetSpec(model=str(folder)))
    assert {name: tensor.shape for name, tensor in shape.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert not same(shape.state_dict(), model.state_dict())
    own = task(tokenizer=str(folder))
    assert own.build(TINY).lm.config.vocab_size == 259
    from_file = task().build(TINY.model_copy(update={"checkpoint": str(folder / "model.safetensors")}))
    assert same(from_file.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "lama"}, "transformers has no model type 'lama'; did you mean 'llama'"),
        ({"args": {"hiden_size": 8}}, "'llama' has no field 'hiden_size'; did you mean .*'hidden_size'"),
        (
            {"args": SIZES | {"num_attention_heads": 5}},
            "supernet.model 'llama': .*not a multiple of the number of attention",
        ),
        ({"args": SIZES | {"dtype": "float31"}}, "supernet.args.dtype 'float31' is unknown; did you mean 'float32'"),
        ({"pretrained": True}, "supernet.model 'llama' is a type, of which there are no weights"),
        ({"checkpoint": "/nowhere.safetensors"}, "supernet.checkpoint '/nowhere.safetensors' does not exist"),
        ({"model": "nobody/nothing"}, "supernet.model 'nobody/nothing': "),
        ({"args": SIZES | {"vocab_size": 100}}, "supernet.model 'llama' has 100 tokens, the task's tokenizer 259"),
    ],
)
def test_a_network_that_cannot_be_built_is_one_readable_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        task().build(SupernetSpec.model_validate({"model": "llama", "args": SIZES} | fields))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {name: tensor.clone() for name, tensor in task().build(TINY).state_dict().items()}
    save_file({name: tensor for name, tensor in state.items() if "norm" not in name}, path)
    with pytest.raises(UserError, match=r"lacks 'model.layers.0.input_layernorm.weight' \(7 in all\)"):
        task().build(TINY.model_copy(update={"checkpoint": str(path)}))
    path.write_text("nonsense")
    with pytest.raises(UserError, match="cannot be loaded"):
        task().build(TINY.model_copy(update={"checkpoint": str(path)}))


def test_the_hub_is_not_asked_even_where_its_library_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    library.prepare()
    assert huggingface_hub.is_offline_mode()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    library.prepare()
    assert not huggingface_hub.is_offline_mode()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_NEEDED", ("transformers", "no_such_library"))
    with pytest.raises(UserError, match=r"task 'language' needs no_such_library: pip install 'dms-bench\[language\]'"):
        task()


def test_llama_7b_is_an_outline_of_its_published_size() -> None:
    model = task().build(SupernetSpec(model="huggyllama/llama-7b"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_738_415_616
    assert all(parameter.is_meta for parameter in model.parameters())
