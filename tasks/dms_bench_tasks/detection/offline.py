"""Ultralytics without network and without its console.

On import Ultralytics looks for a network, and while it works it reports usage, fetches a font, looks for
updates, and prints banners and progress bars. What decides that is read from the environment and from a
settings file when it is first imported, so `set_up` comes before every import of it.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

from dms_bench.errors import UserError

#: Read by Ultralytics on import.
ENVIRONMENT = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
#: Its settings: nothing is sent, no other tracker is called.
SETTINGS = dict.fromkeys(
    ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb", "vscode_msg", "openvino_msg"),
    False,
)
#: The font that Ultralytics would fetch from its server.
FONTS = ("Arial.ttf", "Arial.Unicode.ttf")


def set_up() -> None:
    """Make Ultralytics ready to be imported; call before every use.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("ultralytics") is None:
        raise UserError("the detection task needs Ultralytics (AGPL-3.0): pip install 'dms-bench[detection]'")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    folder = cache_folder() / "ultralytics"
    os.environ.setdefault("YOLO_CONFIG_DIR", str(folder))
    if os.environ["YOLO_CONFIG_DIR"] == str(folder):
        _prepare(folder / "Ultralytics")
    from ultralytics.utils import LOGGER

    LOGGER.setLevel(logging.ERROR)  # also where somebody else imported it first, without YOLO_VERBOSE
    _leave_pillow_alone()


@contextmanager
def quiet() -> Iterator[None]:
    """Swallow the progress bars that Ultralytics draws whatever its settings say."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def cache_folder() -> Path:
    """Return the folder of generated data, in the user's cache (`XDG_CACHE_HOME`)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dms_bench"


def _leave_pillow_alone() -> None:
    """Take back what Ultralytics puts in the place of `Image.open`, for everybody in the process.

    It would install a package for files that Pillow does not know. Where it may not, it hides which file that is behind
    an error of another kind, which other libraries, timm among them, do not expect of Pillow.
    """
    from PIL import Image
    from ultralytics.utils import patches

    original = getattr(patches, "_image_open", None)
    if original is not None and find_spec("pi_heif") is None:
        Image.open = original


def _prepare(folder: Path) -> None:
    """Give Ultralytics a configuration of its own; a user's own one is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / name).exists() for name in FONTS):
        import matplotlib

        font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        for name in FONTS:
            unfinished = folder / f".{name}.{os.getpid()}"
            shutil.copyfile(font, unfinished)
            unfinished.replace(folder / name)
    from ultralytics.utils import SETTINGS as PRESENT

    changed = {name: value for name, value in SETTINGS.items() if PRESENT.get(name) != value}
    if changed:
        PRESENT.update(changed)
