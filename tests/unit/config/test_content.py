"""Digests of files and folders: what they notice, and that they are taken as the documentation says."""

import hashlib

import pytest

from dms_bench.config import content


@pytest.fixture(autouse=True)
def anew():
    content.forget()


def digest(path, *arguments):
    content.forget()
    return content.digest_of_path(str(path), *arguments)


def test_a_small_file_is_read_whole(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_bytes(b"nc: 80")
    assert digest(path) == hashlib.sha256(b"6\0nc: 80").hexdigest()[:12]


def test_of_a_large_file_samples_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "WHOLE", 1000)
    monkeypatch.setattr(content, "SAMPLES", 5)
    monkeypatch.setattr(content, "SAMPLE", 10)
    data = bytes(number * 7 % 251 for number in range(1210))
    path = tmp_path / "weights"
    path.write_bytes(data)
    parts = b"".join(data[start : start + 10] for start in (0, 300, 600, 900, 1200))
    assert digest(path) == hashlib.sha256(b"1210\0" + parts).hexdigest()[:12]


def test_a_folder_is_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.json").write_text("1")
    (tmp_path / "y.txt").write_text("2")
    before = digest(tmp_path)
    for hidden in (".git", ".cache"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "z").write_text("3")
    assert digest(tmp_path) == before
    json_alone = digest(tmp_path, (".json",))
    (tmp_path / "y.txt").write_text("5")
    assert digest(tmp_path) != before
    assert digest(tmp_path, (".json",)) == json_alone
    (tmp_path / "y.txt").write_text("2")
    assert digest(tmp_path) == before
    (tmp_path / "y.txt").rename(tmp_path / "z.txt")
    assert digest(tmp_path) != before


def test_a_copy_elsewhere_is_the_same(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert digest(tmp_path / "one") == digest(tmp_path / "other")


def test_of_very_many_files_the_sizes_count_and_some_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "FILES", 2)
    for number in range(4):
        (tmp_path / f"{number}").write_text("a")
    before = digest(tmp_path)
    (tmp_path / "1").write_text("b")
    assert digest(tmp_path) == before, "not among those that are read"
    (tmp_path / "1").write_text("bb")
    assert digest(tmp_path) != before
    (tmp_path / "1").write_text("a")
    (tmp_path / "2").write_text("b")
    assert digest(tmp_path) != before


@pytest.mark.parametrize("name", ["nothing", "a\0b", ""])
def test_nothing_has_no_digest(tmp_path, name):
    assert digest(tmp_path / "none" / name if name != "a\0b" else name) is None


def test_a_file_is_read_once_until_it_is_forgotten(tmp_path):
    path = tmp_path / "file"
    path.write_text("1")
    before = content.digest_of_path(str(path))
    path.write_text("2")
    assert content.digest_of_path(str(path)) == before
    content.forget()
    assert content.digest_of_path(str(path)) != before
