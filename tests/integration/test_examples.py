"""The examples, as a user runs them; what they export opens with torch alone and computes the same."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Example, the library that it needs, and what its figures are called.
CASES = [
    ("bert", "transformers", "accuracy"),
    ("segmentation", "segmentation_models_pytorch", "iou"),
    ("diffusion", "diffusers", "error"),
]
OPENS = """
import sys, torch
program = torch.export.load(sys.argv[1])
assert not [name for name in sys.modules if name.startswith("dms_bench")]
output = program.module()(*program.example_inputs[0])
assert output.isfinite().all()
print(list(output.shape))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "library", "measure"), CASES)
def test_an_example_cuts_to_its_budget_and_exports(name, library, measure, tmp_path, capsys):
    pytest.importorskip(library, reason=f"the example needs {library}: make zoo-extras")
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    figures = example.main(150, tmp_path)
    assert 0.25 < figures["small macs"] / figures["macs"] <= 1 / 3 * 1.01
    better = -1 if measure == "error" else 1
    assert better * figures[f"small {measure}"] > better * figures[measure] - 0.05
    assert f"wrote {tmp_path / name}.pt2" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-c", OPENS, str(tmp_path / f"{name}.pt2")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
