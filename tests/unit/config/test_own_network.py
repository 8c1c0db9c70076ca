"""Networks of one's own: found by name, told apart by their code."""

import importlib
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from dms_bench.config import own_network
from dms_bench.config.base import Written
from dms_bench.config.own_network import digest_of, is_own, maker_of
from dms_bench.config.supernet import SupernetSpec
from dms_bench.errors import UserError
from dms_bench.methods.controls.spec import Designed

FILES = {
    "ournets/__init__.py": "",
    "ournets/small.py": """\
from . import blocks
from .deep.sizes import WIDTH
import outside

def build():
    return WIDTH
""",
    "ournets/blocks.py": "def block(): pass\n",
    "ournets/deep/__init__.py": "",
    "ournets/deep/sizes.py": "WIDTH = 3\n",
    "ournets/unused.py": "OTHER = 1\n",
    "outside.py": "import json\n",
}


@pytest.fixture
def nets(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ournets", "outside")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    own_network.maker_of.cache_clear()
    own_network.digest_of.cache_clear()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("nets.small:build", True),
        ("nets:Net", True),
        ("resnet18", False),
        ("hf-hub:timm/resnet18", False),
        ("hf_hub:resnet18", False),
        ("torchvision:resnet18", False),
        ("local-dir:/models/a", False),
        ("resnet18.a1_in1k", False),
        ("C:/models", False),
        ("nets:", False),
    ],
)
def test_names_of_ones_own(name, own):
    assert is_own(name) == own


def test_a_function_is_found_in_the_working_folder(nets):
    assert maker_of("ournets.small:build")() == 3


@pytest.mark.parametrize("changed", ["ournets/small.py", "ournets/blocks.py", "ournets/deep/sizes.py", "outside.py"])
def test_the_digest_changes_with_all_that_is_imported(nets, changed):
    before = digest_of("ournets.small:build")
    forget()
    assert digest_of("ournets.small:build") == before
    forget()
    with Path(changed).open("a") as file:
        file.write("# another line\n")
    assert digest_of("ournets.small:build") != before


def test_the_digest_stays_where_nothing_of_it_changes(nets):
    before = digest_of("ournets.small:build")
    forget()
    Path("ournets/unused.py").write_text("OTHER = 2\n")
    assert digest_of("ournets.small:build") == before


def test_the_digest_is_part_of_the_supernet(nets):
    spec = SupernetSpec(model="ournets.small:build")
    assert spec.code == digest_of("ournets.small:build")
    assert SupernetSpec.model_validate(spec.model_dump()) == spec
    assert "code" not in SupernetSpec(model="resnet18").model_dump()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ournets.smal:build", "no module 'ournets.smal' is installed or in "),
        ("nowhere:build", "no module 'nowhere' is installed or in "),
        ("ournets.small:biuld", "ournets.small \\(.*\\) has no function 'biuld'; .*'build'"),
        ("ournets.deep.sizes:WIDTH", "has no function 'WIDTH'"),
        ("ournets.broken:build", "module 'ournets.broken' cannot be imported: ZeroDivisionError: division by zero"),
        (
            "ournets.needy:build",
            "module 'ournets.needy' cannot be imported: ModuleNotFoundError: No module named 'numpi'",
        ),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(nets, model, message):
    Path("ournets/broken.py").write_text("1 / 0\n")
    Path("ournets/needy.py").write_text("import numpi\n")
    with pytest.raises(UserError, match=message) as caught:
        maker_of(model)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError) as refused:
        SupernetSpec(model=model)
    (error,) = refused.value.errors()
    assert error["loc"] == ("model",)


def test_a_module_that_loads_what_is_asked_for_names_it(nets):
    (nets / "lazy.py").write_text(
        "def __dir__(): return ['build_all']\ndef __getattr__(name): raise AttributeError(name)\n"
    )
    with pytest.raises(UserError, match=r"has no function 'build'; did you mean 'build_all'\?$"):
        maker_of("lazy:build")
    (nets / "lazy_and_empty.py").write_text("def __dir__(): return []\n")
    with pytest.raises(UserError, match=r"has no function 'build'; there is none$"):
        maker_of("lazy_and_empty:build")


def test_what_has_no_source_is_a_mistake_like_any_other(nets):
    for spec in (SupernetSpec, Designed):
        with pytest.raises(ValidationError, match="its module has no source"):
            spec.model_validate({"model": "builtins:print"})
    (nets / "angry.py").write_text("def __getattr__(name): raise RuntimeError(f'no {name}')\n")
    with pytest.raises(UserError, match=r"^network 'angry:net': RuntimeError: no net$"):
        maker_of("angry:net")


def test_a_digest_is_not_written_by_hand_and_read_back(nets):
    content = {"model": "ournets.small:build", "code": "0123456789ab"}
    assert SupernetSpec.model_validate(content).code == "0123456789ab"  # of a trial that was recorded
    with pytest.raises(ValidationError, match="is filled in, with a digest of the code"):
        SupernetSpec.model_validate(content, context=Written(None))
    assert SupernetSpec.model_validate({"model": content["model"]}, context=Written(None)).code
    with pytest.raises(ValidationError, match=r"unknown field; did you mean 'model'\?"):
        SupernetSpec.model_validate({"model": content["model"], "cod": 1})


def test_a_package_without_an_init_file_is_read_as_well(nets):
    Path("ournets/__init__.py").unlink()
    before = digest_of("ournets.small:build")
    forget()
    Path("ournets/blocks.py").write_text("def block():\n    return 1\n")
    assert digest_of("ournets.small:build") != before


def test_a_neighbour_that_does_not_parse_changes_the_digest_and_no_more(nets):
    Path("ournets/blocks.py").write_text("def block(:\n")
    Path("ournets/small.py").write_text("def build():\n    from . import blocks\n")
    assert digest_of("ournets.small:build")


def test_a_module_that_ends_the_program_or_has_no_source_is_refused(nets):
    Path("ournets/script.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(UserError, match="cannot be imported: SystemExit: 3"):
        maker_of("ournets.script:main")
    with pytest.raises(UserError, match="has no source"):
        digest_of("sys:exit")
