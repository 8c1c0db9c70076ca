"""Networks of one's own, `package.module:function` in a suite: what makes them, and a digest of its code."""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from dms_bench.errors import UserError, nearest


def _own_is_there(model: str) -> str:
    if is_own(model):
        try:
            digest_of(model)
        except UserError as error:
            raise ValueError(str(error)) from error
    return model


#: The name of a network in a specification; of one's own, it is there.
NetworkName = Annotated[str, AfterValidator(_own_is_there)]
#: `hf_hub:` and `torchvision:` are prefixes of names in libraries.
_OWN = re.compile(r"(?!(hf_hub|torchvision):)([^\W\d]\w*)(\.[^\W\d]\w*)*:[^\W\d]\w*")
_LENGTH = 12


def is_own(model: str) -> bool:
    """Whether the name of a model is `package.module:function`."""
    return _OWN.fullmatch(model) is not None


@cache
def maker_of(model: str) -> Callable[..., Any]:
    """Import what makes a network; the working folder is looked through after everything that is installed.

    Raises:
        UserError: it is not there, or its module cannot be imported.
    """
    name, _, function = model.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever that module does on import, such as reading a command line
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        reason = (
            f"no module {absent!r} is installed or in {os.getcwd()}"
            if absent and f"{name}.".startswith(f"{absent}.")
            else f"module {name!r} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
        )
        raise UserError(f"network {model!r}: {reason}") from error
    try:
        maker = getattr(module, function, None)
    except Exception as error:  # of a `__getattr__` of its own
        raise UserError(f"network {model!r}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not callable(maker):
        # What a module loads when it is asked for, as transformers does, is in `dir` alone.
        callables = [name for name in dir(module) if callable(vars(module).get(name, callable))]
        file = getattr(module, "__file__", None) or "built in"
        raise UserError(
            f"network {model!r}: {name} ({file}) has no function {function!r}; {nearest(function, callables)}"
        )
    made: Callable[..., Any] = maker
    return made


@cache
def digest_of(model: str) -> str:
    """Return a digest of the code that makes a network: of its module, and of all that this imports from beside it.

    Modules of the same package count, and those in the same folder as the package, but for what is installed with
    others (`site-packages`), where it is the package alone.

    Raises:
        UserError: see `maker_of`; or there is no source.
    """
    maker_of(model)
    digest = hashlib.sha256()
    files = _imported(model.partition(":")[0])
    if not files:
        raise UserError(f"network {model!r}: its module has no source, by which changes would be noticed")
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:_LENGTH]


def _imported(first: str) -> dict[str, Path]:
    """Return the files of a module and of those beside it that it needs, by the modules' names; imports nothing."""
    top = sys.modules[first.partition(".")[0]]
    if hasattr(top, "__path__"):  # a package, also one without a file of its own
        folder = Path(next(iter(top.__path__))).resolve().parent
    elif getattr(top, "__file__", None):
        folder = Path(str(top.__file__)).resolve().parent
    else:
        return {}
    shared = folder.name in ("site-packages", "dist-packages")
    files: dict[str, Path] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        path = _file(folder, name) if name else None
        if path is None or name in files or (shared and name.partition(".")[0] != top.__name__):
            continue
        files[name] = path
        waiting += [*_parents(name), *_imports(path, name)]
    return files


def _file(folder: Path, name: str) -> Path | None:
    """Return the source of a module that lies in a folder, or within its packages."""
    path = folder.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((file for file in candidates if file.is_file()), None)


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _imports(path: Path, name: str) -> Iterator[str]:
    """Yield what the source of a module imports, also within functions: modules, and what may be some."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # of a neighbour that is not imported after all
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
