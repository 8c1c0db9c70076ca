import contextlib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dms_bench.config.document import read_document
from dms_bench.errors import UserError


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "suite.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_document(path)

    return read


def test_anchors_and_merge_keys(read):
    content = read("base: &base {a: 1, b: [x, 2.5, null, true]}\nother: {<<: *base, a: 3}\nlist: [*base]\n")
    assert content["other"] == {"a": 3, "b": ["x", 2.5, None, True]}
    assert content["list"] == [content["base"]]


def test_dates_stay_text(read):
    assert read("day: 2024-05-07") == {"day": str(date(2024, 5, 7))}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2", "line 1, column 9: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n b: 2", "line 2, column 3: mapping values are not allowed here"),
        ("a: *nothing", "line 1, column 4: found undefined alias 'nothing'"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' occurs twice"),
        ("x: {y: {b: 2, b: 3}}", "line 1, column 15: the key 'b' occurs twice"),
        ("1: x", "line 1, column 1: the key '1' is not text; quote it"),
        ("no: x", "line 1, column 1: the key 'no' is not text; quote it"),
        ("a: &a [1, *a]", "line 1, column 4: an anchor that contains itself"),
        ("a: !!set {x}", "line 1, column 4: unknown tag tag:yaml.org,2002:set"),
        ("a: !!python/name:os.system x", "line 1, column 4: unknown tag tag:yaml.org,2002:python/name:os.system"),
        ('a: "\\ud800"', "line 1, column 4: '\\ud800' is not text"),
        ("a: [1, " + "7" * 101 + "]", "line 1, column 8: a number of 101 digits"),
        ("a: 010", "line 1, column 4: 010 is an octal number to YAML: leave out the zero in front"),
        ("a: 1:30", "line 1, column 4: 1:30 is a number of base 60 to YAML: quote it"),
        ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        (b"a: \xff", "not UTF-8 text (byte 4)"),
        ("a: " + "[" * 60 + "]" * 60, "line 1, column 54: nested more than 50 deep"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_plain_document_is_refused_in_one_line(read, text, line):
    with pytest.raises(UserError) as caught:
        read(text)
    message = str(caught.value).partition("suite.yaml: ")[2]
    assert message == line


def test_anchors_that_blow_up_are_refused_quickly(read):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(UserError, match="more than 100000 values"):
        read("\n".join(lines))


def test_numbers_too_long_to_read(read):
    with pytest.raises(UserError, match=r"suite\.yaml: "):
        read("a: " + "9" * 10_000)


def test_a_missing_file_is_answered_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks" / "paper").mkdir(parents=True)
    (tmp_path / "benchmarks" / "paper" / "table02.yaml").touch()
    (tmp_path / "quick.yaml").touch()
    with pytest.raises(UserError, match=r"qick\.yaml: no such file; did you mean 'quick\.yaml'\?"):
        read_document(Path() / "qick.yaml")
    with pytest.raises(UserError, match=r"did you mean 'benchmarks/paper/table02\.yaml'\?"):
        read_document(Path() / "table2.yaml")


def test_a_folder_is_no_suite(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        read_document(tmp_path)


@given(st.one_of(st.binary(), st.text("[]{}:,-&*!|>'\"%@`#?<a1 \n\t~=.")))
def test_any_bytes_are_a_document_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "suite.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with contextlib.suppress(UserError):  # anything else is a traceback for a user's mistake
        read_document(path)
