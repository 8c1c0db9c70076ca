"""What a user should know of data or weights that are used all the same: said once, on the terminal."""

from __future__ import annotations

import logging
from functools import cache

_log = logging.getLogger(__name__)


@cache
def say_once(text: str) -> None:
    """Say something once per process, however many trials meet it."""
    _log.warning("%s", text)
