"""Imports point one way, and reading a suite needs no heavy library."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What each part may import: parts of dms_bench, then libraries beside the standard one. Read from the top: no part
#: is allowed one that stands below it.
ALLOWED = {
    "errors": ("", ""),
    "pace": ("", ""),
    "kernels": ("", "torch"),
    "scaling": ("kernels", "torch scipy"),
    "data": ("errors", "torch timm transformers safetensors"),
    "config": ("errors", "pydantic pydantic_core yaml"),
    "decisions": ("", "numpy scipy"),
    "tasks.py": ("errors config", "torch"),
    "dms_bench_tasks": (
        "errors pace data scaling config tasks.py",
        "torch torchvision numpy timm sklearn PIL matplotlib pydantic yaml safetensors ultralytics",
    ),
    "methods": ("errors scaling config tasks.py", "torch numpy pydantic scipy sklearn"),
    "tracking": ("errors config", "mlflow pydantic pyarrow torch"),
    "report": ("errors config tracking", "matplotlib numpy rich scipy"),
    "inference": ("errors", "torch onnxruntime openvino"),
    "trial": (
        "errors pace kernels scaling config decisions tasks.py methods tracking report inference",
        "torch pydantic safetensors",
    ),
    "deploy": ("errors config tasks.py tracking report inference trial", "torch rich openvino onnxruntime"),
    "testing": ("errors scaling config tasks.py methods trial", "torch numpy"),
    "runtime": (
        "errors kernels scaling config decisions tasks.py methods tracking report trial deploy",
        "torch ray optuna pydantic rich",
    ),
    "__init__": ("trial", ""),
    "cli": (
        "errors data scaling config dms_bench_tasks tracking report trial deploy runtime __init__",
        "typer rich yaml",
    ),
    "__main__": ("cli", ""),
}
#: Packages and modules of `dms_bench.scaling`, lowest first; each may import those before it.
SCALING = [
    "modules",
    "architecture",
    "example",
    "shapes",
    "schedule",
    "cost",
    "space",
    "structure",
    "tracing",
    "masks",
    "cut",
    "repair",
    "proof",
    "latency",
    "budget",
    "lagrangian",
    "projection",
    "fit",
    "memory",
    "find",
    "twin",
    "supernet",
    "__init__",
]
#: Libraries that come with an extra of dms_bench: the task that needs them may import them, and nothing else.
TASK_LIBRARIES = {
    "classification": "transformers",
    "language": "transformers tokenizers peft datasets lm_eval safetensors huggingface_hub",
}
#: Parts, and modules of others, that are imported before anything is known to run.
LIGHT = (
    "config",
    "dms_bench/data/",
    "errors",
    "cli",
    "__init__",
    "__main__",
    "methods/controls/spec.py",
    "methods/discrete/spec.py",
    "methods/gradient/spec.py",
    "methods/language/spec.py",
    "methods/rankings/spec.py",
    "methods/sampling/spec.py",
    "tasks/dms_bench_tasks/common/recipe.py",
    "tasks/dms_bench_tasks/classification/data_spec.py",
    "tasks/dms_bench_tasks/classification/recipe.py",
    "tasks/dms_bench_tasks/classification/spec.py",
    "tasks/dms_bench_tasks/detection/spec.py",
    "tasks/dms_bench_tasks/detection/offline.py",
    "tasks/dms_bench_tasks/language/spec.py",
)
HEAVY = {
    "torch",
    "ray",
    "mlflow",
    "timm",
    "matplotlib",
    "scipy",
    "sklearn",
    "numpy",
    "rich",
    "transformers",
    "datasets",
    "lm_eval",
    "ultralytics",
}

MODULES = sorted(path for folder in ("dms_bench", "tasks/dms_bench_tasks") for path in (ROOT / folder).rglob("*.py"))


def part_of(path: Path) -> str:
    """Return the part that a module belongs to."""
    first, *rest = path.relative_to(ROOT).parts
    if first == "tasks":
        return "dms_bench_tasks"
    name = rest[0].removesuffix(".py")
    return "tasks.py" if name == "tasks" else name


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk through a module's code, but for what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        types_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if not types_only:
            yield node
            yield from statements(node)


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Return the dotted names of the modules that statements import; all of them must be absolute."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= members if node.module in ("dms_bench", "dms_bench.scaling", "dms_bench_tasks") else {node.module}
    return names


def imported_parts(names: set[str]) -> set[str]:
    """Return the parts of dms_bench among imported modules."""
    parts = set()
    for name in names:
        top, _, rest = name.partition(".")
        second = rest.partition(".")[0]
        if top == "dms_bench_tasks":
            parts.add("dms_bench_tasks")
        elif top == "dms_bench":
            known = "tasks.py" if second == "tasks" else second
            parts.add(known if known in ALLOWED else "__init__")
    return parts


def of_task(path: Path) -> set[str]:
    """Return the libraries that a module may import for the task that it belongs to."""
    first, _, third, *_ = (*path.relative_to(ROOT).parts, "")
    return set(TASK_LIBRARIES.get(third, "").split()) if first == "tasks" else set()


def libraries(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"dms_bench", "dms_bench_tasks"}


def test_every_part_is_in_the_table():
    assert {part_of(path) for path in MODULES} == set(ALLOWED)


def test_the_table_has_no_cycle():
    above: set[str] = set()
    for part, (parts, _) in ALLOWED.items():
        assert set(parts.split()) <= above, part
        above.add(part)


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_what_it_may(part):
    parts, allowed_libraries = (set(words.split()) for words in ALLOWED[part])
    for path in (path for path in MODULES if part_of(path) == part):
        names = imported(statements(ast.parse(path.read_text())))
        assert imported_parts(names) <= parts | {part}, path
        assert libraries(names) <= allowed_libraries | of_task(path), path


@pytest.mark.parametrize("path", sorted((ROOT / "dms_bench" / "scaling").rglob("*.py")), ids=str)
def test_the_packages_of_scaling_import_one_way(path: Path) -> None:
    place = path.relative_to(ROOT / "dms_bench" / "scaling").parts[0].removesuffix(".py")
    for name in imported(statements(ast.parse(path.read_text()))):
        if name.startswith("dms_bench.scaling."):
            other = name.split(".")[2]
            assert other == place or SCALING.index(other) < SCALING.index(place), name


@pytest.mark.parametrize("path", [path for path in MODULES if part_of(path) == "dms_bench_tasks"], ids=str)
def test_tasks_do_not_know_each_other(path):
    task = path.relative_to(ROOT / "tasks" / "dms_bench_tasks").parts[0]
    for name in imported(statements(ast.parse(path.read_text()))):
        assert not name.startswith("dms_bench_tasks.") or name.split(".")[1] in {task, "common"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_ultralytics_is_imported_by_the_detection_task_alone(path):
    """It is AGPL-3.0 and an extra: nothing else may need it."""
    tree = ast.parse(path.read_text())
    if path.parent != ROOT / "tasks" / "dms_bench_tasks" / "detection":
        assert "ultralytics" not in libraries(imported(statements(tree)))
        assert "dms_bench_tasks.detection" not in " ".join(imported(statements(tree)))


@pytest.mark.parametrize("light", LIGHT)
def test_what_the_command_line_always_imports_is_light(light):
    paths = [path for path in MODULES if part_of(path) == light or f"/{light}" in str(path)]
    assert paths
    for path in paths:
        tree = ast.parse(path.read_text())
        at_import = (node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        assert not libraries(imported(at_import)) & HEAVY, path
