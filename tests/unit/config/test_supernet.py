"""What a suite says about the supernet and its search space, and the lines that mistakes get."""

import pytest

from dms_bench.config.problems import InvalidSpecError
from dms_bench.config.supernet import SupernetSpec, parse_supernet


def line(**content) -> str:
    with pytest.raises(InvalidSpecError) as error:
        parse_supernet({"model": "net", **content})
    return str(error.value)


def test_coarse_groups_and_stages():
    space = {"coarse": [{"groups": "*.fc1", "step": 96, "min": 384}, {"stages": "blocks", "min": 12}]}
    hidden, blocks = parse_supernet({"model": "net", "space": space}).space.coarse
    assert (hidden.groups, hidden.stages, hidden.step, hidden.min, hidden.max) == ("*.fc1", None, 96, 384, None)
    assert (blocks.groups, blocks.stages, blocks.min) == (None, "blocks", 12)


def test_the_order_of_coarse_entries_matters_to_the_hash():
    entries = [{"groups": "a", "step": 2}, {"groups": "*", "step": 4}]
    one, other = (SupernetSpec(model="net", space={"coarse": order}) for order in (entries, entries[::-1]))
    assert one.content_hash() != other.content_hash()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"step": 8}, "needs either 'groups' or 'stages', a pattern of their names"),
        ({"groups": "a", "stages": "b"}, "needs either 'groups' or 'stages', a pattern of their names"),
        ({"stages": "a", "step": 2}, "step 2 is for groups: the blocks of stages are searched one by one"),
        ({"groups": "a", "min": 9, "max": 8}, "min 9 is above max 8"),
    ],
)
def test_mistakes_in_a_coarse_entry_are_one_line(entry, expected):
    assert line(space={"coarse": [entry]}) == f"supernet.space.coarse[0]: {expected}"


def test_mistakes_in_its_fields_name_the_field():
    assert line(space={"coarse": [{"groups": "a", "step": 0}]}) == (
        "supernet.space.coarse[0].step: 0 must be at least 1"
    )
    assert line(space={"coarse": [{"groups": "a", "minimum": 3}]}) == (
        "supernet.space.coarse[0].minimum: unknown field; did you mean 'min'?"
    )


def test_what_is_searched_of_attention_is_a_choice():
    assert line(space={"attention": "all"}) == (
        "supernet.space.attention: 'all' is not a choice; choose from 'both', 'dims', 'heads'"
    )
