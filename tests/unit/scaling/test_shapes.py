"""Examples that are written down as shapes."""

import pytest
import torch

from dms_bench.scaling.shapes import example_of_shapes


def test_a_shape_is_one_tensor():
    example = example_of_shapes([2, 3, 8, 8])
    assert example.alone
    assert example.args[0].shape == (2, 3, 8, 8)
    assert torch.equal(example.args[0], example_of_shapes([2, 3, 8, 8]).args[0])


def test_a_list_of_shapes_gives_positional_arguments():
    first, second = example_of_shapes([[2, 3], {"shape": [2, 4], "below": 5}]).args
    assert first.dtype == torch.float
    assert second.dtype == torch.long
    assert 0 <= int(second.min()) <= int(second.max()) < 5


def test_a_mapping_gives_keyword_arguments_and_nests():
    example = example_of_shapes(
        {
            "mask": {"shape": [2, 4], "value": True},
            "images": [[[3, 8, 8], [3, 8, 8]]],
            "spectrum": {"shape": [2, 4], "dtype": "cfloat"},
            "scale": {"shape": [], "value": 2.0},
            "mode": "nearest",
        }
    )
    assert example.kwargs["mask"].dtype == torch.bool
    assert [image.shape for image in example.kwargs["images"][0]] == [(3, 8, 8), (3, 8, 8)]
    assert example.kwargs["spectrum"].dtype == torch.cfloat
    assert float(example.kwargs["scale"]) == 2
    assert example.kwargs["mode"] == "nearest"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shape": 3}, "3 is no shape"),
        ([{"shape": [2, -1]}], "is no shape"),
        ([{"shape": [2, 3], "bellow": 5}], "unknown field 'bellow'"),
        ([{"shape": [2, 3], "dtype": "flaot"}], "torch has no type 'flaot'"),
    ],
)
def test_what_describes_no_tensor_is_said(content, message):
    with pytest.raises(ValueError, match=message):
        example_of_shapes(content)


@pytest.mark.parametrize("content", ["image", {"mode": "nearest"}, None])
def test_an_example_without_a_tensor_is_refused(content):
    with pytest.raises(TypeError, match="no tensor"):
        example_of_shapes(content)
