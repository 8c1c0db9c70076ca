"""What transformers opens in a process that has no dms_bench."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.scaling import Coarse, cut
from dms_bench.scaling.budget import budget_of
from dms_bench.scaling.cut.surgery import give_biases
from dms_bench.scaling.fit import fit_to_budget
from dms_bench_tasks.language.plain import plain
from tests.unit.language.language_helpers import TINY, lively, network, random_mask, space, task

STRANGER = """
import json, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("dms_bench", "dms_bench_tasks"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
for line in sys.stdin:
    folder, remote, tokens = json.loads(line)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = torch.tensor([tokens])
    with torch.no_grad():
        logits = model(tokens).logits[0, -1].tolist()
        written = model.generate(tokens, max_new_tokens=8, do_sample=False)[0].tolist()
    empty = AutoModelForCausalLM.from_config(model.config, trust_remote_code=remote)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (model, empty)]
    text = tokenizer.decode(tokenizer("def f():")["input_ids"])
    print("found", json.dumps([logits, written, text, type(model).__name__, sizes]), flush=True)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list]]:
    """Return a function that opens a folder in that process, which takes seconds to start and so serves all tests."""
    home = tmp_path_factory.mktemp("stranger")
    with (home / "errors").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", STRANGER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=home,
            env={"HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"},
        )

        def ask(folder: Path, tokens: list[int], remote: bool = True) -> list:
            process.stdin.write(json.dumps([str(folder), remote, tokens]) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith("found "):
                    return json.loads(line.removeprefix("found "))
            errors.seek(0)
            raise AssertionError(errors.read()[-2000:])

        yield ask
        process.stdin.close()
        assert process.wait(60) == 0


def greedy(model, tokens: list[int], count: int) -> list[int]:
    """Write token by token without any cache: the reference."""
    tokens = list(tokens)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
            if tokens[-1] == 2:  # the end
                break
    return tokens


@pytest.mark.parametrize("kind", ["llama, grouped queries", "qwen2, tied", "phi3"])
def test_layers_of_different_width_load_without_dms_bench_and_write_the_same(
    kind: str, tmp_path: Path, opened: Callable[..., list]
) -> None:
    model = lively(network(kind))
    own = space(model)
    mask = random_mask(own, seed=3)
    for unit in (3, 6):  # the second block has one head, the third has some hidden features less
        start, size = own.units.starts[unit], own.units.sizes[unit]
        mask[start : start + size] = 0
        mask[start + size - (1 if unit == 3 else 11) : start + size] = 1
    mask[own.width_elements] = 0  # the first block goes: numbers of layers shift
    mask[own.width_elements + 1 :] = 1
    small = cut(model, own, own.architecture(mask)).eval()
    (folder,) = task().export(small, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert (folder / "modeling_cut.py").exists()
    prompt = list(range(40, 60))
    logits, written, text, kind_of_model, sizes = opened(folder, prompt)
    assert sizes == [sum(p.numel() for p in small.parameters())] * 2
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(logits), small(torch.tensor([prompt]))[0, -1], rtol=1e-4, atol=1e-5)
    assert written == greedy(small, prompt, 8)
    assert text == "def f():"
    assert kind_of_model.startswith("Cut")


#: Each stands for a way in which code may hold sizes: numbers of a module, names of weights, a scale that is computed
#: from the configuration, shapes of layer norms.
QUICK = ("gpt2", "gpt_neox", "gemma", "starcoder2")
FAMILIES = yaml.safe_load((Path(__file__).parents[3] / "benchmarks/language/families.yaml").read_text())
REFUSED = ("bamba", "diffllama", "mamba", "xglm")
#: Of an odd number of kept latents transformers makes no complex numbers.
BROKEN = ("deepseek_v2",)


def cut_family(family: str) -> nn.Module:
    model = lively(task().build(SupernetSpec(model=family, args=FAMILIES[family])).eval())
    own = space(model)
    mask = random_mask(own, seed=1)
    if own.blocks:
        mask[own.width_elements] = 0
        mask[own.width_elements + 1 :] = 1
    return cut(model, own, own.architecture(mask)).eval()


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=() if family in QUICK else pytest.mark.slow)
        for family in FAMILIES
        if family not in REFUSED + BROKEN
    ],
)
def test_families_open_elsewhere_and_write_the_same(family: str, tmp_path: Path, opened: Callable[..., list]) -> None:
    small = cut_family(family)
    (folder,) = task().export(small, tmp_path)
    prompt = list(range(40, 56))
    logits, written, _, _, _ = opened(folder, prompt, remote=(folder / "modeling_cut.py").exists())
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(logits), small(torch.tensor([prompt]))[0, -1], rtol=1e-4, atol=1e-5)
    assert written == greedy(small, prompt, len(written) - len(prompt))


@pytest.mark.parametrize("family", [pytest.param(family, marks=pytest.mark.slow) for family in REFUSED])
def test_families_whose_code_cannot_be_told_are_refused(family: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it can be loaded by dms_bench\.load alone"):
        task().export(cut_family(family), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_answers_otherwise_is_not_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(type(network().lm)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            found.logits = 1.01 * found.logits
            return found

    model = network()
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "mine.txt").write_text("mine")
    monkeypatch.setattr(type(model.lm), "from_pretrained", Other.from_pretrained)
    with pytest.raises(UserError, match=r"it can be loaded by dms_bench\.load alone"):
        task().export(model, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["transformers", "mine.txt"]


def test_equal_widths_need_no_code(tmp_path: Path, opened: Callable[..., list]) -> None:
    model = lively(network())
    own = space(model, exclude=("lm.model.stream",))
    kept = {name: tuple(range(2 if size == 4 else 20)) for name, size in zip(own.names, own.units.sizes, strict=True)}
    kept["lm.model.layers"] = (1, 2)
    mask = torch.zeros(own.units.total)
    for name, start in zip(own.names, own.units.starts, strict=True):
        mask[[start + index for index in kept[name]]] = 1
    small = cut(model, own, own.architecture(mask)).eval()
    (folder,) = task().export(small, tmp_path)
    assert not (folder / "modeling_cut.py").exists()
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_attention_heads"], config["intermediate_size"], config["head_dim"]) == (2, 20, 12)
    prompt = list(range(40, 60))
    logits, written, _, kind_of_model, _ = opened(folder, prompt, remote=False)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(logits), small(torch.tensor([prompt]))[0, -1], rtol=1e-4, atol=1e-5)
    assert written == greedy(small, prompt, 8)
    assert kind_of_model == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("kind", "exclude"),
    # Llama's configuration wants a hidden width that is a multiple of the number of heads.
    [("llama, grouped queries", ("lm.model.stream",)), ("qwen3", ()), ("phi", ()), ("phi3", ())],
)
def test_a_space_of_equal_layers_gives_plain_models_at_the_same_budget(
    kind: str, exclude: tuple[str, ...], tmp_path: Path, opened: Callable[..., list]
) -> None:
    model = lively(network(kind))
    equal = [Coarse(groups=pattern, equal=True) for pattern in ("*.self_attn*", "*.mlp.*")]
    own = space(model, coarse=equal, exclude=exclude)
    generator = torch.Generator().manual_seed(1)
    proposed = torch.rand(len(own.units.sizes), generator=generator) * torch.tensor(own.units.sizes)
    budget = budget_of(own, params=0.5)
    mask = fit_to_budget(own, proposed, torch.rand(own.units.total, generator=generator), budget)
    small = cut(model, own, own.architecture(mask)).eval()
    params = sum(p.numel() for p in small.parameters())
    assert params == pytest.approx(0.5 * own.params, rel=0.01)
    (folder,) = task().export(small, tmp_path)
    assert not (folder / "modeling_cut.py").exists()
    prompt = list(range(40, 60))
    logits, written, _, kind_of_model, sizes = opened(folder, prompt, remote=False)
    assert sizes == [params] * 2
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(logits), small(torch.tensor([prompt]))[0, -1], rtol=1e-4, atol=1e-5)
    assert written == greedy(small, prompt, 8)
    assert kind_of_model == type(model.lm).__name__


def test_the_whole_network_is_a_plain_model(tmp_path: Path) -> None:
    model = task().build(TINY)
    (folder,) = task().export(model, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert model.lm.config.use_cache is False  # the network itself stays as it was


def unknown_layer(attention: Any) -> None:
    attention.o_proj = torch.nn.Sequential(attention.o_proj)  # which does not tell how many heads there are


def other_answer(attention: Any) -> None:
    patches = attention.forward.patches
    _, keys, values = (call for call, patch in patches.items() if patch.kind == "slice")
    patches[keys], patches[values] = patches[values], patches[keys]  # as no configuration would have it


@pytest.mark.parametrize("change", [unknown_layer, other_answer])
def test_code_that_no_configuration_makes_right_is_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    model = lively(network("phi3"))
    own = space(model)
    small = cut(model, own, own.architecture(random_mask(own))).eval()
    change(small.lm.model.layers[1].self_attn)
    with pytest.raises(UserError, match=r"it can be loaded by dms_bench\.load alone"):
        task().export(small, tmp_path)


def test_the_plain_model_shares_weights_and_leaves_the_network_alone() -> None:
    model = lively(network())
    own = space(model)
    budget = budget_of(own, params=0.5)
    mask = fit_to_budget(own, torch.tensor([s / 2 for s in own.units.sizes]), torch.rand(own.units.total), budget)
    mask[own.width_elements] = 0
    small = cut(model, own, own.architecture(mask)).eval()
    before = small(torch.arange(40, 60)[None])
    found = plain(small)
    assert {p.data_ptr() for p in found.parameters()} <= {p.data_ptr() for p in small.parameters()}
    assert [layer.self_attn.layer_idx for layer in found.model.layers] == list(range(len(found.model.layers)))
    assert small.lm.config.num_hidden_layers == 3
    torch.testing.assert_close(small(torch.arange(40, 60)[None]), before)
    torch.testing.assert_close(found(torch.arange(40, 60)[None]).logits, before)


def test_a_layer_that_was_given_a_bias_keeps_it(tmp_path: Path, opened: Callable[..., list]) -> None:
    model = lively(network())
    own = space(model, depth=False)
    small = cut(model, own, own.architecture(random_mask(own))).eval()
    names = ("lm.model.layers.0.mlp.down_proj", "lm.model.layers.1.self_attn.o_proj")
    give_biases(small, names)
    with torch.no_grad():
        for name in names:
            small.get_submodule(name).bias.normal_(0, 3, generator=torch.Generator().manual_seed(1))
    tokens = list(range(5, 20))
    task().export(small, tmp_path)
    logits, _, _, kind, sizes = opened(tmp_path / "transformers", tokens)
    assert kind == "CutLlamaForCausalLM"
    with torch.no_grad():
        expected = small(torch.tensor([tokens]))[0, -1]
    torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-4, atol=1e-4)
    assert sizes[0] == sizes[1] == sum(parameter.numel() for parameter in small.parameters())
