"""No training without a raylet.

When a raylet dies, what it has started trains on, though Ray counts it as dead and begins the trial anew, here or on
another node. That attempt would find the trial's folder taken.
"""

from __future__ import annotations

import os
import threading
import time
from functools import cache

_LOOK_SECONDS = 1.0


@cache
def end_with_parent() -> None:
    """End this process, from now on, when the one that started it has ended. Ray's workers are started by raylets."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)  # nothing to tell, and nobody to tell it to

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()
