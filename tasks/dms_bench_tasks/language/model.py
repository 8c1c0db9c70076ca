"""Causal language models of transformers, by type, folder or name, behind one signature: tokens in, logits out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError, nearest
from dms_bench.scaling import find_space
from dms_bench_tasks.language.library import expanded, one_line
from dms_bench_tasks.language.loading import load_checkpoint, pretrained, refuse_folder

#: Networks whose configuration is known without asking the hub: arguments of transformers' own defaults for a type.
KNOWN: dict[str, dict[str, Any]] = {
    "huggyllama/llama-7b": {"model_type": "llama", "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "yahma/llama-7b-hf": {"model_type": "llama", "max_position_embeddings": 2048, "tie_word_embeddings": False},
    "meta-llama/Llama-2-7b-hf": {"model_type": "llama", "max_position_embeddings": 4096, "tie_word_embeddings": False},
}
#: A random network of more parameters is an outline to plan with, on the meta device: nobody trains it from scratch.
OUTLINE = 1_000_000_000
#: Arguments of `supernet.args` that are not the configuration's own.
_OWN_ARGUMENTS = ("attn_implementation", "dtype", "revision", "trust_remote_code")
#: What of a sibling's units cannot be searched: vocabularies.
_NEVER_SEARCHED = ("embed_tokens", "lm_head")


class LogitsOnly(nn.Module):
    """A causal language model that takes token ids [B, T] and returns logits [B, T, vocabulary].

    Args:
        lm: the model of transformers.
    """

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, tokens: Tensor) -> Tensor:
        """Run the model without a cache; every position sees itself and what is before it."""
        mask = None
        if tokens.is_meta:  # without a mask transformers would look for packed sequences, in values that are not there
            length = tokens.size(1)
            mask = torch.ones(1, 1, length, length, dtype=torch.bool, device="meta")
        logits: Tensor = self.lm(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        return logits


def build(supernet: SupernetSpec, tokenizer: Callable[[], Any], context: int, seed: int) -> LogitsOnly:
    """Build a network on the CPU, its random weights decided by `seed` alone; a very large random one as an outline.

    Args:
        supernet: `model` is a type of transformers (`llama`, with the configuration's fields in `args`), a folder
            or a name on the hub.
        tokenizer: returns the task's tokenizer, which decides the vocabulary's size and special tokens of types; not
            asked for outlines of models that are known by name.
        context: tokens that the network must take.
        seed: of the weights.

    Raises:
        UserError: unknown model, unusable arguments, missing or damaged weights.
    """
    config, options = _config(supernet, tokenizer, context)
    name = supernet.model
    try:
        if supernet.pretrained:
            if name not in KNOWN and not _is_named(name):
                raise UserError(
                    f"supernet.model {name!r} is a type, of which there are no weights: name a model or a folder"
                )
            revision = {"revision": options["revision"]} if "revision" in options else {}
            lm = pretrained(
                name,
                expanded(name),
                config=config,
                dtype=options["dtype"],
                attn_implementation=options["attention"],
                trust_remote_code=options["trust"],
                **revision,
            )
        else:
            lm = _random(config, options, seed, outline=supernet.checkpoint is None)
    except UserError:
        raise
    except Exception as error:  # the library hands on whatever a model's constructor raises
        raise UserError(f"supernet.model {name!r}: {_reason(error)}") from error
    model = LogitsOnly(lm)
    if supernet.checkpoint is not None:
        load_checkpoint(lm, supernet.checkpoint)
    if next(lm.parameters()).is_meta:
        _prove_sibling(config, options)
    else:
        _check_vocabulary(model, name, tokenizer())
    return model


def initialise(model: nn.Module, seed: int) -> None:
    """Draw fresh weights in place by transformers' rules, at the network's present size."""
    lm = network(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in lm.modules():
            lm._init_weights(module)  # type: ignore[operator]


def network(model: nn.Module) -> nn.Module:
    """Return transformers' model inside of wrappers."""
    return next((module.lm for module in model.modules() if isinstance(module, LogitsOnly)), model)


def _is_named(name: str) -> bool:
    return "/" in name or name.startswith("~") or Path(name).is_dir()


def _config(supernet: SupernetSpec, tokenizer: Callable[[], Any], context: int) -> tuple[Any, dict[str, Any]]:
    """Return transformers' configuration and how to build it."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    args = {name: value for name, value in supernet.args.items() if name not in _OWN_ARGUMENTS}
    options = {
        "attention": supernet.args.get("attn_implementation"),
        "dtype": _dtype(supernet.args.get("dtype", "float32")),
        "trust": _trusted(supernet.args.get("trust_remote_code", False)),
    } | {name: value for name, value in supernet.args.items() if name == "revision"}
    name = supernet.model
    preset = dict(KNOWN.get(name, {}))
    try:
        if preset or not _is_named(name):
            kind = preset.pop("model_type", name)
            if kind not in CONFIG_MAPPING_NAMES:
                raise UserError(f"transformers has no model type {name!r}; {nearest(name, CONFIG_MAPPING_NAMES)}")
            tokenizer_fields = {} if preset else _of_tokenizer(tokenizer(), context)
            config = AutoConfig.for_model(kind, **(tokenizer_fields | preset | args))
            strange = [key for key in args if key not in vars(type(config)()) and key not in config.attribute_map]
        else:
            refuse_folder(name)
            config = AutoConfig.from_pretrained(expanded(name), trust_remote_code=options["trust"], **args)
            strange = [key for key in args if not hasattr(config, key)]
    except UserError:
        raise
    except Exception as error:  # of fields that do not fit together, a folder that holds no model, a silent hub
        raise UserError(f"supernet.model {name!r}: {_reason(error)}") from error
    if strange:
        choices = [key for key in vars(config) if not key.startswith("_") and key not in strange]
        raise UserError(f"supernet.args: {name!r} has no field {strange[0]!r}; {nearest(strange[0], choices)}")
    config.use_cache = False
    return config, options


def _of_tokenizer(tokenizer: Any, context: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "max_position_embeddings": max(context, 512),
        "tie_word_embeddings": False,
    }


def _dtype(name: Any) -> torch.dtype:
    choices = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if not isinstance(name, str) or name not in choices:
        raise UserError(f"supernet.args.dtype {name!r} is unknown; {nearest(str(name), choices)}")
    return choices[name]


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it brings code of its own, which is run only where `supernet.args.trust_remote_code: true` says so"
    return one_line(error)


def _trusted(given: Any) -> bool:
    if not isinstance(given, bool):
        raise UserError(f"supernet.args.trust_remote_code {given!r} must be true or false")
    return given


def _random(config: Any, options: dict[str, Any], seed: int, outline: bool) -> Any:
    """Build a network with random weights; one that is too large for that on the meta device."""
    from transformers import AutoModelForCausalLM

    def make() -> Any:
        return AutoModelForCausalLM.from_config(
            copy.deepcopy(config),
            attn_implementation=options["attention"],
            dtype=options["dtype"],
            trust_remote_code=options["trust"],
        )

    with torch.device("meta"):
        lm = make()
    if outline and sum(parameter.numel() for parameter in lm.parameters()) > OUTLINE:
        return lm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _check_vocabulary(model: LogitsOnly, name: str, tokenizer: Any) -> None:
    size = model.lm.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if len(tokenizer) > size:
        raise UserError(f"supernet.model {name!r} has {size} tokens, the task's tokenizer {len(tokenizer)}")


def _prove_sibling(config: Any, options: dict[str, Any]) -> None:
    """Prove the space of a tiny network of the same kind in place of one that has no weights.

    Raises:
        UserError: it could not be proven, so that the large one is not to be trusted either.
    """
    tiny = copy.deepcopy(config)
    queries = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    sizes = {"num_attention_heads": 4 * queries, "num_key_value_heads": 4, "head_dim": 8, "num_hidden_layers": 2}
    sizes |= {"hidden_size": 32 * queries, "intermediate_size": 40, "vocab_size": 64, "pad_token_id": None}
    for key, value in sizes.items():
        if hasattr(tiny, key):
            setattr(tiny, key, value)
    if getattr(tiny, "layer_types", None):
        tiny.layer_types = tiny.layer_types[:2]
    model = LogitsOnly(_random(tiny, options | {"dtype": torch.float32}, 0, outline=False))
    space = find_space(model, torch.arange(32).view(2, 16))
    missing = {name: why for name, why in space.excluded.items() if not name.endswith(_NEVER_SEARCHED)}
    if missing or not space.proof_error < 1e-10:
        name, why = next(iter(missing.items()), ("the whole", f"differs by {space.proof_error:.1e}"))
        raise UserError(f"{config.model_type}: the search space of a small network of its kind: {name}: {why}")
