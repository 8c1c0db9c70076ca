"""transformers and its relatives: there, offline unless asked otherwise, without telemetry, quiet."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib.util import find_spec

from dms_bench.errors import UserError

_NEEDED = ("transformers", "tokenizers", "datasets", "peft", "lm_eval")
#: Set unless the user has set them; HF_HUB_OFFLINE=0 lets the hub be asked.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "LMEVAL_LOG_LEVEL": "ERROR",
}


def prepare() -> None:
    """Make the libraries ready to be imported; call it before they are.

    Raises:
        UserError: one of them is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"task 'language' needs {', '.join(missing)}: pip install 'dms-bench[language]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:  # timm has imported it, which has read the environment as it was then
        hub.HF_HUB_OFFLINE = os.environ["HF_HUB_OFFLINE"].upper() in ("1", "ON", "YES", "TRUE")  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", module=r"(transformers|peft|datasets|lm_eval)\b")
    for name in ("transformers", "datasets", "lm_eval", "lm-eval"):
        logging.getLogger(name).setLevel(logging.ERROR)


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, or its class where it has none."""
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def expanded(name: str) -> str:
    """Return a path, or a name on the hub, with `~` at its beginning replaced by the home folder."""
    return os.path.expanduser(name)
