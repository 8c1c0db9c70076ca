"""A file that is there whole, and checked, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dms_bench.errors import UserError


@contextmanager
def unfinished(path: Path, form: str) -> Iterator[Path]:
    """Give a path to write to, whose file takes its place when the block ends well; else there is none.

    Args:
        path: where the file belongs; what lies there, of another network perhaps, is removed first.
        form: what it is, for messages.

    Raises:
        UserError: whatever goes wrong in the block, as one line.
    """
    file = path.with_name(f".{os.getpid()}.{path.name}")  # with its ending, which some libraries go by
    try:
        path.unlink(missing_ok=True)
        yield file
        file.replace(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # exporters raise whatever they meet
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path}: this network cannot be written as {form}: {line[:300]}") from error
    finally:
        file.unlink(missing_ok=True)
