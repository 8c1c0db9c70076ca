from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from dms_bench.report import format as fmt
from dms_bench.report import plot_architecture


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (1_570_000, "1.57M"),
        (253_000, "253k"),
        (999_999, "1.00M"),
        (4.1e9, "4.10G"),
        (12, "12.0"),
        (None, "-"),
        (0, "0"),
    ],
)
def test_counts(amount: float | None, text: str) -> None:
    assert fmt.count(amount) == text


@pytest.mark.parametrize(
    ("days", "kind", "text"),
    [
        (2.0, "gpu", "2.00 GPU-days"),
        (0.5, "gpu", "12.0 GPU-h"),
        (90 / 86400, "cpu", "1.50 core-min"),
        (0.02 / 86400, "cpu", "0.020 core-s"),
        (0.0, "cpu", "0"),
        (None, "cpu", "-"),
        (1.0, "", "1.00 DEVICE-days"),
    ],
)
def test_costs_name_their_device(days: float | None, kind: str, text: str) -> None:
    assert fmt.cost(days, kind).replace("device", "DEVICE") == text


def test_measures_have_their_digits_and_their_unit() -> None:
    assert fmt.measure(71.34, 0.8, 1) == "71.3 ± 0.8"
    assert fmt.measure(71.34, None, 1) == "71.3"
    assert fmt.measure(-3.1, 1.0, 1, signed=True) == "-3.1 ± 1.0"
    assert fmt.measure(12.3456, 0.5, 3) == "12.346 ± 0.500"
    assert fmt.measure(None, None, 1) == "-"
    assert fmt.measure(float("nan"), None, 1) == "nan"
    assert (fmt.heading("top1", "%"), fmt.heading("perplexity", "")) == ("top1 [%]", "perplexity")


@pytest.mark.parametrize(("value", "text"), [(0.834, "0.83"), (12.345, "12.3"), (1234.5, "1234"), (0.00123, "0.0012")])
def test_digits(value: float, text: str) -> None:
    assert fmt.three_digits(value) == text


def test_an_architecture_is_drawn_with_every_name_and_size(tmp_path: Path) -> None:
    import matplotlib as mpl

    sizes = {f"layer{index}.conv": (index + 1, 64) for index in range(40)} | {"stage 1": (0, 3)}
    backend = mpl.get_backend()
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_architecture(sizes, {"stage 1"}, tmp_path / "plot.svg")
    plot_architecture(sizes, (), tmp_path / "plot.png")
    plot_architecture({}, (), tmp_path / "empty.png")
    assert mpl.get_backend() == backend
    words = {"".join(text.itertext()).strip() for text in ElementTree.parse(tmp_path / "plot.svg").iter() if text.text}
    assert {*sizes, "40 / 64", "0 / 3 blocks"} <= words
    for name in ("plot.png", "empty.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
